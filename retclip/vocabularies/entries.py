"""Classes as people write them, in text or JSON, with the place each came from."""

from __future__ import annotations

import json
from dataclasses import dataclass

from retclip.core.errors import InputError

MAX_NAME_LENGTH = 200
_KINDS = {"thing": True, "stuff": False}


@dataclass(frozen=True)
class Entry:
    """One class: `place` is where it was written (`line 3`), `id` is None where the list has no numbers."""

    place: str
    names: tuple[str, ...]
    is_thing: bool | None
    id: int | None = None


def parse_names(text: str, place: str, origin: str) -> Entry:
    """Read `name, synonym, ...` with an optional leading `thing:` or `stuff:`; no kind where neither stands there.

    Raises:
        InputError: E121 for no name, a name that is too long or one with control characters.
    """
    kind, colon, rest = text.partition(":")
    is_marked = bool(colon) and kind.strip().casefold() in _KINDS
    is_thing = _KINDS[kind.strip().casefold()] if is_marked else None
    return _entry((rest if is_marked else text).split(","), is_thing, None, place, origin)


def parse_text(text: str, origin: str) -> list[Entry]:
    """Read one class per line; blank lines and lines that start with `#` do not count.

    A line is `name, synonym, ...` with an optional leading `thing:` or `stuff:`, or `id<TAB>thing|stuff<TAB>names`.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place, cells = f"line {number}", line.split("\t")
        if len(cells) == 3 and cells[0].strip().isdecimal() and cells[1].strip() in _KINDS:
            entries.append(
                _entry(cells[2].split(","), _KINDS[cells[1].strip()], int(cells[0]), place, origin),
            )
        else:
            entries.append(parse_names(line, place, origin))
    return entries


def parse_json(text: str, origin: str) -> list[Entry]:
    """Read a JSON list of names or of `{"name": ..., "synonyms": [...], "is_thing": true}`."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _problem(origin, f"It is no JSON: {error}") from error
    if not isinstance(content, list):
        raise _problem(origin, "Its content is no list.")
    return [_parse_item(item, f"entry {number}", origin) for number, item in enumerate(content, start=1)]


def _parse_item(item: object, place: str, origin: str) -> Entry:
    if isinstance(item, str):
        return _entry([item], None, None, place, origin)
    fields = {"name": str, "synonyms": list, "is_thing": bool}
    if not isinstance(item, dict) or "name" not in item or not set(item) <= set(fields):
        raise _problem(origin, f"In {place}: expected a name or an object with name, synonyms and is_thing.")
    for key, value in item.items():
        if not isinstance(value, fields[key]):
            raise _problem(origin, f"In {place}: {key} is no {fields[key].__name__}.")
    synonyms = item.get("synonyms", [])
    if not all(isinstance(synonym, str) for synonym in synonyms):
        raise _problem(origin, f"In {place}: synonyms are not all names.")
    return _entry([item["name"], *synonyms], item.get("is_thing"), None, place, origin)


def _entry(names: list[str], is_thing: bool | None, number: int | None, place: str, origin: str) -> Entry:
    cleaned = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not cleaned:
        raise _problem(origin, f"In {place}: there is no name.")
    for name in cleaned:
        if len(name) > MAX_NAME_LENGTH:
            raise _problem(origin, f"In {place}: '{name[:40]}...' has more than {MAX_NAME_LENGTH} characters.")
        # Names reach terminals and reports: an escape sequence must not.
        if not name.isprintable():
            raise _problem(origin, f"In {place}: {name!a} has control characters.")
    return Entry(place, cleaned, is_thing, number)


def _problem(origin: str, why: str) -> InputError:
    return InputError(
        "E121", f"Class list problem in {origin}.", why=why, fix="Write one class per line: name, synonym, ..."
    )
