"""Training as a whole, on two small pictures."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from retclip.core.errors import InputError, ModelError
from retclip.segmenters.fcclip.checkpoint import load_fcclip
from retclip.segmenters.fcclip.variants import VARIANTS, build_fcclip
from retclip.training import fcclip
from retclip.training.fcclip import train


def logged(settings):
    return [json.loads(line) for line in (settings.output / "log.jsonl").read_text().splitlines()]


def weights_of(settings):
    return load_file(settings.output / "model.safetensors")


def test_the_loss_falls_and_the_weights_load_again(settings, vocabulary):
    settings = replace(settings, schedule=replace(settings.schedule, iterations=40))
    train(settings)
    losses = [entry["loss"] for entry in logged(settings)]
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    tiny = VARIANTS["tiny"]
    trained = replace(tiny, head=replace(tiny.head, training_classes=len(vocabulary)))
    model = load_fcclip(settings.output / "model.safetensors", trained)
    assert model.criterion.empty_weight.tolist() == pytest.approx([1, 1, 1, 0.1])


def test_clip_stays_frozen_and_the_heads_move(settings):
    train(settings)
    torch.manual_seed(settings.seed)
    before, after = build_fcclip("tiny").state_dict(), weights_of(settings)
    moved = {key for key in after if key in before and not torch.equal(before[key], after[key])}
    assert not [key for key in moved if key.startswith("backbone.")]
    assert {
        "void_embedding.weight",
        "sem_seg_head.predictor.logit_scale",
        "sem_seg_head.pixel_decoder.transformer.level_embed",
    } <= moved


class InterruptedRunError(Exception):
    """Stands for the power cut."""


def test_a_resumed_run_is_bit_exact(settings, monkeypatch, tmp_path):
    train(replace(settings, output=tmp_path / "whole"))

    advance = fcclip._Run.advance

    def interrupted(run, samples):
        if run.iteration == 3:  # one step after the state of iteration 2 was saved
            raise InterruptedRunError
        advance(run, samples)

    monkeypatch.setattr(fcclip._Run, "advance", interrupted)
    with pytest.raises(InterruptedRunError):
        train(settings)
    monkeypatch.undo()
    train(settings)

    whole, resumed = weights_of(replace(settings, output=tmp_path / "whole")), weights_of(settings)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_finished_run_is_left_as_it_is(settings):
    train(settings)
    first = weights_of(settings)
    train(settings)
    assert all(torch.equal(first[key], value) for key, value in weights_of(settings).items())
    assert len(logged(settings)) == settings.schedule.iterations


def test_another_runs_state_is_refused(settings):
    train(settings)
    with pytest.raises(InputError, match="seed") as raised:
        train(replace(settings, seed=1))
    assert raised.value.code == "E175"


def test_mixed_precision_trains(settings):
    train(replace(settings, amp=True))
    assert all(torch.isfinite(value).all() for value in weights_of(settings).values())


@pytest.mark.parametrize("weight", ["classification", "mask"])
def test_a_loss_that_is_not_finite_stops_before_the_step(settings, weight):
    settings = replace(settings, loss=replace(settings.loss, **{weight: float("nan")}))
    with pytest.raises(ModelError) as raised:
        train(settings)
    assert raised.value.code == "E210"
    assert not (settings.output / "state.pt").exists()


def test_an_empty_annotation_file_is_refused(settings, folders):
    folders.annotations.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(InputError) as raised:
        train(settings)
    assert raised.value.code == "E176"


def test_pictures_without_segments_train_the_void_class(settings, folders):
    data = json.loads(folders.annotations.read_text())
    for entry in data["annotations"]:
        entry["segments_info"] = []
    folders.annotations.write_text(json.dumps(data))
    train(settings)
    assert all(entry["mask"] == 0 and entry["dice"] == 0 and entry["classification"] > 0 for entry in logged(settings))


def _worker(rank, port, settings):
    import os

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    torch.set_num_threads(1)
    train(settings)
    assert sorted(p.name for p in settings.output.iterdir())


def test_two_workers_share_a_batch(settings, unused_port):
    settings = replace(settings, schedule=replace(settings.schedule, iterations=2))
    torch.multiprocessing.spawn(_worker, (str(unused_port), settings), nprocs=2)
    assert [entry["iteration"] for entry in logged(settings)] == [1, 2]
    torch.manual_seed(settings.seed)
    start = build_fcclip("tiny").state_dict()["void_embedding.weight"]
    assert not torch.equal(weights_of(settings)["void_embedding.weight"], start)


def test_three_workers_cannot_share_two_images(settings, monkeypatch):
    from contextlib import contextmanager

    from retclip.training.distributed import Workers

    @contextmanager
    def three(device):
        yield Workers(0, 3, torch.device(device))

    monkeypatch.setattr(fcclip, "join_workers", three)
    with pytest.raises(InputError) as raised:
        train(settings)
    assert raised.value.code == "E176"
