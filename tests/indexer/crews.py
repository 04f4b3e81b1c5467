"""What workers of the executor tests make and do; in a module of its own, so that other processes can import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retclip.core.errors import ModelError
from retclip.indexer.plan import BuildRequest
from retclip.indexer.regions import AnnotatedRegions
from retclip.ports.corpora import Corpus
from retclip.ports.encoders import DenseFeatures
from tests.fakes import ColourEncoder

THUMBNAILS = 16


class TrappedEncoder(ColourEncoder):
    """Kills its process at a picture, as often as the trap has files: each death takes one away."""

    def __init__(self, trap: Path | None) -> None:
        super().__init__()
        self._trap = trap

    def encode_images(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[DenseFeatures]:
        if self._trap is not None and any(image[0, 0, 0] == 3 for image in images):
            left = sorted(self._trap.iterdir())
            if left:
                left[0].unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_images(images)


@dataclass(frozen=True)
class StripeRecipe:
    """A recipe over fakes.

    Attributes:
        trap: kills workers at picture 3.
        fails: stops them with an error of ours.
        cap: at most so many segments of a class.
    """

    corpus: Corpus
    trap: Path | None = None
    fails: bool = False
    cap: int | None = None

    def __call__(self, device: str) -> tuple[BuildRequest, ColourEncoder]:
        if self.fails:
            raise ModelError("E201", "No weights here.", why="The test says so.", fix="None.")
        regions = AnnotatedRegions(self.corpus, "masks")
        request = BuildRequest(self.corpus, regions, batch=2, per_class_cap=self.cap, thumbnails=THUMBNAILS)
        return request, TrappedEncoder(self.trap)


def ended(group: int) -> bool:
    """Whether all processes of a group end within a minute."""
    for _ in range(1200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
