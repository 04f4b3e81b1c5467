import pytest
import torch
from torch import nn

from retclip.core.errors import ModelError
from retclip.segmenters.fcclip.variants import build_fcclip
from retclip.training.optimiser import Schedule, build_optimiser, step


def test_the_released_rates():
    schedule = Schedule()
    rates = [schedule.rate(k) for k in (0, 327_777, 327_778, 355_091, 355_092)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5, 1e-6])


def test_a_cosine_rises_in_a_line_and_ends_near_zero():
    schedule = Schedule(iterations=1000, learning_rate=2.0, decay="cosine", warmup=10)
    rates = [schedule.rate(k) for k in range(1000)]
    assert rates[:2] == pytest.approx([0.2, 0.4], rel=1e-4)
    assert rates[500] == pytest.approx(1.0)
    assert max(rates) == rates[9]
    assert 0 < rates[-1] < 1e-5


def test_norms_and_embedding_tables_have_no_weight_decay_but_everything_else_has():
    with torch.device("meta"):
        model = build_fcclip("convnext-large")
    optimiser = build_optimiser(model, Schedule())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, exempt = (
        {names[id(p)] for p in group["params"]}
        for group in sorted(optimiser.param_groups, key=lambda g: -g["weight_decay"])
    )
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.05, 0.0]
    assert decayed | exempt == {name for name, p in model.named_parameters() if p.requires_grad}
    tables = {name for name in exempt if "norm" not in name and ".input_proj." not in name}
    predictor = "sem_seg_head.predictor."
    assert tables == {
        "void_embedding.weight",
        *(f"{predictor}{t}.weight" for t in ("query_feat", "query_embed", "level_embed")),
        f"{predictor}_mask_pooling_proj.0.weight",
        f"{predictor}_mask_pooling_proj.0.bias",
    }
    assert {f"{predictor}logit_scale", "sem_seg_head.pixel_decoder.transformer.level_embed"} <= decayed
    assert sum(p.numel() for group in optimiser.param_groups for p in group["params"]) == 20_721_601


def test_vectors_and_scalars_may_be_exempt_too():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    decayed, exempt = build_optimiser(model, Schedule(), decay_vectors=False).param_groups
    assert [p.ndim for p in decayed["params"]] == [2]
    assert [p.ndim for p in exempt["params"]] == [1, 1, 1]


def scalar_step(clip, target=3.0):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    optimiser = build_optimiser(layer, Schedule(clip=clip, learning_rate=0.5, steps=(1,)))
    norm = step(
        (layer(torch.ones(1, 1)) - target).square().sum(),
        optimiser,
        torch.amp.GradScaler("cpu", enabled=False),
        Schedule(clip=clip, learning_rate=0.5, steps=(1,)),
        0,
    )
    return layer, norm


def test_all_gradients_together_are_clipped():
    layer, norm = scalar_step(clip=0.01)
    assert norm == pytest.approx(6.0)
    assert layer.weight.grad.norm() == pytest.approx(0.01, rel=1e-4)


def test_a_gradient_that_is_not_finite_leaves_the_weights():
    with pytest.raises(ModelError) as raised:
        scalar_step(clip=0.01, target=float("inf"))
    assert raised.value.code == "E210"
