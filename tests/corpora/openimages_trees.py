"""Small trees of Open Images in the layouts that are found on disks: two classes of things, one of stuff."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

DOG, CAR, TREE = "/m/0bt9lr", "/m/0k4j", "/m/07j7r"
FIRST, SECOND, THIRD = "000060e3121c7305", "000a1249af2bc5f0", "677c122b0eaa5d16"
SIZE = (6, 8)

CLASSES = f'{DOG},"Dog, ""hot"""\n{CAR},Car\n{TREE},Tree\n'
LABELS = f"""ImageID,Source,LabelName,Confidence
{FIRST},verification,{DOG},1
{FIRST},crowdsource-verification,{CAR},0
{SECOND},verification,{TREE},1
{SECOND},machine,{DOG},0.6
{SECOND},machine,{TREE},0.9
ffffffffffffffff,verification,{DOG},1
"""
MACHINE = f"""ImageID,Source,LabelName,Confidence
{FIRST},machine,{DOG},0.3
{FIRST},machine,{TREE},0.8
{FIRST},machine,{CAR},0.9
"""
BOX_COLUMNS = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
CLICKS = ",".join(f"XClick{n}{axis}" for axis in "XY" for n in range(1, 5))
BOXES = f"""{BOX_COLUMNS},{CLICKS}
{FIRST},xclick,{DOG},1,0.25,0.5,0.5,1.0,-1,0,-1,0,0{",0.1" * 8}
{FIRST},activemil,{CAR},1,0,1,0,1,0,0,0,1,0{",0.1" * 8}
{SECOND},freeform,{TREE},1,0,1,0,0.5,0,0,1,0,0{",0.1" * 8}
{SECOND},xclick,{DOG},1,0,1,0,1,0,0,1,0,0{",0.1" * 8}
"""
MASK_NAME = f"{FIRST}_m0bt9lr_9a041d52.png"
MASKS = f"""MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks
{MASK_NAME},{FIRST},{DOG},9a041d52,0.1,0.5,0.1,0.5,0.9,0.1 0.2 1;0.3 0.4 0
"""
INFO_COLUMNS = (
    "ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,Author,Title,OriginalSize,OriginalMD5,"
    "Thumbnail300KURL,Rotation"
)
LICENSE = "https://creativecommons.org/licenses/by/2.0/"
INFO = f"""{INFO_COLUMNS}
{FIRST},train,https://a/b.jpg,https://a,{LICENSE},https://p,Ann,"A ""big"", dog",10,md5==,,0.0
"""


def save_photos(folder: Path, *ids: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image_id in ids:
        Image.new("RGB", SIZE[::-1]).save(folder / f"{image_id}.jpg")


def mask_png(mode: str = "1") -> bytes:
    """A mask of half the size of the photos whose left half is set; in mode L a grey of 122 is outside."""
    values = np.zeros((3, 4), np.uint8)
    values[:, :2] = 255
    image = Image.fromarray(values)
    if mode == "L":
        values[:, 2:] = 122
        values[:, :2] = 123
        image = Image.fromarray(values)
    file = io.BytesIO()
    image.convert(mode).save(file, "PNG")
    return file.getvalue()


def save_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def published(root: Path) -> Path:
    """V7 labels with a header in the class table, V6 boxes with clicks, zipped masks."""
    save_photos(root / "train", FIRST, SECOND)
    save_text(root / "oidv7-class-descriptions.csv", f"LabelName,DisplayName\n{CLASSES}")
    save_text(root / "v7" / "oidv7-train-annotations-human-imagelabels.csv", LABELS)
    save_text(root / "v5" / "train-annotations-machine-imagelabels.csv", MACHINE)
    save_text(root / "v6" / "oidv6-train-annotations-bbox.csv", BOXES)
    save_text(root / "v5" / "train-annotations-object-segmentation.csv", MASKS)
    save_text(root / "2018_04" / "train" / "train-images-boxable-with-rotation.csv", INFO)
    (root / "v5" / "train-masks").mkdir()
    with zipfile.ZipFile(root / "v5" / "train-masks" / "train-masks-0.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MASK_NAME, mask_png())
    return root


def fiftyone(root: Path) -> Path:
    """FiftyOne's export: V5 class table without header, loose masks in folders of one digit."""
    split = root / "train"
    save_photos(split / "data", FIRST, SECOND)
    save_text(split / "metadata" / "classes.csv", CLASSES)
    save_text(split / "metadata" / "image_ids.csv", INFO)
    save_text(split / "labels" / "classifications.csv", LABELS)
    save_text(split / "labels" / "detections.csv", BOXES)
    save_text(split / "labels" / "segmentations.csv", MASKS)
    (split / "labels" / "masks" / "0").mkdir(parents=True)
    (split / "labels" / "masks" / "0" / MASK_NAME).write_bytes(mask_png("L"))
    return root


def datumaro(root: Path) -> Path:
    """Datumaro's and CVAT's export."""
    save_photos(root / "images" / "train", FIRST, SECOND)
    save_text(root / "annotations" / "class-descriptions.csv", CLASSES)
    save_text(root / "annotations" / "images.meta", f"{FIRST} 6 8\n")
    save_text(root / "annotations" / "train-image_ids_and_rotation.csv", INFO)
    save_text(root / "annotations" / "train-annotations-human-imagelabels.csv", LABELS)
    save_text(root / "annotations" / "train-annotations-bbox.csv", BOXES)
    save_text(root / "annotations" / "train-annotations-object-segmentation.csv", MASKS)
    (root / "masks" / "train").mkdir(parents=True)
    (root / "masks" / "train" / MASK_NAME).write_bytes(mask_png("RGB"))
    return root


def flat(root: Path) -> Path:
    """What downloader.py leaves: photos without split beside the tables, V5 names."""
    save_photos(root, FIRST, SECOND)
    save_text(root / "class-descriptions-boxable.csv", CLASSES)
    save_text(root / "train-annotations-human-imagelabels-boxable.csv", LABELS)
    save_text(root / "train-annotations-bbox.csv", BOXES)
    save_text(root / "train-annotations-object-segmentation.csv", MASKS)
    save_text(root / "train-images-with-rotation.csv", INFO)
    (root / "train-masks").mkdir()
    (root / "train-masks" / MASK_NAME).write_bytes(mask_png())
    return root
