"""The desk: so many answers at once, so many in the queue, the rest is sent away at once with a time to come back.

Models are plain iterators, so each answer is pulled by a thread; what it says goes to the event loop through a small
buffer. Whoever leaves takes the answer with them: the iterator is closed, and the model stops.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import closing

from genwright.core import Part

from .errors import Wrong

_BUFFER = 64  # parts that wait for a slow reader; then the model waits too


class Desk:
    """`workers` answers run at once and `queue` more may wait."""

    def __init__(self, workers: int, queue: int):
        self.capacity = workers + queue
        self.taken = 0
        self.threads = ThreadPoolExecutor(workers, "answer")

    async def answers(self, ask: Callable[[], Generator[Part]]) -> AsyncGenerator[Part]:
        """The parts of `ask()`. Raises Wrong (429) when there is no room, and whatever `ask` raises.

        Closing it stops the model at its next part.
        """
        if self.taken >= self.capacity:
            raise Wrong(
                429, "All places are taken and the queue is full.", code="queue_full",
                headers={"Retry-After": "1", "x-should-retry": "true"},
            )  # fmt: skip
        self.taken += 1
        pull = _Pull(ask, asyncio.get_running_loop())
        running = self.threads.submit(pull.run)
        running.add_done_callback(lambda _: pull.loop.call_soon_threadsafe(self._leave))
        try:
            while (found := await pull.parts.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            pull.left.set()
            running.cancel()  # if it still waits for its turn

    def _leave(self) -> None:
        self.taken -= 1

    def close(self) -> None:
        """Let nobody in any more."""
        self.capacity = 0
        self.threads.shutdown(wait=False, cancel_futures=True)


class _Pull:
    """One answer being pulled out of its iterator by a thread."""

    def __init__(self, ask: Callable[[], Generator[Part]], loop: asyncio.AbstractEventLoop):
        self.ask, self.loop = ask, loop
        self.parts: asyncio.Queue[Part | BaseException | None] = asyncio.Queue(_BUFFER)
        self.left = threading.Event()

    def run(self) -> None:
        end: BaseException | None = None
        try:
            with closing(self.ask()) as parts:
                for part in parts:
                    if not self._hand_over(part):
                        return
        except BaseException as error:
            end = error
        self._hand_over(end)

    def _hand_over(self, part: Part | BaseException | None) -> bool:
        """Wait until there is room; False when the reader has left."""
        if self.left.is_set() or self.loop.is_closed():
            return False
        put = asyncio.run_coroutine_threadsafe(self.parts.put(part), self.loop)
        while not self.left.is_set():
            try:
                put.result(0.1)
                return True
            except NotYet:
                continue
        put.cancel()
        return False
