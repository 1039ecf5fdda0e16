"""Models in processes of their own: they answer, fail, die, come and go without harming each other."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from genwright.core import ModelError, Part, Refused, Request, UsageError, user
from genwright.server.errors import Wrong
from genwright.server.fleet import Fleet
from genwright.server.house import Caller
from genwright.server.registry import Served
from genwright.server.seats import Patience
from genwright.server.worker import joined

from .crew import asking, fleet_of, heard, says, until, with_engine


class Crew:
    """One loop for all tests of this file, with a fleet whose workers stay."""

    def __init__(self, place: Path):
        self.place, self.runner = place, asyncio.Runner()
        self.fleet = fleet_of(place, says("talker", parallel=8), says("other"))
        self.run(self.fleet.start())

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def link(self, name: str, fleet: Fleet | None = None) -> Any:
        fleet = fleet or self.fleet
        return fleet.seats[fleet.seat_of(fleet.find(name))].link


@pytest.fixture(scope="module")
def crew(tmp_path_factory: Any) -> Iterator[Crew]:
    place = tmp_path_factory.mktemp("crew")
    with with_engine(place):
        crew = Crew(place)
        yield crew
        crew.run(crew.fleet.stop())
        crew.runner.close()


# -- answering ---------------------------------------------------------------------------------------------------------


def test_an_answer_comes_through_the_worker_part_by_part(crew: Crew) -> None:
    async def ask() -> list[Part]:
        return [part async for part in crew.fleet.ask("talker", asking(say=["Hel", "lo 你 \ud800."], pause=0.02))]

    parts = crew.run(ask())
    assert "".join(part.text for part in parts) == "Hello 你 ?."
    assert len(parts) == 3
    assert parts[-1].meta["finish_reason"] == "stop"
    assert crew.link("talker").busy == 0


def test_text_that_is_ready_at_a_moment_leaves_in_one_piece() -> None:
    events: Any = [(1, "a"), (2, "x"), (1, "b"), (1, {"part": {}}), (1, "c"), (2, "y")]
    assert joined(events) == [[1, "ab"], [2, "xy"], [1, {"part": {}}], [1, "c"]]


def test_what_a_slow_reader_has_not_taken_is_joined(crew: Crew) -> None:
    async def ask() -> int:
        count = 0
        async with aclosing(crew.fleet.ask("talker", asking(say=["word "], times=500))) as parts:
            async for _ in parts:
                count += 1
                await asyncio.sleep(0.05)
        return count

    assert crew.run(ask()) < 30


def test_an_answer_that_nobody_takes_is_given_up(crew: Crew) -> None:
    async def ask() -> Any:
        parts = crew.fleet.ask("talker", asking(say=["word " * 200], times=10_000))
        await anext(parts)
        await until(lambda: crew.link("talker").busy == 0, 5.0)
        with pytest.raises(Wrong) as error:
            await heard(parts)
        return error.value.code

    assert crew.run(ask()) == "client_too_slow"


def test_many_answers_run_at_once(crew: Crew) -> None:
    async def all_of_them() -> list[str]:
        return await asyncio.gather(
            *(heard(crew.fleet.ask("talker", asking(say=[str(i)], pause=0.2))) for i in range(8))
        )

    began = time.monotonic()
    assert crew.run(all_of_them()) == [str(i) for i in range(8)]
    assert time.monotonic() - began < 1.2


def test_closing_an_answer_stops_the_model_at_its_next_word(crew: Crew) -> None:
    async def leave() -> int:
        assert await heard(crew.fleet.ask("talker", asking(say=["x"], times=1000, pause=0.05)), most=2) == "xx"
        assert crew.link("talker").busy == 1
        await until(lambda: crew.link("talker").busy == 0, 1.0)
        return int(crew.link("talker").busy)

    assert crew.run(leave()) == 0


def test_defaults_of_the_model_stand_for_what_is_not_set(crew: Crew) -> None:
    bare = Request(messages=(user("hi"),)).model_dump(exclude_unset=True)
    assert set(bare) == {"messages"}


# -- failing -----------------------------------------------------------------------------------------------------------


def test_an_error_in_one_answer_leaves_the_others_as_they_were(crew: Crew) -> None:
    async def together() -> Any:
        good = [heard(crew.fleet.ask("talker", asking(say=["a", "b"], times=20, pause=0.01))) for _ in range(6)]
        bad = [heard(crew.fleet.ask("talker", asking(say=["c"], fail="ZeroDivisionError")))]
        return await asyncio.gather(*good, *bad, return_exceptions=True)

    *good, bad = crew.run(together())
    assert good == ["ab" * 20] * 6
    assert isinstance(bad, Wrong)
    assert (bad.status, bad.code) == (500, "internal_error")
    assert "secret" not in str(bad)


@pytest.mark.parametrize(("kind", "expected"), [
    ("UsageError", UsageError), ("ModelError", ModelError), ("Refused", Refused), ("MemoryError", ModelError),
])  # fmt: skip
def test_errors_arrive_as_what_they_are(crew: Crew, kind: str, expected: type[Exception]) -> None:
    with pytest.raises(expected):
        crew.run(heard(crew.fleet.ask("talker", asking(fail=kind))))
    assert crew.run(heard(crew.fleet.ask("talker", asking("fine")))) == "fine"


def test_a_killed_worker_is_started_again_and_nobody_hangs(crew: Crew) -> None:
    async def kill() -> tuple[Any, float, str]:
        waiting = [
            asyncio.create_task(heard(crew.fleet.ask("talker", asking(say=["x"], times=1000, pause=0.05))))
            for _ in range(4)
        ]
        await until(lambda: crew.link("talker").busy == 4)
        old = crew.link("talker").pid
        os.kill(old, signal.SIGKILL)
        began = time.monotonic()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert time.monotonic() - began < 1.0
        assert await until(lambda: crew.link("talker") and crew.link("talker").pid != old)
        took = time.monotonic() - began
        return told, took, await heard(crew.fleet.ask("talker", asking("again")))

    told, took, said = crew.run(kill())
    assert [(error.status, error.code) for error in told] == [(503, "model_crashed")] * 4
    assert took < 10
    assert said == "again"


def test_after_the_fifth_death_it_is_given_a_rest() -> None:
    patience = Patience(5, 5.0, 300.0)
    assert [patience.failed() for _ in range(13)] == [0, 0, 0, 0, 5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert 299 < patience.wait <= 300
    patience.went_well()
    assert patience.wait == 0


def test_a_model_that_cannot_be_loaded_says_why_and_not_again_at_once(crew: Crew, tmp_path: Path) -> None:
    async def broken() -> tuple[float, str]:
        (tmp_path / "broken").touch()
        fleet = fleet_of(tmp_path, says("x", broken=str(tmp_path / "broken")), embedder="")
        await fleet.start()
        await fleet.warm()
        assert [str(error) for _, error in fleet.troubles] == ["It is broken."]
        began = time.monotonic()
        with pytest.raises(ModelError, match="It is broken"):
            await heard(fleet.ask("x", asking("a")))
        took = time.monotonic() - began
        (tmp_path / "broken").unlink()
        await fleet.load("x")  # an operator's word is tried at once
        said = await heard(fleet.ask("x", asking("whole")))
        await fleet.stop()
        return took, said

    took, said = crew.run(broken())
    assert took < 0.2
    assert said == "whole"


def test_an_upstream_that_fails_again_and_again_is_left_alone_for_a_while(crew: Crew, tmp_path: Path) -> None:
    async def ask() -> list[str]:
        entry = {"name": "far", "source": "far", "base_url": "http://127.0.0.1:9/v1", "engine": {"retries": 0}}
        fleet = fleet_of(tmp_path, entry, embedder="")
        await fleet.start()
        codes = []
        for _ in range(7):
            try:
                await heard(fleet.ask("far", asking("a")))
            except ModelError:
                codes.append("failed")
            except Wrong as error:
                codes.append(f"{error.code} {error.headers['Retry-After']}")
        await fleet.stop()
        return codes

    assert crew.run(ask()) == ["failed"] * 5 + ["upstream_unavailable 6"] * 2


# -- coming and going --------------------------------------------------------------------------------------------------


def test_a_reload_under_load_fails_nobody(crew: Crew) -> None:
    async def reload() -> tuple[list[str], int, int]:
        old = crew.link("talker").pid
        stop = asyncio.Event()
        said: list[str] = []

        async def keep_asking() -> None:
            while not stop.is_set():
                said.append(await heard(crew.fleet.ask("talker", asking(say=["a", "b"], times=3, pause=0.01))))

        tasks = [asyncio.create_task(keep_asking()) for _ in range(4)]
        await asyncio.sleep(0.1)
        await crew.fleet.reload("talker")
        await asyncio.sleep(0.1)
        stop.set()
        await asyncio.gather(*tasks)
        return said, old, crew.link("talker").pid

    said, old, new = crew.run(reload())
    assert set(said) == {"ababab"}
    assert old != new


def test_a_reload_that_fails_keeps_the_old(crew: Crew, tmp_path: Path) -> None:
    async def reload() -> str:
        fleet = fleet_of(tmp_path, says("x", broken=str(tmp_path / "broken")), embedder="")
        await fleet.start()
        assert await heard(fleet.ask("x", asking("a"))) == "a"
        (tmp_path / "broken").touch()
        with pytest.raises(ModelError):
            await fleet.reload("x")
        said = await heard(fleet.ask("x", asking("still here")))
        await fleet.stop()
        return said

    assert crew.run(reload()) == "still here"


def test_when_memory_is_short_the_one_unused_for_longest_goes_and_pinned_ones_stay(crew: Crew, tmp_path: Path) -> None:
    async def squeeze() -> None:
        models = (says("a", takes=80_000_000), says("b", takes=80_000_000))
        fleet = fleet_of(tmp_path, *models, memory=200_000_000, embedder="")
        await fleet.start()
        for name in ("a", "b", "a"):
            assert await heard(fleet.ask(name, asking(name))) == name
            await asyncio.sleep(0.02)
            assert [one["name"] for one in await fleet.ps() if one["state"] == "loaded"] == [name]
        await fleet.pin("a")
        with pytest.raises(Wrong, match="pinned") as error:
            await heard(fleet.ask("b", asking("b")))
        assert (error.value.status, error.value.code) == (503, "model_too_large")
        await fleet.stop()

    crew.run(squeeze())


def test_a_model_that_does_not_fit_even_alone_is_a_503_that_says_so(crew: Crew, tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, says("a"), memory=50_000_000, embedder="")
    with pytest.raises(Wrong, match=r"takes about 0.12 GB .* may take 0.05 GB") as error:
        crew.run(heard(fleet.ask("a", asking("b"))))
    assert error.value.status == 503


def test_unused_models_leave_memory_after_keep_alive(crew: Crew, tmp_path: Path) -> None:
    async def wait() -> None:
        fleet = fleet_of(tmp_path, says("brief", keep_alive=0.2), embedder="")
        await fleet.start()
        assert await heard(fleet.ask("brief", asking(say=["a"], times=8, pause=0.1))) == "a" * 8  # longer than that
        pid = crew.link("brief", fleet).pid
        assert await until(lambda: crew.link("brief", fleet) is None, 3.0)
        assert await until(lambda: not Path(f"/proc/{pid}").exists(), 3.0)
        await fleet.stop()

    crew.run(wait())


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_aliases_and_owners(crew: Crew, tmp_path: Path) -> None:
    async def names() -> None:
        fleet = fleet_of(tmp_path, says("first"), aliases={"gpt-4o-mini": "first"}, embedder="")
        await fleet.start()
        ann, bob = Caller("ann", "k1", frozenset({"user"})), Caller("bob", "k2", frozenset({"user"}))
        await fleet.register(Served("ft:first:ann::1", "first", {"engine": "says"}, parent="first", owner="ann"))
        assert [fleet.find(name).id for name in ("", "first", "first:latest", "gpt-4o-mini")] == ["first"] * 4
        assert [served.id for served in fleet.list(ann)] == ["first", "ft:first:ann::1"]
        assert [served.id for served in fleet.list(bob)] == ["first"]
        for name, caller in (("ft:first:ann::1", bob), ("nothing", ann), ("../etc/passwd", ann)):
            with pytest.raises(Wrong) as error:
                fleet.find(name, caller)
            assert (error.value.status, error.value.code) == (404, "model_not_found")
        with pytest.raises(Wrong) as taken:
            await fleet.register(Served("first", "x"))
        assert taken.value.status == 409
        with pytest.raises(Wrong) as kept:
            await fleet.remove("first")
        assert kept.value.status == 403
        await fleet.registry.alias("mine", "ft:first:ann::1")
        again = fleet_of(tmp_path, says("first"), embedder="")  # after a restart
        await again.start()
        assert again.find("mine", ann).parent == "first"
        await again.remove("ft:first:ann::1")
        assert [served.id for served in again.list(ann)] == ["first"]
        await again.stop()
        await fleet.stop()

    crew.run(names())


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would be called 'a'"):
        fleet_of(tmp_path, says("a"), says("a"))
