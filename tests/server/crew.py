"""A fleet for tests: workers that are real processes, around an engine that says what a request asks it to say.

The engine joins as any other distribution's would: by an entry point, in a folder on PYTHONPATH. What it does stands
in the last message, as JSON: {"say": ["a", "b"], "times": 100, "pause": 0.01, "fail": "ZeroDivisionError"}.
With "stamp" it says the time at which it says it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from genwright.core import Part, Request, user
from genwright.server.fleet import Fleet
from genwright.server.house import House, Options
from genwright.server.store import Store

from .household import STORE

ENGINE = '''"""Says what it is asked to say."""

import json
import os
import signal
import time
from contextlib import suppress

from genwright import core

remote = True


class Settings(core.Settings):
    model: str = ""
    parallel: int = 4
    takes: int = 0
    broken: str = ""


def load(source, settings, *, seed=0):
    if settings.broken and os.path.exists(settings.broken):
        raise core.ModelError("It is broken.", "Mend it.")
    return Says(settings)


class Says:
    def __init__(self, settings):
        self.settings, self.parallel = settings, settings.parallel
        self.ballast = bytearray(os.urandom(1)) * settings.takes

    def generate(self, request):
        text = request.messages[-1].text
        told = json.loads(text) if text.startswith("{") else {"say": [text]}
        said = 0
        for _ in range(told.get("times", 1)):
            for piece in told.get("say", ()):
                time.sleep(told.get("pause", 0))
                said += 1
                yield core.Part(text=f"{time.monotonic():.6f} " if told.get("stamp") else piece)
        if "fail" in told:
            raise {"MemoryError": MemoryError, "ZeroDivisionError": ZeroDivisionError}.get(
                told["fail"], getattr(core, told["fail"], None)
            )("secret")
        if told.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        yield core.Part(meta={"finish_reason": "stop", "prompt_tokens": len(text), "completion_tokens": said})
'''


@cache
def _plugin(place: Path) -> Path:
    found = place / "says-1.dist-info"
    found.mkdir(parents=True, exist_ok=True)
    (place / "says_engine.py").write_text(ENGINE, encoding="utf-8")
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: says\nVersion: 1\n", encoding="utf-8")
    (found / "entry_points.txt").write_text("[genwright.engines]\nsays = says_engine\n", encoding="utf-8")
    return place


@contextmanager
def with_engine(place: Path, *, own_store: bool = True) -> Iterator[None]:
    """Within it, workers know the engine `says`, and their ledger lies in `place`, as do weights if `own_store`."""
    if not own_store:
        (place / "home").mkdir(parents=True, exist_ok=True)
        STORE.mkdir(parents=True, exist_ok=True)
        (place / "home" / "store").symlink_to(STORE)
    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join(filter(None, (str(_plugin(place / "plugin")), os.environ.get("PYTHONPATH", ""))))
        patch.setenv("PYTHONPATH", path)
        patch.setenv("GENWRIGHT_HOME", str(place / "home"))
        yield


def says(name: str, **options: Any) -> dict[str, Any]:
    """An entry whose model says what it is asked to say."""
    entry = {key: options.pop(key) for key in ("pin", "keep_alive") if key in options}
    return {"name": name, "source": name, "engine": {"engine": "says", **options}, **entry}


def fleet_of(place: Path, *models: Any, **options: Any) -> Fleet:
    chosen = Options(models=list(models), data=place / "data", **options)
    return Fleet(chosen, Store(chosen.url))


def asking(text: str = "", **told: Any) -> Request:
    return Request(messages=(user(text or json.dumps(told)),))


async def heard(parts: AsyncGenerator[Part], most: int = 10**9) -> str:
    """The text of an answer, or its first `most` parts."""
    said = []
    async with aclosing(parts):
        async for part in parts:
            said.append(part.text)
            if len(said) >= most:
                break
    return "".join(said)


async def until(true: Any, seconds: float = 10.0) -> bool:
    """Whether it became true in time."""
    for _ in range(int(seconds / 0.02)):
        if true():
            return True
        await asyncio.sleep(0.02)
    return bool(true())


@contextmanager
def whole_server(options: Options) -> Iterator[tuple[str, House]]:
    """The address (http://127.0.0.1:port/v1) of the full server in a thread, once it is ready; and its household."""
    import uvicorn

    from genwright.server.app import create_app
    from genwright.server.serve import household

    house = household(options)
    door = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(house), log_config=None, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    try:
        while house.state != "ready":
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{door.getsockname()[1]}/v1", house
    finally:
        server.should_exit = True
        thread.join(15)
        door.close()


SERVE = """
import sys
from genwright.core import Tell
from genwright.server.house import Options
from genwright.server.serve import serve_options

class Say(Tell):
    def note(self, text):
        print(text, flush=True)

serve_options(Options.model_validate_json(sys.argv[1]), tell=Say())
"""


@dataclass
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def workers(self) -> list[int]:
        """Processes that it started, and those that they started."""
        found, todo = [], [self.process.pid]
        while todo:
            for place in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
                try:
                    children = [int(pid) for pid in place.read_text().split()]
                except OSError:  # it has just ended
                    continue
                found += children
                todo += children
        return found

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time that the server and its workers took so far."""
        return {"server": _cpu(self.process.pid), "workers": sum(map(_cpu, self.workers))}


def _cpu(pid: int) -> float:
    """By nanoseconds where the kernel counts them, else by its ticks."""
    total = 0
    for place in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(place.read_text().split()[0])
    if total:
        return total / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running_server(place: Path, options: dict[str, Any]) -> Iterator[Running]:
    """A server in a process of its own, once it answers; it is killed at the end if it has not ended."""
    log = place / "server.log"
    told = json.dumps({"port": 0, "data": str(place / "data"), **options})
    with log.open("ab") as words:
        process = subprocess.Popen([sys.executable, "-c", SERVE, told], stdout=subprocess.PIPE, stderr=words, text=True)
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert " at http://127.0.0.1:" in line, (line, log.read_text()[-2000:])
        yield Running(process, int(line.partition("127.0.0.1:")[2].partition("/")[0]), log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout:
            process.stdout.close()
