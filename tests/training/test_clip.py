"""Training a CLIP on pictures of one colour each."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from retclip.adapters.open_clip import load_open_clip
from retclip.core.errors import InputError, ModelError
from retclip.presets import EncoderSettings
from retclip.segmenters.fcclip.checkpoint import load_clip_weights
from retclip.segmenters.fcclip.variants import build_fcclip
from retclip.training import clip
from retclip.training.captioned import CaptionedPictures, CropSettings
from retclip.training.clip import WEIGHTS_FILE, ClipTraining, bag_of_phrases, contrastive_loss, train_clip
from retclip.training.optimiser import Schedule
from tests.training.captions import COLOURS, drawn_pictures

SCHEDULE = Schedule(4, 6, 3e-3, (), clip=1.0, decay="cosine", warmup=2)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    crop = CropSettings(size=32, light=0.05)
    return CaptionedPictures(drawn_pictures(folder, 6), crop)


@pytest.fixture
def settings(tmp_path):
    return ClipTraining(tmp_path / "run", "tiny", schedule=SCHEDULE, amp=False, save_every=2, log_every=1)


def logged(settings):
    return [json.loads(line)["loss"] for line in (settings.output / "log.jsonl").read_text().splitlines()]


def test_the_loss_is_the_mean_of_both_directions():
    images, texts = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    half = 0.5**0.5
    logits = 2 * torch.tensor([[1.0, half], [0.0, half]])
    rows, columns = (-torch.log_softmax(logits, axis).diagonal().mean() for axis in (1, 0))
    found = contrastive_loss(images, texts, torch.tensor(2.0).log(), torch.eye(2, dtype=torch.bool))
    assert found.item() == pytest.approx(((rows + columns) / 2).item(), rel=1e-6)


def test_partners_share_the_probability():
    """Pictures 0 and 1 are one and the same, text 0 belongs to both, text 1 to nobody."""
    images, texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    belongs = torch.tensor([[True, False], [True, False], [False, False]])
    rows = 2 * -torch.log_softmax(torch.tensor([1.0, 0.0]), 0)[0] / 3
    column = -torch.log_softmax(torch.tensor([1.0, 1.0, 0.0]), 0)[0] / 2
    found = contrastive_loss(images, texts, torch.tensor(0.0), belongs)
    assert found.item() == pytest.approx(((rows + column) / 2).item(), rel=1e-6)


def test_the_temperature_is_bounded():
    images, texts, own = torch.randn(3, 4), torch.randn(3, 4), torch.eye(3, dtype=torch.bool)
    hottest = contrastive_loss(images, texts, torch.tensor(100.0).log(), own)
    assert contrastive_loss(images, texts, torch.tensor(9.0), own).item() == pytest.approx(hottest.item())


def test_it_learns_which_colour_is_which_and_both_readers_take_the_weights(settings, pictures):
    settings = replace(settings, schedule=replace(SCHEDULE, iterations=25))
    folder = train_clip(settings, pictures)
    assert sum(logged(settings)[-5:]) < 0.6 * sum(logged(settings)[:5])

    given = EncoderSettings("open_clip", "tiny", weights="", short_side=64, long_side=128)
    encoder = load_open_clip(given, folder, torch.device("cpu"))
    rows = encoder.encode_names([f"{name} wall" for name in COLOURS])
    for column, pixels in enumerate(pictures.pictures):
        vector = encoder.embed(encoder.encode_images([pixels])[0], torch.ones(1, 40, 48, dtype=torch.bool))
        assert int((F.normalize(vector, dim=-1) @ rows.T).argmax()) == column

    model = build_fcclip("tiny")
    load_clip_weights(folder / WEIGHTS_FILE, model)
    held = model.backbone.clip_model.state_dict()
    assert all(torch.equal(held[key], value.float()) for key, value in load_file(folder / WEIGHTS_FILE).items())


def test_words_that_nobody_taught_share_one_row(settings, pictures):
    table = load_file(train_clip(settings, pictures) / WEIGHTS_FILE)["token_embedding.weight"]
    assert len(table[~pictures.taught].unique(dim=0)) == 1
    assert len(table[pictures.taught].unique(dim=0)) == int(pictures.taught.sum())


def test_the_bag_starts_with_how_often_each_phrase_occurs():
    frequencies = torch.tensor([0.0, 0.2, 0.9])
    head = bag_of_phrases(4, frequencies)
    assert head(torch.zeros(1, 4)).sigmoid()[0].tolist() == pytest.approx([1e-3, 0.2, 0.9], rel=1e-4)


def test_a_run_goes_on_from_the_weights_of_another_with_a_run_of_its_own(settings, pictures, tmp_path):
    first = train_clip(settings, pictures) / WEIGHTS_FILE
    still = replace(SCHEDULE, iterations=1, learning_rate=0.0)
    second = replace(settings, output=tmp_path / "second", start=first, schedule=still)
    before, after = load_file(first), load_file(train_clip(second, pictures) / WEIGHTS_FILE)
    table = "token_embedding.weight"
    assert all(torch.equal(before[key], after[key]) for key in before if key != table)
    assert torch.equal(before[table][pictures.taught], after[table][pictures.taught])


def test_weights_of_another_variant_are_no_start(settings, pictures, tmp_path):
    first = train_clip(settings, pictures) / WEIGHTS_FILE
    with pytest.raises(ModelError) as raised:
        train_clip(replace(settings, output=tmp_path / "second", start=first, variant="playground"), pictures)
    assert raised.value.code == "E207"


class InterruptedRunError(Exception):
    """Stands for the power cut."""


def test_a_resumed_run_is_bit_exact(settings, pictures, monkeypatch, tmp_path):
    whole = load_file(train_clip(replace(settings, output=tmp_path / "whole"), pictures) / WEIGHTS_FILE)
    advance = clip._Run.advance

    def interrupted(run, batch):
        if run.iteration == 3:  # one step after the state of iteration 2 was saved
            raise InterruptedRunError
        return advance(run, batch)

    monkeypatch.setattr(clip._Run, "advance", interrupted)
    with pytest.raises(InterruptedRunError):
        train_clip(settings, pictures)
    monkeypatch.undo()
    resumed = load_file(train_clip(settings, pictures) / WEIGHTS_FILE)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_another_run_s_state_is_refused(settings, pictures):
    train_clip(settings, pictures)
    for other in (replace(settings, seed=1), replace(settings, schedule=replace(SCHEDULE, learning_rate=1e-3))):
        with pytest.raises(InputError) as raised:
            train_clip(other, pictures)
        assert raised.value.code == "E175"


def test_mixed_precision_trains(settings, pictures):
    weights = load_file(train_clip(replace(settings, amp=True), pictures) / WEIGHTS_FILE)
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_batch_larger_than_the_data_is_refused(settings, pictures):
    with pytest.raises(InputError) as raised:
        train_clip(replace(settings, schedule=replace(SCHEDULE, batch_size=7)), pictures)
    assert raised.value.code == "E231"
    assert not settings.output.exists()
