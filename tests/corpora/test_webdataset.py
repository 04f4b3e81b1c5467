from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retclip.core.errors import InputError
from retclip.corpora import describe, tar_members, webdataset
from retclip.corpora.tar_members import BrokenArchive, Member, read_members
from retclip.corpora.webdataset import WebdatasetCorpus


def picture(kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, kind)
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


FACTS = json.dumps(
    {"caption": "A dog.", "url": "https://a/b.jpg", "license": "CC0", "labels": ["dog", "grass"]}
).encode()
SAMPLES: dict[str, Any] = {
    "000.jpg": picture(), "000.txt": b" A  dog.\n", "000.json": FACTS,
    "001.seg.png": b"no picture of the sample", "001.webp": picture("WEBP"), "001.txt": b"A cat.",
    "inner/001.PNG": picture("PNG"), "inner/001.cls": b"1",
}  # fmt: skip
NAMES = ("cat", "dining table")


@pytest.mark.parametrize(("name", "mode"), [("00000.tar", "w"), ("00000.tar.gz", "w:gz"), ("00000.tgz", "w:gz")])
def test_samples_are_grouped_by_key_and_carry_their_bytes(tmp_path: Path, name: str, mode: str) -> None:
    path = write_tar(tmp_path / name, SAMPLES, mode)
    first, second, third = WebdatasetCorpus(tmp_path, class_names=NAMES).images()
    assert [image.image_id for image in (first, second, third)] == ["00000/000", "00000/001", "00000/inner/001"]
    assert (first.captions, first.license, first.attribution) == (("A dog.",), "CC0", "https://a/b.jpg")
    assert [(label.name, label.source) for label in first.labels] == [("dog", "table"), ("grass", "table")]
    assert (second.captions, second.path, second.data) == (("A cat.",), path, picture("WEBP"))
    assert [label.name for label in third.labels] == ["dining table"]
    assert [image.read().size for image in (first, second, third)] == [(6, 8)] * 3


def test_classes_are_those_given_or_those_found(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": picture(), "a.json": b'{"classes": "fox|bear"}', "b.cls": b"ant hill\n"})
    assert [known.raw for known in WebdatasetCorpus(tmp_path).classes] == ["ant hill", "bear", "fox"]
    assert [known.raw for known in WebdatasetCorpus(tmp_path, class_names=NAMES).classes] == list(NAMES)


def test_a_description_counts_without_decoding(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar", {"a.jpg": b"no picture", "a.json": b'{"label": "fox"}', "b.jpg": b"?", "b.txt": b"Hi."}
    )
    found = describe(WebdatasetCorpus(tmp_path))
    assert (found.images, found.labelled, found.captioned, found.images_by_class) == (2, 1, 1, {"fox": 1})


def test_numbers_need_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": picture(), "a.cls": b"7", "b.jpg": picture(), "b.cls": b"0"})
    with pytest.raises(InputError, match=r"(?s)E106 .*--class-names"):
        list(WebdatasetCorpus(tmp_path).images())
    corpus = WebdatasetCorpus(tmp_path, class_names=NAMES)
    assert [image.labels[:1] == () for image in corpus.images()] == [True, False]
    assert corpus.warnings() == ["1 samples have a class number above 1"]


@pytest.mark.parametrize(
    ("place", "split", "expected"),
    [
        ("", None, ["2.tar", "10.tar", "train-0.tar"]),
        ("", "train", ["train-0.tar"]),
        ("", "val", ["0.tar"]),
        ("val", None, ["0.tar"]),
        ("val/0.tar", None, ["0.tar"]),
        ("{2,10}.tar", None, ["2.tar", "10.tar"]),
        ("{09..10}.tar", None, ["09.tar", "10.tar"]),
        ("*.tar", None, ["09.tar", "10.tar", "2.tar", "train-0.tar"]),
        ("list.txt", None, ["10.tar", "0.tar"]),
    ],
)
def test_archives_are_found_in_a_stable_order(
    tmp_path: Path, place: str, split: str | None, expected: list[str]
) -> None:
    for name in ("2.tar", "09.tar", "10.tar", "train-0.tar", "val/0.tar"):
        write_tar(tmp_path / name, {"a.jpg": picture(), "a.txt": b"Hi."})
    (tmp_path / "list.txt").write_text("10.tar\nval/{0..0}.tar\n")
    images = WebdatasetCorpus(tmp_path / place if place else tmp_path, split).images()
    found = [image.path.name for image in images]
    assert found == (sorted(["2.tar", "09.tar", "10.tar", "train-0.tar"]) if (place, split) == ("", None) else expected)


@pytest.mark.parametrize(
    ("place", "split", "code"),
    [
        ("", "test", "E103"), ("empty", None, "E101"), ("{0..3}.tar", None, "E103"), ("*.tgz", None, "E101"),
        ("{3..1}.tar", None, "E103"), ("{0..999999999}.tar", None, "E103"), ("{0..999}{0..9999}.tar", None, "E103"),
    ],
)  # fmt: skip
def test_absent_archives_are_an_error(tmp_path: Path, place: str, split: str | None, code: str) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": picture()})
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        WebdatasetCorpus(tmp_path / place if place else tmp_path, split)
    assert caught.value.code == code


def test_the_size_is_what_the_files_beside_the_archives_state(tmp_path: Path) -> None:
    for number in range(2):
        write_tar(tmp_path / f"{number}.tar", SAMPLES)
    corpus = WebdatasetCorpus(tmp_path)
    assert corpus.size() is None
    (tmp_path / "0_stats.json").write_text('{"count": 5, "successes": 3}')
    assert corpus.size() is None
    table = pyarrow.table({"status": ["success", "failed_to_download", "success"], "url": ["a", "b", "c"]})
    pyarrow.parquet.write_table(table, tmp_path / "1.parquet")
    assert corpus.size() == 5
    (tmp_path / "0_stats.json").write_text("{")
    assert corpus.size() is None


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_that_ends_early_gives_what_is_whole(tmp_path: Path, mode: str) -> None:
    # Random bytes, so that the compressed archive is cut inside the second picture too.
    noise = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(noise, "PNG")
    members = {"a.jpg": picture(), "a.txt": b"One.", "b.png": noise.getvalue(), "b.txt": b"Two."}
    path = write_tar(tmp_path / "0.tar", members, mode)
    path.write_bytes(path.read_bytes()[:12_000])
    write_tar(tmp_path / "1.tar", {"c.jpg": picture(), "c.txt": b"Three."})
    corpus = WebdatasetCorpus(tmp_path)
    assert [image.captions for image in corpus.images()] == [("One.",), ("Three.",)]
    assert any("0.tar is cut off or damaged" in warning for warning in corpus.warnings())


def test_a_damaged_header_does_not_end_an_archive_silently(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.jpg": picture(), "a.txt": b"One.", "b.jpg": picture(), "b.txt": b"Two."})
    data = bytearray(path.read_bytes())
    place = data.index(b"b.jpg")
    data[place : place + 100] = b"\xff" * 100
    path.write_bytes(bytes(data))
    corpus = WebdatasetCorpus(tmp_path)
    assert [image.captions for image in corpus.images()] == [("One.",)]
    assert "damaged" in corpus.warnings()[0]


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b", b"\x00" * 100, b"\xff" * 2000])
def test_what_is_no_archive_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"E101 No images in the 1 archives"):
        list(WebdatasetCorpus(tmp_path).images())


def test_hostile_members_are_left_out_and_counted(tmp_path: Path) -> None:
    members = {
        "/etc/a.jpg": picture(), "../b.jpg": picture(), "x/../../c.jpg": picture(), "C:\\d.jpg": picture(),
        "e.jpg": special("e.jpg", tarfile.SYMTYPE), "f.jpg": special("f.jpg", tarfile.LNKTYPE),
        "g.jpg": special("g.jpg", tarfile.CHRTYPE), "h": special("h", tarfile.DIRTYPE),
        "ok.jpg": picture(), "ok.txt": b"Hi.",
    }  # fmt: skip
    write_tar(tmp_path / "0.tar", members)
    corpus = WebdatasetCorpus(tmp_path)
    assert [image.image_id for image in corpus.images()] == ["0/ok"]
    assert corpus.warnings() == [
        "4 members of 0.tar are left out: its path leads out of the archive",
        "3 members of 0.tar are left out: it is no regular file",
    ]


def test_members_above_the_limit_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_members, "MAX_MEMBER_BYTES", 5000)
    write_tar(tmp_path / "0.tar", {"a.jpg": b"x" * 6000, "b.jpg": picture(), "b.txt": b"Hi."})
    corpus = WebdatasetCorpus(tmp_path)
    assert [image.image_id for image in corpus.images()] == ["0/b"]
    assert "larger than 5,000 bytes" in corpus.warnings()[0]


def test_an_endless_name_is_not_read_into_memory(tmp_path: Path) -> None:
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    with gzip.open(tmp_path / "0.tar.gz", "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    with pytest.raises(BrokenArchive, match="claims"):
        list(read_members(tmp_path / "0.tar.gz", (".jpg",)))


def test_only_wanted_members_are_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.jpg": b"1", "a.TXT": b"2"})
    assert list(read_members(path, (".txt",))) == [Member("a.jpg", None), Member("a.TXT", b"2")]


@given(st.binary(max_size=3000).filter(lambda data: data[:512] != bytes(512)))
def test_arbitrary_bytes_never_do_more_than_break(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("tar") / "0.tar"
    path.write_bytes(tarfile.TarInfo("a.jpg").tobuf() + data)
    with pytest.raises(BrokenArchive):
        list(read_members(path, (".jpg",)))


def test_damaged_texts_cost_only_their_own_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "_MAX_TEXT_BYTES", 100)
    members = {"a.jpg": picture(), "a.json": b"{", "b.jpg": picture(), "b.json": b'{"labels": {"x": 1}}'}
    members |= {"c.jpg": picture(), "c.txt": b"\xff\xfe", "d.jpg": picture(), "d.txt": b"x" * 101}
    members |= {"e.txt": b"A text alone.", "f.jpg": picture(), "f.txt": b"Good.", "f.json": b"[" * 90}
    write_tar(tmp_path / "0.tar", members)
    corpus = WebdatasetCorpus(tmp_path)
    assert [image.captions for image in corpus.images()] == [(), (), (), (), ("Good.",)]
    assert sorted(corpus.warnings()) == [
        "1 samples have a .json with fields of unknown form",
        "1 samples of 0.tar have no picture or the key of another one",
        "2 samples have a .txt that is no text, or a too long one",
        "2 samples have a damaged .json",
    ]


def test_without_labels_and_captions_there_is_nothing_to_learn(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": picture(), "b.jpg": picture()})
    corpus = WebdatasetCorpus(tmp_path)
    with pytest.raises(InputError, match=r"E106 No label information: 2 images"):
        list(corpus.images())
    with pytest.raises(InputError, match="E106 A webdataset has no masks"):
        corpus.regions(next(corpus.images()), (6, 8), "masks")


def test_a_key_that_comes_again_is_left_out(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar", {"a.jpg": picture(), "a.txt": b"1", "b.jpg": picture(), "b.txt": b"2", "a.png": picture()}
    )
    assert [image.image_id for image in WebdatasetCorpus(tmp_path).images()] == ["0/a", "0/b"]
