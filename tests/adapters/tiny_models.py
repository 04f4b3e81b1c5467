"""Folders with very small random networks, in the layout of the released ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SwinConfig,
)

from retclip.training.word_pieces import write_word_pieces


def write_tiny_grounding_dino(
    folder: Path, words: Sequence[str] = (), seed: int = 0, model_type: str = "grounding-dino"
) -> Path:
    """A random Grounding DINO (or `mm-grounding-dino`) of 0.6 M parameters that scales pictures to 64 pixels.

    Args:
        folder: created if needed.
        words: get a token each; other words are spelled in letters.
        seed: of the weights. They are drawn wide, so that scores spread over (0, 1) and depend on picture and text,
            but narrow where boxes are refined, so that boxes stay of the sizes that proposals have.
        model_type: `grounding-dino` or `mm-grounding-dino`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = write_word_pieces(folder / "vocab.txt", words)
    mm = model_type == "mm-grounding-dino"
    config = (MMGroundingDinoConfig if mm else GroundingDinoConfig)(**tiny_sizes(size))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = (MMGroundingDinoForObjectDetection if mm else GroundingDinoForObjectDetection)(config)
        for name, values in network.named_parameters():
            if values.ndim > 1 and "embeddings" not in name:
                wide = 0.3 if "bbox_embed" in name else 1.5
                torch.nn.init.normal_(values, std=wide * values[0].numel() ** -0.5)
            elif "class_embed" in name:
                torch.nn.init.zeros_(values)
    network.save_pretrained(folder)
    GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 107}).save_pretrained(folder)
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


def tiny_sizes(vocabulary: int) -> dict[str, object]:
    """Arguments of a configuration: every part is there once or twice, as small as it can be."""
    return {
        "backbone_config": SwinConfig(
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            image_size=64,
            out_indices=[2, 3, 4],
        ),
        "text_config": BertConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            vocab_size=vocabulary,
        ),
        "d_model": 64,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_queries": 20,
    }
