"""A model elsewhere, through any API like OpenAI's: vLLM, llama.cpp, Ollama, a hosted one, or `genwright serve`."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from genwright import core
from genwright.core import Constraints, GenwrightError, Message, ModelError, Part, Request, UsageError
from genwright.nn.parallel import answer_many

remote = True  # its `source` is a name at the upstream, not something on this machine
_WORTH_A_RETRY = (408, 409, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 30.0  # seconds between two tries; an upstream that asks for more is not asked again
_LONGEST_REST = 60.0  # seconds for which an upstream that keeps failing is left alone
_LONGEST_LINE = 1_000_000  # bytes of one event
_LONGEST_ERROR = 100_000  # bytes of an upstream's error that are read


class Settings(core.Settings):
    model: str = Field(description="Name of the model at the upstream; a recipe may give it as the model's `source`")
    base_url: str = Field("http://127.0.0.1:8484/v1", description="Address of the API, up to and with /v1")
    api_key_env: str = Field("", description="Environment variable that holds the key; empty sends none")
    timeout: float = Field(120.0, gt=0, description="Seconds to wait for the next bytes")
    retries: int = Field(3, ge=0, description="Tries after the first, for busy or failing upstreams; waits double")
    failures: int = Field(
        5, ge=0, description="Failures in a row after which it is left alone; 0 never leaves it alone"
    )
    rest: float = Field(5.0, gt=0, description="Seconds it is left alone at first, twice as long after each failed try")
    parallel: int = Field(4, ge=1, le=256, description="Requests under way at once")
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="What the upstream calls the limit of an answer"
    )

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError("must be the NAME of an environment variable; a key never belongs into a recipe")
        return name

    @field_validator("base_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a host")
        if parts.username or parts.password or parts.query:
            raise ValueError("must hold neither user, password nor query; keys come from api_key_env")
        return url.rstrip("/")


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Upstream:
    """Nothing is sent before the first request. Raises UsageError when the key's variable is not set."""
    if settings.api_key_env and not os.environ.get(settings.api_key_env):
        raise UsageError(f"The environment variable {settings.api_key_env} is not set.", "Put the key into it.")
    return Upstream(settings, os.environ.get(settings.api_key_env, ""), itertools.count(seed))


class Upstream:
    """A model that answers over HTTP. It offers no likelihoods, for chat APIs do not score given answers."""

    def __init__(self, settings: Settings, key: str, seeds: Iterator[int], wait: Callable[[float], None] = time.sleep):
        self.settings, self._key, self._seeds, self._wait = settings, key, seeds, wait
        self.parallel = settings.parallel
        self.breaker = Breaker(settings.failures, settings.rest)
        self._opener = urllib.request.build_opener(_NoRedirect)  # a redirect would carry the key elsewhere

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
        with closing(self._post(path, body)) as response:
            if "text/event-stream" not in response.headers.get("Content-Type", ""):
                raise ModelError(f"{self._place} does not stream: it sent {response.headers.get('Content-Type')!r}.")
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
        raise ModelError(f"{self._place} hung up in the middle of an answer.", "Try again.")

    def _figures(self, found: Any) -> list[dict[str, Any]]:
        try:
            return _figures(found)
        except (KeyError, TypeError, AttributeError):
            raise ModelError(f"{self._place} sent log-probabilities of a shape that is not OpenAI's.") from None

    def _lines(self, response: Any) -> Iterator[str]:
        try:
            while line := response.readline(_LONGEST_LINE):
                if line.startswith(b"data:"):
                    yield line[5:].decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException) as error:
            self.breaker.failed()
            raise ModelError(f"{self._place} hung up in the middle of an answer: {error}.", "Try again.") from None

    def _parsed(self, data: str) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise ModelError(f"{self._place} sent something that is no JSON object: {data[:100]!r}.")
        if event.get("error"):
            raise ModelError(f"{self._place} stopped: {_said(event)}")
        return event

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """The response, after as many tries as allowed: an answer that has begun is never asked for again.

        Raises UsageError or ModelError with the upstream's words, or ModelError at once while it is left alone.
        """
        data = json.dumps(body).encode("utf-8", "replace")
        head = {"Content-Type": "application/json", "Accept": "text/event-stream", "User-Agent": "genwright"}
        if self._key:
            head["Authorization"] = f"Bearer {self._key}"
        failure: GenwrightError | None = None
        for number in range(self.settings.retries + 1):
            if (left := self.breaker.enter()) > 0:
                raise failure or ModelError(
                    f"{self._place} has failed {self.breaker.count} times in a row; it is left alone for {left:.0f} s."
                )
            pause = min(_LONGEST_WAIT, 0.5 * 2.0**number)
            asked = urllib.request.Request(f"{self.settings.base_url}{path}", data, head)
            try:
                return self._opener.open(asked, timeout=self.settings.timeout)
            except urllib.error.HTTPError as error:
                failure = self._refusal(error)
                pause = _asked_wait(error.headers.get("Retry-After"), pause)
                again = error.code in _WORTH_A_RETRY and error.headers.get("x-should-retry") != "false"
                self.breaker.failed() if error.code >= 500 else self.breaker.went_well()
                error.close()
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                failure = ModelError(
                    f"{self._place} cannot be reached: {reason}.", "Is it running, and is base_url right?"
                )
                again = True
                self.breaker.failed()
            if not again or number == self.settings.retries or pause > _LONGEST_WAIT:
                raise failure from None
            self._wait(pause)
        raise AssertionError("the last try returns or raises")

    def _refusal(self, error: urllib.error.HTTPError) -> GenwrightError:
        try:
            said = _said(json.loads(error.read(_LONGEST_ERROR)))
        except (ValueError, OSError, http.client.HTTPException):
            said = str(error.reason)
        if self._key:
            said = said.replace(self._key, "…")
        message = f"{self._place} answered {error.code}: {said}"
        if error.code in (401, 403):
            return ModelError(message, f"Check the key in {self.settings.api_key_env or 'api_key_env'}.")
        if 300 <= error.code < 400:
            return ModelError(message, "It redirects; give the address that it redirects to as base_url.")
        return UsageError(message) if error.code < 500 and error.code not in _WORTH_A_RETRY else ModelError(message)

    @property
    def _place(self) -> str:
        return f"The upstream {urlsplit(self.settings.base_url).netloc}"


class Breaker:
    """Leaves an upstream alone after so many failures in a row; then one request finds out whether it is back.

    Safe between threads. `clock` gives seconds.
    """

    def __init__(self, most: int, rest: float, clock: Callable[[], float] = time.monotonic):
        self.most, self.rest, self.clock = most, rest, clock
        self.count, self.until = 0, 0.0
        self.lock = threading.Lock()

    def enter(self) -> float:
        """Seconds for which nobody may ask; 0 for whoever may, and while it is not known to be back, only for one."""
        with self.lock:
            left = self.until - self.clock()
            if left <= 0 and self.until:
                self.until = self.clock() + self.rest
            return max(0.0, left)

    def failed(self) -> None:
        with self.lock:
            self.count += 1
            over = self.count - self.most
            if self.most and over >= 0:
                self.until = self.clock() + min(_LONGEST_REST, self.rest * 2.0 ** min(over, 20))

    def went_well(self) -> None:
        with self.lock:
            self.count, self.until = 0, 0.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *given: Any, **more: Any) -> None:
        return None


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


def _said(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    said = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(said).split())[:500]


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


def _asked_wait(header: str | None, otherwise: float) -> float:
    """Seconds that an upstream asks for, by a number or by a date; `otherwise` when it does not say."""
    if not header:
        return otherwise
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return otherwise
