"""Weights from files that nobody vouches for: read without running code, loaded only where they fit exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from retclip.core.errors import ModelError, first_line, translated
from retclip.core.weight_files import check_weights_file


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or PyTorch file; files that contain code objects are refused.

    A PyTorch file holds its tensors at the top, under `model` or under `state_dict`.

    Raises:
        ModelError: E201 for no file, E202 for one that is not whole, E204 for one that is no plain table of tensors.
    """
    if not path.is_file():
        raise ModelError(
            "E201", f"There is no file {path}.", why="It was named as a weights file.", fix="Check the path."
        )
    check_weights_file(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ModelError(
                "E202", f"{path} is not a complete safetensors file.", why=str(error), fix="Copy or download it again."
            ) from error
    # The unpickler raises many types on damaged or hostile files; none of them may get further than this.
    with translated(lambda error: _not_loaded(path, error)):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    tensors = loaded.get("model", loaded.get("state_dict", loaded)) if isinstance(loaded, dict) else None
    if not isinstance(tensors, dict) or not tensors or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise ModelError(
            "E204", f"{path} holds no table of tensors.", why=f"Found {type(loaded).__name__}.", fix="Use a state dict."
        )
    return tensors


def _not_loaded(path: Path, error: Exception) -> ModelError:
    return ModelError(
        "E204",
        f"{path} was not loaded.",
        why=f"It is damaged or contains code objects: {first_line(error)}",
        fix="Use a safetensors file.",
    )


def load_strictly(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    path: Path,
    name: str,
    fix: str = "Check encoder.model and encoder.model_args against the file.",
) -> None:
    """Give a network called `name` its tensors, in the network's own number formats.

    A network built under `torch.device("meta")` takes the tensors themselves, so that nothing is held twice.

    Raises:
        ModelError: E207 when the tensors are not exactly the network's own; `fix` says what to do then.
    """
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    own = model.state_dict()
    wanted = {key: tuple(value.shape) for key, value in own.items()}
    given = {key: tuple(value.shape) for key, value in tensors.items()}
    # Some exports leave out BatchNorm's step counters; they take no part in inference.
    missing = [key for key in wanted if key not in given and (on_meta or not key.endswith("num_batches_tracked"))]
    surplus = [key for key in given if key not in wanted]
    reshaped = [
        f"{key} {given[key]} instead of {wanted[key]}" for key in wanted if key in given and given[key] != wanted[key]
    ]
    if missing or surplus or reshaped:
        shown = [f"missing {missing[:3]}"] * bool(missing) + [f"surplus {surplus[:3]}"] * bool(surplus) + reshaped[:3]
        raise ModelError(
            "E207",
            f"{path} does not fit '{name}'.",
            why="; ".join(shown),
            fix=fix,
        )
    fitting = {key: value.to(own[key].dtype) for key, value in tensors.items()}
    model.load_state_dict(fitting, strict=False, assign=on_meta)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Digest of named tensors, the same for every file format they were stored in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
