"""Jobs: durable work. What was submitted is done, once, whatever dies in between.

A server takes a job for the time of a lease and renews it while it works. When it dies the lease runs out – or, on the
same machine, its lock on a file is seen to be gone – and the next server takes the job and calls its handler again.
So a handler is written to go on: it finds in `job.place` what it told `jobs.remember`, and its own files.

    async def work(job: Job, house: House) -> dict:    # its result; in a routes module, JOBS = {"fine_tuning": work}
        for step in range(job.place.get("step", 0), 10):
            ...
            await house.jobs.remember(job, {"step": step + 1})

Cancel, pause and the server's end reach it as asyncio.CancelledError: it stops what it began and lets the error pass.
An error of the caller's making (a status below 500, but 408 and 429) fails the job; any other is tried again, later
each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased, load_only

from genwright.core.home import locked

from .errors import Wrong, body_of
from .store import Store
from .store.documents import mine, paged
from .store.tables import Job, JobEvent
from .wire import new_id

if TYPE_CHECKING:
    from .house import House

OVER = ("succeeded", "failed", "cancelled")
_UNDER_WAY = ("running", "cancelling")
_TICK = 1.0  # seconds between looks at the store, at most: how soon another process's cancel is noticed
_PASSING = (408, 429)  # what is wrong now and may be right later
_MOST_LOSSES = 10  # leases lost in a row without getting on: then the job is what kills its servers
_UNWINDING = 10.0  # seconds that handlers get to stop what they began
_LOG = logging.getLogger("genwright.server")

Work = Callable[[Job, "House"], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Handler:
    """What does a kind of job, and how many of them at once in one server."""

    work: Work
    at_once: int = 1


class Jobs:
    """`folder` is where servers on one machine see whether another is alive; `lease` is in seconds."""

    def __init__(self, store: Store, folder: Path, *, lease: float = 30.0, clock: Callable[[], float] = time.time):
        self.store, self.folder, self.lease, self.clock = store, folder, lease, clock
        self.worker, self.tick = secrets.token_hex(8), min(_TICK, lease / 4)
        self._handlers: dict[str, Handler] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._wake, self._bell = asyncio.Event(), asyncio.Event()
        self._alive = contextlib.ExitStack()
        self._renewed, self._ending = 0.0, False

    # -- for routes ----------------------------------------------------------------------------------------------------

    def register(self, kind: str, work: Work | Handler) -> None:
        self._handlers[kind] = work if isinstance(work, Handler) else Handler(work)

    async def submit(
        self, kind: str, owner: str, payload: dict[str, Any], *, id: str = "", idempotency_key: str | None = None,
        most_tries: int = 3,
    ) -> Job:  # fmt: skip
        """A job that is sure to be done once this returns. The same key of the same owner gives the same job again.

        Raises Wrong (409) when the key came with another payload before.
        """
        job = await self.store.run(_submit, Job(
            id=id or new_id("job_"), owner=owner, created=int(self.clock()), kind=kind, state="queued", payload=payload,
            place={}, idempotency_key=idempotency_key or None, wanted="", worker="", taken=0.0, lease=0.0,
            not_before=0.0, tries=0, most_tries=most_tries, losses=0,
        ))  # fmt: skip
        self._wake.set()
        return job

    async def get(self, id: str, owner: str | None) -> Job:
        """Raises Wrong (404)."""
        return await self.store.read(mine, Job, id, owner)

    async def list(
        self, kind: str, owner: str, after: str | None = None, limit: int = 20, order: str = "desc",
        *, fits: Callable[[Job], bool] | None = None,
    ) -> Sequence[Job]:  # fmt: skip
        """Those that fit; one more than `limit` when there is more to come."""
        return await self.store.read(
            lambda session: paged(session, Job, owner, after, limit, order, Job.kind == kind, fits=fits)
        )

    async def cancel(self, id: str, owner: str | None) -> Job:
        """Asks it to end; what has ended by itself is an error. Raises Wrong (400, 404)."""
        return await self._change(id, owner, _cancel)

    async def forget(self, id: str, owner: str, *, also: Callable[[Session], None] | None = None) -> None:
        """Remove it, and what else `also` removes; whoever works on it is stopped. Raises Wrong (404)."""
        await self.store.run(_forget, id, owner, also)

    async def pause(self, id: str, owner: str | None) -> Job:
        return await self._change(id, owner, _pause)

    async def resume(self, id: str, owner: str | None) -> Job:
        return await self._change(id, owner, _resume)

    async def events(
        self, id: str, after: int = 0, limit: int = 100, *, newest_first: bool = False
    ) -> Sequence[JobEvent]:
        """Up to `limit` events with numbers past `after` (before it, newest first, unless it is 0)."""
        return await self.store.read(_events, id, after, limit, newest_first)

    async def follow(self, id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        """Events as they come, from past `after`, until the job is over: a stream that can be taken up anywhere."""
        while True:
            bell, job = self._bell, await self.get(id, None)
            for event in (found := await self.events(id, after)):
                after = event.number
                yield event
            if not found and job.state in OVER:
                return
            if not found:
                await _heard(bell, self.tick)

    # -- for handlers --------------------------------------------------------------------------------------------------

    async def event(self, id: str, message: str, level: str = "info", data: dict[str, Any] | None = None) -> None:
        """Tell of the job, for whoever follows it. `level` is info, warn or error."""
        await self.store.run(_tell, id, self.clock(), message, level, data)
        self._ring()

    async def remember(
        self, job: Job, place: dict[str, Any], *, also: Callable[[Session], None] | None = None
    ) -> None:  # fmt: skip
        """Keep how far it is, and what else `also` writes: both or neither. Raises asyncio.CancelledError when the job
        is another server's by now, or gone."""
        if not await self.store.run(_remember, job.id, self.worker, place, also):
            raise asyncio.CancelledError
        job.place = place

    # -- the server's part ---------------------------------------------------------------------------------------------

    async def start(self, house: House) -> None:
        """Begin to work, first on what servers of this machine left behind that are dead."""
        alive = self.folder / "alive"
        self._alive.enter_context(locked(alive / self.worker))
        for path in alive.iterdir():
            if path.name != self.worker and _is_free(path):
                await self.store.run(_let_go, Job.worker == path.name, self.clock())
                path.unlink(missing_ok=True)
        self._looking = asyncio.create_task(self._look(house))

    async def stop(self) -> None:
        """Give back what is being done; whoever starts next goes on with it."""
        self._ending = True
        self._wake.set()
        if self._looking is not None:  # it is not cut off: it might be taking a job just now
            await self._looking
        for task in self._running.values():
            if not task.cancelling():
                task.cancel()
        late = time.monotonic() + _UNWINDING
        while self._running and time.monotonic() < late:
            await asyncio.sleep(0.01)
        self._alive.close()
        if not self._running:
            (self.folder / "alive" / self.worker).unlink(missing_ok=True)

    async def _look(self, house: House) -> None:
        while not self._ending:
            self._wake.clear()
            try:
                await self._obey()
                while not self._ending and await self._take(house):
                    pass
            except Wrong as error:  # the store is away for now
                _LOG.warning("jobs wait: %s", error)
            except Exception:
                _LOG.exception("jobs wait, for a reason that was not foreseen")
            await _heard(self._wake, self.tick)

    async def _obey(self) -> None:
        """Keep the leases of what runs here, and stop what is to be stopped or is no longer ours."""
        if not self._running:
            return
        if time.monotonic() - self._renewed > self.lease / 3:
            await self.store.run(_renew, list(self._running), self.worker, self.clock() + self.lease)
            self._renewed = time.monotonic()
        ours = {job.id: job for job in await self.store.read(_of_worker, self.worker)}
        for id, task in list(self._running.items()):
            job = ours.get(id)
            if (job is None or job.state == "cancelling" or job.wanted) and not task.cancelling():
                task.cancel()

    async def _take(self, house: House) -> bool:
        busy = [task.get_name() for task in self._running.values()]
        kinds = [kind for kind, handler in self._handlers.items() if busy.count(kind) < handler.at_once]
        now = self.clock()
        if not kinds or not await self.store.read(_is_due, now, kinds):
            return False
        job = await self.store.run(_take, now, kinds, list(self._running), self.worker, now + self.lease)
        if job is not None:
            task = asyncio.create_task(self._do(job, house), name=job.kind)
            self._running[job.id] = task
            self._ring()
        return job is not None

    async def _do(self, job: Job, house: House) -> None:
        result, error, told_to_stop = None, None, asyncio.current_task().cancelling  # type: ignore[union-attr]
        try:
            result = await self._handlers[job.kind].work(job, house)
            json.dumps(result)  # now, while it can still be told of
        except asyncio.CancelledError:
            if not told_to_stop():
                error = body_of(RuntimeError(f"the handler of {job.kind} cancelled itself"))
        except Exception as caught:
            result, error = None, body_of(caught)
        finally:
            await asyncio.shield(self._end(job, result, error))

    async def _end(self, job: Job, result: dict[str, Any] | None, error: tuple[int, dict[str, Any]] | None) -> None:
        """Write down how it ended. While the store is away this waits; in the worst case the work is done again."""
        try:
            while not await self._written(job, result, error):
                await asyncio.sleep(_TICK)
        finally:
            del self._running[job.id]
            self._wake.set()
            self._ring()

    async def _written(self, job: Job, result: dict[str, Any] | None, error: tuple[int, dict[str, Any]] | None) -> bool:
        try:
            await self.store.run(_end, self.clock(), job.id, self.worker, result, error)
        except Wrong as away:
            _LOG.warning("the end of %s cannot be written yet: %s", job.id, away)
            return False
        return True

    async def _change(self, id: str, owner: str | None, change: Callable[[Job, float], None]) -> Job:
        job = await self.store.run(_changed, id, owner, change, self.clock())
        self._wake.set()
        self._ring()
        return job

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()


async def _heard(bell: asyncio.Event, seconds: float) -> None:
    """Wait for it, but no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await bell.wait()


# -- transactions ------------------------------------------------------------------------------------------------------


def _submit(session: Session, job: Job) -> Job:
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:
        if job.idempotency_key is None:
            raise
        key = (Job.owner == job.owner, Job.kind == job.kind, Job.idempotency_key == job.idempotency_key)
        before = session.scalars(select(Job).where(*key)).one()
        if before.payload != job.payload:
            raise Wrong(409, "This Idempotency-Key came with another request before; use a new one.",
                        code="idempotency_key_reused") from None  # fmt: skip
        return before
    return job


def _is_due(session: Session, now: float, kinds: Sequence[str]) -> bool:
    waits = (Job.state == "queued") & (Job.not_before <= now) & Job.kind.in_(kinds)
    lost = Job.state.in_(_UNDER_WAY) & (Job.lease < now)
    return session.scalar(select(Job.seq).where(or_(waits, lost)).limit(1)) is not None


def _take(
    session: Session, now: float, kinds: Sequence[str], but_not: Sequence[str], worker: str, lease: float
) -> Job | None:
    """The next job: of the owner with the fewest under way, then of the one served longest ago, then the oldest."""
    _let_go(session, (Job.lease < now) & Job.id.not_in(but_not), now)
    other = aliased(Job)
    busy = select(func.count()).where(other.owner == Job.owner, other.state.in_(_UNDER_WAY), other.kind.in_(kinds))
    served = select(func.max(other.taken)).where(other.owner == Job.owner)
    oldest = func.min(Job.seq)
    turn = (
        select(oldest)
        .where(Job.state == "queued", Job.not_before <= now, Job.kind.in_(kinds), Job.id.not_in(but_not))
        .group_by(Job.owner)
        .order_by(busy.scalar_subquery(), served.scalar_subquery(), oldest)
    )
    next_one = select(Job).where(Job.seq == session.scalar(turn.limit(1)), Job.state == "queued")
    job = session.scalars(next_one.with_for_update(skip_locked=True)).one_or_none()
    if job is not None:
        job.state, job.worker, job.lease, job.taken = "running", worker, lease, now
        job.started = job.started or int(now)
    return job


def _let_go(session: Session, gone: ColumnElement[bool], now: float) -> None:
    """Take jobs from workers that are gone."""
    for job in session.scalars(select(Job).where(Job.state.in_(_UNDER_WAY), gone).with_for_update(skip_locked=True)):
        job.losses += 1
        if job.state == "running" and job.losses > _MOST_LOSSES:
            said = f"The server ended {job.losses} times in a row while this was being done."
            _over(job, "failed", now, {"message": said, "type": "server_error", "param": None, "code": "job_lost"})
        else:
            _stopped(job, now)


def _end(
    session: Session, now: float, id: str, worker: str, result: dict[str, Any] | None,
    error: tuple[int, dict[str, Any]] | None,
) -> None:  # fmt: skip
    query = select(Job).where(Job.id == id, Job.worker == worker, Job.state.in_(_UNDER_WAY))
    job = session.scalars(query.with_for_update()).one_or_none()
    if job is None:
        return  # it is another server's by now
    if result is not None:
        job.result = result
        _over(job, "succeeded", now)
    elif error is None or job.state == "cancelling":
        _stopped(job, now)
    else:
        job.tries += 1
        if (error[0] < 500 and error[0] not in _PASSING) or job.tries >= job.most_tries:
            _over(job, "failed", now, error[1]["error"])
        else:
            _stopped(job, now)
            job.not_before = now + 2**job.tries * random.uniform(0.5, 1)


def _stopped(job: Job, now: float) -> None:
    """Nobody works on it any more: it waits for the next, unless it was to end here."""
    job.worker, job.not_before = "", now
    if job.state == "cancelling":
        _over(job, "cancelled", now)
    else:
        job.state, job.wanted = ("paused" if job.wanted == "pause" else "queued"), ""


def _over(job: Job, state: str, now: float, error: dict[str, Any] | None = None) -> None:
    job.state, job.worker, job.wanted, job.error, job.finished = state, "", "", error, int(now)


def _changed(session: Session, id: str, owner: str | None, change: Callable[[Job, float], None], now: float) -> Job:
    job = mine(session, Job, id, owner, lock=True)
    change(job, now)
    return job


def _forget(session: Session, id: str, owner: str, also: Callable[[Session], None] | None) -> None:
    session.delete(mine(session, Job, id, owner, lock=True))
    if also:
        also(session)


def _cancel(job: Job, now: float) -> None:
    if job.state in ("queued", "paused"):
        _over(job, "cancelled", now)
    elif job.state == "running":
        job.state = "cancelling"
    elif job.state in ("succeeded", "failed"):
        raise _too_late(job)


def _pause(job: Job, now: float) -> None:
    if job.state == "queued":
        job.state = "paused"
    elif job.state == "running":
        job.wanted = "pause"
    elif job.state != "paused":
        raise _too_late(job)


def _resume(job: Job, now: float) -> None:
    if job.state == "paused":
        job.state, job.not_before = "queued", now
    elif job.state == "running":
        job.wanted = ""
    elif job.state != "queued":
        raise _too_late(job)


def _too_late(job: Job) -> Wrong:
    return Wrong(400, f"The job {job.id} is {job.state} already.", code="job_over")


def _renew(session: Session, ids: Sequence[str], worker: str, lease: float) -> None:
    ours = (Job.worker == worker, Job.id.in_(ids), Job.state.in_(_UNDER_WAY))
    session.execute(update(Job).where(*ours).values(lease=lease))


def _of_worker(session: Session, worker: str) -> Sequence[Job]:
    """Without their payloads, which may be megabytes, for this is asked every second."""
    few = load_only(Job.id, Job.state, Job.wanted)
    return session.scalars(select(Job).where(Job.worker == worker).options(few)).all()


def _remember(
    session: Session, id: str, worker: str, place: dict[str, Any], also: Callable[[Session], None] | None
) -> bool:  # fmt: skip
    query = update(Job).where(Job.id == id, Job.worker == worker).values(place=place, losses=0)
    ours: bool = session.execute(query).rowcount == 1  # type: ignore[attr-defined]
    if ours and also:
        also(session)
    return ours


def _tell(session: Session, id: str, now: float, message: str, level: str, data: dict[str, Any] | None) -> None:
    mine(session, Job, id, None, lock=True)  # numbers are given out one at a time
    last = session.scalar(select(func.max(JobEvent.number)).where(JobEvent.job == id)) or 0
    session.add(JobEvent(job=id, number=last + 1, created=now, level=level, message=message, data=data))


def _events(session: Session, id: str, after: int, limit: int, newest_first: bool) -> Sequence[JobEvent]:
    query = select(JobEvent).where(JobEvent.job == id).limit(limit)
    if not newest_first:
        return session.scalars(query.where(JobEvent.number > after).order_by(JobEvent.number)).all()
    older = query.where(JobEvent.number < after) if after else query
    return session.scalars(older.order_by(JobEvent.number.desc())).all()


def _is_free(path: Path) -> bool:
    """Whether nobody holds the lock of this file."""
    try:
        with locked(path, waiting=_held):
            return True
    except _Held:
        return False


class _Held(Exception):
    pass


def _held() -> None:
    raise _Held
