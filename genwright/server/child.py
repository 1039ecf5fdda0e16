"""A child process of the server for heavy work, and what it says, a JSON object a line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_TICK = 0.5  # seconds between two looks at how far it is
_PATIENCE = 8.0  # seconds that it gets to end by itself when the server ends
_LONGEST_LINE = 1 << 20
# Threads that wait for one another sleep: spinning beside busy models they took ten to twenty times as long.
_CALM = {"OMP_WAIT_POLICY": "PASSIVE"}


class Child:
    """`python -m MODULE ARGUMENTS…`, which is to end when its standard input does, for then the server is gone."""

    def __init__(self, process: asyncio.subprocess.Process, said: Callable[[dict[str, Any]], Awaitable[None]]):
        self.process = process
        self._listening = asyncio.create_task(self._listen(said))

    @classmethod
    async def start(
        cls, module: str, *arguments: str, log: Path, said: Callable[[dict[str, Any]], Awaitable[None]]
    ) -> Child:
        """What it writes to standard error goes to the file `log`; `said` is called with each of its lines."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *arguments, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE, stderr=errors, limit=_LONGEST_LINE, start_new_session=True,
                env=_CALM | os.environ,
            )  # fmt: skip
        return cls(process, said)

    async def end(self, look: Callable[[], Awaitable[None]]) -> int:
        """Its exit code, once it has ended; until then `look` is called twice a second, and once after."""
        waiting = asyncio.ensure_future(self.process.wait())
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=_TICK)
                await look()
            await self._listening
            return waiting.result()
        finally:
            waiting.cancel()

    async def stop(self, *, at_once: bool, patience: float | None = _PATIENCE) -> None:
        """End it: at once, or by Ctrl-C, so that it can write down how far it is. None is all the time it wants."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL if at_once else signal.SIGINT)
        try:
            await asyncio.wait_for(self.process.wait(), patience)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening

    async def _listen(self, said: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            with contextlib.suppress(ValueError):  # a library's own words
                found = json.loads(line)
                if isinstance(found, dict):
                    await said(found)


async def undisturbed(work: Awaitable[T]) -> T:
    """The result of `work`, however often this task is cancelled meanwhile; whoever calls it ends soon after."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()
