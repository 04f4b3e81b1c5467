"""What the README shows is run: every `$ retclip ...` line, in order, on the real photos."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retclip.cli.main import main
from retclip.core.images import read_picture
from retclip.corpora import open_corpus

ROOT = Path(__file__).resolve().parents[2]


def shown_commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ retclip")]


def write_crops(photos: Path, name: str, folder: Path) -> None:
    """Photos of one class: the regions of it in the train photos."""
    folder.mkdir()
    corpus = open_corpus("coco", photos, "train")
    for image in corpus.images():
        if name not in {label.name for label in image.labels}:
            continue
        picture = read_picture(image.path)
        for number, region in enumerate(corpus.regions(image, picture.size, "masks")):
            if region.label == name:
                x0, y0, x1, y1 = (int(value) for value in region.box)
                Image.fromarray(np.ascontiguousarray(picture.pixels[y0:y1, x0:x1])).save(
                    folder / f"{image.image_id}-{number}.png"
                )


@pytest.mark.photos
def test_every_command_of_the_readme_works(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_crops(photos, "tennis racket", tmp_path / "rackets")
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(photos.parent / "weights"))
    monkeypatch.chdir(tmp_path)
    commands = shown_commands()
    assert len(commands) >= 8
    for command in commands:
        text = command.replace("$PHOTOS", str(photos)).replace("$RACKETS", str(tmp_path / "rackets"))
        text = text.replace("benchmarks/", f"{ROOT}/benchmarks/")
        words = shlex.split(text)[1:]
        assert main(words) == 0, f"{command}\n{capsys.readouterr().err}"
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
