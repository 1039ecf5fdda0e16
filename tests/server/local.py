"""A real server on a real port, around a tiny model or around one that says what a test wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from genwright.core import Part, Request
from genwright.verbs.ask import Answerer


class Says:
    """A model that says the given pieces, slowly if told so, and remembers what it was asked and whether it ended."""

    def __init__(self, pieces: Sequence[str] = ("Hel", "lo."), *, pause: float = 0.0, fails: Exception | None = None):
        self.pieces, self.pause, self.fails = pieces, pause, fails
        self.asked: list[Request] = []
        self.running = self.most = self.closed = 0
        self.lock = threading.Lock()

    def generate(self, request: Request) -> Iterator[Part]:
        self.asked.append(request)
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            for piece in self.pieces:
                time.sleep(self.pause)
                yield Part(text=piece)
            if self.fails:
                raise self.fails
            yield Part(meta={"finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": len(self.pieces)})
        except GeneratorExit:
            self.closed += 1
            raise
        finally:
            with self.lock:
                self.running -= 1


@contextmanager
def served(model: Any, *, name: str = "tiny", guards: Sequence[Any] = (), **options: Any) -> Iterator[str]:
    """The address of a server that runs in a thread."""
    import socket

    import uvicorn

    from genwright.server.minimal import create_app

    app = create_app(Answerer(model, name, guards), model=name, **options)
    door = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(10)
        door.close()


def wait_until(true: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
