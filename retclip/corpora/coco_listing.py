"""What COCO's kinds of annotation share: splits, folders of photos, captions and the list of photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retclip.core.errors import InputError
from retclip.corpora.annotations import read_json
from retclip.ports.corpora import CorpusImage, ImageLabel

NAME = "coco"


def matching_splits(annotations: Path, kinds: Sequence[str], split: str | None) -> list[str]:
    """Splits with a file `<kind>_<split>.json`: the one called so, else those that start so; None takes train."""
    splits = _splits(annotations, kinds)
    if split is None and len(splits) == 1:
        return splits
    return [name for name in splits if name == split] or [n for n in splits if n.startswith(split or "train")]


def choose_split(annotations: Path, kinds: Sequence[str], split: str | None) -> str:
    """The one split that matches. Raises InputError E103 for none or several."""
    matching = matching_splits(annotations, kinds, split)
    if len(matching) == 1:
        return matching[0]
    splits = _splits(annotations, kinds)
    archive = "panoptic_annotations_trainval2017.zip" if "panoptic" in kinds else "annotations_trainval2017.zip"
    raise InputError(
        "E103",
        f"No annotations of split '{split or 'train'}' in {annotations}.",
        why=f"Found the splits: {', '.join(splits)}." if splits else f"There is no {kinds[0]}_<split>.json.",
        fix="Name one with --split." if splits else f"Unpack {archive} into this folder.",
    )


def first_folder(*places: Path) -> Path:
    """The first place that is a folder. Raises InputError E103, pointing at a zip file that lies there instead."""
    for place in places:
        if place.is_dir():
            return place
    zipped = [str(place.with_suffix(".zip")) for place in places if place.with_suffix(".zip").is_file()]
    raise InputError(
        "E103",
        f"{places[0]} does not exist.",
        why=f"Nor does {places[1]}.",
        fix=f"Unpack {zipped[0]}." if zipped else "Download and unpack it there.",
    )


def read_captions(path: Path) -> dict[str, list[str]]:
    """Captions by image id; none where there is no such file. Raises what other content of it leads to."""
    sentences: defaultdict[str, list[str]] = defaultdict(list)
    for entry in read_json(path)["annotations"] if path.is_file() else ():
        sentences[str(entry["image_id"])].append(str(entry["caption"]).strip())
    return sentences


def list_images(
    content: Mapping[str, Any],
    folder: Path,
    split: str,
    labels: Callable[[str], Iterable[str]],
    sentences: Mapping[str, list[str]],
) -> Iterator[CorpusImage]:
    """The photos of an annotation file in the order of their ids, whether they are on disk or not.

    Args:
        content: the parsed file.
        folder: where its photos lie; a path in the file counts by its last part only.
        split: its name.
        labels: names of the classes on a photo, by image id; one may be given several times.
        sentences: captions by image id.
    """
    licenses = {entry["id"]: str(entry["name"]) for entry in content.get("licenses", ())}
    # Ids are numbers of different lengths, or strings of one length.
    for entry in sorted(content["images"], key=lambda image: (len(str(image["id"])), str(image["id"]))):
        image_id = str(entry["id"])
        yield CorpusImage(
            source=NAME,
            image_id=image_id,
            path=folder / Path(str(entry["file_name"])).name,
            split=split,
            labels=tuple(ImageLabel(name, "human", 1.0, True) for name in dict.fromkeys(labels(image_id))),
            captions=tuple(sentences.get(image_id, ())),
            license=licenses.get(entry.get("license"), ""),
            attribution=str(entry.get("flickr_url", "")),
        )


def _splits(annotations: Path, kinds: Sequence[str]) -> list[str]:
    return sorted({path.stem.removeprefix(f"{kind}_") for kind in kinds for path in annotations.glob(f"{kind}_*.json")})
