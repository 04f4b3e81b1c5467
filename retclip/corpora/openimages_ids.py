"""Lists of Open Images photos, as its downloader.py and FiftyOne write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from retclip.core.errors import InputError
from retclip.corpora.annotations import read_json_list
from retclip.corpora.rows import MAX_LINE_BYTES

_ENTRY = re.compile(r"(?:(train|validation|test|challenge2018)/)?([0-9a-fA-F]{16})(?:\.jpg)?")


def read_image_ids(path: Path) -> dict[str, str]:
    """Splits by image id, empty where the list does not say; the order of the list is kept.

    Args:
        path: `.txt`, one `<split>/<id>` or `<id>` per line, `.jpg` behind it is tolerated; `.csv`, the same in the
            first column, with or without a header; `.json`, a list of such texts.

    Raises:
        InputError: E103 if the file cannot be read, E105 naming the line that is no image id.
    """
    is_json, is_csv = (path.suffix.casefold() == ending for ending in (".json", ".csv"))
    entries = map(str, read_json_list(path)) if is_json else _lines(path)
    found: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        text = (entry.partition(",")[0].strip('"') if is_csv else entry).strip()
        match = _ENTRY.fullmatch(text)
        if match:
            found[match[2].lower()] = match[1] or ""
        elif text and not (is_csv and number == 1):
            raise InputError(
                "E105",
                f"Table problem in {path.name}:{number}.",
                why=f"'{text[:60]}' is no image id.",
                fix="Write one <split>/<image id> per line; an image id has 16 hexadecimal digits.",
            )
    return found


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from iter(lambda: file.readline(MAX_LINE_BYTES), "")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("E103", f"Cannot read {path}.", why=str(error), fix="Copy the file again.") from error


def write_image_ids(path: Path, split: str, ids: Iterable[str]) -> None:
    """Write a list that downloader.py reads: `<split>/<id>` per line, in the order of the ids."""
    text = "".join(f"{split}/{image_id}\n" for image_id in sorted(ids))
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
