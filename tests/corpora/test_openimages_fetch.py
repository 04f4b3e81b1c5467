from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from retclip.core.errors import InputError
from retclip.corpora import openimages_fetch
from retclip.corpora.openimages import OpenImagesCorpus
from retclip.corpora.openimages_fetch import FetchRequest, fetch_images
from retclip.corpora.openimages_ids import read_image_ids
from tests.corpora.openimages_trees import CAR, CLASSES, DOG, TREE, save_text

IDS = [f"{number:016x}" for number in range(1, 9)]


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((32, 32), 60).save(file, "JPEG")
    return file.getvalue()


class Bucket:
    """A server on this machine; `answers` says what it does for single photos."""

    def __init__(self) -> None:
        self.answers: dict[str, list[int | bytes]] = {}
        self.asked: Counter[str] = Counter()
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                bucket.asked[self.path] += 1
                planned = bucket.answers.get(self.path.rpartition("/")[2].removesuffix(".jpg"), [])
                answer = planned.pop(0) if len(planned) > 1 else planned[0] if planned else jpeg()
                if isinstance(answer, int):
                    self.send_error(answer)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *words: object) -> None:
                """The test reads what it needs from `asked`."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    bucket = Bucket()
    thread = threading.Thread(target=bucket.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield bucket
    bucket.server.shutdown()
    thread.join()
    bucket.server.server_close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = [f"{IDS[0]},verification,{CAR},0", f"{IDS[1]},machine,{CAR},0.9", f"{IDS[2]},verification,{CAR},1"]
    rows += [f"{image_id},verification,{DOG},1" for image_id in IDS[2:]]
    rows += [f"{IDS[3]},crowdsource-verification,{CAR},1.0", f"{IDS[2]},crowdsource-verification,{CAR},1"]
    header = "ImageID,Source,LabelName,Confidence"
    save_text(tmp_path / "oidv7-train-annotations-human-imagelabels.csv", "\n".join([header, *rows]) + "\n")
    save_text(tmp_path / "class-descriptions-boxable.csv", CLASSES.replace('"Dog, ""hot"""', "Dog"))
    return tmp_path


def request(root: Path, bucket: Bucket, *classes: str, per_class: int = 3, **changes: object) -> FetchRequest:
    return FetchRequest(root, classes or ("dog", "CAR"), per_class, pause=0.0, base_url=bucket.url, **changes)  # type: ignore[arg-type]


def fetched(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "train").iterdir())


def test_the_first_verified_photos_of_every_class_are_fetched(root: Path, bucket: Bucket) -> None:
    seen: list[tuple[int, int]] = []
    report = fetch_images(request(root, bucket), lambda done, total: seen.append((done, total)))
    assert fetched(root) == [f"{image_id}.jpg" for image_id in IDS[2:5]]
    assert (report.fetched, report.present, report.failed) == (3, 0, {})
    assert report.photos_by_class == {"Dog": 3, "Car": 2}
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert report.image_ids.read_text() == "".join(f"train/{image_id}\n" for image_id in IDS[2:5])
    assert OpenImagesCorpus(root, image_ids=report.image_ids).size() == 3


def test_a_second_run_fetches_only_what_is_missing_and_lists_both(root: Path, bucket: Bucket) -> None:
    fetch_images(request(root, bucket, "Car", per_class=1), lambda done, total: None)
    (root / "train" / f"{IDS[3]}.jpg.part").write_bytes(b"cut")
    report = fetch_images(request(root, bucket, "Dog", per_class=2), lambda done, total: None)
    assert (report.fetched, report.present) == (1, 1)
    assert bucket.asked == {f"/train/{IDS[2]}.jpg": 1, f"/train/{IDS[3]}.jpg": 1}
    assert fetched(root) == [f"{image_id}.jpg" for image_id in IDS[2:4]]
    assert list(read_image_ids(report.image_ids)) == IDS[2:4]


def test_failures_are_listed_and_leave_no_file(root: Path, bucket: Bucket) -> None:
    bucket.answers = {IDS[2]: [404], IDS[3]: [jpeg()[:-20]], IDS[4]: [b"<html>"]}
    report = fetch_images(request(root, bucket, "Dog", per_class=6), lambda done, total: None)
    assert set(report.failed) == set(IDS[2:5])
    assert "404" in report.failed[IDS[2]]
    assert "E114" in report.failed[IDS[3]]
    assert fetched(root) == [f"{image_id}.jpg" for image_id in IDS[5:]]
    assert report.photos_by_class == {"Dog": 3}
    assert bucket.asked[f"/train/{IDS[2]}.jpg"] == 1


def test_passing_trouble_is_tried_again(root: Path, bucket: Bucket) -> None:
    bucket.answers = {IDS[2]: [503, 429, jpeg()], IDS[3]: [500]}
    report = fetch_images(request(root, bucket, "Dog", per_class=2), lambda done, total: None)
    assert list(report.failed) == [IDS[3]]
    assert bucket.asked == {f"/train/{IDS[2]}.jpg": 3, f"/train/{IDS[3]}.jpg": 3}


def test_photos_above_the_limit_are_not_kept(root: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openimages_fetch, "MAX_PHOTO_BYTES", 100)
    report = fetch_images(request(root, bucket, "Dog", per_class=1), lambda done, total: None)
    assert "E113" in report.failed[IDS[2]]
    assert fetched(root) == []


def test_without_network_the_run_stops_early(root: Path, bucket: Bucket) -> None:
    closed = request(root, bucket, "Dog", per_class=6, workers=2)
    bucket.server.socket.close()
    with pytest.raises(InputError, match=r"E126 .*cannot be reached"):
        fetch_images(closed, lambda done, total: None)
    assert fetched(root) == []


def test_a_full_disk_is_no_failed_photo(root: Path, bucket: Bucket) -> None:
    (root / "train" / f"{IDS[2]}.jpg.part").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        fetch_images(request(root, bucket, "Dog", per_class=1), lambda done, total: None)


def test_unknown_classes_get_suggestions(root: Path, bucket: Bucket) -> None:
    with pytest.raises(InputError, match=r"(?s)E104 1 of 2 classes not in Open Images: 'tre'.*'Tree'"):
        fetch_images(request(root, bucket, "Dog", "tre"), lambda done, total: None)
    with pytest.raises(InputError, match="E122 No photo of split train shows Tree"):
        fetch_images(request(root, bucket, "tree"), lambda done, total: None)
    assert TREE not in bucket.asked


def test_missing_tables_are_named_with_their_address(root: Path, bucket: Bucket) -> None:
    with pytest.raises(InputError, match=r"E103 .*\n.*\n.*v7/oidv7-val-annotations-human-imagelabels\.csv"):
        fetch_images(request(root, bucket, split="validation"), lambda done, total: None)
    (root / "class-descriptions-boxable.csv").unlink()
    with pytest.raises(InputError, match=r"E103 .*\n.*\n.*v7/oidv7-class-descriptions\.csv"):
        fetch_images(request(root, bucket), lambda done, total: None)


@pytest.mark.parametrize("image_id", ["../../../etc/passwd", "0" * 15, "0" * 15 + "/"])
def test_ids_that_are_no_ids_never_become_addresses(root: Path, bucket: Bucket, image_id: str) -> None:
    table = root / "oidv7-train-annotations-human-imagelabels.csv"
    save_text(table, table.read_text().replace(IDS[2], image_id))
    with pytest.raises(InputError, match="E105"):
        fetch_images(request(root, bucket), lambda done, total: None)
    assert not bucket.asked


@pytest.mark.parametrize(
    "changes",
    [{"split": "../x"}, {"per_class": 0}, {"workers": 0}, {"workers": 1000}, {"attempts": 0}, {"base_url": "file:///"}],
)
def test_requests_are_checked(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        FetchRequest(**{"root": tmp_path, "classes": ("dog",), "per_class": 1, **changes})  # type: ignore[arg-type]
