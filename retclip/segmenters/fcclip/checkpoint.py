"""Reading weights: released `.pth` files, safetensors, and the CLIP weights that training starts from.

No pickle is ever executed (`core/weights.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from retclip.adapters.open_clip.backbones import restore_causal_mask
from retclip.core.errors import ModelError
from retclip.core.weights import read_weights
from retclip.segmenters.fcclip.model import FCCLIP
from retclip.segmenters.fcclip.variants import VARIANTS, Variant, build_fcclip, variant_named

CLIP_PREFIX = "backbone.clip_model."
# Computed, not learned: some exports carry them, no module of ours stores them.
COMPUTED = frozenset({"pixel_mean", "pixel_std", f"{CLIP_PREFIX}attn_mask"})
SHOWN = 6  # differing keys that an error lists


def load_fcclip(path: Path, variant: Variant | str, device: torch.device | str = "cpu") -> FCCLIP:
    """Build a variant with the weights of a checkpoint; strict in both directions.

    Raises:
        ModelError: as `read_weights`; E207 keys or shapes do not fit, naming the variant they would fit; E208.
    """
    chosen = variant_named(variant) if isinstance(variant, str) else variant
    weights = {key: value for key, value in read_weights(path).items() if key not in COMPUTED}
    with torch.device("meta"):
        model = build_fcclip(_with_classes_of(weights, chosen))
    _require_fit(path.name, chosen, weights, model)
    return assign_weights(model, weights).to(device)


def assign_weights(model: FCCLIP, weights: Mapping[str, Tensor]) -> FCCLIP:
    """Give a network built on the meta device its tensors, in float32, without a second copy in memory."""
    kept = {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    model.load_state_dict(kept, strict=True, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    restore_causal_mask(model.backbone.clip_model)
    return model


def load_clip_weights(path: Path, model: FCCLIP) -> None:
    """Fill the frozen CLIP of a network from open_clip's own weights file, strictly.

    Raises:
        ModelError: as `read_weights`; E207 keys or shapes do not fit.
    """
    clip = model.backbone.clip_model
    weights = {key: value for key, value in read_weights(path).items() if key != "attn_mask"}
    if differences := _differences(clip, weights):
        raise ModelError(
            "E207",
            f"{path.name} does not hold this variant's CLIP weights.",
            why=_listed(differences),
            fix="Give the open_clip weights that the variant names.",
        )
    clip.load_state_dict(weights)


def convert(source: Path, destination: Path) -> str | None:
    """Write the tensors of a checkpoint as safetensors; returns the variant they fit. Raises ModelError."""
    weights = {key: value.contiguous().clone() for key, value in read_weights(source).items()}
    save_file(weights, destination, metadata={"format": "pt", "source": source.name})
    return fitting_variant({key: value for key, value in weights.items() if key not in COMPUTED})


def fitting_variant(weights: Mapping[str, Tensor]) -> str | None:
    """The variant whose keys and shapes these weights have, if any."""
    for name, variant in VARIANTS.items():
        with torch.device("meta"):
            model = build_fcclip(_with_classes_of(weights, variant))
        if not _differences(model, weights):
            return name
    return None


def _with_classes_of(weights: Mapping[str, Tensor], variant: Variant) -> Variant:
    """The variant with as many training classes as the file: only the weights of the loss depend on their number."""
    loss_weights = weights.get("criterion.empty_weight")
    if loss_weights is None or loss_weights.ndim != 1 or len(loss_weights) < 2:
        return variant
    return replace(variant, head=replace(variant.head, training_classes=len(loss_weights) - 1))


def _require_fit(name: str, variant: Variant, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    differences = _differences(model, weights)
    if not differences:
        return
    other = fitting_variant(weights)
    fix = (
        f"These weights fit the variant '{other}': use that."
        if other
        else (f"They fit no known variant ({', '.join(VARIANTS)}); check that this is a whole FC-CLIP checkpoint.")
    )
    raise ModelError("E207", f"{name} does not fit the variant '{variant.name}'.", why=_listed(differences), fix=fix)


def _differences(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Missing, unknown and differently shaped keys, in the order of the network."""
    expected = model.state_dict()
    lines = []
    for key, tensor in expected.items():
        if key not in weights:
            lines.append(f"missing {key} {tuple(tensor.shape)}")
        elif weights[key].shape != tensor.shape:
            lines.append(f"{key} is {tuple(weights[key].shape)}, expected {tuple(tensor.shape)}")
    lines += [f"unknown {key} {tuple(weights[key].shape)}" for key in weights if key not in expected]
    return lines


def _listed(differences: list[str]) -> str:
    rest = len(differences) - SHOWN
    return "; ".join(islice(differences, SHOWN)) + (f"; and {rest} more." if rest > 0 else ".")
