"""/api/chat, /api/generate, /api/tags …: Ollama's API, translated. Answers come as lines of JSON unless told not to."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from genwright.core import Message, assistant, system, user

from ..answers import Answer, Asking, begun, gather, reply, streamed
from ..conversation import CalledFunction, Seed, Stop, Strict, ToolCall, Turn, conversation, request_for
from ..errors import body_for
from ..house import caller_of, house_of
from ..leaving import unless_gone
from ..registry import Served
from ..tools import Tools
from ..wire import documented, read_body
from . import embeddings
from .chat import Tool
from .embeddings import EmbeddingRequest, Text

router = APIRouter()
_LINES = "application/x-ndjson"
_IGNORED = ("keep_alive",)  # how long a model stays in memory is the operator's to say
_NO_MATTER = (
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "num_keep",
    "use_mmap",
    "use_mlock",
    "numa",
    "low_vram",
    "vocab_only",
    "f16_kv",
)  # fmt: skip  (how Ollama loads a model, not what it says)


class Sampling(Strict):
    """Ollama's `options`. One that would change the answer and is not understood is an error."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: Seed | None = None
    stop: Stop | None = None
    num_predict: int | None = Field(None, ge=-2)
    repeat_penalty: float | None = Field(None, gt=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)

    @model_validator(mode="before")
    @classmethod
    def _what_matters(cls, given: Any) -> Any:
        return {k: v for k, v in given.items() if k not in _NO_MATTER} if isinstance(given, dict) else given

    def fields(self) -> dict[str, Any]:
        """Fields of our Request."""
        most = self.num_predict if self.num_predict and self.num_predict > 0 else None
        same = self.model_dump(exclude_none=True, exclude={"num_predict", "repeat_penalty"})
        return same | {"max_new_tokens": most, "repetition_penalty": self.repeat_penalty}


class OllamaFunction(Strict):
    name: str
    arguments: dict[str, Any] = Field({})
    index: int | None = None
    description: str | None = None


class OllamaCall(Strict):
    id: str | None = None
    type: Literal["function"] | None = None
    function: OllamaFunction


class OllamaTurn(Strict):
    """One message of a chat; `thinking` of earlier answers is not shown to the model again."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: Annotated[list[Any], Field(max_length=0)] | None = None
    thinking: str | None = None
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def turn(self) -> Turn:
        calls = [
            ToolCall(id="", function=CalledFunction(name=call.function.name,
                                                    arguments=json.dumps(call.function.arguments, ensure_ascii=False)))
            for call in self.tool_calls or ()
        ]  # fmt: skip
        return Turn(role=self.role, content=self.content, tool_calls=calls or None)


class Asked(Strict):
    """What chats and prompts have in common."""

    model: str = Field(min_length=1, max_length=500)
    options: Sampling | None = None
    format: Literal["json", ""] | dict[str, Any] | None = None
    stream: bool | None = None
    think: Literal[False] | None = None

    def said(self) -> dict[str, Any]:
        """Fields of our Request but the messages."""
        schema = {"type": "object"} if self.format == "json" else self.format or None
        return (self.options or Sampling()).fields() | {"schema": schema}


class OllamaChat(Asked):
    """A conversation in Ollama's words."""

    messages: list[OllamaTurn] = Field([], max_length=10_000)
    tools: list[Tool] | None = Field(None, max_length=128)


class OllamaGenerate(Asked):
    """A prompt in Ollama's words; `raw` gives it to the model without any template."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = None
    images: Annotated[list[Any], Field(max_length=0)] | None = None
    suffix: Literal[""] | None = None
    template: Literal[""] | None = None
    context: None = None


class OllamaEmbed(Strict):
    model: str = Field(min_length=1, max_length=500)
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=2048)]
    dimensions: int | None = Field(None, ge=1)
    truncate: Literal[True] | None = None
    options: Sampling | None = None


class Named(Strict):
    model: str | None = None
    name: str | None = None  # as it was once called
    verbose: bool | None = None


@router.post("/api/chat", openapi_extra=documented(OllamaChat, passed_over=_IGNORED, streams=_LINES))
async def chat(request: Request) -> Response:
    """Answer a conversation."""
    asked = await read_body(request, OllamaChat, passed_over=_IGNORED)
    functions = [tool.function for tool in asked.tools or ()]
    tools = Tools.of(functions, "auto")
    messages = conversation([turn.turn() for turn in asked.messages], tools) if asked.messages else ()
    return await _answered(request, asked, messages, tools, chat=True)


@router.post("/api/generate", openapi_extra=documented(OllamaGenerate, passed_over=_IGNORED, streams=_LINES))
async def generate(request: Request) -> Response:
    """Answer a prompt."""
    asked = await read_body(request, OllamaGenerate, passed_over=_IGNORED)
    messages = (*([system(asked.system)] if asked.system else ()), user(asked.prompt))
    return await _answered(
        request, asked, (assistant(asked.prompt),) if asked.raw else messages if asked.prompt else ()
    )


@router.post("/api/embed", openapi_extra=documented(OllamaEmbed, passed_over=_IGNORED))
async def embed(request: Request) -> Response:
    """Vectors of texts."""
    asked = await read_body(request, OllamaEmbed, passed_over=_IGNORED)
    wanted = EmbeddingRequest(model=asked.model, input=asked.input, dimensions=asked.dimensions)
    clock = _Clock()
    found = await unless_gone(request, embeddings.whole(Asking.of(request, asked.model), wanted))
    return reply(request, {"model": found["model"], "embeddings": [one["embedding"] for one in found["data"]],
                           "total_duration": _ns(time.perf_counter() - clock.start), "load_duration": 0,
                           "prompt_eval_count": found["usage"]["prompt_tokens"]})  # fmt: skip


@router.get("/api/tags")
async def tags(request: Request) -> dict[str, Any]:
    """The models that the caller may ask."""
    house = house_of(request)
    return {"models": [_shown(served) for served in house.fleet.list(caller_of(request))]}


@router.post("/api/show", openapi_extra=documented(Named))
async def show(request: Request) -> dict[str, Any]:
    """What is known of a model."""
    asked = await read_body(request, Named)
    house = house_of(request)
    served = house.fleet.find(asked.model or asked.name or "", caller_of(request))
    facts = house.fleet.facts(served)
    known = {"general.name": served.id, "general.context_length": facts.get("context")}
    words = house.fleet.gives(served) in (None, "text")
    able = ["embedding"] if served.embeds else ["completion", "tools"] if words else []
    return _shown(served) | {"model_info": known, "capabilities": able, "template": "", "parameters": "", "license": ""}


@router.get("/api/version")
async def version() -> dict[str, str]:
    """The version of Ollama's API that is spoken here."""
    return {"version": "0.12.0"}


async def _answered(
    request: Request, asked: Asked, messages: Sequence[Message], tools: Tools | None = None, *, chat: bool = False
) -> Response:
    asking = Asking.of(request, asked.model)
    if not messages:  # that is how Ollama is told to load a model
        await unless_gone(request, asking.house.fleet.ready(asking.house.fleet.find(asking.model, asking.caller)))
        return reply(request, _line(asking, chat) | {"done": True, "done_reason": "load"})
    said = asked.said()
    schema = tools.schema(said.pop("schema")) if tools else said.pop("schema")
    answer = asking.answer(request_for(messages, schema=schema, **said),
                           tools.watch(masked=schema is not None) if tools else None)  # fmt: skip
    clock = _Clock()
    if asked.stream is not False:
        lines = _lines(asking, answer, clock, chat)
        return await streamed(request, lines, failed=_failed, kind=_LINES)
    await unless_gone(request, gather([answer]))
    calls = [_call(call["name"], call["arguments"]) for call in answer.calls]
    return reply(request, _line(asking, chat, answer.text, calls) | clock.ending(answer))


async def _lines(asking: Asking, answer: Answer, clock: _Clock, chat: bool) -> AsyncGenerator[bytes]:
    called: dict[str, str] | None = None  # a call leaves whole
    async with aclosing(begun([answer])) as pieces:
        async for _, delta in pieces:
            answer.first = answer.first or time.perf_counter()
            if called and (delta is None or delta.name or delta.call < 0):
                yield _dumped(_line(asking, chat, "", [_call(**called)]) | {"done": False})
                called = None
            if delta is None:
                break
            if delta.call < 0:
                yield _dumped(_line(asking, chat, delta.text) | {"done": False})
            elif delta.name:
                called = {"name": delta.name, "arguments": delta.text}
            elif called:
                called["arguments"] += delta.text
    yield _dumped(_line(asking, chat) | clock.ending(answer))


class _Clock:
    """When an answer was asked for."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def ending(self, answer: Answer) -> dict[str, Any]:
        """The last line's figures; durations in nanoseconds."""
        now = time.perf_counter()
        first = answer.first or now
        return {"done": True, "done_reason": "stop" if answer.finish == "tool_calls" else answer.finish,
                "total_duration": _ns(now - self.start), "load_duration": 0,
                "prompt_eval_count": answer.prompt_tokens, "prompt_eval_duration": _ns(first - self.start),
                "eval_count": answer.completion_tokens, "eval_duration": _ns(now - first)}  # fmt: skip


def _line(asking: Asking, chat: bool, text: str = "", calls: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    head = {"model": asking.model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
    if not chat:
        return head | {"response": text}
    return head | {"message": {"role": "assistant", "content": text} | ({"tool_calls": list(calls)} if calls else {})}


def _call(name: str, arguments: str) -> dict[str, Any]:
    try:
        found = json.loads(arguments)
    except ValueError:
        found = {}
    return {"function": {"name": name, "arguments": found if isinstance(found, dict) else {}}}


def _shown(served: Served) -> dict[str, Any]:
    made = datetime.fromtimestamp(served.created, UTC).isoformat().replace("+00:00", "Z")
    details = {"format": "", "family": "", "families": None, "parameter_size": "", "quantization_level": "",
               "parent_model": served.parent}  # fmt: skip
    return {"name": served.id, "model": served.id, "modified_at": made, "size": 0, "digest": "", "details": details}


def _dumped(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _failed(error: Exception) -> bytes:
    return _dumped(body_for("/api/", error)[1])


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
