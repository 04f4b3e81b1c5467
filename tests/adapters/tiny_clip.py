"""CLIPs as small as they get, in folders that open_clip and `load_open_clip` read; CLIP's own tokenizer fits them."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from open_clip import CLIP
from safetensors.torch import save_file

Kind = Literal["convnext", "vit", "resnet"]

EMBED_DIM = 16
VISION: dict[Kind, dict[str, Any]] = {
    "convnext": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "mlp", "image_size": 64},
    "vit": {"layers": 3, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32},
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 64},
}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}


def tiny_config(kind: Kind) -> dict[str, Any]:
    """open_clip's model configuration."""
    return {"embed_dim": EMBED_DIM, "vision_cfg": dict(VISION[kind]), "text_cfg": dict(TEXT)}


def tiny_clip(kind: Kind, seed: int = 0, **changes: Any) -> CLIP:
    """A network in evaluation mode whose random weights let every part have a say."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = CLIP(**{**tiny_config(kind), **changes}).eval()
        with torch.no_grad():
            for name, value in clip.named_parameters():
                if name.endswith(("gamma", "bn3.weight")):
                    value.fill_(0.5)  # near zero when new: blocks would do nothing
                elif value.ndim > 1 and "embedding" not in name:
                    value.normal_(std=value[0].numel() ** -0.5)
                elif name.endswith("bias"):
                    value.normal_(std=0.1)
    return clip


def write_tiny_clip(folder: Path, kind: Kind = "convnext", seed: int = 0) -> Path:
    """Write open_clip_config.json and weights into a folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": tiny_config(kind), "preprocess_cfg": {}}))
    save_file(tiny_clip(kind, seed).state_dict(), folder / "open_clip_model.safetensors")
    return folder
