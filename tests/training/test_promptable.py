"""Training a miniature SAM on two small pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import SamConfig, SamImageProcessor, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from retclip.adapters.promptable import SquareInput
from retclip.adapters.transformers_sam import load_transformers_sam
from retclip.core.errors import InputError, ModelError
from retclip.core.images import read_picture
from retclip.presets import MaskerSettings
from retclip.training import promptable
from retclip.training.augmentation import PADDING_COLOUR, JitterSettings, jitter
from retclip.training.optimiser import Schedule
from retclip.training.promptable import MaskerTraining, prompt_losses, train_masker
from retclip.training.prompts import PromptSettings

SIDE, WIDTH = 64, 32


def network():
    vision = SamVisionConfig(
        hidden_size=WIDTH,
        output_channels=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        window_size=4,
        global_attn_indexes=[1],
        num_pos_feats=WIDTH // 2,
        mlp_ratio=2.0,
    )
    prompts = SamPromptEncoderConfig(hidden_size=WIDTH, image_size=SIDE, patch_size=8)
    decoder = SamMaskDecoderConfig(hidden_size=WIDTH, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=WIDTH)
    return SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)


@pytest.fixture
def run(folders, vocabulary, tmp_path):
    return MaskerTraining(
        (folders,),
        vocabulary,
        tmp_path / "run",
        network(),
        Schedule(iterations=4, batch_size=2, learning_rate=2e-3, decay="cosine", warmup=2, clip=1.0),
        JitterSettings(size=SIDE, smallest=0.9, largest=1.1),
        PromptSettings(segments=3),
        save_every=2,
        log_every=1,
    )


def logged(run):
    return [json.loads(line) for line in (run.output / "log.jsonl").read_text().splitlines()]


def test_it_learns_to_answer_boxes_through_the_adapter(run, folders):
    run = replace(run, schedule=replace(run.schedule, iterations=220, learning_rate=5e-3), save_every=1000)
    exported = train_masker(run)
    losses = [entry["loss"] for entry in logged(run)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    masker = load_transformers_sam(MaskerSettings(library="sam", model="tiny"), exported, torch.device("cpu"))
    photo = read_picture(folders.images / "0.png")
    [found] = masker.masks([photo.pixels], [torch.tensor([[45.0, 40, 75, 60]])])
    box = torch.zeros(64, 80, dtype=torch.bool)
    box[40:60, 45:75] = True
    mask = found.masks.region(0)
    assert (mask & box).sum() / (mask | box).sum() > 0.7


def test_the_export_is_half_precision_with_the_same_answers(run):
    folder = train_masker(run)
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    trained = torch.load(run.output / "state.pt", weights_only=True)["model"]
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor.float(), trained[name], atol=1e-4, rtol=1e-3)


def test_the_adapter_shows_the_network_what_training_showed(run, folders):
    """Same pixels, same padding, same normalisation, by the adapter and by the library's own processor."""
    processor = SamImageProcessor.from_pretrained(train_masker(run))
    photo = read_picture(folders.images / "0.png").pixels[:, :64]
    square, _ = jitter(
        photo[:40],
        np.zeros((40, 64), np.int32),
        replace(run.jitter, smallest=1, largest=1, flip=0),
        np.random.default_rng(0),
    )
    ours = (torch.from_numpy(square).permute(2, 0, 1)[None] - promptable._MEAN) / promptable._STD
    mean, std = (tuple(255 * value for value in values) for values in (processor.image_mean, processor.image_std))
    torch.testing.assert_close(SquareInput(SIDE, mean, std, padded=True).pixels(photo[:40]), ours, atol=1e-5, rtol=0)
    theirs = processor(Image.fromarray(photo[:40]), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    assert mean == pytest.approx((PADDING_COLOUR,) * 3)


class InterruptedRunError(Exception):
    """Stands for the power cut."""


def test_a_resumed_run_is_bit_exact(run, monkeypatch, tmp_path):
    whole = load_file(train_masker(replace(run, output=tmp_path / "whole")) / "model.safetensors")
    advance = promptable._Run.advance

    def interrupted(self, pictures):
        if self.iteration == 3:  # one step after the state of iteration 2 was saved
            raise InterruptedRunError
        advance(self, pictures)

    monkeypatch.setattr(promptable._Run, "advance", interrupted)
    with pytest.raises(InterruptedRunError):
        train_masker(run)
    monkeypatch.undo()
    resumed = load_file(train_masker(run) / "model.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_can_go_on_from_the_network_of_another(run, tmp_path):
    first = train_masker(run)
    still = replace(run.schedule, iterations=1, learning_rate=0.0)
    second = replace(run, output=tmp_path / "second", start=first, schedule=still)
    before, after = (load_file(folder / "model.safetensors") for folder in (first, train_masker(second)))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    (first / "model.safetensors").unlink()
    with pytest.raises(ModelError) as raised:
        train_masker(replace(second, output=tmp_path / "third"))
    assert raised.value.code == "E201"


def test_another_runs_state_is_refused(run):
    train_masker(run)
    with pytest.raises(InputError, match="another run") as raised:
        train_masker(replace(run, prompts=PromptSettings(segments=2)))
    assert raised.value.code == "E175"
    assert "prompts" in raised.value.why


def test_everything_that_is_used_learns(run):
    """The library's own initial values leave the vision tower at 1e-10, which never learns."""
    torch.manual_seed(run.seed)
    before = promptable._initialised(run).state_dict()
    train_masker(run)
    after = torch.load(run.output / "state.pt", weights_only=True)["model"]
    same = {name for name in before if torch.equal(before[name], after[name])}
    # Masks and negative points are prompts that nothing here gives; frequencies stay as drawn.
    unused = ("mask_embed", "point_embed.0", "positional_embedding")
    assert {name for name in same if not any(part in name for part in unused)} == set()
    assert before["vision_encoder.layers.0.attn.qkv.weight"].std() > 0.01


def squares():
    coverage = torch.zeros(1, 8, 8)
    coverage[:, 2:6, 2:6] = 1
    return coverage


def test_a_perfect_answer_costs_nothing():
    coverage = squares()
    losses = prompt_losses((coverage[:, None] - 0.5) * 60, torch.ones(1, 1), coverage)
    assert losses.total() == pytest.approx(0, abs=1e-5)


def test_only_the_best_mask_is_taught_but_every_predicted_iou():
    coverage = squares()
    logits = torch.stack([2 - 4 * coverage, 4 * coverage - 2], 1).requires_grad_()
    quality = torch.tensor([[0.3, 0.9]], requires_grad=True)
    losses = prompt_losses(logits, quality, coverage)
    losses.total().backward()
    assert logits.grad[0, 0].abs().max() == 0
    assert logits.grad[0, 1].abs().min() > 0
    # The first mask is the opposite of the truth, the second is the truth; of empty overlaps one cell is left.
    expected = ((0.3 - 1 / 65) ** 2 + (0.9 - 1) ** 2) / 2
    assert losses.quality.item() == pytest.approx(expected, rel=1e-4)


def test_the_losses_by_hand():
    coverage = torch.tensor([[[1.0, 0.0]]])
    losses = prompt_losses(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1), coverage)
    assert losses.focal.item() == pytest.approx(0.25 * np.log(2))
    assert losses.dice.item() == pytest.approx(1 - (2 * 0.5 + 1) / (1 + 1 + 1))


def test_pictures_without_segments_are_refused(run, folders):
    with pytest.raises(InputError) as raised:
        train_masker(replace(run, prompts=PromptSettings(least_area=10_000)))
    assert raised.value.code == "E176"
    data = json.loads(folders.annotations.read_text())
    for entry in data["annotations"]:
        entry["segments_info"] = []
    folders.annotations.write_text(json.dumps(data))
    with pytest.raises(InputError) as raised:
        train_masker(replace(run, output=run.output / "none"))
    assert raised.value.code == "E176"


def test_a_run_that_diverges_stops_before_the_step(run, monkeypatch):
    monkeypatch.setattr(promptable, "_FOCAL_WEIGHT", float("nan"))
    with pytest.raises(ModelError) as raised:
        train_masker(run)
    assert raised.value.code == "E210"
    assert not (run.output / "state.pt").exists()
