from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retclip.core.errors import ImageError, InputError
from retclip.core.images import read_picture
from retclip.corpora.ade20k import STUFF, Ade20kCorpus, read_object_info

# wall (1, stuff), two chairs (20, thing) that touch, unlabelled
NUMBERS = np.array([[1, 1, 20, 20], [1, 0, 20, 20]], np.uint8)


def write_table(root: Path) -> None:
    rows = [f"{n} \t0.1\t10\t1\tclass {n} , synonym {n}" for n in range(1, 151)]
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "\n".join(rows) + "\n")


def write_corpus(root: Path, split: str = "training", names: tuple[str, ...] = ("ADE_train_1",)) -> Path:
    for kind in ("images", "annotations"):
        (root / kind / split).mkdir(parents=True)
    for name in names:
        Image.new("RGB", (4, 2)).save(root / "images" / split / f"{name}.jpg")
        Image.fromarray(NUMBERS).save(root / "annotations" / split / f"{name}.png")
    write_table(root)
    return root


def write_instances(root: Path, colours: np.ndarray) -> None:
    (root / "annotations_instance" / "training").mkdir(parents=True)
    Image.fromarray(colours).save(root / "annotations_instance" / "training" / "ADE_train_1.png")
    rows = "Instance100 SceneParse150 FullADE20K\n7\t20\t471\n"
    (root / "ade20k_instance_catid_mapping.txt").write_text(rows)


def instance_colours() -> np.ndarray:
    colours = np.zeros((2, 4, 3), np.uint8)
    colours[:, 2] = (7, 1, 0)
    colours[:, 3] = (7, 2, 0)
    colours[0, 0] = (7, 0, 0)  # instance 0 is none
    return colours


def test_labels_come_from_the_class_image(tmp_path: Path) -> None:
    (image,) = Ade20kCorpus(write_corpus(tmp_path)).images()
    assert (image.source, image.image_id, image.split) == ("ade20k", "ADE_train_1", "training")
    assert [label.name for label in image.labels] == ["class 1, synonym 1", "class 20, synonym 20"]


def test_without_instances_a_class_is_one_region(tmp_path: Path) -> None:
    corpus = Ade20kCorpus(write_corpus(tmp_path))
    wall, chairs = corpus.regions(next(corpus.images()), (2, 4), "masks")
    np.testing.assert_array_equal(wall.mask, NUMBERS == 1)
    np.testing.assert_array_equal(chairs.mask, NUMBERS == 20)
    assert (wall.is_thing, chairs.is_thing) == (False, True)
    assert (chairs.label, chairs.aliases, chairs.box) == ("class 20, synonym 20", ("synonym 20",), (2.0, 0.0, 4.0, 2.0))
    assert chairs.mask_source == "ade20k.annotations"


def test_instances_separate_things_that_touch(tmp_path: Path) -> None:
    write_instances(write_corpus(tmp_path), instance_colours())
    corpus = Ade20kCorpus(tmp_path)
    wall, first, second = corpus.regions(next(corpus.images()), (2, 4), "masks")
    assert (wall.mask_source, first.mask_source) == ("ade20k.annotations", "ade20k.annotations_instance")
    assert first.label == second.label == "class 20, synonym 20"
    assert (first.box, second.box) == ((2.0, 0.0, 3.0, 2.0), (3.0, 0.0, 4.0, 2.0))


def test_instances_without_their_mapping_are_not_used(tmp_path: Path) -> None:
    write_instances(write_corpus(tmp_path), instance_colours())
    (tmp_path / "ade20k_instance_catid_mapping.txt").unlink()
    corpus = Ade20kCorpus(tmp_path)
    assert len(corpus.regions(next(corpus.images()), (2, 4), "masks")) == 2


def test_unknown_instance_classes_do_not_fit(tmp_path: Path) -> None:
    colours = instance_colours()
    colours[0, 3] = (8, 1, 0)
    write_instances(write_corpus(tmp_path), colours)
    corpus = Ade20kCorpus(tmp_path)
    with pytest.raises(ImageError, match=r"\[8\]"):
        corpus.regions(next(corpus.images()), (2, 4), "masks")


def test_boxes_fill_the_tight_box(tmp_path: Path) -> None:
    corpus = Ade20kCorpus(write_corpus(tmp_path))
    wall = corpus.regions(next(corpus.images()), (2, 4), "boxes")[0]
    assert (int(wall.mask.sum()), wall.box, wall.mask_source) == (4, (0.0, 0.0, 2.0, 2.0), "box")


@pytest.mark.parametrize(
    ("asked", "got"), [("train", "training"), ("training", "training"), (None, "training"), ("val", "validation")]
)
def test_splits_have_short_names(tmp_path: Path, asked: str | None, got: str) -> None:
    write_corpus(tmp_path)
    write_corpus(tmp_path, "validation", ("ADE_val_1",))
    assert Ade20kCorpus(tmp_path, asked).split == got


def test_the_only_split_needs_no_name_and_an_absent_one_is_an_error(tmp_path: Path) -> None:
    write_corpus(tmp_path, "validation", ("ADE_val_1",))
    assert Ade20kCorpus(tmp_path).split == "validation"
    with pytest.raises(InputError, match=r"(?s)E103 .*Found the splits: validation"):
        Ade20kCorpus(tmp_path, "train")


def test_photos_come_in_order_of_their_names(tmp_path: Path) -> None:
    corpus = Ade20kCorpus(write_corpus(tmp_path, names=("ADE_b", "ADE_a", "ADE_c")))
    assert [image.image_id for image in corpus.images()] == ["ADE_a", "ADE_b", "ADE_c"]


def test_photos_without_or_with_damaged_class_images_are_named(tmp_path: Path) -> None:
    write_corpus(tmp_path, names=("ADE_a", "ADE_b", "ADE_c"))
    (tmp_path / "annotations" / "training" / "ADE_a.png").unlink()
    (tmp_path / "annotations" / "training" / "ADE_b.png").write_bytes(b"")
    corpus = Ade20kCorpus(tmp_path)
    damaged, sound = corpus.images()
    assert (damaged.labels, len(sound.labels)) == ((), 2)
    without, broken = corpus.warnings()
    assert "ADE_a.jpg" in without
    assert "ADE_b.jpg" in broken
    with pytest.raises(ImageError, match=r"ADE_b\.png"):
        corpus.regions(damaged, (2, 4), "masks")


def test_no_photo_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="E101"):
        Ade20kCorpus(write_corpus(tmp_path, names=()))


@pytest.mark.parametrize(
    "numbers", [np.full((2, 4), 151, np.uint8), np.ones((3, 4), np.uint8), np.ones((2, 4, 3), np.uint8)]
)
def test_a_class_image_of_another_kind_does_not_fit(tmp_path: Path, numbers: np.ndarray) -> None:
    corpus = Ade20kCorpus(write_corpus(tmp_path))
    image = next(corpus.images())
    Image.fromarray(numbers).save(tmp_path / "annotations" / "training" / "ADE_train_1.png")
    with pytest.raises(ImageError, match="E116"):
        corpus.regions(image, (2, 4), "masks")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("\t", ","), "Line 2 is not"),
        (lambda text: text.replace("class 5 , synonym 5", " "), "Line 6 has no name"),
        (lambda text: text.rsplit("\n", 3)[0], "149 classes|148 classes"),
    ],
)
def test_another_class_table_is_refused(tmp_path: Path, damage, message: str) -> None:
    write_table(tmp_path)
    path = tmp_path / "objectInfo150.txt"
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=message):
        read_object_info(path)


def test_a_wrong_instance_mapping_is_refused(tmp_path: Path) -> None:
    write_instances(write_corpus(tmp_path), instance_colours())
    (tmp_path / "ade20k_instance_catid_mapping.txt").write_text("header\n7 151 3\n")
    with pytest.raises(InputError, match="Line 2"):
        Ade20kCorpus(tmp_path)


def test_a_third_of_the_classes_is_stuff() -> None:
    assert (len(STUFF), min(STUFF), max(STUFF)) == (50, 1, 146)


def test_real_sample_in_the_release_layout(test_data: Path, tmp_path: Path) -> None:
    sample = test_data / "ade20k_sample"
    shutil.copytree(sample / "sampleData" / "images", tmp_path / "images" / "validation")
    shutil.copytree(sample / "sampleData" / "annotations", tmp_path / "annotations" / "validation")
    shutil.copy(sample / "objectInfo150.txt", tmp_path)
    corpus = Ade20kCorpus(tmp_path)
    assert corpus.classes[0].name == "wall"
    assert corpus.classes[1].aliases == ("edifice",)
    assert len({known.name for known in corpus.classes}) == 150
    assert sum(known.is_thing for known in corpus.classes) == 100
    images = list(corpus.images())
    assert [image.image_id for image in images] == [f"ADE_val_0000000{n}" for n in (1, 2, 3)]
    for image in images:
        size = read_picture(image.path).size
        regions = corpus.regions(image, size, "masks")
        labelled = np.asarray(Image.open(tmp_path / "annotations" / "validation" / f"{image.image_id}.png")) > 0
        np.testing.assert_array_equal(np.sum([region.mask for region in regions], axis=0), labelled)
        assert [region.label for region in regions] == [label.name for label in image.labels]
