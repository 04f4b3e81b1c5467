"""Where the shards of a webdataset lie, and what stands beside them."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from retclip.core.errors import InputError
from retclip.corpora.annotations import read_lines

ENDINGS = (".tar", ".tar.gz", ".tgz")
MAX_SHARDS = 1_000_000
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
_BRACES = re.compile(r"\{([^{}]*)\}")


def is_pattern(place: Path) -> bool:
    """Whether a path stands for several files."""
    return any(sign in str(place) for sign in "*?[{")


def find_shards(place: Path, split: str | None) -> list[Path]:
    """Archives in a stable order.

    Args:
        place: a folder; one archive; a text file with a path or pattern per line, relative to itself; or a pattern
            with `*`, `?` or braces (`{00000..00012}`, `{a,b}`).
        split: of a folder, a subfolder or what the names of archives start with (`train-00000.tar`); None takes the
            archives in the folder itself, or else the only subfolder with archives, or train.

    Raises:
        InputError: E101 if there is no archive, E103 for another split or a list that cannot be read.
    """
    if place.is_dir():
        found = _in_folder(place, split)
    elif place.is_file() and not _is_shard(place):
        found = [path for line in read_lines(place) if line.strip() for path in _expand(place.parent, line.strip())]
    else:
        found = [place] if place.is_file() else list(_expand(Path(), str(place)))
    if not found:
        raise InputError(
            "E101",
            f"No archives under {place}.",
            why=f"Looked for {', '.join(ENDINGS)}.",
            fix="Check --root; quote patterns so that the shell leaves them alone.",
        )
    return list(dict.fromkeys(found))


def count_pictures(shards: list[Path]) -> int | None:
    """Pictures that the files beside the shards state (img2dataset), None unless every shard has a readable one."""
    total = 0
    for shard in shards:
        count = _stated(shard.with_name(shard.name.partition(".")[0]))
        if count is None:
            return None
        total += count
    return total


def _in_folder(folder: Path, split: str | None) -> list[Path]:
    parts = {path.name: _shards_in(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    parts = {name: shards for name, shards in parts.items() if shards}
    own = _shards_in(folder)
    if split is None:
        return own or (next(iter(parts.values())) if len(parts) == 1 else parts.get("train", []))
    prefixed = [path for path in own if path.name.startswith((f"{split}-", f"{split}_"))]
    found = parts.get(split) or prefixed
    if not found:
        raise InputError(
            "E103",
            f"No archives of split '{split}' in {folder}.",
            why=f"There are the folders {', '.join(parts)}." if parts else f"No name starts with {split}- either.",
            fix="Check --split or leave it out.",
        )
    return found


def _shards_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_shard(path) and path.is_file())


def _is_shard(path: Path) -> bool:
    return path.name.casefold().endswith(ENDINGS)


def _expand(base: Path, pattern: str) -> Iterator[Path]:
    for text in _expand_braces(pattern):
        if glob.has_magic(text):
            yield from sorted(Path(found) for found in glob.glob(str(base / text)) if _is_shard(Path(found)))  # noqa: PTH207
        elif (base / text).is_file():
            yield base / text
        else:
            raise InputError(
                "E103", f"{base / text} does not exist.", why=f"{pattern} names it.", fix="Check the list."
            )


def _expand_braces(pattern: str) -> list[str]:
    texts = [pattern]
    while (match := _BRACES.search(texts[0])) is not None:
        span = _RANGE.fullmatch(match[1])
        numbers = range(int(span[1]), int(span[2]) + 1) if span else range(0)
        count = len(texts) * (len(numbers) if span else match[1].count(",") + 1)
        if not 0 < count <= MAX_SHARDS:
            why = f"They stand for {count:,} archives; the limit is {MAX_SHARDS:,}."
            raise InputError("E103", f"Cannot use the braces of {pattern[:100]}.", why=why, fix="Write {first..last}.")
        items = [str(number).zfill(len(span[1])) for number in numbers] if span else match[1].split(",")
        # Every text has its first braces where the pattern has them, and the same ones.
        texts = [text.replace(match[0], item, 1) for text in texts for item in items]
    return texts


def _stated(stem: Path) -> int | None:
    stats, table = stem.with_name(f"{stem.name}_stats.json"), stem.with_name(f"{stem.name}.parquet")
    try:
        if stats.is_file():
            return int(json.loads("".join(read_lines(stats)))["successes"])
        if table.is_file():
            with pyarrow.parquet.ParquetFile(table) as file:
                if "status" not in file.schema_arrow.names:
                    return int(file.metadata.num_rows)
                states = file.read(columns=["status"])["status"]
            return int(states.to_pylist().count("success"))
    # What stands beside an archive is a hint; without a readable one the archives themselves are counted.
    except (OSError, ValueError, KeyError, TypeError, InputError, pyarrow.ArrowException):
        return None
    return None
