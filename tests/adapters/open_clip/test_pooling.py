import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.modified_resnet import AttentionPool2d
from torch.testing import assert_close

from retclip.adapters.open_clip.pooling import (
    attention_pool,
    mask_pool,
    resize_masks,
    resized_positions,
    weighted_mean,
)


@given(seed=st.integers(0, 999), queries=st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_the_mean_of_the_strictly_positive_cells(seed, queries):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, 4, 5, generator=generator)
    masks = torch.randint(-1, 2, (2, queries, 4, 5), generator=generator).float()
    pooled = mask_pool(features, masks)
    for image in range(2):
        for query in range(queries):
            inside = masks[image, query] > 0
            expected = features[image][:, inside].mean(1) if inside.any() else torch.zeros(3)
            assert_close(pooled[image, query], expected, atol=1e-5, rtol=0)


def test_no_gradient_reaches_the_masks_and_all_of_it_the_features():
    features, masks = torch.randn(1, 2, 3, 3, requires_grad=True), torch.randn(1, 2, 3, 3, requires_grad=True)
    mask_pool(features, masks).sum().backward()
    assert masks.grad is None
    assert features.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_empty_mask_pools_to_zero_in_half_precision_too(dtype):
    assert (mask_pool(torch.ones(1, 4, 3, 3, dtype=dtype), torch.full((1, 2, 3, 3), -1.0)) == 0).all()


def test_masks_are_resized_only_where_they_must():
    masks = torch.randn(1, 2, 4, 4)
    assert resize_masks(masks, (4, 4)) is masks
    assert resize_masks(masks, (8, 2)).shape == (1, 2, 8, 2)


@pytest.fixture
def pool():
    torch.manual_seed(0)
    return AttentionPool2d(3, 16, 4, 6).requires_grad_(False)


def naive_attention(pool, features, weights):
    """One mask at a time, one head at a time, with shares of weight * exp(query . key)."""
    channels, size = features.shape[0], features.shape[1:]
    tokens = features.flatten(1).T
    positions = resized_positions(pool.positional_embedding[1:], (3, 3), tuple(size), "bilinear")
    query = pool.q_proj(tokens.mean(0) + pool.positional_embedding[0]).view(pool.num_heads, -1)
    keys = pool.k_proj(tokens + positions).view(len(tokens), pool.num_heads, -1)
    values = pool.v_proj(tokens + positions).view(len(tokens), pool.num_heads, -1)
    rows = []
    for weight in weights.flatten(1).float():
        heads = []
        for head in range(pool.num_heads):
            share = weight * (keys[:, head] @ query[head] / (channels / pool.num_heads) ** 0.5).exp()
            heads.append(share @ values[:, head] / share.sum())
        rows.append(pool.c_proj(torch.cat(heads)))
    return torch.stack(rows)


@pytest.mark.parametrize("size", [(3, 3), (4, 5), (1, 7)])
def test_attention_weighs_every_cell_by_the_mask(pool, size):
    features, weights = torch.randn(16, *size), torch.rand(3, *size)
    weights[0] = (weights[0] > 0.5).float()
    weights[0, 0, 0] = 1.0
    weights[1, 0, 0] = 0.0
    weights[2] *= 1e-6  # only proportions count
    expected = naive_attention(pool, features, weights)
    assert_close(attention_pool(pool, features[None], weights[None])[0], expected, atol=1e-5, rtol=1e-4)


def test_attention_sees_only_the_mask(pool):
    features, inside = torch.randn(1, 16, 4, 5), torch.zeros(1, 1, 4, 5, dtype=torch.bool)
    inside[..., 1, 2] = inside[..., 3, 0] = True
    pooled = attention_pool(pool, features, inside)
    changed = features.clone()
    changed[..., 0, 0] += 1
    changed[..., 0, 1] -= 1  # the query, the mean over all cells, stays
    assert_close(attention_pool(pool, changed, inside), pooled)
    changed[..., 1, 2] += 1
    changed[..., 0, 3] -= 1
    assert not torch.allclose(attention_pool(pool, changed, inside), pooled)


def test_one_cell_gives_its_projected_value(pool):
    features, weights = torch.randn(1, 16, 3, 3), torch.zeros(1, 1, 3, 3)
    weights[..., 2, 1] = 0.5
    token = features[0, :, 2, 1] + pool.positional_embedding[1 + 2 * 3 + 1]
    assert_close(attention_pool(pool, features, weights)[0, 0], pool.c_proj(pool.v_proj(token)))


def test_masks_do_not_influence_each_other_and_an_empty_one_gives_the_bias(pool):
    features, inside = torch.randn(2, 16, 4, 5), torch.randn(2, 3, 4, 5) > 0
    inside[:, 1] = False
    together = attention_pool(pool, features, inside)
    assert together.isfinite().all()
    assert_close(together[:, 1], pool.c_proj.bias.expand(2, -1))
    for query in (0, 2):
        assert_close(attention_pool(pool, features, inside[:, query : query + 1])[:, 0], together[:, query])


def test_no_mask_gives_no_vector(pool):
    assert attention_pool(pool, torch.randn(1, 16, 3, 3), torch.zeros(1, 0, 3, 3)).shape == (1, 0, 6)
    assert weighted_mean(torch.randn(1, 16, 3, 3), torch.zeros(1, 0, 3, 3)).shape == (1, 0, 16)


@given(scale=st.floats(1e-6, 1e3), seed=st.integers(0, 99))
def test_a_weighted_mean_knows_proportions_only(scale, seed):
    generator = torch.Generator().manual_seed(seed)
    features, weights = torch.randn(1, 3, 4, 5, generator=generator), torch.rand(1, 2, 4, 5, generator=generator)
    expected = torch.stack([(features[0] * w).sum((1, 2)) / w.sum() for w in weights[0]])
    assert_close(weighted_mean(features, weights * scale)[0], expected, atol=1e-5, rtol=1e-4)


def test_a_position_table_of_its_own_grid_is_itself_and_a_constant_one_stays_constant():
    table = torch.randn(6, 4)
    assert resized_positions(table, (2, 3), (2, 3), "bicubic") is table
    same = resized_positions(torch.ones(6, 4), (2, 3), (5, 7), "bicubic")
    assert_close(same, torch.ones(35, 4))


def test_positions_keep_rows_and_columns_apart():
    row = torch.arange(2.0)[:, None].expand(2, 3)
    table = torch.stack([row, torch.arange(3.0).expand(2, 3)], dim=-1).reshape(6, 2)
    resized = resized_positions(table, (2, 3), (4, 9), "bilinear").view(4, 9, 2)
    assert_close(resized[..., 0], resized[:, :1, 0].expand(4, 9))
    assert_close(resized[..., 1], resized[:1, :, 1].expand(4, 9))
    assert (resized[:, 0, 0].diff() >= 0).all()
    assert (resized[0, :, 1].diff() >= 0).all()
