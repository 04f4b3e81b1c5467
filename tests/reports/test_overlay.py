"""The overlay picture."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retclip.core.panoptic import PanopticMap, rgb_to_ids
from retclip.core.vocabulary import Category, Vocabulary
from retclip.reports import overlay
from retclip.reports.legend import LEGEND_WIDTH, draw_legend, legend_entries
from retclip.reports.lettering import Lettering
from retclip.reports.overlay import (
    STUFF_OPACITY,
    draw_overlay,
    font_size,
    label_placements,
    paint_segments,
)
from retclip.reports.palette import OFF_WHITE, category_color

WORDS = [
    "pier",
    "kayak",
    "water",
    "Köttbullar på tallrik",
    "東京",
    "<script>alert(1)</script>",
    "x" * 300,
    "\u202eevil\x00",
]


def with_scores(result, score):
    explained = tuple(
        dataclasses.replace(e, segment=dataclasses.replace(e.segment, score=score)) for e in result.explanations
    )
    panoptic = PanopticMap(result.panoptic.ids, tuple(e.segment for e in explained))
    return dataclasses.replace(result, panoptic=panoptic, explanations=explained)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 12), st.integers(0, 99))
def test_any_result_can_be_drawn_and_twice_alike(samples, height, width, count, seed):
    result = samples.make_result(samples.make_blocks(height, width, count, seed), samples.make_vocabulary(WORDS))
    pixels = samples.make_pixels(height, width)
    plain = draw_overlay(pixels, result, legend=False)
    assert plain.size == (width, height)
    assert plain.mode == "RGB"
    whole = draw_overlay(pixels, result)
    assert whole.width == max(width, LEGEND_WIDTH)
    assert whole.height > height
    assert whole.tobytes() == draw_overlay(pixels, result).tobytes()


def test_without_segments_the_photo_is_untouched(samples):
    result = samples.make_result(np.zeros((30, 40), dtype=np.int32), samples.make_vocabulary(WORDS))
    pixels = samples.make_pixels(30, 40)
    assert np.array_equal(np.asarray(draw_overlay(pixels, result, legend=False)), pixels)


def test_stuff_is_blended_with_its_class_color_and_edged_off_white(samples):
    ids = np.zeros((200, 300), dtype=np.int32)
    ids[50:150, 100:200] = 1
    result = with_scores(samples.make_result(ids, samples.make_vocabulary(["a", "b"]), {1: 1}), 0.9)
    painted = paint_segments(np.full((200, 300, 3), 100, dtype=np.uint8), result)
    color = np.array(category_color(11))
    assert np.abs(painted[100, 150] - (100 * (1 - STUFF_OPACITY) + color * STUFF_OPACITY)).max() <= 1
    assert (painted[0, 0] == 100).all()
    assert (painted[60:140, 100] > 220).all()
    assert np.abs(painted[100, 199].astype(int) - OFF_WHITE).max() < 25


@pytest.mark.parametrize("band", [1, 7, 64])
def test_the_picture_does_not_know_its_bands(samples, monkeypatch, band):
    """Wide outlines and dashes run on from band to band."""
    result = samples.make_result(samples.make_blocks(900, 1300, 9, seed=4), samples.make_vocabulary(["a", "b"]))
    result = with_scores(result, 0.3)
    pixels = samples.make_pixels(900, 1300)
    monkeypatch.setattr(overlay, "BAND", 10_000)
    whole = paint_segments(pixels, result)
    monkeypatch.setattr(overlay, "BAND", band)
    assert np.array_equal(paint_segments(pixels, result), whole)


def test_an_uncertain_segment_is_dashed_also_where_it_meets_a_thing(samples):
    ids = np.ones((120, 160), dtype=np.int32)
    ids[30:90, 40:120] = 2
    vocabulary = samples.make_vocabulary(["thing", "stuff"])
    firm = with_scores(samples.make_result(ids, vocabulary, {1: 1, 2: 0}), 0.9)
    first = firm.explanations[0]
    weak = dataclasses.replace(first, segment=dataclasses.replace(first.segment, score=0.2))
    explained = (weak, firm.explanations[1])
    mixed = dataclasses.replace(
        firm, explanations=explained, panoptic=PanopticMap(ids, tuple(e.segment for e in explained))
    )
    black = np.zeros((120, 160, 3), dtype=np.uint8)
    inside, outside = (paint_segments(black, firm) > 200).all(axis=2), (paint_segments(black, mixed) > 200).all(axis=2)
    assert inside[30, 40:120].all()
    assert not outside[30, 45:115].any()
    assert 0.3 < outside[29, 40:120].mean() < 0.7


def test_labels_stand_in_their_segments_and_tiny_ones_have_none(samples):
    ids = samples.make_blocks(300, 400, 40, seed=3)
    ids[5, 5] = 99999
    result = samples.make_result(ids, samples.make_vocabulary(WORDS))
    placements = label_placements(result, Lettering(font_size(300, 400)))
    assert len(placements) >= 5
    for placed in placements:
        assert ids[placed.anchor[1], placed.anchor[0]] == placed.segment_id
    assert 99999 not in {placed.segment_id for placed in placements}


def test_three_hundred_segments(samples):
    ids = np.arange(1, 301, dtype=np.int32).reshape(15, 20).repeat(32, axis=0).repeat(32, axis=1)
    result = samples.make_result(ids, samples.make_vocabulary([f"class {i}" for i in range(40)]))
    picture = draw_overlay(samples.make_pixels(480, 640), result)
    assert picture.width == 640
    assert len(legend_entries(result)) == 40


def test_the_legend_adds_up(samples):
    ids = np.zeros((10, 10), dtype=np.int32)
    ids[:5], ids[5, :5], ids[5, 5:] = 1, 2, 3
    vocabulary = Vocabulary("v", (Category(0, ("sky",), False), Category(1, ("cat",), True)))
    entries = legend_entries(samples.make_result(ids, vocabulary, {1: 0, 2: 1, 3: 1}))
    assert [(e.name, e.share, e.instances) for e in entries] == [
        ("sky", 0.5, 0),
        ("cat", 0.1, 2),
        ("unlabelled", 0.4, 0),
    ]


@pytest.mark.parametrize("shape", [(1, 1), (2000, 20), (20, 2000), (60, 470)])
def test_every_legend_fits_its_sheet(samples, shape):
    count = min(14, shape[0] * shape[1])
    ids = np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape) % count + 1
    words = [f"{'word ' * (i % 4)}number {i}" for i in range(14)]
    result = with_scores(samples.make_result(ids, samples.make_vocabulary(words)), 0.3)
    sheet = np.asarray(draw_legend(Image.new("RGB", shape[::-1]), result, Lettering(font_size(*shape))))
    # The right margin stays empty: nothing runs over it.
    assert (sheet[shape[0] :, -4:] == sheet[-1, -1]).all()
    assert (sheet[shape[0] :] != sheet[-1, -1]).any()


def test_unknown_characters_are_folded_or_marked():
    lettering = Lettering(12)
    assert lettering.legible("plain (1) 87%") == "plain (1) 87%"
    assert lettering.legible("Köttbullar på") == "Kottbullar pa"
    assert lettering.legible("東京") == "??"
    assert lettering.width("東京") == lettering.width("??")


def test_wrong_pixels_are_refused(samples):
    result = samples.make_result(np.zeros((3, 4), dtype=np.int32), samples.make_vocabulary(WORDS))
    with pytest.raises(ValueError, match=r"pixels: expected \(3, 4, 3\) uint8"):
        draw_overlay(samples.make_pixels(4, 3), result)


def test_real_photos_get_labels_that_stand_in_their_segments(samples, photos):
    document = json.loads((photos / "annotations" / "panoptic_val2017.json").read_text())
    names = {c["id"]: i for i, c in enumerate(document["categories"])}
    vocabulary = Vocabulary(
        "coco", tuple(Category(c["id"], (c["name"],), bool(c["isthing"])) for c in document["categories"])
    )
    for annotation in document["annotations"][:3]:
        folder = photos / "annotations" / "panoptic_val2017"
        ids = rgb_to_ids(np.asarray(Image.open(folder / annotation["file_name"]).convert("RGB"))).astype(np.int32)
        columns = {s["id"]: names[s["category_id"]] for s in annotation["segments_info"]}
        ids[~np.isin(ids, list(columns))] = 0
        result = samples.make_result(ids, vocabulary, columns)
        placements = label_placements(result, Lettering(font_size(*ids.shape)))
        assert placements
        assert all(ids[p.anchor[1], p.anchor[0]] == p.segment_id for p in placements)
