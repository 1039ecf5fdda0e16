"""The desk: who waits, who is sent away, who is stopped, and that all of it is counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from genwright.core import Part, Refused
from genwright.server.desk import Desk, Line
from genwright.server.errors import Wrong
from genwright.server.fleet import Fleet
from genwright.server.house import Caller
from genwright.server.keys import Keys
from genwright.server.limits import Limits
from genwright.server.store.tables import Usage

from .crew import asking, fleet_of, heard, says, until, with_engine


class Noted:
    """Meters that remember what they were told."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, int, int]] = []
        self.running = self.most_waiting = self.firsts = self.gaps = 0

    def queue(self, waiting: int) -> None:
        self.most_waiting = max(self.most_waiting, waiting)

    def started(self, model: str) -> None:
        self.running += 1

    def first_token(self, model: str, seconds: float) -> None:
        self.firsts += 1

    def token_gap(self, model: str, seconds: float) -> None:
        self.gaps += 1

    def finished(self, model: str, status: str, prompt_tokens: int, completion_tokens: int, seconds: float) -> None:
        self.running -= 1
        self.ended.append((status, prompt_tokens, completion_tokens))


class Office:
    def __init__(self, place: Path):
        self.runner = asyncio.Runner()
        self.fleet: Fleet = fleet_of(place, says("m", parallel=2), queue=4, deadline=30)
        self.keys, self.limits = Keys(self.fleet.registry.store, place), Limits(self.fleet.registry.store)
        self.runner.run(self.fleet.start())
        self.runner.run(heard(self.desk().ask(Caller(), "m", asking("load"))))

    def desk(self) -> Desk:
        meters: Any = Noted()
        return Desk(self.fleet.options, self.fleet, self.keys, self.limits, meters)

    def run(self, work: Any) -> Any:
        return self.runner.run(work)


@pytest.fixture(scope="module")
def office(tmp_path_factory: Any) -> Iterator[Office]:
    place = tmp_path_factory.mktemp("office")
    with with_engine(place):
        office = Office(place)
        yield office
        office.run(office.limits.flush())
        office.run(office.fleet.stop())
        office.runner.close()


def _who(name: str) -> Caller:
    return Caller(name, "", frozenset({"user"}))


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_each_key_has_its_turn() -> None:
    async def queue() -> list[str]:
        line, came = Line(1), []
        await line.enter("x")

        async def wait(who: str) -> None:
            await line.enter(who[0])
            came.append(who)
            line.leave()

        tasks = []
        for who in ("a1", "a2", "a3", "b1", "c1", "b2"):
            tasks.append(asyncio.create_task(wait(who)))
            await asyncio.sleep(0)
        line.leave()
        await asyncio.gather(*tasks)
        assert (line.taken, len(line)) == (0, 0)
        return came

    assert asyncio.run(queue()) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_is_cancelled_while_waiting_leaves_no_trace() -> None:
    async def leave() -> tuple[int, int]:
        line = Line(1)
        await line.enter("a")
        tasks = [asyncio.create_task(line.enter(who)) for who in "bcb"]
        await asyncio.sleep(0)
        tasks[0].cancel()
        line.leave()  # c's turn, in the moment in which it is cancelled too
        tasks[1].cancel()
        await asyncio.gather(*tasks[:2], return_exceptions=True)
        await tasks[2]
        return line.taken, len(line)

    assert asyncio.run(leave()) == (1, 0)


def test_as_many_run_as_the_model_decodes_together_the_queue_is_bounded_and_the_rest_is_sent_away(office: Any) -> None:
    desk = office.desk()

    async def one(number: int) -> tuple[str, float]:
        began = time.monotonic()
        try:
            said = await heard(desk.ask(_who("ann"), "m", asking(say=["x"], times=4, pause=0.05)))
        except Wrong as error:
            said = f"{error.status} {error.code} {error.headers['Retry-After']} {error.headers['x-should-retry']}"
        return said, time.monotonic() - began

    async def all_of_them() -> Any:
        return await asyncio.gather(*(one(number) for number in range(20)))

    found = office.run(all_of_them())
    assert sorted(said for said, _ in found) == ["429 queue_full 1 true"] * 14 + ["xxxx"] * 6
    assert max(took for said, took in found if said != "xxxx") < 0.2
    assert desk.meters.most_waiting == 4
    assert (desk.waiting, desk.meters.running) == (0, 0)


def test_a_key_with_few_requests_takes_the_place_of_one_with_many(office: Any) -> None:
    desk = office.desk()

    async def all_of_them() -> list[Any]:
        slow = [heard(desk.ask(_who("greedy"), "m", asking(say=["x"], times=4, pause=0.05))) for _ in range(6)]
        tasks = [asyncio.ensure_future(one) for one in slow]
        await asyncio.sleep(0.02)
        modest = await heard(desk.ask(_who("modest"), "m", asking("thanks")))
        return [modest, *await asyncio.gather(*tasks, return_exceptions=True)]

    modest, *greedy = office.run(all_of_them())
    assert modest == "thanks"
    assert [type(one) for one in greedy] == [str] * 5 + [Wrong]
    assert greedy[5].status == 429


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_an_answer_that_takes_too_long_is_stopped_in_time_and_counted(office: Any) -> None:
    desk = office.desk()

    async def late() -> tuple[float, Wrong]:
        began = time.monotonic()
        with pytest.raises(Wrong) as error:
            await heard(desk.ask(_who("ann"), "m", asking(say=["x"], times=1000, pause=0.05), deadline=1.0))
        took = time.monotonic() - began
        link = next(iter(office.fleet.seats.values())).link
        assert await until(lambda: link.busy == 0, 0.3)
        return took, error.value

    took, error = office.run(late())
    assert (error.status, error.code) == (504, "deadline_exceeded")
    assert 1.0 <= took <= 1.3
    ((status, prompt, completion),) = desk.meters.ended
    assert (status, prompt > 0) == ("timeout", True)
    assert 15 <= completion <= 22
    assert not desk._visits


def test_who_waits_longer_than_the_deadline_is_told_so(office: Any) -> None:
    desk = office.desk()

    async def wait() -> Any:
        slow = [asyncio.ensure_future(heard(desk.ask(_who("a"), "m", asking(say=["x"], times=8, pause=0.05))))
                for _ in range(2)]  # fmt: skip
        await asyncio.sleep(0.05)
        with pytest.raises(Wrong) as error:
            await heard(desk.ask(_who("b"), "m", asking("hi"), deadline=0.1))
        return error.value.status, await asyncio.gather(*slow), desk.waiting

    assert office.run(wait()) == (504, ["x" * 8] * 2, 0)


def test_a_client_that_leaves_stops_the_model_and_is_counted(office: Any) -> None:
    desk = office.desk()

    async def leave() -> int:
        for _ in range(6):  # more than there are places
            async with aclosing(desk.ask(_who("ann"), "m", asking(say=["x"], times=1000, pause=0.02))) as parts:
                assert (await anext(parts)).text == "x"
        return int(next(iter(office.fleet.seats.values())).link.busy)

    assert office.run(leave()) == 0
    assert [status for status, _, _ in desk.meters.ended] == ["aborted"] * 6
    assert all(prompt > 0 and 1 <= completion <= 4 for _, prompt, completion in desk.meters.ended)


def test_a_client_that_is_cancelled_while_it_waits_for_a_word_stops_the_model(office: Any) -> None:
    desk = office.desk()

    async def leave() -> int:
        task = asyncio.ensure_future(heard(desk.ask(_who("ann"), "m", asking(say=["x"], times=2, pause=0.5))))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        return int(next(iter(office.fleet.seats.values())).link.busy)

    assert office.run(leave()) == 0
    assert desk.meters.ended[0][0] == "aborted"


def test_a_revoked_key_ends_its_open_answers_within_a_second(office: Any) -> None:
    desk, keys = office.desk(), office.keys
    key, shown = keys.create("ann")

    async def revoked() -> tuple[Wrong, float]:
        caller = await keys.authenticate(f"Bearer {shown}")
        task = asyncio.ensure_future(heard(desk.ask(caller, "m", asking(say=["x"], times=1000, pause=0.02))))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(keys.revoke, key.id)
        began = time.monotonic()
        with pytest.raises(Wrong) as error:
            await task
        return error.value, time.monotonic() - began

    error, took = office.run(revoked())
    assert error.status == 401
    assert took <= 1.0


# -- counting ----------------------------------------------------------------------------------------------------------


def test_usage_is_written_also_of_what_was_cut_off_refused_or_failed(office: Any) -> None:
    desk, caller = office.desk(), Caller("eve", "key_eve", frozenset({"user"}))

    async def valid(caller: Caller) -> bool:
        return True

    desk.keys = type("Open", (), {"is_valid": staticmethod(valid)})()

    async def use() -> Usage | None:
        await heard(desk.ask(caller, "m", asking(say=["a", "b", "c"], pause=0.01)))
        async with aclosing(desk.ask(caller, "m", asking(say=["x"], times=1000, pause=0.02))) as parts:
            await anext(parts)
        with pytest.raises(Refused):
            await heard(desk.ask(caller, "m", asking(say=["a"], fail="Refused")))
        await office.limits.flush()
        return await office.fleet.registry.store.read(
            lambda session: session.scalars(select(Usage).where(Usage.key == "key_eve")).one()
        )

    row = office.run(use())
    assert (row.requests, row.owner, row.model) == (3, "eve", "m")
    assert row.completion_tokens >= 3 + 1 + 1
    assert row.prompt_tokens > 40
    assert [status for status, _, _ in desk.meters.ended] == ["stop", "aborted", "content_filter"]
    assert desk.meters.firsts == 3
    assert desk.meters.gaps >= 1


def test_an_unknown_model_is_a_404_before_anything_else(office: Any) -> None:
    desk = office.desk()
    with pytest.raises(Wrong) as error:
        office.run(heard(desk.ask(_who("ann"), "nothing", asking("a"))))
    assert error.value.status == 404
    assert not desk.meters.ended


def test_vectors_pass_the_desk_too(office: Any) -> None:
    desk = office.desk()
    vectors, tokens = office.run(desk.embed(_who("ann"), "universal-sentence-encoder", ["a cat", "a cat", "war"]))
    assert (len(vectors), len(vectors[0])) == (3, 512)
    likeness = [sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors]
    assert likeness[0] == pytest.approx(1.0, abs=1e-5)
    assert likeness[1] == pytest.approx(1.0, abs=1e-5)
    assert likeness[2] < 0.9
    assert tokens >= 6
    assert desk.meters.ended == [("stop", tokens, 0)]
    assert not desk._visits


def test_parts_travel_unchanged(office: Any) -> None:
    async def parts() -> list[Part]:
        return [part async for part in office.desk().ask(_who("ann"), "m", asking(say=["a"]))]

    assert [part.text for part in office.run(parts())] == ["a", ""]
