"""Upstream: an API like OpenAI's somewhere else, asked with patience: retries, timeouts, rest when it keeps failing."""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from genwright import core
from genwright.core import GenwrightError, ModelError, UsageError

_WORTH_A_RETRY = (408, 409, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 30.0  # seconds between two tries; an upstream that asks for more is not asked again
_LONGEST_REST = 60.0  # seconds for which an upstream that keeps failing is left alone
_LONGEST_ERROR = 100_000  # bytes of an upstream's error that are read


class Address(core.Settings):
    """Where an upstream is, who we are there, and how much patience it gets."""

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

    def key(self) -> str:
        """The key; "" where none is sent. Raises UsageError when its variable is not set."""
        if self.api_key_env and not os.environ.get(self.api_key_env):
            raise UsageError(f"The environment variable {self.api_key_env} is not set.", "Put the key into it.")
        return os.environ.get(self.api_key_env, "")


class Connection:
    """To one upstream; safe between threads. `wait` sleeps so many seconds between two tries."""

    def __init__(self, settings: Address, key: str, wait: Callable[[float], None] = time.sleep):
        self.settings, self._key, self._wait = settings, key, wait
        self.breaker = Breaker(settings.failures, settings.rest)
        self._opener = urllib.request.build_opener(_NoRedirect)  # a redirect would carry the key elsewhere

    def post(self, path: str, data: bytes, kind: str = "application/json", accept: str = "text/event-stream") -> Any:
        """The response, after as many tries as allowed: an answer that has begun is never asked for again.

        Raises UsageError or ModelError with the upstream's words, or ModelError at once while it is left alone.
        """
        head = {"Content-Type": kind, "Accept": accept, "User-Agent": "genwright"}
        if self._key:
            head["Authorization"] = f"Bearer {self._key}"
        failure: GenwrightError | None = None
        for number in range(self.settings.retries + 1):
            if (left := self.breaker.enter()) > 0:
                raise failure or ModelError(
                    f"{self.place} has failed {self.breaker.count} times in a row; it is left alone for {left:.0f} s."
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
                    f"{self.place} cannot be reached: {reason}.", "Is it running, and is base_url right?"
                )
                again = True
                self.breaker.failed()
            if not again or number == self.settings.retries or pause > _LONGEST_WAIT:
                raise failure from None
            self._wait(pause)
        raise AssertionError("the last try returns or raises")

    def _refusal(self, error: urllib.error.HTTPError) -> GenwrightError:
        try:
            said = words_of(json.loads(error.read(_LONGEST_ERROR)))
        except (ValueError, OSError, http.client.HTTPException):
            said = str(error.reason)
        if self._key:
            said = said.replace(self._key, "…")
        message = f"{self.place} answered {error.code}: {said}"
        if error.code in (401, 403):
            return ModelError(message, f"Check the key in {self.settings.api_key_env or 'api_key_env'}.")
        if 300 <= error.code < 400:
            return ModelError(message, "It redirects; give the address that it redirects to as base_url.")
        return UsageError(message) if error.code < 500 and error.code not in _WORTH_A_RETRY else ModelError(message)

    def object_in(self, data: str | bytes) -> dict[str, Any]:
        """What the upstream sent as a JSON object. Raises ModelError, which shows its beginning, where it is none."""
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ModelError(f"{self.place} sent something that is no JSON object: {data[:100]!r}.")
        return found

    @property
    def place(self) -> str:
        """What errors call it."""
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


def words_of(body: Any) -> str:
    """What an upstream says in an error's body."""
    error = body.get("error", body) if isinstance(body, dict) else body
    said = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(said).split())[:500]


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
