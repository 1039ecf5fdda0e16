"""The desk: the only way by which a path reaches a model.

So many answers run at once as the model decodes together; more wait, key by key in turn, and when too many wait the
next is sent away at once with a time to come back. Whoever leaves takes the answer along, whoever takes too long is
stopped, whose key is revoked too; what was used is counted in every case.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from genwright.core import GenwrightError, Part, Refused, Request

from .errors import Wrong
from .link import Mailbox
from .orders import Order

if TYPE_CHECKING:
    from .fleet import Fleet
    from .house import Caller, Options
    from .keys import Keys
    from .limits import Limits
    from .meters import Meters
    from .registry import Served

T = TypeVar("T")

_TICK = 0.25  # seconds between two looks at the keys of open answers
_LAST_WORDS = 2.0  # seconds to wait for what an answer that was cut off has taken
_AWAY = 4  # characters of a token, by rule of thumb, where nobody can count


class Line:
    """The places of one process, and who waits for one: each key in its turn."""

    def __init__(self, places: int = 1):
        self.places, self.taken = places, 0
        self.waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def is_free(self) -> bool:
        """Whether there is a place that nobody waits for."""
        return self.taken < self.places and not self.waiting

    async def enter(self, who: str) -> None:
        """Take a place, or wait for one. Whoever is cancelled waits no more."""
        if self.is_free:
            self.taken += 1
            return
        mine = asyncio.get_running_loop().create_future()
        self.waiting.setdefault(who, deque()).append(mine)
        try:
            await mine
        except BaseException:
            if mine.done() and not mine.cancelled() and not mine.exception():
                self.leave()  # the place came in the same moment
            else:
                self._forget(who, mine)
            raise

    def leave(self) -> None:
        self.taken -= 1
        self.let_in()

    def widen(self, places: int) -> None:
        """So many places from now on."""
        self.places = max(1, places)
        self.let_in()

    def let_in(self) -> None:
        while self.waiting and self.taken < self.places:
            who = next(iter(self.waiting))
            queue = self.waiting.pop(who)
            mine = queue.popleft()
            if queue:
                self.waiting[who] = queue  # behind the others
            if not mine.done():
                self.taken += 1
                mine.set_result(None)

    def longest(self) -> tuple[str, int]:
        """Who waits with most requests, and with how many."""
        return max(((who, len(queue)) for who, queue in self.waiting.items()), key=lambda one: one[1], default=("", 0))

    def send_away(self, who: str, error: Exception) -> None:
        """The newest of one key's requests waits no more."""
        mine = self.waiting[who][-1]
        self._forget(who, mine)
        mine.set_exception(error)

    def _forget(self, who: str, mine: asyncio.Future[None]) -> None:
        queue = self.waiting.get(who)
        if queue and mine in queue:
            queue.remove(mine)
            if not queue:
                del self.waiting[who]

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))


@dataclass(eq=False)
class Visit:
    """One request at the desk: until when it may stay, and what it has taken so far."""

    caller: Caller
    until: float  # by the loop's clock
    box: Mailbox
    over: asyncio.Event
    bell: asyncio.TimerHandle | None = None  # rings when its time is over
    status: str = "aborted"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    counted: bool = False  # by the model, not by us
    pieces: int = 0

    def note(self, part: Part) -> None:
        self.pieces += bool(part.text)
        meta = part.meta
        if meta:
            if "finish_reason" in meta:
                self.status = str(meta["finish_reason"])
            self.count(meta)

    def count(self, said: dict[str, Any]) -> None:
        """Tokens as the worker tells them, in the last part or when it was cut off."""
        if "prompt_tokens" in said:
            self.prompt_tokens = int(said["prompt_tokens"])
            self.completion_tokens = int(said.get("completion_tokens", self.pieces))
            self.counted = True


@dataclass
class Desk:
    """Made of the parts of the household that it needs."""

    options: Options
    fleet: Fleet
    keys: Keys
    limits: Limits
    meters: Meters
    _lines: dict[str, Line] = field(default_factory=dict)
    _visits: set[Visit] = field(default_factory=set)
    _watcher: asyncio.Task[None] | None = None

    async def ask(
        self, caller: Caller, model: str, asked: Request | Order, *, deadline: float | None = None
    ) -> AsyncGenerator[Part]:
        """The parts of an answer; closing it cancels the decoding. `deadline` is in seconds from now.

        Raises Wrong (404 unknown model, 429 full or over the limits, 503 not to be had now, 504 too late), Refused,
        and whatever the model raises; most of it before the first part.
        """
        served, order = self.fleet.find(model, caller), Order.of(asked)
        loop = asyncio.get_running_loop()
        began = last = loop.time()
        visit = self._visit(caller, began + min(deadline or self.options.deadline, self.options.deadline))
        meters, name = self.meters, served.id
        async with self.limits.turn(caller, name, order.chars // _AWAY + order.tokens) as turn:
            line = await self._enter(served, visit)
            meters.started(name)
            try:
                await self._in_time(visit, self.fleet.begin(served, order, visit.box))
                line.widen(self.fleet.parallel(served))
                get = visit.box.get
                while (part := await get()) is not None:
                    visit.note(part)
                    if part.text:
                        at = loop.time()
                        if visit.pieces == 1:
                            meters.first_token(name, at - began)
                        else:
                            meters.token_gap(name, at - last)
                        last = at
                    yield part
                visit.status = "stop" if visit.status == "aborted" else visit.status
            except (GenwrightError, Wrong) as error:
                visit.status = _status(error)
                raise
            finally:
                visit.box.cancel()
                self._leave(visit)
                try:
                    await self._last_words(visit, order)
                finally:  # who has left may be cancelled again while they are waited for
                    turn.count(visit.prompt_tokens, visit.completion_tokens)
                    seconds = loop.time() - began
                    meters.finished(name, visit.status, visit.prompt_tokens, visit.completion_tokens, seconds)

    async def embed(
        self, caller: Caller, model: str, texts: Sequence[str], *, deadline: float | None = None
    ) -> tuple[Sequence[Sequence[float]], int]:
        """A vector for each text, and the tokens that were read. Raises as `ask` does."""
        vectors, tokens = await self._errand(
            caller, model, sum(map(len, texts)) // _AWAY, deadline,
            lambda served: self.fleet.embed(served.id, texts), lambda found: int(found[1]),
        )  # fmt: skip
        return vectors, tokens

    async def score(
        self, caller: Caller, model: str, text: str, top: int = 0, *, deadline: float | None = None
    ) -> Sequence[dict[str, Any]]:
        """How likely each token of a text is (`Fleet.score`). Raises as `ask` does."""
        return await self._errand(
            caller, model, len(text) // _AWAY, deadline, lambda served: self.fleet.score(served.id, text, top), len
        )

    async def _errand(
        self, caller: Caller, model: str, estimate: int, deadline: float | None,
        work: Callable[[Served], Awaitable[T]], tokens: Callable[[T], int],
    ) -> T:  # fmt: skip
        """Something other than an answer, with the same limits, places and deadline."""
        served = self.fleet.find(model, caller)
        began = asyncio.get_running_loop().time()
        visit = self._visit(caller, began + min(deadline or self.options.deadline, self.options.deadline))
        async with self.limits.turn(caller, served.id, estimate) as turn:
            line = await self._enter(served, visit)
            self.meters.started(served.id)
            try:
                line.widen(int((await self._in_time(visit, self.fleet.ready(served)))["parallel"]))
                found = await self._in_time(visit, work(served))
                visit.status, visit.prompt_tokens = "stop", tokens(found)
                return found
            except (GenwrightError, Wrong) as error:
                visit.status = _status(error)
                raise
            finally:
                self._leave(visit)
                visit.box.end()
                turn.count(visit.prompt_tokens, 0)
                seconds = asyncio.get_running_loop().time() - began
                self.meters.finished(served.id, visit.status, visit.prompt_tokens, 0, seconds)

    # -- places ----------------------------------------------------------------------------------------------------

    def _visit(self, caller: Caller, until: float) -> Visit:
        return Visit(caller, until, Mailbox(), asyncio.Event())

    async def _enter(self, served: Served, visit: Visit) -> Line:
        """Take a place for the model's process, in turn. Raises Wrong (429, 504)."""
        line = self._lines.setdefault(self.fleet.seat_of(served), Line(self.fleet.parallel(served)))
        who = visit.caller.key_id or visit.caller.owner
        if line.is_free:
            line.taken += 1
        else:
            self._make_room(who)
            self.meters.queue(self.waiting + 1)
            try:
                await self._in_time(visit, line.enter(who))
            finally:
                self.meters.queue(self.waiting)

        def over(said: dict[str, Any]) -> None:
            visit.count(said)
            visit.over.set()
            line.leave()

        visit.box.over = over
        visit.bell = asyncio.get_running_loop().call_at(visit.until, lambda: visit.box.fail(_late()))
        self._visits.add(visit)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        return line

    def _leave(self, visit: Visit) -> None:
        """It is watched no more; its place is free when the worker is done with it."""
        self._visits.discard(visit)
        if visit.bell:
            visit.bell.cancel()

    @property
    def waiting(self) -> int:
        """Requests in all queues."""
        return sum(map(len, self._lines.values()))

    def _make_room(self, who: str) -> None:
        """Raises Wrong (429) when too many wait; but a key with few requests takes the place of one with many."""
        if self.waiting < self.options.queue:
            return
        full = Wrong(429, "All places are taken and the queue is full.", code="queue_full",
                     headers={"Retry-After": "1", "x-should-retry": "true"})  # fmt: skip
        mine = sum(len(line.waiting.get(who, ())) for line in self._lines.values())
        longest = max(self._lines.values(), key=lambda line: line.longest()[1])
        other, count = longest.longest()
        if count < mine + 2:
            raise full
        longest.send_away(other, full)

    # -- time ------------------------------------------------------------------------------------------------------

    async def _in_time(self, visit: Visit, work: Awaitable[T]) -> T:
        """Raises Wrong (504) when the visit's time is over first."""
        try:
            async with asyncio.timeout_at(visit.until):
                return await work
        except TimeoutError:
            raise _late() from None

    async def _watch(self) -> None:
        """While there are visitors: stop those whose key is no longer good."""
        while self._visits:
            await asyncio.sleep(_TICK)
            good: dict[str, bool] = {}
            for visit in list(self._visits):
                key = visit.caller.key_id
                if key not in good:
                    good[key] = await self._is_valid(visit.caller)
                if not good[key]:
                    visit.box.fail(Wrong(401, "The API key was revoked, or has expired.", code="invalid_api_key"))

    async def _is_valid(self, caller: Caller) -> bool:
        try:
            return await self.keys.is_valid(caller)
        except Wrong:  # the store is away for a moment
            return True

    async def _last_words(self, visit: Visit, order: Order) -> None:
        """What an answer that was cut off has taken: as the worker tells, else by rule of thumb."""
        try:
            if not visit.counted and visit.box.ordered:
                async with asyncio.timeout(_LAST_WORDS):
                    await visit.over.wait()
        except TimeoutError:
            pass
        finally:
            if not visit.box.ordered:
                visit.box.end()
            elif not visit.counted:
                visit.prompt_tokens = order.chars // _AWAY
                visit.completion_tokens = visit.pieces


def _status(error: Exception) -> str:
    if isinstance(error, Refused):
        return "content_filter"
    return "timeout" if isinstance(error, Wrong) and error.status == 504 else "error"


def _late() -> Wrong:
    return Wrong(504, "The answer took longer than it may.", code="deadline_exceeded",
                 headers={"x-should-retry": "false"})  # fmt: skip
