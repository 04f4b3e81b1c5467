"""Settings become objects."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retclip.adapters.region_hierarchy import RegionHierarchy
from retclip.assembly import (
    DEFAULT_PRESET,
    LabelMatcher,
    choose_device,
    choose_preset,
    make_encoder,
    make_models,
    make_text_tower,
)
from retclip.core.errors import InputError
from retclip.core.vocabulary import Category, Vocabulary
from retclip.presets import EncoderSettings, Preset, ProposalSettings, load_preset, preset_to_mapping
from retclip.query.matching import match_labels
from retclip.segmenters.fcclip.proposer import FCCLIPProposer
from retclip.segmenters.fcclip.variants import build_fcclip
from retclip.shards import Database, StoredClass
from tests.fakes import ColourEncoder, ColourTexts


def test_the_preset_asked_for_comes_before_the_databases_own(tmp_path: Path) -> None:
    own = Preset("own", EncoderSettings(stride=8))
    database = Database.create(tmp_path / "a.retdb", ColourEncoder().space, preset_to_mapping(own))
    bare = Database.create(tmp_path / "b.retdb", ColourEncoder().space, {})
    assert choose_preset(None, database) == own
    assert choose_preset(DEFAULT_PRESET, database) == load_preset(DEFAULT_PRESET)
    for without in (None, bare):
        assert choose_preset(None, without) == load_preset(DEFAULT_PRESET)


def test_a_damaged_preset_inside_a_database_names_the_database(tmp_path: Path) -> None:
    database = Database.create(tmp_path / "a.retdb", ColourEncoder().space, {"name": "x", "fusion": {"gamma": 7}})
    with pytest.raises(InputError, match="database a") as caught:
        choose_preset(None, database)
    assert caught.value.code == "E144"


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    for name in ("abacus", "", "cuda:99", "cpu:x"):
        with pytest.raises(InputError) as caught:
            choose_device(name)
        assert caught.value.code == "E148"
        assert caught.value.why


def test_proposals_from_files_have_to_be_named(fcclip_file: Path) -> None:
    preset = Preset("x", EncoderSettings("fcclip", "tiny", weights=str(fcclip_file)))
    with pytest.raises(InputError) as caught:
        make_models(preset.with_proposals("given"), None, "cpu")
    assert caught.value.code == "E150"


@pytest.fixture(scope="module")
def fcclip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    save_file({key: value.contiguous() for key, value in build_fcclip("tiny").state_dict().items()}, path)
    return path


def test_one_fcclip_is_encoder_text_tower_and_proposer(fcclip_file: Path) -> None:
    encoder = EncoderSettings("fcclip", "tiny", weights=str(fcclip_file))
    preset = Preset("x", encoder, proposals=ProposalSettings("fcclip", training_classes="cat, dog"))
    models = make_models(preset, None, "cpu")
    assert models.encoder is models.text
    assert isinstance(models.proposer, FCCLIPProposer)
    assert models.head is not None
    assert models.head.training_names == {"cat", "dog"}
    assert models.head.weights_sha256 == hashlib.sha256(fcclip_file.read_bytes()).hexdigest()
    assert make_encoder(preset, "cpu").space == models.encoder.space
    tower = make_text_tower(preset, "cpu")
    assert tower is not None
    assert tower.space == models.encoder.space
    assert make_text_tower(Preset("x"), "cpu") is None


def test_other_proposals_have_no_trained_head(fcclip_file: Path) -> None:
    preset = Preset(
        "x", EncoderSettings("fcclip", "tiny", weights=str(fcclip_file)), proposals=ProposalSettings("fcclip")
    )
    given = RegionHierarchy(ProposalSettings())
    models = make_models(preset, given, "cpu")
    assert (models.proposer, models.head, models.text) == (given, None, models.encoder)
    regions = make_models(replace(preset, proposals=ProposalSettings("regions")), None, "cpu")
    assert isinstance(regions.proposer, RegionHierarchy)
    assert regions.head is None


def test_labels_are_matched_as_a_segmenter_matches_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also stored classes whose names answer nothing, when every asked class is answered already."""
    stored = [StoredClass(1, "red", (), True, 4), StoredClass(2, "crimson", (), True, 4)]
    vocabulary = Vocabulary("asked", (Category(7, ("red",), True),))
    made: list[ColourTexts] = []
    monkeypatch.setattr(
        "retclip.assembly.make_text_tower", lambda *_: made.append(ColourTexts(ColourEncoder())) or made[-1]
    )
    matcher = LabelMatcher(Preset("x"), "cpu")
    assert matcher.match(vocabulary, stored, until_answered=True).column == {1: 0}
    assert made == []
    assert matcher.match(vocabulary, stored) == match_labels(vocabulary, stored, ColourTexts(ColourEncoder()))
    assert matcher.match(vocabulary, stored).column == {1: 0, 2: 0}
    assert len(made) == 1
