"""Logs: one line a request, JSON for machines, plain on a terminal; no words of a request, an answer or a key.

Rotation is the system's (journald, or whatever reads standard error).
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
from fastapi.responses import JSONResponse

from .errors import body_of
from .meters import Facts, Meters, here
from .traces import Tracer

_LOG = logging.getLogger("genwright.server.requests")
_SECRET = re.compile(r"\b(?:gw|sk|hf)[-_][\w-]{16,}|(?<=Bearer )\S+")
_QUIET = {"/healthz", "/readyz", "/metrics"}  # asked every few seconds by machines: told only at level debug


def begin(level: str = "info", *, out: TextIO | None = None) -> None:
    """Send our own logs and uvicorn's to standard error, as JSON lines unless that is a terminal.

    `GENWRIGHT_LOG=json` or `plain` overrides the choice. Give uvicorn `log_config=None, access_log=False`.
    """
    out = out or sys.stderr
    chosen = os.environ.get("GENWRIGHT_LOG", "plain" if out.isatty() else "json")
    door = logging.StreamHandler(out)
    door.setFormatter(Plain() if chosen == "plain" else Json())
    logging.basicConfig(handlers=[door], level=logging.WARNING, force=True)
    logging.getLogger("genwright").setLevel(level.upper())
    logging.captureWarnings(True)


class Watch:
    """Sees each request from outside: counts it, logs it and traces it, by its path's template.

    What nobody foresaw ends here as a 500 that names the request's id, and as a line in the log that says where.
    Plain ASGI, so that a client that leaves is noticed at once.
    """

    def __init__(self, app: Any, meters: Meters, tracer: Tracer | None = None):
        self.app, self.meters, self.tracer = app, meters, tracer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        facts, status, whole = Facts(), 0, False

        async def answer(message: Any) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        began, mark = time.perf_counter(), here.set(facts)
        try:
            await self.app(scope, receive, answer)
        except Exception as error:
            if status:  # too late to say so: the connection is cut, which a client can tell from an end
                raise
            said, body = body_of(error)
            head = {"X-Request-Id": str(scope.get("state", {}).get("request_id", "")), "Cache-Control": "no-store"}
            await JSONResponse(body, said, head)(scope, receive, answer)
        finally:
            here.reset(mark)
            self._tell(scope, facts, status or 499, whole, time.perf_counter() - began)

    def _tell(self, scope: Any, facts: Facts, status: int, whole: bool, seconds: float) -> None:
        method, route = scope["method"], getattr(scope.get("route"), "path", "(none)")
        state = scope.get("state", {})
        self.meters.answered(method, route, status, seconds)
        if self.tracer:
            self.tracer.trace(scope["headers"], method, route, status, seconds, facts, str(state.get("request_id", "")))
        level = logging.DEBUG if route in _QUIET else logging.INFO
        if _LOG.isEnabledFor(level):
            said = line_of(state, method, route, status, whole, seconds, facts)
            _LOG.log(level, "request", extra={"facts": said})


def line_of(
    state: Any, method: str, route: str, status: int, whole: bool, seconds: float, facts: Facts
) -> dict[str, Any]:
    """The facts of one request as a flat mapping; what does not apply is left out."""
    key = getattr(state.get("caller"), "key_id", "")
    said = {"id": state.get("request_id"), "method": method[:16], "route": route, "status": status,
            "ms": round(seconds * 1000, 1)}  # fmt: skip
    if facts.first is not None:
        said["first_ms"] = round(facts.first * 1000, 1)
    if facts.asked:
        said |= {"model": facts.asked[0].model, "ended": facts.asked[-1].status,
                 "prompt_tokens": sum(one.prompt_tokens for one in facts.asked),
                 "completion_tokens": sum(one.completion_tokens for one in facts.asked)}  # fmt: skip
    if key:
        said["key"] = key
    if not whole:
        said["cut"] = True  # the client left, or we broke off
    return said


class Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": when,
            "level": record.levelname.lower(),
            "from": record.name,
            "said": _said(record),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["where"] = _where(record)
        return _SECRET.sub("…", orjson.dumps(line, default=str).decode())


class Plain(logging.Formatter):
    """A line that a person reads, and where an error came from under it."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        facts = dict(getattr(record, "facts", {}))
        if facts:
            said = "{method} {route} {status} {ms} ms".format(**facts)
            rest = ("first_ms", "model", "prompt_tokens", "completion_tokens", "ended", "key", "cut", "id")
            said += "".join(f"  {name} {facts[name]}" for name in rest if name in facts)
        else:
            said = f"{record.levelname.lower()}: {_said(record)}"
        where = "".join(f"\n  {line}" for line in _where(record)) if record.exc_info else ""
        return _SECRET.sub("…", f"{when} {said}{where}")


def _said(record: logging.LogRecord) -> str:
    """Of others' messages the first line only: what follows may be the repr of an error that quotes a request."""
    said = record.getMessage()
    return said if record.name.startswith("genwright") else said.partition("\n")[0]


def _where(record: logging.LogRecord) -> list[str]:
    """The error's kind and its frames, innermost last. Not its words, which may be a user's; those take level debug."""
    kind, error, frames = record.exc_info  # type: ignore[misc]
    words = f": {error}" if logging.getLogger("genwright").level == logging.DEBUG else ""
    stack = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(frames)]
    return [*stack, f"{kind.__name__ if kind else 'Error'}{words}"]
