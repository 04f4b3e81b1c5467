"""One way to name a class list: `@coco133`, a file, or the classes themselves."""

from __future__ import annotations

import difflib
import os.path
from collections import defaultdict
from importlib import resources
from pathlib import Path

from retclip.core.errors import InputError
from retclip.core.vocabulary import Category, Vocabulary, normalise_name
from retclip.vocabularies.entries import Entry, parse_json, parse_names, parse_text

MAX_CLASSES = 10_000
MAX_FILE_BYTES = 16 << 20
_PATH_ENDINGS = (".txt", ".json", ".csv")


def available_vocabularies() -> tuple[str, ...]:
    """Names of the lists in the package, without `@`, sorted."""
    folder = resources.files("retclip.vocabularies")
    return tuple(sorted(f.name.removesuffix(".txt") for f in folder.iterdir() if f.name.endswith(".txt")))


def load_vocabulary(text: str) -> Vocabulary:
    """Load a class list.

    Args:
        text: `@name` of a list in the package; or a path: `.json` holds a list of names or of objects with name,
            synonyms and is_thing, any other file one class per line (`name, synonym, ...`, optionally after `thing:` or
            `stuff:`; `#` starts a comment); or the classes themselves, separated by commas.

    Returns:
        The vocabulary; ids are those of the list, else counted from 0. Classes are things where the list does not say.

    Raises:
        InputError: E121 naming the list, the line and what is wrong there.
    """
    if text.startswith("@"):
        name = text.removeprefix("@")
        if name not in available_vocabularies():
            raise _unknown(name)
        content = resources.files("retclip.vocabularies").joinpath(f"{name}.txt").read_text(encoding="utf-8")
        return _assemble(name, text, parse_text(content, text))
    # os.path: Path.is_file raises for texts longer than the file system allows, and class lists often are.
    if os.path.isfile(text):  # noqa: PTH113
        return _load_file(Path(text))
    looks_like_path = text.casefold().endswith(_PATH_ENDINGS) or ("," not in text and ("/" in text or "\\" in text))
    if looks_like_path:
        raise _problem(text, "There is no such file.", "Check the path, or separate class names by commas.")
    items = [item for item in text.split(",") if item.strip()]
    return _assemble(
        "classes", "the given names", [parse_names(item, f"name {n}", text) for n, item in enumerate(items, start=1)]
    )


def _load_file(path: Path) -> Vocabulary:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _problem(str(path), f"It is larger than {MAX_FILE_BYTES:,} bytes.", "Pass a list of classes.")
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _problem(str(path), f"It cannot be read: {error}", "Save it as UTF-8 text.") from error
    parse = parse_json if path.suffix.casefold() == ".json" else parse_text
    return _assemble(path.stem, str(path), parse(content, str(path)))


def _assemble(name: str, origin: str, entries: list[Entry]) -> Vocabulary:
    if not entries:
        raise _problem(origin, "It has no classes.", "Write one class per line, or separate names by commas.")
    if len(entries) > MAX_CLASSES:
        raise _problem(origin, f"It has {len(entries):,} classes; the limit is {MAX_CLASSES:,}.", "Split the list.")
    numbered = [entry.id is not None for entry in entries]
    if any(numbered) != all(numbered):
        place = entries[numbered.index(not numbered[0])].place
        raise _problem(origin, f"Some classes have ids and some have none, see {place}.", "Number all or none.")
    _refuse_doubles(origin, [(normalise_name(entry.names[0]), entry) for entry in entries])
    _refuse_doubles(origin, [(f"id {entry.id}", entry) for entry in entries if entry.id is not None])
    categories = [
        Category(n if e.id is None else e.id, e.names, e.is_thing is not False, kind_stated=e.is_thing is not None)
        for n, e in enumerate(entries)
    ]
    return Vocabulary(name, tuple(categories))


def _refuse_doubles(origin: str, keyed: list[tuple[str, Entry]]) -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for key, entry in keyed:
        places[key].append(entry.place)
    doubles = [f"'{key}' in {', '.join(found)}" for key, found in places.items() if len(found) > 1]
    if doubles:
        more = f"; and {len(doubles) - 5:,} more" if len(doubles) > 5 else ""
        raise _problem(origin, f"Twice: {'; '.join(doubles[:5])}{more}.", "Remove or rename all but one.")


def _unknown(name: str) -> InputError:
    near = difflib.get_close_matches(name.casefold(), available_vocabularies(), n=1)
    hint = f" Did you mean '@{near[0]}'?" if near else ""
    known = ", ".join(f"@{known}" for known in available_vocabularies())
    return _problem(f"@{name}", f"There is no such list.{hint}", f"Use one of {known}, a file, or names.")


def _problem(origin: str, why: str, fix: str) -> InputError:
    shown = origin if len(origin) <= 200 else f"{origin[:200]}..."
    return InputError("E121", f"Class list problem in {shown}.", why=why, fix=fix)
