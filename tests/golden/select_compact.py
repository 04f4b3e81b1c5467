"""Make the compact subset in this folder from the whole set: `python tests/golden/select_compact.py WHOLE_SET/fcclip`.

Whole files are copied; of the larger ones the arrays that a last step yields are kept, so that every test still has
something to compare.
"""

import json
import shutil
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

WHOLE = (
    "ms_deform_attn.safetensors",
    "position_encoding.safetensors",
    "mask_pooling.safetensors",
    "classification_logits.safetensors",
    "ensemble.safetensors",
    "ensemble.json",
    "text_side.json",
    "resize.safetensors",
    "resize.json",
    "train_step/arrays.safetensors",
    "train_step/meta.json",
    "e2e_convnext/weights.safetensors",
    "e2e_convnext/inputs.safetensors",
    "e2e_convnext/meta.json",
    "inference_functions.json",
)
KEPT = {
    "e2e_convnext/outputs.safetensors": (
        "pred_",
        "mask_cls",
        "panoptic_seg",
        "text_classifier",
        "clip_pooled",
        "out_vocab",
        "category_",
        "instances",
    ),
    "inference_functions.safetensors": ("m2f.",),
}


def main(source, destination):
    for name in WHOLE:
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, destination / name)
    for name, prefixes in KEPT.items():
        with safe_open(source / name, "pt") as file:
            chosen = {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefixes)}  # noqa: SIM118
            save_file(chosen, destination / name, metadata=file.metadata())
    size = sum(path.stat().st_size for path in destination.rglob("*") if path.is_file())
    print(json.dumps({"bytes": size}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "fcclip")
