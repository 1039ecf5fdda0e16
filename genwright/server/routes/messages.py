"""/v1/messages: Anthropic's messages, translated into a chat and back."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from ..answers import Answer, Asking, begun, gather, reply, streamed
from ..conversation import CalledFunction, Strict, ToolCall, Turn, conversation, request_for, words
from ..errors import Wrong, body_of
from ..leaving import unless_gone
from ..tools import Delta, Function, Name, Tools
from ..wire import documented, event, new_id, read_body

router = APIRouter()
_IGNORED = ("metadata", "service_tier", "speed", "cache_control", "inference_geo", "user_profile_id", "diagnostics")
_STOPPED = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class AnthropicTool(Strict):
    """A function that the program runs itself; tools that Anthropic runs are not known here."""

    name: Name
    description: str | None = None
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: Any = None
    input_examples: list[dict[str, Any]] | None = None
    eager_input_streaming: bool | None = None


class AnthropicTurn(Strict):
    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class OutputFormat(Strict):
    model_config = ConfigDict(populate_by_name=True)

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Strict):
    effort: str | None = None
    format: OutputFormat | None = None


class NoThinking(Strict):
    type: Literal["disabled"]


class CountRequest(Strict):
    """What the model is to see."""

    model: str = Field(min_length=1, max_length=500)
    messages: list[AnthropicTurn] = Field(min_length=1, max_length=10_000)
    system: str | list[dict[str, Any]] | None = None
    tools: list[AnthropicTool] | None = Field(None, max_length=128)
    tool_choice: dict[str, Any] | None = None
    output_config: OutputConfig | None = None
    thinking: NoThinking | None = None

    def tools_told(self) -> Tools | None:
        """Raises Wrong (400)."""
        choice = {"type": "auto"} if self.tool_choice is None else self.tool_choice
        said: Any = {"auto": "auto", "any": "required", "none": "none"}.get(str(choice.get("type")))
        if choice.get("type") == "tool":
            said = {"type": "function", "name": choice.get("name")}
        if said is None:
            raise Wrong(400, "tool_choice.type is auto, any, tool or none.", param="tool_choice.type")
        made = [Function(name=tool.name, description=tool.description, parameters=tool.input_schema)
                for tool in self.tools or ()]  # fmt: skip
        return Tools.of(made, said, parallel=choice.get("disable_parallel_tool_use") is not True)

    def turns(self) -> list[Turn]:
        """The chat that is meant. Raises Wrong (400)."""
        told = words(self.system, "system", needed=False)
        turns = [Turn(role="system", content=told)] if told else []
        for number, turn in enumerate(self.messages):
            if isinstance(turn.content, str):
                turns.append(Turn(role=turn.role, content=turn.content))
            else:
                turns += _turns(turn.role, turn.content, f"messages.{number}.content")
        return turns


class MessageRequest(CountRequest):
    """What is understood of Anthropic's request; max_tokens must be said."""

    max_tokens: int = Field(ge=1)
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    stop_sequences: list[str] | None = Field(None, max_length=64)
    stream: bool | None = None

    def answer(self, asking: Asking) -> Answer:
        """Not begun yet. Raises Wrong (400)."""
        tools = self.tools_told()
        wanted = self.output_config.format.schema_ if self.output_config and self.output_config.format else None
        schema = tools.schema(wanted) if tools else wanted
        request = request_for(
            conversation(self.turns(), tools), schema=schema, stop=self.stop_sequences, top_k=self.top_k,
            max_new_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p,
        )  # fmt: skip
        return asking.answer(request, tools.watch(masked=schema is not None) if tools else None)


@router.post("/v1/messages", openapi_extra=documented(MessageRequest, passed_over=_IGNORED, streams=True))
async def create(request: Request) -> Response:
    """Answer a conversation, in Anthropic's shape."""
    asked = await read_body(request, MessageRequest, passed_over=_IGNORED)
    asking = Asking.of(request, asked.model)
    answer = asked.answer(asking)
    if asked.stream:
        return await streamed(request, _events(asking, answer), failed=_failed)
    await unless_gone(request, gather([answer]))
    blocks: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text or not answer.calls else []
    for call in answer.calls:
        blocks.append({"type": "tool_use", "id": call["id"], "name": call["name"], "input": _json(call["arguments"])})
    return reply(request, _message(asking, blocks) | _ending(answer) | {"usage": _usage(answer)})


@router.post("/v1/messages/count_tokens", openapi_extra=documented(CountRequest, passed_over=_IGNORED))
async def count_tokens(request: Request) -> dict[str, Any]:
    """How many tokens a model would read."""
    asked = await read_body(request, CountRequest, passed_over=_IGNORED)
    asking = Asking.of(request, asked.model)
    return {"input_tokens": await asking.count(conversation(asked.turns(), asked.tools_told()))}


async def _events(asking: Asking, answer: Answer) -> AsyncGenerator[bytes]:
    index, call = -1, None  # the block that is open, and which call it is (-1 for words)
    async with aclosing(begun([answer])) as pieces:
        async for _, delta in pieces:
            if index < 0:
                message = _message(asking, []) | {"stop_reason": None, "stop_sequence": None, "usage": _usage(answer)}
                yield _event("message_start", message=message)
            if delta is None:
                break
            if call != delta.call:
                if call is not None:
                    yield _event("content_block_stop", index=index)
                index, call = index + 1, delta.call
                yield _event("content_block_start", index=index, content_block=_block(delta))
            if delta.text:
                yield _event("content_block_delta", index=index, delta=_more(delta))
    if call is None:  # nothing was said
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield _event("content_block_stop", index=max(index, 0))
    yield _event("message_delta", delta=_ending(answer), usage=_usage(answer))
    yield _event("message_stop")


# -- in ---------------------------------------------------------------------------------------------------------------


def _turns(role: str, blocks: Sequence[dict[str, Any]], param: str) -> list[Turn]:
    """Blocks of one message as turns: what tools gave back stands first, each by itself."""
    given, texts, calls = [], [], []
    for block in blocks:
        kind = block.get("type")
        if kind == "tool_result":
            told = words(block.get("content"), param, needed=False)
            given.append(Turn(role="tool", content=f"Error: {told}" if block.get("is_error") is True else told))
        elif kind == "tool_use" and role == "assistant":
            if not isinstance(block.get("name"), str) or not isinstance(block.get("input"), dict):
                raise Wrong(400, f"{param}: a tool_use has a name and an input.", param=param, code="invalid_value")
            function = CalledFunction(name=block["name"], arguments=json.dumps(block["input"], ensure_ascii=False))
            calls.append(ToolCall(id=str(block.get("id")), function=function))
        elif kind not in ("thinking", "redacted_thinking"):
            texts.append(words([block], param))
    said: Any = role
    rest = [Turn(role=said, content="".join(texts), tool_calls=calls or None)] if texts or calls or not given else []
    return [*given, *rest]


# -- out --------------------------------------------------------------------------------------------------------------


def _message(asking: Asking, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": new_id("msg_"), "type": "message", "role": "assistant", "model": asking.model, "content": blocks}


def _ending(answer: Answer) -> dict[str, Any]:
    by = answer.stopped_by if answer.finish == "stop" else None
    return {"stop_reason": "stop_sequence" if by else _STOPPED[answer.finish], "stop_sequence": by}


def _usage(answer: Answer) -> dict[str, Any]:
    return {"input_tokens": answer.prompt_tokens - answer.cached_tokens, "output_tokens": answer.completion_tokens,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": answer.cached_tokens}  # fmt: skip


def _block(delta: Delta) -> dict[str, Any]:
    if delta.call < 0:
        return {"type": "text", "text": ""}
    return {"type": "tool_use", "id": delta.id, "name": delta.name, "input": {}}


def _more(delta: Delta) -> dict[str, Any]:
    if delta.call < 0:
        return {"type": "text_delta", "text": delta.text}
    return {"type": "input_json_delta", "partial_json": delta.text}


def _json(arguments: str) -> dict[str, Any]:
    """Arguments as an object; those that were cut off are none."""
    try:
        found = json.loads(arguments)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _event(kind: str, **said: Any) -> bytes:
    return event({"type": kind, **said}, kind)


def _failed(error: Exception) -> bytes:
    said = body_of(error)[1]["error"]
    return _event("error", error={"type": "api_error", "message": said["message"]})
