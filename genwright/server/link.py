"""Link: the server's end of a worker. Orders go out, what comes back is handed to whoever waits for it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from genwright.core import GenwrightError, ModelError, Part, Refused, UsageError
from genwright.core.errors import DataError

from .errors import Wrong
from .worker import to_line

_LOG = logging.getLogger("genwright.server.fleet")
_MOST_WAITING = 200_000  # characters of an answer that nobody takes; then it is given up
_PATIENCE = 5.0  # seconds that a worker gets to end by itself
_KNOWN: dict[str, type[GenwrightError]] = {kind.__name__: kind for kind in (UsageError, DataError, ModelError)}


class Mailbox:
    """What is said of one order, until its reader takes it; text that waits is joined, up to a limit.

    `over` is called once, when the worker is done with the order: for one that was cancelled a moment later, with what
    it had taken ({"prompt_tokens", "completion_tokens"}).
    """

    __slots__ = ("_items", "_waiter", "cancel", "ended", "loop", "ordered", "over", "seen")

    def __init__(self, over: Callable[[dict[str, Any]], None] | None = None):
        self.loop = asyncio.get_running_loop()
        self._items: deque[str | Part | BaseException | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.over = over
        self.ordered = False  # the worker knows of it
        self.ended = False  # the worker is done with it
        self.cancel: Callable[[], None] = lambda: None  # tell the worker to stop, if it has not ended
        self.seen: Callable[[bool], None] | None = None  # whoever wants to know whether the model failed

    def put(self, item: str | Part | BaseException | None) -> None:
        """A piece of text, a part, an error to raise, or None for the end."""
        items = self._items
        if items and isinstance(item, str) and isinstance(items[-1], str):
            items[-1] += item
            if len(items[-1]) > _MOST_WAITING:
                self.fail(Wrong(408, "The answer was not taken as it came.", code="client_too_slow"))
            return
        items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Raise `error` for the reader at once, before anything that waits, and stop the worker."""
        self.cancel()
        self._items.clear()
        self.put(error)

    def end(self, taken: dict[str, Any] | None = None) -> None:
        """The worker is done with the order."""
        if not self.ended:
            self.ended = True
            if self.over:
                self.over(taken or {})

    async def get(self) -> Part | None:
        """The next part, or None at the end. Raises what was put to be raised."""
        items = self._items
        if not items:
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item = items.popleft()
        if isinstance(item, str):
            return Part(text=item)
        if isinstance(item, BaseException):
            raise item
        return item


class Link:
    """A worker that runs. `facts` are what it said of its model; `gone` is done once it says nothing any more."""

    def __init__(self, transport: asyncio.SubprocessTransport, name: str):
        self.name = name
        self.transport = transport
        self.pid: int = transport.get_pid()
        self.facts: dict[str, Any] = {}
        self.voices: set[str] = set()  # the adapters that it was started with
        self.started = time.time()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()  # the process is no more
        self.idle = asyncio.Event()
        self.idle.set()
        self._pipe: Any = transport.get_pipe_transport(0)
        self._boxes: dict[int, Mailbox] = {}
        self._numbers = itertools.count(1)

    @classmethod
    async def open(cls, options: dict[str, Any], *, name: str, log: Path) -> Link:
        """Start a worker and wait until its model is loaded. Raises what opening it raises."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as words:
            _, lines = await asyncio.get_running_loop().subprocess_exec(
                _Lines, sys.executable, "-P", "-m", "genwright.server.worker",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=words, start_new_session=True,
            )  # fmt: skip
        link = lines.link = cls(lines.transport, name)
        told = link._boxes[0] = Mailbox(link.facts.update)
        link._tell(options)
        try:
            await told.get()
        except BaseException as error:
            link.kill()
            await link.ended.wait()
            if isinstance(error, Wrong) and error.code == "model_crashed":
                raise ModelError(f"The process for {name} ended while it loaded.", f"{log} says more.") from None
            raise
        return link

    def ask(self, box: Mailbox, voice: str, request: dict[str, Any]) -> None:
        """Order an answer; it arrives in the box, whose `cancel` stops it. Raises Wrong (503) when the process died."""
        self._order(box, "ask", voice=voice, request=request)

    async def call(self, do: str, **order: Any) -> Any:
        """What a small order finds. Raises what the model raises."""
        found: dict[str, Any] = {}
        box = Mailbox(found.update)
        self._order(box, do, **order)
        try:
            await box.get()
        finally:
            box.cancel()
        return found.get("found")

    def _cancel(self, number: int) -> None:
        if number in self._boxes:
            self._tell({"id": number, "do": "cancel"})

    @property
    def busy(self) -> int:
        """Orders under way."""
        return len(self._boxes)

    async def close(self, *, patience: float = _PATIENCE) -> None:
        """Let go of the worker; kill it when it does not end."""
        self._pipe.close()
        try:
            await asyncio.wait_for(self.ended.wait(), patience)
        except TimeoutError:
            self.kill()
            await self.ended.wait()

    def kill(self) -> None:
        if self.transport.get_returncode() is None:
            self.transport.kill()

    # -- lines --------------------------------------------------------------------------------------------------------

    def _order(self, box: Mailbox, do: str, **order: Any) -> None:
        if self.gone.done():
            raise self._crashed()
        number = next(self._numbers)
        self._boxes[number], box.ordered, box.cancel = box, True, partial(self._cancel, number)
        self.idle.clear()
        self._tell({"id": number, "do": do, **order})

    def _tell(self, order: dict[str, Any]) -> None:
        if not self._pipe.is_closing():
            self._pipe.write(to_line(order))

    def hear(self, line: bytes) -> None:
        """One line of the worker."""
        for number, said in orjson.loads(line):
            box = self._boxes.get(number)
            if box is None:
                continue
            if isinstance(said, str):
                box.put(said)
            elif "part" in said:
                box.put(_part(said["part"]))
            else:
                self._done(number, box, said)

    def _done(self, number: int, box: Mailbox, said: dict[str, Any]) -> None:
        del self._boxes[number]
        error = _error(said["error"]) if "error" in said else None
        if box.seen:
            box.seen(isinstance(error, ModelError))
        box.end(said.get("end"))
        box.put(error)
        if not self._boxes:
            self.idle.set()

    def lose(self) -> None:
        """The process has ended: everyone who waits is told."""
        if self.gone.done():
            return
        self.gone.set_result(None)
        boxes, self._boxes = self._boxes, {}
        for box in boxes.values():
            box.end()
            box.put(self._crashed())
        self.idle.set()

    def _crashed(self) -> Wrong:
        return Wrong(503, "The model's process has ended; it is being started again.", code="model_crashed",
                     headers={"Retry-After": "1", "x-should-retry": "true"})  # fmt: skip


class _Lines(asyncio.SubprocessProtocol):
    """Bytes of the worker's standard output, as lines."""

    link: Link

    def __init__(self) -> None:
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.link.hear(line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self.link.lose()

    def process_exited(self) -> None:
        self.link.ended.set()
        self.transport.close()


def _part(told: dict[str, Any]) -> Part:
    return Part(told["kind"], told["text"], Path(told["path"]) if told["path"] else None, told["meta"])


def _error(told: dict[str, Any]) -> Exception:
    """The exception that the worker told of."""
    kind, message, hint = told["kind"], told["message"], told["hint"]
    if kind == "Unforeseen":
        return Wrong(500, "Something went wrong here; the server's log says what.", code="internal_error")
    if kind == "Refused":
        return Refused(message, hint, guard=told["guard"], rule=told["rule"])
    if kind == "TooLong":
        return Wrong(400, f"{message} {hint}", param="messages", code="context_length_exceeded")
    if kind in _KNOWN:
        return _KNOWN[kind](message, hint)
    return Wrong(told["status"], f"{message} {hint}".strip(), code=kind)
