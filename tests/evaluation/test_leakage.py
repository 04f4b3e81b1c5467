from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from retclip.core.errors import InputError
from retclip.evaluation.leakage import Leak, LeakGuard, refuse
from retclip.ports.encoders import embed_regions
from tests.fakes import COLOURS, ColourEncoder, StripeCorpus, build_stripes, strips

# Every picture has three colours of its own.
SHADES = {f"shade {n}": tuple(np.random.default_rng(n).integers(0, 256, 3).tolist()) for n in range(36)}
PICTURES = [[f"shade {3 * n + k}" for k in range(3)] for n in range(12)]


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leak")
    with pytest.MonkeyPatch.context() as patch:
        for name, colour in SHADES.items():
            patch.setitem(COLOURS, name, colour)
        corpus = StripeCorpus.write(folder / "photos", PICTURES)
        yield LeakGuard(build_stripes(folder / "s.retdb", corpus)[0]), corpus


def keys_of(pixels: np.ndarray, count: int) -> np.ndarray:
    encoder = ColourEncoder()
    (features,) = encoder.encode_images([pixels])
    return embed_regions(encoder, features, strips(pixels.shape[:2], count)).numpy()


def test_equal_bytes_are_a_leak(guard):
    leaks, corpus = guard
    digest = hashlib.sha256(corpus.paths[1].read_bytes()).hexdigest()
    found = leaks.check("1.png", digest, np.zeros((0, 6), np.float32))
    assert (found.reason, found.image) == ("same bytes", "1.png")


def test_a_copy_in_another_format_and_size_is_a_leak(guard):
    leaks, corpus = guard
    buffer = io.BytesIO()
    with Image.open(corpus.paths[1]) as image:
        image.resize((96, 40)).save(buffer, "JPEG", quality=60)
    pixels = np.asarray(Image.open(buffer).convert("RGB"))
    found = leaks.check("copy.jpg", "0" * 64, keys_of(pixels, 3))
    assert (found.stored, found.reason, found.share) == ("0001", "near-duplicate features", 1.0)


def test_a_proposal_without_a_cell_on_the_feature_map_tells_nothing(guard):
    leaks, corpus = guard
    keys = keys_of(np.asarray(Image.open(corpus.paths[1]).convert("RGB")), 3)
    found = leaks.check("copy.jpg", "0" * 64, np.concatenate([keys, np.zeros_like(keys[:1])]))
    assert (found.stored, found.share) == ("0001", 1.0)
    assert leaks.check("empty.jpg", "1" * 64, np.zeros_like(keys)) is None


def test_another_picture_of_the_same_things_is_none(guard):
    leaks, _ = guard
    generator = torch.Generator().manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(4, 6, generator=generator), dim=1).numpy()
    assert leaks.check("new.jpg", "1" * 64, keys) is None
    assert leaks.check("empty.jpg", "1" * 64, keys[:0]) is None


def test_one_near_segment_is_no_leak_unless_it_is_the_whole_picture(guard):
    leaks, corpus = guard
    with Image.open(corpus.paths[2]) as image:
        own = keys_of(np.asarray(image.convert("RGB")), 3)
    generator = torch.Generator().manual_seed(0)
    others = torch.nn.functional.normalize(torch.randn(2, 6, generator=generator), dim=1).numpy()
    assert leaks.check("one.jpg", "1" * 64, np.concatenate([own[:1], others])) is None
    assert leaks.check("two.jpg", "1" * 64, np.concatenate([own[:2], others])).share == 0.5
    assert leaks.check("crop.jpg", "1" * 64, own[:1]).stored == "0002"
    assert 0 < leaks.limits[1] < leaks.limits[0]


def test_the_refusal_names_pictures_and_the_way_out():
    refuse([], "db")
    leaks = [Leak(f"{n}.jpg", "x", "same bytes", 1.0) for n in range(5)]
    with pytest.raises(InputError, match="E166 5 evaluation pictures are in database 'db'") as caught:
        refuse(leaks, "db")
    assert "0.jpg = x (same bytes)" in caught.value.why
    assert "and 2 more" in caught.value.why
    assert "--allow-leak" in caught.value.fix
