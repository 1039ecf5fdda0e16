"""Conversations: messages in OpenAI's shape become ours, and what is said of sampling becomes a Request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from genwright.core import Constraints, Message, Request, assistant, system, user

from .errors import Wrong
from .tools import Tools, call_text, response_text
from .wire import Body

PASSED_OVER = (
    "user",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "reasoning_effort",
    "verbosity",
    "prediction",
)  # fmt: skip  (they change no answer here)

Metadata = Annotated[dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
                     Field(max_length=16)]  # fmt: skip
Stop = str | Annotated[list[str], Field(max_length=64)]
Bias = dict[str, Annotated[float, Field(ge=-100, le=100)]]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Strict(Body):
    """A body whose values must have the right type already: "5" is no number."""

    model_config = ConfigDict(strict=True)


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # padding against eavesdroppers of sizes; there is no net between us


class JsonSchema(Strict):
    model_config = ConfigDict(populate_by_name=True)

    name: str = Field("", max_length=64)
    description: str | None = None
    schema_: dict[str, Any] = Field({}, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """What an answer must look like: `text`, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    def schema_of(self) -> dict[str, Any] | None:
        """None for plain text. Raises Wrong (400) when the schema is missing."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"type": "object"}
        if self.json_schema is None:
            raise Wrong(400, "response_format.json_schema is missing.", param="response_format.json_schema")
        return self.json_schema.schema_


class CalledFunction(Strict):
    name: str
    arguments: str


class ToolCall(Strict):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Turn(Strict):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    annotations: list[Any] | None = None  # these three come back from clients that send our own answers again
    audio: None = None
    function_call: None = None


def conversation(turns: Sequence[Turn], tools: Tools | None = None) -> tuple[Message, ...]:
    """The messages that the model is to see, tools and calls as text. Raises Wrong (400) that names the message."""
    told: list[Message] = []
    answering = False  # whether the last message holds what tools gave back
    for number, turn in enumerate(turns):
        said = words(turn.content, f"messages.{number}.content", needed=turn.role != "assistant")
        if turn.role == "tool":
            told = _with_response(told, said, answering)
        elif turn.role == "assistant":
            calls = [call_text(call.function.name, call.function.arguments) for call in turn.tool_calls or ()]
            told.append(assistant("\n".join(filter(None, (said or turn.refusal or "", *calls)))))
        else:
            told.append(user(said) if turn.role == "user" else system(said))
        answering = turn.role == "tool"
    return with_tools(told, tools)


def with_tools(messages: Sequence[Message], tools: Tools | None) -> tuple[Message, ...]:
    """The conversation with the tools told at the end of its system message."""
    if tools is None:
        return tuple(messages)
    if messages and messages[0].role == "system":
        return (system(f"{messages[0].text}\n\n{tools.told()}".lstrip()), *messages[1:])
    return (system(tools.told()), *messages)


def _with_response(told: list[Message], said: str, more: bool) -> list[Message]:
    """What tools gave back stands in one user message, however many were called: templates know of no other role."""
    if more:
        return [*told[:-1], user(f"{told[-1].text}\n{response_text(said)}")]
    return [*told, user(response_text(said))]


def words(content: str | list[dict[str, Any]] | None, param: str, *, needed: bool = True) -> str:
    """The text of a message's content, in the spellings of chats and of responses. Raises Wrong (400)."""
    if isinstance(content, str):
        return content
    if content is None:
        if needed:
            raise Wrong(400, f"{param} is missing.", param=param, code="invalid_value")
        return ""
    texts = []
    for part in content:
        key = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}.get(
            part["type"] if isinstance(part.get("type"), str) else ""
        )
        text = part.get(key) if key else None
        if not isinstance(text, str):
            kind = str(part.get("type"))[:100]
            raise Wrong(400, f"{param}: only text is understood here, not {kind!r}.", param=param,
                        code="unsupported_value")  # fmt: skip
        texts.append(text)
    return "".join(texts)


def request_for(messages: Sequence[Message], **said: Any) -> Request:
    """A Request with what was said, and nothing set that was not: the model's own defaults stand for the rest.

    `said` are fields of Request, None where nothing was said; `stop` may be one text, `logit_bias` has ids as texts,
    `schema` becomes a constraint. Raises Wrong (400).
    """
    fields = {name: value for name, value in said.items() if value is not None}
    if "stop" in fields:
        stop = fields.pop("stop")
        fields["stop"] = (stop,) if isinstance(stop, str) and stop else tuple(filter(None, stop))
    if "logit_bias" in fields:
        fields["logit_bias"] = _by_id(fields["logit_bias"])
    if "schema" in fields:
        fields["constraints"] = Constraints(json_schema=fields.pop("schema"))
    return Request(messages=tuple(messages), **fields)


def _by_id(bias: dict[str, float]) -> dict[int, float]:
    if not all(token.isdecimal() for token in bias):
        raise Wrong(400, "logit_bias: its keys are ids of tokens.", param="logit_bias", code="invalid_value")
    return {int(token): value for token, value in bias.items()}
