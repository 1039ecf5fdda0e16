"""A model elsewhere, through any API like OpenAI's: vLLM, llama.cpp, Ollama, a hosted one, or `genwright serve`."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from genwright import core
from genwright.core import Constraints, GenwrightError, Message, ModelError, Part, Request, UsageError, assistant

remote = True  # its `source` is a name at the upstream, not something on this machine
_WORTH_A_RETRY = (408, 409, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 30.0  # seconds between two tries, whatever the upstream asks for
_LONGEST_LINE = 1_000_000  # bytes of one event
_LONGEST_ERROR = 100_000  # bytes of an upstream's error that are read


class Settings(core.Settings):
    model: str = Field(description="Name of the model at the upstream; a recipe may give it as the model's `source`")
    base_url: str = Field("http://127.0.0.1:8484/v1", description="Address of the API, up to and with /v1")
    api_key_env: str = Field("", description="Environment variable that holds the key; empty sends none")
    timeout: float = Field(120.0, gt=0, description="Seconds to wait for the next bytes")
    retries: int = Field(3, ge=0, description="Tries after the first, for busy or failing upstreams; waits double")
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
        self._opener = urllib.request.build_opener(_NoRedirect)  # a redirect would carry the key elsewhere

    def generate(self, request: Request) -> Generator[Part]:
        """Text deltas, then an empty part whose meta has `finish_reason` and, if told, `prompt_tokens` and
        `completion_tokens`; closing the iterator hangs up.

        `json_schema`, `choice` and `regex` are asked for by `response_format`; the latter two come whole, unpacked and
        checked. Raises UsageError for what the upstream refuses (HTTP 4xx), ModelError when it fails or hangs up.
        """
        body, wrapped = self._body(request)
        with closing(self._events(body)) as events:
            if not wrapped:
                yield from events
                return
            parts = list(events)
        yield Part(text=_unwrapped("".join(part.text for part in parts), request.constraints))
        yield from (part for part in parts if part.meta)

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers as they are ready, `settings.parallel` at a time; closing the iterator drops the rest."""
        work = queue.SimpleQueue[tuple[int, Request]]()
        done = queue.SimpleQueue[tuple[int, Message | GenwrightError]]()
        stopped = threading.Event()
        for number, request in enumerate(requests):
            seed = next(self._seeds) if request.seed is None else request.seed
            work.put((number, request.model_copy(update={"seed": seed})))

        def answer() -> None:
            while not stopped.is_set():
                try:
                    number, request = work.get_nowait()
                except queue.Empty:
                    return
                try:
                    done.put((number, self._whole(request, stopped)))
                except GenwrightError as error:
                    done.put((number, error))

        threads = [
            threading.Thread(target=answer, daemon=True) for _ in range(min(self.settings.parallel, len(requests)))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in requests:
                number, message = done.get()
                if isinstance(message, GenwrightError):
                    raise message
                yield number, message
        finally:
            stopped.set()

    def _whole(self, request: Request, stopped: threading.Event) -> Message:
        texts = []
        with closing(self.generate(request)) as parts:
            for part in parts:
                if stopped.is_set():
                    break
                texts.append(part.text)
        return assistant("".join(texts))

    def _body(self, request: Request) -> tuple[dict[str, Any], bool]:
        """The request in OpenAI's words, and whether the answer comes wrapped in JSON.

        What OpenAI's API has no word for (top_k, repetition_penalty) goes by the names that vLLM and llama.cpp know,
        when it is asked for, so that an upstream either does it or says that it cannot.
        """
        if odd := [part.kind for message in request.messages for part in message.parts if part.kind != "text"]:
            raise UsageError(f"Text is sent to upstreams, not {odd[0]}.", "Leave it out.")
        seed = next(self._seeds) if request.seed is None else request.seed
        body = {
            "model": self.settings.model, "messages": [message.as_dict() for message in request.messages],
            self.settings.max_tokens_key: request.max_new_tokens, "temperature": request.temperature,
            "top_p": request.top_p, "seed": seed, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        if request.stop:
            body["stop"] = list(request.stop)
        if request.top_k:
            body["top_k"] = request.top_k
        if request.repetition_penalty != 1.0:
            body["repetition_penalty"] = request.repetition_penalty
        schema, wrapped = _schema(request.constraints)
        if schema is not None:
            format = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": format}
        return body, wrapped

    def _events(self, body: dict[str, Any]) -> Generator[Part]:
        with closing(self._post(body)) as response:
            if "text/event-stream" not in response.headers.get("Content-Type", ""):
                raise ModelError(f"{self._place} does not stream: it sent {response.headers.get('Content-Type')!r}.")
            why = ""
            usage: dict[str, int] = {}
            for data in self._lines(response):
                if data == "[DONE]":
                    yield Part(meta={"finish_reason": why or "stop", **usage})
                    return
                event = self._parsed(data)
                if event.get("usage"):
                    usage = {
                        k: event["usage"][k] for k in ("prompt_tokens", "completion_tokens") if k in event["usage"]
                    }
                for choice in event.get("choices") or []:
                    why = choice.get("finish_reason") or why
                    text = (choice.get("delta") or {}).get("content")
                    if text:
                        yield Part(text=text)
        raise ModelError(f"{self._place} hung up in the middle of an answer.", "Try again.")

    def _lines(self, response: Any) -> Iterator[str]:
        try:
            while line := response.readline(_LONGEST_LINE):
                if line.startswith(b"data:"):
                    yield line[5:].decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException) as error:
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

    def _post(self, body: dict[str, Any]) -> Any:
        """The response, after as many tries as allowed. Raises UsageError or ModelError with the upstream's words."""
        data = json.dumps(body).encode("utf-8", "replace")
        head = {"Content-Type": "application/json", "Accept": "text/event-stream", "User-Agent": "genwright"}
        if self._key:
            head["Authorization"] = f"Bearer {self._key}"
        for tries_left in range(self.settings.retries, -1, -1):
            pause = min(_LONGEST_WAIT, 0.5 * 2.0 ** (self.settings.retries - tries_left))
            asked = urllib.request.Request(f"{self.settings.base_url}/chat/completions", data, head)
            try:
                return self._opener.open(asked, timeout=self.settings.timeout)
            except urllib.error.HTTPError as error:
                failure = self._refusal(error)
                again = error.code in _WORTH_A_RETRY and error.headers.get("x-should-retry") != "false"
                pause = _asked_wait(error.headers.get("Retry-After"), pause)
                error.close()
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                failure, again = (
                    ModelError(f"{self._place} cannot be reached: {reason}.", "Is it running, and is base_url right?"),
                    True,
                )
            if not again or not tries_left:
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


def _asked_wait(header: str | None, otherwise: float) -> float:
    try:
        return min(_LONGEST_WAIT, max(0.0, float(header))) if header else otherwise
    except ValueError:
        return otherwise
