import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from retclip.segmenters.layers.deformable_attention import (
    MultiScaleDeformableAttention,
    sample_values,
    sample_values_by_gather,
    sample_values_by_grid,
)


def straightforward(value, sizes, locations, weights):
    """Bilinear sampling spelled out, one sample at a time, in float64."""
    batch, _, heads, dim = value.shape
    out = torch.zeros(batch, locations.shape[1], heads, dim, dtype=torch.float64)
    for b, query, head, level, point in torch.cartesian_prod(*(torch.arange(n) for n in locations.shape[:5])).tolist():
        height, width = sizes[level]
        start = sum(h * w for h, w in sizes[:level])
        x = locations[b, query, head, level, point, 0].item() * width - 0.5
        y = locations[b, query, head, level, point, 1].item() * height - 0.5
        for row in (int(y // 1), int(y // 1) + 1):
            for column in (int(x // 1), int(x // 1) + 1):
                if 0 <= row < height and 0 <= column < width:
                    share = (1 - abs(y - row)) * (1 - abs(x - column)) * weights[b, query, head, level, point].item()
                    out[b, query, head] += share * value[b, start + row * width + column, head].double()
    return out.flatten(2).float()


def random_case(seed, sizes, batch=2, length=4, heads=2, dim=3, points=2):
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(batch, sum(h * w for h, w in sizes), heads, dim, generator=generator)
    locations = 1.6 * torch.rand(batch, length, heads, len(sizes), points, 2, generator=generator) - 0.3
    weights = torch.rand(batch, length, heads, len(sizes), points, generator=generator)
    return value, sizes, locations, weights


sides = st.integers(1, 5)


@given(seed=st.integers(0, 999), sizes=st.lists(st.tuples(sides, sides), min_size=1, max_size=3))
@settings(deadline=None, max_examples=25)
def test_both_implementations_are_bilinear_sampling(seed, sizes):
    case = random_case(seed, sizes)
    expected = straightforward(*case)
    assert_close(sample_values_by_grid(*case), expected, atol=1e-5, rtol=0)
    assert_close(sample_values_by_gather(*case), expected, atol=1e-5, rtol=0)


def test_gradients_agree():
    for implementation in (sample_values, sample_values_by_gather):
        value, sizes, locations, weights = random_case(0, [(3, 4), (2, 2)])
        gradients = []
        for sample in (sample_values_by_grid, implementation):
            inputs = [t.clone().requires_grad_() for t in (value, locations, weights)]
            sample(inputs[0], sizes, *inputs[1:]).square().sum().backward()
            gradients.append([t.grad for t in inputs])
        for ours, theirs in zip(*gradients, strict=True):
            assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(6, 2), (2, 6, 2), (2, 6, 2, 2)])
def test_reference_points_may_be_shared_over_images_and_levels(shape):
    torch.manual_seed(0)
    layer, sizes = MultiScaleDeformableAttention(8, 2, 2, 3), [(2, 2), (1, 2)]
    query, value = torch.randn(2, 6, 8), torch.randn(2, 6, 8)
    centres = torch.rand(6, 2)
    full = centres[:, None].expand(2, 6, 2, 2)
    given_points = {2: centres, 3: full[:, :, 0], 4: full}[len(shape)]
    assert given_points.shape == shape
    assert_close(layer(query, value, given_points, sizes), layer(query, value, full, sizes))


def test_a_fresh_layer_looks_in_all_directions_evenly():
    layer = MultiScaleDeformableAttention(16, 3, 8, 4)
    offsets = layer.sampling_offsets.bias.view(8, 3, 4, 2)
    assert_close(offsets.sum(0), torch.zeros(3, 4, 2), atol=1e-5, rtol=0)
    assert_close(offsets.abs().amax(-1), torch.arange(1.0, 5).expand(8, 3, 4))
    assert layer.attention_weights.weight.abs().max() == 0
