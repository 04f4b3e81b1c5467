"""Fetching the photos of Open Images that some classes need, instead of its half terabyte.

The label and class tables must be on disk; which photos to take is read from them. Photos are asked for by several
threads, checked and put in place one by one, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import difflib
import http.client
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from retclip.core.errors import ImageError, InputError, require
from retclip.core.images import decode_picture
from retclip.core.vocabulary import normalise_name
from retclip.corpora.columns import read_columns
from retclip.corpora.openimages_ids import read_image_ids, write_image_ids
from retclip.corpora.openimages_layout import SPLITS, find_tables, missing_table
from retclip.corpora.openimages_tables import read_class_names
from retclip.corpora.rows import table_problem
from retclip.ports.corpora import CorpusClass

BASE_URL = "https://open-images-dataset.s3.amazonaws.com"
MAX_PHOTO_BYTES = 64 << 20
_SECONDS = 30.0
# With no photo fetched and so many failures to connect, the network is at fault and not a photo.
_HOPELESS = 8
_TRY_LATER = (408, 429)
_IMAGE_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class FetchRequest:
    """What to fetch.

    Attributes:
        root: folder with the tables; photos go to `<root>/<split>/<id>.jpg`.
        classes: names as the class table shows them, without regard to case.
        per_class: at most so many photos of each.
        split: `train`, `validation` or `test`.
        workers: photos asked for at a time.
        attempts: tries per photo.
        pause: seconds before the second try; each further one waits twice as long.
        base_url: `<base_url>/<split>/<id>.jpg` is the address of a photo.
    """

    root: Path
    classes: Sequence[str]
    per_class: int
    split: str = "train"
    workers: int = 8
    attempts: int = 3
    pause: float = 0.5
    base_url: str = BASE_URL

    def __post_init__(self) -> None:
        require(self.split in SPLITS, "split", f"one of {', '.join(SPLITS)}", self.split)
        require(self.per_class > 0, "per_class", "> 0", self.per_class)
        require(0 < self.workers <= 64, "workers", "in 1..64", self.workers)
        require(self.attempts > 0 and self.pause >= 0, "attempts, pause", "> 0, >= 0", (self.attempts, self.pause))
        require(self.base_url.startswith(("https://", "http://")), "base_url", "http or https", self.base_url)


@dataclass(frozen=True)
class FetchReport:
    """What came of it.

    Attributes:
        fetched: photos that came over the network.
        present: photos that were there before.
        failed: image id -> why it could not be had.
        photos_by_class: photos on disk that were taken for a class, by its name.
        image_ids: the list of all photos wanted so far, in the format of downloader.py.
    """

    fetched: int
    present: int
    failed: dict[str, str]
    photos_by_class: dict[str, int]
    image_ids: Path


def fetch_images(request: FetchRequest, observe: Callable[[int, int], None]) -> FetchReport:
    """Fetch photos that people verified to show the asked classes.

    The first photos of the label table are taken, so that the same request always means the same photos; their ids are
    added to `<root>/image-ids-<split>.txt`.

    Args:
        request: what to fetch.
        observe: called with the number of photos done and to be done, from the calling thread.

    Raises:
        InputError: E103 for a missing table (with its address), E104 for unknown classes, E122 if no photo shows them,
            E126 if the host cannot be reached at all.
    """
    tables = find_tables(request.root, request.split)
    for table in ("classes", "labels"):
        if not tables[table]:
            raise missing_table(request.root, table, request.split)
    wanted = _wanted(read_class_names(tables["classes"]).values(), request.classes)
    chosen = _choose(tables["labels"], wanted, request.per_class)
    photos = dict.fromkeys(image_id for taken in chosen.values() for image_id in taken)
    if not photos:
        raise InputError(
            "E122",
            f"No photo of split {request.split} shows {', '.join(wanted.values())}.",
            why=f"No label of them is verified as present in {', '.join(path.name for path in tables['labels'])}.",
            fix="Ask for other classes or another split.",
        )
    folder = request.root / request.split
    folder.mkdir(parents=True, exist_ok=True)
    listing = request.root / f"image-ids-{request.split}.txt"
    listed = read_image_ids(listing) if listing.is_file() else {}
    write_image_ids(listing, request.split, {*listed, *photos})
    missing = [image_id for image_id in photos if not (folder / f"{image_id}.jpg").is_file()]
    failed = _fetch_all(request, folder, missing, observe)
    # Two machine ids may share a name.
    counts = Counter(wanted[raw] for raw, taken in chosen.items() for image_id in taken if image_id not in failed)
    by_class = {name: counts[name] for name in wanted.values()}
    return FetchReport(len(missing) - len(failed), len(photos) - len(missing), failed, by_class, listing)


def _wanted(classes: Iterable[CorpusClass], asked: Sequence[str]) -> dict[str, str]:
    """Names of the asked classes by machine id; a name that several ids share takes them all."""
    known: dict[str, list[CorpusClass]] = {}
    for item in classes:
        known.setdefault(normalise_name(item.name), []).append(item)
    unknown = [name for name in asked if normalise_name(name) not in known]
    if unknown or not asked:
        near = [match for name in unknown[:3] for match in difflib.get_close_matches(normalise_name(name), known, n=2)]
        hint = f" Did you mean {', '.join(repr(known[name][0].name) for name in near)}?" if near else ""
        raise InputError(
            "E104",
            f"{len(unknown)} of {len(asked)} classes not in Open Images: {', '.join(map(repr, unknown[:5]))}.",
            why=f"The class table has {sum(map(len, known.values())):,} names.{hint}",
            fix="Write names as the class table shows them.",
        )
    return {item.raw: item.name for name in asked for item in known[normalise_name(name)]}


def _choose(paths: Sequence[Path], classes: Iterable[str], per_class: int) -> dict[str, dict[str, None]]:
    """Ids of the first photos of every class; nothing is read of the tables once every class has enough."""
    chosen: dict[str, dict[str, None]] = {name: {} for name in classes}
    columns = ("ImageID", "Source", "LabelName", "Confidence")
    for path in paths:
        for image_id, source, name, confidence in read_columns(path, columns):
            photos = chosen.get(name)
            if photos is None or len(photos) >= per_class or source == "machine" or confidence not in ("1", "1.0"):
                continue
            # Ids become addresses and file names.
            if not _IMAGE_ID.fullmatch(image_id):
                raise table_problem(path, None, f"{image_id[:40]!r} is no image id.", "Download the file again.")
            photos[image_id] = None
            if all(len(taken) >= per_class for taken in chosen.values()):
                return chosen
    return chosen


def _fetch_all(
    request: FetchRequest, folder: Path, missing: Sequence[str], observe: Callable[[int, int], None]
) -> dict[str, str]:
    """Fetch photos; returns reasons by image id of those that could not be had."""
    failed: dict[str, str] = {}
    was_reached = False
    stop = Event()
    with ThreadPoolExecutor(request.workers) as pool:
        errors = pool.map(lambda image_id: _fetch_one(request, folder, image_id, stop), missing)
        try:
            for done, (image_id, error) in enumerate(zip(missing, errors, strict=True), start=1):
                observe(done, len(missing))
                was_reached = was_reached or not _is_unreachable(error)
                if error is not None:
                    failed[image_id] = f"{type(error).__name__}: {error}".partition("\n")[0]
                if error is not None and not was_reached and done >= min(_HOPELESS, len(missing)):
                    raise _no_network(request.base_url, error)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return failed


def _fetch_one(request: FetchRequest, folder: Path, image_id: str, stop: Event) -> Exception | None:
    """Put one photo in place, or say why not. What goes wrong on this machine (a full disk) is raised instead."""
    try:
        data = _download(f"{request.base_url}/{request.split}/{image_id}.jpg", request, stop)
        decode_picture(data, f"{image_id}.jpg")
    except (OSError, http.client.HTTPException, ImageError) as error:
        return error
    part = folder / f"{image_id}.jpg.part"
    part.write_bytes(data)
    part.replace(folder / f"{image_id}.jpg")
    return None


def _download(address: str, request: FetchRequest, stop: Event) -> bytes:
    for attempt in range(1, request.attempts + 1):
        try:
            # The scheme was checked with the request.
            with urllib.request.urlopen(address, timeout=_SECONDS) as answer:  # noqa: S310
                data: bytes = answer.read(MAX_PHOTO_BYTES + 1)
            if len(data) > MAX_PHOTO_BYTES:
                raise ImageError("E113", f"{address} is too large.", why=f"The limit is {MAX_PHOTO_BYTES:,} bytes.")
            return data
        except urllib.error.HTTPError as error:
            error.close()
            is_final = error.code < 500 and error.code not in _TRY_LATER
            if is_final or attempt == request.attempts:
                raise
        except (OSError, http.client.HTTPException):
            if attempt == request.attempts:
                raise
        if stop.wait(request.pause * 2 ** (attempt - 1)):
            break
    raise InterruptedError("the run was stopped")


def _is_unreachable(error: Exception | None) -> bool:
    return isinstance(error, OSError) and not isinstance(error, urllib.error.HTTPError)


def _no_network(base_url: str, error: Exception) -> InputError:
    return InputError(
        "E126",
        f"{base_url} cannot be reached.",
        why=f"The first photos all failed, the last with {type(error).__name__}: {error}",
        fix="Connect to the network; photos that were fetched before are kept.",
    )
