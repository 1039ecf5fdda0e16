"""What goes over the wire in OpenAI's habits: bodies, lists in pages, server-sent events, ids."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import Wrong
from .house import house_of

B = TypeVar("B", bound="Body")
_DEEPEST = 100  # levels of a JSON body


class Body(BaseModel):
    """What a request says. A key that is not understood is an error; those in `passed_over` change no answer."""

    model_config = ConfigDict(extra="forbid")


async def read_bytes(request: Request, *, kind: str = "application/json", largest: int | None = None) -> bytes:
    """The body. Raises Wrong (415, 413) when its header names another kind, or it is larger than `largest` bytes."""
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said != kind:
        raise Wrong(415, f"The body must be {kind}, not {said[:100] or 'nothing'}.", code="unsupported_media_type")
    most = largest or house_of(request).options.largest_body
    data = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) > most:
                raise Wrong(413, f"The body is larger than {most:,} bytes.", code="too_large")
    return bytes(data)


async def read_body(request: Request, shape: type[B], *, passed_over: Sequence[str] = ()) -> B:
    """The JSON body in its shape. Raises Wrong (400) that names the parameter."""
    return shaped(await read_bytes(request), shape, passed_over=passed_over)


def shaped(data: bytes | dict[str, Any], shape: type[B], *, passed_over: Sequence[str] = ()) -> B:
    """`data` checked against a shape. Raises Wrong (400) that names the parameter."""
    fields = data if isinstance(data, dict) else _parsed(data)
    try:
        return shape.model_validate({key: value for key, value in fields.items() if key not in passed_over})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        param = ".".join(map(str, _place(first["loc"], fields, missing=first["type"] == "missing")))
        known = first["type"] != "extra_forbidden"
        said = f"{param}: {first['msg']}." if known else f"{param} is not supported here."
        code = "invalid_value" if known else "unsupported_parameter"
        raise Wrong(400, said, param=param or None, code=code) from None


def documented(
    shape: type[BaseModel], *, kind: str = "application/json", passed_over: Sequence[str] = (),
    streams: bool | str = False,
) -> dict[str, Any]:  # fmt: skip
    """A route's `openapi_extra`: the body that `read_body` reads, and that the answer may come as events, or as a
    stream of the kind that `streams` names."""
    room = f"{shape.__module__.rpartition('.')[2]}."  # shapes of two modules may have one name
    schema = shape.model_json_schema(ref_template=f"#/components/schemas/{room}{{model}}")
    inner = schema.pop("$defs", {})
    if passed_over:
        schema["properties"] |= {name: {"description": "Accepted; changes no answer"} for name in passed_over}
    found = {f"{room}{name}": one for name, one in {**inner, shape.__name__: schema}.items()}
    body = {"$ref": f"#/components/schemas/{room}{shape.__name__}", "$defs": found}  # routes/docs.py moves them there
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": {kind: {"schema": body}}}}
    if streams:
        stream = "text/event-stream" if streams is True else streams
        extra["responses"] = {"200": {"content": {stream: {"schema": {"type": "string"}}}}}
    return extra


def _place(loc: Sequence[int | str], fields: Any, *, missing: bool) -> list[int | str]:
    """Where in the body something is wrong, without the names of types that stand between where several are allowed."""
    found: list[int | str] = []
    for step in loc:
        if isinstance(fields, dict) and (missing or step in fields):
            fields = fields.get(step)
        elif isinstance(fields, list) and isinstance(step, int):
            fields = fields[step]
        else:
            continue
        found.append(step)
    return found


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(data)  # not even half a surrogate pair comes through, which UTF-8 cannot hold
        if not isinstance(fields, dict):
            raise ValueError("it is no object")
        check_depth(fields)
    except ValueError as error:
        raise Wrong(400, f"The body cannot be read as JSON: {str(error)[:200]}.", code="invalid_json") from None
    return fields


def check_depth(value: Any) -> None:
    """Raises ValueError for what is nested so deep that whoever walks it later would run out of stack."""
    level, depth = [value], 0
    while level:
        level = [one for v in level if isinstance(v, dict | list) for one in (v.values() if isinstance(v, dict) else v)]
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST} levels")


class Page:
    """The query of a list, as a FastAPI dependency: `page: Annotated[Page, Depends()]`."""

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=200)] = None,
        order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    ):
        self.limit, self.after, self.order = limit, after, order

    def cut(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of all `items` (oldest first) that belong here, and one more. Raises Wrong (400) for an odd `after`."""
        found = list(items if self.order == "asc" else reversed(items))
        ids = [item["id"] for item in found]
        if self.after is not None and self.after not in ids:
            raise Wrong(400, f"after: there is nothing {self.after!r} here.", param="after", code="invalid_value")
        start = 0 if self.after is None else ids.index(self.after) + 1
        return found[start : start + self.limit + 1]

    def shown(self, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """OpenAI's list. `found` holds one more than `limit` when there is more to come."""
        data = list(found[: self.limit])
        return {"object": "list", "data": data, "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None, "has_more": len(found) > self.limit}  # fmt: skip


def event(data: dict[str, Any], name: str = "") -> bytes:
    """One server-sent event; `name` is its type, for the APIs that name them."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


DONE = b"data: [DONE]\n\n"
STREAM_HEAD = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def new_id(prefix: str) -> str:
    """Not to be guessed: 120 random bits behind the kind of thing, as in `file-3fQ…`."""
    return f"{prefix}{secrets.token_hex(15)}"


def now() -> int:
    """Seconds since 1970, as OpenAI's `created`."""
    return int(time.time())
