"""Write docs/models.md from the presets and the catalogue: python scripts/make_models_page.py [--check]."""

from __future__ import annotations

import sys
from pathlib import Path

from retclip.presets import available_presets, load_preset
from retclip.presets.model_cards import ModelCard, model_cards, models_of, segmenting_roles

TARGET = Path(__file__).resolve().parent.parent / "docs" / "models.md"
HEAD = """# Networks and their weights

Written by `python scripts/make_models_page.py` from the presets and from `retclip/presets/models.toml`; a test fails
when it is not up to date. `retclip models list` shows the same with what is on your machine.

## Where weights are looked for

For every network of a preset, in this order:

1. the file or folder that the preset names (absolute, beside the preset's TOML file, or by name in
   `RETCLIP_MODELS_DIR`); `name.safetensors` stands for `name.pth`, as `retclip models convert` writes it;
2. `$RETCLIP_MODELS_DIR/<repository>/`, then `$RETCLIP_MODELS_DIR/<last part of it>/`; for releases that are on no hub
   `$RETCLIP_MODELS_DIR/<file>`;
3. the hub's cache (`HF_HOME`);
4. the hub itself: the weights and the small files beside them, never a whole repository. Not with `RETCLIP_OFFLINE=1`
   or `HF_HUB_OFFLINE=1`, and not when it does not answer within a second and a half. `HF_ENDPOINT` names a mirror,
   `HTTPS_PROXY` a proxy.

All networks that a command needs are looked for before any is built: what is missing, half copied, a Git LFS pointer or
another network is named at once, and together. Weights are read without running code: safetensors, or PyTorch files
through `weights_only=True`; TorchScript archives are refused.

## A machine without a network

```
retclip models fetch balanced --dir models      # on a connected machine; complete files are kept when it is repeated
rsync -a models/ there:/models/
export RETCLIP_MODELS_DIR=/models RETCLIP_OFFLINE=1
retclip models check balanced                   # here? whole? the right network? loads?
```

A connection that breaks is taken up where it stopped; a fetch that was killed starts the file it was at again.
`retclip doctor` says what each preset lacks. A database keeps role, name, licence and SHA-256 of the networks that made
it (`retclip db info`).
"""
PRESETS = """
## Presets

Building a database from labels takes all networks of a preset, asking takes those marked with a star.

| preset | encoder | detector | masker | weights (MB) |
|---|---|---|---|---|
"""
CATALOGUE = """
## Catalogue

Licences as the authors state them for the weights; corpora have their own. Sizes are those of the weights file. Any
other network of these libraries can be named in a preset: transformers' by their repository, open_clip's and timm's by
the name that the library knows, and from the repository that it names.

| kind | model in a preset | repository or file | MB | licence | note |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return (
        HEAD + PRESETS + "".join(map(_preset_row, available_presets())) + CATALOGUE + "".join(map(_row, model_cards()))
    )


def _preset_row(name: str) -> str:
    preset = load_preset(name)
    needed = {model.role: model for model in models_of(preset)}
    asked = segmenting_roles(preset)
    cells = [
        f"`{needed[role].name}`{' *' if role in asked else ''}" if role in needed else "-"
        for role in ("encoder", "detector", "masker")
    ]
    return f"| `{name}` | {' | '.join(cells)} | {sum(model.card.megabytes for model in needed.values()):,} |\n"


def _row(card: ModelCard) -> str:
    name = " / ".join(part for part in (card.model, card.pretrained) if part)
    place = card.repository or card.weights[0]
    note = "; ".join(part for part in ("gated" if card.gated else "", card.note) if part)
    size = f"{card.megabytes:,}" if card.megabytes else "?"
    return f"| {card.kind} | {card.library}: `{name}` | `{place}` | {size} | {card.license} | {note} |\n"


def main() -> int:
    """Write the page, or compare it under --check."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.is_file() and TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
