"""Training a detector as a whole, on two small pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import MMGroundingDinoConfig, MMGroundingDinoForObjectDetection

from retclip.adapters.grounding_dino import load_grounding_dino
from retclip.core.errors import InputError, ModelError
from retclip.presets.networks import DetectorSettings
from retclip.training import detector
from retclip.training.asked_boxes import ViewSettings
from retclip.training.detector import DetectorTraining, train_detector
from retclip.training.optimiser import Schedule
from tests.adapters.tiny_models import tiny_sizes


@pytest.fixture
def run(folders, vocabulary, tmp_path):
    sizes = tiny_sizes(vocabulary=1) | {"dropout": 0.0, "fusion_droppath": 0.0, "init_std": 0.1, "max_text_len": 64}
    config = MMGroundingDinoConfig(**sizes)
    config.backbone_config.drop_path_rate = 0.0
    config.text_config.hidden_dropout_prob = config.text_config.attention_probs_dropout_prob = 0.0
    return DetectorTraining(
        (folders,),
        vocabulary,
        tmp_path / "run",
        config,
        Schedule(iterations=4, batch_size=2, learning_rate=2e-3, decay="cosine", warmup=2, clip=5.0),
        ViewSettings(height=64, width=80, smallest=1.0, flip=0.0),
        save_every=2,
        log_every=1,
    )


def weights_of(run):
    return load_file(run.output / "export" / "model.safetensors")


def logged(run):
    return [json.loads(line) for line in (run.output / "log.jsonl").read_text().splitlines()]


def test_the_trained_network_finds_through_the_adapter_what_it_was_shown(run, folders):
    run = replace(run, schedule=replace(run.schedule, iterations=80), save_every=1000)
    folder = train_detector(run)
    losses = [entry["loss"] for entry in logged(run)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    loaded = load_grounding_dino(DetectorSettings(), folder, torch.device("cpu"))
    pixels = np.array(Image.open(folders.images / "1.png"))
    (found,) = loaded.detect([pixels], [["box", "sky", "ball"]], 0.2)
    best = {("box", "sky", "ball")[phrase] for phrase in found.phrases[:3].tolist()}
    assert best == {"box", "sky", "ball"}


def test_half_precision_on_disk_is_full_precision_in_use(run):
    weights = weights_of(replace(run, output=train_detector(run).parent))
    assert {value.dtype for value in weights.values()} == {torch.float16}
    network = load_grounding_dino(DetectorSettings(), run.output / "export", torch.device("cpu"))._network._network
    assert {value.dtype for value in network.parameters()} == {torch.float32}


class InterruptedRunError(Exception):
    """Stands for the power cut."""


def test_a_resumed_run_is_bit_exact(run, monkeypatch, tmp_path):
    whole = replace(run, output=tmp_path / "whole")
    train_detector(whole)
    advance = detector._Run.advance

    def interrupted(state, pictures):
        if state.iteration == 3:  # one step after the state of iteration 2 was saved
            raise InterruptedRunError
        advance(state, pictures)

    monkeypatch.setattr(detector._Run, "advance", interrupted)
    with pytest.raises(InterruptedRunError):
        train_detector(run)
    monkeypatch.undo()
    train_detector(run)
    expected = weights_of(whole)
    assert expected.keys() == weights_of(run).keys()
    assert all(torch.equal(expected[key], value) for key, value in weights_of(run).items())
    assert [entry["iteration"] for entry in logged(run)] == [1, 2, 3, 3, 4]


def test_the_last_layer_trained_is_the_one_the_network_answers_with(run):
    state = detector._Run(run)
    words = state.tokenizer(["ball. box. sky."], return_tensors="pt")
    with torch.no_grad():
        output = state.model(pixel_values=torch.randn(1, 3, 64, 80), **words)
        layers = state._layers(output, words["attention_mask"])
    assert len(layers) == run.network.decoder_layers
    torch.testing.assert_close(layers[-1].logits, output.logits)
    torch.testing.assert_close(layers[-1].boxes, output.pred_boxes)


def test_names_stay_as_far_apart_as_they_were_drawn(run):
    before = {name: value.clone() for name, value in detector._Run(run).model.named_parameters()}
    weights = weights_of(replace(run, output=train_detector(run).parent))
    moved = {name for name, value in before.items() if name in weights and not torch.equal(value.half(), weights[name])}
    assert not [name for name in moved if "text_backbone" in name or "text_enhancer_layer" in name]
    assert "model.level_embed" in moved
    words = before["model.text_backbone.embeddings.word_embeddings.weight"][-4:]
    assert (torch.nn.functional.normalize(words) @ torch.nn.functional.normalize(words).T).triu(1).max() < 0.7


def test_another_runs_state_is_refused(run):
    train_detector(run)
    with pytest.raises(InputError, match="view") as raised:
        train_detector(replace(run, view=replace(run.view, flip=0.5)))
    assert raised.value.code == "E175"


def test_an_empty_annotation_file_is_refused(run, folders):
    folders.annotations.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(InputError) as raised:
        train_detector(run)
    assert raised.value.code == "E176"


def test_a_loss_that_is_not_finite_stops_before_the_step(run, monkeypatch):
    monkeypatch.setattr(
        MMGroundingDinoForObjectDetection,
        "_init_weights",
        lambda self, module: [value.data.fill_(torch.nan) for value in module.parameters(recurse=False)],
    )
    with pytest.raises(ModelError) as raised:
        train_detector(run)
    assert raised.value.code == "E210"
    assert not (run.output / "state.pt").exists()
