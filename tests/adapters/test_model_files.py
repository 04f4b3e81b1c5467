"""Where weights are looked for, in which order, and what is said of those that are not whole."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from retclip.adapters.model_files import fetch_model, find_model, find_models, model_records, obtain_models, survey
from retclip.core.errors import ModelError, RetclipError
from retclip.core.weight_files import file_sha256
from retclip.presets import DetectorSettings, EncoderSettings, MaskerSettings, Preset, load_preset
from retclip.presets.model_cards import NeededModel, models_of, needed_model
from tests.adapters.hub_server import COMMIT, HubServer, connect, serve_hub

SAM = "facebook/sam-vit-base"
GROUNDING = "IDEA-Research/grounding-dino-base"
CLIP = "timm/vit_base_patch16_clip_224.openai"
SHAPES = {
    SAM: {"vision_encoder.pos_embed": (1, 64, 64, 768)},
    GROUNDING: {"model.backbone.embeddings.patch_embeddings.projection.weight": (128, 3, 4, 4)},
    CLIP: {"visual.positional_embedding": (197, 768)},
}
CONFIGS = {SAM: "sam", GROUNDING: "grounding-dino"}
ENCODER = EncoderSettings("open_clip", "ViT-B-16", "openai")
PRESET = Preset("paper-tf-b", ENCODER, DetectorSettings("grounding_dino"), MaskerSettings("sam"))


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No models folder, an empty cache, and no hub."""
    monkeypatch.delenv("RETCLIP_MODELS_DIR", raising=False)
    monkeypatch.setenv("RETCLIP_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub() as server:
        connect(server, monkeypatch)
        yield server


def write_model(folder: Path, repository: str, seed: int = 0) -> Path:
    """A folder as the repository has it, with the telling tensor alone."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.full(shape, seed, np.float16) for name, shape in SHAPES[repository].items()}
    save_file(tensors, folder / ("open_clip_model.safetensors" if repository == CLIP else "model.safetensors"))
    if repository in CONFIGS:
        (folder / "config.json").write_text(json.dumps({"model_type": CONFIGS[repository]}))
    if repository == GROUNDING:
        for name in ("preprocessor_config.json", "vocab.txt"):
            (folder / name).write_text("{}")
    return folder


def write_cache(tmp_path: Path, repository: str, seed: int = 0) -> Path:
    store = tmp_path / "cache" / f"models--{repository.replace('/', '--')}"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text(COMMIT)
    return write_model(store / "snapshots" / COMMIT, repository, seed)


def serve(hub: HubServer, folder: Path, repository: str) -> None:
    for file in write_model(folder, repository).iterdir():
        hub.files[repository, file.name] = file.read_bytes()


def masker(weights: str = "hub") -> NeededModel:
    return needed_model("masker", MaskerSettings("sam", weights=weights))


def refused(needed: NeededModel) -> RetclipError:
    with pytest.raises(RetclipError) as caught:
        find_model(needed)
    assert caught.value.why
    assert caught.value.fix
    return caught.value


def test_the_given_path_comes_before_the_models_folder_before_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = write_model(tmp_path / "given", SAM, 1)
    short = write_model(tmp_path / "models" / "sam-vit-base", SAM, 2)
    cached = write_cache(tmp_path, SAM, 3)
    assert find_model(masker()).path == cached
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(tmp_path / "models"))
    assert find_model(masker()).path == short
    whole = write_model(tmp_path / "models" / SAM, SAM, 4)
    found = find_model(masker())
    assert (found.path, found.weights, found.origin) == (whole, whole / "model.safetensors", "models-dir")
    named = find_model(masker(str(given)))
    assert (named.path, named.origin) == (given, "given")
    assert find_model(masker("facebook/sam-vit-base")).path == whole
    assert find_model(masker("absent")) is None


def test_a_network_of_one_file_is_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = write_cache(tmp_path, CLIP)
    assert find_model(needed_model("encoder", ENCODER)).path == cached / "open_clip_model.safetensors"
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(tmp_path / "models"))
    folder = write_model(tmp_path / "models" / CLIP, CLIP)
    assert find_model(needed_model("encoder", ENCODER)).path == folder / "open_clip_model.safetensors"


def test_a_folder_of_ones_own_is_handed_on_whatever_its_sizes(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    save_file({"visual.positional_embedding": np.zeros((5, 8), np.float32)}, own / "model.safetensors")
    (own / "open_clip_config.json").write_text("{}")
    assert find_model(needed_model("encoder", replace(ENCODER, weights=str(own)))).path == own
    sam = tmp_path / "sam"
    sam.mkdir()
    save_file({"vision_encoder.pos_embed": np.zeros((1, 4, 4, 8), np.float32)}, sam / "model.safetensors")
    (sam / "config.json").write_text('{"model_type": "sam"}')
    assert find_model(masker(str(sam))).path == sam


def test_releases_that_are_on_no_hub_are_found_by_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = needed_model("masker", MaskerSettings("segment_anything", "vit_b"))
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(tmp_path))
    assert find_model(wanted) is None
    converted = tmp_path / "sam_vit_b_01ec64.safetensors"
    save_file({"image_encoder.pos_embed": np.zeros((1, 64, 64, 768), np.float16)}, converted)
    assert find_model(wanted).path == converted
    (tmp_path / "sam_vit_b_01ec64.pth").write_bytes(b"\x80\x02 an old pickle")
    assert find_model(wanted).path == tmp_path / "sam_vit_b_01ec64.pth"


def test_given_files_are_found_by_name_and_converted_ones_stand_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "models" / "net.safetensors"
    file.parent.mkdir()
    save_file({"a": np.zeros(1, np.float32)}, file)
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(file.parent))
    for name in ("net.safetensors", "net.pth", "/elsewhere/net.pth", "~nobody-of-this-name/net.safetensors"):
        found = find_model(needed_model("encoder", EncoderSettings(weights=name)))
        assert (found.path, found.origin) == (file, "models-dir")


def test_an_unfinished_download_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / SAM, SAM)
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(tmp_path))
    (folder / "model.safetensors").rename(folder / "model.safetensors.part")
    error = refused(masker())
    assert (error.code, "model.safetensors.part" in error.why) == ("E202", True)
    (folder / "model.safetensors.part").rename(folder / "model.safetensors")
    (folder / "config.json").unlink()
    error = refused(masker())
    assert (error.code, "no config.json" in error.what) == ("E202", True)


def test_cut_files_pointers_and_broken_configurations_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(tmp_path / SAM, SAM)
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(tmp_path))
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert refused(masker()).code == "E202"
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "LFS" in refused(masker()).why
    (folder / "model.safetensors").write_bytes(data)
    for config in ("", "[]", "{}", "\0"):
        (folder / "config.json").write_text(config)
        assert refused(masker()).code == "E202"


def test_a_detector_without_its_words_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / GROUNDING, GROUNDING)
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(tmp_path))
    detector = needed_model("detector", DetectorSettings("grounding_dino"))
    assert find_model(detector).path == folder
    (folder / "vocab.txt").unlink()
    assert "tokenizer.json or vocab.txt" in refused(detector).what


def test_another_network_is_known_by_its_configuration_and_by_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(tmp_path))
    folder = write_model(tmp_path / SAM, SAM)
    (folder / "config.json").write_text('{"model_type": "sam2_video"}')
    assert refused(masker()).code == "E207"
    assert refused(masker(str(folder))).code == "E207"
    write_model(folder, SAM)
    larger = {"vision_encoder.pos_embed": np.zeros((1, 64, 64, 1024), np.float16)}
    save_file(larger, folder / "model.safetensors")
    error = refused(masker())
    assert (error.code, "(1, 64, 64, 1024) instead of (1, 64, 64, 768)" in error.why) == ("E207", True)
    wrong = tmp_path / "fcclip_cocopan.safetensors"
    save_file({"backbone.clip_model.visual.attnpool.positional_embedding": np.zeros((197, 4096), np.float16)}, wrong)
    fcclip = models_of(load_preset("paper-convnext-large"))[0]
    assert refused(fcclip).code == "E207"


def test_everything_that_a_preset_lacks_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        obtain_models(PRESET)
    error = caught.value
    assert error.code == "E201"
    assert all(name in error.what for name in (CLIP, GROUNDING, SAM, "RETCLIP_OFFLINE"))
    assert "retclip models fetch paper-tf-b --dir DIR" in error.fix
    write_cache(tmp_path, SAM)
    with pytest.raises(ModelError) as caught:
        find_models(PRESET)
    assert (SAM in caught.value.what, CLIP in caught.value.what) == (False, True)
    assert list(find_models(PRESET, ["masker"])) == ["masker"]
    assert "fetch mine.toml" in _error(replace(PRESET, name="mine")).fix


def _error(preset: Preset) -> ModelError:
    with pytest.raises(ModelError) as caught:
        obtain_models(preset)
    return caught.value


def test_damaged_and_missing_networks_are_said_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(tmp_path))
    (write_model(tmp_path / SAM, SAM) / "model.safetensors").write_bytes(b"")
    error = _error(PRESET)
    assert (error.code, error.exit_code) == ("E202", 4)
    assert GROUNDING in error.what
    assert {place.needed.role: bool(place.problem) for place in survey(models_of(PRESET))} == {
        "encoder": False, "detector": False, "masker": True,
    }  # fmt: skip


def test_what_is_on_no_hub_is_asked_for_by_file_name(hub: HubServer) -> None:
    error = _error(load_preset("paper-convnext-large"))
    assert "fcclip_cocopan.pth" in error.fix
    assert "github.com/bytedance/fc-clip" in error.fix
    assert "retclip models fetch paper-convnext-large" in error.fix
    assert hub.requests == []  # nothing is downloaded while a file is lacking that no download brings


def test_missing_networks_are_downloaded_then_found(hub: HubServer, tmp_path: Path) -> None:
    for repository in (SAM, GROUNDING, CLIP):
        serve(hub, tmp_path / "source" / repository, repository)
    found = obtain_models(PRESET)
    assert {role: place.origin for role, place in found.items()} == dict.fromkeys(found, "cache")
    assert list(found) == ["encoder", "detector", "masker"]
    asked = len(hub.requests)
    assert obtain_models(PRESET) == found == find_models(PRESET)
    assert len(hub.requests) == asked


def test_a_download_that_is_not_whole_is_not_kept_for_whole(hub: HubServer, tmp_path: Path) -> None:
    serve(hub, tmp_path / "source", SAM)
    hub.files[SAM, "model.safetensors"] = hub.files[SAM, "model.safetensors"][:-5]
    with pytest.raises(ModelError) as caught:
        fetch_model(masker(), tmp_path / "models")
    assert caught.value.code == "E202"
    serve(hub, tmp_path / "source", SAM)
    assert fetch_model(masker(), tmp_path / "models").path == tmp_path / "models" / SAM


def test_a_repository_that_changes_during_the_download_is_no_half_network(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(hub, tmp_path / "source", SAM)
    monkeypatch.setattr("retclip.adapters.model_files.cached_file", lambda *_: None)
    with pytest.raises(ModelError, match="not whole in the hub's cache") as caught:
        fetch_model(masker())
    assert caught.value.code == "E201"


def test_records_name_role_licence_and_digest(tmp_path: Path) -> None:
    cached = write_cache(tmp_path, SAM)
    assert model_records({"masker": find_model(masker())}) == [
        {
            "role": "masker",
            "name": SAM,
            "license": "Apache-2.0",
            "sha256": file_sha256(cached / "model.safetensors"),
        }
    ]


def test_too_old_libraries_are_said_before_files_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retclip.adapters.libraries.version", lambda _: "4.41.0")
    monkeypatch.setattr("retclip.adapters.libraries._requirements", lambda: {"transformers": ">=5.0"})
    with pytest.raises(ModelError) as caught:
        find_models(PRESET, ["masker"])
    assert (caught.value.code, "4.41.0 is too old" in caught.value.what) == ("E206", True)


SILENT = {
    "missing": "obtain_models(load_preset('balanced'))",
    "own file": "obtain_models(load_preset('paper-rn50x64'))",
    "damaged": "find_models(Preset('x', masker=MaskerSettings('sam', weights='half')), ['masker'])",
    "wrong": "find_models(Preset('x', masker=MaskerSettings('sam', weights='wrong')), ['masker'])",
}


@pytest.mark.parametrize("case", SILENT)
def test_failures_are_known_before_any_model_library_is_imported(tmp_path: Path, case: str) -> None:
    (write_model(tmp_path / "half", SAM) / "model.safetensors").write_bytes(b"half")
    (write_model(tmp_path / "wrong", SAM) / "config.json").write_text('{"model_type": "bert"}')
    code = (
        "import sys\nfrom retclip.adapters.model_files import *\nfrom retclip.presets import *\n"
        f"try:\n    {SILENT[case]}\nexcept Exception as error:\n    print(error.code)\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    first, modules = done.stdout.split("\n", 1)
    assert first == {"missing": "E201", "own file": "E201", "damaged": "E202", "wrong": "E207"}[case]
    assert not {"torch", "transformers", "timm", "open_clip", "segment_anything"} & set(modules.split())
