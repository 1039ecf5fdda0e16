"""Inside: a path asked from within the server, by the same code and in a caller's name, without a door or a port; and
how many such askings go on at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import orjson
from fastapi import FastAPI

from .errors import answer_errors
from .house import Caller, House

T = TypeVar("T")

_TRIES = 5  # of what is answered by 503; what is answered by 429 waits as long as it takes
_LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]  # names in small letters
    body: bytes
    request_id: str


class Inside:
    """The paths of some modules of `routes`, for whoever needs no key any more."""

    def __init__(self, house: House, *modules: ModuleType):
        self.app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self.app.state.house = house
        answer_errors(self.app)
        for module in modules:
            self.app.include_router(module.router)

    async def ask(self, path: str, body: dict[str, Any], caller: Caller) -> Reply:
        """The answer to a request; while there is no room it waits and asks again."""
        tries, data = 0, orjson.dumps(body)
        while True:
            reply = await self.post(path, data, caller)
            tries += reply.status == 503
            if reply.status not in (429, 503) or tries == _TRIES or reply.headers.get("x-should-retry") == "false":
                return reply
            wait = reply.headers.get("retry-after", "")
            await asyncio.sleep(min(_LONGEST_WAIT, float(wait) if wait.isdecimal() else 2.0**tries))

    async def post(self, path: str, body: bytes, caller: Caller) -> Reply:
        """The answer to a JSON body. Raises nothing but CancelledError, which ends what was begun."""
        request_id = uuid.uuid4().hex
        headers = [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
            "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 0),
            "state": {"caller": caller, "request_id": request_id},
        }  # fmt: skip
        to_read = [{"type": "http.request", "body": body, "more_body": False}]
        found: dict[str, Any] = {"status": 500, "headers": {}}
        pieces: list[bytes] = []

        async def receive() -> dict[str, Any]:
            if to_read:
                return to_read.pop()
            return await asyncio.get_running_loop().create_future()  # nobody hangs up

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                found["status"] = message["status"]
                found["headers"] = {name.decode("latin-1").lower(): value.decode("latin-1")
                                    for name, value in message["headers"]}  # fmt: skip
            else:
                pieces.append(message.get("body", b""))

        with contextlib.suppress(Exception):  # it has been answered as a 500 and logged
            await self.app(scope, receive, send)
        return Reply(found["status"], found["headers"], b"".join(pieces), request_id)


async def each(things: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Do the work for every thing, in their order, so many at once. What one raises ends the others."""
    left = iter(things)

    async def some() -> None:
        for thing in left:
            await work(thing)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(some())
