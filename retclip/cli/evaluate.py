"""`retclip eval`: how good a database, a preset or another program is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import (
    DATABASES,
    DeviceOption,
    JsonOption,
    LayersOption,
    PresetOption,
    QuietOption,
    change_settings,
    parse_layering,
)
from retclip.cli.scoring import Asked, Ready, look_for_networks, score_database, score_foreign
from retclip.core.errors import InputError, RetclipError, collected, joined

if TYPE_CHECKING:
    from retclip.evaluation.truth import EvaluationSet
    from retclip.presets import Preset
    from retclip.shards import Database
    from retclip.shards.layers import LayeredIndex

EPILOG = "Example: retclip eval --dataset coco-panoptic --root /data/coco --db photo --proposals given --out report"
DatasetOption = Annotated[
    str,
    typer.Option(
        help="coco-panoptic, ade20k-panoptic, cityscapes, panoptic, pascal-voc, pascal-context, semantic or playground."
    ),
]
PlaceOption = Annotated[Path | None, typer.Option(help="Where the set lies; default: $RETCLIP_DATA/<dataset>.")]
_WORST_SHOWN = 12


def evaluate(
    dataset: DatasetOption,
    root: PlaceOption = None,
    split: Annotated[str, typer.Option(help="val, train, ...")] = "val",
    db: Annotated[str | None, DATABASES] = None,
    layers: LayersOption = "first",
    pred: Annotated[Path | None, typer.Option(help="Score another program's folder: panoptic.json and PNGs.")] = None,
    preset: PresetOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set retrieval.k=16", metavar="KEY=VALUE")
    ] = None,
    proposals: Annotated[
        str,
        typer.Option(help="preset (as it says), given (annotated masks), regions, gdino-sam, sam-grid or fcclip."),
    ] = "preset",
    oracle: Annotated[str | None, typer.Option(help="masks, labels, vocabulary, selection; comma-separated.")] = None,
    seen_file: Annotated[str | None, typer.Option(help="Seen classes: a file, or the name of a list.")] = None,
    classes: Annotated[str | None, typer.Option(help="Class list of a `semantic` set.")] = None,
    subset: Annotated[int | None, typer.Option(min=1, help="Only the first so many pictures.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report and the observations.")] = Path("evaluation"),
    workers: Annotated[int, typer.Option(min=1, help="Processes that label and count.")] = 1,
    resamples: Annotated[int, typer.Option(min=10, help="Of the bootstrap.")] = 1000,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="Score leaked pictures; marks the report.")] = False,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure PQ, mask AP and mean IoU in one pass; networks run once, later runs use what they said."""
    from retclip.assembly import choose_preset
    from retclip.evaluation.datasets import open_evaluation_set
    from retclip.evaluation.oracle_names import parse_oracles
    from retclip.presets import load_preset

    speech = Speech(json, quiet)
    oracles = parse_oracles(oracle)
    layering = parse_layering(layers)
    asked = Asked(out, proposals, oracles, device, workers, allow_leak, seen_file, resamples, layering, speech)
    if (pred is None) == (db is None):
        raise InputError(
            "E160", "Nothing to evaluate.", why="One of --db and --pred is needed, not both.", fix="Add --db NAME."
        )
    chosen = None if preset is None else load_preset(preset)
    opened, database = _open(lambda: open_evaluation_set(dataset, root, split, classes), db, chosen, asked)
    if subset is not None:
        opened = replace(opened, images=opened.images[:subset])
    if opened.missing:
        speech.note(f"note: {len(opened.missing):,} listed photos are not on disk and do not count.")
    if database is None:
        _report(opened, None, None, score_foreign(opened, Path(str(pred)), asked), asked)
        return
    changed = change_settings(chosen or choose_preset(None, database), settings or [])
    _report(opened, database, changed, score_database(opened, database, changed, asked), asked)


def _open(
    open_set: Callable[[], EvaluationSet], db: str | None, preset: Preset | None, asked: Asked
) -> tuple[EvaluationSet, Database | LayeredIndex | None]:
    """Set and database; what is missing, networks of a named preset included, is told at once and not one by one."""
    from retclip.shards.layers import open_layers

    problems: list[RetclipError] = []
    opened, database = [], None
    with collected(problems):
        opened.append(open_set())
    with collected(problems):
        database = None if db is None else open_layers(db, asked.layering)
    if problems and preset is not None:
        # Networks are not needed where stored observations answer, so they are looked for only to complete the list.
        with collected(problems):
            look_for_networks(preset, asked)
    if problems:
        raise joined(problems)
    return opened[0], database


def _report(
    dataset: EvaluationSet,
    database: Database | LayeredIndex | None,
    preset: Preset | None,
    ready: Ready,
    asked: Asked,
) -> None:
    import numpy as np

    from retclip.core.files import prepare_folder, write_json
    from retclip.evaluation.datasets import load_seen_classes, seen_list_of
    from retclip.evaluation.figures import figures_document

    listed = asked.seen_file or seen_list_of(dataset.name)
    columns = load_seen_classes(listed, dataset.vocabulary) if listed else ready.seen_by_default
    default = "every class" if database is None else f"classes with exemplars in {database.name}@{database.version}"
    seen = np.isin(np.arange(len(dataset.vocabulary)), sorted(columns))
    seen_list = {"name": listed or default, "size": len(columns), "classes": len(dataset.vocabulary)}
    document = {
        **_identities(dataset, database, preset, ready, asked),
        "seen_list": seen_list,
        **figures_document(ready.tally, seen, asked.resamples),
    }
    prepare_folder(asked.out)
    write_json(asked.out / "report.json", document)
    _write_html(asked.out / "report.html", dataset, ready, document)
    rows = [(key, document[key]) for key in ("pq", "sq", "rq", "map", "miou", "label_accuracy", "ece")]
    title = f"{dataset.name} {dataset.split}, {len(dataset.images)} pictures: {document['protocol']}"
    asked.speech.data(document, make_table(("percent", "value "), rows, title))
    asked.speech.note(f"seen list: {seen_list['name']}, {seen_list['size']} of {seen_list['classes']} classes")
    asked.speech.note(f"report: {asked.out / 'report.html'}")


def _identities(
    dataset: EvaluationSet, database: Database | LayeredIndex | None, preset: Preset | None, ready: Ready, asked: Asked
) -> dict[str, Any]:
    """Whose figures these are: protocol, set, database, preset, with their hashes."""
    from retclip import __version__
    from retclip.evaluation.session import dataset_identity, protocol_name
    from retclip.presets import preset_to_mapping
    from retclip.shards.layers import layers_of

    layers = layers_of(database) if database is not None else ()
    known: dict[str, Any] | None = _layer_identity(layers[0]) if layers else None
    if len(layers) > 1:
        identities = [_layer_identity(layer) for layer in layers]
        names = ",".join(layer.name for layer in layers)
        known = {"name": names, "layering": asked.layering, "layers": identities}
    return {
        "retclip": __version__,
        "protocol": protocol_name(dataset, layers, ready.trained_head, asked.oracles),
        "oracles": sorted(asked.oracles),
        "dataset": dict(dataset_identity(dataset)),
        "database": known,
        "preset": preset and preset.name,
        "settings": preset and preset_to_mapping(preset),
        "proposals": "given" if asked.given else asked.proposals,
        "leakage": {"allowed": asked.allow_leak, "leaks": [asdict(leak) for leak in ready.leaks]},
    }


def _layer_identity(database: Database) -> dict[str, Any]:
    return {
        "name": database.name,
        "version": database.version,
        "content_hash": database.content_hash(),
        "feature_space": database.space.fingerprint,
        "encoder": database.space.encoder,
        "weights_sha256": database.space.weights_sha256,
        "segments": len(database),
        "sources": dict(database.sources),
        "key_transform": database.transform,
    }


def _write_html(path: Path, dataset: EvaluationSet, ready: Ready, document: Mapping[str, Any]) -> None:
    from retclip.core.images import read_picture
    from retclip.evaluation.page import Exhibit, write_page
    from retclip.evaluation.pictures import data_address, side_by_side

    images = {image.image_id: image for image in dataset.images}
    exhibits = []
    for row in document["worst_images"][:_WORST_SHOWN]:
        image = images[row["image_id"]]
        truth = dataset.truth(image)
        found = ready.source.predict(image, truth)
        maps = ((truth.ids, truth.segments), (found.ids, found.segments))
        jpeg = side_by_side(read_picture(image.path).pixels, maps, dataset.vocabulary)
        caption = f"{image.path.name}: PQ {row['pq']:.1f}, {row['named']} of {row['placed']} found segments named right"
        exhibits.append(Exhibit(caption, data_address(jpeg)))
    write_page(path, document, exhibits)
