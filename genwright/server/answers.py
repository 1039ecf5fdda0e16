"""Answers: the parts that a model yields become deltas, for one answer or several at once, in whatever API's shape.

A route asks (`ask`), then either gathers whole answers or turns their deltas into events as they come (`streamed`).
What goes wrong before the first delta is an HTTP error; after it, the stream itself says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson
from fastapi import Request as HttpRequest
from fastapi import Response
from fastapi.responses import StreamingResponse

from genwright.core import Message, Part, Refused, Request

from .errors import Wrong, body_of
from .house import Caller, House, caller_of, house_of
from .leaving import unless_gone
from .tools import Delta, Watch
from .wire import STREAM_HEAD

AT_ONCE = 8  # answers of one request that are asked for together; the rest wait, and others come in between
_BUFFER = 64  # deltas that wait for a slow reader


@dataclass
class Answer:
    """One answer on its way: iterate `deltas()` once, then its other fields are true.

    `refused` is set when a guard stopped it; `finish` is then "content_filter" and what left was clean.
    """

    parts: AsyncGenerator[Part]
    watch: Watch | None = None
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    stopped_by: str | None = None  # the stop text that ended it, if the engine tells
    refused: Refused | None = None
    first: float = 0.0  # when its first delta came (time.perf_counter); filled by `keep`, as are the next three
    text: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)  # each {"id", "name", "arguments"}
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    async def deltas(self) -> AsyncGenerator[Delta]:
        """The answer in pieces. Raises what the model raises, but ends quietly when a guard refuses (`refused`)."""
        async with aclosing(self.parts):
            try:
                if self.watch is None:
                    async for part in self.parts:
                        logprobs = self._note(part.meta) if part.meta else None
                        if part.text or logprobs:
                            yield Delta(part.text, logprobs=logprobs)
                else:
                    async for delta in self._watched(self.watch):
                        yield delta
            except Refused as refusal:
                self.refused, self.finish = refusal, "content_filter"

    async def _watched(self, watch: Watch) -> AsyncIterator[Delta]:
        called, waiting = False, []  # log-probabilities of text that the watch still holds
        async for part in self.parts:
            waiting += (self._note(part.meta) if part.meta else None) or []
            for delta in watch.feed(part.text) if part.text else ():
                called = called or delta.call >= 0
                if delta.call < 0:
                    delta.logprobs = waiting or None
                waiting = []
                yield delta
            if watch.done:
                break
        for delta in watch.end(cut=self.finish == "length"):
            called = called or delta.call >= 0
            if delta.call < 0:
                delta.logprobs, waiting = waiting or None, []
            yield delta
        if called and self.finish == "stop":
            self.finish = "tool_calls"

    def _note(self, meta: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Keep what a part's meta says of how the answer ended and what it took; its log-probabilities."""
        if meta.get("finish_reason") in ("stop", "length", "content_filter"):
            self.finish = meta["finish_reason"]
        self.stopped_by = meta.get("stop_sequence", self.stopped_by)
        self.prompt_tokens = meta.get("prompt_tokens", self.prompt_tokens)
        self.completion_tokens = meta.get("completion_tokens", self.completion_tokens)
        self.cached_tokens = meta.get("cached_tokens", self.cached_tokens)
        return meta.get("logprobs")

    def keep(self, delta: Delta) -> None:
        """Add a delta to `text`, `calls` and `logprobs`."""
        self.first = self.first or time.perf_counter()
        if delta.call < 0:
            self.text += delta.text
        elif delta.name:
            self.calls.append({"id": delta.id, "name": delta.name, "arguments": delta.text})
        else:
            self.calls[delta.call]["arguments"] += delta.text
        if delta.logprobs:
            self.logprobs += delta.logprobs


@dataclass(frozen=True)
class Asking:
    """Who asks which model: `model` is its id, whatever alias was said."""

    house: House
    caller: Caller
    model: str
    deadline: float | None = None  # seconds

    @classmethod
    def of(cls, request: HttpRequest, model: str) -> Asking:
        """Raises Wrong (404) for an unknown model, and (400) for a deadline that is no number of seconds."""
        house, caller = house_of(request), caller_of(request)
        return cls(house, caller, house.fleet.find(model, caller).id, _deadline(request, house.options.deadline))

    async def texts(self, given: Any) -> list[str]:
        """A text, several, ids of tokens, or several lists of them, as texts; the model's own tokenizer knows the ids.

        Raises Wrong (400) for a model whose tokenizer is not on this machine.
        """
        if isinstance(given, str):
            return [given]
        if isinstance(given[0], str):
            return list(given)
        many = [given] if isinstance(given[0], int) else given
        return [await self.house.fleet.detokenize(self.model, ids, caller=self.caller) for ids in many]

    async def count(self, asked: str | Sequence[Message]) -> int:
        """Tokens of a text, or of a conversation as the model sees it."""
        return len(await self.house.fleet.tokenize(self.model, asked, caller=self.caller))

    def answer(self, request: Request, watch: Watch | None = None) -> Answer:
        """Nothing happens before its deltas are wanted."""
        return Answer(self.house.desk.ask(self.caller, self.model, request, deadline=self.deadline), watch)


async def together(answers: Sequence[Answer]) -> AsyncGenerator[tuple[int, Delta | None]]:
    """(which answer, its next delta) as they come; None when that answer is whole. Closing it stops them all."""
    if len(answers) == 1:
        async with aclosing(answers[0].deltas()) as deltas:
            async for delta in deltas:
                yield 0, delta
        yield 0, None
        return
    found: asyncio.Queue[tuple[int, Delta | Exception | None]] = asyncio.Queue(_BUFFER)
    places = asyncio.Semaphore(AT_ONCE)

    async def pull(number: int) -> None:
        try:
            async with places, aclosing(answers[number].deltas()) as deltas:
                async for delta in deltas:
                    await found.put((number, delta))
            await found.put((number, None))
        except Exception as error:  # handed over, to be raised where it is read
            await found.put((number, error))

    tasks = [asyncio.create_task(pull(number)) for number in range(len(answers))]
    left = len(tasks)
    try:
        while left:
            number, came = await found.get()
            if isinstance(came, Exception):
                raise came
            left -= came is None
            yield number, came
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def gather(answers: Sequence[Answer]) -> None:
    """Take the answers whole. Raises what a model raises, and Refused when a guard refused every one of them."""
    async with aclosing(together(answers)) as pieces:
        async for number, delta in pieces:
            if delta:
                answers[number].keep(delta)
    if all(answer.refused for answer in answers):
        raise answers[0].refused  # type: ignore[misc]


async def begun(answers: Sequence[Answer]) -> AsyncGenerator[tuple[int, Delta | None]]:
    """As `together`, for streams: raises Refused when every answer was refused before it said anything."""
    waiting: list[tuple[int, Delta | None]] | None = []  # those that ended before any other said something
    async with aclosing(together(answers)) as pieces:
        async for piece in pieces:
            if waiting is None:
                yield piece
                continue
            waiting.append(piece)
            if piece[1] is None and len(waiting) < len(answers):
                continue
            if piece[1] is None and all(answer.refused for answer in answers):
                raise answers[0].refused  # type: ignore[misc]
            for early in waiting:
                yield early
            waiting = None


async def streamed(
    request: HttpRequest, events: AsyncGenerator[bytes], *, failed: Callable[[Exception], bytes] | None = None,
    kind: str = "text/event-stream",
) -> StreamingResponse:  # fmt: skip
    """A response of events; it begins when there is the first, so what goes wrong before that is an HTTP error.

    `failed` tells of what goes wrong later, in the API's own shape.
    """
    first = await unless_gone(request, anext(events))
    head = STREAM_HEAD | limits_of(request)
    return StreamingResponse(_going_on(first, events, failed or _as_error), media_type=kind, headers=head)


async def _going_on(
    first: bytes, events: AsyncGenerator[bytes], failed: Callable[[Exception], bytes]
) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        yield first
        try:
            async for event in events:
                yield event
        except Exception as error:  # the headers are gone, so this is how a client hears of it
            yield failed(error)


def _as_error(error: Exception) -> bytes:
    return b"data: " + orjson.dumps(body_of(error)[1]) + b"\n\n"


def reply(request: HttpRequest, body: dict[str, Any]) -> Response:
    """A JSON response, with what the caller's limits leave in its headers."""
    return Response(orjson.dumps(body), media_type="application/json", headers=limits_of(request))


def limits_of(request: HttpRequest) -> dict[str, str]:
    headers: dict[str, str] = house_of(request).limits.headers(caller_of(request))
    return headers


def usage(answers: Sequence[Answer], per_prompt: int = 0) -> dict[str, Any]:
    """OpenAI's usage. Each prompt is counted once, however many answers (`per_prompt`; 0 is all) it had."""
    firsts = answers[:: per_prompt or len(answers)]
    prompt = sum(answer.prompt_tokens for answer in firsts)
    completion = sum(answer.completion_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": sum(answer.cached_tokens for answer in firsts)}}  # fmt: skip


def _deadline(request: HttpRequest, longest: float) -> float:
    """Seconds that the request may take: the server's, or fewer if the header X-Request-Timeout says so."""
    said = request.headers.get("x-request-timeout")
    try:
        seconds = float(said) if said is not None else longest
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise Wrong(400, "X-Request-Timeout is a number of seconds above 0.", code="invalid_value")
    return min(seconds, longest)
