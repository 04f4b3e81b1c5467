from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel
from transformers.utils import logging

from retclip.adapters.transformers_network import load_network, read_json
from retclip.core.errors import ModelError

CONFIG = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=20)


@pytest.mark.parametrize("content", ["[]", "3", "", "\x00", "[" * 100_000, " " * 1_000_001 + "{}", '{"a": '])
def test_what_is_no_json_object(tmp_path: Path, content: str):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json") as caught:
        read_json(tmp_path / "config.json")
    assert caught.value.code == "E202"


def test_a_json_object_is_read(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert read_json(tmp_path / "config.json") == {"model_type": "bert"}


def test_a_network_holds_the_tensors_given_and_the_library_keeps_quiet(capfd: pytest.CaptureFixture[str]):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    tensors = {key: torch.randn_like(value) for key, value in BertModel(CONFIG).state_dict().items()}
    network = load_network(BertModel, CONFIG, tensors, Path("bert.safetensors"), "bert")
    assert all(torch.equal(value, tensors[key]) for key, value in network.state_dict().items())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_what_differs_is_said_and_the_library_keeps_quiet(capfd: pytest.CaptureFixture[str]):
    tensors = BertModel(CONFIG).state_dict()
    del tensors["pooler.dense.bias"]
    tensors["head"] = torch.zeros(2)
    tensors["pooler.dense.weight"] = torch.zeros(3, 8)
    with pytest.raises(ModelError) as caught:
        load_network(BertModel, CONFIG, tensors, Path("bert.safetensors"), "bert")
    assert caught.value.code == "E207"
    assert "missing ['pooler.dense.bias']" in caught.value.why
    assert "unexpected ['head']" in caught.value.why
    assert "pooler.dense.weight (3, 8) instead of (8, 8)" in caught.value.why
    assert capfd.readouterr() == ("", "")
