import pytest

from retclip.corpora.playground.captions import plural


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fish", "fish"),
        ("green leaf", "green leaves"),
        ("checked box", "checked boxes"),
        ("cross", "crosses"),
        ("key", "keys"),
    ],
)
def test_plurals(name: str, expected: str) -> None:
    assert plural(name) == expected
