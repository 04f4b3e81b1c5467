from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.corpora.openimages_tables import BoxTable, read_class_names, read_labels, read_masks
from tests.corpora.openimages_trees import BOX_COLUMNS, CAR, CLASSES, DOG, FIRST, SECOND, TREE, save_text

shares = st.floats(0, 1, allow_subnormal=False).map(lambda value: round(value, 6))


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    save_text(tmp_path / "classes.csv", CLASSES)
    return tmp_path / "classes.csv"


@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n", "\ufeffLabelName,DisplayName\n"])
def test_a_first_line_is_a_header_unless_it_starts_with_a_machine_id(tmp_path: Path, header: str) -> None:
    save_text(tmp_path / "a.csv", header + CLASSES + '/g/11bc5yqnqm,"Lemon, lime and bitters"\n')
    found = read_class_names([tmp_path / "a.csv"])
    assert list(found) == [DOG, CAR, TREE, "/g/11bc5yqnqm"]
    assert found["/g/11bc5yqnqm"].name == "Lemon, lime and bitters"


def test_the_real_list_of_boxable_classes_is_read(test_data: Path) -> None:
    found = read_class_names([test_data / "text" / "openimages-class-descriptions-boxable.csv"])
    stuff = {known.name for known in found.values() if not known.is_thing}
    assert len(found) == 601
    assert {"Tree", "Building", "Plant"} <= stuff
    assert not stuff & {"Person", "Car", "Chair", "Door", "Window"}


@given(st.tuples(shares, shares, shares, shares))
def test_boxes_keep_their_corners_and_their_order(
    tmp_path_factory: pytest.TempPathFactory, sides: tuple[float, float, float, float]
) -> None:
    root = tmp_path_factory.mktemp("boxes")
    save_text(root / "classes.csv", CLASSES)
    row = ",".join(map(str, sides))
    save_text(
        root / "boxes.csv",
        f"{BOX_COLUMNS}\n{FIRST},xclick,{CAR},1,{row},0,0,0,0,0\n{SECOND},x,{CAR},1,{row},0,0,0,0,0\n",
    )
    table = BoxTable([root / "boxes.csv"], {FIRST}, read_class_names([root / "classes.csv"]))
    (box,) = table.boxes(FIRST)
    x_min, x_max, y_min, y_max = sides
    assert box.corners == pytest.approx((x_min, y_min, x_max, y_max), abs=1e-7)
    assert (box.label, box.source, list(table.boxes(SECOND))) == (CAR, "xclick", [])


def test_names_of_sources_are_plain_words(tmp_path: Path, classes: Path) -> None:
    rows = "".join(f"{FIRST},{source},{CAR},1,0,1,0,1,0,0,0,0,0\n" for source in ("xclick", "\x1b[31m", "", "../x"))
    save_text(tmp_path / "boxes.csv", f"{BOX_COLUMNS}\n{rows}")
    table = BoxTable([tmp_path / "boxes.csv"], {FIRST}, read_class_names([classes]))
    assert [box.source for box in table.boxes(FIRST)] == ["xclick", "boxes", "boxes", "boxes"]


def test_only_photos_and_classes_that_count_are_kept(tmp_path: Path, classes: Path) -> None:
    save_text(
        tmp_path / "masks.csv", f"MaskPath,ImageID,LabelName\na,{FIRST},{CAR}\nb,{FIRST},/m/x\nc,{SECOND},{CAR}\n"
    )
    kept = read_masks([tmp_path / "masks.csv"], {FIRST}, read_class_names([classes]))
    assert [(label, name) for label, name in kept[FIRST]] == [(CAR, "a")]
    assert list(kept) == [FIRST]


def test_equal_statements_are_one_object(tmp_path: Path) -> None:
    rows = "".join(f"{image_id},verification,{CAR},1\n" for image_id in (FIRST, SECOND))
    save_text(tmp_path / "labels.csv", f"ImageID,Source,LabelName,Confidence\n{rows}")
    found = read_labels([tmp_path / "labels.csv"], {FIRST, SECOND}, None)
    assert found[FIRST][0] is found[SECOND][0]
