"""`retclip models`: which networks there are, under which licence, where their weights are, and how to get them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import JsonOption, QuietOption
from retclip.core.errors import InputError, RetclipError, joined

if TYPE_CHECKING:
    from retclip.adapters.model_files import Placement
    from retclip.presets import Preset

app = typer.Typer(no_args_is_help=True, help="Networks and their weights.")


@app.command("list", epilog="Example: retclip models list --licenses")
def list_models(
    licenses: Annotated[
        bool, typer.Option("--licenses", help="The whole catalogue with licences and sizes, whether here or not.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """The networks of every preset, the licence of their weights, and where the weights are."""
    from retclip.adapters.model_files import survey
    from retclip.presets import available_presets, load_preset
    from retclip.presets.model_cards import models_of

    if licenses:
        _show_catalogue(json)
        return
    found = [_entry(name, place) for name in available_presets() for place in survey(models_of(load_preset(name)))]
    columns = ("preset", "role", "model", "licence of the weights", "weights")
    rows = [(e["preset"], e["role"], e["model"], e["license"] or "not stated", _whereabouts(e)) for e in found]
    Speech(json).data(found, make_table(columns, rows))


def _entry(preset: str, place: Placement) -> dict[str, Any]:
    needed = place.needed
    return {
        "preset": preset,
        "role": needed.role,
        "library": needed.card.library,
        "model": needed.name,
        "license": needed.card.license,
        "megabytes": needed.card.megabytes,
        "found": str(place.found.path) if place.found else None,
        "origin": place.found.origin if place.found else None,
        "problem": f"{place.problem.code} {place.problem.what}" if place.problem else None,
    }


def _whereabouts(entry: dict[str, Any]) -> str:
    return entry["found"] or entry["problem"] or f"missing ({entry['megabytes']} MB)"


def _show_catalogue(json: bool) -> None:
    from retclip.presets.model_cards import model_cards

    cards = [
        {
            "kind": card.kind,
            "library": card.library,
            "model": card.model,
            "pretrained": card.pretrained,
            "repository": card.repository,
            "license": card.license,
            "megabytes": card.megabytes,
            "gated": card.gated,
            "note": card.note,
        }
        for card in model_cards()
    ]
    rows = [
        (c["kind"], c["repository"] or f"{c['library']}/{c['model']}", c["license"], c["megabytes"] or "?",
         ("gated; " if c["gated"] else "") + str(c["note"]))
        for c in cards
    ]  # fmt: skip
    Speech(json).data(cards, make_table(("kind", "model", "licence of the weights", "MB ", "note"), rows))


@app.command(epilog="Example: retclip models check balanced")
def check(
    preset: Annotated[
        str | None, typer.Argument(help="Preset name or TOML file; default: all that ship.", metavar="[PRESET]")
    ] = None,
    load: Annotated[bool, typer.Option(help="Also build every network and load its weights.")] = True,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Whether weights are here, whole and the right ones, and load; exit code 4 when not.

    Without PRESET, networks that are not here are listed and are no failure.
    """
    from retclip.adapters.model_files import missing_models, survey
    from retclip.presets import available_presets, load_preset
    from retclip.presets.model_cards import models_of

    speech, report = Speech(json, quiet), []
    errors: list[RetclipError] = []
    for name in (preset,) if preset else available_presets():
        chosen = load_preset(name)
        places = survey(models_of(chosen))
        for place in places:
            line, problem = _checked(chosen, place, load, speech)
            report.append(line)
            errors += [problem] if problem else []
        missing = [place.needed for place in places if place.found is None and place.problem is None]
        if preset and missing:
            errors.append(missing_models(missing, chosen.name))
    rows = [(line["preset"], line["role"], line["model"], line["state"], line["sha256"] or "") for line in report]
    speech.data(report, make_table(("preset", "role", "model", "state", "sha256 of the weights file"), rows))
    if errors:
        raise joined(errors)


def _checked(
    preset: Preset, place: Placement, load: bool, speech: Speech
) -> tuple[dict[str, Any], RetclipError | None]:
    from retclip.assembly import load_model
    from retclip.core.weight_files import file_sha256

    problem, digest = place.problem, None
    if place.found is not None:
        digest = file_sha256(place.found.weights)
        try:
            if load:
                speech.note(f"loading {place.needed.name}")
                load_model(preset, place.found, "cpu")
        except RetclipError as error:
            problem = error
    whole = ("loads" if load else "whole") if place.found else "missing"
    state = f"{problem.code} {problem.what}" if problem else whole
    return {**_entry(preset.name, place), "state": state, "sha256": digest}, problem


@app.command(epilog="Example: retclip models fetch balanced --dir /models")
def fetch(
    preset: Annotated[str, typer.Argument(help="Preset name or TOML file.", metavar="PRESET")],
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Put files into DIR/<repository>/; default: the hub's cache.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Download what a preset needs: single files, never a whole repository; complete files are kept."""
    from retclip.adapters.hub import offline_reason
    from retclip.adapters.model_files import Placement, fetch_model, missing_models, survey
    from retclip.core.weight_files import file_sha256
    from retclip.presets import load_preset
    from retclip.presets.model_cards import models_of

    speech, chosen = Speech(json, quiet), load_preset(preset)
    places = survey(models_of(chosen))
    wanted = [place.needed for place in places if place.needed.on_hub]
    others = [place for place in places if not place.needed.on_hub]
    if errors := [place.problem for place in others if place.problem]:
        raise joined(errors)
    if wanted and (reason := offline_reason()):
        raise missing_models(wanted, chosen.name, reason)
    report = []
    for needed in wanted:
        speech.note(f"{needed.role} {needed.name}, {needed.card.megabytes or '?'} MB")
        found = fetch_model(needed, folder, quiet=quiet or json)
        report.append({**_entry(chosen.name, Placement(needed, found)), "sha256": file_sha256(found.weights)})
    rows = [(line["role"], line["model"], line["found"], line["sha256"]) for line in report]
    speech.data(report, make_table(("role", "model", "files", "sha256 of the weights file"), rows))
    if own := [place.needed for place in others if place.found is None]:
        raise missing_models(own, chosen.name)


@app.command(epilog="Example: retclip models convert fcclip_cocopan.pth fcclip_cocopan.safetensors")
def convert(
    source: Annotated[Path, typer.Argument(help="A .pth file as released, or a .safetensors file.", metavar="IN")],
    target: Annotated[Path, typer.Argument(help="A new .safetensors file.", metavar="OUT")],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rewrite a checkpoint as safetensors, which needs no unpickling, and say which networks it fits."""
    from retclip.core.weight_files import has_signature, tensor_shapes
    from retclip.presets.model_cards import model_cards
    from retclip.segmenters.fcclip.checkpoint import convert as write_safetensors

    if target.suffix != ".safetensors" or target.exists():
        why = "There is such a file already." if target.exists() else "The name must end in .safetensors."
        raise InputError("E179", f"Cannot convert into {target}.", why=why, fix="Choose another name.")
    variant = write_safetensors(source, target)
    shapes = tensor_shapes(target)
    fits = [card.name for card in model_cards() if card.signature and has_signature(shapes, card.signature)]
    speech = Speech(json, quiet)
    if variant is None and not fits:
        speech.note("note: these tensors fit no network of the catalogue; they are converted as they are.")
    document = {"weights": str(target), "variant": variant, "fits": fits, "bytes": target.stat().st_size}
    rows = [(key, ", ".join(value) if isinstance(value, list) else str(value)) for key, value in document.items()]
    speech.data(document, make_table(("converted", "value"), rows))
