"""Whoever runs the units, the database and the report are the same; workers and drivers may die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from retclip.core.errors import InputError, ModelError, ResourceError
from retclip.core.vocabulary import Vocabulary
from retclip.corpora.mined import MinedCorpus
from retclip.indexer.build import Progress, build
from retclip.indexer.executors import Death, Executor, Queue, Results, crew_results
from retclip.indexer.plan import WorkUnit, work_units
from retclip.indexer.processes import ProcessExecutor, threads_for
from retclip.indexer.report import RunReport
from retclip.indexer.units import UnitResult, load_unit, run_unit
from retclip.ports.corpora import CorpusImage
from retclip.shards import Database, unfinished_jobs, verify
from tests.absence import require_library
from tests.fakes import ColourEncoder, StripeCorpus
from tests.indexer.crews import StripeRecipe, ended

UNITS = 4  # 7 pictures, 2 a unit
STRIPES = 12
MakeExecutor = Callable[[StripeRecipe], Executor]


def processes(recipe: StripeRecipe) -> Executor:
    return ProcessExecutor(recipe, ["cpu", "cpu"])


def ray_actors(recipe: StripeRecipe) -> Executor:
    from retclip.adapters.ray_executor import RayExecutor

    return RayExecutor(recipe, 2, "cpu")


@pytest.fixture(scope="module")
def ray_on_this_machine() -> Any:
    """One small cluster for all tests of a module: starting Ray takes seconds."""
    require_library("ray", "ray")
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(params=["processes", "ray"])
def crew(request: pytest.FixtureRequest) -> MakeExecutor:
    if request.param == "ray":
        request.getfixturevalue("ray_on_this_machine")
        return ray_actors
    return processes


def create(path: Path) -> Database:
    return Database.create(path, ColourEncoder().space, {"name": "fake"})


def run(database: Database, recipe: StripeRecipe, executor: Executor | None = None, **options: Any) -> RunReport:
    request, encoder = recipe("cpu")
    return build(Database.open(database.path), request, encoder, "build", executor=executor, **options)


def alike(report: RunReport) -> RunReport:
    """A report without what differs between any two runs."""
    return replace(report, database="", seconds=0.0)


def test_the_same_database_and_report_as_a_serial_run_though_a_worker_is_killed(
    tmp_path: Path, corpus: StripeCorpus, crew: MakeExecutor
) -> None:
    corpus.paths[2].write_bytes(b"no picture")
    corpus.paths[6].unlink()
    serial, parallel = create(tmp_path / "serial.retdb"), create(tmp_path / "parallel.retdb")
    expected = run(serial, StripeRecipe(corpus))
    seen: list[Progress] = []
    trap = traps(tmp_path, 1)
    report = run(parallel, StripeRecipe(corpus), crew(StripeRecipe(corpus, trap)), observe=seen.append)
    assert not list(trap.iterdir())
    assert alike(report) == alike(expected)
    assert [failure.image_id for failure in report.failures] == ["0002", "0006"]
    assert [progress.done for progress in seen][-1] == 7
    assert len(seen) == UNITS
    one, two = (Database.open(database.path) for database in (serial, parallel))
    for _, _, segment in one.iter_segments():
        assert two.thumbnail(segment.segment_id) == one.thumbnail(segment.segment_id) is not None


def traps(folder: Path, count: int) -> Path:
    trap = folder / "trap"
    trap.mkdir()
    for number in range(count):
        (trap / str(number)).touch()
    return trap


def test_errors_of_workers_come_back_as_they_are(tmp_path: Path, corpus: StripeCorpus, crew: MakeExecutor) -> None:
    with pytest.raises(ModelError) as caught:
        run(create(tmp_path / "a.retdb"), StripeRecipe(corpus), crew(StripeRecipe(corpus, fails=True)))
    error = caught.value
    assert (error.code, error.what, error.why, error.fix) == ("E201", "No weights here.", "The test says so.", "None.")


class HereCrew:
    """Three workers that are no processes: the last one that was given a unit answers first, or dies at a picture."""

    size = 3

    def __init__(self, recipe: StripeRecipe, deadly: str = "", deaths: int = 0) -> None:
        self._request, self._encoder = recipe("cpu")
        self._deadly, self._deaths = deadly, deaths
        self._running: dict[int, WorkUnit] = {}
        self.begun = 0

    def give(self, worker: int, unit: WorkUnit) -> None:
        assert worker not in self._running
        self._running[worker] = unit
        self.begun += 1

    def answer(self) -> tuple[int, UnitResult | Death]:
        worker, unit = self._running.popitem()
        if self._deaths and any(image.image_id == self._deadly for image in unit.images):
            self._deaths -= 1
            return worker, Death("A worker had enough")
        return worker, run_unit(load_unit(unit), self._request, self._encoder, lambda ids: {})

    def results(self, database: Database, queue: Queue) -> Results:
        yield from crew_results(self, queue)


def test_units_that_are_finished_out_of_order_are_stored_in_order(tmp_path: Path, corpus: StripeCorpus) -> None:
    recipe = StripeRecipe(corpus)
    corpus.paths[0].unlink()
    corpus.paths[5].unlink()
    expected = run(create(tmp_path / "serial.retdb"), recipe)
    report = run(create(tmp_path / "a.retdb"), recipe, HereCrew(recipe, "0003", deaths=2))
    assert alike(report) == alike(expected)
    capped = run(create(tmp_path / "capped.retdb"), replace(recipe, cap=1))
    again = run(create(tmp_path / "again.retdb"), replace(recipe, cap=1), HereCrew(recipe))
    assert alike(again) == alike(capped)
    assert capped.capped > 0


def test_pictures_at_which_every_worker_dies_end_the_run_and_keep_the_rest(
    tmp_path: Path, corpus: StripeCorpus
) -> None:
    database, recipe = create(tmp_path / "a.retdb"), StripeRecipe(corpus)
    with pytest.raises(ResourceError, match=r"E330(.|\n)*had enough. Pictures: 0002, 0003"):
        run(database, recipe, HereCrew(recipe, "0003", deaths=3))
    kept = sum(units for _, units in unfinished_jobs(database.path))
    assert kept == 2
    report = run(database, recipe, HereCrew(recipe))
    assert (report.resumed_units, report.added) == (kept, STRIPES)
    assert report.content_hash == run(create(tmp_path / "serial.retdb"), recipe).content_hash


def test_an_interrupt_lets_running_units_finish_and_begins_no_other(tmp_path: Path, corpus: StripeCorpus) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    database, recipe = create(tmp_path / "a.retdb"), StripeRecipe(corpus)
    crew = HereCrew(recipe)
    with pytest.raises(KeyboardInterrupt):
        run(database, recipe, crew, observe=stop)
    assert crew.begun == 3
    assert [units for _, units in unfinished_jobs(database.path)] == [3]
    report = run(database, recipe, HereCrew(recipe))
    assert (report.resumed_units, report.added) == (3, STRIPES)


def test_no_worker_outlives_a_run_that_is_broken_off(tmp_path: Path, corpus: StripeCorpus) -> None:
    recipe = StripeRecipe(corpus)
    queue = Queue(work_units(corpus.images(), 2), lambda unit: False, lambda: False)
    results = processes(recipe).results(create(tmp_path / "a.retdb"), queue)
    next(results)
    assert len(multiprocessing.active_children()) == 2
    results.close()
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_while_it_waits_is_replaced(tmp_path: Path, corpus: StripeCorpus) -> None:
    recipe = StripeRecipe(corpus)
    queue = Queue(work_units(corpus.images(), 2), lambda unit: False, lambda: False)
    results = ProcessExecutor(recipe, ["cpu"]).results(create(tmp_path / "a.retdb"), queue)
    done = [next(results)]
    (waiting,) = multiprocessing.active_children()
    waiting.kill()
    waiting.join()
    done += results
    assert [unit.images[0].image_id for unit, _ in done] == ["0000", "0002", "0004", "0006"]


class ArchiveCorpus(StripeCorpus):
    """The same pictures as bytes, with captions, as an archive gives them; their files are gone."""

    def images(self):  # type: ignore[no-untyped-def]
        for image, data in zip(super().images(), self.contents, strict=True):
            words = " ".join(label.name.removeprefix("raw ") for label in image.labels)
            yield CorpusImage("archive", image.image_id, Path("a.tar"), "", (), (f"stripes, {words}",), data=data)

    def pack(self) -> ArchiveCorpus:
        self.contents = [path.read_bytes() for path in self.paths]
        for path in self.paths:
            path.unlink()
        return self


def test_mined_labels_and_pictures_without_files_reach_the_workers(tmp_path: Path) -> None:
    archive = ArchiveCorpus.write(tmp_path / "p", [["red"], ["blue", "red"], ["green"]]).pack()  # type: ignore[attr-defined]
    corpus = MinedCorpus(archive, Vocabulary.from_names("words", ["red", "green", "blue"]))
    recipe = StripeRecipe(corpus)
    expected = run(create(tmp_path / "serial.retdb"), recipe)
    report = run(create(tmp_path / "parallel.retdb"), recipe, processes(recipe))
    assert expected.added == 4
    assert {segment.label_source for _, _, segment in Database.open(tmp_path / "parallel.retdb").iter_segments()} == {
        "caption"
    }
    assert alike(report) == alike(expected)


DRIVER = """
import sys
from pathlib import Path
from tests.indexer.test_executors import drive
drive(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def drive(folder: Path, database: Path) -> None:
    """A build that stops after its second unit and waits to be killed."""
    recipe = StripeRecipe(StripeCorpus(folder, PICTURES, {}))

    def hold(progress: Progress) -> None:
        if progress.done >= 4:
            time.sleep(600)

    run(Database.open(database), recipe, processes(recipe), observe=hold)


PICTURES = [["red", "blue"], ["green"], ["blue", "grey"], ["yellow"], ["green"], ["grey"], ["blue"]]


def test_a_killed_driver_leaves_no_worker_and_is_resumed(tmp_path: Path) -> None:
    StripeCorpus.write(tmp_path / "p", PICTURES)
    recipe = StripeRecipe(StripeCorpus(tmp_path / "p", PICTURES, {}))
    database = create(tmp_path / "a.retdb")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "p"), str(database.path)],
        cwd=Path(__file__).resolve().parents[2],
        start_new_session=True,
    )
    while sum(units for _, units in unfinished_jobs(database.path)) < 2 and driver.poll() is None:
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    assert ended(driver.pid)
    assert verify(database.path, deep=True).ok
    report = run(database, recipe, processes(recipe))
    assert report.resumed_units == 2
    assert report.content_hash == run(create(tmp_path / "serial.retdb"), recipe).content_hash


def test_workers_share_the_threads_of_this_process() -> None:
    assert threads_for(1) == torch.get_num_threads()
    assert threads_for(10_000) == 1


def test_ray_hands_out_gpus_itself(ray_on_this_machine: None, corpus: StripeCorpus) -> None:
    from retclip.adapters.ray_executor import RayExecutor

    with pytest.raises(InputError, match=r"E120(.|\n)*--device auto, cpu or cuda"):
        RayExecutor(StripeRecipe(corpus), 2, "cuda:1")
