"""A fleet for tests: workers that are real processes, around an engine that says what a request asks it to say.

The engine joins as any other distribution's would: by an entry point, in a folder on PYTHONPATH. What it does stands
in the last message, as JSON: {"say": ["a", "b"], "times": 100, "pause": 0.01, "fail": "ZeroDivisionError"}.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from genwright.core import Part, Request, user
from genwright.server.fleet import Fleet
from genwright.server.house import House, Options
from genwright.server.store import Store

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
                yield core.Part(text=piece)
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
def with_engine(place: Path) -> Iterator[None]:
    """Within it, workers know the engine `says`, and their ledger lies in `place`."""
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
