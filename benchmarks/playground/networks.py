"""What the networks are worth one by one: boxes, masks, proposals, and CLIP on whole pictures against masks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.ops import box_iou

from benchmarks.playground.measure import observations
from benchmarks.playground.trials import NEAREST, ProposalKind
from benchmarks.playground.world import GROUPS, IS_THING, VOCABULARY, DatabaseName, World
from retclip.adapters.model_files import obtain_models
from retclip.assembly import load_model, make_encoder
from retclip.core.files import write_json
from retclip.core.images import Picture, read_picture
from retclip.core.masks import MaskSet
from retclip.core.rle import mask_box
from retclip.corpora.playground.export import SPLITS
from retclip.corpora.playground.products import compose_product
from retclip.corpora.playground.scenes import Domain
from retclip.evaluation.oracles import overlaps
from retclip.evaluation.truth import EvaluationSet, TruthMap
from retclip.ports.detection import Detections, Detector
from retclip.ports.encoders import TextEncoder, embed_regions
from retclip.ports.masking import BoxMasker
from retclip.query.matching import match_labels
from retclip.query.question import find_neighbors, hits_of
from retclip.query.similarity import TextSimilarity
from retclip.shards import Database

MATCH = 0.5
Shares = dict[str, dict[str, float]]


class Tallies:
    """Values in [0, 1] by row and class, averaged over groups of classes at the end."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)

    def add(self, row: str, values: Iterable[float], columns: Iterable[int]) -> None:
        """Count values, one for each class in `columns`."""
        self._values[row] += zip(map(float, values), map(int, columns), strict=True)

    def shares(self) -> Shares:
        """Row -> group -> percent; groups without a value are left out."""
        groups = {**GROUPS, "things": IS_THING, "stuff": ~IS_THING}
        found: Shares = {}
        for row, pairs in self._values.items():
            value, column = np.array([v for v, _ in pairs]), np.array([c for _, c in pairs], np.int64)
            inside = {name: value[chosen[column]] for name, chosen in groups.items()}
            found[row] = {name: 100 * float(part.mean()) for name, part in inside.items() if len(part)}
        return found


def network_figures(world: World) -> Shares:
    """All figures of one seed, from disk where they were measured before; the trials must have been carried out."""
    path = world.folder / "networks.json"
    if not path.is_file():
        tallies = Tallies()
        _count_boxes_and_masks(world, tallies)
        for kind in ("fcclip", "gdino-sam", "sam-grid"):
            _count_proposals(world, kind, tallies)
        _count_surety(world, tallies)
        _count_clip(world, tallies)
        _count_neighbors(world, tallies)
        write_json(path, tallies.shares())
    return cast(Shares, json.loads(path.read_bytes()))


def annotated(dataset: EvaluationSet) -> Iterator[tuple[str, Picture, TruthMap, list[int]]]:
    """Id, picture, truth and the column of every segment, picture by picture."""
    columns = {category.id: column for column, category in enumerate(dataset.vocabulary)}
    for image in dataset.images:
        truth = dataset.truth(image)
        yield image.image_id, read_picture(image.path), truth, [columns[s.category_id] for s in truth.segments]


def _count_boxes_and_masks(world: World, tallies: Tallies) -> None:
    preset = world.preset
    found = obtain_models(preset, ("detector", "masker"))
    detector = cast(Detector, load_model(preset, found["detector"], "cpu"))
    masker = cast(BoxMasker, load_model(preset, found["masker"], "cpu"))
    for _, picture, truth, columns in annotated(world.pictures_of("a")):
        boxes = true_boxes(truth)
        names = [VOCABULARY.names]
        seen = detector.detect([picture.pixels], names, preset.proposals.box_threshold)[0]
        partner = match_boxes(seen, boxes, columns)
        hit = partner >= 0
        recalled = np.isin(np.arange(len(columns)), partner)
        tallies.add("detector: recall of boxes at IoU .5", recalled, columns)
        tallies.add("detector: precision of boxes at IoU .5", hit, seen.phrases.tolist())
        asked = torch.cat([boxes, seen.boxes[torch.from_numpy(hit)]])
        table = overlap_table(masker.masks([picture.pixels], [asked])[0].masks, truth)
        count = len(columns)
        tallies.add("masker: IoU from annotated boxes", table[np.arange(count), np.arange(count)], columns)
        right = partner[hit]
        own = table[count + np.arange(len(right)), right]
        tallies.add("masker: IoU from detected boxes", own, [columns[place] for place in right.tolist()])


def true_boxes(truth: TruthMap) -> Tensor:
    """(S, 4) float32 tight boxes of the annotated segments."""
    return torch.tensor([mask_box(truth.ids == segment.id) for segment in truth.segments], dtype=torch.float32)


def match_boxes(found: Detections, boxes: Tensor, columns: Sequence[int]) -> npt.NDArray[np.int64]:
    """(N,) annotated segment of every found box, -1 for none: of its class, IoU at least .5, best scores first."""
    partner = np.full(len(found), -1, np.int64)
    iou = box_iou(found.boxes.float().cpu(), boxes).numpy()
    iou[found.phrases.cpu().numpy()[:, None] != np.array(columns)] = 0
    for row in range(len(found)):
        best = int(iou[row].argmax())
        if iou[row, best] >= MATCH:
            partner[row] = best
            iou[:, best] = 0
    return partner


def overlap_table(masks: MaskSet, truth: TruthMap) -> npt.NDArray[np.float64]:
    """(N, S) IoU of masks and annotated segments."""
    places = np.zeros_like(truth.ids)
    for number, segment in enumerate(truth.segments, start=1):
        places[truth.ids == segment.id] = number
    size = len(truth.segments) + 1
    shared = overlaps(masks, places, size)
    union = shared.sum(axis=1, keepdims=True) + np.bincount(places.ravel(), minlength=size) - shared
    return np.asarray(shared / np.maximum(union, 1), np.float64)[:, 1:]


def _count_proposals(world: World, kind: ProposalKind, tallies: Tallies) -> None:
    store = observations(world, kind)
    for image_id, _, truth, columns in annotated(world.pictures_of("a")):
        table = overlap_table(store.load(image_id).masks, truth)
        best = table.max(axis=0, initial=0)
        tallies.add(f"proposals of {kind}: recall at IoU .5", best > MATCH, columns)


def _count_surety(world: World, tallies: Tallies) -> None:
    """What head and CLIP say of the queries that found a segment: how often they are right, and how sure they are."""
    store = observations(world, "fcclip")
    for image_id, _, truth, columns in annotated(world.pictures_of("a")):
        observed = store.load(image_id)
        table = overlap_table(observed.masks, truth)
        found = np.flatnonzero(table.max(axis=0, initial=0) > MATCH)
        rows = torch.from_numpy(table[:, found].argmax(axis=0))
        true = [columns[place] for place in found.tolist()]
        said = observed.observation
        for name, scores in (("FC-CLIP's head", said.in_vocab), ("CLIP", said.clip)):
            assert scores is not None  # FC-CLIP has both
            sure, column = scores[rows].max(dim=1)
            tallies.add(f"{name}: found masks named right", column.numpy() == np.array(true), true)
            tallies.add(f"{name}: probability of the class it names", sure.tolist(), true)


def _count_clip(world: World, tallies: Tallies) -> None:
    """Of a picture's P classes, how many are its best P when asked whole; of its masks, how many are named right."""
    encoder = make_encoder(world.preset, "cpu")
    text = TextSimilarity(cast(TextEncoder, encoder))
    for name, pixels, masks, columns in _asked_of_clip(world):
        regions = torch.from_numpy(np.concatenate([np.ones_like(masks[:1]), masks]))
        keys = embed_regions(encoder, encoder.encode_images([pixels])[0], regions)
        scores = text.scores(keys, VOCABULARY)
        present = sorted(set(columns))
        best = scores[0].topk(len(present)).indices.tolist()
        tallies.add(f"CLIP: whole {name}", [column in best for column in present], present)
        right = scores[1:].argmax(dim=1).numpy() == np.array(columns)
        tallies.add(f"CLIP: masks of {name}", right, columns)


def _asked_of_clip(world: World) -> Iterator[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.bool_], list[int]]]:
    """Kind of picture, pixels (H, W, 3), masks (S, H, W) and their columns: what CLIP was trained on, then domain A."""
    for number in range(world.pictures):
        scene = compose_product(SPLITS["val"] + number, world.seed)
        masks = np.stack([scene.ids == place for place in range(1, len(scene.classes) + 1)])
        yield "product pictures", scene.pixels, masks, list(scene.classes)
    domains: dict[Domain, str] = {"web": "captioned scenes", "a": "scenes of domain A"}
    for domain, name in domains.items():
        for _, picture, truth, columns in annotated(world.pictures_of(domain)):
            yield name, picture.pixels, np.stack([truth.ids == segment.id for segment in truth.segments]), columns


def _count_neighbors(world: World, tallies: Tallies) -> None:
    """How often the nearest stored mask has the class of an annotated one."""
    store, dataset = observations(world, "given"), world.pictures_of("a")
    preset = replace(world.preset, retrieval=replace(NEAREST, k=1))
    names: tuple[DatabaseName, ...] = ("a", "b")
    for name in names:
        database = Database.open(world.database_path(name))
        labels = match_labels(VOCABULARY, database.classes)
        for image_id, _, _, columns in annotated(dataset):
            keys = torch.from_numpy(store.load_keys(image_id)[1])
            nearest = hits_of(find_neighbors(database, labels, keys, preset), labels, keys.device).column[:, 0]
            right = nearest.numpy() == np.array(columns)
            tallies.add(f"nearest stored mask, domain {name.upper()}: masks of scenes of domain A", right, columns)
