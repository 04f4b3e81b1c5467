"""`retclip models`, and what the paper's presets say without their weights."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from retclip.presets import available_presets, load_preset
from retclip.presets.model_cards import model_cards
from retclip.segmenters.fcclip.variants import build_fcclip
from tests.adapters.hub_server import HubServer, connect, serve_hub
from tests.adapters.tiny_sam import write_tiny_sam
from tests.cli.conftest import Run, save_photos

PAPER = ("paper-convnext-large", "paper-rn50x64")


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A checkpoint in the released form."""
    path = tmp_path / "downloads" / "fcclip_cocopan.pth"
    path.parent.mkdir()
    torch.manual_seed(0)
    torch.save({"model": build_fcclip("tiny").state_dict(), "iteration": 7}, path)
    return path


@pytest.fixture
def bare(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without weights and without a hub; its folder for models, which is empty."""
    monkeypatch.setenv("RETCLIP_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def hub(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub() as server:
        connect(server, monkeypatch)
        yield server


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A preset of one small network of timm, which the catalogue does not list."""
    path = tmp_path / "small.toml"
    path.write_text('[encoder]\nmodel = "test_efficientnet.r160_in1k"\nstride = 32\nshort_side = 64\n')
    return path


REPOSITORY = "timm/test_efficientnet.r160_in1k"


def released_bytes(model: str = "test_efficientnet") -> bytes:
    """Weights as timm releases them, classifier and all."""
    torch.manual_seed(0)
    return save(timm.create_model(model).state_dict())


def test_every_preset_is_listed_with_networks_licences_and_places(bare: Path, run: Run) -> None:
    found = run("models", "list", "--json").json
    assert {entry["preset"] for entry in found} == set(available_presets())
    assert all(entry["license"] and entry["problem"] is None for entry in found)
    assert {entry["preset"] for entry in found if entry["found"] is not None} == {"tiny"}  # part of the package
    assert [e["role"] for e in found if e["preset"] == "paper-convnext-large"] == ["encoder", "detector", "masker"]
    assert "missing (1490 MB)" in run("models", "list").out


def test_the_catalogue_is_shown_with_licences(run: Run) -> None:
    cards = run("models", "list", "--licenses", "--json").json
    assert len(cards) == len(model_cards())
    assert all(card["license"] for card in cards)
    assert [card["model"] for card in cards if card["gated"]] == ["facebook/sam3"]
    assert "gated" in run("models", "list", "--licenses").out


def test_fetched_weights_are_found_and_load(hub: HubServer, bare: Path, small: Path, run: Run) -> None:
    assert run("models", "check", small, "--json").error["code"] == "E201"
    hub.files[REPOSITORY, "model.safetensors"] = released_bytes()
    (line,) = run("models", "fetch", small, "--dir", bare, "--json").json
    assert line["found"] == str(bare / REPOSITORY / "model.safetensors")
    assert line["sha256"] == hashlib.sha256(released_bytes()).hexdigest()
    checked = run("models", "check", small, "--json")
    assert (checked.code, checked.json[0]["state"], checked.json[0]["sha256"]) == (0, "loads", line["sha256"])
    again = run("models", "fetch", small, "--dir", bare, "--quiet")
    assert (again.code, again.err, len(hub.downloads("model.safetensors"))) == (0, "", 1)


def test_check_tells_weights_that_are_whole_but_of_another_network(
    hub: HubServer, bare: Path, small: Path, run: Run
) -> None:
    hub.files[REPOSITORY, "model.safetensors"] = released_bytes("test_resnet")
    assert run("models", "fetch", small).code == 0
    quick = run("models", "check", small, "--no-load", "--json")
    assert (quick.code, quick.json[0]["state"]) == (0, "whole")
    thorough = run("models", "check", small, "--json")
    assert (thorough.code, thorough.error["code"]) == (4, "E207")
    assert thorough.json[0]["state"].startswith("E207")


def test_check_loads_maskers_and_tells_those_that_do_not_fit(
    bare: Path, tmp_path: Path, workshop: Path, run: Run
) -> None:
    sam = write_tiny_sam(tmp_path / "sam", 0)
    path = tmp_path / "both.toml"
    encoder = f'[encoder]\nmodel = "test_efficientnet"\nweights = "{workshop / "weights.safetensors"}"\nstride = 32\n'
    path.write_text(f'{encoder}[masker]\nlibrary = "sam"\nweights = "sam"\n')
    whole = run("models", "check", path, "--json")
    assert (whole.code, [line["state"] for line in whole.json]) == (0, ["loads", "loads"])
    tensors = load_file(sam / "model.safetensors")
    tensors.pop("mask_decoder.iou_token.weight")
    save_file(tensors, sam / "model.safetensors", metadata={"format": "pt"})
    broken = run("models", "check", path, "--json")
    assert (broken.code, broken.error["code"]) == (4, "E207")


def test_check_without_a_preset_forgives_what_is_missing_but_not_what_is_damaged(bare: Path, run: Run) -> None:
    fine = run("models", "check", "--json")
    assert (fine.code, {line["state"] for line in fine.json}) == (0, {"missing", "loads"})
    (bare / "fcclip_cocopan.safetensors").write_bytes(b"half")
    broken = run("models", "check", "--json")
    assert (broken.code, broken.error["code"]) == (4, "E202")
    assert "E202" in run("models", "list").out


def test_fetch_says_what_it_cannot_get(hub: HubServer, bare: Path, small: Path, run: Run) -> None:
    assert run("models", "fetch", small, "--json").error["code"] == "E203"
    hub.files[REPOSITORY, "README.md"] = b""
    assert run("models", "fetch", small, "--json").error["code"] == "E223"
    hub.refusals[REPOSITORY] = (403, "GatedRepo")
    refused = run("models", "fetch", small, "--json")
    assert (refused.code, refused.error["code"]) == (4, "E203")
    assert run("models", "fetch", "no-such-preset", "--json").error["code"] == "E141"
    small.write_text('[encoder]\nmodel = "mobilnet"\n')
    assert run("models", "fetch", small, "--json").error["code"] == "E208"
    small.write_text('[encoder]\nweights = "mine.safetensors"\n')
    own = run("models", "fetch", small, "--json")
    assert (own.code, own.error["code"], "mine.safetensors" in own.error["hint"]) == (4, "E201", True)


def test_fetch_without_a_network_says_so(bare: Path, run: Run) -> None:
    outcome = run("models", "fetch", "balanced", "--json")
    assert (outcome.code, outcome.error["code"]) == (4, "E201")
    assert "RETCLIP_OFFLINE" in outcome.error["message"]


def test_a_converted_file_stands_for_the_released_one(
    tmp_path: Path, home: Path, run: Run, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "models" / "fcclip_cocopan.safetensors"
    target.parent.mkdir()
    done = run("models", "convert", released, target, "--json")
    assert done.json["variant"] == "tiny"
    with safe_open(target, "pt") as file:
        assert set(file.keys()) == set(build_fcclip("tiny").state_dict())
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(target.parent))
    encoders = [entry for entry in run("models", "list", "--json").json if entry["role"] == "encoder"]
    found = {entry["preset"]: (entry["found"], entry["problem"]) for entry in encoders}
    # It is the variant `tiny` under the name of a large one.
    assert found["paper-convnext-large"][1].startswith("E207")
    assert found["paper-rn50x64"] == (None, None)


def test_nothing_is_written_over_and_other_endings_are_refused(tmp_path: Path, run: Run, released: Path) -> None:
    (tmp_path / "there.safetensors").touch()
    for name in ("there.safetensors", "new.pth"):
        outcome = run("models", "convert", released, tmp_path / name, "--json")
        assert (outcome.code, outcome.error["code"]) == (3, "E179")
    assert (
        run("models", "convert", tmp_path / "absent.pth", tmp_path / "a.safetensors", "--json").error["code"] == "E201"
    )


def test_tensors_of_another_network_are_converted_and_said_to_fit_nothing(tmp_path: Path, run: Run) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    done = run("models", "convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--json")
    assert done.json["variant"] is None
    assert "fit no network" in done.err


def test_plain_weights_of_other_libraries_are_converted_and_recognised(tmp_path: Path, run: Run) -> None:
    telling = {
        "segment_anything/vit_b": ("image_encoder.pos_embed", (1, 64, 64, 768)),
        "IDEA-Research/grounding-dino-base": ("module.backbone.0.patch_embed.proj.weight", (128, 3, 4, 4)),
        "timm/vit_large_patch14_clip_224.openai": ("visual.positional_embedding", (257, 1024)),
    }
    for number, (model, (key, shape)) in enumerate(telling.items()):
        name = str(number)
        torch.save({"model": {key: torch.zeros(shape, dtype=torch.float16)}}, tmp_path / f"{name}.pth")
        done = run("models", "convert", tmp_path / f"{name}.pth", tmp_path / f"{name}.safetensors", "--json")
        assert (done.code, done.json["fits"]) == (0, [model])
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as file:
            assert list(file.keys()) == [key]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_programs_with_weights_are_not_converted(tmp_path: Path, run: Run) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "ViT-B-16.pt")
    outcome = run("models", "convert", tmp_path / "ViT-B-16.pt", tmp_path / "a.safetensors", "--json")
    assert (outcome.code, outcome.error["code"], "TorchScript" in outcome.error["why"]) == (4, "E204", True)
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_presets_name_the_file_they_lack(name: str, tmp_path: Path, bare: Path, run: Run) -> None:
    weights = load_preset(name).encoder.weights
    photos = save_photos(tmp_path / "photos", ("red",), count=1)
    built = run("index", "build", "--source", "folder", "--root", photos, "--use-boxes", "--db", "new",
                "--preset", name, "--device", "cpu", "--json")  # fmt: skip
    asked = run("segment", photos / "red", "--db", "pets", "--preset", name, "--device", "cpu", "--json")
    for outcome in (built, asked):
        assert (outcome.code, outcome.error["code"]) == (4, "E201")
        assert weights in outcome.error["hint"]


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_presets_have_the_paper_s_numbers(name: str) -> None:
    preset = load_preset(name)
    fusion, retrieval, merge = preset.fusion, preset.retrieval, preset.merge
    assert (fusion.mode, fusion.alpha, fusion.beta, fusion.gamma) == ("arithmetic", 0.4, 0.7, 0.3)
    assert (retrieval.k, retrieval.rule, retrieval.minmax, retrieval.aggregate) == (32, "minmax", "query", "max")
    assert (merge.rule, merge.score_threshold, merge.overlap_threshold) == ("argmax", 0.0, 0.8)
    assert (preset.encoder.short_side, preset.encoder.long_side) == (800, 1333)
    assert fusion.only_valid_masks == (name == "paper-rn50x64")


COMMANDS = {
    "build": "index build --source folder --root photos --db new --preset balanced",
    "segment": "segment photos/red --db pets --preset balanced",
    "check": "models check balanced",
    "fetch": "models fetch balanced",
    "damaged": "models check paper-rn50x64",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_lacks_weights_says_so_before_it_imports_torch(name: str, tmp_path: Path, bare: Path) -> None:
    """Importing torch and a model library takes longer than anybody waits for an error message."""
    save_photos(tmp_path / "photos", ("red",), count=1)
    if name == "damaged":
        (bare / "fcclip_cocopan_r50x64.safetensors").write_bytes(b"half")
    code = (
        f"import sys\nfrom retclip.cli.main import main\ncode = main({COMMANDS[name].split()!r})\n"
        "print(code, *sys.modules)"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert ("E202" if name == "damaged" else "E201") in done.stderr
    exit_code, *modules = done.stdout.splitlines()[-1].split()
    assert exit_code == "4"
    assert not {"torch", "timm", "transformers", "open_clip"} & set(modules)
