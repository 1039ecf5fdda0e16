"""/v1/completions: a text is gone on with, as it is, without any template."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field

from genwright.core import assistant

from ..answers import Answer, Asking, begun, gather, reply, streamed, usage
from ..conversation import PASSED_OVER, Bias, Seed, Stop, StreamOptions, Strict, request_for
from ..errors import Wrong
from ..leaving import unless_gone
from ..wire import DONE, documented, event, new_id, now, read_body

router = APIRouter()

Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
Texts = str | Annotated[list[str], Field(min_length=1, max_length=128)]


class CompletionRequest(Strict):
    """What is understood. `echo` gives the prompt back, with `logprobs` how likely it was."""

    model: str = Field(min_length=1, max_length=500)
    prompt: Texts | Ids | Annotated[list[Ids], Field(min_length=1, max_length=128)] | None = None
    max_tokens: int | None = Field(16, ge=0, description="As OpenAI's: 16 where nothing is said")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    repetition_penalty: float | None = Field(None, gt=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: Bias | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    n: int | None = Field(None, ge=1, le=16)
    best_of: int | None = Field(None, ge=1, le=16)
    suffix: None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def each(self) -> int:
        return self.n or 1

    def answers(self, asking: Asking, prompts: Sequence[str]) -> list[Answer]:
        """`each` answers a prompt, in the order of the prompts; none where no token is wanted."""
        if self.max_tokens == 0:
            return []
        made = []
        for prompt in prompts:
            request = request_for(
                (assistant(prompt),), stop=self.stop, logit_bias=self.logit_bias, max_new_tokens=self.max_tokens,
                temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, logprobs=self.logprobs,
                repetition_penalty=self.repetition_penalty, presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty, seed=self.seed,
            )  # fmt: skip
            for i in range(self.each):
                changed = {"seed": self.seed + i} if self.seed is not None and i else {}
                made.append(asking.answer(request.model_copy(update=changed)))
        return made

    def check(self) -> None:
        """Raises Wrong (400) for what does not go together."""
        if self.best_of is not None and self.best_of != self.each:
            raise Wrong(400, "best_of must be n: answers are not ranked here.", param="best_of",
                        code="unsupported_value")  # fmt: skip
        if self.max_tokens == 0 and (not self.echo or self.stream):
            raise Wrong(400, "max_tokens is 0, so there is nothing to say; with echo the prompt is scored.",
                        param="max_tokens", code="invalid_value")  # fmt: skip
        if self.echo and self.stream and self.logprobs is not None:
            raise Wrong(400, "The prompt's log-probabilities are not streamed.", param="stream",
                        code="unsupported_value")  # fmt: skip


@router.post("/v1/completions", openapi_extra=documented(CompletionRequest, passed_over=PASSED_OVER, streams=True))
async def create(request: Request) -> Response:
    """Go on with a text."""
    asked = await read_body(request, CompletionRequest, passed_over=PASSED_OVER)
    asking = Asking.of(request, asked.model)
    if asked.stream:
        return await streamed(request, events(asking, asked))
    return reply(request, await unless_gone(request, whole(asking, asked)))


async def whole(asking: Asking, asked: CompletionRequest) -> dict[str, Any]:
    """The body of a whole completion. Raises Refused when a guard refused every choice."""
    asked.check()
    prompts = await asking.texts(asked.prompt or "")
    scores = await asyncio.gather(*(_scores(asking, asked, prompt) for prompt in prompts))
    answers = asked.answers(asking, prompts)
    if answers:
        await gather(answers)
    choices = []
    for number in range(len(prompts) * asked.each):
        prompt, scored = prompts[number // asked.each], scores[number // asked.each]
        choices.append(_choice(number, asked, prompt, scored, answers[number] if answers else None))
    used = usage(answers, asked.each) if answers else await _prompt_usage(asking, prompts)
    return _head(asking.model) | {"choices": choices, "usage": used}


async def events(asking: Asking, asked: CompletionRequest) -> AsyncGenerator[bytes]:
    """The completion as server-sent events, the first of them when the model has begun."""
    asked.check()
    prompts = await asking.texts(asked.prompt or "")
    answers = asked.answers(asking, prompts)
    told = asked.stream_options is not None and asked.stream_options.include_usage is True
    head = _head(asking.model)
    begin = b"data: " + orjson.dumps(head)[:-1] + (b',"usage":null' if told else b"") + b',"choices":[{"index":'
    said = [""] * len(answers)  # how much left of each, to say where a token stands; only with logprobs
    silent = set(range(len(answers))) if asked.echo else set()
    async with aclosing(begun(answers)) as pieces:
        async for number, delta in pieces:
            if number in silent:
                silent.discard(number)
                yield b'%s%d,"text":%s,"logprobs":null,"finish_reason":null}]}\n\n' % (
                    begin, number, orjson.dumps(prompts[number // asked.each]))  # fmt: skip
            text = delta.text if delta else ""
            probabilities = b"null"
            if delta and delta.logprobs:
                probabilities = orjson.dumps(_logprobs(delta.logprobs, len(said[number]), asked.logprobs or 0))
                said[number] += text
            yield b'%s%d,"text":%s,"logprobs":%s,"finish_reason":%s}]}\n\n' % (
                begin, number, orjson.dumps(text), probabilities,
                b"null" if delta else orjson.dumps(answers[number].finish))  # fmt: skip
    if told:
        yield event(head | {"choices": [], "usage": usage(answers, asked.each)})
    yield DONE


# -- prompts ----------------------------------------------------------------------------------------------------------


async def _scores(asking: Asking, asked: CompletionRequest, prompt: str) -> list[dict[str, Any]]:
    """How likely each token of the prompt was, when that is wanted."""
    if not asked.echo or asked.logprobs is None or not prompt:
        return []
    desk = asking.house.desk
    return list(await desk.score(asking.caller, asking.model, prompt, asked.logprobs, deadline=asking.deadline))


async def _prompt_usage(asking: Asking, prompts: Sequence[str]) -> dict[str, Any]:
    tokens = sum([await asking.count(prompt) for prompt in prompts])
    return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}


# -- shapes -----------------------------------------------------------------------------------------------------------


def _head(model: str) -> dict[str, Any]:
    return {"id": new_id("cmpl-"), "object": "text_completion", "created": now(), "model": model,
            "system_fingerprint": None}  # fmt: skip


def _choice(
    number: int, asked: CompletionRequest, prompt: str, scored: Sequence[dict[str, Any]], answer: Answer | None
) -> dict[str, Any]:
    echoed = prompt if asked.echo else ""
    said, found = (answer.text, answer.logprobs) if answer else ("", [])
    wanted = asked.logprobs is not None
    return {"index": number, "text": echoed + said, "finish_reason": answer.finish if answer else "length",
            "logprobs": _logprobs([*scored, *found], 0, asked.logprobs or 0) if wanted else None}  # fmt: skip


def _logprobs(found: Sequence[dict[str, Any]], start: int, top: int) -> dict[str, Any]:
    """The old shape: four lists side by side. The first token of a text follows nothing, so it has no probability:
    it is given 0.0, which leaves every sum as it is (the type has no place for a null)."""
    offsets, place = [], start
    for one in found:
        offsets.append(place)
        place += len(one["token"])
    tops = [{each["token"]: each["logprob"] for each in one["top"][:top]} for one in found] if top else None
    return {"tokens": [one["token"] for one in found], "token_logprobs": [one["logprob"] or 0.0 for one in found],
            "top_logprobs": tops, "text_offset": offsets}  # fmt: skip
