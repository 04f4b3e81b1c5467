"""`retclip train fcclip`, and the whole way from two photos to a segmentation that says why."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

import pytest
import torch

from retclip.cli.main import main
from tests.cli.conftest import Run

PRESET = """
[encoder]
library = "fcclip"
model = "tiny"
weights = "run/model.safetensors"
short_side = 96
long_side = 160

[index]
batch = 2
thumbnails = 32

[proposals]
kind = "fcclip"
training_classes = "classes.txt"

[fusion]
gamma = 0.3
void = "corrected"  # a few steps teach a head to see nothing anywhere; retrieval may object

[merge]
overlap_threshold = 0.0
"""


def write_subset(photos: Path, folder: Path, count: int) -> Path:
    """The first photos of a COCO panoptic set, as a set of their own."""
    table = json.loads((photos / "annotations" / "panoptic_train2017.json").read_text())
    chosen = table["annotations"][:count]
    ids = {entry["image_id"] for entry in chosen}
    images = [image for image in table["images"] if image["id"] in ids]
    (folder / "annotations" / "panoptic_train2017").mkdir(parents=True)
    (folder / "train2017").mkdir()
    for entry in chosen:
        name = f"annotations/panoptic_train2017/{entry['file_name']}"
        (folder / name).write_bytes((photos / name).read_bytes())
    for image in images:
        name = f"train2017/{image['file_name']}"
        (folder / name).write_bytes((photos / name).read_bytes())
    text = json.dumps({**table, "annotations": chosen, "images": images})
    (folder / "annotations" / "panoptic_train2017.json").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On tensors this small, threads spend their time waiting for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def root(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RETCLIP_MODELS_DIR", raising=False)
    folder = write_subset(photos, tmp_path / "coco", 2)
    write_class_list(folder, tmp_path / "classes.txt")
    return folder


def write_class_list(root: Path, path: Path) -> None:
    """The lines of @coco133 that a set needs: fewer names to encode."""
    table = json.loads((root / "annotations" / "panoptic_train2017.json").read_text())
    wanted = {segment["category_id"] for entry in table["annotations"] for segment in entry["segments_info"]}
    lines = resources.files("retclip.vocabularies").joinpath("coco133.txt").read_text(encoding="utf-8").splitlines()
    chosen = [line for line in lines if not line.startswith("#") and int(line.partition("\t")[0]) in wanted]
    path.write_text("\n".join(chosen))


def words(root: Path, steps: int, *more: object) -> list[object]:
    fixed = ["--root", root, "--out", "run", "--variant", "tiny", "--device", "cpu", "--no-amp", "--processes", 0]
    small = ["--batch-size", 2, "--size", 96, "--points", 128, "--classes", "classes.txt"]
    return ["train", "fcclip", *fixed, *small, "--iterations", steps, *more]


@pytest.mark.photos
def test_two_photos_train_a_network_that_builds_and_segments(root: Path, tmp_path: Path, run: Run) -> None:
    """One checkpoint, three experts: the database, the frozen CLIP and the trained head all speak in the result."""
    trained = run(*words(root, 30, "--learning-rate", 1e-3, "--log-every", 10, "--json"))
    assert trained.code == 0, trained.err
    assert trained.json["iterations"] == 30
    assert trained.json["resumed_from"] == 0
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 3
    (tmp_path / "tiny.toml").write_text(PRESET)
    built = run("index", "build", "--source", "coco", "--root", root, "--split", "train", "--use-masks",
                "--db", "two", "--preset", "tiny.toml", "--device", "cpu", "--json")  # fmt: skip
    assert built.code == 0, built.err
    assert built.json["added"] > 5
    found = run("db", "search", "two", "--text", "tree", "-k", 3, "--device", "cpu", "--json")
    assert len(found.json) == 3, found.err
    photo = sorted((root / "train2017").iterdir())[0]
    done = run("segment", photo, "--db", "two", "--classes", "classes.txt", "--formats", "segments", "--device", "cpu")
    assert done.code == 0, done.err
    assert "asked classes were seen in training" in done.err
    document = json.loads((tmp_path / "out" / photo.stem / "segments.json").read_text())
    assert document["segments"]
    for segment in document["segments"]:
        assert set(segment["scores"]) == {"retrieval", "clip", "in_vocab"}
        assert None not in segment["scores"].values()
    shares = [segment["shares"] for segment in document["segments"]]
    for expert in ("retrieval", "clip", "in_vocab"):
        assert max(share[expert] for share in shares) > 0


@pytest.mark.photos
def test_the_same_command_goes_on_after_an_interruption(
    root: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends the run after the step at hand; the same command does the rest, to the same weights."""
    whole = run(*words(root, 3, "--json"))
    (tmp_path / "run").rename(tmp_path / "whole")
    from retclip.training import fcclip as training

    advance = training._Run.advance

    def interrupted(self: training._Run, samples: list[training.Sample]) -> float:
        loss = advance(self, samples)
        if self.iteration == 2:
            signal.raise_signal(signal.SIGINT)
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "advance", interrupted)
        stopped = run(*words(root, 3, "--json"))
    assert stopped.code == 130
    assert not (tmp_path / "run" / "model.safetensors").exists()
    resumed = run(*words(root, 3, "--json"))
    assert resumed.json["resumed_from"] == 2
    assert resumed.json["loss"] == whole.json["loss"]
    one, two = (tmp_path / name / "model.safetensors" for name in ("whole", "run"))
    assert one.read_bytes() == two.read_bytes()
    again = run(*words(root, 3, "--json"))
    assert (again.json["resumed_from"], again.json["loss"]) == (3, None)


@pytest.mark.photos
@pytest.mark.parametrize(
    ("change", "code", "exit_code"),
    [
        (["--dataset", "imagenet"], "E115", 3),
        (["--split", "val"], "E103", 3),
        (["--classes", "cat, dog"], "E172", 3),
        (["--size", 100], "E176", 3),
        (["--variant", "rn49"], "E208", 4),
        (["--variant", "rn50"], "E201", 4),
        (["--clip-weights", "absent.pt"], "E201", 4),
    ],
)
def test_what_cannot_work_is_said_before_the_first_step(
    root: Path, run: Run, change: list[object], code: str, exit_code: int
) -> None:
    outcome = run(*words(root, 1, "--json"), *change)
    assert outcome.code == exit_code
    assert outcome.error["code"] == code
    assert outcome.error["hint"]


@pytest.mark.photos
def test_another_run_s_folder_and_damaged_states_are_refused(root: Path, tmp_path: Path, run: Run) -> None:
    assert run(*words(root, 1, "--quiet")).code == 0
    assert run(*words(root, 1, "--seed", 1, "--json")).error["code"] == "E175"
    state = tmp_path / "run" / "state.pt"
    for damage in damages():
        whole = state.read_bytes()
        damage(state)
        assert run(*words(root, 1, "--json")).error["code"] == "E178"
        state.write_bytes(whole)
    assert run(*words(root, 1, "--json")).code == 0


def damages() -> list[Callable[[Path], object]]:
    return [
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b""),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"model": {}}, path),
    ]


def test_the_variants_that_help_names_are_the_variants() -> None:
    from typer.main import get_command

    from retclip.cli.main import app
    from retclip.segmenters.fcclip.variants import VARIANTS

    command = get_command(app).commands["train"].commands["fcclip"]  # type: ignore[attr-defined]
    (option,) = (parameter for parameter in command.params if parameter.name == "variant")
    assert option.help.replace(", or ", ", ").rstrip(".").split(", ") == list(VARIANTS)
    assert main(["train", "fcclip", "--help"]) == 0
