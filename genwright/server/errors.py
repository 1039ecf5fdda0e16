"""Errors as clients expect them: OpenAI's body with four keys; under Ollama's and Anthropic's paths, theirs."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from genwright.core import GenwrightError, Refused

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
          413: "invalid_request_error", 415: "invalid_request_error", 422: "invalid_request_error",
          429: "rate_limit_error"}  # fmt: skip
_LOG = logging.getLogger("genwright.server")


class Wrong(Exception):
    """A request that this door turns away itself; `param` names the field, `code` is for programs."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        headers: dict[str, str] | None = None,
    ):  # fmt: skip
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers or {}


def body_of(error: Exception) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body). What we did not foresee says nothing of its insides; the log does."""
    if isinstance(error, Wrong):
        return error.status, _body(str(error), _TYPES.get(error.status, "server_error"), error.param, error.code)
    if isinstance(error, Refused):
        code = ":".join(filter(None, ("content_filter", error.guard, error.rule)))
        return error.status, _body(_sentence(error), "content_filter", None, code)
    if isinstance(error, GenwrightError):
        kind = _TYPES.get(error.status, "server_error")
        return error.status, _body(_sentence(error), kind, None, type(error).__name__)
    if isinstance(error, RequestValidationError):  # a path's or query's part; bodies are read by wire.py
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"][1:]))
        return 400, _body(f"{param}: {first['msg']}.", _TYPES[400], param or None, "invalid_value")
    if isinstance(error, HTTPException):
        return error.status_code, _body(
            str(error.detail), _TYPES.get(error.status_code, "invalid_request_error"), None, None
        )
    _LOG.error("not foreseen", exc_info=error)
    return 500, _body("Something went wrong here; the server's log says what.", "server_error", None, "internal_error")


def body_for(path: str, error: Exception) -> tuple[int, dict[str, Any]]:
    """`body_of`, in the words of the API that the path belongs to: Ollama's error is a text, Anthropic's has a type."""
    status, body = body_of(error)
    if path.startswith("/api/"):
        return status, {"error": body["error"]["message"]}
    if path.startswith("/v1/messages"):
        return status, {"type": "error", **body}
    return status, body


def answer_errors(app: FastAPI) -> None:
    """Give every error of the app, its own and ours, that body."""

    async def show(request: Request, error: Exception) -> JSONResponse:
        status, body = body_for(request.url.path, error)
        headers = dict(getattr(error, "headers", None) or {})
        if status == 405:  # each of a path's methods is a route of its own, and only one of them was asked
            headers["Allow"] = ", ".join(sorted(_allowed(request)))
        return JSONResponse(body, status, headers)

    for kind in (Wrong, GenwrightError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, show)


def _allowed(request: Request) -> set[str]:
    from .app import modules

    routes = [route for module in modules() for route in module.router.routes]
    return {method for route in routes if route.matches(request.scope)[0] is not Match.NONE for method in route.methods}


def _sentence(error: GenwrightError) -> str:
    return f"{error.message} {error.hint}".strip()


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
