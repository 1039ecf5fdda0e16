"""Limits: how much a key may ask of the models in a minute and a day, and what it used.

In no 60 seconds more is let in than the limit. Tokens are taken by estimate when a request begins and put right when
it ends, however it ends. The day's quota (UTC) is counted in the store, so it outlives a restart; the minute's windows
lie in the memory of one server and begin anew.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from .errors import Wrong
from .house import Caller
from .store import Store
from .store.tables import Usage

_GATHERED = 0.25  # seconds that usage waits in memory, so that many answers share one commit
_REMEMBERED = 10_000  # keys
_DAY = 86_400
_LOG = logging.getLogger("genwright.server")


class Window:
    """What was taken in the last 60 seconds, by tenths of a second; at most `most` fits. Times are monotonic."""

    def __init__(self, most: int):
        self.most, self.taken = most, 0
        self.slots: deque[list[int]] = deque()  # [tenth of a second, amount], oldest first

    def take(self, amount: int, now: float) -> int:
        """The slot it went into, by which `put_right` finds it."""
        tenth = math.floor(now * 10)
        if not self.slots or self.slots[-1][0] != tenth:
            self.slots.append([tenth, 0])
        self.slots[-1][1] += amount
        self.taken += amount
        return tenth

    def put_right(self, tenth: int, change: int) -> None:
        """What was taken then was more by `change`. Of a slot that is forgotten nothing matters any more."""
        for slot in self.slots:
            if slot[0] == tenth:
                slot[1] += change
                self.taken += change
                return

    def wait(self, amount: int, now: float) -> float:
        """Seconds until `amount` fits: 0 if it does, infinite if it never will."""
        while self.slots and self.slots[0][0] + 601 <= now * 10:
            self.taken -= self.slots.popleft()[1]
        over = self.taken + amount - self.most
        if over <= 0:
            return 0.0
        for tenth, taken in self.slots:
            over -= taken
            if over <= 0:
                return (tenth + 601) / 10 - now
        return math.inf

    def left(self, now: float) -> int:
        self.wait(0, now)
        return max(0, self.most - self.taken)

    def reset(self, now: float) -> float:
        """Seconds until nothing is taken any more."""
        return max(0.0, (self.slots[-1][0] + 601) / 10 - now) if self.slots else 0.0


@dataclass
class Turn:
    """One request being answered: what it has used so far."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def count(self, prompt_tokens: int, completion_tokens: int) -> None:
        """So many up to now, altogether: to be said as often as wanted, so that an answer cut off is counted too."""
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens


@dataclass
class _Meter:
    """What one key has taken. Tokens of the `day`: `stored` as the store knows, `reserved` by answers under way."""

    requests: Window | None
    tokens: Window | None
    day: str = ""
    stored: int = 0
    reserved: int = 0


_Of = tuple[str, str, str]  # key, model, day


@dataclass
class _Used:
    owner: str
    requests: int = 0
    prompt: int = 0
    completion: int = 0

    def add(self, requests: int, prompt: int, completion: int) -> None:
        self.requests += requests
        self.prompt += prompt
        self.completion += completion


class Limits:
    """`clock` tells the day, `ticks` the minute."""

    def __init__(
        self, store: Store, *, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic
    ):
        self.store, self.clock, self.ticks = store, clock, ticks
        self._meters: OrderedDict[str, _Meter] = OrderedDict()  # by key id
        self._unwritten: dict[_Of, _Used] = {}
        self._writing: dict[_Of, _Used] = {}
        self._writer: asyncio.Task[None] | None = None
        self._one_writes = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, caller: Caller, model: str, estimate_tokens: int = 0) -> AsyncIterator[Turn]:
        """While a request is answered. Raises Wrong (429) when the key may not ask it now; else what it used is
        counted at the end, also of an answer that failed or was cut off."""
        day, meter = self._day(), await self._meter(caller)
        taken = self._admit(meter, caller, estimate_tokens)
        turn = Turn()
        try:
            yield turn
        finally:
            meter.reserved -= estimate_tokens
            if meter.tokens:
                meter.tokens.put_right(taken, turn.prompt_tokens + turn.completion_tokens - estimate_tokens)
            used = self._unwritten.setdefault((caller.key_id, model, day), _Used(caller.owner))
            used.add(1, turn.prompt_tokens, turn.completion_tokens)
            if self._writer is None or self._writer.done():
                self._writer = asyncio.create_task(self._write_soon())

    def headers(self, caller: Caller) -> dict[str, str]:
        """`x-ratelimit-*` by OpenAI's names, for the limits that the key has."""
        meter, now, head = self._meter_of(caller), self.ticks(), {}
        for name, window in (("requests", meter.requests), ("tokens", meter.tokens)):
            if window is not None:
                head[f"x-ratelimit-limit-{name}"] = str(window.most)
                head[f"x-ratelimit-remaining-{name}"] = str(window.left(now))
                head[f"x-ratelimit-reset-{name}"] = f"{window.reset(now):.3f}s"
        return head

    async def flush(self) -> None:
        """Write what is not written yet, for the end of the server. Raises Wrong (503) when the store is away."""
        await self._write()
        if self._writer is not None:
            self._writer.cancel()

    # -- letting in ----------------------------------------------------------------------------------------------------

    def _admit(self, meter: _Meter, caller: Caller, estimate: int) -> int:
        """Take a place in every window, or raise and take nothing."""
        now = self.ticks()
        wait = max((w.wait(n, now) for w, n in ((meter.requests, 1), (meter.tokens, estimate)) if w), default=0.0)
        if wait == math.inf:
            raise self._too_much(caller, f"One request of up to {estimate:,} tokens is more than this key may use in a "
                                 "minute; ask less, or for a shorter answer.", None)  # fmt: skip
        if wait > 0:
            raise self._too_much(
                caller, f"This key has reached its limit of the minute; try again in {wait:.1f} s.", wait
            )
        most = caller.limits.get("tokens_per_day")
        if most is not None:
            left = most - meter.stored - self._tokens_unwritten(caller.key_id, meter.day)
            if estimate > left or left <= 0:
                night = _DAY - self.clock() % _DAY
                raise self._too_much(caller, f"This key has used up its {most:,} tokens of today (UTC).", night, False)
            if estimate > left - meter.reserved:
                raise self._too_much(caller, "Answers under way may use up this key's tokens of today.", 1.0)
        meter.reserved += estimate
        if meter.requests:
            meter.requests.take(1, now)
        return meter.tokens.take(estimate, now) if meter.tokens else 0

    def _too_much(self, caller: Caller, said: str, wait: float | None, again: bool = True) -> Wrong:
        head = self.headers(caller) | {"x-should-retry": "true" if again and wait is not None else "false"}
        if wait is not None:
            head |= {"Retry-After": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}
        return Wrong(429, said, code="rate_limit_exceeded" if again else "insufficient_quota", headers=head)

    async def _meter(self, caller: Caller) -> _Meter:
        """The key's meter, with what is stored of today if its day is limited."""
        meter, day = self._meter_of(caller), self._day()
        if meter.day != day and "tokens_per_day" in caller.limits:
            stored = await self.store.read(_tokens_of, caller.key_id, day)
            if meter.day != day:  # nobody was quicker, with figures that are newer by now
                meter.day, meter.stored = day, stored
        return meter

    def _meter_of(self, caller: Caller) -> _Meter:
        meter = self._meters.pop(caller.key_id, None)
        if meter is None:
            meter = _Meter(_window(caller, "requests_per_minute"), _window(caller, "tokens_per_minute"))
        self._meters[caller.key_id] = meter
        if len(self._meters) > _REMEMBERED:
            self._meters.popitem(last=False)
        return meter

    def _day(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).date().isoformat()

    # -- writing down --------------------------------------------------------------------------------------------------

    async def _write_soon(self) -> None:
        while self._unwritten:
            await asyncio.sleep(_GATHERED)
            try:
                await self._write()
            except Wrong as error:  # the store is away for now: it is tried again
                _LOG.warning("usage could not be written yet: %s", error)
                await asyncio.sleep(1)

    async def _write(self) -> None:
        """Add what was used to the store's rows, and learn from them what other servers added."""
        async with self._one_writes:
            self._writing, self._unwritten = self._unwritten, {}
            try:
                stored = await self.store.run(_add, self._writing) if self._writing else {}
            except Wrong:
                for of, used in self._unwritten.items():
                    self._writing.setdefault(of, _Used(used.owner)).add(used.requests, used.prompt, used.completion)
                self._unwritten = self._writing
                raise
            finally:
                self._writing = {}
            for (key, day), tokens in stored.items():
                if (meter := self._meters.get(key)) is not None and meter.day == day:
                    meter.stored = tokens

    def _tokens_unwritten(self, key: str, day: str) -> int:
        both = (*self._unwritten.items(), *self._writing.items())
        return sum(used.prompt + used.completion for of, used in both if of[0] == key and of[2] == day)


def _window(caller: Caller, name: str) -> Window | None:
    return Window(caller.limits[name]) if name in caller.limits else None


def _add(session: Session, used: dict[_Of, _Used]) -> dict[tuple[str, str], int]:
    """Count up the rows of `usage`; the tokens of each (key, day) after it."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    for (key, model, day), one in sorted(used.items()):  # in one order, so that two servers do not wait in a ring
        row = insert(Usage).values(key=key, model=model, day=day, owner=one.owner, requests=one.requests,
                                   prompt_tokens=one.prompt, completion_tokens=one.completion)  # fmt: skip
        figures = ("requests", "prompt_tokens", "completion_tokens")
        more = {name: getattr(Usage, name) + getattr(row.excluded, name) for name in figures}
        session.execute(row.on_conflict_do_update(index_elements=["key", "model", "day"], set_=more))
    return {(key, day): _tokens_of(session, key, day) for key, _, day in used}


def _tokens_of(session: Session, key: str, day: str) -> int:
    total = func.sum(Usage.prompt_tokens + Usage.completion_tokens)
    return int(session.scalar(select(total).where(Usage.key == key, Usage.day == day)) or 0)
