"""The strict reader of presets."""

from __future__ import annotations

import contextlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.errors import InputError
from retclip.presets import (
    EncoderSettings,
    Preset,
    available_presets,
    load_preset,
    preset_from_mapping,
    preset_to_mapping,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def refused(table: dict[str, Any]) -> InputError:
    with pytest.raises(InputError) as caught:
        preset_from_mapping({"name": "x", **table}, "x.toml")
    assert "x.toml" in caught.value.what
    assert caught.value.why
    assert caught.value.fix
    return caught.value


def write(folder: Path, text: str | bytes) -> str:
    path = folder / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_presets_that_ship_are_read() -> None:
    assert "cpu" in available_presets()
    for name in available_presets():
        assert load_preset(name).name == name


def test_every_setting_survives_json_and_back() -> None:
    for preset in (Preset("plain"), *map(load_preset, available_presets())):
        assert preset_from_mapping(json.loads(json.dumps(preset_to_mapping(preset))), "json") == preset


@pytest.mark.parametrize(
    ("section", "key", "near"),
    [
        ("fusion", "gama", "fusion.gamma"),
        ("retrieval", "temprature", "retrieval.temperature"),
        ("encoder", "weight", "encoder.weights"),
        (None, "retreival", "retrieval"),
    ],
)
def test_unknown_settings_are_named_with_a_suggestion(section: str | None, key: str, near: str) -> None:
    error = refused({key: {}} if section is None else {section: {key: 1}})
    assert error.code == "E143"
    assert f"{section}.{key}" in error.what if section else key in error.what
    assert f"Did you mean '{near}'?" in error.why


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("encoder", "stride", 16.0), ("encoder", "stride", True), ("encoder", "stride", "16"),
        ("encoder", "layers", "blocks.4"), ("encoder", "layers", [1]), ("encoder", "mean", [0.5, 0.5]),
        ("encoder", "mean", [0.5, 0.5, "a"]), ("encoder", "library", "torchvision"), ("encoder", "model", 3),
        ("encoder", "model_args", {"a": [1]}), ("encoder", "model_args", "a"), ("index", "key_transform", "pca"),
        ("index", "batch", 1.5), ("proposals", "scales", 100), ("proposals", "kind", ["given"]),
        ("retrieval", "rule", "vote"), ("fusion", "gamma", "0.3"), ("fusion", "gamma", False),
        ("fusion", "gamma", None), ("fusion", "mode", 1), ("merge", "max_instances", [100]),
    ],
)  # fmt: skip
def test_wrong_types_are_refused(section: str, key: str, value: Any) -> None:
    error = refused({section: {key: value}})
    assert error.code == "E145"
    assert f"{section}.{key}" in error.what


@pytest.mark.parametrize("section", ["encoder", "index", "proposals", "retrieval", "fusion", "merge"])
def test_a_section_that_is_no_table_is_refused(section: str) -> None:
    assert refused({section: 3}).code == "E145"


NUMBERS = {
    "encoder": {"stride": (0, -1), "short_side": (0, 99_999), "std": ([0.1, 0.0, 0.1],)},
    "index": {"batch": (0,), "shard_rows": (0,), "min_area": (0,), "thumbnails": (-1,)},
    "proposals": {"scales": ([], [0.0], [100.0, -1.0]), "min_share": (-0.1, 1.0), "max_regions": (0,)},
    "retrieval": {"k": (0,), "per_class_k": (-1,), "temperature": (0.0, -1), "label_match": (0.0, 1.01)},
    "fusion": {"alpha": (-0.01, 1.01), "beta": (-0.01, 1.01), "gamma": (-0.01, 1.01)},
    "merge": {"score_threshold": (-0.1, 1.1), "overlap_threshold": (-0.1, 1.1), "max_instances": (0,)},
}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [(s, k, v) for s, keys in NUMBERS.items() for k, values in keys.items() for v in values],
)
def test_values_outside_their_range_are_refused(section: str, key: str, value: Any) -> None:
    error = refused({section: {key: value}})
    assert error.code == "E144"
    assert key in error.what


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_numbers_that_are_none_are_refused_everywhere(value: float) -> None:
    for field in fields(Preset):
        if field.name == "name":
            continue
        section = field.default_factory()  # type: ignore[misc]
        for key in fields(section):
            default = getattr(section, key.name)
            if isinstance(default, float):
                assert refused({field.name: {key.name: value}}).code in ("E144", "E145")
            elif isinstance(default, tuple) and default and isinstance(default[0], float):
                assert refused({field.name: {key.name: [value, *default[1:]]}}).code in ("E144", "E145")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
KEYS = [
    (section.name, key.name)
    for section in fields(Preset)
    if section.name != "name"
    for key in fields(section.default_factory())  # type: ignore[misc]
]


@given(st.sampled_from(KEYS), VALUES)
def test_any_value_is_read_exactly_or_refused(where: tuple[str, str], value: Any) -> None:
    section, key = where
    try:
        preset = preset_from_mapping({"name": "x", section: {key: value}}, "x")
    except InputError:
        return
    read = getattr(getattr(preset, section), key)
    assert (list(read) if isinstance(read, tuple) else read) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_a_preset_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    with contextlib.suppress(InputError):
        assert load_preset(str(path)).name


@pytest.mark.parametrize("text", [b"[encoder\n", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_broken_toml_is_an_input_error_with_the_place(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(InputError, match=r"mine\.toml") as caught:
        load_preset(write(tmp_path, text))
    assert caught.value.code == "E142"


def test_missing_files_and_names_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as caught:
        load_preset(str(tmp_path / "none.toml"))
    assert caught.value.code == "E140"
    with pytest.raises(InputError, match="no preset 'cpus'") as caught:
        load_preset("cpus")
    assert caught.value.code == "E141"
    assert "Did you mean 'cpu'?" in caught.value.why


def test_weights_are_looked_up_beside_the_preset(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    text = '[encoder]\nweights = "w/net.safetensors"\n'
    assert load_preset(write(tmp_path, text)).encoder.weights == "w/net.safetensors"
    (tmp_path / "w" / "net.safetensors").write_bytes(b"")
    assert load_preset(write(tmp_path, text)).encoder.weights == str((tmp_path / "w" / "net.safetensors").resolve())


def test_name_of_a_preset_is_its_file_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert load_preset(write(tmp_path, "")).name == "mine"
    assert load_preset(write(tmp_path, 'name = "other"')).name == "other"


def test_the_photo_preset_is_a_valid_preset() -> None:
    preset = load_preset(str(REPOSITORY / "benchmarks" / "photo" / "preset.toml"))
    assert preset.encoder.layers
    assert preset.encoder != EncoderSettings()


FCCLIP = {"library": "fcclip", "model": "tiny", "weights": "w.safetensors"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": "hub"}, "encoder.weights"),
        ({"layers": ["res5"]}, "encoder.layers"),
        ({"stride": 16}, "encoder.stride"),
        ({"mean": [0.0, 0.0, 0.0]}, "encoder.mean"),
        ({"model_args": {"depth": 3}}, "encoder.model_args"),
    ],
)
def test_what_fcclip_decides_itself_cannot_be_set(change: dict[str, Any], named: str) -> None:
    assert preset_from_mapping({"name": "x", "encoder": FCCLIP}, "x.toml").encoder.library == "fcclip"
    error = refused({"encoder": {**FCCLIP, **change}})
    assert error.code == "E144"
    assert named in error.what


def test_trained_proposals_need_the_network_that_they_share() -> None:
    error = refused({"proposals": {"kind": "fcclip"}})
    assert error.code == "E144"
    assert "proposals.kind" in error.what
    preset_from_mapping({"name": "x", "encoder": FCCLIP, "proposals": {"kind": "fcclip"}}, "x.toml")
