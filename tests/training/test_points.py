import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from retclip.training.points import PointSettings, sample_points, uncertain_points


def test_cell_centres_give_the_cells_and_outside_gives_zero():
    maps = torch.arange(6.0).view(1, 2, 3)
    centres = torch.tensor([[(x + 0.5) / 3, (y + 0.5) / 2] for y in range(2) for x in range(3)])[None]
    assert_close(sample_points(maps, centres), maps.flatten(1))
    assert sample_points(maps, torch.tensor([[[-1.0, 0.5], [2.0, 0.5]]])).tolist() == [[0, 0]]


def test_one_set_of_points_serves_all_maps():
    maps, points = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0)), torch.rand(1, 7, 2)
    assert_close(sample_points(maps, points), torch.cat([sample_points(one[None], points) for one in maps]))


@given(count=st.integers(1, 4), loss=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_uncertain_points_are_the_nearest_candidates_and_then_uniform(count, loss, share, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 6, 6, generator=generator)
    draws = []

    def uniform(shape):
        draws.append(torch.rand(shape, generator=generator))
        return draws[-1]

    chosen = uncertain_points(logits, PointSettings(loss=loss, uncertain=share), uniform)
    assert chosen.shape == (count, loss, 2)
    candidates, rest = draws
    nearest = loss - rest.shape[1]
    assert nearest == int(share * loss)
    assert torch.equal(chosen[:, nearest:], rest)
    certainty = sample_points(logits, candidates).abs().sort(1).values[:, :nearest]
    found = sample_points(logits, chosen[:, :nearest]).abs().sort(1).values
    assert_close(found, certainty)


def test_no_gradient_flows_through_the_choice():
    logits = torch.randn(1, 4, 4, requires_grad=True)
    assert not uncertain_points(logits, PointSettings(loss=8), torch.rand).requires_grad


@pytest.mark.parametrize("shape", [(2, 5, 5), (1, 1, 9)])
def test_constant_maps_stay_constant_inside(shape):
    points = 0.3 + 0.4 * torch.rand(1, 20, 2)
    inner = sample_points(torch.full(shape, 2.5), points)
    if min(shape[1:]) > 1:
        assert_close(inner, torch.full_like(inner, 2.5))
    assert inner.max() <= 2.5 + 1e-6
