"""Bench: so many streams at once on any server that speaks OpenAI's API, and how it bears them."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from genwright.core import SILENT, ModelError, Tell, UsageError

PROMPT = "Explain in a few paragraphs how bread is made, from the field to the table."
_PATIENCE = 120.0  # seconds without a byte


@dataclass
class Tally:
    """What one stream has seen. Times are seconds; `pieces` are events with text within the time of the bench."""

    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    pieces: int = 0
    whole_pieces: int = 0  # of answers that came to their end …
    whole_tokens: int = 0  # … and what the server said that they took


def bench(
    url: str, *, model: str = "", streams: int = 8, seconds: float = 30.0, prompt: str = PROMPT, max_tokens: int = 128,
    key: str = "", tell: Tell = SILENT,
) -> dict[str, Any]:  # fmt: skip
    """Ask for streamed chat completions, `streams` at any moment, for `seconds`; each prompt begins differently, so
    that no cache of prefixes answers for the model.

    Returns plain data: requests, errors by kind, tokens a second over all streams, and percentiles in milliseconds of
    the time to the first token (`first_ms`), between events with text (`gap_ms`) and of whole answers (`whole_ms`).
    Tokens are counted by the server's own `usage`. Raises UsageError for an address or a count that cannot be, and
    ModelError when no server answers there.
    """
    if streams < 1 or seconds <= 0:
        raise UsageError("A bench needs at least one stream and some seconds.", "--streams 8 --seconds 30")
    server = _Server.at(url, key)
    model = model or server.first_model()
    tallies = [Tally() for _ in range(streams)]
    stop = time.perf_counter() + seconds
    body = {"model": model, "max_tokens": max_tokens, "temperature": 0.0, "stream": True,
            "stream_options": {"include_usage": True}}  # fmt: skip

    def work(number: int) -> None:
        turn = 0
        while time.perf_counter() < stop:
            words = f"({turn * streams + number}) {prompt}"
            server.ask(body | {"messages": [{"role": "user", "content": words}]}, tallies[number], stop)
            turn += 1

    tell.stage(f"{streams} streams on {model}", total=seconds)
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(streams)]
    for thread in threads:
        thread.start()
    while (left := stop - time.perf_counter()) > 0:
        time.sleep(min(1.0, left))
        tell.advance(min(1.0, left), tokens=sum(tally.pieces for tally in tallies))
    for thread in threads:
        thread.join(_PATIENCE)
    return {"url": server.url, "model": model, "streams": streams, "seconds": seconds, **_summed(tallies, seconds)}


@dataclass(frozen=True)
class _Server:
    url: str
    host: str
    port: int | None
    path: str
    secure: bool
    key: str

    @classmethod
    def at(cls, url: str, key: str) -> _Server:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            raise UsageError(f"{url!r} is no address.", "For example http://127.0.0.1:8484/v1") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no address.", "For example http://127.0.0.1:8484/v1")
        path = parts.path.rstrip("/") or "/v1"
        return cls(f"{parts.scheme}://{parts.netloc}{path}", parts.hostname, port, path, parts.scheme == "https", key)

    def connect(self) -> http.client.HTTPConnection:
        if self.secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self.host, self.port, timeout=_PATIENCE, context=context)
        return http.client.HTTPConnection(self.host, self.port, timeout=_PATIENCE)

    @property
    def head(self) -> dict[str, str]:
        return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def first_model(self) -> str:
        """Raises ModelError."""
        try:
            with closing(self.connect()) as line:
                line.request("GET", f"{self.path}/models", headers=self.head)
                answer = line.getresponse()
                said = answer.read()
            if answer.status != 200:
                raise ModelError(f"{self.url}/models answers {answer.status}.", "Is a key missing (--key)?")
            return str(json.loads(said)["data"][0]["id"])
        except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
            raise ModelError(
                f"{self.url} lists no model: {error}", "Is the server running? Or name one: --model"
            ) from None

    def ask(self, body: dict[str, Any], tally: Tally, stop: float) -> None:
        """One streamed answer into the tally; it is left when the time is over."""
        began = time.perf_counter()
        try:
            with closing(self.connect()) as line:
                line.request("POST", f"{self.path}/chat/completions", json.dumps(body), self.head)
                answer = line.getresponse()
                if answer.status != 200:
                    answer.read()
                    tally.errors[f"HTTP {answer.status}"] += 1
                    time.sleep(min(1.0, float(answer.headers.get("retry-after") or 0.1)))
                    return
                self._listen(_events(answer), tally, began, stop)
        except (OSError, http.client.HTTPException, ValueError) as error:
            tally.errors[type(error).__name__] += 1
            time.sleep(0.1)

    def _listen(self, events: Iterator[dict[str, Any]], tally: Tally, began: float, stop: float) -> None:
        last, pieces, tokens, ended = began, 0, 0, False
        for said in events:
            now = time.perf_counter()
            if "error" in said:
                tally.errors["error in the stream"] += 1
                return
            if now > stop:
                return
            if _text(said):
                (tally.gaps if pieces else tally.first).append(now - last)
                last, pieces = now, pieces + 1
                tally.pieces += 1
            tokens = int((said.get("usage") or {}).get("completion_tokens", tokens))
            ended = ended or any(choice.get("finish_reason") for choice in said.get("choices", ()))
        if not ended:
            tally.errors["the stream broke off"] += 1
            return
        tally.whole.append(time.perf_counter() - began)
        tally.whole_pieces += pieces
        tally.whole_tokens += tokens or pieces


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The server-sent events of a response, up to `[DONE]`."""
    while line := answer.readline():
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)


def _text(said: dict[str, Any]) -> bool:
    for choice in said.get("choices", ()):
        delta = choice.get("delta") or {}
        if delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning") or delta.get("tool_calls"):
            return True
    return False


def _summed(tallies: list[Tally], seconds: float) -> dict[str, Any]:
    errors: Counter[str] = sum((tally.errors for tally in tallies), Counter())
    pieces, whole = sum(tally.pieces for tally in tallies), sum(tally.whole_pieces for tally in tallies)
    # Events may hold several tokens; answers that came to their end tell how many.
    each = sum(tally.whole_tokens for tally in tallies) / whole if whole else 1.0
    found = {name: [t for tally in tallies for t in getattr(tally, name)] for name in ("first", "gaps", "whole")}
    return {
        "requests": len(found["first"]), "whole_answers": len(found["whole"]), "errors": dict(errors),
        "tokens": round(pieces * each), "tokens_per_second": pieces * each / seconds, "tokens_per_event": each,
        "first_ms": _spread(found["first"]), "gap_ms": _spread(found["gaps"]), "whole_ms": _spread(found["whole"]),
    }  # fmt: skip


def _spread(times: list[float]) -> dict[str, float] | None:
    """Percentiles (nearest rank) in milliseconds."""
    if not times:
        return None
    ranked = sorted(times)
    return {f"p{p}": 1000 * ranked[min(len(ranked) - 1, len(ranked) * p // 100)] for p in (50, 90, 99)}
