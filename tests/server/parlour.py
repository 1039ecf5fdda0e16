"""A server on a real port around a model that says what a test wants: the routes, answers and guards are the real ones."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai

from genwright.core import Part, Request
from genwright.server.errors import Wrong
from genwright.server.house import Caller, House, Options
from genwright.server.minimal_desk import Desk
from genwright.verbs.ask import Answerer


class Desks:
    """Hands each answer to a thread of its own, as the minimal server does."""

    def __init__(self, answerer: Answerer):
        self.answerer, self.desk, self.asked = answerer, Desk(16, 64), []

    async def ask(
        self, caller: Caller, model: str, request: Request, *, deadline: float | None = None
    ) -> AsyncGenerator[Part]:
        self.asked.append(request)
        options = {name: getattr(request, name) for name in request.model_fields_set - {"messages"}}
        parts = self.desk.answers(lambda: self.answerer.ask(request.messages, **options))
        try:
            async for part in parts:
                yield part
        finally:
            await parts.aclose()


class Fleets:
    def __init__(self, answerer: Answerer):
        self.answerer = answerer

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def warm(self) -> None: ...

    def find(self, name: str, caller: Caller | None = None) -> Any:
        if name not in ("tiny", "alias"):
            raise Wrong(404, f"There is no model {name!r}.", param="model", code="model_not_found")
        return SimpleNamespace(id="tiny", created=1)


class Quiet:
    """Jobs, keys and limits that let everything pass."""

    def register(self, kind: str, work: Any) -> None: ...
    async def start(self, house: Any) -> None: ...
    async def stop(self) -> None: ...
    async def flush(self) -> None: ...
    async def authenticate(self, header: str, *address: str) -> Caller:
        return Caller()

    def headers(self, caller: Caller) -> dict[str, str]:
        return {"x-ratelimit-limit-requests": "7"}


@contextmanager
def served(model: Any, place: Path, *, guards: Sequence[Any] = ()) -> Iterator[str]:
    """The address of a server that runs in a thread."""
    import uvicorn

    from genwright.server.app import create_app
    from genwright.server.meters import Meters
    from genwright.server.store import Store

    options = Options(data=place)
    answerer = Answerer(model, "tiny", guards)
    quiet: Any = Quiet()
    desk: Any = Desks(answerer)
    fleet: Any = Fleets(answerer)
    house = House(options, Store(options.url), None, quiet, quiet, quiet, fleet, desk, Meters())  # type: ignore[arg-type]
    door = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(house), log_level="warning", timeout_graceful_shutdown=2))
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


def client(address: str, kind: Any = openai.OpenAI) -> Any:
    return kind(base_url=address, api_key="none", max_retries=0, _strict_response_validation=True)


def raw(
    address: str, verb: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """(status, JSON body, headers) of a request as it is."""
    host = address.removeprefix("http://").removesuffix("/v1")
    connection = http.client.HTTPConnection(host, timeout=10)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    head = {"Content-Type": "application/json"} if data is not None else {}
    connection.request(verb, path, data, head | {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    found = json.loads(response.read())
    connection.close()
    return response.status, found, {k.lower(): v for k, v in response.headers.items()}
