from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from retclip.core.errors import ImageError, InputError
from retclip.corpora.table import TableColumns, TableCorpus

BOXES = '"[[0, 0, 2, 1, ""cat""], [1, 0, 4, 2, ""mat""]]"'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.jpg", "inner/b.jpg"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 2)).save(path)
    return tmp_path / "data"


def open_table(root: Path, content: str, split: str | None = None, **columns: str) -> TableCorpus:
    (root / "list.csv").write_text(content)
    return TableCorpus(root / "list.csv", split, None, TableColumns(**columns))


def test_rows_keep_their_order_and_carry_every_column(root: Path) -> None:
    corpus = open_table(
        root,
        "path,labels,caption,split,license,attribution,id\n"
        "inner/b.jpg,dog|cat,A dog.,train,CC0,Ann,b1\n"
        "a.jpg,cat,,val,,,\n",
    )
    first, second = corpus.images()
    assert (first.image_id, first.split, first.license, first.attribution) == ("b1", "train", "CC0", "Ann")
    assert [(label.name, label.source) for label in first.labels] == [("dog", "table"), ("cat", "table")]
    assert first.captions == ("A dog.",)
    assert (second.image_id, second.captions) == ("a.jpg", ())
    assert second.path == (root / "a.jpg").resolve()
    assert [known.raw for known in corpus.classes] == ["cat", "dog"]
    assert [image.image_id for image in open_table(root, (root / "list.csv").read_text(), "val").images()] == ["a.jpg"]


@pytest.mark.parametrize("header", ["path,label", "image,labels", "file_name,label"])
def test_usual_column_names_are_found(root: Path, header: str) -> None:
    (image,) = open_table(root, f"{header}\na.jpg,cat\n").images()
    assert image.labels[0].name == "cat"


def test_columns_can_be_named(root: Path) -> None:
    corpus = open_table(root, "f,l,c,label\na.jpg,cat,Hi.,other\n", path="f", labels="l", caption="c")
    (image,) = corpus.images()
    assert ([label.name for label in image.labels], image.captions) == (["cat"], ("Hi.",))


def test_boxes_are_regions_and_labels(root: Path) -> None:
    corpus = open_table(root, f"path,boxes\na.jpg,{BOXES}\ninner/b.jpg,\n")
    first, second = corpus.images()
    assert [label.name for label in first.labels] == ["cat", "mat"]
    cat, mat = corpus.regions(first, (2, 4), "boxes")
    assert cat.mask.tolist() == [[True, True, False, False], [False] * 4]
    assert (mat.label, mat.box, mat.box_source, mat.mask_source) == ("mat", (1.0, 0.0, 4.0, 2.0), "table.boxes", "box")
    assert corpus.regions(second, (2, 4), "boxes") == []


def test_a_box_outside_its_photo_does_not_fit(root: Path) -> None:
    corpus = open_table(root, 'path,boxes\na.jpg,"[[7, 0, 9, 1, ""cat""]]"\n')
    with pytest.raises(ImageError, match=r"E116 .*a\.jpg"):
        corpus.regions(next(corpus.images()), (2, 4), "boxes")


@pytest.mark.parametrize(
    ("content", "kind"), [("path,label\na.jpg,cat\n", "boxes"), (f"path,boxes\na.jpg,{BOXES}\n", "masks")]
)
def test_regions_that_a_table_cannot_hold_stop_the_run(root: Path, content: str, kind: str) -> None:
    corpus = open_table(root, content)
    with pytest.raises(InputError, match=f"E106 list.csv has no {kind}") as caught:
        corpus.regions(next(corpus.images()), (2, 4), kind)
    assert not isinstance(caught.value, ImageError)


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("path,label\na.jpg,cat\n,dog\n", "E105", "list.csv:3"),
        ("url,label\nhttp://example.org/a.jpg,cat\n", "E105", "not fetched"),
        ("path,label\na.jpg,cat\na.jpg,dog\n", "E105", "list.csv:3.*(?s:.*)one row per photo"),
        ("path,id,label\na.jpg,1,cat\ninner/b.jpg,1,dog\n", "E105", "list.csv:3"),
        ("path,boxes\na.jpg,[[1]]\n", "E105", "list.csv:2"),
        ("path,labels\na.jpg,[1\n", "E105", "list.csv:2"),
        ("path,label\na\0.jpg,cat\n", "E105", "list.csv:2"),
        ("path,label\ngone.jpg,cat\n", "E101", "None of the 1"),
        ("path,label\n", "E101", "lists no photo"),
        ("path,other\na.jpg,cat\n", "E106", "labels, label, boxes, caption"),
        ("path,label\n../x.jpg,cat\n", "E117", "list.csv:2"),
        ("path,label\n/etc/passwd,cat\n", "E117", "list.csv:2"),
        ("path,label\ninner/../../x.jpg,cat\n", "E117", "list.csv:2"),
        ("path,label\nlink/x.jpg,cat\n", "E117", "list.csv:2"),
    ],
)
def test_a_wrong_table_is_refused_when_it_is_opened(root: Path, content: str, code: str, message: str) -> None:
    (root.parent / "elsewhere").mkdir()
    (root / "link").symlink_to(root.parent / "elsewhere")
    for place in (root.parent, root.parent / "elsewhere"):
        Image.new("RGB", (4, 2)).save(place / "x.jpg")
    with pytest.raises(InputError, match=rf"(?s){message}") as caught:
        open_table(root, content)
    assert caught.value.code == code


def test_paths_may_leave_the_table_but_not_the_root(root: Path) -> None:
    (root / "inner" / "list.csv").write_text(f"path,label\n../a.jpg,cat\n{root / 'inner' / 'b.jpg'},dog\n")
    corpus = TableCorpus(root, None, Path("inner/list.csv"), TableColumns())
    assert [image.path.name for image in corpus.images()] == ["a.jpg", "b.jpg"]
    with pytest.raises(InputError, match="E117"):
        TableCorpus(root / "inner" / "list.csv", None, None, TableColumns())


def test_missing_photos_are_left_out_and_named(root: Path) -> None:
    corpus = open_table(root, f"path,label\na.jpg,cat\ngone.jpg,dog\n{'x' * 300}.jpg,dog\n")
    assert [image.image_id for image in corpus.images()] == ["a.jpg"]
    assert "gone.jpg" in corpus.warnings()[0]
    assert corpus.warnings()[0].startswith("2 listed photos")


def test_a_folder_with_one_table_needs_no_name(root: Path) -> None:
    with pytest.raises(InputError, match="No table"):
        TableCorpus(root, None, None, TableColumns())
    (root / "m.jsonl").write_text('{"image": "a.jpg", "labels": ["cat"], "boxes": [[0, 0, 1, 1, "ear"]]}\n')
    (image,) = TableCorpus(root, None, None, TableColumns()).images()
    assert [label.name for label in image.labels] == ["cat", "ear"]
    (root / "n.csv").write_text("path,label\n")
    with pytest.raises(InputError, match=r"(?s)Several tables.*m\.jsonl, n\.csv"):
        TableCorpus(root, None, None, TableColumns())


def test_parquet_with_lists_and_without_embedded_pictures(root: Path) -> None:
    path = root / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"path": "a.jpg", "labels": ["cat", "dog"]}]), path)
    (image,) = TableCorpus(path, None, None, TableColumns()).images()
    assert [label.name for label in image.labels] == ["cat", "dog"]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"image": {"bytes": b"", "path": "a.jpg"}}]), path)
    with pytest.raises(InputError, match=r"t\.parquet:1\.(?s:.*)expected a text, got dict"):
        TableCorpus(path, None, None, TableColumns())


def test_comments_reach_the_reader(root: Path) -> None:
    (root / "list.csv").write_text("# by hand\npath,label\na.jpg,cat\n")
    assert len(list(TableCorpus(root, None, None, TableColumns(), comments=True).images())) == 1
