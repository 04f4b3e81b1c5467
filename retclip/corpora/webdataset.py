"""Webdatasets: pictures with captions and labels inside tar archives, as img2dataset writes them.

```
00000.tar    abc.jpg (jpeg, png, webp)   abc.txt: a caption   abc.json: caption, labels, url, license
             abc.cls: a class, by name or by its number in the given list
00000_stats.json, 00000.parquet          how many pictures an archive holds, if present
```
Members that follow each other and share the part of their name before the first dot are one sample. Archives are
streamed and never unpacked to disk; one sample is in memory, at most 64 MiB per member.
Format: https://github.com/webdataset/webdataset and https://github.com/rom1504/img2dataset
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from retclip.core.errors import InputError
from retclip.corpora.cells import parse_captions, parse_labels
from retclip.corpora.tar_members import BrokenArchive, Member, RefusedMember, read_members
from retclip.corpora.webdataset_shards import count_pictures, find_shards
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region, RegionKind

_PICTURES = ("jpg", "jpeg", "png", "webp")
_TEXTS = ("txt", "json", "cls")
_LABEL_FIELDS = ("labels", "classes", "label", "class")
_MAX_TEXT_BYTES = 1 << 20
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class _Sample:
    """key: path and name up to the first dot; parts: bytes by what stands behind it, in lower case."""

    key: str
    parts: dict[str, bytes] = field(repr=False)

    @property
    def picture(self) -> bytes | None:
        return next((self.parts[ending] for ending in _PICTURES if ending in self.parts), None)


class WebdatasetCorpus:
    """Pictures of tar archives in the order of the archives and their members.

    Args:
        place: a folder of archives, an archive, a list or pattern of archives, see `find_shards`.
        split: subfolder or beginning of names; None takes all archives of the folder.
        class_names: names of numbered classes; given, they are the classes of the corpus.

    Raises:
        InputError: E101 or E103 if there are no such archives.
    """

    name = "webdataset"

    def __init__(self, place: Path, split: str | None = None, class_names: Sequence[str] = ()) -> None:
        self.split = split or ""
        self._place, self._class_names = place, tuple(class_names)
        self._shards = find_shards(place, split)
        self._broken: dict[str, None] = {}
        self._refused: Counter[str] = Counter()

    @cached_property
    def classes(self) -> tuple[CorpusClass, ...]:
        """The given names, or else every label of the archives in alphabetical order; all count as things.

        Without given names this costs one reading of the archives, of headers and labels alone where they are not
        compressed.
        """
        names = self._class_names or sorted(set(self._survey()))
        return tuple(CorpusClass(name, name, (), True) for name in dict.fromkeys(names))

    def _survey(self) -> Iterator[str]:
        for shard in self._shards:
            for sample in self._samples(shard, _TEXTS):
                yield from self._labels(sample, self._facts(sample))

    def size(self) -> int | None:
        """Pictures that the files beside the archives state, None where one has none."""
        return count_pictures(self._shards)

    def images(self) -> Iterator[CorpusImage]:
        """Pictures with their bytes; the id is `<archive>/<key>`.

        Archives that end early give what is whole; `warnings` names them afterwards.

        Raises:
            InputError: E101 after the last archive if there was no picture, E106 if none had a label or caption.
        """
        self._broken.clear()
        self._refused.clear()
        pictures = labelled = 0
        for shard in self._shards:
            seen: set[str] = set()
            for sample in self._samples(shard, (*_PICTURES, *_TEXTS)):
                if sample.picture is None or sample.key in seen:
                    self._note(f"of {shard.name} have no picture or the key of another one")
                    continue
                seen.add(sample.key)
                image = self._image(shard, sample, sample.picture)
                pictures, labelled = pictures + 1, labelled + bool(image.labels or image.captions)
                yield image
        if not labelled:
            raise self._nothing(pictures)

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        """Archives have labels and captions only. Raises InputError E106."""
        raise InputError(
            "E106",
            f"A webdataset has no {kind}.",
            why="Its samples have labels and captions for whole pictures.",
            fix="Leave out --use-boxes and --use-masks.",
        )

    def warnings(self) -> list[str]:
        """Archives that end early and what was left out, as far as `images` was read."""
        return [*self._broken, *(f"{count:,} {what}" for what, count in self._refused.items())]

    def _samples(self, shard: Path, endings: Sequence[str]) -> Iterator[_Sample]:
        members = self._members(shard, tuple(f".{ending}" for ending in endings))
        for key, group in groupby(members, key=lambda member: _split_name(member.name)[0]):
            parts: dict[str, bytes] = {}
            for name, data in group:
                ending = _split_name(name)[1]
                if data is not None and ending in endings:
                    parts.setdefault(ending, data)
            yield _Sample(key, parts)

    def _members(self, shard: Path, endings: tuple[str, ...]) -> Iterator[Member]:
        try:
            for member in read_members(shard, endings):
                if isinstance(member, RefusedMember):
                    self._refused[f"members of {shard.name} are left out: {member.why}"] += 1
                else:
                    yield member
        except BrokenArchive as error:
            self._broken[f"{shard.name} is cut off or damaged ({error}); what stands before that is used"] = None

    def _image(self, shard: Path, sample: _Sample, picture: bytes) -> CorpusImage:
        facts = self._facts(sample)
        captions = (self._text(sample, "txt"), *self._texts(facts.get("caption")))
        lines = dict.fromkeys(" ".join(text.split()) for text in captions)
        return CorpusImage(
            source=self.name,
            image_id=f"{shard.name.partition('.')[0]}/{sample.key}",
            path=shard,
            split=self.split,
            labels=tuple(ImageLabel(name, "table", 1.0, True) for name in self._labels(sample, facts)),
            captions=tuple(line for line in lines if line),
            license=" ".join(self._texts(facts.get("license"))),
            attribution=" ".join(self._texts(facts.get("url"))),
            data=picture,
        )

    def _labels(self, sample: _Sample, facts: Mapping[str, Any]) -> tuple[str, ...]:
        found = [name for key in _LABEL_FIELDS for name in self._texts(facts.get(key), parse_labels)]
        for line in map(str.strip, self._text(sample, "cls").splitlines()):
            found.append(self._numbered(int(line)) if _NUMBER.fullmatch(line) else line)
        return tuple(dict.fromkeys(name for name in found if name))

    def _numbered(self, number: int) -> str:
        if not self._class_names:
            raise InputError(
                "E106",
                "The classes of this webdataset are numbers.",
                why=f"A .cls member says {number}; nothing says what that is.",
                fix="Pass the names in the order of their numbers with --class-names.",
            )
        if number >= len(self._class_names):
            self._note(f"have a class number above {len(self._class_names) - 1}")
            return ""
        return self._class_names[number]

    def _facts(self, sample: _Sample) -> dict[str, Any]:
        text = self._text(sample, "json")
        try:
            content = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            self._note("have a damaged .json")
            return {}
        return content

    def _text(self, sample: _Sample, ending: str) -> str:
        data = sample.parts.get(ending, b"")
        try:
            if len(data) <= _MAX_TEXT_BYTES:
                return data.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            pass
        self._note(f"have a .{ending} that is no text, or a too long one")
        return ""

    def _texts(self, value: Any, parse: Callable[[object], tuple[str, ...]] = parse_captions) -> tuple[str, ...]:
        try:
            return parse(value)
        except ValueError:
            self._note("have a .json with fields of unknown form")
            return ()

    def _note(self, what: str) -> None:
        self._refused[f"samples {what}"] += 1

    def _nothing(self, pictures: int) -> InputError:
        if pictures == 0:
            return InputError(
                "E101",
                f"No images in the {len(self._shards):,} archives of {self._place}.",
                why=f"Looked for members that end in {', '.join(_PICTURES)}. {' '.join(self.warnings()[:1])}",
                fix="Check --root, or copy the archives again.",
            )
        return InputError(
            "E106",
            f"No label information: {pictures:,} images, no captions or labels.",
            why=f"Looked for .txt, .cls and .json members (caption, {', '.join(_LABEL_FIELDS)}).",
            fix="Write captions beside the pictures (<key>.txt).",
        )


def _split_name(name: str) -> tuple[str, str]:
    """Path and name up to the first dot, and what stands behind it in lower case."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.parent / stem), ending.casefold()
