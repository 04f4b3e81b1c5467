import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from retclip.segmenters.fcclip.ensemble import EnsembleWeights, geometric_ensemble


def random_case(seed, classes=5, queries=4, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    inside = spread * torch.randn(queries, classes + 1, generator=generator)
    outside = spread * torch.randn(queries, classes, generator=generator)
    seen = torch.rand(classes, generator=generator) > 0.5
    valid = torch.rand(queries, generator=generator) > 0.5
    return inside, outside, seen, valid


@given(seed=st.integers(0, 500), alpha=st.floats(0, 1), beta=st.floats(0, 1), only_valid=st.booleans())
@settings(deadline=None)
def test_it_is_the_formula_in_float64(seed, alpha, beta, only_valid):
    inside, outside, seen, valid = random_case(seed)
    result = geometric_ensemble(inside, outside, seen, valid, EnsembleWeights(alpha, beta, only_valid))
    p_in, p_out = inside[:, :-1].double().softmax(-1), outside.double().softmax(-1)
    void = inside.double().softmax(-1)[:, -1:]
    for query in range(len(inside)):
        exponent = torch.where(seen, alpha, beta).double() * (1.0 if valid[query] or not only_valid else 0.0)
        mixed = p_in[query] ** (1 - exponent) * p_out[query] ** exponent
        expected = torch.cat([mixed / mixed.sum() * (1 - void[query]), void[query]])
        assert_close(result[query].exp().double() - 1e-8, expected, atol=1e-5, rtol=1e-4)


@given(seed=st.integers(0, 100), spread=st.sampled_from([1e3, 1e5]))
@settings(deadline=None)
def test_probabilities_that_underflow_stay_numbers(seed, spread):
    result = geometric_ensemble(*random_case(seed, spread=spread), EnsembleWeights())
    assert result.isfinite().all()
    assert_close(result.exp().sum(-1), torch.ones(len(result)), atol=1e-5, rtol=0)


def test_a_score_that_does_not_count_may_be_anything():
    inside, outside, seen, _ = random_case(0)
    outside[1] = float("nan")
    valid = torch.tensor([True, False, True, True])
    result = geometric_ensemble(inside, outside, seen, valid, EnsembleWeights(only_valid_masks=True))
    assert result.isfinite().all()
    assert_close(result[1].softmax(-1), inside[1].softmax(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("wrong", [{"alpha": -0.1}, {"beta": 1.1}])
def test_exponents_outside_the_unit_interval_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EnsembleWeights(**wrong)
