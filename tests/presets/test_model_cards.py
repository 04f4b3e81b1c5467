"""The catalogue of networks, and what presets need of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest

from retclip.presets import (
    DetectorSettings,
    EncoderSettings,
    MaskerSettings,
    Preset,
    ProposalSettings,
    available_presets,
    load_preset,
)
from retclip.presets.model_cards import ModelCard, card_for, model_cards, models_of, needed_model, segmenting_roles

LIBRARIES = {
    library
    for settings in (EncoderSettings, DetectorSettings, MaskerSettings)
    for library in get_args(get_type_hints(settings)["library"])
} - {"none"}


def test_every_card_says_what_a_user_must_know() -> None:
    assert model_cards()
    for card in model_cards():
        assert card.license, card.name
        assert card.repository or card.note, card.name
        if card.library in LIBRARIES:
            assert card.weights, card.name
            assert card.megabytes > 0, card.name
            assert card.signature, card.name
            assert (card.library, card.model, card.pretrained).count("") <= 1
        else:
            assert "no preset can name it" in card.note
    keys = [(card.library, card.model, card.pretrained) for card in model_cards()]
    assert len(set(keys)) == len(keys)


def test_every_library_of_the_settings_has_a_layout() -> None:
    for library in LIBRARIES:
        assert card_for(library, "somebody/of-their-own").library == library


def test_networks_outside_the_catalogue_have_their_librarys_files() -> None:
    own = card_for("sam2", "me/my-sam2")
    assert (own.repository, own.weights, own.model_types) == (
        "me/my-sam2",
        ("model.safetensors",),
        ("sam2", "sam2_video"),
    )
    assert (own.signature, own.license) == ({}, "")
    assert card_for("open_clip", "ViT-B-16", "somebody").repository == ""


@pytest.mark.parametrize("name", available_presets())
def test_every_network_of_a_shipped_preset_is_in_the_catalogue(name: str) -> None:
    preset = load_preset(name)
    for needed in models_of(preset):
        assert needed.card in [replace(card, license=needed.card.license) for card in model_cards()]
        assert needed.card.license
        assert needed.on_hub or needed.given in needed.card.weights or needed.given.startswith("tiny/")
    assert {needed.role for needed in models_of(preset)} >= set(segmenting_roles(preset))


def test_roles_follow_the_proposals() -> None:
    both = Preset("x", detector=DetectorSettings("grounding_dino"), masker=MaskerSettings("sam"))
    assert [needed.role for needed in models_of(both)] == ["encoder", "detector", "masker"]
    assert [needed.role for needed in models_of(Preset("x"))] == ["encoder"]
    wanted = {
        "regions": ("encoder",),
        "gdino-sam": ("encoder", "detector", "masker"),
        "sam-grid": ("encoder", "masker"),
    }
    for kind, roles in wanted.items():
        assert segmenting_roles(replace(both, proposals=ProposalSettings(kind))) == roles


def test_settings_name_the_licence_where_they_do() -> None:
    assert needed_model("masker", MaskerSettings("sam", license="mine")).card.license == "mine"
    assert needed_model("masker", MaskerSettings("sam")).card.license == "Apache-2.0"
    own = needed_model("encoder", EncoderSettings(weights="/w.safetensors"))
    assert (own.from_hub, own.on_hub, own.name) == (False, False, "/w.safetensors")


@pytest.mark.parametrize("name", ["../w.safetensors", "a/b", "a\\b", "", ".."])
def test_file_names_of_cards_are_no_paths(name: str) -> None:
    with pytest.raises(ValueError, match="a name"):
        ModelCard("masker", "sam", "m", weights=(name,))
    with pytest.raises(ValueError, match="a name"):
        ModelCard("masker", "sam", "m", files=(f"config.json|{name}",))


def test_the_catalogue_is_read_without_any_model_library() -> None:
    code = "import sys; from retclip.presets.model_cards import model_cards; model_cards(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "timm", "transformers", "open_clip", "huggingface_hub"} & set(loaded)
