"""One training step of FC-CLIP against the official code, with its recorded random draws."""

import open_clip
import pytest
import torch
from torch.testing import assert_close

from retclip.segmenters.fcclip.checkpoint import assign_weights
from retclip.segmenters.fcclip.ensemble import EnsembleWeights
from retclip.segmenters.fcclip.preprocessing import normalised_batch
from retclip.segmenters.fcclip.text import encode_names, split_names
from retclip.segmenters.fcclip.variants import (
    ConvNeXtTower,
    HeadSizes,
    TextTower,
    Variant,
    build_fcclip,
)
from retclip.training.augmentation import jittered_size
from retclip.training.fcclip import TrainedNetwork
from retclip.training.losses import LossSettings, Targets, match, set_losses
from retclip.training.points import PointSettings

pytestmark = pytest.mark.golden

LOSS = {"atol": 1e-5, "rtol": 0}
RELATIVE = 1e-3  # of a gradient's norm
# Deformable attention samples between pixels: its slope jumps where rounding moves a sampling point over a border.
RELATIVE_OF_OFFSETS = 5e-3


def network_of(goldens, folder):
    meta, weights = goldens.json(f"{folder}/meta.json"), goldens.arrays(f"{folder}/weights.safetensors")
    vision, text = meta["clip_model"]["vision"], meta["clip_model"]["text"]
    tower = TextTower(
        text["width"],
        text["heads"],
        text["layers"],
        meta["clip_model"]["text_activation"] != "gelu",
        text["context_length"],
        text["vocab_size"],
    )
    head = HeadSizes(
        meta["hidden_dim"],
        meta["num_queries"],
        meta["nheads"],
        meta["encoder_points"],
        meta["encoder_layers"],
        meta["encoder_ffn"],
        meta["decoder_layers"],
        meta["decoder_ffn"],
        len(meta["train_classes"]),
    )
    image = ConvNeXtTower(tuple(vision["depths"]), tuple(vision["dims"]))
    with torch.device("meta"):
        model = build_fcclip(Variant("golden", image, tower, meta["clip_model"]["embed_dim"], EnsembleWeights(), head))
    tokens = torch.zeros(text["vocab_size"], text["width"])
    tokens[weights.pop("token_embedding.ids")] = weights.pop("token_embedding.rows")
    return assign_weights(model, {**weights, "backbone.clip_model.token_embedding.weight": tokens}), meta


class Replay:
    """Recorded draws in their order; a wrong shape or number of draws is a failure."""

    def __init__(self, arrays):
        self.draws = [arrays[key] for key in sorted(key for key in arrays if key.startswith("draw."))]
        self.next = 0

    def __call__(self, shape):
        draw = self.draws[self.next]
        assert tuple(draw.shape) == tuple(shape)
        self.next += 1
        return draw


@pytest.fixture(scope="module")
def training_step(goldens):
    """Losses and gradients of the recorded step."""
    arrays, meta = goldens.arrays("train_step/arrays.safetensors"), goldens.json("train_step/meta.json")
    model, setup = network_of(goldens, "e2e_convnext")
    inputs = goldens.arrays("e2e_convnext/inputs.safetensors")
    images = normalised_batch([inputs[f"image.{i}"] for i in range(len(inputs))], torch.device("cpu"))
    targets = [padded_targets(arrays, i, tuple(images.shape[2:])) for i in range(len(inputs))]
    names = [split_names(line) for line in setup["train_classes"]]
    text = encode_names(names, model.backbone.encode_text, open_clip.get_tokenizer("RN50"), torch.device("cpu"))
    weight = meta["weight_dict"]
    points = PointSettings(
        meta["num_points"], meta["matcher_num_points"], meta["oversample_ratio"], meta["importance_sample_ratio"]
    )
    settings = LossSettings(weight["loss_ce"], weight["loss_mask"], weight["loss_dice"], points)
    draws = Replay(arrays)
    guesses = TrainedNetwork(model.train())(images, text)
    masks = max(1, sum(len(target.labels) for target in targets))
    terms = set_losses(guesses, targets, model.criterion.empty_weight, masks, settings, draws)
    total = torch.stack([term for layer in terms for term in layer]).sum()
    total.backward()
    assert draws.next == len(draws.draws)
    return {
        "arrays": arrays,
        "meta": meta,
        "model": model,
        "text": text,
        "guesses": guesses,
        "terms": terms,
        "total": total,
        "targets": targets,
        "settings": settings,
    }


def padded_targets(arrays, image, size):
    masks = arrays[f"gt_masks.{image}"].bool()
    padded = torch.zeros(len(masks), *size, dtype=torch.bool)
    padded[:, : masks.shape[1], : masks.shape[2]] = masks
    return Targets(arrays[f"gt_labels.{image}"], padded)


def test_text_rows_of_the_training_names(training_step):
    assert_close(training_step["text"].rows, training_step["arrays"]["train_text_classifier"], atol=1e-5, rtol=0)


def test_losses_of_every_layer(training_step):
    expected = training_step["meta"]["losses_weighted"]
    *auxiliary, final = training_step["terms"]
    named = {"": final} | {f"_{layer}": terms for layer, terms in enumerate(auxiliary)}
    ours = {
        f"loss_{name}{suffix}": term.item()
        for suffix, terms in named.items()
        for name, term in zip(("ce", "mask", "dice"), terms, strict=True)
    }
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        assert_close(value, expected[name], **LOSS)
    assert_close(training_step["total"].item(), training_step["meta"]["total"], atol=1e-4, rtol=0)


def test_assignments_of_every_layer(training_step):
    arrays, guesses = training_step["arrays"], training_step["guesses"]
    draws = Replay(arrays)
    for layer, guess in enumerate([guesses[-1], *guesses[:-1]]):
        for image, found in enumerate(match(guess, training_step["targets"], training_step["settings"], draws)):
            assert torch.equal(found.queries, arrays[f"match.{layer}.{image}.query"])
            assert torch.equal(found.targets, arrays[f"match.{layer}.{image}.target"])
        draws.next += 2  # the draws of the loss lie between those of two matchings


def test_gradients(training_step):
    parameters = dict(training_step["model"].named_parameters())
    for key, expected in training_step["arrays"].items():
        if key.startswith("grad."):
            gradient = parameters[key.removeprefix("grad.")].grad
            relative = RELATIVE_OF_OFFSETS if "sampling_offsets" in key else RELATIVE
            assert (gradient - expected).norm() <= relative * expected.norm(), key


def test_gradient_norms_of_everything_trained_and_of_nothing_else(training_step):
    norms = {
        name: parameter.grad.norm().item()
        for name, parameter in training_step["model"].named_parameters()
        if parameter.grad is not None
    }
    expected = training_step["meta"]["grad_norms"]
    assert norms.keys() == expected.keys()
    for name, norm in norms.items():
        assert norm == pytest.approx(expected[name], rel=RELATIVE), name


def test_sizes_of_the_jitter(goldens):
    for entry in goldens.json("resize.json")["lsj_resize_scale"]:
        assert list(jittered_size(entry["h"], entry["w"], entry["scale"], entry["target"])) == entry["out"]
