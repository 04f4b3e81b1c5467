"""What a text tower said of some names, so that it need not be loaded to say it again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from retclip.core.errors import InputError
from retclip.core.files import write_bytes
from retclip.core.identity import FeatureSpace
from retclip.ports.encoders import TextEncoder


class KeptTexts:
    """A `TextEncoder` of the names it was made with; any other name has the zero vector, which resembles nothing.

    Args:
        space, logit_scale: of the tower.
        rows: (D,) unit vector by name.
    """

    def __init__(self, space: FeatureSpace, logit_scale: float, rows: Mapping[str, Tensor]) -> None:
        self._space, self._logit_scale, self._rows = space, logit_scale, dict(rows)

    @classmethod
    def of(cls, text: TextEncoder, names: Iterable[str]) -> Self:
        """The rows of a tower for some names."""
        distinct = list(dict.fromkeys(names))
        return cls(text.space, text.logit_scale, dict(zip(distinct, text.encode_names(distinct).cpu(), strict=True)))

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    @property
    def space(self) -> FeatureSpace:
        """Of the tower."""
        return self._space

    @property
    def logit_scale(self) -> float:
        """Of the tower."""
        return self._logit_scale

    def encode_names(self, names: Sequence[str]) -> Tensor:
        """Class names -> (T, D) rows."""
        nothing = torch.zeros(self._space.dim)
        return torch.stack([self._rows.get(name, nothing) for name in names])

    def save(self, path: Path) -> None:
        """Write rows and names as safetensors."""
        notes = {"names": json.dumps(list(self._rows)), "logit_scale": repr(self._logit_scale)}
        write_bytes(path, save({"rows": torch.stack(list(self._rows.values()))}, notes))

    @classmethod
    def load(cls, path: Path, space: FeatureSpace) -> Self:
        """Inverse of `save`. Raises InputError E340 for a damaged file."""
        try:
            with safe_open(path, "pt") as file:
                notes, rows = file.metadata() or {}, file.get_tensor("rows")
            names = json.loads(notes["names"])
            return cls(space, float(notes["logit_scale"]), dict(zip(names, rows, strict=True)))
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise InputError(
                "E340", f"Cannot read {path}.", why=str(error), fix="Segment again with --keep into a new --out."
            ) from error
