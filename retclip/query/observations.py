"""Observations on disk: what the networks said of every picture, so that metrics and fusion run again without them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError

from retclip.core.errors import InputError, require
from retclip.core.files import prepare_folder, write_bytes, write_json
from retclip.core.masks import Frame, MaskSet
from retclip.core.panoptic import ids_to_rgb, rgb_to_ids
from retclip.core.sealed import Arrays, read_sealed, seal
from retclip.query.atoms import AtomOutline, Atoms, outline, split_into_atoms
from retclip.query.scoring import Observation

_TABLES = ("clip", "in_vocab", "void", "valid")
_NOTES = {"sha256", "origin", "height", "width"}
_AGAIN = "Observe that picture again, into the same --out: retclip segment --keep, or retclip eval"


@dataclass(frozen=True)
class ObservedImage:
    """Everything the networks said of one picture: its file digest, proposals, and their keys and scores."""

    sha256: str
    masks: MaskSet
    observation: Observation


@dataclass(frozen=True)
class OutlinedImage:
    """The same without pixels: file digest, atoms, keys and scores.

    Atoms are None for logits, and for binary masks that were stored before their outlines were.
    """

    sha256: str
    outline: AtomOutline | None
    observation: Observation


class ObservationStore:
    """A folder of observed pictures, valid for one set of models and proposals.

    Binary masks are kept as a partition (`query/atoms.py`), its pixels inside a PNG; keys and scores as they are.
    Nothing in it is code: safetensors and PNG only. Files of the version before have no digests and are read unchecked.

    Args:
        folder: made when missing.
        identity: plain JSON of what the observations depend on; a folder made under another one is refused.
        logits: how logits of masks are kept; float16 halves the disk and moves the edges of masks a little.

    Raises:
        InputError: E165 when the folder belongs to another run.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], logits: type[np.floating[Any]] = np.float16) -> None:
        self.folder, self._logits = folder, logits
        prepare_folder(folder)
        path = folder / "identity.json"
        if path.is_file():
            _check_identity(path, identity)
        else:
            write_json(path, dict(identity))

    def __contains__(self, image_id: str) -> bool:
        return self._path(image_id).is_file()

    def store(self, image_id: str, image: ObservedImage) -> None:
        """Write one picture."""
        tables = {name: getattr(image.observation, name) for name in _TABLES}
        arrays = {name: table.cpu().numpy() for name, table in tables.items() if table is not None}
        arrays["keys"] = image.observation.keys.cpu().numpy().astype(np.float32)
        if image.masks.masks.dtype == torch.bool:
            atoms = split_into_atoms(image.masks.masks.cpu().numpy())
            arrays["atoms"] = np.frombuffer(_png(atoms), np.uint8)
            arrays["inside"] = np.packbits(atoms.inside, axis=1)
            found = outline(atoms)
            arrays |= {"size": found.size, "box": found.box, "touching": found.touching}
        else:
            arrays["logits"] = image.masks.masks.cpu().numpy().astype(self._logits)
        height, width = image.masks.image_size
        notes = {"sha256": image.sha256, "origin": image.masks.origin, "height": str(height), "width": str(width)}
        if image.masks.frame is not None:
            notes["frame"] = json.dumps([image.masks.frame.padded, image.masks.frame.content])
        write_bytes(self._path(image_id), seal(arrays, notes))

    def load(self, image_id: str) -> ObservedImage:
        """Read one picture. Raises InputError E165 for a damaged or missing file."""
        arrays, notes = self._read(image_id)
        observation = _observation(arrays)
        size = (int(notes["height"]), int(notes["width"]))
        if "logits" in arrays:
            masks = torch.from_numpy(arrays["logits"]).float()
        else:
            masks = torch.from_numpy(Atoms(_index(arrays), _inside(arrays)).masks())
        return ObservedImage(notes["sha256"], MaskSet(masks, size, notes["origin"], _frame(notes, size)), observation)

    def load_outline(self, image_id: str) -> OutlinedImage:
        """Read one picture but for its pixels, which takes a hundredth of the time. Raises InputError E165."""
        arrays, notes = self._read(image_id, without=("atoms", "logits"))
        inside = _inside(arrays) if "size" in arrays else None
        parts = (arrays[name] for name in ("size", "box", "touching"))
        return OutlinedImage(
            notes["sha256"], None if inside is None else AtomOutline(inside, *parts), _observation(arrays)
        )

    def load_index(self, image_id: str) -> npt.NDArray[np.int32]:
        """(H, W) atom of every pixel of a picture with binary masks."""
        return _index(self._read(image_id)[0])

    def load_keys(self, image_id: str) -> tuple[str, npt.NDArray[np.float32]]:
        """Digest of the picture's file and the keys (N, D) of its proposals."""
        arrays, notes = self._read(image_id, without=("atoms", "logits"))
        return notes["sha256"], arrays["keys"]

    def _read(self, image_id: str, without: Collection[str] = ()) -> tuple[Arrays, Mapping[str, str]]:
        path = self._path(image_id)
        try:
            arrays, notes = read_sealed(path, without, unsealed=True)
            complete = set(notes) >= _NOTES and "keys" in arrays
            require(complete, path.name, "keys, digest and size", sorted((*notes, *arrays)))
        except FileNotFoundError as error:
            why = f"What the networks said of {image_id} was kept there."
            raise InputError("E165", f"The observation {path} is missing.", why=why, fix=f"{_AGAIN}.") from error
        except (OSError, SafetensorError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise InputError(
                "E165", f"Cannot read the observation {path}.", why=why, fix=f"Delete it. {_AGAIN}."
            ) from error
        return arrays, notes

    def _path(self, image_id: str) -> Path:
        return self.folder / file_name(image_id)


def file_name(image_id: str) -> str:
    """The file of a picture; ids come from annotation files and may hold anything."""
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in image_id)[:80]
    digest = hashlib.sha256(image_id.encode("utf-8", errors="surrogatepass")).hexdigest()[:8]
    return f"{safe}-{digest}.safetensors"


def _frame(notes: Mapping[str, str], size: tuple[int, int]) -> Frame | None:
    if "frame" not in notes:
        return None
    padded, content = json.loads(notes["frame"])
    return Frame((padded[0], padded[1]), (content[0], content[1]), size)


def _check_identity(path: Path, identity: Mapping[str, Any]) -> None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError("E165", f"Cannot read {path}.", why=str(error), fix="Delete the folder.") from error
    wanted = json.loads(json.dumps(identity))
    if found != wanted:
        keys = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k)) if isinstance(found, dict) else []
        why = f"It was observed with other settings: {', '.join(keys) or 'unreadable identity'}."
        raise InputError("E165", f"{path.parent} belongs to another run.", why=why, fix="Choose another --out folder.")


def _png(atoms: Atoms) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(ids_to_rgb(atoms.index)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _observation(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Observation:
    tables = {name: torch.from_numpy(arrays[name]) if name in arrays else None for name in _TABLES}
    return Observation(torch.from_numpy(arrays["keys"]), **tables)


def _inside(arrays: Mapping[str, np.ndarray[Any, Any]]) -> npt.NDArray[np.bool_]:
    return np.unpackbits(arrays["inside"], axis=1, count=len(arrays["keys"])).astype(np.bool_)


def _index(arrays: Mapping[str, np.ndarray[Any, Any]]) -> npt.NDArray[np.int32]:
    return rgb_to_ids(np.asarray(Image.open(io.BytesIO(arrays["atoms"].tobytes()), formats=("PNG",))))
