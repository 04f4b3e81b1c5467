"""Downloads from a hub on this machine, and whether a hub can be asked at all."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from retclip.adapters.hub import cached_file, download, offline_reason, with_repository
from retclip.core.errors import InputError, ModelError, ResourceError, RetclipError
from retclip.presets import EncoderSettings
from retclip.presets.model_cards import ModelCard, card_for, needed_model
from tests.adapters.hub_server import OFFLINE, HubServer, connect, serve_hub

CARD = card_for("sam", "facebook/sam-vit-base")
CHUNK = 10 * 1024 * 1024  # the client writes a download in pieces of this size


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub() as server:
        connect(server, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        server.files[CARD.repository, "config.json"] = b'{"model_type": "sam"}'
        server.files[CARD.repository, "model.safetensors"] = b"weights"
        yield server


def refused(card: ModelCard, folder: Path | None = None) -> RetclipError:
    with pytest.raises(RetclipError) as caught:
        download(card, folder)
    error = caught.value
    assert card.repository in error.what or folder
    assert error.fix
    assert "Traceback" not in str(error)
    assert len(str(error).splitlines()) == 3
    return error


def test_only_the_listed_files_are_fetched_and_only_once(hub: HubServer) -> None:
    hub.files[CARD.repository, "pytorch_model.bin"] = b"the same weights again"
    download(CARD)
    weights = cached_file(CARD.repository, "model.safetensors")
    assert weights is not None
    assert weights.read_bytes() == b"weights"
    assert cached_file(CARD.repository, "config.json") == weights.parent / "config.json"
    assert cached_file(CARD.repository, "preprocessor_config.json") is None
    assert hub.downloads("pytorch_model.bin") == []
    download(CARD)
    assert (len(hub.downloads("model.safetensors")), len(hub.downloads("config.json"))) == (1, 1)


def test_a_folder_of_ones_own_gets_plain_files(hub: HubServer, tmp_path: Path) -> None:
    download(CARD, tmp_path / "models")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "models" / name).read_bytes() == hub.files[CARD.repository, name]
        assert not (tmp_path / "models" / name).is_symlink()


def test_weights_come_last_so_that_alone_they_never_look_complete(hub: HubServer) -> None:
    hub.files[CARD.repository, "processor_config.json"] = b"{}"
    download(CARD)
    order = [path.rsplit("/", 1)[-1] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert order == ["config.json", "processor_config.json", "model.safetensors"]


def test_a_broken_connection_goes_on_where_it_stopped(hub: HubServer) -> None:
    data = os.urandom(CHUNK + 1000)
    hub.files[CARD.repository, "model.safetensors"] = data
    hub.cut["model.safetensors"] = CHUNK + 10
    download(CARD)
    weights = cached_file(CARD.repository, "model.safetensors")
    assert weights is not None
    assert weights.read_bytes() == data
    assert hub.downloads("model.safetensors") == ["", f"bytes={CHUNK}-"]


def test_the_best_of_several_weights_files_is_taken(hub: HubServer) -> None:
    card = card_for("timm", "mobilenetv3_large_100.ra_in1k")
    hub.files[card.repository, "pytorch_model.bin"] = b"old"
    download(card)
    assert cached_file(card.repository, "pytorch_model.bin") is not None
    hub.files[card.repository, "model.safetensors"] = b"new"
    download(card)
    assert cached_file(card.repository, "model.safetensors") is not None


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        ((403, "GatedRepo"), "E203", "is gated"),
        ((401, "GatedRepo"), "E203", "is gated"),
        ((403, ""), "E203", "is gated"),
        ((401, "RepoNotFound"), "E203", "does not exist, or is private"),
        ((404, "RepoNotFound"), "E223", "has no repository"),
        ((404, "RevisionNotFound"), "E223", "has no repository"),
        ((400, ""), "E201", "download failed"),
    ],
)
def test_refusals_of_the_hub_are_three_lines(hub: HubServer, answer: tuple[int, str], code: str, word: str) -> None:
    hub.refusals[CARD.repository] = answer
    error = refused(CARD)
    assert (error.code, error.exit_code, word in error.what) == (code, 4, True)
    assert CARD.repository not in error.fix


def test_a_gated_model_points_to_networks_without_a_gate(hub: HubServer) -> None:
    card = card_for("sam3", "facebook/sam3")
    hub.refusals[card.repository] = (403, "GatedRepo")
    error = refused(replace(card, weights=("model.safetensors",)))
    assert (error.code, "facebook/sam-vit-base" in error.fix) == ("E203", True)


def test_repositories_without_the_wanted_files_and_impossible_names(hub: HubServer) -> None:
    hub.files["me/other", "README.md"] = b""
    error = refused(card_for("sam", "me/other"))
    assert (error.code, "has no config.json" in error.what) == ("E223", True)
    hub.files["me/other", "config.json"] = b"{}"
    assert "has no model.safetensors" in refused(card_for("sam", "me/other")).what
    for name in ("no blanks", "../../etc/passwd", "a/b/c"):
        assert refused(card_for("sam", name)).code == "E223"


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(errno.ENOSPC, ResourceError, "E401"), (errno.EACCES, InputError, "E131"), (errno.EROFS, InputError, "E131"),
     (errno.ECONNRESET, ModelError, "E201")],
)  # fmt: skip
def test_disks_and_connections_that_fail(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[RetclipError], code: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    error = refused(CARD, Path("models"))
    assert (type(error), error.code) == (kind, code)


def test_a_file_in_the_way_of_the_folder_is_an_input_error(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    assert refused(CARD, tmp_path / "models").code == "E131"


@pytest.mark.parametrize("variable", OFFLINE)
def test_offline_by_wish(hub: HubServer, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    assert offline_reason() == ""
    monkeypatch.setenv(variable, "0")
    assert offline_reason() == ""
    monkeypatch.setenv(variable, "1")
    assert variable in offline_reason()
    assert hub.requests == []


def closed_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_hub_that_does_not_answer_is_offline(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (closed_address(), "http://nobody.invalid", "http://127.0.0.1:99999"):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert offline_reason() == f"{address} does not answer"


def test_looking_up_a_name_cannot_hold_the_command_up(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, resolving takes as long as the system likes; the probe does not wait for it."""
    release, asked = threading.Event(), threading.Event()

    def stuck(*_: object, **__: object) -> socket.socket:
        asked.set()
        release.wait()
        raise OSError

    monkeypatch.setattr(socket, "create_connection", stuck)
    monkeypatch.setattr("retclip.adapters.hub._PROBE_SECONDS", 0.05)
    assert "does not answer" in offline_reason()
    assert asked.wait(10)
    release.set()


def test_behind_a_proxy_it_is_the_proxy_that_must_answer(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://nobody.invalid")
    for proxy in (hub.address, hub.address.removeprefix("http://")):
        monkeypatch.setenv("http_proxy", proxy)
        assert offline_reason() == ""
    monkeypatch.setenv("http_proxy", closed_address())
    assert "does not answer" in offline_reason()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    assert offline_reason() == ""


def needed(library: str, model: str, pretrained: str = "") -> EncoderSettings:
    return EncoderSettings(library=library, model=model, pretrained=pretrained)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "repository"),
    [
        (needed("timm", "resnet18.a1_in1k"), "timm/resnet18.a1_in1k"),
        (needed("timm", "mobilenetv2_100"), "timm/mobilenetv2_100.ra_in1k"),
        (needed("open_clip", "ViT-B-32", "laion2b_s34b_b79k"), "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
    ],
)
def test_libraries_know_the_repositories_that_the_catalogue_lacks(settings: EncoderSettings, repository: str) -> None:
    wanted = needed_model("encoder", settings)
    assert not wanted.on_hub
    found = with_repository(wanted)
    assert (found.card.repository, found.on_hub) == (repository, True)
    assert found.card.weights[0].endswith(".safetensors")
    given = needed_model("encoder", replace(settings, weights="/w.safetensors"))
    assert with_repository(given) is given


@pytest.mark.parametrize(
    "settings",
    [needed("timm", "mobilnetv2_100"), needed("timm", "hf-hub:a/b"), needed("timm", "../w"),
     needed("open_clip", "ViT-B-32", "nobody"), needed("open_clip", "ViT-Z", "openai")],
)  # fmt: skip
def test_networks_that_their_library_does_not_know(settings: EncoderSettings) -> None:
    with pytest.raises(ModelError) as caught:
        with_repository(needed_model("encoder", settings))
    assert caught.value.code == "E208"


def test_the_catalogue_names_the_repositories_that_the_libraries_name() -> None:
    from retclip.presets.model_cards import model_cards

    for card in model_cards():
        if card.library in ("timm", "open_clip"):
            wanted = needed_model("encoder", needed(card.library, card.model, card.pretrained))
            unlisted = replace(wanted, card=replace(card, repository=""))
            assert with_repository(unlisted).card.repository == card.repository
