"""Where masks meet features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retclip.ports.encoders import DenseFeatures, embed_regions
from tests.fakes import COLOURS, ColourEncoder, striped, strips


@pytest.mark.parametrize("extent", [(0.0, 1.0), (2.5, 1.0), (1.0, 3.01), (1.0, -1.0)])
def test_extents_beyond_the_map_are_refused(extent: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="extent"):
        DenseFeatures(torch.zeros(4, 2, 3), extent)


def test_maps_of_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="values"):
        DenseFeatures(torch.zeros(1, 4, 2, 3), (1.0, 1.0))


def test_keys_are_unit_vectors_of_what_lies_under_the_mask() -> None:
    encoder = ColourEncoder()
    names = list(COLOURS)[:4]
    features = encoder.encode_images([striped(names)])[0]
    keys = embed_regions(encoder, features, strips((24, 48), 4))
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(4))
    for key, name in zip(keys, names, strict=True):
        whole = encoder.encode_images([striped([name])])[0]
        torch.testing.assert_close(key, embed_regions(encoder, whole, torch.ones(1, 24, 48, dtype=torch.bool))[0])


def test_masks_may_have_any_resolution() -> None:
    encoder = ColourEncoder()
    features = encoder.encode_images([striped(["red", "blue"])])[0]
    fine, coarse = (embed_regions(encoder, features, strips(size, 2)) for size in ((24, 48), (6, 12)))
    torch.testing.assert_close(fine, coarse, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_region_without_features_has_the_zero_vector(value: float) -> None:
    class Broken(ColourEncoder):
        def embed(self, features: DenseFeatures, masks: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.full((1, 6), value), super().embed(features, masks)[1:]])

    features = ColourEncoder().encode_images([striped(["red", "blue"])])[0]
    keys = embed_regions(Broken(), features, strips((24, 48), 2)).numpy()
    assert (keys[0] == 0).all()
    assert np.linalg.norm(keys[1]) == pytest.approx(1.0)
