"""Writing what a user asked for: the files of one image, and the index of a batch."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from retclip.core.errors import InputError, require
from retclip.core.files import prepare_folder, write_bytes, write_json
from retclip.core.results import SegmentationResult
from retclip.core.vocabulary import Vocabulary
from retclip.reports import coco
from retclip.reports.html import ReportItem, Thumbnail, write_html_report
from retclip.reports.overlay import draw_overlay
from retclip.reports.provenance import segments_document

DEFAULT_FORMATS: Final = ("panoptic", "coco", "overlay", "segments")
PICTURED: Final = frozenset({"overlay", "html"})  # formats that show the picture itself
LAYERED: Final = frozenset({"semantic", "instances"})  # formats of what lies under the map


def write_outputs(
    result: SegmentationResult,
    pixels: npt.NDArray[np.uint8] | None,
    folder: Path,
    formats: Collection[str] = DEFAULT_FORMATS,
    thumbnail: Thumbnail | None = None,
) -> list[Path]:
    """Write one image's files into `folder`, which is made if it is missing.

    Args:
        result: what was found.
        pixels: (H, W, 3) uint8 RGB, the picture it was found in; only formats of `PICTURED` need it.
        folder: usually `out/<stem>`.
        formats: any of `FORMATS`.
        thumbnail: encoded picture of a stored segment by its id, or None where there is none; for `html`.

    Returns:
        The files, in the order of `FORMATS`. Each appears whole or not at all; existing ones are replaced.

    Raises:
        InputError: E132 for an unknown format; E131 if the folder cannot be written.
        ResourceError: E401 if the disk is full.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise InputError(
            "E132",
            f"Unknown output format: {', '.join(unknown)}.",
            why=f"Known are {', '.join(FORMATS)}.",
            fix=f"For example --formats {','.join(DEFAULT_FORMATS)}",
        )
    prepare_folder(folder)
    scene = _Scene(result, pixels, folder, thumbnail or _no_thumbnail)
    return [path for name, write in FORMATS.items() if name in formats for path in write(scene)]


@dataclass(frozen=True)
class _Scene:
    """What every format's writer is given."""

    result: SegmentationResult
    picture: npt.NDArray[np.uint8] | None
    folder: Path
    thumbnail: Thumbnail

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        if self.picture is None:
            raise ValueError(f"{self.result.image} is to be shown without its pixels")
        return self.picture


def _no_thumbnail(segment_id: int) -> bytes | None:
    return None


def _write_panoptic(scene: _Scene) -> list[Path]:
    return [write_bytes(scene.folder / "panoptic.png", coco.panoptic_png(scene.result.panoptic.ids))]


def _write_coco(scene: _Scene) -> list[Path]:
    entry = coco.panoptic_entry(scene.result, "panoptic.png")
    return [write_json(scene.folder / "panoptic.json", coco.panoptic_document([entry], scene.result.vocabulary))]


def _write_overlay(scene: _Scene) -> list[Path]:
    buffer = io.BytesIO()
    draw_overlay(scene.pixels, scene.result).save(buffer, "JPEG", quality=92, subsampling=0)
    return [write_bytes(scene.folder / "overlay.jpg", buffer.getvalue())]


def _write_segments(scene: _Scene) -> list[Path]:
    return [write_json(scene.folder / "segments.json", segments_document(scene.result))]


def _write_html(scene: _Scene) -> list[Path]:
    path = scene.folder / "report.html"
    write_html_report(path, [ReportItem(scene.result, scene.pixels)], scene.result.run, scene.thumbnail)
    return [path]


def _write_semantic(scene: _Scene) -> list[Path]:
    return [
        write_bytes(scene.folder / "semantic.png", coco.semantic_png(scene.result)),
        write_json(scene.folder / "semantic.json", coco.semantic_document(scene.result)),
    ]


def _write_instances(scene: _Scene) -> list[Path]:
    return [write_json(scene.folder / "instances.json", coco.instances_document(scene.result))]


FORMATS: Final[Mapping[str, Callable[[_Scene], list[Path]]]] = {
    "panoptic": _write_panoptic,
    "coco": _write_coco,
    "overlay": _write_overlay,
    "segments": _write_segments,
    "html": _write_html,
    "semantic": _write_semantic,
    "instances": _write_instances,
}


class BatchWriter:
    """A whole batch in COCO panoptic form, ready for evaluation: `panoptic/<stem>.png`, `panoptic.json`, `run.json`.

    The two indices are written when the block ends without an exception; maps are written as they come. Only the
    entries of the index stay in memory.

    Args:
        folder: made if it is missing.
        update: keep what the indices of an earlier batch say of images that do not come again.

    Raises:
        InputError: E131 if the folder cannot be written; E343 if the indices to update cannot be read.
    """

    def __init__(self, folder: Path, update: bool = False) -> None:
        self._folder = folder
        self._entries: dict[int | str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._images: dict[int | str, dict[str, Any]] = {}
        self._names: dict[int | str, str] = {}
        self._vocabulary: Vocabulary | None = None
        self._run: Mapping[str, Any] = {}
        prepare_folder(folder / "panoptic")
        if update:
            self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._vocabulary is not None:
            document = coco.panoptic_document(list(self._entries.values()), self._vocabulary)
            write_json(self._folder / "panoptic.json", document)
            run = {"schema": "retclip.run/1", "run": dict(self._run), "images": list(self._images.values())}
            write_json(self._folder / "run.json", run)

    def add(self, result: SegmentationResult, png: bytes | None = None) -> Path:
        """Write one map and note it for the index; returns the PNG. `png` is the map where it was encoded before.

        Raises:
            InputError: E133 if an earlier image of the batch has the same name apart from folder and suffix.
            ResourceError: E401 if the disk is full.
        """
        require(
            self._vocabulary in (None, result.vocabulary), "vocabulary of a batch", "the same for all", result.image
        )
        key = coco.image_id(result.image)
        if key in self._names:
            raise InputError(
                "E133",
                f"{result.image} and {self._names[key]} would be one image in panoptic.json.",
                why=f"COCO names images by the file's stem; both are {key}.",
                fix="Rename one of them, or segment them in two runs with different --out folders.",
            )
        path = self._folder / "panoptic" / f"{PurePath(result.image).stem}.png"
        write_bytes(path, coco.panoptic_png(result.panoptic.ids) if png is None else png)
        self._names[key] = result.image
        self._entries[key] = coco.panoptic_entry(result, path.name)
        self._images[key] = {
            "file": result.image,
            "sha256": result.image_sha256,
            "segments": len(result.explanations),
            "seconds": round(result.seconds, 3),
        }
        self._vocabulary, self._run = result.vocabulary, result.run
        return path

    def _read(self) -> None:
        try:
            found = json.loads((self._folder / "panoptic.json").read_bytes())
            run = json.loads((self._folder / "run.json").read_bytes())
            self._entries = {a["image_id"]: (i, a) for i, a in zip(found["images"], found["annotations"], strict=True)}
            self._images = {coco.image_id(image["file"]): image for image in run["images"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                "E343",
                f"The results in {self._folder} cannot be brought up to date.",
                why=f"{type(error).__name__}: {error}",
                fix="Write all of them again: retclip rescore --all",
            ) from error
