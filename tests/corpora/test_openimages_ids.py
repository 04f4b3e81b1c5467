from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.errors import InputError
from retclip.corpora.openimages_ids import read_image_ids, write_image_ids

image_ids = st.integers(0, (1 << 64) - 1).map(lambda number: f"{number:016x}")


@given(st.sets(image_ids, max_size=20))
def test_what_is_written_is_read_in_the_order_of_the_ids(
    tmp_path_factory: pytest.TempPathFactory, ids: set[str]
) -> None:
    path = tmp_path_factory.mktemp("ids") / "ids.txt"
    write_image_ids(path, "train", ids)
    assert list(read_image_ids(path).items()) == [(image_id, "train") for image_id in sorted(ids)]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "train/xyz"),
        ("a.txt", "dev/0123456789abcdef"),
        ("a.csv", "h\nh\n"),
        ("a.json", "[1]"),
        ("a.json", "{}"),
    ],
)
def test_other_lists_are_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"E10[35]"):
        read_image_ids(tmp_path / name)


def test_blank_lines_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n0123456789ABCDEF\n")
    assert read_image_ids(tmp_path / "a.txt") == {"0123456789abcdef": ""}


def test_an_unreadable_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    for name in ("a.txt", "gone.txt"):
        with pytest.raises(InputError, match=rf"E103 Cannot read .*{name}"):
            read_image_ids(tmp_path / name)
