"""Train the tiny Grounding DINO on the playground: python -m scripts.train_tiny.detector --data D --out O."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import BertConfig, MMGroundingDinoConfig, SwinConfig

from retclip.training.asked_boxes import ViewSettings
from retclip.training.coco_panoptic import Folders
from retclip.training.detector import DetectorTraining, train_detector
from retclip.training.optimiser import Schedule
from retclip.vocabularies import load_vocabulary

LOOKS = ("a", "b")
WIDTH = 64
# Deviations of initial weights: the library's own 0.02 suits towers that are ten times as wide.
_NARROW = 0.1


def network() -> MMGroundingDinoConfig:
    """1.5 million weights; every part of the released networks is there, once or twice."""
    vision = SwinConfig(
        embed_dim=32,
        depths=[1, 2, 2, 1],
        num_heads=[1, 2, 4, 8],
        window_size=7,
        mlp_ratio=2.0,
        drop_path_rate=0.0,
        initializer_range=_NARROW,
        out_indices=[2, 3, 4],
    )
    text = BertConfig(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=_NARROW,
    )
    return MMGroundingDinoConfig(
        backbone_config=vision,
        text_config=text,
        d_model=WIDTH,
        num_feature_levels=3,
        num_queries=60,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_n_points=2,
        encoder_ffn_dim=2 * WIDTH,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=2 * WIDTH,
        dropout=0.0,
        fusion_droppath=0.0,
        init_std=_NARROW,
    )


def recipe(data: Path, out: Path, iterations: int) -> DetectorTraining:
    """Forty minutes on one core of 2024 for 7,000 iterations."""
    return DetectorTraining(
        data=tuple(Folders.of_coco(data / look, "train") for look in LOOKS),
        vocabulary=load_vocabulary(str(data / LOOKS[0] / "categories.txt")),
        output=out,
        network=network(),
        schedule=Schedule(
            iterations=iterations, batch_size=4, learning_rate=6e-4, decay="cosine", warmup=300, clip=5.0
        ),
        # The sides of the playground's pictures, 224 x 288, as the image processor scales them.
        view=ViewSettings(height=160, width=205),
    )


def main() -> None:
    """Parse the command line and train; the same command takes up a run that was stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets a and b")
    parser.add_argument("--out", type=Path, required=True, help="folder for state, log and export/")
    parser.add_argument("--iterations", type=int, default=7000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(train_detector(recipe(arguments.data, arguments.out, arguments.iterations)))


if __name__ == "__main__":
    main()
