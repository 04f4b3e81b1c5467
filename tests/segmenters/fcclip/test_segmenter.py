from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from retclip.adapters.open_clip import prompts
from retclip.adapters.open_clip.text_store import TextStore
from retclip.core.vocabulary import Vocabulary
from retclip.segmenters.fcclip import segmenter as module
from retclip.segmenters.fcclip.preprocessing import Resolution, padded_size
from retclip.segmenters.fcclip.segmenter import FCCLIPSegmenter


def same(ours, theirs):
    return np.array_equal(ours.ids, theirs.ids) and [s.category_id for s in ours.segments] == [
        s.category_id for s in theirs.segments
    ]


def test_the_maps_say_something(segmenter, pictures, vocabulary):
    maps = segmenter.segment(pictures, vocabulary)
    assert [m.ids.shape for m in maps] == [p.shape[:2] for p in pictures]
    assert sum(len(m.segments) for m in maps) >= len(maps)


def test_batches_of_one_and_four_give_identical_maps(tiny, settings, pictures, vocabulary):
    one = FCCLIPSegmenter(tiny, settings).segment(pictures, vocabulary)
    four = FCCLIPSegmenter(tiny, replace(settings, batch_size=4)).segment(pictures, vocabulary)
    assert all(same(a, b) for a, b in zip(one, four, strict=True))


def test_a_picture_does_not_see_its_companions(tiny, settings, pictures, vocabulary):
    segmenter = FCCLIPSegmenter(tiny, replace(settings, batch_size=4))
    together = segmenter.segment(pictures, vocabulary)
    alone = [segmenter.segment([picture], vocabulary)[0] for picture in pictures]
    assert all(same(a, b) for a, b in zip(together, alone, strict=True))


def test_two_runs_are_identical(segmenter, pictures, vocabulary):
    first, second = segmenter.segment(pictures, vocabulary), segmenter.segment(pictures, vocabulary)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


def test_padding_of_a_size_that_needs_none_changes_nothing(tiny, settings, pictures, vocabulary):
    """At 96 x 128 no padding is needed: pre-resized input and the resizing walk agree."""
    segmenter = FCCLIPSegmenter(tiny, settings)
    (proposals,) = segmenter.passes(pictures[:1], vocabulary)
    assert proposals.frame.padded == proposals.frame.content == (96, 128)
    resized = module.resize_picture(pictures[0], (96, 128))
    (direct,) = segmenter.passes([resized], vocabulary)
    assert torch.equal(direct.mask_logits, proposals.mask_logits)
    assert torch.equal(direct.class_logits, proposals.class_logits)


def test_proposals_carry_what_retrieval_needs(segmenter, pictures, vocabulary):
    for proposals, picture in zip(segmenter.passes(pictures, vocabulary), pictures, strict=True):
        frame = proposals.frame
        queries = len(proposals.mask_logits)
        assert frame.output == picture.shape[:2]
        assert frame.padded == padded_size([frame.content])
        assert tuple(proposals.mask_logits.shape[1:]) == (frame.padded[0] // 4, frame.padded[1] // 4)
        assert tuple(proposals.dense.shape[1:]) == (frame.padded[0] // 32, frame.padded[1] // 32)
        assert_close(proposals.in_vocabulary.sum(-1), torch.ones(queries))
        assert_close(proposals.void, proposals.class_logits.softmax(-1)[:, len(vocabulary)])
        assert proposals.embeddings.shape == (queries, segmenter.text_rows(vocabulary).rows.shape[1])
        assert proposals.full_size(torch.tensor([0, 2])).shape == (2, *frame.output)


def test_one_backbone_pass_serves_everything(segmenter, pictures, vocabulary, monkeypatch):
    passes = []
    pyramid = type(segmenter.model.backbone).pyramid
    monkeypatch.setattr(
        type(segmenter.model.backbone),
        "pyramid",
        lambda self, images: passes.append(len(images)) or pyramid(self, images),
    )
    segmenter.segment(pictures, vocabulary)
    assert sum(passes) == len(pictures)


def test_a_name_is_encoded_once(segmenter, pictures, vocabulary, monkeypatch):
    encoded = []
    original = prompts.encode_names
    monkeypatch.setattr(prompts, "encode_names", lambda *given: encoded.append(given[0]) or original(*given))
    for _ in range(3):
        segmenter.segment(pictures[:1], vocabulary)
    assert encoded == [["wall", "brick wall", "person", "child", "sky", "car"]]
    segmenter.text_rows(Vocabulary.from_names("other", ["sky", "moon"]))
    assert encoded[1:] == [["moon"]]


def test_cached_names_are_bounded(segmenter, vocabulary, monkeypatch):
    monkeypatch.setattr(prompts, "MOST_NAMES", 4)
    rows = segmenter.text_rows(vocabulary).rows
    assert len(segmenter.names._rows) == 4
    assert_close(segmenter.text_rows(vocabulary).rows, rows)


def test_rows_on_disk_serve_the_next_segmenter(tiny, settings, vocabulary, tmp_path, monkeypatch):
    store = TextStore(tmp_path / "tower.safetensors")
    first = FCCLIPSegmenter(tiny, settings, store).text_rows(vocabulary)
    monkeypatch.setattr(prompts, "encode_names", lambda *_: pytest.fail("encoded again"))
    assert torch.equal(FCCLIPSegmenter(tiny, settings, store).text_rows(vocabulary).rows, first.rows)


def test_only_the_users_names_matter(tiny, settings, pictures, vocabulary):
    """Seen classes come from the given training names; nothing else about a class list is known inside."""
    nothing_seen = FCCLIPSegmenter(tiny, replace(settings, training_names=frozenset()))
    some_seen = FCCLIPSegmenter(tiny, settings)
    (proposals,) = some_seen.passes(pictures[:1], vocabulary)
    assert not torch.equal(
        some_seen.log_probabilities(proposals, vocabulary), nothing_seen.log_probabilities(proposals, vocabulary)
    )


def test_bfloat16_stays_close(tiny, settings, pictures, vocabulary):
    exact = FCCLIPSegmenter(tiny, settings).passes(pictures[:2], vocabulary)
    rough = FCCLIPSegmenter(tiny, replace(settings, precision=torch.bfloat16)).passes(pictures[:2], vocabulary)
    for a, b in zip(exact, rough, strict=True):
        assert b.mask_logits.dtype == torch.float32
        assert ((a.mask_logits > 0) != (b.mask_logits > 0)).float().mean() < 0.1


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"precision": torch.float16}])
def test_wrong_settings_are_refused(settings, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(settings, **wrong)


def test_no_pictures_give_no_maps(segmenter, vocabulary):
    assert segmenter.segment([], vocabulary) == []


def test_very_long_pictures_respect_the_long_side(tiny, settings, vocabulary):
    segmenter = FCCLIPSegmenter(tiny, replace(settings, resolution=Resolution(96, 160)))
    (proposals,) = segmenter.passes([np.zeros((8, 400, 3), np.uint8)], vocabulary)
    assert max(proposals.frame.content) == 160
