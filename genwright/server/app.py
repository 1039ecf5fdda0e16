"""The app: who may come in, and every path of `routes`."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
import pkgutil
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from . import routes
from .errors import Wrong, answer_errors, body_for
from .house import Caller, House, house_of
from .housekeeping import tidy
from .logs import Watch
from .traces import tracer

LOCAL = ("127.0.0.1", "localhost", "::1")
_ID = re.compile(r"[\w.:-]{1,128}")
_TIDY = 60.0  # seconds between two looks at what has expired
_LOG = logging.getLogger("genwright.server")


def create_app(house: House) -> FastAPI:
    """An ASGI app over a household whose parts are made but not begun; the app's lifespan begins and ends them."""

    watcher = tracer()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await house.fleet.start()
        for module in modules():
            for kind, work in getattr(module, "JOBS", {}).items():
                house.jobs.register(kind, work)
        await house.jobs.start(house)
        chores = [asyncio.create_task(_warm(house)), asyncio.create_task(_tidy(house))]
        yield
        house.state = "draining"
        for chore in chores:
            chore.cancel()
        await house.jobs.stop()
        await house.fleet.stop()
        await house.limits.flush()
        house.store.close()
        if watcher:
            watcher.close()

    from genwright import __version__

    app = FastAPI(
        title="Genwright", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False,
        lifespan=life,
    )  # fmt: skip
    app.state.house = house
    answer_errors(app)
    for module in modules():
        open_to_all = getattr(module, "PUBLIC", False)
        app.include_router(module.router, dependencies=[] if open_to_all else [Depends(enter)])
    app.add_middleware(FrontDoor, hosts=(*LOCAL, *house.options.hosts), origins=tuple(house.options.origins))
    app.add_middleware(Watch, meters=house.meters, tracer=watcher)
    return app


async def _warm(house: House) -> None:
    """Ready once the models are loaded that are to be there from the start; others may ask and wait before that."""
    house.why = "Models are being loaded."
    await house.fleet.warm()
    if house.state == "loading":
        house.state, house.why = "ready", ""


async def _tidy(house: House) -> None:
    for minute in itertools.count():
        await asyncio.sleep(_TIDY)
        try:  # once a day also what servers that were killed left behind
            await tidy(house, time.time(), everything=minute % 1440 == 0)
        except Wrong as error:  # the store is away for now
            _LOG.warning("what has expired could not be removed yet: %s", error)


def modules() -> Iterator[ModuleType]:
    """The modules of `routes` that serve paths, by name; `not_here` is last, for what nobody else answers."""
    names = sorted((m.name for m in pkgutil.iter_modules(routes.__path__)), key=lambda name: (name == "not_here", name))
    for name in names:
        module = importlib.import_module(f"{routes.__name__}.{name}")
        if hasattr(module, "router"):
            yield module


async def enter(request: Request) -> None:
    """Who asks, from the key that they show. Raises Wrong (401, 403; 503 once the server is told to stop)."""
    if house_of(request).state == "draining":
        raise Wrong(503, "The server is being stopped; ask again in a moment.", code="draining",
                    headers={"Retry-After": "5", "x-should-retry": "true"})  # fmt: skip
    caller = await known(request)
    if not caller.roles & {"user", "admin"}:
        raise Wrong(403, "This key only reads /metrics.", code="not_a_user")


async def known(request: Request) -> Caller:
    """The caller behind the key that is shown, whatever it may do. Raises Wrong (401)."""
    shown = request.headers.get("authorization") or request.headers.get("x-api-key") or ""
    address = request.client.host if request.client else ""
    request.state.caller = await house_of(request).keys.authenticate(shown, address)
    caller: Caller = request.state.caller
    return caller


async def enter_as_admin(request: Request) -> None:
    """For paths that change the house. Raises Wrong (401, 403)."""
    await enter(request)
    caller: Caller = request.state.caller
    if not caller.is_admin:
        raise Wrong(403, "This key may not do that.", code="not_an_admin")


class FrontDoor:
    """Lets in only requests meant for this machine's own names, and gives each answer an id.

    A page that rebinds its DNS name to our address still sends its own name as Host; a page of another site sends it
    as Origin. Plain ASGI, so that a client that leaves is noticed at once.
    """

    def __init__(self, app: Any, hosts: tuple[str, ...], origins: tuple[str, ...] = ()):
        self.app, self.hosts, self.origins = app, hosts, origins

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        head = {"X-Request-Id": request_id, "X-Content-Type-Options": "nosniff"} | self._cors(headers)

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in head.items())]
            await send(message)

        wrong = self._wrong(headers)
        if wrong:
            status, body = body_for(scope["path"], wrong)
            await JSONResponse(body, status)(scope, receive, answer)
        elif scope["method"] == "OPTIONS" and b"origin" in headers:
            await JSONResponse({}, 200)(scope, receive, answer)
        else:
            await self.app(scope, receive, answer)

    def _wrong(self, headers: dict[bytes, str]) -> Wrong | None:
        if _host(f"//{headers.get(b'host', '')}") not in self.hosts:
            return Wrong(421, "This server answers only to its own name.", code="wrong_host")
        origin = headers.get(b"origin")
        if origin is not None and _host(origin) not in self.hosts and origin not in self.origins:
            return Wrong(403, "Pages of other origins are not answered.", code="wrong_origin")
        return None

    def _cors(self, headers: dict[bytes, str]) -> dict[str, str]:
        origin = headers.get(b"origin", "")
        if origin not in self.origins or not origin:
            return {}
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin", "Access-Control-Max-Age": "600",
                "Access-Control-Allow-Methods": "GET, POST, DELETE",
                "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Request-Id, Idempotency-Key",
                }  # fmt: skip


def _host(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""
