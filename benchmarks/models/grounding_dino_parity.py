"""Our reading of original Grounding DINO checkpoints against the authors' own code, at real sizes with random weights.

    pip install groundingdino-py==0.4.0
    python benchmarks/models/grounding_dino_parity.py --vocab bert-base-uncased-vocab.txt --sizes tiny base

The authors' network is built with random weights and saved as a release is (`{"model": {"module.…": …}}`). Our loader
reads that file; both then get the same pixels and the same prompt. groundingdino-py 0.4.0 was written for
transformers 4: the three methods of BERT that it takes from there are given back before it is built.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from groundingdino.models import build_model
from groundingdino.util.misc import nested_tensor_from_tensor_list
from transformers import BertConfig, BertModel, BertTokenizer, GroundingDinoForObjectDetection

from retclip.adapters.grounding_dino.original_checkpoint import original_config, renamed_tensors
from retclip.adapters.transformers_network import load_network
from retclip.core.weights import read_weights

CONFIGS = {"tiny": "GroundingDINO_SwinT_OGC", "base": "GroundingDINO_SwinB_cfg"}
PROMPT = "cat. traffic light. zebra crossing."


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=Path, required=True, help="vocab.txt of bert-base-uncased")
    parser.add_argument("--sizes", nargs="+", choices=CONFIGS, default=["tiny"])
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def restore_bert_methods() -> None:
    """What transformers 4 had: masks become terms added to attention, head masks are not used."""

    def extended(_bert: BertModel, mask: torch.Tensor, *_: Any) -> torch.Tensor:
        kept = mask[:, None] if mask.ndim == 3 else mask[:, None, None]
        return (1 - kept.float()) * torch.finfo(torch.float32).min

    def unchanged(_bert: BertModel, value: Any, *_: Any) -> Any:
        return value

    BertModel.get_extended_attention_mask = extended
    BertModel.invert_attention_mask = unchanged
    BertModel.get_head_mask = unchanged


def write_bert(folder: Path, vocab: Path) -> None:
    """A BERT of the released size with random weights, and the real tokenizer."""
    folder.mkdir()
    (folder / "vocab.txt").write_bytes(vocab.read_bytes())
    BertModel(BertConfig()).save_pretrained(folder)
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)


def peer_network(size: str, bert: Path) -> torch.nn.Module:
    """The authors' network with weights drawn so that every one of them takes part in the outputs."""
    module = importlib.import_module(f"groundingdino.config.{CONFIGS[size]}")
    settings = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    settings |= {"text_encoder_type": str(bert), "use_checkpoint": False, "use_transformer_ckpt": False}
    network: torch.nn.Module = build_model(argparse.Namespace(**settings)).eval()
    for name, values in network.named_parameters():
        if values.ndim > 1 and "embeddings" not in name:
            torch.nn.init.normal_(values, std=values[0].numel() ** -0.5)
        elif values.ndim == 1 and ("gamma_" in name or name.endswith("bias")):
            torch.nn.init.normal_(values, std=0.1)
    return network


@torch.inference_mode()
def compare(size: str, folder: Path, pixels: torch.Tensor) -> dict[str, Any]:
    """How many queries start at the same place in both, and how far apart their logits and boxes are."""
    peer = peer_network(size, folder / "bert-base-uncased")
    path = folder / f"{size}.pth"
    torch.save({"model": {f"module.{key}": value for key, value in peer.state_dict().items()}}, path)
    model = f"grounding-dino-{size}"
    ours = load_network(
        GroundingDinoForObjectDetection, original_config(model), renamed_tensors(read_weights(path)), path, model
    )
    theirs = peer(nested_tensor_from_tensor_list(list(pixels)), captions=[PROMPT])
    words = BertTokenizer.from_pretrained(folder / "bert-base-uncased")(PROMPT, return_tensors="pt")
    mine = ours(pixel_values=pixels, **words)
    written = mine.logits.isfinite()
    assert torch.equal(written, theirs["pred_logits"].isfinite()), "the two mask different tokens"
    logits = (theirs["pred_logits"] - mine.logits).masked_fill(~written, 0).abs().amax(-1)
    boxes = (theirs["pred_boxes"] - mine.pred_boxes).abs().amax(-1)
    # Queries start at the best places of the picture: where two places are as good but for rounding, their order may
    # differ, and with it the query that is sent there.
    same = boxes < 1e-3
    return {
        "size": size,
        "tensors": len(peer.state_dict()),
        "queries at the same place": float(same.float().mean()),
        "their max logit difference": float(logits[same].max()),
        "their max box difference": float(boxes[same].max()),
        "logit spread": float(mine.logits[written].std()),
        "box spread": float(mine.pred_boxes.std(1).mean()),
    }


def main() -> None:
    """Compare and write what was found."""
    options = parse()
    restore_bert_methods()
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, options.height, options.width)
    with tempfile.TemporaryDirectory() as place:
        write_bert(Path(place) / "bert-base-uncased", options.vocab)
        rows = [compare(size, Path(place), pixels) for size in options.sizes]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    options.json.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
