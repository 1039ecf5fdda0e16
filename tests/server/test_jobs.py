"""Jobs: what was submitted is done, once, whatever dies in between."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from genwright.core import DataError
from genwright.server.errors import Wrong
from genwright.server.house import House
from genwright.server.jobs import Handler, Jobs
from genwright.server.store.tables import Job, JobEvent

from .household import small_house


def story(tell: Callable[[House], Awaitable[None]], tmp_path: Path, **options: Any) -> None:
    """Run a test in a house of its own, and end its jobs whatever happens."""

    async def whole() -> None:
        house = small_house(tmp_path, **options)
        try:
            await tell(house)
        finally:
            await house.jobs.stop()
            house.store.close()

    asyncio.run(whole())


async def until(house: House, job: Job, *states: str, seconds: float = 8.0) -> Job:
    late = time.monotonic() + seconds
    while (now := await house.jobs.get(job.id, job.owner)).state not in states:
        assert time.monotonic() < late, f"still {now.state}, not {states}"
        await asyncio.sleep(0.02)
    return now


async def wrong(work: Awaitable[Any]) -> Wrong:
    with pytest.raises(Wrong) as caught:
        await work
    return caught.value


# -- doing -------------------------------------------------------------------------------------------------------------


def test_a_job_is_done_and_tells_of_itself(tmp_path: Path) -> None:
    async def work(job: Job, house: House) -> dict[str, Any]:
        await house.jobs.event(job.id, "half way", data={"step": 1})
        return {"doubled": job.payload["n"] * 2}

    async def tell(house: House) -> None:
        house.jobs.register("double", work)
        job = await house.jobs.submit("double", "ann", {"n": 21})
        assert (job.state, job.id[:4]) == ("queued", "job_")
        await house.jobs.start(house)
        done = await until(house, job, "succeeded")
        assert done.result == {"doubled": 42}
        assert done.started
        assert done.finished
        assert [(e.number, e.message, e.data) for e in await house.jobs.events(job.id)] == [
            (1, "half way", {"step": 1})
        ]

    story(tell, tmp_path)


def test_a_mistake_of_the_caller_fails_at_once_and_one_of_ours_is_tried_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    tries: dict[str, int] = {}

    async def work(job: Job, house: House) -> dict[str, Any]:
        kind = job.payload["kind"]
        tries[kind] = tries.get(kind, 0) + 1
        if kind == "caller":
            raise DataError("Line 3 is no JSON.", "Mend it.")
        if kind == "always" or tries[kind] < 3:
            raise RuntimeError("CANARY: something broke")
        return {"odd": {1, 2}} if kind == "odd" else {}

    async def tell(house: House) -> None:
        house.jobs.register("k", Handler(work, at_once=9))
        jobs = {
            kind: await house.jobs.submit("k", "ann", {"kind": kind}) for kind in ("caller", "always", "twice", "odd")
        }
        await house.jobs.start(house)
        ended = {kind: await until(house, job, "succeeded", "failed") for kind, job in jobs.items()}
        assert {kind: job.state for kind, job in ended.items()} == {
            "caller": "failed", "always": "failed", "twice": "succeeded", "odd": "failed"}  # fmt: skip
        assert tries == {"caller": 1, "always": 3, "twice": 3, "odd": 3}
        assert ended["caller"].error["message"] == "Line 3 is no JSON. Mend it."  # type: ignore[index]
        assert "CANARY" not in str(ended["always"].error)

    story(tell, tmp_path)


def test_an_error_waits_longer_each_time(tmp_path: Path) -> None:
    begun: list[float] = []

    async def work(job: Job, house: House) -> dict[str, Any]:
        begun.append(time.monotonic())
        raise RuntimeError

    async def tell(house: House) -> None:
        house.jobs.register("k", work)
        job = await house.jobs.submit("k", "ann", {}, most_tries=2)
        await house.jobs.start(house)
        await until(house, job, "failed")
        assert begun[1] - begun[0] > 0.9

    story(tell, tmp_path)


def test_owners_take_turns(tmp_path: Path) -> None:
    order: list[str] = []

    async def work(job: Job, house: House) -> dict[str, Any]:
        order.append(job.owner)
        return {}

    async def tell(house: House) -> None:
        house.jobs.register("k", work)
        for owner in "aaaaaaabbc":
            last = await house.jobs.submit("k", owner, {})
        await house.jobs.start(house)
        while len(order) < 10:
            await asyncio.sleep(0.01)
        await until(house, last, "succeeded")
        assert "".join(order) == "abcabaaaaa"

    story(tell, tmp_path)


def test_so_many_of_a_kind_at_once_and_a_busy_owner_leaves_room(tmp_path: Path) -> None:
    running: list[str] = []
    most: dict[str, int] = {}
    go_on = asyncio.Event()

    async def work(job: Job, house: House) -> dict[str, Any]:
        running.append(job.owner)
        most[job.kind] = max(most.get(job.kind, 0), len(running))
        await go_on.wait()
        running.remove(job.owner)
        return {}

    async def tell(house: House) -> None:
        house.jobs.register("k", Handler(work, at_once=3))
        jobs = [await house.jobs.submit("k", owner, {}) for owner in "aaaaab"]
        await house.jobs.start(house)
        while len(running) < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert sorted(running) == ["a", "a", "b"]
        go_on.set()
        for job in jobs:
            await until(house, job, "succeeded")
        assert most == {"k": 3}

    story(tell, tmp_path)


# -- once --------------------------------------------------------------------------------------------------------------


def test_the_same_idempotency_key_is_the_same_job(tmp_path: Path) -> None:
    done: list[str] = []

    async def work(job: Job, house: House) -> dict[str, Any]:
        done.append(job.id)
        return {"n": len(done)}

    async def tell(house: House) -> None:
        house.jobs.register("k", work)
        submitted = await asyncio.gather(
            *(house.jobs.submit("k", "ann", {"n": 1}, idempotency_key="once") for _ in range(8))
        )
        assert len({job.id for job in submitted}) == 1
        others = [await house.jobs.submit("k", "bob", {"n": 1}, idempotency_key="once")]
        others += [await house.jobs.submit("k", "ann", {"n": 1}) for _ in range(2)]
        assert len({job.id for job in (submitted[0], *others)}) == 4
        assert (await wrong(house.jobs.submit("k", "ann", {"n": 2}, idempotency_key="once"))).status == 409
        await house.jobs.start(house)
        for job in (submitted[0], *others):
            await until(house, job, "succeeded")
        again = await house.jobs.submit("k", "ann", {"n": 1}, idempotency_key="once")
        assert (again.id, again.state) == (submitted[0].id, "succeeded")
        assert len(done) == 4

    story(tell, tmp_path)


# -- stopping ----------------------------------------------------------------------------------------------------------


def _steps(log: list[Any]) -> Any:
    """A handler of ten steps that keeps its place, and says when it was stopped."""

    async def work(job: Job, house: House) -> dict[str, Any]:
        try:
            for step in range(job.place.get("step", 0), 10):
                log.append(step)
                await asyncio.sleep(0.03)
                await house.jobs.remember(job, {"step": step + 1})
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)  # it takes a while to stop what was begun
            log.append("stopped")
            raise
        return {"steps": 10}

    return work


def test_pause_resume_and_cancel(tmp_path: Path) -> None:
    log: list[Any] = []

    async def tell(house: House) -> None:
        house.jobs.register("k", _steps(log))
        await house.jobs.start(house)
        job = await house.jobs.submit("k", "ann", {})
        while 2 not in log:
            await asyncio.sleep(0.01)
        await house.jobs.pause(job.id, "ann")
        paused = await until(house, job, "paused")
        assert log[-1] == "stopped"
        assert 0 < paused.place["step"] < 10
        await asyncio.sleep(0.1)
        assert log[-1] == "stopped"
        await house.jobs.resume(job.id, "ann")
        while log[-1] == "stopped":
            await asyncio.sleep(0.01)
        assert log[-1] == paused.place["step"]  # it went on where it was
        assert (await house.jobs.cancel(job.id, "ann")).state == "cancelling"
        await until(house, job, "cancelled")
        assert log.count("stopped") == 2
        assert (await house.jobs.cancel(job.id, "ann")).state == "cancelled"
        for late in (house.jobs.pause, house.jobs.resume):
            assert (await wrong(late(job.id, "ann"))).status == 400

    story(tell, tmp_path)


def test_what_waits_is_cancelled_at_once_and_what_is_done_cannot_be(tmp_path: Path) -> None:
    async def work(job: Job, house: House) -> dict[str, Any]:
        return {}

    async def tell(house: House) -> None:
        house.jobs.register("k", work)
        first, second, third = [await house.jobs.submit("k", "ann", {}) for _ in range(3)]
        assert (await house.jobs.cancel(first.id, "ann")).state == "cancelled"
        assert (await house.jobs.pause(second.id, "ann")).state == "paused"
        await house.jobs.start(house)
        await until(house, third, "succeeded")
        assert (await house.jobs.get(second.id, "ann")).state == "paused"
        assert (await wrong(house.jobs.cancel(third.id, "ann"))).status == 400

    story(tell, tmp_path)


def test_anothers_jobs_are_not_there(tmp_path: Path) -> None:
    async def tell(house: House) -> None:
        job = await house.jobs.submit("k", "ann", {})
        for reach in (house.jobs.get, house.jobs.cancel, house.jobs.pause, house.jobs.resume):
            assert (await wrong(reach(job.id, "bob"))).status == 404
        assert await house.jobs.list("k", "bob") == []
        assert [j.id for j in await house.jobs.list("k", "ann")] == [job.id]
        assert await house.jobs.list("other", "ann") == []

    story(tell, tmp_path)


# -- events ------------------------------------------------------------------------------------------------------------


def test_a_stream_of_events_is_taken_up_where_it_broke_off(tmp_path: Path) -> None:
    async def work(job: Job, house: House) -> dict[str, Any]:
        for n in range(1, 8):
            await house.jobs.event(job.id, f"event {n}", level="warn" if n == 3 else "info")
        return {}

    async def tell(house: House) -> None:
        house.jobs.register("k", work)
        job = await house.jobs.submit("k", "ann", {})

        async def follow(after: int, most: int) -> list[JobEvent]:
            seen: list[JobEvent] = []
            async for event in house.jobs.follow(job.id, after):
                seen.append(event)
                if len(seen) == most:
                    break
            return seen

        watching = asyncio.create_task(follow(0, 3))
        await house.jobs.start(house)
        seen = await watching
        seen += await follow(seen[-1].number, 100)  # to the job's end, which ends the stream
        assert [event.number for event in seen] == [1, 2, 3, 4, 5, 6, 7]
        assert seen[2].level == "warn"
        newest = await house.jobs.events(job.id, limit=2, newest_first=True)
        assert [event.number for event in newest] == [7, 6]
        assert [e.number for e in await house.jobs.events(job.id, 6, 2, newest_first=True)] == [5, 4]

    story(tell, tmp_path)


def test_events_of_many_writers_are_numbered_without_gaps(tmp_path: Path) -> None:
    async def tell(house: House) -> None:
        job = await house.jobs.submit("k", "ann", {})
        await asyncio.gather(*(house.jobs.event(job.id, str(n)) for n in range(30)))
        assert [event.number for event in await house.jobs.events(job.id)] == list(range(1, 31))

    story(tell, tmp_path)


# -- dying -------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_stopped_gives_its_jobs_back(tmp_path: Path) -> None:
    log: list[Any] = []

    async def tell(house: House) -> None:
        house.jobs.register("k", _steps(log))
        await house.jobs.start(house)
        job = await house.jobs.submit("k", "ann", {})
        while 3 not in log:
            await asyncio.sleep(0.01)
        await house.jobs.stop()
        given_back = await house.jobs.get(job.id, "ann")
        assert (given_back.state, given_back.losses, log[-1]) == ("queued", 0, "stopped")
        second = small_house(tmp_path)
        second.jobs.register("k", _steps(log))
        await second.jobs.start(second)
        await until(house, job, "succeeded")
        assert [step for step in log if step != "stopped"].count(9) == 1
        await second.jobs.stop()
        second.store.close()

    story(tell, tmp_path)


CHILD = """
    import asyncio, sys
    from pathlib import Path
    from tests.server.household import small_house

    async def work(job, house):
        for step in range(job.place.get("step", 0), 10):
            with (Path(sys.argv[1]) / "steps").open("a") as log:
                log.write(f"{step}\\n")
            await asyncio.sleep(0.05)
            await house.jobs.remember(job, {"step": step + 1})
        return {"steps": 10}

    async def main():
        house = small_house(Path(sys.argv[1]), lease=float(sys.argv[2]))
        house.jobs.register("k", work)
        await house.jobs.start(house)
        print("up", flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
"""


def _server(tmp_path: Path, lease: float) -> subprocess.Popen[str]:
    code = textwrap.dedent(CHILD)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(lease)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    return process


def _end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def _steps_of(tmp_path: Path) -> list[int]:
    return [int(line) for line in (tmp_path / "steps").read_text().split()] if (tmp_path / "steps").exists() else []


def test_a_job_of_a_killed_server_goes_on_at_once_in_the_next_on_this_machine(tmp_path: Path) -> None:
    async def tell(house: House) -> None:
        job = await house.jobs.submit("k", "ann", {})
        first = _server(tmp_path, lease=600)  # far longer than this test
        while len(_steps_of(tmp_path)) < 3:
            await asyncio.sleep(0.01)
        _end(first)
        left = await house.jobs.get(job.id, "ann")
        assert left.state == "running"
        began = time.monotonic()
        house.jobs.register("k", _never)
        second = _server(tmp_path, lease=600)
        done = await until(house, job, "succeeded")
        _end(second)
        assert (done.losses, done.result) == (0, {"steps": 10})
        assert time.monotonic() - began < 8
        steps = _steps_of(tmp_path)
        assert steps == [*range(steps[-1] + 1)] or len(steps) == 11  # at most the step it died in was done twice

    story(tell, tmp_path)


async def _never(job: Job, house: House) -> dict[str, Any]:
    raise AssertionError("this house only watches")


def test_a_job_is_taken_over_when_its_lease_runs_out_and_the_late_one_changes_nothing(tmp_path: Path) -> None:
    """The first server is only frozen: when it wakes, the job is another's."""

    async def tell(house: House) -> None:
        job = await house.jobs.submit("k", "ann", {})
        first = _server(tmp_path, lease=1.5)
        while len(_steps_of(tmp_path)) < 2:
            await asyncio.sleep(0.01)
        os.kill(first.pid, signal.SIGSTOP)
        second = _server(tmp_path, lease=1.5)
        taken = await until(house, job, "succeeded")
        os.kill(first.pid, signal.SIGCONT)
        await asyncio.sleep(0.3)
        now = await house.jobs.get(job.id, "ann")
        assert (now.state, now.result, now.finished, now.place) == (
            "succeeded",
            {"steps": 10},
            taken.finished,
            taken.place,
        )
        _end(first, second)

    story(tell, tmp_path)


def test_a_lease_is_renewed_while_the_work_goes_on(tmp_path: Path) -> None:
    begun: list[str] = []

    async def work(job: Job, house: House) -> dict[str, Any]:
        begun.append(house.jobs.worker)
        await asyncio.sleep(2.0)
        return {}

    async def tell(house: House) -> None:
        other = Jobs(house.store, house.options.data, lease=1.2)
        for jobs in (house.jobs, other):
            jobs.register("k", work)
            await jobs.start(house)
        job = await house.jobs.submit("k", "ann", {})
        await until(house, job, "succeeded")
        await other.stop()
        assert len(begun) == 1

    story(tell, tmp_path, lease=1.2)


def test_a_job_that_kills_its_servers_is_given_up(tmp_path: Path) -> None:
    async def tell(house: House) -> None:
        job = await house.jobs.submit("k", "ann", {})
        house.jobs.register("other", _never)
        for _ in range(11):
            with house.store.begin() as session:
                row = session.get(Job, job.seq)
                row.state, row.worker, row.lease = "running", "dead", 1.0  # type: ignore[union-attr]
            await house.jobs._take(house)
        ended = await house.jobs.get(job.id, "ann")
        assert (ended.state, ended.error["code"]) == ("failed", "job_lost")  # type: ignore[index]

    story(tell, tmp_path)


def test_jobs_wait_while_the_store_is_away(tmp_path: Path, monkeypatch: Any) -> None:
    done = asyncio.Event()

    async def work(job: Job, house: House) -> dict[str, Any]:
        done.set()
        return {"kept": True}

    async def tell(house: House) -> None:
        house.jobs.register("k", work)
        job = await house.jobs.submit("k", "ann", {})
        run, away = house.store.run, True

        async def gone(work: Any, *args: Any, **kwargs: Any) -> Any:
            if away and done.is_set():
                raise Wrong(503, "away")
            return await run(work, *args, **kwargs)

        monkeypatch.setattr(house.store, "run", gone)
        await house.jobs.start(house)
        await done.wait()
        await asyncio.sleep(0.1)
        assert (await house.jobs.get(job.id, "ann")).state == "running"
        away = False
        assert (await until(house, job, "succeeded")).result == {"kept": True}

    story(tell, tmp_path)
