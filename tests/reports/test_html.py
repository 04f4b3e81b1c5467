"""The HTML report."""

import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from retclip.core.errors import InputError
from retclip.core.panoptic import rgb_to_ids
from retclip.reports.html import ReportItem, write_html_report
from retclip.reports.html_image import EXEMPLARS, PICTURE_SIDE

HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "</style><img src=x onerror=alert(1)>",
    "a&amp;b",
    "東京",
]
VOID = {"img", "input", "meta", "link"}


class Page(HTMLParser):
    """Elements with their attributes; fails on wrong nesting."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text += data

    def all(self, name):
        return [attributes for found, attributes in self.elements if found == name]


@pytest.fixture
def write(tmp_path, samples):
    def build(items, thumbnail=samples.make_thumbnail, run=samples.RUN):
        path = tmp_path / "report.html"
        write_html_report(path, items, run, thumbnail)
        return path.read_text(encoding="utf-8")

    return build


@pytest.fixture
def make_item(samples):
    def build(words=("pier", "kayak"), shape=(40, 60), count=5, seed=0, image="photos/street.jpg"):
        result = samples.make_result(
            samples.make_blocks(*shape, count, seed), samples.make_vocabulary(list(words)), image=image, seed=seed
        )
        return ReportItem(result, samples.make_pixels(*shape))

    return build


def data_of(uri):
    return base64.b64decode(uri.split(",", 1)[1])


def test_nothing_from_outside_becomes_markup(samples, make_item, write):
    item = make_item(HOSTILE, image="<b>x</b>.jpg", count=12, shape=(90, 90))
    explained = tuple(
        dataclasses.replace(
            e,
            neighbors=tuple(
                dataclasses.replace(
                    n,
                    label=HOSTILE[2],
                    stored=samples.make_stored(i + 1, "x", license=HOSTILE[0], attribution=HOSTILE[1]),
                )
                for i, n in enumerate(e.neighbors)
            ),
            flags=(HOSTILE[0],),
        )
        for e in item.result.explanations
    )
    run = {HOSTILE[0]: HOSTILE[1], "list": [{"x": HOSTILE[2]}]}
    text = write([ReportItem(dataclasses.replace(item.result, explanations=explained), item.pixels)], run=run)
    page = Page(text)
    assert len(page.all("script")) == 1
    assert "onerror=alert" not in re.sub(r"&lt;.*?&gt;", "", text)
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert {attributes["src"].split(":")[0] for attributes in page.all("img")} == {"data"}
    assert HOSTILE[0] in page.text


def test_the_page_asks_for_nothing_and_runs_only_its_own_script(make_item, write):
    text = write([make_item(), make_item(image="b.jpg", seed=4)])
    page = Page(text)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "http:" not in text
    assert "https:" not in text
    assert page.all("link") == []
    assert all(address.startswith("url(data:image/jpeg") for address in re.findall(r"url\([^;]*", text))
    assert all(link["href"].startswith("#") for link in page.all("a"))


def test_every_picture_has_a_text_and_every_anchor_a_target(make_item, write):
    page = Page(write([make_item(), make_item(image="b.jpg")]))
    assert all("alt" in attributes for attributes in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)
    assert {label["for"] for label in page.all("label")} <= set(ids)
    assert len(page.all("h1")) == 1


def test_rows_and_number_map_agree(make_item, write):
    item = make_item(shape=(50, 70), count=8, seed=5)
    page = Page(write([item]))
    numbers = rgb_to_ids(
        np.asarray(
            Image.open(io.BytesIO(data_of(next(i["src"] for i in page.all("img") if i.get("class") == "numbers"))))
        )
    )
    rows = {int(row["data-number"]) for row in page.all("tr") if "data-number" in row}
    assert rows == set(range(1, len(item.result.explanations) + 1))
    for number, segment in enumerate(item.result.panoptic.segments, start=1):
        assert np.array_equal(numbers == number, item.result.panoptic.ids == segment.id)


def test_large_pictures_are_embedded_small(make_item, write):
    page = Page(write([make_item(shape=(40, 3000), count=2)]))
    sizes = {Image.open(io.BytesIO(data_of(i["src"]))).size for i in page.all("img")}
    assert sizes == {(PICTURE_SIDE, 14)}


def test_exemplars_are_embedded_once_and_damaged_ones_are_missing(samples, make_item, write):
    asked = []

    def thumbnail(segment_id):
        asked.append(segment_id)
        return b"\xff\xd8 not a picture" if segment_id % 2 else samples.make_thumbnail(segment_id)

    item = make_item(count=6, seed=2)
    text = write([item, item], thumbnail)
    shown = {n.stored.segment_id for e in item.result.explanations for n in e.neighbors[:EXEMPLARS]}
    assert sorted(asked) == sorted(shown)
    assert text.count("{background-image:url(") == len({i for i in shown if i % 2 == 0})
    assert "no picture" in text


def test_the_licence_of_every_shown_exemplar_is_printed(make_item, write):
    item = make_item(count=6, seed=2)
    shown = sum(len(e.neighbors[:EXEMPLARS]) for e in item.result.explanations)
    page = Page(write([item]))
    assert page.text.count("licence: CC BY 2.0 · by A. Photographer") == shown > 0


@pytest.mark.parametrize("count", [0, 1, 300])
def test_any_number_of_segments(samples, write, count):
    ids = np.zeros((60, 50), dtype=np.int32)
    ids.ravel()[: count * 10] = np.repeat(np.arange(1, count + 1), 10)
    result = samples.make_result(ids, samples.make_vocabulary(["a", "b", "c"]))
    page = Page(write([ReportItem(result, samples.make_pixels(60, 50))]))
    assert len([row for row in page.all("tr") if "data-number" in row]) == count


def test_an_empty_report_and_a_single_pixel(make_item, write):
    assert "Segmentation report" in Page(write([], run={})).text
    assert len(Page(write([make_item(shape=(1, 1), count=1)])).all("article")) == 1


def test_the_same_items_give_the_same_bytes(make_item, write):
    assert write([make_item(), make_item(seed=3)]) == write([make_item(), make_item(seed=3)])


def test_histogram_counts_every_score(make_item, write):
    item = make_item(count=9, seed=1, shape=(90, 90))
    text = write([item])
    counts = [int(n) for n in re.findall(r"<title>\d\.\d\d to \d\.\d\d: (\d+)</title>", text)]
    assert len(counts) == 20
    assert sum(counts) == len(item.result.explanations)


def test_a_lone_surrogate_in_a_file_name_does_not_stop_the_report(make_item, write):
    assert "bad" in write([make_item(image="bad\udcff.jpg")])


def test_a_failing_source_of_items_leaves_nothing(tmp_path, samples, make_item):
    def items():
        yield make_item()
        raise RuntimeError("camera unplugged")

    with pytest.raises(RuntimeError, match="unplugged"):
        write_html_report(tmp_path / "report.html", items(), {}, samples.make_thumbnail)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="E131"):
        write_html_report(tmp_path / "no" / "report.html", [], {}, samples.make_thumbnail)
