from __future__ import annotations

import io
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retclip.core.errors import InputError
from retclip.corpora import TableColumns, describe
from retclip.corpora.hf import HfCorpus
from tests.absence import require_library

require_library("datasets", "hf")
import datasets  # noqa: E402 - after the check that it is there


@pytest.fixture(autouse=True)
def quiet_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for variable in ("RETCLIP_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    datasets.disable_progress_bars()


def encoded(colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return file.getvalue()


def cells(count: int = 2) -> list[dict[str, Any]]:
    return [{"bytes": encoded(), "path": f"{number}.png"} for number in range(count)]


def write(path: Path, columns: dict[str, Any], **features: Any) -> Path:
    """A Parquet file as the library writes it, with the types of its columns in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = datasets.Dataset.from_dict(columns)
    for name, kind in features.items():
        rows = rows.cast_column(name, kind)
    rows.to_parquet(str(path))
    return path


def opened(place: Path, split: str | None = None, class_names: tuple[str, ...] = (), **columns: str) -> HfCorpus:
    return HfCorpus(place, split, TableColumns(**columns), class_names)


def labels_of(corpus: HfCorpus) -> list[list[tuple[str, bool]]]:
    return [[(label.name, label.present) for label in image.labels] for image in corpus.images()]


PETS = datasets.ClassLabel(names=["cat", "dog"])


def test_pictures_stay_encoded_and_numbers_get_their_names(tmp_path: Path) -> None:
    columns = {
        "image": cells(),
        "label": [1, 0],
        "text": ["A dog.", None],
        "license": ["CC0", ""],
        "url": ["http://a", ""],
    }
    path = write(tmp_path / "pets.parquet", columns, image=datasets.Image(), label=PETS)
    corpus = opened(path)
    first, second = corpus.images()
    assert (first.image_id, first.path, first.data, first.split) == ("0", path, encoded(), "train")
    assert (first.captions, first.license, first.attribution) == (("A dog.",), "CC0", "http://a")
    assert (second.image_id, second.captions, second.read().size) == ("1", (), (6, 8))
    assert labels_of(corpus) == [[("dog", True)], [("cat", True)]]
    assert [known.raw for known in corpus.classes] == ["cat", "dog"]


def test_descriptions_read_no_pixels(tmp_path: Path) -> None:
    broken = [{"bytes": b"no picture", "path": "a.png"}]
    path = write(tmp_path / "a.parquet", {"image": broken, "label": [1]}, image=datasets.Image(), label=PETS)
    found = describe(opened(path))
    assert (found.images, found.images_by_class, found.unmapped) == (1, {"dog": 1}, {})


def test_saved_datasets_and_folders_of_files_have_splits(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"image": cells(), "label": ["a", "b"]}).cast_column("image", datasets.Image())
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": rows, "validation": rows.select([1])}).save_to_disk(str(tmp_path / "two"))
    write(tmp_path / "three" / "data" / "train-00000.parquet", {"image": cells(), "label": ["a", "b"]})
    write(tmp_path / "three" / "data" / "test-00000.parquet", {"image": cells(1), "label": ["c"]})
    assert labels_of(opened(tmp_path / "one")) == [[("a", True)], [("b", True)]]
    assert (opened(tmp_path / "two").size(), opened(tmp_path / "two", "val").size()) == (2, 1)
    assert labels_of(opened(tmp_path / "three", "test")) == [[("c", True)]]
    with pytest.raises(InputError, match=r"(?s)E103 No split 'dev'.*train"):
        opened(tmp_path / "three", "dev")


@pytest.mark.parametrize("folders", [("cat",), ("cat", "dog"), ("train/cat",)])
def test_folders_are_classes_even_when_there_is_one(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for folder in folders:
        (tmp_path / "pets" / folder).mkdir(parents=True)
        (tmp_path / "pets" / folder / "a.png").write_bytes(encoded())
    corpus = opened(tmp_path / "pets")
    assert labels_of(corpus) == [[(folder.removeprefix("train/"), True)] for folder in folders]
    assert [known.raw for known in corpus.classes] == [folder.removeprefix("train/") for folder in folders]
    image = next(corpus.images())
    assert (image.path, image.data) == (tmp_path / "pets" / folders[0] / "a.png", None)


def test_a_flat_folder_has_no_labels_unless_metadata_says_so(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "a.png").write_bytes(encoded())
    with pytest.raises(InputError, match="E106 No label information"):
        list(opened(tmp_path / "pets").images())
    (tmp_path / "pets" / "metadata.csv").write_text("file_name,text\na.png,A cat.\n")
    assert [image.captions for image in opened(tmp_path / "pets").images()] == [("A cat.",)]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("labels", [["cat", "dog"], []], [[("cat", True), ("dog", True)], []]),
        ("tags", ["cat|dog", None], [[("cat", True), ("dog", True)], []]),
        (
            "labels",
            [[{"label": "cat", "confidence": 1.0}, {"label": "dog", "confidence": 0.0}], []],
            [[("cat", True), ("dog", False)], []],
        ),
        ("objects", [{"category": ["cat", "cat"]}, {"category": []}], [[("cat", True)], []]),
        ("objects", [[{"category": "cat"}, {"category": "dog"}], []], [[("cat", True), ("dog", True)], []]),
    ],
    ids=["list", "text", "verified", "objects", "list of objects"],
)
def test_labels_come_in_many_forms(tmp_path: Path, column: str, values: list[Any], expected: list[Any]) -> None:
    corpus = opened(write(tmp_path / "a.parquet", {"image": cells(), column: values}))
    assert labels_of(corpus) == expected
    assert [known.raw for known in corpus.classes] == sorted({name for row in expected for name, _ in row})


def test_lists_of_numbers_use_the_names_of_their_type(tmp_path: Path) -> None:
    columns = {"image": cells(), "objects": [{"category": [1, 1]}, {"category": [0]}]}
    corpus = opened(write(tmp_path / "a.parquet", columns, objects={"category": datasets.List(PETS)}))
    assert labels_of(corpus) == [[("dog", True)], [("cat", True)]]


def test_numbers_without_names_need_them_and_minus_one_is_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": cells(), "label": [1, -1]})
    with pytest.raises(InputError, match=r"(?s)E106 .*class number 1 has no name.*--class-names"):
        labels_of(opened(path))
    assert labels_of(opened(path, class_names=("x", "y"))) == [[("y", True)], []]


def test_columns_are_found_in_order_or_given(tmp_path: Path) -> None:
    columns = {
        "jpg": cells(1),
        "img": [{"bytes": encoded("blue"), "path": None}],
        "label": ["a"],
        "kind": ["b"],
        "note": ["Hi."],
    }
    path = write(tmp_path / "a.parquet", columns)
    (image,) = opened(path).images()
    assert (image.data, image.labels[0].name, image.captions) == (encoded("blue"), "a", ())
    (image,) = opened(path, path="jpg", labels="kind", caption="note").images()
    assert (image.data, image.labels[0].name, image.captions) == (encoded(), "b", ("Hi.",))
    with pytest.raises(InputError, match=r"E129 There is no column 'colour'"):
        opened(path, labels="colour")


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"url": ["http://a"], "text": ["A."]}, "E129"),
        ({"image": cells(1)}, "E106"),
        ({"image": cells(1), "x": [1]}, "E106"),
    ],
)
def test_datasets_that_cannot_teach_are_refused(tmp_path: Path, columns: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as caught:
        list(opened(write(tmp_path / "a.parquet", columns)).images())
    assert caught.value.code == code


def test_files_outside_the_dataset_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encoded())
    root = tmp_path / "data"
    root.mkdir()
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "ok.png").write_bytes(encoded())
    paths = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "https://a/b.png", "gone.png", "", "ok.png"]
    corpus = opened(write(root / "a.parquet", {"image_path": paths, "label": ["a"] * 7}))
    assert [(image.path.name, image.image_id) for image in corpus.images()] == [("ok.png", "6")]
    assert sorted(corpus.warnings()) == [
        "1 rows have no picture",
        "1 rows name files that are not on this disk",
        "1 rows name files that do not exist",
        "3 rows name files outside the dataset",
    ]


def test_regions_are_not_in_this_form(tmp_path: Path) -> None:
    corpus = opened(write(tmp_path / "a.parquet", {"image": cells(1), "label": ["a"]}))
    with pytest.raises(InputError, match=r"E106 .*no boxes"):
        corpus.regions(next(corpus.images()), (6, 8), "boxes")


def test_json_lines_and_tables_of_paths_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded())
    (tmp_path / "a.jsonl").write_text('{"image_path": "a.png", "labels": ["cat"]}\n')
    (tmp_path / "a.tsv").write_text("image_path\tcaption\na.png\tA cat.\n")
    assert labels_of(opened(tmp_path / "a.jsonl")) == [[("cat", True)]]
    assert [image.captions for image in opened(tmp_path / "a.tsv").images()] == [("A cat.",)]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.json", "a.zip"])
def test_damaged_files_are_an_error_that_names_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x00damaged" * 10)
    with pytest.raises(InputError, match=rf"E128 Cannot read the dataset .*{name}"):
        list(opened(tmp_path / name).images())


def test_code_of_a_dataset_is_not_run(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    root.mkdir()
    (root / "pets.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(InputError, match="E128"):
        opened(root)
    assert not (tmp_path / "ran").exists()


def test_a_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r'(?s)E127 .*pip install "retclip\[hf\]"'):
        opened(tmp_path)


@pytest.mark.parametrize("variable", ["RETCLIP_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("name", ["owner/pets", "/no/such/folder", "a b"])
def test_what_is_neither_here_nor_on_the_hub_fails_at_once(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(InputError, match="E128") as caught:
        opened(Path(name))
    assert (variable in caught.value.why) == (name == "owner/pets")


def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(InputError, match=r"(?s)E128 .*127\.0\.0\.1 does not answer"):
            opened(Path("owner/pets"))


def test_corpora_load_neither_the_library_nor_torch_until_asked() -> None:
    code = "import sys, retclip.corpora; sys.exit('datasets' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
