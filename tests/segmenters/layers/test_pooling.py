import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.modified_resnet import AttentionPool2d
from torch.testing import assert_close

from retclip.segmenters.layers.pooling import mask_pool, masked_attention_pool, resize_masks


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


def test_attention_sees_only_the_mask(pool):
    features, masks = torch.randn(1, 16, 4, 5), -torch.ones(1, 1, 4, 5)
    masks[..., 1, 2] = 1
    masks[..., 3, 0] = 1
    pooled = masked_attention_pool(pool, features, masks)
    changed = features.clone()
    changed[..., 0, 0] += 1
    changed[..., 0, 1] -= 1  # the query, the mean over all cells, stays
    assert_close(masked_attention_pool(pool, changed, masks), pooled)
    changed[..., 1, 2] += 1
    changed[..., 0, 3] -= 1
    assert not torch.allclose(masked_attention_pool(pool, changed, masks), pooled)


def test_one_cell_gives_its_projected_value(pool):
    features, masks = torch.randn(1, 16, 3, 3), -torch.ones(1, 1, 3, 3)
    masks[..., 2, 1] = 0.5
    token = features[0, :, 2, 1] + pool.positional_embedding[1 + 2 * 3 + 1]
    assert_close(masked_attention_pool(pool, features, masks)[0, 0], pool.c_proj(pool.v_proj(token)))


def test_masks_do_not_influence_each_other_and_an_empty_one_gives_the_bias(pool):
    features, masks = torch.randn(2, 16, 4, 5), torch.randn(2, 3, 4, 5)
    masks[:, 1] = -1
    together = masked_attention_pool(pool, features, masks)
    assert together.isfinite().all()
    assert_close(together[:, 1], pool.c_proj.bias.expand(2, -1))
    for query in (0, 2):
        assert_close(masked_attention_pool(pool, features, masks[:, query : query + 1])[:, 0], together[:, query])
