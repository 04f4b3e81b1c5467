from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from retclip.core.errors import InputError
from retclip.evaluation.leakage import Leak, LeakGuard, refuse
from retclip.ports.encoders import embed_regions
from tests.fakes import ColourEncoder, StripeCorpus, build_stripes, strips

PICTURES = [["red", "blue"], ["green", "grey"], ["yellow", "red"]]


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leak")
    corpus = StripeCorpus.write(folder / "photos", PICTURES)
    return LeakGuard(build_stripes(folder / "s.retdb", corpus)[0]), corpus


def keys_of(pixels: np.ndarray, count: int) -> np.ndarray:
    encoder = ColourEncoder()
    (features,) = encoder.encode_images([pixels])
    return embed_regions(encoder, features, strips(pixels.shape[:2], count)).numpy()


def test_equal_bytes_are_a_leak(guard):
    leaks, corpus = guard
    import hashlib

    digest = hashlib.sha256(corpus.paths[1].read_bytes()).hexdigest()
    found = leaks.check("1.png", digest, np.zeros((0, 6), np.float32))
    assert (found.reason, found.image) == ("same bytes", "1.png")


def test_a_copy_in_another_format_and_size_is_a_leak(guard):
    leaks, corpus = guard
    buffer = io.BytesIO()
    with Image.open(corpus.paths[1]) as image:
        image.resize((40, 20)).save(buffer, "JPEG", quality=60)
    pixels = np.asarray(Image.open(buffer).convert("RGB"))
    found = leaks.check("copy.jpg", "0" * 64, keys_of(pixels, 2))
    assert (found.stored, found.reason, found.share) == ("0001", "near-duplicate features", 1.0)


def test_another_picture_of_the_same_things_is_none(guard):
    leaks, _ = guard
    generator = torch.Generator().manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(4, 6, generator=generator), dim=1).numpy()
    assert leaks.check("new.jpg", "1" * 64, keys) is None
    assert leaks.check("empty.jpg", "1" * 64, keys[:0]) is None


def test_the_refusal_names_pictures_and_the_way_out():
    refuse([], "db")
    leaks = [Leak(f"{n}.jpg", "x", "same bytes", 1.0) for n in range(5)]
    with pytest.raises(InputError, match="E166 5 evaluation pictures are in database 'db'") as caught:
        refuse(leaks, "db")
    assert "0.jpg = x (same bytes)" in caught.value.why
    assert "and 2 more" in caught.value.why
    assert "--allow-leak" in caught.value.fix
