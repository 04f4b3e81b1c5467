"""FC-CLIP's proposals carry everything its one pass knows."""

import torch
from torch.testing import assert_close

from retclip.core.images import Picture
from retclip.segmenters.fcclip.preprocessing import full_size
from retclip.segmenters.fcclip.proposer import FCCLIPProposer


def test_proposals_carry_keys_scores_void_and_validity(segmenter, pictures, vocabulary):
    given = [Picture(pixels, "0" * 64, f"{number}.png") for number, pixels in enumerate(pictures)]
    passes = segmenter.passes(pictures, vocabulary)
    for found, own in zip(FCCLIPProposer(segmenter).propose(given, vocabulary), passes, strict=True):
        assert_close(found.keys.norm(dim=1), torch.ones(len(found.masks)))
        assert_close(found.in_vocab.sum(dim=1), torch.ones(len(found.masks)))
        assert torch.equal(found.void, own.void)
        assert torch.equal(found.valid, own.valid)
        assert found.masks.image_size == own.frame.output


def test_masks_are_the_release_s_full_size_masks(segmenter, pictures, vocabulary):
    for picture, own in zip(pictures, segmenter.passes(pictures, vocabulary), strict=True):
        given = [Picture(picture, "0" * 64, "p.png")]
        masks = FCCLIPProposer(segmenter).propose(given, vocabulary)[0].masks
        assert_close(masks.band(3, 21), full_size(own.mask_logits, own.frame).sigmoid()[:, 3:21], atol=2e-5, rtol=0)
