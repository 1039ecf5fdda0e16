"""The official client in strict mode, sync and async, over every path of this kind, streaming and not.

Strict mode checks each answer against the client's types. Two answers of OpenAI's own do not pass it, so they are asked
without: streamed completions (`finish_reason` is null until the last) and packed embeddings (a text, then unpacked).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from genwright.server.tools import CLOSE, OPEN

from .parlour import Parlour, client

M: Any = [{"role": "user", "content": "hi"}]
CHAT: dict[str, Any] = {"model": "tiny", "messages": M, "max_tokens": 12}
TEXT: dict[str, Any] = {"model": "tiny", "prompt": "hi", "max_tokens": 12}
RESPONSE: dict[str, Any] = {"model": "tiny", "input": "hi", "max_output_tokens": 12}
FUNCTION = {"name": "time", "parameters": {"type": "object", "properties": {"utc": {"type": "boolean"}},
            "required": ["utc"], "additionalProperties": False}, "strict": True}  # fmt: skip
TOOLS: Any = [{"type": "function", "function": FUNCTION}]
ITEMS: Any = [{"type": "function", **FUNCTION}]
CALL = f'See. {OPEN}{{"name": "time", "arguments": {{"utc": true}}}}{CLOSE}'


class Pet(BaseModel):
    cat: bool


def both(ask: Callable[[Any], Any], parlour: Parlour, *, strict: bool = True) -> list[Any]:
    """What the sync and the async client make of it; of a stream, the list of its events."""
    with client(parlour.address, _strict_response_validation=strict) as sync:
        found = ask(sync)
        first = list(found) if isinstance(found, Iterator | openai.Stream) else found

    async def again() -> Any:
        async with client(parlour.address, openai.AsyncOpenAI, _strict_response_validation=strict) as made:
            found = ask(made)
            found = await found if inspect.isawaitable(found) else found
            return [one async for one in found] if isinstance(found, AsyncIterator | openai.AsyncStream) else found

    return [first, asyncio.run(again())]


@pytest.mark.parametrize("more", [
    {}, {"n": 2, "seed": 1, "temperature": 1}, {"logprobs": True, "top_logprobs": 2},
    {"store": True, "metadata": {"a": "b"}}, {"tools": TOOLS},
    {"tools": TOOLS, "tool_choice": "required", "max_tokens": 60},
    {"response_format": {"type": "json_object"}}, {"stop": ["a", "b"], "presence_penalty": 1, "frequency_penalty": -1},
    {"logit_bias": {"5": -100}, "service_tier": "auto", "user": "u", "reasoning_effort": "low", "top_p": 0.5},
])  # fmt: skip
def test_chat_completions(parlour: Parlour, more: dict[str, Any]) -> None:
    sync, other = both(lambda c: c.chat.completions.create(**CHAT | more), parlour)
    assert sync.choices[0].finish_reason in ("stop", "length", "tool_calls")
    assert [c.message.content for c in sync.choices] == [c.message.content for c in other.choices]
    chunks, others = both(
        lambda c: c.chat.completions.create(**CHAT | more, stream=True, stream_options={"include_usage": True}), parlour
    )
    assert chunks[-1].usage.total_tokens == others[-1].usage.total_tokens == sync.usage.total_tokens
    assert chunks[-1].usage.completion_tokens == sync.usage.completion_tokens
    for number, choice in enumerate(sync.choices):
        said = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == number]
        assert "".join(one.delta.content or "" for one in said) == (choice.message.content or "")
        assert said[-1].finish_reason == choice.finish_reason


def test_kept_chat_completions(parlour: Parlour) -> None:
    with client(parlour.address) as talk:
        id = talk.chat.completions.create(**CHAT, store=True).id
    for kept in both(lambda c: c.chat.completions.retrieve(id), parlour):
        assert kept.id == id
    both(lambda c: c.chat.completions.update(id, metadata={"x": "y"}), parlour)
    for page in both(lambda c: c.chat.completions.list(metadata={"x": "y"}), parlour):
        assert [one.id for one in page.data] == [id]
    for page in both(lambda c: c.chat.completions.messages.list(id), parlour):
        assert len(page.data) == 1
    with client(parlour.address) as talk:
        assert talk.chat.completions.delete(id).deleted


def test_helpers_parse_and_gather(parlour: Parlour) -> None:
    ask = CHAT | {"max_tokens": 40}
    for parsed in both(lambda c: c.chat.completions.parse(**ask, response_format=Pet), parlour):
        assert isinstance(parsed.choices[0].message.parsed, Pet)
    parlour.script.says(CALL)

    def streamed(made: Any) -> Any:
        with made.chat.completions.stream(model="says", messages=M, tools=TOOLS) as stream:
            return [event.type for event in stream], stream.get_final_completion()

    async def streamed_too() -> Any:
        async with client(parlour.address, openai.AsyncOpenAI) as made:
            async with made.chat.completions.stream(model="says", messages=M, tools=TOOLS) as stream:
                kinds = [event.type async for event in stream]
            async with made.responses.stream(model="says", input="hi", tools=ITEMS) as stream:
                async for _ in stream:
                    pass
                return kinds, await stream.get_final_response()

    with client(parlour.address) as made:
        kinds, final = streamed(made)
    others, response = asyncio.run(streamed_too())
    assert set(kinds) == set(others)
    assert final.choices[0].message.tool_calls[0].function.parsed_arguments == {"utc": True}
    assert response.output[1].parsed_arguments == {"utc": True}


@pytest.mark.parametrize(
    "more", [{}, {"n": 2}, {"echo": True, "logprobs": 2}, {"prompt": ["a", "b"]}, {"prompt": [5, 6]}]
)
def test_completions(parlour: Parlour, more: dict[str, Any]) -> None:
    sync, other = both(lambda c: c.completions.create(**TEXT | more), parlour)
    assert [choice.text for choice in sync.choices] == [choice.text for choice in other.choices]
    if "logprobs" not in more:
        chunks, _ = both(lambda c: c.completions.create(**TEXT | more, stream=True), parlour, strict=False)
        for number, choice in enumerate(sync.choices):
            said = "".join(one.text for c in chunks for one in c.choices if one.index == number)
            assert said == choice.text


@pytest.mark.parametrize("more", [
    {}, {"instructions": "Be brief.", "metadata": {"a": "b"}}, {"store": False, "user": "u", "truncation": "auto"},
    {"tools": ITEMS}, {"tools": ITEMS, "tool_choice": {"type": "function", "name": "time"}, "max_output_tokens": 60},
    {"text": {"format": {"type": "json_object"}}}, {"include": ["message.output_text.logprobs"], "top_logprobs": 1},
    {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
])  # fmt: skip
def test_responses(parlour: Parlour, more: dict[str, Any]) -> None:
    sync, other = both(lambda c: c.responses.create(**RESPONSE | more), parlour)
    assert sync.output_text == other.output_text
    events, others = both(lambda c: c.responses.create(**RESPONSE | more, stream=True), parlour)
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert events[-1].response.output_text == others[-1].response.output_text == sync.output_text
    assert events[-1].response.usage.total_tokens == sync.usage.total_tokens


def test_kept_responses(parlour: Parlour) -> None:
    with client(parlour.address) as talk:
        first = talk.responses.create(**RESPONSE)
        behind = talk.responses.create(**RESPONSE, background=True)
    for kept in both(lambda c: c.responses.retrieve(first.id), parlour):
        assert kept == first
    for page in both(lambda c: c.responses.input_items.list(first.id), parlour):
        assert page.data[0].content[0].text == "hi"
    for stopped in both(lambda c: c.responses.cancel(behind.id), parlour):
        assert stopped.status in ("cancelled", "completed", "incomplete")
    for counted in both(lambda c: c.responses.input_tokens.count(model="tiny", input="hi"), parlour):
        assert counted.input_tokens == first.usage.input_tokens
    for parsed in both(lambda c: c.responses.parse(**RESPONSE, text_format=Pet), parlour):
        assert parsed.output_parsed is None or isinstance(parsed.output_parsed, Pet)
    with client(parlour.address) as talk:
        assert talk.responses.delete(first.id) is None


def test_embeddings_and_moderations(parlour: Parlour) -> None:
    ask = {"model": "universal-sentence-encoder", "input": ["a", "b"], "dimensions": 16}
    plain = both(lambda c: c.embeddings.create(**ask, encoding_format="float"), parlour)
    packed = both(lambda c: c.embeddings.create(**ask), parlour, strict=False)
    for one in (*plain, *packed):
        assert [len(vector.embedding) for vector in one.data] == [16, 16]
    for found in both(lambda c: c.moderations.create(input=["joe@example.com", "b"]), parlour):
        assert [one.flagged for one in found.results] == [True, False]


def test_errors_are_the_clients_own(parlour: Parlour) -> None:
    cases: list[tuple[type[Exception], Callable[[Any], Any]]] = [
        (openai.BadRequestError, lambda c: c.chat.completions.create(**CHAT | {"temperature": 3})),
        (openai.NotFoundError, lambda c: c.chat.completions.create(**CHAT | {"model": "none"})),
        (openai.NotFoundError, lambda c: c.responses.retrieve("resp_none")),
        (openai.PermissionDeniedError, lambda c: c.responses.create(model="guarded", input="forbidden")),
        (openai.BadRequestError, lambda c: c.images.generate(prompt="a cat")),
        (openai.NotFoundError, lambda c: c.audio.speech.create(model="a", input="b", voice="alloy")),
        (openai.InternalServerError, lambda c: c.containers.list()),
    ]
    for kind, ask in cases:
        with pytest.raises(kind) as error:
            both(ask, parlour)
        assert set(error.value.body) == {"message", "type", "param", "code"}  # type: ignore[attr-defined]
