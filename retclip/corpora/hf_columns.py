"""Which columns of a dataset hold pictures, labels and captions, and what their values say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retclip.core.errors import InputError
from retclip.corpora.cells import parse_labels, parse_text
from retclip.corpora.table import TableColumns
from retclip.ports.corpora import ImageLabel

PICTURES = ("image", "img", "jpg", "png", "webp", "image_bytes", "image_path")
LABELS = ("label", "labels", "class", "category", "objects.category", "tags")
CAPTIONS = ("text", "caption", "captions", "TEXT", "txt")
LICENSES = ("license",)
ORIGINS = ("original_url", "url", "URL")


@dataclass(frozen=True)
class ChosenColumns:
    """Names of columns, `objects.category` for a field of one; None where there is none.

    names: classes by number, empty where labels are words.
    """

    picture: str
    labels: str | None
    captions: str | None
    license: str | None
    origin: str | None
    names: tuple[str, ...]

    def top_level(self) -> list[str]:
        """Columns to read."""
        used = (self.picture, self.labels, self.captions, self.license, self.origin)
        return list(dict.fromkeys(name.partition(".")[0] for name in used if name))


def choose_columns(features: Mapping[str, Any], wanted: TableColumns, class_names: Sequence[str]) -> ChosenColumns:
    """Choose by name: the given ones, or else the first usual one that is there.

    Args:
        features: type by column, as the library describes them.
        wanted: given names.
        class_names: classes by number; none takes those that the dataset knows.

    Raises:
        InputError: E129 if a given column or one with pictures is missing.
    """
    picture = _find(features, PICTURES, wanted.path)
    if picture is None:
        addresses = [name for name in ORIGINS if name in features]
        raise InputError(
            "E129",
            "No column with pictures.",
            why=f"Looked for {', '.join(PICTURES)}; found {', '.join(features) or 'none'}."
            + (" Addresses are not fetched." if addresses else ""),
            fix="Name it with --path-column; fetch pictures first, e.g. with img2dataset.",
        )
    labels = _find(features, LABELS, wanted.labels)
    captions = _find(features, CAPTIONS, wanted.caption)
    names = tuple(class_names) or (_class_names(_type_of(features, labels)) if labels else ())
    return ChosenColumns(picture, labels, captions, _find(features, LICENSES), _find(features, ORIGINS), names)


def value_of(row: Mapping[str, Any], column: str | None) -> Any:
    """The value of a column; of `objects.category` the list of all fields `category`."""
    if column is None:
        return None
    top, _, inner = column.partition(".")
    value = row.get(top)
    if not inner:
        return value
    if isinstance(value, list):
        return [item.get(inner) for item in value if isinstance(item, dict)]
    return value.get(inner) if isinstance(value, dict) else None


def read_labels(value: Any, names: Sequence[str]) -> Iterator[ImageLabel]:
    """Labels of a value: a number or word, a list of them, or of `{label, confidence}` where 0 says absent.

    Raises:
        ValueError: the value is something else, or a number without name.
    """
    for item in value if isinstance(value, list) else [value]:
        # Test splits say -1 for what is kept secret.
        if item is None or item == -1:
            continue
        if isinstance(item, dict):
            confidence = float(item.get("confidence", 1.0))
            yield ImageLabel(parse_text(item.get("label")), "table", confidence or 1.0, confidence > 0)
        elif isinstance(item, int):
            if not 0 <= item < len(names):
                raise ValueError(f"class number {item} has no name")
            yield ImageLabel(names[item], "table", 1.0, True)
        else:
            yield from (ImageLabel(name, "table", 1.0, True) for name in parse_labels(item))


def _find(features: Mapping[str, Any], usual: Sequence[str], given: str | None = None) -> str | None:
    for name in (given,) if given else usual:
        if name in features or ("." in name and _type_of(features, name) is not None):
            return name
    if given:
        raise InputError(
            "E129", f"There is no column '{given}'.", why=f"Found {', '.join(features)}.", fix="Check its name."
        )
    return None


def _type_of(features: Mapping[str, Any], column: str) -> Any:
    """Type of a column or of a field inside one: structures are mappings, lists hold theirs in `feature`."""
    top, _, inner = column.partition(".")
    kind = _element(features.get(top))
    return _element(kind.get(inner)) if inner and isinstance(kind, Mapping) else None if inner else kind


def _element(kind: Any) -> Any:
    while hasattr(kind, "feature") or (isinstance(kind, list) and kind):
        kind = kind[0] if isinstance(kind, list) else kind.feature
    return kind


def _class_names(kind: Any) -> tuple[str, ...]:
    return tuple(getattr(kind, "names", None) or ())
