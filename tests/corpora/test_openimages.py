from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from retclip.core.errors import ImageError, InputError
from retclip.corpora import describe, openimages_masks
from retclip.corpora.openimages import OpenImagesCorpus
from tests.corpora.openimages_trees import (
    BOXES,
    CAR,
    DOG,
    FIRST,
    LABELS,
    MASK_NAME,
    SECOND,
    SIZE,
    THIRD,
    TREE,
    datumaro,
    fiftyone,
    flat,
    mask_png,
    published,
    save_photos,
    save_text,
)  # fmt: skip

Layout = Callable[[Path], Path]
LAYOUTS = pytest.mark.parametrize("layout", [published, fiftyone, datumaro, flat])


def statements(corpus: OpenImagesCorpus) -> dict[str, list[tuple[str, str, float, bool]]]:
    return {i.image_id: [(x.name, x.source, x.confidence, x.present) for x in i.labels] for i in corpus.images()}


@LAYOUTS
def test_every_layout_gives_the_same_labels_and_credits(tmp_path: Path, layout: Layout) -> None:
    corpus = OpenImagesCorpus(layout(tmp_path))
    assert statements(corpus) == {
        FIRST: [(DOG, "human", 1.0, True), (CAR, "human", 1.0, False)],
        SECOND: [(TREE, "human", 1.0, True)],
    }
    first, second = corpus.images()
    assert (first.license, first.attribution) == ("CC BY 2.0", 'A "big", dog by Ann')
    assert (second.license, second.attribution) == ("CC BY 2.0", "")
    assert first.split == ("" if layout is flat else "train")
    assert (corpus.size(), first.read().size, corpus.warnings()) == (2, SIZE, [])
    assert [(known.raw, known.name, known.is_thing) for known in corpus.classes] == [
        (DOG, 'Dog, "hot"', True), (CAR, "Car", True), (TREE, "Tree", False),
    ]  # fmt: skip


@LAYOUTS
def test_boxes_are_in_pixels_without_depictions_and_groups_of_things(tmp_path: Path, layout: Layout) -> None:
    corpus = OpenImagesCorpus(layout(tmp_path))
    first, second = corpus.images()
    (dog,) = corpus.regions(first, SIZE, "boxes")
    assert (dog.label, dog.box, dog.is_crowd) == (DOG, (2.0, 3.0, 4.0, 6.0), False)
    assert (dog.box_source, dog.mask_source, int(dog.mask.sum())) == ("openimages.xclick", "box", 6)
    (tree,) = corpus.regions(second, SIZE, "boxes")
    assert (tree.label, tree.is_thing, tree.is_crowd, tree.box_source) == (TREE, False, True, "openimages.freeform")


@LAYOUTS
def test_masks_are_found_thresholded_and_brought_to_the_size_of_the_photo(tmp_path: Path, layout: Layout) -> None:
    corpus = OpenImagesCorpus(layout(tmp_path))
    first, second = corpus.images()
    (dog,) = corpus.regions(first, SIZE, "masks")
    assert dog.mask[:, :4].all()
    assert not dog.mask[:, 4:].any()
    assert (dog.box, dog.mask_source) == ((0.0, 0.0, 4.0, 6.0), "openimages.segmentation")
    assert corpus.regions(second, SIZE, "masks") == []


def test_machine_labels_count_from_their_threshold_and_never_over_a_person(tmp_path: Path) -> None:
    assert statements(OpenImagesCorpus(published(tmp_path), machine_labels=0.6)) == {
        FIRST: [(DOG, "human", 1.0, True), (CAR, "human", 1.0, False), (TREE, "machine", 0.8, True)],
        SECOND: [(TREE, "human", 1.0, True), (DOG, "machine", 0.6, True)],
    }


def test_asking_for_machine_labels_that_are_not_there_is_said(tmp_path: Path) -> None:
    corpus = OpenImagesCorpus(flat(tmp_path), machine_labels=0.5)
    assert (DOG, "machine", 0.6, True) in statements(corpus)[SECOND]
    assert corpus.warnings() == ["There is no table of machine labels; only those in other tables count"]


def test_without_label_tables_boxes_and_masks_say_what_is_there(tmp_path: Path) -> None:
    flat(tmp_path)
    (tmp_path / "train-annotations-human-imagelabels-boxable.csv").unlink()
    assert statements(OpenImagesCorpus(tmp_path)) == {
        FIRST: [(DOG, "human", 1.0, True)],
        SECOND: [(TREE, "human", 1.0, True)],
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ids.txt", f"train/{SECOND}\nvalidation/{THIRD}.jpg\n"),
        ("ids.txt", f"{SECOND}\n{THIRD}\n"),
        ("ids.csv", f"ImageID,Subset\n{SECOND},train\n{THIRD},train\n"),
        ("ids.json", f'["train/{SECOND}", "{THIRD.upper()}"]'),
    ],
)
def test_a_list_of_ids_restricts_the_corpus(tmp_path: Path, name: str, text: str) -> None:
    published(tmp_path)
    save_text(tmp_path / name, text)
    corpus = OpenImagesCorpus(tmp_path, image_ids=tmp_path / name)
    assert [image.image_id for image in corpus.images()] == [SECOND]
    assert corpus.warnings() == [f"1 listed photos are not on disk and are left out: {THIRD}"]


def test_a_list_with_a_bad_line_or_without_photos_is_refused(tmp_path: Path) -> None:
    published(tmp_path)
    save_text(tmp_path / "bad.txt", f"{FIRST}\n../../etc/passwd\n")
    with pytest.raises(InputError, match=r"E105 .*bad\.txt:2"):
        OpenImagesCorpus(tmp_path, image_ids=tmp_path / "bad.txt")
    save_text(tmp_path / "other.txt", f"{THIRD}\n")
    with pytest.raises(InputError, match=r"E101 .*other\.txt"):
        OpenImagesCorpus(tmp_path, image_ids=tmp_path / "other.txt")


def test_descriptions_name_classes_and_read_no_pixels(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "train" / f"{FIRST}.jpg").write_bytes(b"no picture")
    found = describe(OpenImagesCorpus(tmp_path))
    assert (found.images, found.labelled, found.absent, found.unmapped) == (2, 2, 1, {})
    assert found.images_by_class == {'Dog, "hot"': 1, "Tree": 1}


def test_splits_are_chosen_by_their_photos(tmp_path: Path) -> None:
    published(tmp_path)
    save_photos(tmp_path / "validation", THIRD)
    save_text(tmp_path / "oidv7-val-annotations-human-imagelabels.csv", LABELS.replace(FIRST, THIRD))
    for split in ("val", "validation"):
        corpus = OpenImagesCorpus(tmp_path, split)
        assert (corpus.split, list(statements(corpus))) == ("validation", [THIRD])
    assert OpenImagesCorpus(tmp_path).split == "train"
    with pytest.raises(InputError, match=r"(?s)E103 .*split 'test'.*train, validation"):
        OpenImagesCorpus(tmp_path, "test")
    with pytest.raises(InputError, match="E103 Open Images has no split 'dev'"):
        OpenImagesCorpus(tmp_path, "dev")


@pytest.mark.parametrize(
    ("removed", "address"),
    [
        ("oidv7-class-descriptions.csv", "v7/oidv7-class-descriptions.csv"),
        ("v6/oidv6-train-annotations-bbox.csv", "v6/oidv6-train-annotations-bbox.csv"),
        ("v5/train-annotations-object-segmentation.csv", "v5/train-annotations-object-segmentation.csv"),
    ],
)
def test_a_missing_table_is_named_with_its_address(tmp_path: Path, removed: str, address: str) -> None:
    (published(tmp_path) / removed).unlink()

    def read_everything() -> None:
        corpus = OpenImagesCorpus(tmp_path)
        for kind in ("boxes", "masks"):
            corpus.regions(next(corpus.images()), SIZE, kind)

    with pytest.raises(InputError, match=rf"(?s)E103 .*googleapis\.com/openimages/{address}"):
        read_everything()


def test_without_any_statement_the_tables_of_another_split_are_suspected(tmp_path: Path) -> None:
    published(tmp_path)
    save_text(tmp_path / "v7" / "oidv7-train-annotations-human-imagelabels.csv", LABELS.splitlines()[0] + "\n")
    with pytest.raises(InputError, match=r"(?s)E106 .*2 images.*oidv7-train-annotations-human-imagelabels\.csv"):
        OpenImagesCorpus(tmp_path)
    for table in tmp_path.rglob("*annotations*.csv"):
        table.unlink()
    with pytest.raises(InputError, match=r"E103 .*labels"):
        OpenImagesCorpus(tmp_path)


def test_unpacked_archives_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "train_0.tar.gz").touch()
    with pytest.raises(InputError, match=r"(?s)E101 .*train_0\.tar\.gz.*Unpack"):
        OpenImagesCorpus(tmp_path)


def test_photos_without_statement_and_with_other_names_are_warned_about(tmp_path: Path) -> None:
    published(tmp_path)
    save_photos(tmp_path / "train", THIRD)
    (tmp_path / "train" / "holiday.jpg").touch()
    unlabelled, others = OpenImagesCorpus(tmp_path).warnings()
    assert unlabelled == f"1 photos are in no table and have no labels: {THIRD}"
    assert others.startswith("1 photos are left out")


@pytest.mark.parametrize(
    ("table", "text", "where"),
    [
        ("v7/oidv7-train-annotations-human-imagelabels.csv", LABELS + f"{FIRST},verification\n", r":8\."),
        ("v7/oidv7-train-annotations-human-imagelabels.csv", LABELS + f'"{FIRST}\n', r":\d"),
        ("v7/oidv7-train-annotations-human-imagelabels.csv", LABELS + f"{FIRST},verification,{DOG},nan\n", "label"),
        ("v7/oidv7-train-annotations-human-imagelabels.csv", "ImageID,Source\n", ":1"),
        ("v7/oidv7-train-annotations-human-imagelabels.csv", "", ":1"),
        ("v6/oidv6-train-annotations-bbox.csv", BOXES.replace("0.25", "wide"), "bbox"),
        ("v6/oidv6-train-annotations-bbox.csv", BOXES.replace("0.25", "1e300"), "bbox"),
        ("oidv7-class-descriptions.csv", f"LabelName,DisplayName\n{DOG},Dog\nDog\n", ":3"),
        ("oidv7-class-descriptions.csv", f"LabelName,DisplayName\n{DOG}\n", ":2"),
    ],
)
def test_damaged_tables_are_named_with_the_line(tmp_path: Path, table: str, text: str, where: str) -> None:
    published(tmp_path)
    save_text(tmp_path / table, text)

    def read_boxes() -> None:
        corpus = OpenImagesCorpus(tmp_path)
        corpus.regions(next(corpus.images()), SIZE, "boxes")

    with pytest.raises(InputError, match=rf"E105 .*{where}"):
        read_boxes()


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "v7" / "oidv7-train-annotations-human-imagelabels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="E105"):
        OpenImagesCorpus(tmp_path)


def mask_error(root: Path) -> ImageError:
    corpus = OpenImagesCorpus(root)
    with pytest.raises(ImageError) as caught:
        corpus.regions(next(corpus.images()), SIZE, "masks")
    return caught.value


def test_a_missing_or_damaged_mask_costs_one_picture(tmp_path: Path) -> None:
    archive = published(tmp_path) / "v5" / "train-masks" / "train-masks-0.zip"
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert mask_error(tmp_path).code == "E114"
    archive.write_bytes(whole.replace(b"IDAT", b"XXXX", 1).replace(whole[60:80], b"\xff" * 20))
    assert mask_error(tmp_path).code == "E114"
    archive.unlink()
    assert mask_error(tmp_path).code == "E116"


def test_a_mask_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(tmp_path)
    monkeypatch.setattr(openimages_masks, "MAX_MEMBER_BYTES", 40)
    error = mask_error(tmp_path)
    assert (error.code, MASK_NAME in error.what) == ("E113", True)


def test_other_packings_are_refused(tmp_path: Path) -> None:
    published(tmp_path)
    with zipfile.ZipFile(tmp_path / "v5/train-masks/train-masks-0.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(MASK_NAME, mask_png())
    assert mask_error(tmp_path).code == "E114"


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", f"{FIRST}_m0_1.png/..", "a.png", ""])
def test_names_of_masks_cannot_leave_their_folder(tmp_path: Path, name: str) -> None:
    published(tmp_path)
    (tmp_path / "secret.png").write_bytes(mask_png())
    text = (tmp_path / "v5" / "train-annotations-object-segmentation.csv").read_text()
    save_text(tmp_path / "v5" / "train-annotations-object-segmentation.csv", text.replace(MASK_NAME, name))
    assert mask_error(tmp_path).code == "E116"
