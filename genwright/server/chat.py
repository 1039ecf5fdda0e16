"""/v1/chat/completions: OpenAI's words in, a request to the model, OpenAI's words out, streamed or whole."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genwright.core import Constraints, Message, Part, Refused

from .errors import Wrong, body_of

_HARMLESS = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
)
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchema(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field({}, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_call_id: str | None = None


class ChatRequest(BaseModel):
    """What is understood. A key that would change the answer and is not understood is an error, never ignored."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[Turn] = Field(min_length=1, max_length=10_000)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    repetition_penalty: float | None = Field(None, gt=0)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = Field(None, max_length=1000)
    n: Literal[1] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None

    @classmethod
    def read(cls, body: bytes) -> ChatRequest:
        """Raises Wrong (400) that names the parameter."""
        try:
            fields = json.loads(body)
            if not isinstance(fields, dict):
                raise ValueError("it is no object")
        except (ValueError, RecursionError) as error:
            raise Wrong(400, f"The body is not JSON: {error}.", code="invalid_json") from None
        try:
            return cls.model_validate({k: v for k, v in fields.items() if k not in _HARMLESS})
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            param = ".".join(map(str, first["loc"]))
            known = first["type"] != "extra_forbidden"
            said = f"{param}: {first['msg']}." if known else f"{param} is not supported here."
            code = "invalid_value" if known else "unsupported_parameter"
            raise Wrong(400, said, param=param, code=code) from None

    def conversation(self) -> tuple[Message, ...]:
        return tuple(Message(_ROLES[turn.role], (Part(text=_words(turn, i)),)) for i, turn in enumerate(self.messages))

    def options(self) -> dict[str, Any]:
        """Fields of our Request, for what was said; temperature 0 (greedy) unless told otherwise."""
        said = {
            "max_new_tokens": self.max_completion_tokens or self.max_tokens, "temperature": self.temperature,
            "top_p": self.top_p, "top_k": self.top_k, "repetition_penalty": self.repetition_penalty, "seed": self.seed,
        }  # fmt: skip
        options: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        if self.stop:
            options["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(filter(None, self.stop))
        if self.response_format and self.response_format.type != "text":
            options["constraints"] = Constraints(json_schema=self._schema(self.response_format))
        return options

    def _schema(self, format: ResponseFormat) -> dict[str, Any]:
        if format.type == "json_object":
            return {"type": "object"}
        if format.json_schema is None:
            raise Wrong(400, "response_format.json_schema is missing.", param="response_format.json_schema")
        return format.json_schema.schema_


def _words(turn: Turn, number: int) -> str:
    if isinstance(turn.content, list):
        for part in turn.content:
            if part.get("type") not in ("text", "refusal") or not isinstance(part.get(part["type"]), str):
                raise Wrong(400, f"messages.{number}: only text parts are understood, not {part.get('type')!r}.",
                            param=f"messages.{number}.content", code="unsupported_value")  # fmt: skip
        return "".join(part[part["type"]] for part in turn.content)
    if turn.content is None and turn.role != "assistant":
        raise Wrong(400, f"messages.{number} has no content.", param=f"messages.{number}.content", code="invalid_value")
    return turn.content or ""


@dataclass
class Answer:
    """One answer on its way out, in the shape that was asked for."""

    asked: ChatRequest
    model: str
    id: str
    created: int
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def to(cls, asked: ChatRequest, model: str) -> Answer:
        return cls(asked, model, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()))

    def note(self, part: Part) -> None:
        """Keep what a part's meta says of how the answer ended and what it took."""
        meta = part.meta or {}
        if meta.get("finish_reason") in ("stop", "length", "content_filter"):
            self.finish = str(meta["finish_reason"])
        self.prompt_tokens = int(meta.get("prompt_tokens", self.prompt_tokens))
        self.completion_tokens = int(meta.get("completion_tokens", self.completion_tokens))

    async def whole(self, parts: AsyncIterator[Part]) -> dict[str, Any]:
        texts = []
        async for part in parts:
            texts.append(part.text)
            self.note(part)
        message = {"role": "assistant", "content": "".join(texts), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        return {"id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
                "choices": [choice], "usage": self.usage()}  # fmt: skip

    async def events(self, first: Part | None, parts: AsyncGenerator[Part]) -> AsyncIterator[bytes]:
        """Server-sent events; `first` was pulled before the headers went out, so that a refusal is an HTTP error."""
        async with aclosing(parts):
            yield self._chunk({"role": "assistant", "content": ""})
            try:
                if first is not None:
                    self.note(first)
                    if first.text:
                        yield self._chunk({"content": first.text})
                    async for part in parts:
                        self.note(part)
                        if part.text:
                            yield self._chunk({"content": part.text})
            except Refused:
                self.finish = "content_filter"
            except Exception as error:  # the headers are gone, so this is how a client hears of it
                yield _event(body_of(error)[1])
                return
            yield self._chunk({}, self.finish)
            if self.asked.stream_options and self.asked.stream_options.include_usage:
                yield _event(self._head() | {"choices": [], "usage": self.usage()})
            yield b"data: [DONE]\n\n"

    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
                "total_tokens": self.prompt_tokens + self.completion_tokens}  # fmt: skip

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}

    def _chunk(self, delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event(self._head() | {"choices": [choice]})


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
