"""The whole server on a real port, for tests of what is said: a tiny model in a process of its own, and a model at an
upstream whose words a test chooses, once as it is and once with a guard.

    parlour.script.says("Hel", "lo.")                  # what "says" and "guarded" answer from now on
    client(parlour.address).chat.completions.create(model="says", …)
    parlour.script.asked[-1]                           # what reached the upstream
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import openai
import orjson
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from genwright.core import Recipe, Run
from genwright.server.app import create_app
from genwright.server.desk import Desk
from genwright.server.fleet import Fleet
from genwright.server.house import House
from genwright.server.meters import Meters
from tests.formats.tiny import tiny_run

from .household import at_home, small_house

CONTEXT = 2048  # tokens
ASK: dict[str, Any] = {"model": "says", "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Script:
    """What the upstream says, and what it was asked."""

    pieces: tuple[str, ...] = ("Hel", "lo.")
    finish: str = "stop"
    pause: float = 0.0  # seconds before each piece
    error: str = ""  # sent in the middle of the stream, after the pieces
    asked: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    closed: int = 0  # answers that nobody heard to their end

    def says(self, *pieces: str, finish: str = "stop", pause: float = 0.0, error: str = "") -> None:
        self.pieces, self.finish, self.pause, self.error = pieces, finish, pause, error
        self.asked.clear()
        self.closed = 0

    @property
    def seen(self) -> list[tuple[str, str]]:
        """(role, text) of the messages of the last request."""
        return [(m["role"], m["content"]) for m in self.asked[-1]["messages"]]


def upstream(script: Script) -> FastAPI:
    """An OpenAI-compatible server that follows a script."""
    import asyncio

    app = FastAPI()

    async def events() -> AsyncIterator[bytes]:
        script.running += 1
        ended = False
        try:
            for piece in script.pieces:
                await asyncio.sleep(script.pause)
                yield _chunk({"choices": [{"index": 0, "delta": {"content": piece}, "text": piece}]})
            if script.error:
                yield _chunk({"error": {"message": script.error}})
            yield _chunk({"choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": script.finish}]})
            yield _chunk({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(script.pieces)}})
            yield b"data: [DONE]\n\n"
            ended = True
        finally:
            script.running -= 1
            script.closed += not ended

    @app.post("/v1/completions")
    @app.post("/v1/chat/completions")
    async def answer(request: Request) -> Response:
        script.asked.append(await request.json())
        if script.error and not script.pieces:
            return JSONResponse({"error": {"message": script.error}}, 400)
        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def _chunk(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


@dataclass
class Parlour:
    address: str
    house: House
    script: Script


@contextmanager
def parlour_in(place: Path, **options: Any) -> Iterator[Parlour]:
    """Models "tiny" (it has learned `tests.formats.tiny.EXAMPLES`), "says", and "guarded", which may not say
    "forbidden"; "alias" stands for "says"."""
    with mock.patch.dict(os.environ, {"GENWRIGHT_HOME": str(place / "home")}):
        script = Script()
        with at_home(upstream(script)) as far:
            models = [
                {"name": "tiny", "source": str(tiny_file(place)),
                 "engine": {"runner": "llama.cpp", "context": CONTEXT, "parallel": 4, "threads": 1}},
                {"name": "says", "base_url": far, "engine": {"parallel": 8, "retries": 0, "failures": 0}},
                {"name": "guarded", "source": str(_guarded(place, far))},
            ]  # fmt: skip
            told = {"models": models, "aliases": {"alias": "says"}, "memory": 10**10} | options
            house = small_house(place, meters=Meters(), **told)
            house.fleet = Fleet(house.options, house.store)
            house.desk = Desk(house.options, house.fleet, house.keys, house.limits, house.meters)
            with at_home(create_app(house)) as address:
                yield Parlour(address, house, script)


def tiny_file(place: Path) -> Path:
    """The tiny model as a GGUF file, with a context in which tools have room."""
    from genwright.formats import gguf

    run = tiny_run(place, teach=True)
    config = run.model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": CONTEXT}))
    return next(p for p in gguf.export(run, place / "out", gguf.Settings()) if p.suffix == ".gguf")


def _guarded(place: Path, far: str) -> Path:
    recipe = Recipe.from_dict({
        "name": "guarded", "data": {"source": "table", "path": "rows.csv"}, "task": "chat", "method": "none",
        "model": {"source": "says", "engine": "openai_api", "base_url": far, "retries": 0},
        "guards": [{"name": "keywords", "words": ["forbidden"], "action": "block"}],
    })  # fmt: skip
    return Run.create(recipe, place / "guarded").folder


def client(address: str, kind: Any = openai.OpenAI, **options: Any) -> Any:
    """The official client, in strict mode and without retries."""
    plain = {"base_url": address, "api_key": "none", "max_retries": 0, "_strict_response_validation": True}
    return kind(**plain | options)


def raw(
    address: str, verb: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """(status, JSON body, headers) of a request as it is."""
    status, said, head = send(address, verb, path, body, **headers)
    return status, json.loads(said), head


def lines(address: str, path: str, body: Any, **headers: str) -> list[str]:
    """The lines of a streamed answer that are not empty."""
    status, said, _ = send(address, "POST", path, body, **headers)
    assert status == 200, said
    return [line for line in said.decode().split("\n") if line]


def send(address: str, verb: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(address.removeprefix("http://").removesuffix("/v1"), timeout=20)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    head = {"Content-Type": "application/json"} if data is not None else {}
    with closing(connection):
        connection.request(verb, path, data, head | {k.replace("_", "-"): v for k, v in headers.items()})
        response = connection.getresponse()
        return response.status, response.read(), {k.lower(): v for k, v in response.headers.items()}


def wait_until(true: Any, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
