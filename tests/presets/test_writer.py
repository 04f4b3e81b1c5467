from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.presets import EncoderSettings, FusionSettings, Preset, available_presets, load_preset
from retclip.presets.writer import preset_to_toml


@pytest.mark.parametrize("name", available_presets())
def test_every_preset_survives(tmp_path, name):
    path = tmp_path / f"{name}.toml"
    path.write_text(preset_to_toml(load_preset(name), "tuned\non something"))
    assert load_preset(str(path)) == load_preset(name)
    assert path.read_text().startswith("# tuned\n# on something\n")


@given(text=st.text(st.characters(exclude_categories=("Cs",))), reliability=st.sampled_from([(), (1.5, -2.0)]))
def test_any_text_survives(tmp_path_factory, text, reliability):
    arguments = {"a": text, "b c": True, "d": 2, "e": 0.5}
    encoder = EncoderSettings(model=text or "m", weights="hub", model_args=arguments)
    preset = Preset("x", encoder=encoder, fusion=FusionSettings(reliability=reliability))
    path = tmp_path_factory.mktemp("toml") / "x.toml"
    path.write_text(preset_to_toml(preset), encoding="utf-8")
    assert load_preset(str(path)) == replace(preset, name="x")
