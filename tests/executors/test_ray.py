"""Ray on this machine: a crew that learns letters, rows spread over workers, and errors that come back as they were.

A cluster of several nodes, one of which is killed, is in benchmarks/ray_cluster.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genwright.core import DataError, Recipe, Run, Tell, choose

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_cluster")]


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    """One for all tests here: starting it takes seconds."""
    import os

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def _run(folder: Path) -> Run:
    recipe = Recipe.from_dict({"data": "rows.jsonl", "task": "chat", "model": "nothing"})
    return Run.create(recipe, folder)


class Heard(Tell):
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps = 0

    def stage(self, title: str, total: float | None = None) -> None:
        self.stages.append(title)

    def advance(self, amount: float = 1, **facts: Any) -> None:
        self.steps += int(amount)


def _teach(folder: Path) -> Callable[..., None]:
    def work(*, crew: Any, tell: Tell, watch: Any) -> None:
        from genwright.nn.loop import fit
        from tests.nn.tiny import Objective, Tiny, rows, settings

        run = Run(folder)
        outcome = fit(Tiny(), rows(40), rows(20, seed=1), objective=Objective(), seed=3, folder=folder, log=run.log,
                      settings=settings(rows_per_batch=8, dropout=0.0), tell=tell, watch=watch, crew=crew)  # fmt: skip
        if crew.is_first:
            facts = {"size": crew.size, "last": outcome.held_out_last}
            (folder / "facts.json").write_text(json.dumps(facts))

    return work


def test_a_crew_of_two_learns_and_its_events_are_told(tmp_path: Path) -> None:
    looks: list[int] = []
    alone, together, heard = _run(tmp_path / "alone"), _run(tmp_path / "together"), Heard()
    choose("executors", "local")(_teach(alone.folder), alone, tell=Tell(), watch=lambda step, loss: None)
    executor = choose("executors", {"name": "ray", "workers": 2, "at_least": 2})
    executor(_teach(together.folder), together, tell=heard, watch=lambda step, loss: looks.append(step))
    one, two = (json.loads((run.folder / "facts.json").read_text()) for run in (alone, together))
    assert (one["size"], two["size"]) == (1, 2)
    assert two["last"] == pytest.approx(one["last"], rel=1e-5)
    losses = [[event["loss"] for event in run.events("step")] for run in (alone, together)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert heard.stages == ["Waiting for workers", "Tuning"]
    assert heard.steps == len(losses[0]) == 10
    assert looks == [event["step"] for event in alone.events("look")]
    assert not list(together.folder.glob(".job-*"))


def test_an_error_of_ours_comes_back_as_it_was_and_is_not_tried_again(tmp_path: Path) -> None:
    run = _run(tmp_path)

    def work(*, crew: Any, tell: Tell, watch: Any) -> None:
        with (tmp_path / "tries").open("a") as file:
            file.write("x")
        raise DataError("There is nothing to learn.", "Look at the data.")

    executor = choose("executors", {"name": "ray", "workers": 1})
    with pytest.raises(DataError, match="nothing to learn") as error:
        executor(work, run, tell=Tell(), watch=lambda step, loss: None)
    assert error.value.hint == "Look at the data."
    assert (tmp_path / "tries").read_text() == "x"


def test_rows_are_spread_over_workers_that_open_once(tmp_path: Path) -> None:
    def open_worker() -> Callable[[Any], Any]:
        with (tmp_path / "opened").open("a") as file:
            file.write("x")
        return lambda part: {"number": part["number"], "squared": part["number"] ** 2}

    executor = choose("executors", {"name": "ray", "workers": 2})
    parts = [{"number": n} for n in range(12)]
    made = list(executor.module.spread(open_worker, parts, executor.settings))
    assert sorted((one["number"], one["squared"]) for one in made) == [(n, n * n) for n in range(12)]
    assert len((tmp_path / "opened").read_text()) <= 2
