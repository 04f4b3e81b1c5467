"""Text rows on disk, so that the next process need not encode a vocabulary again.

One safetensors file per text tower: `rows` (N, D) float32, and in its metadata the names (JSON) and a digest of both. A
file is only ever replaced as a whole, so readers see the old rows or the new ones. Processes that add at the same time
may lose each other's rows, never mix them up; what is lost is encoded again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from open_clip import CLIP
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from retclip.core.weights import tensors_sha256

MOST_NAMES = 20_000  # 80 MB at 1,024 numbers a row; the oldest give way
_MOST_BYTES = 1 << 28
_IMAGE_SIDE = ("visual.", "logit_scale", "logit_bias")

_log = logging.getLogger(__name__)


class TextStore:
    """Rows of class names in one file.

    A file that is damaged counts as empty and is replaced; a folder that cannot be written costs time and nothing else.
    Both are logged.

    Args:
        path: the file, which need not exist; its name stands for all that decides the rows (`text_digest`).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Tensor]:
        """All rows (D,) float32 by name, on the CPU, the oldest first."""
        try:
            return _decoded(self._path)
        except FileNotFoundError:
            return {}
        except (OSError, RuntimeError, SafetensorError, ValueError) as error:
            # RuntimeError: safetensors opens a file twice, and another process replaced it in between.
            _log.warning("%s is not usable and will be replaced: %s", self._path, error)
            return {}

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Keep rows (D,) float32 too, beside what the file holds by now."""
        merged = {**self.read(), **rows}
        kept = dict(list(merged.items())[-MOST_NAMES:])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self._path, _encoded(kept))
        except OSError as error:
            _log.warning("%s was not written: %s", self._path, error)


def text_digest(clip: CLIP, prompts: tuple[str, ...], tokenizer: str) -> str:
    """Hex digest of all that decides text rows.

    Args:
        clip: its text tower counts: weights, and what no weight tells, the activation and the number of heads.
        prompts: templates that are averaged.
        tokenizer: what tells the tokenizer from others.
    """
    weights = {key: value for key, value in clip.state_dict().items() if not key.startswith(_IMAGE_SIDE)}
    block = clip.transformer.resblocks[0]
    form = [tensors_sha256(weights), type(block.mlp.gelu).__name__, block.attn.num_heads, clip.text_pool_type]
    return hashlib.sha256(json.dumps([form, prompts, tokenizer]).encode()).hexdigest()


def _decoded(path: Path) -> dict[str, Tensor]:
    """Rows of a file. Raises OSError, SafetensorError or ValueError for one that cannot be trusted."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"larger than {_MOST_BYTES:,} bytes")
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        rows = file.get_tensor("rows")
    names = json.loads(metadata.get("names", "null"))
    if not isinstance(names, list) or rows.ndim != 2 or len(names) != len(rows):
        raise ValueError("names and rows do not belong together")
    if metadata.get("sha256") != _digest(names, rows):
        raise ValueError("its content is not what was written")
    return dict(zip(names, rows, strict=True))


def _encoded(rows: Mapping[str, Tensor]) -> bytes:
    names, table = list(rows), torch.stack(list(rows.values()))
    return save({"rows": table}, {"names": json.dumps(names), "sha256": _digest(names, table)})


def _digest(names: list[str], rows: Tensor) -> str:
    return hashlib.sha256(json.dumps(names).encode() + tensors_sha256({"rows": rows}).encode()).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Write beside and rename; nothing half written is left behind."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, delete=False) as file:
        beside = Path(file.name)
        try:
            file.write(content)
            file.flush()
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
