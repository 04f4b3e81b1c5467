"""A small FC-CLIP with lively random weights, shared by the segmenter tests."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from retclip.core.vocabulary import Category, Vocabulary
from retclip.segmenters.fcclip.preprocessing import Resolution
from retclip.segmenters.fcclip.segmenter import FCCLIPSegmenter, SegmenterSettings
from retclip.segmenters.fcclip.variants import VARIANTS, ResNetTower, build_fcclip


@pytest.fixture(autouse=True)
def _fixed_randomness():
    """One seed, and one thread: on tensors this small, threads spend their time waiting for each other."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lively(model, seed=0):
    """Weights that spread masks and scores, so that a test of the result tests something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("gamma"):
                value.fill_(0.2)
            elif value.ndim > 1 and "token_embedding" not in name:
                value.copy_(torch.randn(value.shape, generator=generator) * (value[0].numel() ** -0.5))
            if any(part in name for part in ("query_feat", "query_embed")):
                value.copy_(2 * torch.randn(value.shape, generator=generator))
        model.sem_seg_head.predictor.logit_scale.fill_(3.0)
    return model


@pytest.fixture(scope="session")
def tiny():
    torch.manual_seed(0)
    return lively(build_fcclip("tiny"))


@pytest.fixture
def small_resnet():
    """A ResNet variant as small as `tiny`."""
    return replace(VARIANTS["tiny"], name="small-resnet", image=ResNetTower((1, 1, 1, 1), 8, 64, 4))


@pytest.fixture
def vocabulary():
    return Vocabulary(
        "test",
        (
            Category(3, ("wall", "brick wall"), is_thing=False),
            Category(5, ("person", "child")),
            Category(8, ("sky",), is_thing=False),
            Category(13, ("car",)),
        ),
    )


@pytest.fixture
def settings():
    from retclip.segmenters.fcclip.inference import PanopticThresholds

    return SegmenterSettings(
        frozenset({"person", "sky"}), thresholds=PanopticThresholds(0.0, 0.1), resolution=Resolution(96, 160)
    )


@pytest.fixture
def segmenter(tiny, settings):
    return FCCLIPSegmenter(tiny, settings)


@pytest.fixture
def pictures():
    """Six RGB pictures of coloured blocks: four of one size, two of others."""
    random = np.random.default_rng(0)
    sizes = [(48, 64)] * 4 + [(64, 48), (50, 90)]
    return [
        np.kron(random.integers(0, 255, (-(-h // 8), -(-w // 8), 3)), np.ones((8, 8, 1))).astype(np.uint8)[:h, :w]
        for h, w in sizes
    ]
