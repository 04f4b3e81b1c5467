"""Segmentation from pixels alone: the weight-free region hierarchy proposes, the database labels.

    python benchmarks/photo/pixels.py --root <coco panoptic photos> --out out/photo

Writes every output of every val photo, prints the time per photo by part, and panoptic quality on all 133 classes.
The hierarchy knows no objects, so PQ is modest; `--proposals given` shows the same labels on ground-truth masks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from common import arguments, build_database, prepare, save, temporary_database_folder

from retclip.adapters.region_hierarchy import RegionHierarchy
from retclip.core.images import read_annotation, read_picture
from retclip.core.panoptic import rgb_to_ids
from retclip.core.results import SegmentationResult
from retclip.corpora import open_corpus
from retclip.evaluation.panoptic_quality import MapSegment, PanopticQuality
from retclip.query.given_masks import GivenMasks
from retclip.query.pipeline import Models, RetrievalSegmenter
from retclip.reports.html import ReportItem, write_html_report
from retclip.reports.outputs import FORMATS, BatchWriter, write_outputs
from retclip.vocabularies import load_vocabulary


def truth_of(annotations: Path, split: str) -> dict[str, tuple[Path, list[MapSegment]]]:
    """Photo stem -> its label image and segments."""
    import json

    document = json.loads((annotations / f"panoptic_{split}.json").read_text())
    return {
        Path(item["file_name"]).stem: (
            annotations / f"panoptic_{split}" / item["file_name"],
            [MapSegment(s["id"], s["category_id"], bool(s["iscrowd"])) for s in item["segments_info"]],
        )
        for item in document["annotations"]
    }


def count(quality: PanopticQuality, result: SegmentationResult, truth: tuple[Path, list[MapSegment]]) -> None:
    """Add one photo to the metric."""
    segments = [MapSegment(s.id, s.category_id) for s in result.panoptic.segments]
    quality.add(rgb_to_ids(read_annotation(truth[0])), truth[1], result.panoptic.ids, segments, result.image)


def main() -> None:
    """Segment, write, time, score."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--out", type=Path, default=Path("out/photo"))
    parser.add_argument("--proposals", choices=("regions", "given"), default="regions")
    args = parser.parse_args()
    preset, encoder = prepare(args)
    database = build_database(args.root, args.train, preset, encoder, temporary_database_folder())
    corpus = open_corpus("coco", args.root, args.val)
    images = list(corpus.images())
    annotations = args.root / "annotations"
    truth = truth_of(annotations, images[0].split)
    kind: Literal["regions", "given"] = args.proposals
    proposer = (
        RegionHierarchy(preset.proposals)
        if kind == "regions"
        else GivenMasks(annotations / f"panoptic_{images[0].split}")
    )
    settings = preset if kind == "regions" else preset.with_proposals("given")
    segmenter = RetrievalSegmenter(Models(encoder, proposer), database, load_vocabulary("@coco133"), settings)
    quality, segmenting, writing, unlabelled = PanopticQuality(segmenter.vocabulary), [], [], []

    def walk() -> Iterator[ReportItem]:
        with BatchWriter(args.out) as batch:
            for image in images:
                picture = read_picture(image.path)
                began = time.perf_counter()
                result = segmenter.segment([picture])[0]
                segmented = time.perf_counter()
                write_outputs(
                    result,
                    picture.pixels,
                    args.out / image.path.stem,
                    [f for f in FORMATS if f != "html"],
                    database.thumbnail,
                )
                batch.add(result)
                segmenting.append(segmented - began)
                writing.append(time.perf_counter() - segmented)
                unlabelled.append(float((result.panoptic.ids == 0).mean()))
                count(quality, result, truth[image.path.stem])
                yield ReportItem(result, picture.pixels)

    args.out.mkdir(parents=True, exist_ok=True)
    write_html_report(args.out / "report.html", walk(), segmenter.run, database.thumbnail)
    figures = quality.result()
    print(
        f"{len(images)} photos from {kind}: median {statistics.median(segmenting):.2f} s to segment, "
        f"{statistics.median(writing):.2f} s to write every format; {statistics.mean(unlabelled):.1%} unlabelled"
    )
    for name, value in (("all", figures.all), ("things", figures.things), ("stuff", figures.stuff)):
        pq, sq, rq = 100 * value.pq, 100 * value.sq, 100 * value.rq
        print(f"{name:7} PQ {pq:5.2f}  SQ {sq:5.2f}  RQ {rq:5.2f}  ({value.n} classes)")
    print(f"report: {args.out / 'report.html'}")
    quality_figures = {"pq": figures.all.pq, "pq_things": figures.things.pq, "pq_stuff": figures.stuff.pq}
    times = {"segmenting": statistics.median(segmenting), "writing": statistics.median(writing)}
    save(args.json, {"proposals": kind, "seconds": times, "unlabelled": statistics.mean(unlabelled), **quality_figures})


if __name__ == "__main__":
    main()
