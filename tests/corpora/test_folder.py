from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retclip.core.errors import ImageError, InputError
from retclip.corpora.folder import FolderCorpus
from retclip.ports.corpora import CorpusClass


def write_photo(path: Path, size: tuple[int, int] = (4, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("red_car/b.jpg", "red_car/deep/er/a.PNG", "kayak/x.webp"):
        write_photo(tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_class_is_the_first_folder_and_order_is_that_of_paths(root: Path) -> None:
    corpus = FolderCorpus(root)
    found = [(image.image_id, image.labels[0].name, image.labels[0].source) for image in corpus.images()]
    assert found == [
        ("kayak/x.webp", "kayak", "folder"),
        ("red_car/b.jpg", "red_car", "folder"),
        ("red_car/deep/er/a.PNG", "red_car", "folder"),
    ]
    assert [(known.raw, known.name, known.is_thing) for known in corpus.classes] == [
        ("kayak", "kayak", True),
        ("red_car", "red car", True),
    ]
    assert corpus.warnings() == []


def test_class_table_gives_names_synonyms_and_kinds(root: Path) -> None:
    (root / "classes.txt").write_text("# mine\n\nkayak\tstuff: canoe, boat\nferry\tferry\n", encoding="utf-8-sig")
    corpus = FolderCorpus(root)
    known = corpus.classes[0]
    assert (known.name, known.aliases, known.is_thing) == ("canoe", ("boat",), False)
    assert corpus.warnings() == ["1 lines of classes.txt name no class folder: ferry"]
    (region,) = corpus.regions(next(corpus.images()), (2, 4), "boxes")
    assert (region.label, region.is_thing) == ("kayak", False)


@pytest.mark.parametrize(
    ("line", "message"),
    [("kayak boat", "Line 1: there is no tab"), ("a\tb\na\tc", "Line 2: .* twice"), ("a\t ,", "line 1")],
)
def test_a_wrong_class_table_names_its_line(root: Path, line: str, message: str) -> None:
    (root / "classes.txt").write_text(line)
    with pytest.raises(InputError, match=message):
        FolderCorpus(root)


def test_a_single_class_folder_keeps_its_class(tmp_path: Path) -> None:
    write_photo(tmp_path / "cat" / "a.jpg")
    corpus = FolderCorpus(tmp_path)
    assert next(corpus.images()).labels[0].name == "cat"
    assert corpus.warnings()[0].startswith("Only one class ('cat')")


def test_hidden_files_and_other_files_are_skipped_and_counted(root: Path) -> None:
    (root / "kayak" / "._x.webp").touch()
    (root / "kayak" / "notes.doc").touch()
    write_photo(root / ".thumbnails" / "t.jpg")
    corpus = FolderCorpus(root)
    assert len(list(corpus.images())) == 3
    assert corpus.warnings() == ["2 files are no photos and are left out: kayak/._x.webp, kayak/notes.doc"]


def test_boxes_are_the_whole_photo(root: Path) -> None:
    corpus = FolderCorpus(root)
    (region,) = corpus.regions(next(corpus.images()), (2, 4), "boxes")
    assert region.mask.all()
    assert region.mask.shape == (2, 4)
    assert (region.box, region.box_source, region.mask_source) == ((0.0, 0.0, 4.0, 2.0), "whole-image", "whole-image")


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_masks_are_the_pixels_of_the_sidecar_that_are_not_zero(root: Path, mode: str) -> None:
    values = np.array([[0, 1, 0, 0], [0, 1, 1, 0]], np.uint8)
    if mode == "P":
        mask = Image.new("P", (4, 2))
        mask.putpalette([255, 255, 255, 0, 0, 0])
        mask.putdata(values.ravel().tolist())
    else:
        mask = Image.fromarray(values * 255).convert(mode)
    mask.save(root / "kayak" / "x.mask.png")
    corpus = FolderCorpus(root)
    assert len(list(corpus.images())) == 3
    (region,) = corpus.regions(next(corpus.images()), (2, 4), "masks")
    np.testing.assert_array_equal(region.mask, values.astype(bool))
    assert (region.box, region.mask_source) == ((1.0, 0.0, 3.0, 2.0), "folder.mask")


@pytest.mark.parametrize(("mask", "message"), [(None, "has no mask"), ((4, 3), "3 x 4"), ((4, 2), "0 everywhere")])
def test_an_absent_or_unfit_mask_names_the_photo(root: Path, mask: tuple[int, int] | None, message: str) -> None:
    if mask:
        Image.new("L", mask).save(root / "kayak" / "x.mask.png")
    corpus = FolderCorpus(root)
    with pytest.raises(ImageError, match=rf"(?s)E116 .*x\.webp.*{message}|E116 .*x\.webp {message}"):
        corpus.regions(next(corpus.images()), (2, 4), "masks")


def test_flat_photos_count_with_captions_only(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg")
    write_photo(tmp_path / "b.jpg")
    (tmp_path / "a.txt").write_text("A cat on a mat.\n\nStill there.\n")
    corpus = FolderCorpus(tmp_path)
    (image,) = corpus.images()
    assert (image.labels, image.captions) == ((), ("A cat on a mat.", "Still there."))
    assert corpus.regions(image, (2, 4), "boxes") == []
    assert corpus.warnings() == ["1 photos have neither class folder nor captions and are left out: b.jpg"]


@pytest.mark.parametrize("names", [(), ("a/readme.md", "b.tar")])
def test_an_empty_folder_says_what_was_found(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="E101 No images") as caught:
        FolderCorpus(tmp_path)
    assert ("1 .tar" if names else "no files") in caught.value.why


def test_no_label_information_is_an_error(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="E106 No label information: 1 images"):
        FolderCorpus(tmp_path)


def test_split_folders_are_not_taken_for_classes(tmp_path: Path) -> None:
    for name in ("train/cat/a.jpg", "val/cat/b.jpg"):
        write_photo(tmp_path / name)
    with pytest.raises(InputError, match=r"(?s)E106 .*--split train"):
        FolderCorpus(tmp_path)
    (image,) = FolderCorpus(tmp_path, "val").images()
    assert (image.image_id, image.split, image.labels[0].name) == ("cat/b.jpg", "val", "cat")


@pytest.mark.parametrize("split", ["test", "..", "kayak/..", "/"])
def test_a_split_is_a_subfolder(root: Path, split: str) -> None:
    with pytest.raises(InputError, match="E103"):
        FolderCorpus(root, split)


def test_a_flat_folder_takes_the_class_it_is_told(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg")
    write_photo(tmp_path / "b.jpg")
    corpus = FolderCorpus(tmp_path, flat=CorpusClass("zebra", "zebra", ("stripes",), True))
    images = list(corpus.images())
    assert [image.labels[0].name for image in images] == ["zebra", "zebra"]
    region = corpus.regions(images[0], (4, 6), "boxes")[0]
    assert (region.label, region.aliases, region.mask.all()) == ("zebra", ("stripes",), True)


def test_class_folders_win_over_the_flat_class(tmp_path: Path) -> None:
    write_photo(tmp_path / "cat" / "a.jpg")
    corpus = FolderCorpus(tmp_path, flat=CorpusClass("zebra", "zebra", (), True))
    assert [item.name for item in corpus.classes] == ["cat"]
