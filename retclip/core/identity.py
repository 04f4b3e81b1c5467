"""What made a vector. Two vectors may be compared only when their feature spaces are equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from retclip.core.errors import require


@dataclass(frozen=True)
class FeatureSpace:
    """Everything that decides the numbers in a vector; equal spaces are comparable.

    Attributes:
        encoder: library and architecture, e.g. `timm/mobilenetv2_100`.
        weights_sha256: hex digest of the weights file (`random-<seed>` digests for untrained tests).
        dim: length of a stored vector.
        layers: feature maps that are tapped and concatenated, shallow to deep.
        stride: input pixels per feature cell.
        short_side, long_side: the image is scaled so that its short side is `short_side` unless the long side
            would exceed `long_side`; pixels.
        mean, std: per-channel RGB normalisation on the 0..1 scale.
        activation: activation that a weights release insists on (`quick_gelu`), else empty.
        pooling: rule that turns a feature map and a mask into one vector (core/pooling.py).
    """

    encoder: str
    weights_sha256: str
    dim: int
    layers: tuple[str, ...]
    stride: int
    short_side: int
    long_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    activation: str
    pooling: str

    def __post_init__(self) -> None:
        require(self.dim > 0, "FeatureSpace.dim", "> 0", self.dim)
        require(self.stride > 0, "FeatureSpace.stride", "> 0", self.stride)
        require(0 < self.short_side <= self.long_side, "FeatureSpace.short_side", "0 < short <= long", self.short_side)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON of all fields."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; tuples become lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`. Raises ValueError for a missing or unknown field."""
        names = {field.name for field in fields(cls)}
        require(set(data) == names, "FeatureSpace fields", str(sorted(names)), sorted(data))
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)

    def differences(self, other: FeatureSpace) -> list[str]:
        """Human-readable list of the fields in which `other` differs, `name: mine != theirs`."""
        mine, theirs = self.to_json(), other.to_json()
        return [f"{key}: {mine[key]} != {theirs[key]}" for key in mine if mine[key] != theirs[key]]
