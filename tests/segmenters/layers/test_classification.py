import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from retclip.segmenters.layers.classification import TextRows, class_logits


@given(seed=st.integers(0, 500), counts=st.lists(st.integers(1, 4), min_size=1, max_size=6), scale=st.floats(-2, 7))
@settings(deadline=None, max_examples=40)
def test_the_best_name_counts_and_the_scale_is_clamped(seed, counts, scale):
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(sum(counts), 5, generator=generator), dim=-1)
    vectors = 9 * torch.randn(2, 3, 5, generator=generator)
    logits = class_logits(vectors, TextRows(rows, tuple(counts)), torch.tensor(scale))
    cosine = F.normalize(vectors, dim=-1) @ rows.T
    expected = torch.stack([part.amax(-1) for part in torch.split(cosine, counts, dim=-1)], -1)
    assert_close(logits, min(math.exp(scale), 100) * expected, atol=1e-4, rtol=1e-5)


def test_gradients_flow_to_the_best_name_once():
    rows = torch.eye(3)
    vectors = torch.tensor([[3.0, 2.0, 1.0]], requires_grad=True)
    class_logits(vectors, TextRows(rows, (1, 2)), torch.tensor(0.0))[0, 1].backward()
    reference = torch.tensor([[3.0, 2.0, 1.0]], requires_grad=True)
    F.normalize(reference, dim=-1)[0, 1].backward()
    assert_close(vectors.grad, reference.grad)


def test_void_is_normalised_and_last():
    rows = F.normalize(torch.randn(3, 4), dim=-1)
    text = TextRows(rows, (2, 1)).with_void(torch.full((1, 4), 7.0))
    assert text.names_per_class == (2, 1, 1)
    assert_close(text.rows[-1], torch.full((4,), 0.5))
    assert len(text) == 3


@pytest.mark.parametrize(("shape", "counts"), [((3,), (3,)), ((3, 2), (2,)), ((2, 2), (2, 0)), ((0, 2), ())])
def test_rows_that_do_not_fit_the_classes_are_refused(shape, counts):
    with pytest.raises(ValueError, match="TextRows"):
        TextRows(torch.zeros(shape), counts)
