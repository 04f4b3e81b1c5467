"""Train the tiny SAM on both looks of the playground: python -m scripts.train_tiny.masker --data D --out O."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from retclip.training.augmentation import JitterSettings
from retclip.training.coco_panoptic import Folders
from retclip.training.optimiser import Schedule
from retclip.training.promptable import MaskerTraining, train_masker
from retclip.vocabularies import load_vocabulary

LOOKS = ("a", "b")
# The side of the pictures themselves, so that nothing is resampled.
SIDE, PATCH = 288, 12
WIDTH, DECODER_WIDTH = 96, 64


def network() -> SamConfig:
    """0.7 million weights; a cell of its masks is 3 pixels of the input."""
    vision = SamVisionConfig(
        hidden_size=WIDTH,
        output_channels=DECODER_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=SIDE,
        patch_size=PATCH,
        mlp_ratio=3.0,
        window_size=8,
        use_rel_pos=False,
        global_attn_indexes=[1, 3],
        num_pos_feats=DECODER_WIDTH // 2,
    )
    prompts = SamPromptEncoderConfig(hidden_size=DECODER_WIDTH, image_size=SIDE, patch_size=PATCH)
    decoder = SamMaskDecoderConfig(
        hidden_size=DECODER_WIDTH,
        mlp_dim=2 * DECODER_WIDTH,
        num_attention_heads=2,
        iou_head_hidden_dim=DECODER_WIDTH,
    )
    return SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)


def recipe(data: Path, out: Path, iterations: int, start: Path | None) -> MaskerTraining:
    """About half an hour of one core for 7,000 iterations; small batches learn most per second."""
    return MaskerTraining(
        data=tuple(Folders.of_coco(data / look, "train") for look in LOOKS),
        vocabulary=load_vocabulary(str(data / LOOKS[0] / "categories.txt")),
        output=out,
        network=network(),
        schedule=Schedule(
            iterations=iterations, batch_size=2, learning_rate=1e-3, decay="cosine", warmup=200, clip=1.0
        ),
        jitter=JitterSettings(size=SIDE, smallest=0.75, largest=1.25),
        start=start,
    )


def main() -> None:
    """Parse the command line and train; the same command takes up a run that was stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets a and b")
    parser.add_argument("--out", type=Path, required=True, help="folder for state, log and export/")
    parser.add_argument("--iterations", type=int, default=7000)
    parser.add_argument("--start", type=Path, help="export/ of an earlier run, to go on from a new warm-up")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(train_masker(recipe(arguments.data, arguments.out, arguments.iterations, arguments.start)))


if __name__ == "__main__":
    main()
