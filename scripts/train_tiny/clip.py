"""Train the playground's CLIP on captioned pictures: python -m scripts.train_tiny.clip --data web --out runs/clip."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from retclip.corpora import open_corpus
from retclip.training.captioned import CaptionedPictures, CropSettings
from retclip.training.clip import ClipTraining, train_clip
from retclip.training.optimiser import Schedule


def main() -> None:
    """Parse arguments and train; the same command goes on with an interrupted run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="captioned pictures in COCO's layout")
    parser.add_argument("--out", type=Path, required=True, help="folder for state, log and export/")
    parser.add_argument("--start", type=Path, help="weights to go on from, in a run of its own")
    parser.add_argument("--iterations", type=int, default=2_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--size", type=int, default=128, help="side of the squares the network sees, pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)

    images = (image for root in given.data for image in open_corpus("coco", root, "train2017").images())
    pictures = CaptionedPictures(images, CropSettings(size=given.size), given.seed)
    schedule = Schedule(
        given.iterations, given.batch_size, given.learning_rate, (), clip=1.0, decay="cosine", warmup=100
    )
    begin = time.monotonic()

    def show(done: int, loss: float) -> None:
        if done % 20 == 0:
            print(f"{done:6d} of {given.iterations}  loss {loss:.3f}  {time.monotonic() - begin:.0f} s", flush=True)

    print(train_clip(ClipTraining(given.out, start=given.start, schedule=schedule, seed=given.seed), pictures, show))


if __name__ == "__main__":
    main()
