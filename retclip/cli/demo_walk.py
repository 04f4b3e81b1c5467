"""The demo's walk: draw, build, segment, teach with a mistake, find it, delete it, teach again; measured on the way."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retclip.cli.console import Speech
from retclip.cli.demo_scenes import KnownObject, file_exemplar, in_full_light, move_exemplar, name_of, objects_of
from retclip.cli.demo_telling import Step, Telling
from retclip.core.files import write_bytes
from retclip.evaluation.datasets import open_evaluation_set
from retclip.evaluation.pictures import data_address
from retclip.reports.demo_page import Exemplar, Measured, Naming, Story
from retclip.vocabularies import load_vocabulary

DATABASE = "playground"
Phase = Literal["unknown", "spoiled", "mended", "taught"]


@dataclass(frozen=True)
class Plan:
    """Which scenes are drawn, and what is taught.

    Attributes:
        taught: class that is taught first; other: one whose photo is misfiled among its exemplars. Both are unseen
            classes that three exemplars teach to the small networks; not all are (docs/playground.md).
        seed: of the scenes (scripts/choose_demo_scenes.py).
        train, test: scenes of the database, and scenes that are segmented.
        exemplars: photos of a class that teach it.
        shown: test scenes of each class that are looked at closely.
    """

    taught: str = "green star"
    other: str = "kite"
    seed: int = 2
    train: int = 100
    test: int = 24
    exemplars: int = 3
    shown: int = 2


PLAN = Plan()


class Walk:
    """The demo from the first scene to the last correction.

    Args:
        plan: scenes and classes.
        out: folder of everything.
        preset: name or file.
        speech: where it is told.
    """

    def __init__(self, plan: Plan, out: Path, preset: str, speech: Speech) -> None:
        self.plan, self.out, self.preset = plan, out, preset
        self._telling = Telling(speech)
        self._shown: list[KnownObject] = []
        self._lessons: dict[str, list[KnownObject]] = {}
        self._namings: dict[Phase, tuple[Naming, ...]] = {}
        speech.note(f"$ export RETCLIP_HOME={shlex.quote(str(out / 'home'))} RETCLIP_OFFLINE=1")

    def go(self) -> None:
        """Every step in its order."""
        self._draw()
        self._build()
        self._segment()
        self._teach_with_a_mistake()
        misfiled = self._find_the_mistake()
        if misfiled is not None:
            self._delete(misfiled)
        self._teach_the_other()

    def story(self, seconds: float, peak_bytes: int) -> Story:
        """What is to be told of the walk, which took so many seconds and bytes of memory."""
        plan = self.plan
        intro = (
            f"{plan.train} drawn scenes and their labels became a database that lacks {plan.taught} and {plan.other}."
            f" Both were taught by {plan.exemplars} exemplars; no network was trained. Panoptic quality (PQ, percent)"
            f" is that of {plan.test} other scenes."
        )
        chapters, claims = tuple(self._telling.chapters), tuple(expectations(plan, self._namings).items())
        photos = tuple(data_address(in_full_light(known)) for known in self._shown)
        return Story(intro, chapters, photos, claims, _advice(self.out), seconds, peak_bytes)

    def _draw(self) -> None:
        plan, scenes = self.plan, self.out / "scenes"
        with self._telling.step("Draw scenes with exact masks") as step:
            for split, count in (("train", plan.train), ("test", plan.test)):
                size = ("--pictures", str(count), "--seed", str(plan.seed))
                step.run("corpora", "make", "playground", "--root", scenes, "--split", split, *size)
            train, test = (open_evaluation_set("playground", scenes, split) for split in ("train", "test"))
            counts = []
            for label, absent in ((plan.taught, plan.other), (plan.other, plan.taught)):
                known, exemplars = objects_of(test, label), objects_of(train, label, without=absent)
                assert known, f"seed {plan.seed} shows no {label}"
                assert len(exemplars) >= plan.exemplars, f"seed {plan.seed} shows too few of {label}"
                self._shown += known[: plan.shown]
                self._lessons[label] = exemplars[: plan.exemplars]
                counts.append(f"{len(known)} show a {label}")
            step.remark(f"{plan.train} scenes to learn from, {plan.test} to segment, of which {', '.join(counts)}.")

    def _build(self) -> None:
        left_out = (self.plan.taught, self.plan.other)
        names = [name for name in load_vocabulary("@playground").names if name not in left_out]
        title = f"Build a database from pictures and their labels, without {' and '.join(left_out)}"
        with self._telling.step(title) as step:
            known = write_bytes(self.out / "known.txt", "".join(f"{name}\n" for name in names).encode())
            source = ("--source", "coco", "--root", self.out / "scenes", "--split", "train", "--classes", known)
            report = step.run("index", "build", *source, "--db", DATABASE, "--preset", self.preset, takes_long=True)
            found = f"{report['added']} segments of {len(report['classes'])} classes"
            how = "the detector looked for what a scene's labels name, the masker cut it out; drawn masks were not used"
            step.remark(f"{found}: {how}.")

    def _segment(self) -> None:
        photos = dict.fromkeys(known.photo for known in self._shown)
        with self._telling.step("Segment scenes that show them") as step:
            asked = ("--db", DATABASE, "--classes", "@playground", "--formats", "panoptic,overlay,segments")
            step.run("segment", *photos, *asked, "--keep", "--out", self.out / "results")
            self._measure(step, "unknown")

    def _teach_with_a_mistake(self) -> None:
        taught, misfiled = self.plan.taught, self._lessons[self.plan.other][0]
        with self._telling.step(f"Teach {taught}; by mistake one photo shows a {self.plan.other}") as step:
            for known in (*self._lessons[taught], misfiled):
                file_exemplar(known, self.out / "lesson" / taught)
            step.remark(f"In {self.out / 'lesson' / taught}, {misfiled.photo.name} does not belong.")
            self._teach(step, taught, "spoiled")

    def _find_the_mistake(self) -> Exemplar | None:
        """The misfiled exemplar, if the explanation of a wrong label leads to it."""
        taught = self.plan.taught
        others = [naming for naming in self._namings["spoiled"] if naming.truth == self.plan.other]
        asked = next((naming for naming in others if naming.label == taught), others[0])
        photo = next(known.photo for known in self._shown if known.photo.stem == asked.picture)
        with self._telling.step(f"Ask why the {asked.truth} in {asked.picture} has its label") as step:
            folder = ("--out", self.out / "explained", "--formats", "segments")
            step.show("segment", photo, "--db", DATABASE, "--classes", "@playground", "--explain", *folder)
            suspect = next((exemplar for exemplar in asked.exemplars if exemplar.label == taught), None)
            if suspect is None:
                step.remark(f"None of its nearest exemplars is called {taught}: nothing is to blame.")
                return None
            is_misfiled = Path(suspect.origin).stem == self._lessons[self.plan.other][0].photo.stem
            verdict = "the misfiled photo" if is_misfiled else f"it does show a {taught}, and stays"
            step.remark(f"Its nearest {taught}: {suspect.origin}, d={suspect.distance:.2f}: {verdict}.")
            return suspect if is_misfiled else None

    def _delete(self, misfiled: Exemplar) -> None:
        with self._telling.step("Delete that exemplar") as step:
            name = f"{misfiled.segment_id:016x}"
            listed = write_bytes(self.out / "misfiled.txt", f"{name}\n".encode())
            done = step.run("db", "delete", DATABASE, "--ids", listed, "--yes")
            step.remark(f"{listed.name} says {name}; version {done['version']} has {done['segments']} segments.")
            self._rescore(step, "mended")

    def _teach_the_other(self) -> None:
        other, (misfiled, *rest) = self.plan.other, self._lessons[self.plan.other]
        wrong, right = (self.out / "lesson" / label for label in (self.plan.taught, other))
        with self._telling.step(f"Teach {other}, with the photo where it belongs") as step:
            for known in rest:
                file_exemplar(known, right)
            step.typed("mv", *move_exemplar(misfiled.photo.stem, wrong, right), right)
            self._teach(step, other, "taught")

    def _teach(self, step: Step, label: str, phase: Phase) -> None:
        words = ("--classes", label, "--images", self.out / "lesson", "--use-masks")
        report = step.run("index", "add-classes", "--db", DATABASE, *words)
        step.remark(f"{report['added']} exemplars, each a photo with a mask beside it; version {report['version']}.")
        self._rescore(step, phase)

    def _rescore(self, step: Step, phase: Phase) -> None:
        done = step.run("rescore", self.out / "results", "--all")
        step.remark(f"{done['changed']} of {done['pictures']} shown scenes changed; no network ran.")
        self._measure(step, phase)

    def _measure(self, step: Step, phase: Phase) -> None:
        """Panoptic quality on all test scenes, and the names of the shown objects."""
        scenes = ("--dataset", "playground", "--root", self.out / "scenes", "--split", "test")
        # Drawn splits share no scene, but few shapes on few grounds may look alike to the guard.
        words = (*scenes, "--db", DATABASE, "--out", self.out / "evaluation", "--allow-leak")
        report = step.run("eval", *words, takes_long=phase == "unknown")
        by_class = {row["name"]: row["pq"] for row in report["per_class"]}
        quality = {"all": report["pq"], **{label: by_class.get(label) for label in self._lessons}}
        results = self.out / "results"
        namings = self._namings[phase] = tuple(name_of(known, results) for known in self._shown)
        overlays = {n.picture: data_address((results / n.picture / "overlay.jpg").read_bytes()) for n in namings}
        step.measured = Measured(report["database"]["version"], quality, namings, overlays)
        shown = ", ".join(f"{name} {'-' if pq is None else f'{pq:.1f}'}" for name, pq in quality.items())
        step.remark("\n".join([*map(_told, namings), f"panoptic quality: {shown}"]))


def expectations(plan: Plan, namings: Mapping[Phase, Sequence[Naming]]) -> dict[str, bool]:
    """What the demo is meant to show, and whether these namings do; a phase that did not come shows nothing."""

    def of(label: str, phase: Phase) -> list[Naming]:
        return [naming for naming in namings.get(phase, ()) if naming.truth == label]

    def all_right(label: str, phase: Phase) -> bool:
        return bool(of(label, phase)) and all(naming.right for naming in of(label, phase))

    def spoiled(phase: Phase) -> int:
        return sum(naming.label == plan.taught for naming in of(plan.other, phase))

    taught, other = plan.taught, plan.other
    return {
        "without exemplars no shown object has its right name": not any(n.right for n in namings["unknown"]),
        f"{plan.exemplars} exemplars are enough to find every shown {taught}": all_right(taught, "spoiled"),
        f"the misfiled photo makes a {other} be called {taught}": spoiled("spoiled") > spoiled("unknown"),
        "the explanation leads to the misfiled photo": "mended" in namings,
        "deleting it takes its effect back": "mended" in namings and spoiled("mended") < spoiled("spoiled"),
        f"taught by its own exemplars, every shown {other} is found": all_right(other, "taught"),
        f"and every shown {taught} still is": all_right(taught, "taught"),
    }


def _told(naming: Naming) -> str:
    """`mushroom in 000003: heart 0.41 (CLIP), nearest exemplar coco/17 'heart' d=0.21`."""
    if not naming.label:
        return f"{naming.truth} in {naming.picture}: nothing"
    text = f"{naming.truth} in {naming.picture}: {naming.label} {naming.score:.2f} ({naming.decided_by})"
    if not naming.exemplars:
        return text
    nearest = naming.exemplars[0]
    return f"{text}, nearest exemplar {nearest.origin} '{nearest.label}' d={nearest.distance:.2f}"


def _advice(out: Path) -> tuple[tuple[str, str], ...]:
    """Commands and what they are for."""
    home = shlex.quote(str(out / "home"))
    return (
        (
            f"export RETCLIP_HOME={home}\nretclip db log {DATABASE}\nretclip db diff {DATABASE}@2 {DATABASE}\n"
            f"retclip db health {DATABASE}",
            "Look around in the demo's database: its versions, what changed, labels that neighbours contradict.",
        ),
        (
            "retclip doctor\nretclip models list\nretclip models fetch balanced --dir models",
            "Released networks instead of the small ones that come with the program: what fits this machine, and how to"
            " get them. Where a download is not possible, the second folder may be carried over.",
        ),
        (
            "retclip index build --source folder --root photos --db mine --preset balanced --dry-run\n"
            "retclip index build --source folder --root photos --db mine --preset balanced\n"
            'retclip segment street.jpg --db mine --classes "kite, canoe, dog, sky" --explain --formats overlay,html',
            "Your own photos, one folder per class, no masks needed; then a picture with several of these classes.",
        ),
    )
