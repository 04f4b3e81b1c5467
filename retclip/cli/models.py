"""`retclip models`: which networks there are, under which licence, and whether their weights are here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import JsonOption, QuietOption
from retclip.core.errors import InputError, ModelError

app = typer.Typer(no_args_is_help=True, help="Networks and their weights.")


@app.command("list", epilog="Example: retclip models list --json")
def list_models(json: JsonOption = False) -> None:
    """Presets with their networks, the licence of the weights, and where the weights are."""
    from retclip.assembly import find_weights
    from retclip.presets import available_presets, load_preset

    found = []
    for name in available_presets():
        encoder = load_preset(name).encoder
        try:
            weights = find_weights(encoder)
            place = "hub" if weights is None else str(weights)
        except ModelError:
            place = None
        found.append(
            {
                "preset": name,
                "library": encoder.library,
                "model": encoder.model,
                "license": encoder.license,
                "file": encoder.weights,
                "found": place,
            }
        )
    rows = [
        (
            entry["preset"],
            f"{entry['library']}/{entry['model']}",
            entry["license"] or "not stated",
            entry["found"] or f"missing: put {entry['file']} into $RETCLIP_MODELS_DIR",
        )
        for entry in found
    ]
    Speech(json).data(found, make_table(("preset", "model", "licence of the weights", "weights"), rows))


@app.command(epilog="Example: retclip models convert fcclip_cocopan.pth fcclip_cocopan.safetensors")
def convert(
    source: Annotated[Path, typer.Argument(help="A .pth file as released, or a .safetensors file.", metavar="IN")],
    target: Annotated[Path, typer.Argument(help="A new .safetensors file.", metavar="OUT")],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rewrite a checkpoint as safetensors, which needs no unpickling, and say which FC-CLIP variant it fits."""
    from retclip.segmenters.fcclip.checkpoint import convert as write_safetensors

    if target.suffix != ".safetensors" or target.exists():
        why = "There is such a file already." if target.exists() else "The name must end in .safetensors."
        raise InputError("E179", f"Cannot convert into {target}.", why=why, fix="Choose another name.")
    variant = write_safetensors(source, target)
    speech = Speech(json, quiet)
    if variant is None:
        speech.note("note: these tensors fit no FC-CLIP variant; they are converted as they are.")
    document = {"weights": str(target), "variant": variant, "bytes": target.stat().st_size}
    speech.data(document, make_table(("converted", "value"), [(key, str(value)) for key, value in document.items()]))
