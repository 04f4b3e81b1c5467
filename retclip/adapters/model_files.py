"""The one resolver of weights: which file or folder on this machine holds a network that a preset needs.

Looks into the package, at the path that the preset names, then into `RETCLIP_MODELS_DIR`, then into the hub's cache;
`obtain_models` also downloads. Imports no model library: a missing, half copied or wrong file is named before any
network is built.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from retclip.adapters.hub import cached_file, download, offline_reason, with_repository
from retclip.adapters.libraries import check_library
from retclip.core.errors import ModelError, RetclipError, joined
from retclip.core.weight_files import check_signature, check_weights_file, file_sha256, unfinished_files
from retclip.presets import Preset, available_presets
from retclip.presets.model_cards import NeededModel, Role, models_of

MODELS_DIR = "RETCLIP_MODELS_DIR"
Origin = Literal["package", "given", "models-dir", "cache"]


@dataclass(frozen=True)
class Found:
    """The files of one network.

    Attributes:
        path: what its adapter takes: a folder, or the weights file itself.
        weights: the weights file.
        origin: the package itself, the preset's own path, `RETCLIP_MODELS_DIR`, or the hub's cache.
    """

    needed: NeededModel
    path: Path
    weights: Path
    origin: Origin


def obtain_models(preset: Preset, roles: Collection[Role] | None = None) -> dict[Role, Found]:
    """All networks that a preset needs, downloaded into the hub's cache where this machine lacks them.

    Args:
        roles: those asked for; None = all.

    Raises:
        ModelError: one error for all networks that cannot be had: E201 missing, E202 damaged, E203 refused by the hub,
            E204 no plain weights, E207 another network, E208 unknown, E223 not on the hub.
    """
    return _obtain(_wanted(preset, roles), preset.name)


def find_models(preset: Preset, roles: Collection[Role] | None = None) -> dict[Role, Found]:
    """As `obtain_models`, without ever asking the hub."""
    found, missing = _sorted(survey(_wanted(preset, roles)), preset.name)
    if missing:
        raise missing_models(missing, preset.name)
    return found


def _wanted(preset: Preset, roles: Collection[Role] | None) -> list[NeededModel]:
    return [needed for needed in models_of(preset) if roles is None or needed.role in roles]


def _obtain(wanted: Sequence[NeededModel], preset: str) -> dict[Role, Found]:
    found, missing = _sorted(survey(wanted), preset)
    if not missing:
        return found
    # Nothing is fetched as long as a file is lacking that no download can bring.
    downloadable = all(needed.on_hub for needed in missing)
    reason = offline_reason() if downloadable else ""
    if reason or not downloadable:
        raise missing_models(missing, preset, reason)
    return found | {needed.role: fetch_model(needed) for needed in missing}


def fetch_model(needed: NeededModel, folder: Path | None = None, *, quiet: bool = False) -> Found:
    """Download one network into `folder`/<repository>/, or into the hub's cache, and check what came.

    Raises:
        RetclipError: as `download` and `find_model`.
    """
    target = folder / needed.card.repository if folder else None
    download(needed.card, target, quiet=quiet)
    place = target or _snapshot(needed)
    if place is None:
        raise ModelError(
            "E201",
            f"'{needed.card.repository}' is not whole in the hub's cache.",
            why="Its authors changed it during the download.",
            fix="Run the same command again.",
        )
    return _checked(_in_folder(needed, place, "models-dir" if target else "cache"))


@dataclass(frozen=True)
class Placement:
    """Where a needed network is: found, damaged (`problem`), or neither, then it is missing."""

    needed: NeededModel
    found: Found | None = None
    problem: RetclipError | None = None


def survey(wanted: Sequence[NeededModel]) -> list[Placement]:
    """Look for every network, whatever becomes of the others. Raises nothing that concerns a network."""
    places = []
    for asked in wanted:
        try:
            check_library(asked.card.library)
            needed = with_repository(asked)
            places.append(Placement(needed, find_model(needed)))
        except RetclipError as error:
            places.append(Placement(asked, problem=error))
    return places


def _sorted(places: Sequence[Placement], preset: str) -> tuple[dict[Role, Found], list[NeededModel]]:
    """What this machine has and what it lacks; anything damaged is an error that names the missing too."""
    missing = [place.needed for place in places if place.found is None and place.problem is None]
    if errors := [place.problem for place in places if place.problem is not None]:
        raise joined([*errors, *([missing_models(missing, preset)] if missing else [])])
    return {place.needed.role: place.found for place in places if place.found is not None}, missing


def find_model(needed: NeededModel) -> Found | None:
    """The files of one network, checked as far as goes without loading them; None where there are none.

    Raises:
        ModelError: E202 half copied, cut off or a stand-in; E204 a program instead of weights; E207 another network.
    """
    for place, origin in _places(needed):
        if place.is_file():
            return _checked(Found(needed, place, place, origin))
        if place.is_dir():
            return _checked(_in_folder(needed, place, origin))
    snapshot = _snapshot(needed)
    return None if snapshot is None else _checked(_in_folder(needed, snapshot, "cache"))


def _places(needed: NeededModel) -> Iterator[tuple[Path, Origin]]:
    folder = os.environ.get(MODELS_DIR)
    if not needed.from_hub:
        # os.path: Path.expanduser raises for a user that this machine does not have, as presets of others name them.
        given = Path(os.path.expanduser(needed.given))  # noqa: PTH111
        # First, or a folder of that name where the user stands would take the place of what ships.
        if not given.is_absolute() and ".." not in given.parts:
            yield Path(str(files("retclip.presets"))) / given, "package"
        yield from _with_converted(given, "given")
        if folder:
            yield from _with_converted(Path(folder) / given, "models-dir")
            yield from _with_converted(Path(folder) / given.name, "models-dir")
    elif folder and needed.card.repository:
        yield Path(folder) / needed.card.repository, "models-dir"
        yield Path(folder) / Path(needed.card.repository).name, "models-dir"
    elif folder:
        # The releases that are on no hub have file names of their own; model.safetensors could be anybody's.
        for name in needed.card.weights:
            yield from _with_converted(Path(folder) / name, "models-dir")


def _with_converted(path: Path, origin: Origin) -> Iterator[tuple[Path, Origin]]:
    """A file converted by `retclip models convert` stands for the one it was made from."""
    yield path, origin
    if path.suffix:
        yield path.with_suffix(".safetensors"), origin


def _snapshot(needed: NeededModel) -> Path | None:
    """The folder of the hub's cache that holds all needed files."""
    card = needed.card
    if not needed.from_hub or not card.repository:
        return None
    weights = next((file for name in card.weights if (file := cached_file(card.repository, name))), None)
    complete = all(any(cached_file(card.repository, name) for name in names.split("|")) for names in card.files)
    return weights.parent if weights is not None and complete else None


def _in_folder(needed: NeededModel, folder: Path, origin: Origin) -> Found:
    card = needed.card
    # A user's own folder may call its weights what every library understands.
    known = card.weights if needed.from_hub else (*card.weights, "model.safetensors")
    weights = next((folder / name for name in known if (folder / name).is_file()), None)
    lacking = [names for names in card.files if not any((folder / name).is_file() for name in names.split("|"))]
    if weights is None or lacking:
        wanted = ", ".join([*lacking, *(["|".join(known)] if weights is None else [])]).replace("|", " or ")
        there = ", ".join(file.name for file in unfinished_files(folder))
        raise ModelError(
            "E202",
            f"{folder} does not hold all of '{card.name}': no {wanted}.",
            why=f"A download is not finished: {there}." if there else "It was not copied whole, or is another folder.",
            fix="Copy or download it again.",
        )
    # A folder named in a preset may be a network of the user's own, which open_clip reads with its config.
    whole = bool(card.files) or (not needed.from_hub and card.library == "open_clip")
    return Found(needed, folder if whole else weights, weights, origin)


def _checked(found: Found) -> Found:
    card, own_folder = found.needed.card, not found.needed.from_hub and found.path.is_dir()
    check_weights_file(found.weights)
    if card.model_types and found.path.is_dir():
        _check_model_type(found.path / "config.json", card.model_types, card.name)
    if not own_folder:
        check_signature(found.weights, card.signature, card.name)
    return found


def _check_model_type(config: Path, known: Sequence[str], name: str) -> None:
    try:
        kind = json.loads(config.read_bytes())["model_type"]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            "E202", f"{config} is not a configuration.", why=f"{error!r}"[:200], fix="Copy or download it again."
        ) from error
    if kind not in known:
        raise ModelError(
            "E207",
            f"{config.parent} does not fit '{name}'.",
            why=f"Its config.json describes a '{kind}', expected {' or '.join(known)}.",
            fix="It holds another network: put the right folder in its place, or name another model in the preset.",
        )


def missing_models(missing: Sequence[NeededModel], preset: str, reason: str = "") -> ModelError:
    """E201 for all of them at once, with the command that brings them; `reason` says why none was downloaded."""
    names = ", ".join(f"{needed.role} '{needed.name}'" for needed in missing)
    own = [needed for needed in missing if not needed.on_hub]
    fixes, places = [], f"{MODELS_DIR} ({os.environ.get(MODELS_DIR) or 'not set'})"
    if len(own) < len(missing):
        name = preset if not preset or preset in available_presets() else f"{preset}.toml"
        command = f"retclip models fetch {name or 'PRESET'} --dir DIR"
        fixes.append(f"On a connected machine: {command}; copy DIR here and set {MODELS_DIR} to it.")
        places += " and the hub's cache"
    if own:
        files = " and ".join(_file_wanted(needed) for needed in own)
        fixes.append(f"Put {files} into a folder and set {MODELS_DIR} to it.")
    return ModelError(
        "E201",
        f"Not on this machine: {names}" + (f", and {reason}." if reason else "."),
        why=f"Looked into {places}."
        if any(needed.from_hub for needed in missing)
        else f"Looked there and into {places}.",
        fix=" ".join(fixes),
    )


def _file_wanted(needed: NeededModel) -> str:
    name = " or ".join(needed.card.weights) if needed.from_hub else Path(needed.given).name
    return name + (f" ({needed.card.note})" if needed.card.note else "")


def model_records(found: Mapping[Role, Found]) -> list[dict[str, str]]:
    """What a database keeps of the networks that made it: role, name, licence, and SHA-256 of the weights file."""
    return [
        {
            "role": role,
            "name": place.needed.card.name,
            "license": place.needed.card.license,
            "sha256": file_sha256(place.weights),
        }
        for role, place in found.items()
    ]
