"""Mask images of Open Images, loose or inside the published zip files, which are never unpacked."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retclip.core.errors import ImageError
from retclip.core.images import decode_annotation, read_annotation
from retclip.corpora.annotations import misfit

# The released masks have some kilobytes; a member may claim any size.
MAX_MEMBER_BYTES = 32 << 20
_MASK_NAME = re.compile(r"[0-9a-f]{16}_[A-Za-z0-9_]+_[0-9a-f]+\.png")
# FiftyOne's threshold. Masks with one bit decode to 0 and 1 and need another.
_THRESHOLD = 122


class MaskStore:
    """Mask images by name.

    A mask lies in one of the folders, in a subfolder called by the first digit of its image id (either case), or in
    the folder's `*masks-<digit>.zip`. One zip file is open at a time, as pictures come in the order of their ids; its
    directory takes about 0.5 kB of memory per mask, 80 MB for one sixteenth of the training masks.

    Args:
        folders: where to look.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._archives = [path for folder in folders for path in sorted(folder.glob("*masks-?.zip"))]
        self._open: tuple[Path, zipfile.ZipFile] | None = None

    def read(self, name: str, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """A mask at the size (height, width) of its picture, by nearest neighbour: masks have sizes of their own.

        Raises:
            ImageError: E116 if there is no such mask or its name is none of a mask, E111..E114 if it is damaged.
        """
        if not _MASK_NAME.fullmatch(name):
            raise misfit(repr(name[:100]), "The name is not <image id>_<class>_<box id>.png.")
        values = self._find(name)
        plane = values[..., 0] if values.ndim == 3 else values
        return _resize(plane > (_THRESHOLD if plane.max(initial=0) > 1 else 0), size)

    def _find(self, name: str) -> npt.NDArray[np.integer]:
        digit = name[0]
        for folder in self._folders:
            for place in (folder / name, folder / digit / name, folder / digit.upper() / name):
                if place.is_file():
                    return read_annotation(place)
        for archive in self._archives:
            data = self._member(archive, name) if archive.stem.casefold().endswith(f"-{digit}") else None
            if data is not None:
                return decode_annotation(data, f"{archive}:{name}")
        raise misfit(name, "This mask image is in no folder and no zip file of masks.")

    def _member(self, archive: Path, name: str) -> bytes | None:
        try:
            bundle = self._bundle(archive)
            entry = bundle.NameToInfo.get(name)
            if entry is None:
                return None
            # Other packings are unpacked in pieces without bound.
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile("It is packed in an unknown way.")
            # What the directory claims may be a lie, so the real size is bounded.
            with bundle.open(entry) as file:
                data = file.read(MAX_MEMBER_BYTES + 1)
        # RuntimeError: the member is encrypted.
        except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError) as error:
            raise ImageError(
                "E114", f"{archive}:{name} is damaged.", why=str(error), fix="Download the zip file again."
            ) from error
        if len(data) > MAX_MEMBER_BYTES:
            raise ImageError("E113", f"{archive}:{name} is too large.", why=f"The limit is {MAX_MEMBER_BYTES:,} bytes.")
        return data

    def _bundle(self, archive: Path) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != archive:
            if self._open is not None:
                self._open[1].close()
            self._open = (archive, zipfile.ZipFile(archive))
        return self._open[1]


def _resize(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(np.intp) for n, m in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]
