"""A model elsewhere, through any API like OpenAI's: vLLM, llama.cpp, Ollama, a hosted one, or `genwright serve`."""

from __future__ import annotations

import http.client
import itertools
import json
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import Constraints, Message, ModelError, Part, Request, UsageError
from genwright.nn.parallel import answer_many
from genwright.nn.upstream import Address, Connection, words_of

remote = True  # its `source` is a name at the upstream, not something on this machine
_LONGEST_LINE = 1_000_000  # bytes of one event


class Settings(Address):
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the upstream calls the limit of an answer"
    )


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Upstream:
    """Nothing is sent before the first request. Raises UsageError when the key's variable is not set."""
    return Upstream(settings, settings.key(), itertools.count(seed))


class Upstream(Connection):
    """A model that answers over HTTP. It offers no likelihoods, for chat APIs do not score given answers."""

    settings: Settings

    def __init__(self, settings: Settings, key: str, seeds: Iterator[int], wait: Callable[[float], None] = time.sleep):
        super().__init__(settings, key, wait)
        self._seeds = seeds
        self.parallel = settings.parallel

    def generate(self, request: Request) -> Generator[Part]:
        """Text deltas, then an empty part whose meta has `finish_reason` and, if told, `prompt_tokens` and
        `completion_tokens`; closing the iterator hangs up. A conversation that is only the beginning of an answer goes
        to `/completions`, all else to `/chat/completions`.

        `json_schema`, `choice` and `regex` are asked for by `response_format`; the latter two come whole, unpacked and
        checked. Raises UsageError for what the upstream refuses (HTTP 4xx), ModelError when it fails or hangs up.
        """
        path, body, wrapped = self._body(request)
        with closing(self._events(path, body)) as events:
            if not wrapped:
                yield from events
                return
            parts = list(events)
        yield Part(text=_unwrapped("".join(part.text for part in parts), request.constraints))
        yield from (part for part in parts if part.meta)

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers as they are ready, `settings.parallel` at a time; closing the iterator drops the rest."""
        yield from answer_many(self.generate, requests, seeds=self._seeds, at_once=self.settings.parallel)

    def _body(self, request: Request) -> tuple[str, dict[str, Any], bool]:
        """Where the request goes, the request in OpenAI's words, and whether the answer comes wrapped in JSON.

        What OpenAI's API has no word for (top_k, repetition_penalty) goes by the names that vLLM and llama.cpp know,
        when it is asked for, so that an upstream either does it or says that it cannot.
        """
        if odd := [part.kind for message in request.messages for part in message.parts if part.kind != "text"]:
            raise UsageError(f"Text is sent to upstreams, not {odd[0]}.", "Leave it out.")
        goes_on = len(request.messages) == 1 and request.messages[0].role == "assistant"
        seed = next(self._seeds) if request.seed is None else request.seed
        body = {
            "model": self.settings.model, "temperature": request.temperature, "top_p": request.top_p, "seed": seed,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        if "max_new_tokens" in request.model_fields_set:
            body["max_tokens" if goes_on else self.settings.max_tokens_key] = request.max_new_tokens
        body |= {"stop": list(request.stop)} if request.stop else {}
        body |= {"repetition_penalty": request.repetition_penalty} if request.repetition_penalty != 1.0 else {}
        for name in ("top_k", "presence_penalty", "frequency_penalty", "logit_bias"):
            if value := getattr(request, name):
                body[name] = value
        schema, wrapped = _schema(request.constraints)
        if schema is not None:
            format = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": format}
        if goes_on:
            body |= {} if request.logprobs is None else {"logprobs": request.logprobs}
            return "/completions", body | {"prompt": request.messages[0].text}, wrapped
        body |= {} if request.logprobs is None else {"logprobs": True, "top_logprobs": request.logprobs}
        return "/chat/completions", body | {"messages": [message.as_dict() for message in request.messages]}, wrapped

    def _events(self, path: str, body: dict[str, Any]) -> Generator[Part]:
        with closing(self.post(path, json.dumps(body).encode("utf-8", "replace"))) as response:
            if "text/event-stream" not in response.headers.get("Content-Type", ""):
                raise ModelError(f"{self.place} does not stream: it sent {response.headers.get('Content-Type')!r}.")
            why = ""
            usage: dict[str, int] = {}
            for data in self._lines(response):
                if data == "[DONE]":
                    self.breaker.went_well()
                    yield Part(meta={"finish_reason": why or "stop", **usage})
                    return
                event = self._parsed(data)
                if event.get("usage"):
                    usage = {
                        k: event["usage"][k] for k in ("prompt_tokens", "completion_tokens") if k in event["usage"]
                    }
                for choice in event.get("choices") or []:
                    why = choice.get("finish_reason") or why
                    text = choice.get("text") or (choice.get("delta") or {}).get("content")
                    figures = self._figures(choice.get("logprobs"))
                    if text or figures:
                        yield Part(text=text or "", meta={"logprobs": figures} if figures else None)
        self.breaker.failed()
        raise ModelError(f"{self.place} hung up in the middle of an answer.", "Try again.")

    def _figures(self, found: Any) -> list[dict[str, Any]]:
        try:
            return _figures(found)
        except (KeyError, TypeError, AttributeError):
            raise ModelError(f"{self.place} sent log-probabilities of a shape that is not OpenAI's.") from None

    def _lines(self, response: Any) -> Iterator[str]:
        try:
            while line := response.readline(_LONGEST_LINE):
                if line.startswith(b"data:"):
                    yield line[5:].decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException) as error:
            self.breaker.failed()
            raise ModelError(f"{self.place} hung up in the middle of an answer: {error}.", "Try again.") from None

    def _parsed(self, data: str) -> dict[str, Any]:
        event = self.object_in(data)
        if event.get("error"):
            raise ModelError(f"{self.place} stopped: {words_of(event)}")
        return event


def _schema(constraints: Constraints) -> tuple[dict[str, Any] | None, bool]:
    """What to ask for as response_format, and whether the answer is wrapped in {"answer": …}."""
    kinds = [name for name in ("choice", "regex", "json_schema") if getattr(constraints, name) not in (None, ())]
    if len(kinds) > 1:
        raise UsageError(f"The constraints {' and '.join(kinds)} exclude each other.", "Keep one of them.")
    if constraints.must_not_include:
        raise UsageError("An upstream cannot be kept from saying phrases (must_not_include).",
                         "Use a guard (keywords), or a model on this machine.")  # fmt: skip
    if constraints.json_schema is not None or not kinds:
        return constraints.json_schema, False
    if constraints.choice:
        value: dict[str, Any] = {"type": "string", "enum": list(constraints.choice)}
    else:
        value = {"type": "string", "pattern": f"^(?:{constraints.regex})$"}
    return {
        "type": "object",
        "properties": {"answer": value},
        "required": ["answer"],
        "additionalProperties": False,
    }, True


def _unwrapped(text: str, constraints: Constraints) -> str:
    try:
        answer = json.loads(text)["answer"]
    except (ValueError, KeyError, TypeError):
        answer = None
    kept = isinstance(answer, str) and (
        answer in constraints.choice if constraints.choice else bool(re.fullmatch(constraints.regex or "", answer))
    )
    if not kept:
        raise ModelError(f"The upstream did not keep to the constraint; it said {text[:200]!r}.",
                         "Use an upstream with structured outputs, or leave the constraint out.")  # fmt: skip
    return str(answer)


def _figures(found: Any) -> list[dict[str, Any]]:
    """Log-probabilities in our shape, out of a chat's or a completion's."""

    def one(token: str, chance: float, said: Any = None) -> dict[str, Any]:
        return {"token": token, "bytes": said or list(token.encode("utf-8", "replace")), "logprob": chance}

    if not isinstance(found, dict):
        return []
    if found.get("content"):
        return [one(x["token"], x["logprob"], x.get("bytes"))
                | {"top": [one(y["token"], y["logprob"], y.get("bytes")) for y in x.get("top_logprobs") or []]}
                for x in found["content"]]  # fmt: skip
    tokens, chances = found.get("tokens") or [], found.get("token_logprobs") or []
    tops = found.get("top_logprobs") or [None] * len(tokens)
    return [one(token, chance) | {"top": [one(*pair) for pair in (top or {}).items()]}
            for token, chance, top in zip(tokens, chances, tops, strict=False)]  # fmt: skip
