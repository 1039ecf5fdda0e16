"""/v1/responses: answers as items, kept on the server so that the next request can go on from them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field

from genwright.core import Message

from ..answers import Answer, Asking, begun, reply, streamed, together
from ..conversation import (
    PASSED_OVER,
    Metadata,
    Seed,
    StreamOptions,
    Strict,
    Turn,
    conversation,
    request_for,
)
from ..errors import Wrong, body_of
from ..house import Caller, House, caller_of, house_of
from ..items import Output, input_items, turns_of
from ..leaving import unless_gone
from ..store.tables import Job
from ..tools import Function, Name, Tools
from ..wire import Page, documented, event, new_id, now, read_body, shaped

router = APIRouter()
KEPT = "response"  # the kind of the documents
_DAYS = 30  # that a response is kept, as OpenAI does
_LONGEST = 1000  # responses in a row that one can go on from
_IGNORED = (*PASSED_OVER, "reasoning", "max_tool_calls")


class Format(Strict):
    """What an answer must look like: text, any JSON object, or JSON of a schema."""

    model_config = ConfigDict(populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = Field(None, max_length=64)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextConfig(Strict):
    format: Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseTool(Strict):
    """A function, in the spelling of responses."""

    type: Literal["function"]
    name: Name
    description: str | None = Field(None, max_length=20_000)
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def function(self) -> Function:
        return Function(**self.model_dump(exclude={"type"}))


class InputRequest(Strict):
    """What a model is to see: an input, perhaps behind an earlier response."""

    model: str = Field(min_length=1, max_length=500)
    input: str | Annotated[list[dict[str, Any]], Field(max_length=10_000)] | None = None
    instructions: str | None = None
    previous_response_id: str | None = Field(None, max_length=200)
    conversation: None = None
    prompt: None = None
    tools: list[ResponseTool] | None = Field(None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def tools_told(self) -> Tools | None:
        """Raises Wrong (400)."""
        functions = [tool.function for tool in self.tools or ()]
        return Tools.of(functions, self.tool_choice, parallel=self.parallel_tool_calls is not False)

    def wanted(self) -> dict[str, Any] | None:
        """The JSON schema of the answer; None for plain text. Raises Wrong (400)."""
        format = (self.text and self.text.format) or Format()
        if format.type == "json_schema" and format.schema_ is None:
            raise Wrong(400, "text.format.schema is missing.", param="text.format.schema", code="invalid_value")
        return {"text": None, "json_object": {"type": "object"}, "json_schema": format.schema_}[format.type]


class ResponseRequest(InputRequest):
    """What is understood. A key that would change the answer and is not understood is an error, never ignored."""

    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    seed: Seed | None = None
    include: list[str] | None = Field(None, max_length=32)
    metadata: Metadata | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None

    @property
    def logprobs(self) -> bool:
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())


@router.post("/v1/responses", openapi_extra=documented(ResponseRequest, passed_over=_IGNORED, streams=True))
async def create(request: Request) -> Response:
    """Answer an input. `seed` may be said too, as for chats."""
    asked = await read_body(request, ResponseRequest, passed_over=_IGNORED)
    asking = Asking.of(request, asked.model)
    if asked.background:
        return reply(request, await _in_background(asking, asked))
    making = await _Making.of(asking, asked)
    if asked.stream:
        return await streamed(request, making.events(), failed=making.failed)
    return reply(request, await unless_gone(request, making.whole()))


async def whole(asking: Asking, asked: ResponseRequest) -> dict[str, Any]:
    """The body of a whole response. Raises Refused when a guard refused it."""
    return await (await _Making.of(asking, asked)).whole()


@router.post("/v1/responses/input_tokens", openapi_extra=documented(InputRequest, passed_over=_IGNORED))
async def input_tokens(request: Request) -> dict[str, Any]:
    """How many tokens a model would read."""
    asked = await read_body(request, InputRequest, passed_over=_IGNORED)
    asking = Asking.of(request, asked.model)
    messages = await _messages(asking, asked, input_items(asked.input))
    return {"object": "response.input_tokens", "input_tokens": await asking.count(messages)}


# -- kept responses ---------------------------------------------------------------------------------------------------


@router.get("/v1/responses/{id}")
async def kept(
    request: Request, id: str, stream: Annotated[bool, Query()] = False,
    include: Annotated[list[str] | None, Query(alias="include[]")] = None,
    include_obfuscation: Annotated[bool, Query()] = False,
) -> dict[str, Any]:  # fmt: skip
    """A response that was kept, or is being made in the background."""
    if stream:
        raise Wrong(400, "A response that was made already is not streamed again.", param="stream",
                    code="unsupported_value")  # fmt: skip
    response: dict[str, Any] = (await _load(house_of(request), caller_of(request).owner, id))["response"]
    return response


@router.delete("/v1/responses/{id}")
async def delete(request: Request, id: str) -> dict[str, Any]:
    """Forget a response; one that is being made is stopped."""
    house, owner = house_of(request), caller_of(request).owner
    if _under_way((await _load(house, owner, id))["response"]):
        await house.jobs.cancel(_job_of(id), owner)
    await house.store.delete(KEPT, id, owner)
    return {"id": id, "object": "response", "deleted": True}


@router.post("/v1/responses/{id}/cancel")
async def cancel(request: Request, id: str) -> dict[str, Any]:
    """Stop a response that is being made in the background; one that is over stays as it is."""
    house, owner = house_of(request), caller_of(request).owner
    found = await _load(house, owner, id)
    response: dict[str, Any] = found["response"]
    if not response["background"]:
        raise Wrong(400, "Only responses that are made in the background can be cancelled.", param="id")
    if _under_way(response):
        await house.jobs.cancel(_job_of(id), owner)
        response |= {"status": "cancelled"}
        await house.store.put(KEPT, id, owner, found, expires=_expires())
    return response


@router.get("/v1/responses/{id}/input_items")
async def items(
    request: Request, id: str, page: Annotated[Page, Depends()],
    include: Annotated[list[str] | None, Query(alias="include[]")] = None,
) -> dict[str, Any]:  # fmt: skip
    """The input that a response answers."""
    found = await _load(house_of(request), caller_of(request).owner, id)
    return page.shown(page.cut(found["input"]))


async def _load(house: House, owner: str, id: str) -> dict[str, Any]:
    """A kept document {"response", "input"}, as far as its job is. Raises Wrong (404)."""
    found = await house.store.get(KEPT, id, owner)
    if _under_way(found["response"]):
        job = await house.jobs.get(_job_of(id), owner)
        found = await house.store.get(KEPT, id, owner)  # the job may have written it between the two
    if _under_way(found["response"]):
        found["response"] |= {"status": _STATUS.get(job.state, "in_progress")}
        if job.state == "failed":
            found["response"]["error"] = {"code": "server_error", "message": str((job.error or {}).get("message"))}
    return found


_STATUS = {"queued": "queued", "failed": "failed", "cancelled": "cancelled", "cancelling": "cancelled"}


def _under_way(response: dict[str, Any]) -> bool:
    return response["status"] in ("queued", "in_progress")


def _job_of(id: str) -> str:
    """The id of the job that makes a response in the background."""
    return f"job_{id.removeprefix('resp_')}"


def _expires() -> int:
    return int(time.time()) + _DAYS * 86_400


# -- making one -------------------------------------------------------------------------------------------------------


class _Making:
    """One response while it is made."""

    def __init__(self, asking: Asking, asked: ResponseRequest, said: list[dict[str, Any]], answer: Answer, id: str):
        self.asking, self.asked, self.said, self.answer = asking, asked, said, answer
        self.output = Output(logprobs=asked.logprobs)
        self.body = _blank(asking.model, asked, id)
        self.number = 0  # of the next event

    @classmethod
    async def of(cls, asking: Asking, asked: ResponseRequest, id: str = "") -> _Making:
        """Raises Wrong (400, 404) for what cannot be asked."""
        said = input_items(asked.input)
        messages = await _messages(asking, asked, said)
        tools, wanted = asked.tools_told(), asked.wanted()
        schema = tools.schema(wanted) if tools else wanted
        request = request_for(
            messages, schema=schema, max_new_tokens=asked.max_output_tokens, temperature=asked.temperature,
            top_p=asked.top_p, logprobs=(asked.top_logprobs or 0) if asked.logprobs else None, seed=asked.seed,
        )  # fmt: skip
        watch = tools.watch(masked=schema is not None) if tools else None
        return cls(asking, asked, said, asking.answer(request, watch), id or new_id("resp_"))

    async def whole(self) -> dict[str, Any]:
        async with aclosing(together([self.answer])) as pieces:
            async for _, delta in pieces:
                if delta:
                    self.output.add(delta)
        if self.answer.refused:
            raise self.answer.refused
        self.output.end(self.answer.finish)
        return await self._finished()

    async def events(self) -> AsyncGenerator[bytes]:
        async with aclosing(begun([self.answer])) as pieces:
            async for _, delta in pieces:
                if not self.number:
                    yield self._event("response.created", {"response": self.body})
                    yield self._event("response.in_progress", {"response": self.body})
                for kind, said in self.output.add(delta) if delta else self.output.end(self.answer.finish):
                    yield self._event(kind, said)
        body = await self._finished()
        yield self._event(f"response.{body['status']}", {"response": body})

    def failed(self, error: Exception) -> bytes:
        """The last event of a stream that could not go on."""
        status, body = body_of(error)
        code = "rate_limit_exceeded" if status == 429 else "invalid_prompt" if status < 500 else "server_error"
        self.body |= {"status": "failed", "error": {"code": code, "message": body["error"]["message"]},
                      "output": self.output.items}  # fmt: skip
        return self._event("response.failed", {"response": self.body})

    async def _finished(self) -> dict[str, Any]:
        """The whole response, kept if that is wanted."""
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(self.answer.finish)
        self.body |= {"status": "incomplete" if reason else "completed", "output": self.output.items,
                      "incomplete_details": {"reason": reason} if reason else None,
                      "completed_at": None if reason else now(), "usage": _usage(self.answer)}  # fmt: skip
        if self.asked.store is not False:
            kept = {"response": self.body, "input": self.said}
            await self.asking.house.store.put(KEPT, self.body["id"], self.asking.caller.owner, kept, expires=_expires())
        return self.body

    def _event(self, kind: str, said: dict[str, Any]) -> bytes:
        number, self.number = self.number, self.number + 1
        return event({"type": kind, "sequence_number": number, **said}, kind)


async def _messages(asking: Asking, asked: InputRequest, said: list[dict[str, Any]]) -> tuple[Message, ...]:
    """What the model sees: the instructions, the responses before, and the input."""
    before: list[list[dict[str, Any]]] = []
    previous = asked.previous_response_id
    while previous:
        try:
            found = await _load(asking.house, asking.caller.owner, previous)
        except Wrong as error:
            raise Wrong(error.status, f"There is no response {previous!r} here.", param="previous_response_id",
                        code="previous_response_not_found") from None  # fmt: skip
        if _under_way(found["response"]) or len(before) >= _LONGEST:
            raise Wrong(400, f"One cannot go on from the response {previous!r}: it is not finished, or too long a row.",
                        param="previous_response_id", code="invalid_value")  # fmt: skip
        before.insert(0, [*found["input"], *found["response"]["output"]])
        previous = found["response"]["previous_response_id"]
    turns = turns_of([item for items in before for item in items] + said)
    if asked.instructions:
        turns.insert(0, Turn(role="system", content=asked.instructions))
    return conversation(turns, asked.tools_told())


def _blank(model: str, asked: ResponseRequest, id: str) -> dict[str, Any]:
    """A response that has not said anything yet."""
    format = asked.text.format if asked.text and asked.text.format else Format()
    return {
        "id": id, "object": "response", "created_at": now(), "status": "in_progress", "completed_at": None,
        "background": bool(asked.background), "error": None, "incomplete_details": None,
        "instructions": asked.instructions, "max_output_tokens": asked.max_output_tokens, "max_tool_calls": None,
        "metadata": asked.metadata or {}, "model": model, "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id, "reasoning": {"effort": None, "summary": None},
        "service_tier": "default", "store": asked.store is not False, "temperature": asked.temperature,
        "text": {"format": format.model_dump(exclude_none=True, by_alias=True)},
        "tool_choice": asked.tool_choice or "auto",
        "tools": [{"parameters": None, "strict": None, **tool.model_dump(exclude_none=True)}
                  for tool in asked.tools or ()],
        "top_logprobs": asked.top_logprobs or 0, "top_p": asked.top_p, "truncation": asked.truncation or "disabled",
        "usage": None,
    }  # fmt: skip


def _usage(answer: Answer) -> dict[str, Any]:
    return {"input_tokens": answer.prompt_tokens, "output_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
            "input_tokens_details": {"cached_tokens": answer.cached_tokens, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip


# -- in the background ------------------------------------------------------------------------------------------------


async def _in_background(asking: Asking, asked: ResponseRequest) -> dict[str, Any]:
    """A durable job makes it; it can be looked at, and cancelled, meanwhile."""
    if asked.stream or asked.store is False:
        raise Wrong(400, "What is made in the background is kept, and not streamed.", param="background",
                    code="unsupported_value")  # fmt: skip
    making = await _Making.of(asking, asked)  # what is wrong with it is told now
    id, caller, store = making.body["id"], asking.caller, asking.house.store
    making.body |= {"status": "queued"}
    kept = {"response": making.body, "input": making.said, "asked": asked.model_dump(exclude_unset=True, by_alias=True)}
    await store.put(KEPT, id, caller.owner, kept, expires=_expires())
    payload = {"id": id, "key": caller.key_id, "roles": sorted(caller.roles), "limits": caller.limits}
    try:
        await asking.house.jobs.submit("response", caller.owner, payload, id=_job_of(id))
    except Exception:
        await store.delete(KEPT, id, caller.owner)
        raise
    return making.body


async def _work(job: Job, house: House) -> dict[str, Any]:
    """The job's own work: make the response and keep it."""
    caller = Caller(job.owner, job.payload["key"], frozenset(job.payload["roles"]), job.payload["limits"])
    if not await house.keys.is_valid(caller):
        raise Wrong(401, "The key that asked for this response is not valid any more.", code="invalid_api_key")
    kept = await house.store.get(KEPT, job.payload["id"], caller.owner)
    if not _under_way(kept["response"]):
        return {}  # it was written just before the server went down
    asked = shaped(kept["asked"], ResponseRequest)
    asking = Asking(house, caller, house.fleet.find(asked.model, caller).id, house.options.deadline)
    await (await _Making.of(asking, asked, job.payload["id"])).whole()
    return {}


JOBS = {"response": _work}
