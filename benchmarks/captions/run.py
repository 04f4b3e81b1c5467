"""How well and how fast labels are mined from captions, on real COCO captions with real annotations as truth.

    python benchmarks/captions/run.py --root $RETCLIP_TEST_DATA/tiny_coco/tiny_coco --json captions.json

Agreement: a class is mined for a photo if one of its captions names it, and true if an instance of it is annotated.
Speed: the same captions many times, one thread, beside the usual way of one regular expression over all names.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retclip.core.vocabulary import Vocabulary
from retclip.corpora.caption_miner import CaptionMiner
from retclip.corpora.coco_instances import CocoInstances
from retclip.corpora.mined import MinedCorpus
from retclip.ports.corpora import CorpusImage
from retclip.vocabularies import load_vocabulary

ROUNDS = 5
REPEATS = 40
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)


def things(corpus: CocoInstances) -> Vocabulary:
    """The annotated classes with the synonyms of the panoptic list."""
    names = {known.raw for known in corpus.classes}
    return Vocabulary("coco80", tuple(c for c in load_vocabulary("@coco133") if c.is_thing and c.name in names))


def by_names(vocabulary: Vocabulary) -> Callable[[str], list[str]]:
    """The usual way: every name as it stands, longest first, no plurals, phrases, negations or depictions."""
    owners = {name.lower(): category.name for category in vocabulary for name in category.names}
    pattern = re.compile(r"\b(" + "|".join(sorted(map(re.escape, owners), key=len, reverse=True)) + r")\b")
    return lambda caption: [owners[found] for found in pattern.findall(caption.lower())]


def by_miner(vocabulary: Vocabulary) -> Callable[[str], list[str]]:
    """Ours, names of classes only."""
    miner = CaptionMiner(vocabulary)
    return lambda caption: [mention.name for mention in miner.mine(caption)]


def agreement(images: list[CorpusImage], find: Callable[[str], list[str]], share: float) -> dict[str, float]:
    """Precision and recall over pairs of photo and class; a class needs this share of a photo's captions."""
    right = mined = annotated = 0
    for image in images:
        truth = {label.name for label in image.labels}
        counts = Counter(name for caption in image.captions for name in set(find(caption)))
        found = {name for name, count in counts.items() if count >= share * len(image.captions) - 1e-9}
        right, mined, annotated = right + len(found & truth), mined + len(found), annotated + len(truth)
    return {"mined": mined, "precision": right / mined, "recall": right / annotated, "annotated": annotated}


def disagreements(images: list[CorpusImage], vocabulary: Vocabulary, most: int = 8) -> dict[str, dict[str, int]]:
    """Classes that captions name and nobody annotated, with the words; and annotated ones that no caption names."""
    miner = CaptionMiner(vocabulary)
    extra: Counter[str] = Counter()
    unnamed: Counter[str] = Counter()
    for image in images:
        mentions = [mention for caption in image.captions for mention in miner.mine(caption)]
        truth = {label.name for label in image.labels}
        extra.update({f"{m.surface.lower()} -> {m.name}" for m in mentions if m.name not in truth})
        unnamed.update(truth - {mention.name for mention in mentions})
    return {
        "named, not annotated": dict(extra.most_common(most)),
        "annotated, not named": dict(unnamed.most_common(most)),
    }


def per_second(captions: list[str], find: Callable[[str], list[str]]) -> float:
    """Captions a second of processor time, the best of some rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        start = time.process_time()
        for caption in captions:
            find(caption)
        best = max(best, len(captions) / (time.process_time() - start))
    return best


def main() -> None:
    """Print the tables and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    corpora = [CocoInstances(arguments.root, split) for split in ("train", "val")]
    images = [image for corpus in corpora for image in corpus.images()]
    captions = [caption for image in images for caption in image.captions]
    vocabulary = things(corpora[0])
    # The corpus that a build would read must say the same as the sums below.
    mined = {label.name for image in MinedCorpus(corpora[1], vocabulary).images() for label in image.labels}
    assert mined <= set(vocabulary.names)

    single = Vocabulary.from_names("coco80, first names", vocabulary.names)
    methods = (
        ("retclip", by_miner(vocabulary), SHARES),
        ("names as they stand", by_names(vocabulary), SHARES[:1]),
        ("retclip, no synonyms", by_miner(single), SHARES[:1]),
        ("names as they stand, no synonyms", by_names(single), SHARES[:1]),
    )
    print(f"{len(images)} photos, {len(captions)} captions, {len(vocabulary)} classes")
    print("| needs this share of the captions | precision | recall | mined |\n|---|---|---|---|")
    tables: list[dict[str, Any]] = []
    for name, find, shares in methods:
        for share in shares:
            row = {"method": name, "share": share, **agreement(images, find, share)}
            tables.append(row)
            print(f"| {name}, {share:.0%} | {row['precision']:.3f} | {row['recall']:.3f} | {row['mined']} |")
    speeds = {}
    print("| class list | retclip, captions a second | one regular expression |\n|---|---|---|")
    for name in ("@ade150", "@coco133", "@lvis1203"):
        many = captions * REPEATS
        listed = load_vocabulary(name)
        speeds[name] = {"retclip": per_second(many, by_miner(listed)), "regex": per_second(many, by_names(listed))}
        print(f"| {name} | {speeds[name]['retclip']:,.0f} | {speeds[name]['regex']:,.0f} |")
    words = disagreements(images, vocabulary)
    print(json.dumps(words, indent=1))
    if arguments.json:
        machine = {"python": platform.python_version(), "processor": platform.machine()}
        content = {"machine": machine, "agreement": tables, "captions a second": speeds, "disagreements": words}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
