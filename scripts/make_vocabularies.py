"""Write the class lists in retclip/vocabularies from public class tables.

Run: python scripts/make_vocabularies.py --data DIR [--out retclip/vocabularies]

DIR holds text/fcclip_class_names/*.txt (names and synonyms, bytedance/fc-clip, Apache-2.0),
panoptic_sample/panoptic_coco_categories.json (cocodataset/panopticapi, BSD-2-Clause) and
ade20k_sample/objectInfo150.txt (CSAILVision/sceneparsing, BSD-3-Clause). Lists whose things and stuff these files do
not tell apart are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from retclip.core.vocabulary import Category, normalise_name
from retclip.corpora.ade20k import read_object_info
from retclip.corpora.coco import map_classes

NAMES_SOURCE = "Names and synonyms: FC-CLIP (bytedance/fc-clip), Apache-2.0."
# Cityscapes evaluates instances of its `human` and `vehicle` groups only: the last eight of 19 classes.
CITYSCAPES_FIRST_THING = 11


def main() -> None:
    """Read the tables and write one file per list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "retclip" / "vocabularies")
    arguments = parser.parse_args()
    for name, (title, categories) in build_lists(arguments.data).items():
        path = arguments.out / f"{name}.txt"
        path.write_text(format_list(title, categories), encoding="utf-8")
        print(f"{path}: {len(categories)} classes, {sum(c.is_thing for c in categories)} things")


def build_lists(data: Path) -> dict[str, tuple[list[str], list[Category]]]:
    """Header lines and categories of every list, by name."""
    names = {path.stem.removesuffix("_with_prompt_eng"): read_names(path) for path in name_files(data)}
    cityscapes = [Category(n, texts, n >= CITYSCAPES_FIRST_THING) for n, texts in names["cityscapes"].items()]
    lvis = [Category(n, texts) for n, texts in names["lvis_1203"].items()]
    voc = [Category(n, texts) for n, texts in names["pascal_voc_21"].items() if n > 0]
    return {
        "ade150": (
            ["ADE20K scene parsing, 150 classes, ids 0..149 as in panoptic evaluation.", NAMES_SOURCE,
             "First names: objectInfo150.txt (CSAILVision/sceneparsing), BSD-3-Clause."],
            build_ade(data / "ade20k_sample" / "objectInfo150.txt", names["ade20k_150"]),
        ),
        "coco133": (
            ["COCO panoptic, 133 classes, official ids 1..200.", NAMES_SOURCE,
             "First names and ids: cocodataset/panopticapi, BSD-2-Clause."],
            build_coco(data / "panoptic_sample" / "panoptic_coco_categories.json", names["coco_panoptic"]),
        ),
        "cityscapes19": (["Cityscapes, 19 evaluated classes, train ids.", NAMES_SOURCE], cityscapes),
        "lvis1203": (["LVIS v1, 1,203 classes, official ids, all things.", NAMES_SOURCE], lvis),
        "voc20": (["PASCAL VOC, 20 object classes without background, ids 1..20.", NAMES_SOURCE], voc),
    }  # fmt: skip


def name_files(data: Path) -> Iterable[Path]:
    """FC-CLIP's class-name files."""
    return sorted((data / "text" / "fcclip_class_names").glob("*_with_prompt_eng.txt"))


def read_names(path: Path) -> dict[int, tuple[str, ...]]:
    """Lines `id:name,synonym,...` -> names by id; ids without a class are left out."""
    names = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        number, _, text = line.partition(":")
        if text and text != "invalid_class_id":
            names[int(number)] = unique(text.split(","))
    return names


def build_ade(table: Path, synonyms: dict[int, tuple[str, ...]]) -> list[Category]:
    """ADE20K's own names first, then FC-CLIP's; ids count from 0."""
    return [
        Category(index - 1, unique([entry.name, *synonyms[index], *entry.aliases]), entry.is_thing)
        for index, entry in read_object_info(table).items()
    ]


def build_coco(table: Path, synonyms: dict[int, tuple[str, ...]]) -> list[Category]:
    """Name without suffix, official name, then FC-CLIP's synonyms."""
    categories = json.loads(table.read_text(encoding="utf-8"))
    mapped = map_classes((c["id"], c["name"], bool(c["isthing"])) for c in categories)
    return [Category(n, unique([c.name, c.raw, *synonyms[n]]), c.is_thing) for n, c in mapped.items()]


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Stripped names in order, without empty ones and those that differ only in case or blanks."""
    chosen: dict[str, str] = {}
    for name in names:
        if name.strip():
            chosen.setdefault(normalise_name(name), name.strip())
    return tuple(chosen.values())


def format_list(header: Iterable[str], categories: Iterable[Category]) -> str:
    """Text of a list: `id<TAB>thing|stuff<TAB>name, synonym, ...`."""
    lines = [f"# {line}" for line in [*header, "Written by scripts/make_vocabularies.py."]]
    lines += [f"{c.id}\t{'thing' if c.is_thing else 'stuff'}\t{', '.join(c.names)}" for c in categories]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
