"""HTML that cannot be broken by text from outside: whatever is not markup already is escaped."""

from __future__ import annotations

from html import escape

_VOID = frozenset({"img", "input", "meta"})


class Markup(str):
    """Text that is safe HTML; only this module and constants of the package make it."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | int | bool) -> Markup:
    """One element; children and attribute values are escaped unless they are `Markup`.

    Args:
        name: element name.
        children: texts or elements, in order.
        attributes: `class_` gives class, `data_row` gives data-row; True gives a bare attribute, False none.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items() if value is not False)
    if name in _VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: str) -> Markup:
    """Texts and elements one after another."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


def _attribute(key: str, value: str | int) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
