"""The app: who may come in, the few routes there are, and the model behind them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from genwright.core import Part
from genwright.verbs.ask import Answerer

from .chat import Answer, ChatRequest
from .errors import Wrong, answer_errors, body_of
from .minimal_desk import Desk

LOCAL = ("127.0.0.1", "localhost", "::1")
_LARGEST_BODY = 10_000_000  # bytes


def create_app(answerer: Answerer, *, model: str = "", queue: int = 16, hosts: tuple[str, ...] = LOCAL) -> FastAPI:
    """An ASGI app that answers by `answerer` under the name `model`.

    As many answers run at once as the model can decode together (else one), `queue` more wait. Requests for a Host
    that is not in `hosts`, or from a page of another origin, are turned away.
    """
    name = model or answerer.name
    desk = Desk(int(getattr(answerer.model, "parallel", 1)), queue)
    state = {"ready": True}

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        state["ready"] = False
        desk.close()

    app = FastAPI(title="Genwright", docs_url=None, redoc_url=None, openapi_url=None, lifespan=life)
    app.state.desk = desk
    answer_errors(app)
    app.add_middleware(FrontDoor, hosts=hosts)
    card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "genwright"}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Response:
        ready = state["ready"]
        return JSONResponse({"status": "ready" if ready else "closing"}, 200 if ready else 503)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{wanted:path}")
    async def one_model(wanted: str) -> dict[str, Any]:
        _same(wanted, name)
        return card

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        asked = ChatRequest.read(await _body(request))
        _same(asked.model, name)
        messages, options = asked.conversation(), asked.options()
        answer = Answer.to(asked, name)
        parts = desk.answers(lambda: answerer.ask(messages, **options))  # type: ignore[arg-type, return-value]
        if asked.stream:
            first = await _unless_gone(request, anext(parts, None), parts)
            head = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            return StreamingResponse(answer.events(first, parts), media_type="text/event-stream", headers=head)
        return JSONResponse(await _unless_gone(request, answer.whole(parts), parts))

    return app


async def _unless_gone(request: Request, work: Awaitable[Any], parts: AsyncGenerator[Part]) -> Any:
    """The result of `work`; when the client leaves first, the answer is stopped."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Wrong(499, "The client has left.", code="client_closed_request")
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
            await parts.aclose()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _same(wanted: str, name: str) -> None:
    if wanted != name:
        raise Wrong(
            404, f"There is no model {wanted[:200]!r} here; there is {name!r}.", param="model", code="model_not_found"
        )


async def _body(request: Request) -> bytes:
    """Raises Wrong when it is no JSON by its header, or too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Wrong(415, f"The body must be application/json, not {kind or 'nothing'}.", code="unsupported_media_type")
    data = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) > _LARGEST_BODY:
                raise Wrong(413, f"The body is larger than {_LARGEST_BODY:,} bytes.", code="too_large")
    return bytes(data)


class FrontDoor:
    """Lets in only requests meant for this machine's own names, and gives each answer an id.

    A page that rebinds its DNS name to our address still sends its own name as Host; a page of another site sends it
    as Origin. Plain ASGI, so that a client that leaves is noticed at once.
    """

    def __init__(self, app: Any, hosts: tuple[str, ...]):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = {"X-Request-Id": uuid.uuid4().hex, "X-Content-Type-Options": "nosniff"}

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in head.items())]
            await send(message)

        wrong = self._wrong({name: value.decode("latin-1") for name, value in scope["headers"]})
        if wrong:
            status, body = body_of(wrong)
            await JSONResponse(body, status)(scope, receive, answer)
        else:
            await self.app(scope, receive, answer)

    def _wrong(self, headers: dict[bytes, str]) -> Wrong | None:
        if _host(f"//{headers.get(b'host', '')}") not in self.hosts:
            return Wrong(421, "This server answers only to its own name.", code="wrong_host")
        if b"origin" in headers and _host(headers[b"origin"]) not in self.hosts:
            return Wrong(403, "Pages of other origins are not answered.", code="wrong_origin")
        return None


def _host(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""
