"""Train the tiny suite's FC-CLIP head: seen classes of domain B, on the frozen CLIP of `scripts.train_tiny.clip`.

Run: python -m scripts.train_tiny.fcclip --data playground/b-seen --clip clip/open_clip_model.safetensors --out run

Stopped, the same command goes on. Data: retclip corpora make playground --domain b --only-seen --pictures 3000.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from retclip.training.augmentation import JitterSettings
from retclip.training.coco_panoptic import Folders
from retclip.training.fcclip import Step, TrainSettings, train
from retclip.training.losses import LossSettings
from retclip.training.optimiser import Schedule
from retclip.training.points import PointSettings
from retclip.vocabularies import load_vocabulary

SIDE = 224  # of the training crops, pixels


def main() -> None:
    """Train, printing a line every hundred steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=2400)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = TrainSettings(
        folders=Folders.of_coco(arguments.data, "train2017"),
        vocabulary=load_vocabulary("@playground-seen"),
        output=arguments.out,
        variant="playground",
        clip_weights=arguments.clip,
        schedule=Schedule(arguments.iterations, 8, 8e-4, weight_decay=0.05, clip=0.1, decay="cosine", warmup=100),
        loss=LossSettings(points=PointSettings(1024, 1024)),
        jitter=JitterSettings(SIDE, 0.9, 1.6),
        device="cpu",
        amp=False,
        loader_processes=0,
        save_every=100,
        log_every=20,
    )

    def show(step: Step) -> None:
        if step.iteration % 100 == 0:
            print(f"{step.iteration}/{step.iterations} loss {step.loss:.2f}", flush=True)

    print(train(settings, show).weights)


if __name__ == "__main__":
    main()
