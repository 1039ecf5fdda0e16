"""/v1/chat/completions: a conversation is answered, streamed or whole; answers that were to be kept are listed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from ..answers import Answer, Asking, begun, gather, reply, streamed, usage
from ..conversation import (
    PASSED_OVER,
    Bias,
    Metadata,
    ResponseFormat,
    Seed,
    Stop,
    StreamOptions,
    Strict,
    Turn,
    conversation,
    request_for,
)
from ..errors import Wrong
from ..house import caller_of, house_of
from ..leaving import unless_gone
from ..tools import Delta, Function, Tools
from ..wire import DONE, Page, documented, event, new_id, now, read_body

router = APIRouter()
KEPT = "chat.completion"  # the kind of the documents


class Tool(Strict):
    type: Literal["function"]
    function: Function


class ChatRequest(Strict):
    """What is understood. A key that would change the answer and is not understood is an error, never ignored."""

    model: str = Field(min_length=1, max_length=500)
    messages: list[Turn] = Field(min_length=1, max_length=10_000)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    repetition_penalty: float | None = Field(None, gt=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: Bias | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    seed: Seed | None = None
    stop: Stop | None = None
    n: int | None = Field(None, ge=1, le=16)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None
    metadata: Metadata | None = None
    store: bool | None = None

    def tools_told(self) -> Tools | None:
        """Raises Wrong (400)."""
        functions = [tool.function for tool in self.tools or ()]
        return Tools.of(functions, self.tool_choice, parallel=self.parallel_tool_calls is not False)

    def answers(self, asking: Asking) -> list[Answer]:
        """As many answers as were asked for, not begun yet. Raises Wrong (400)."""
        tools = self.tools_told()
        wanted = self.response_format.schema_of() if self.response_format else None
        schema = tools.schema(wanted) if tools else wanted
        if self.top_logprobs and not self.logprobs:
            raise Wrong(400, "top_logprobs needs logprobs to be true.", param="top_logprobs", code="invalid_value")
        request = request_for(
            conversation(self.messages, tools), schema=schema, stop=self.stop, logit_bias=self.logit_bias,
            max_new_tokens=self.max_completion_tokens or self.max_tokens, temperature=self.temperature,
            top_p=self.top_p, top_k=self.top_k, repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty, frequency_penalty=self.frequency_penalty,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None, seed=self.seed,
        )  # fmt: skip
        each = [request.model_copy(update={"seed": self.seed + i}) if self.seed is not None and i else request
                for i in range(self.n or 1)]  # fmt: skip
        return [asking.answer(one, tools.watch(masked=schema is not None) if tools else None) for one in each]


@router.post("/v1/chat/completions", openapi_extra=documented(ChatRequest, passed_over=PASSED_OVER, streams=True))
async def create(request: Request) -> Response:
    """Answer a conversation.

    Tools are told to the model in the system message, in the words that Hermes and Qwen models were taught: it calls
    with `<tool_call>{"name": …, "arguments": …}</tool_call>`, and is told results in `<tool_response>`. With
    `tool_choice` `required` or a named function it must call, once, and the arguments validate. Answers are greedy
    unless `temperature` says otherwise. `top_k` and `repetition_penalty` may be said too; the header
    `X-Request-Timeout` says how many seconds the caller waits.
    """
    asked = await read_body(request, ChatRequest, passed_over=PASSED_OVER)
    asking = Asking.of(request, asked.model)
    if asked.stream:
        return await streamed(request, events(asking, asked))
    return reply(request, await unless_gone(request, whole(asking, asked)))


async def whole(asking: Asking, asked: ChatRequest) -> dict[str, Any]:
    """The body of a whole answer. Raises Refused when a guard refused every choice."""
    answers = asked.answers(asking)
    await gather(answers)
    body = _body(asking, asked, new_id("chatcmpl-"), answers)
    if asked.store:
        await _keep(asking, asked, body)
    return body


async def events(asking: Asking, asked: ChatRequest) -> AsyncGenerator[bytes]:
    """The answer as server-sent events, the first of them when the model has begun."""
    answers = asked.answers(asking)
    chunks = _Chunks(
        asking.model, len(answers), usage=bool(asked.stream_options and asked.stream_options.include_usage)
    )
    async with aclosing(begun(answers)) as pieces:
        async for number, delta in pieces:
            if not chunks.begun:
                yield chunks.begin(called=len(answers) == 1 and delta is not None and delta.call >= 0)
            if delta is None:
                yield chunks.of(number, {}, finish=answers[number].finish)
            elif delta.call >= 0:
                yield chunks.of(number, {"tool_calls": [_call_delta(delta)]})
            else:
                yield chunks.words(number, delta)
            if delta and asked.store:
                answers[number].keep(delta)
    if chunks.usage:
        yield chunks.last(usage(answers))
    if asked.store:
        await _keep(asking, asked, _body(asking, asked, chunks.id, answers, chunks.created))
    yield DONE


# -- kept answers -----------------------------------------------------------------------------------------------------


class NewMetadata(Strict):
    metadata: Metadata | None


@router.get("/v1/chat/completions")
async def kept(
    request: Request, page: Annotated[Page, Depends()], model: Annotated[str | None, Query(max_length=500)] = None
) -> dict[str, Any]:
    """The answers that were to be kept (`store`), also by `model` and by `metadata[key]=value`."""
    where = {f"metadata.{key[9:-1]}": value for key, value in request.query_params.items()
             if key.startswith("metadata[") and key.endswith("]")}  # fmt: skip
    where |= {"model": model} if model else {}
    found = await house_of(request).store.list(
        KEPT, caller_of(request).owner, page.after, page.limit, page.order, where
    )
    return page.shown(found)


@router.get("/v1/chat/completions/{id}")
async def kept_one(request: Request, id: str) -> dict[str, Any]:
    """A kept answer; `input` holds the messages that it answers."""
    return await house_of(request).store.get(KEPT, id, caller_of(request).owner)


@router.post("/v1/chat/completions/{id}", openapi_extra=documented(NewMetadata))
async def update(request: Request, id: str) -> dict[str, Any]:
    """Give a kept answer other metadata."""
    asked = await read_body(request, NewMetadata)
    store, owner = house_of(request).store, caller_of(request).owner
    body = await store.get(KEPT, id, owner) | {"metadata": asked.metadata}
    await store.put(KEPT, id, owner, body)
    return body


@router.delete("/v1/chat/completions/{id}")
async def delete(request: Request, id: str) -> dict[str, Any]:
    """Forget a kept answer."""
    await house_of(request).store.delete(KEPT, id, caller_of(request).owner)
    return {"object": "chat.completion.deleted", "id": id, "deleted": True}


@router.get("/v1/chat/completions/{id}/messages")
async def messages(request: Request, id: str, page: Annotated[Page, Depends()]) -> dict[str, Any]:
    """The messages that the model said in a kept answer, one a choice."""
    body = await house_of(request).store.get(KEPT, id, caller_of(request).owner)
    said = [choice["message"] | {"id": f"{id}-{choice['index']}", "content_parts": None} for choice in body["choices"]]
    return page.shown(page.cut(said))


async def _keep(asking: Asking, asked: ChatRequest, body: dict[str, Any]) -> None:
    said = [turn.model_dump(exclude_none=True) for turn in asked.messages]
    await asking.house.store.put(KEPT, body["id"], asking.caller.owner, body | {"input": said})


# -- shapes -----------------------------------------------------------------------------------------------------------


def _body(
    asking: Asking, asked: ChatRequest, id: str, answers: Sequence[Answer], created: int | None = None
) -> dict[str, Any]:
    choices = [
        {"index": number, "message": _message(answer), "finish_reason": answer.finish,
         "logprobs": {"content": _logprobs(answer.logprobs), "refusal": None} if asked.logprobs else None}
        for number, answer in enumerate(answers)
    ]  # fmt: skip
    body = {"id": id, "object": "chat.completion", "created": created or now(), "model": asking.model,
            "choices": choices, "usage": usage(answers), "service_tier": "default",
            "system_fingerprint": None}  # fmt: skip
    return body | ({"metadata": asked.metadata or {}} if asked.store or asked.metadata else {})


def _message(answer: Answer) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
    if answer.calls:
        called = [{"name": call["name"], "arguments": call["arguments"]} for call in answer.calls]
        said["content"] = answer.text or None
        said["tool_calls"] = [{"id": call["id"], "type": "function", "function": function}
                              for call, function in zip(answer.calls, called, strict=True)]  # fmt: skip
    return said


def _call_delta(delta: Delta) -> dict[str, Any]:
    if delta.name:
        function = {"name": delta.name, "arguments": delta.text}
        return {"index": delta.call, "id": delta.id, "type": "function", "function": function}
    return {"index": delta.call, "function": {"arguments": delta.text}}


def _logprobs(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"token": one["token"], "bytes": one["bytes"], "logprob": one["logprob"], "top_logprobs": one["top"]}
            for one in found]  # fmt: skip


class _Chunks:
    """Chunks of a stream as bytes. What does not change is made once; a word costs one small encoding."""

    def __init__(self, model: str, n: int, *, usage: bool):
        self.id, self.created, self.usage = new_id("chatcmpl-"), now(), usage
        self.begun = False
        self.head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": model,
                     "service_tier": "default", "system_fingerprint": None}  # fmt: skip
        tail = b',"usage":null' if usage else b""
        begin = b"data: " + orjson.dumps(self.head)[:-1] + tail + b',"choices":[{"index":'
        self.begins = [begin + b'%d,"delta":' % number for number in range(n)]
        self.words_begin = [one + b'{"content":' for one in self.begins]

    def begin(self, *, called: bool) -> bytes:
        """The role of every choice, in their order: some clients count on it."""
        self.begun = True
        role = {"role": "assistant", "content": None if called else "", "refusal": None}
        return b"".join(self.of(number, role) for number in range(len(self.begins)))

    def of(self, number: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        end = orjson.dumps(finish)
        return self.begins[number] + orjson.dumps(delta) + b',"logprobs":null,"finish_reason":' + end + b"}]}\n\n"

    def words(self, number: int, delta: Delta) -> bytes:
        probabilities = b"null"
        if delta.logprobs:
            probabilities = orjson.dumps({"content": _logprobs(delta.logprobs), "refusal": None})
        return (self.words_begin[number] + orjson.dumps(delta.text) + b'},"logprobs":' + probabilities
                + b',"finish_reason":null}]}\n\n')  # fmt: skip

    def last(self, usage: dict[str, Any]) -> bytes:
        return event(self.head | {"choices": [], "usage": usage})
