"""Logs: one line a request with its facts; nothing of what was asked, answered or shown as a key is anywhere (R38)."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from genwright.core import ModelError
from genwright.server import logs
from genwright.server.errors import Wrong
from genwright.server.meters import Meters

from .parlour import Parlour, parlour_in, send, wait_until

KEY, PROMPT, PERSON = "sk-CANARY0123456789abcdef", "CANARYPROMPT", "11010519491231002X"
ANSWER, FAR = "CANARYANSWER", "CANARYUPSTREAM"


@dataclass
class Seen:
    out: io.StringIO

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.getvalue().splitlines() if line.startswith('{"time"')]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    """What the server writes to standard error, as JSON."""
    out, root = io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    monkeypatch.setenv("GENWRIGHT_LOG", "json")
    logs.begin(out=out)
    yield Seen(out)
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("genwright").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


# -- the whole server --------------------------------------------------------------------------------------------------


def test_nothing_of_a_user_reaches_logs_traces_metrics_or_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    spans = io.StringIO()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setattr(sys, "stderr", spans)
    with parlour_in(tmp_path) as parlour:
        _, good = parlour.house.keys.create("ann", roles=["user", "admin"])
        parlour.script.says(ANSWER, PERSON)
        answers = _ask_everything(parlour, good)
        metrics = send(parlour.address, "GET", "/metrics", Authorization=f"Bearer {good}")[1].decode()
    errors = [(status, said) for status, said in answers if status >= 400]
    assert {200, 400, 401, 403, 404, 405, 415, 421, 503} <= {status for status, _ in answers}
    assert sum(ANSWER in said for _, said in answers) >= 3  # the canaries did pass through
    assert len(seen.lines) >= len(answers)
    assert "genwright_generation_tokens_total" in metrics
    assert spans.getvalue().count("gen_ai.usage.output_tokens") >= 3
    kept = {"logs": seen.out.getvalue(), "traces": spans.getvalue(), "metrics": metrics,
            "errors": "\n".join(said for _, said in errors), "workers": _worker_logs(tmp_path)}  # fmt: skip
    for canary in (KEY, PROMPT, PERSON, ANSWER, good, good[3:]):
        assert [place for place, text in kept.items() if canary in text] == []
    del kept["errors"]  # what an upstream says went wrong is told to whoever asked, and to nobody else
    assert [place for place, text in kept.items() if FAR in text] == []


def _ask_everything(parlour: Parlour, good: str) -> list[tuple[int, str]]:
    words = f"{PROMPT} my number is {PERSON}, the key is {KEY}"
    chat: dict[str, Any] = {"model": "says", "messages": [{"role": "user", "content": words}]}
    answers = []

    def ask(verb: str, path: str, body: Any = None, **head: str) -> None:
        status, said, _ = send(parlour.address, verb, path, body, **{"Authorization": f"Bearer {good}"} | head)
        answers.append((status, said.decode()))

    ask("POST", "/v1/chat/completions", chat)
    ask("POST", "/v1/chat/completions", chat | {"stream": True})
    ask("POST", "/v1/completions", {"model": "says", "prompt": words})
    ask("POST", "/v1/responses", {"model": "says", "input": words})
    ask("POST", "/v1/messages", {"model": "says", "max_tokens": 9, "messages": chat["messages"]})
    ask("POST", "/v1/chat/completions", chat | {"model": "tiny", "max_tokens": 4})
    ask("POST", "/v1/moderations", {"input": words})
    guarded = {"role": "user", "content": f"{words} forbidden"}
    ask("POST", "/v1/chat/completions", chat | {"model": "guarded", "messages": [guarded]})  # 403
    ask("POST", "/v1/chat/completions", chat | {"temperature": 99})
    ask("POST", "/v1/chat/completions", chat | {"messages": [{"role": words, "content": words}]})
    ask("POST", "/v1/chat/completions", chat | {"response_format": {"type": words}})
    ask("POST", "/v1/chat/completions", json.dumps(chat)[:-1].encode())  # broken JSON
    ask("POST", "/v1/chat/completions", words.encode(), Content_Type="text/plain")
    ask("POST", "/v1/chat/completions", chat, Authorization=f"Bearer {KEY}")
    ask("POST", "/v1/chat/completions", chat, Authorization=f"Basic {KEY}")
    ask("POST", "/v1/chat/completions", chat, Host="evil.example")
    ask("GET", f"/v1/nothing/{PROMPT}?key={KEY}")
    ask("GET", f"/v1/files/file-1?key={KEY}&{PROMPT}={PROMPT}")
    ask("GET", f"/v1/files?limit={PROMPT}")
    ask("PUT", "/v1/chat/completions", chat)
    parlour.script.says(ANSWER, error=f"the upstream says {FAR}")
    ask("POST", "/v1/chat/completions", chat)
    parlour.script.says(error=f"the upstream says {FAR}")
    ask("POST", "/v1/chat/completions", chat)
    return answers


def _worker_logs(place: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in place.rglob("*.log"))


def test_a_line_has_the_facts_of_its_request(parlour: Parlour, seen: Seen) -> None:
    head = {"X-Request-Id": "mine-7"}
    body = {"model": "says", "messages": [{"role": "user", "content": "hi"}]}
    assert send(parlour.address, "POST", "/v1/chat/completions", body, **head)[0] == 200
    assert wait_until(lambda: len(seen.lines) == 1)
    (line,) = seen.lines
    assert line["id"] == "mine-7"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["model"], line["prompt_tokens"], line["completion_tokens"]) == ("says", 3, 2)
    assert line["ended"] == "stop"
    assert 0 < line["first_ms"] <= line["ms"]
    assert "cut" not in line
    send(parlour.address, "GET", "/healthz")
    send(parlour.address, "GET", "/v1/files/no-such-file")
    assert wait_until(lambda: len(seen.lines) == 2)
    assert (seen.lines[1]["route"], seen.lines[1]["status"]) == ("/v1/files/{id}", 404)


# -- the middleware ----------------------------------------------------------------------------------------------------


def _watched(raises: Exception | None = None, *, begins: bool = False) -> tuple[TestClient, Meters]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {"request_id": "r1"}
        if begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if raises:
            raise raises

    meters = Meters()
    return TestClient(logs.Watch(app, meters), raise_server_exceptions=False), meters


def test_what_nobody_foresaw_is_a_500_with_its_id_and_a_line_that_says_where(seen: Seen) -> None:
    client, meters = _watched(ZeroDivisionError(PROMPT))
    answer = client.get("/x")
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "r1"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    error, line = seen.lines
    assert error["where"][-1] == "ZeroDivisionError"
    assert "test_logs.py" in "".join(error["where"])
    assert (line["status"], line["route"]) == (500, "(none)")
    assert PROMPT not in seen.out.getvalue() + answer.text
    assert b'http_response_status_code="500"' in meters.text()


def test_an_answer_that_breaks_off_is_noted_as_cut(seen: Seen) -> None:
    client, _ = _watched(ModelError(PROMPT), begins=True)
    with pytest.raises(ModelError):
        TestClient(client.app).get("/x")
    assert seen.lines[-1]["cut"] is True
    assert seen.lines[-1]["status"] == 200


def test_ours_is_answered_as_ours(seen: Seen) -> None:
    client, _ = _watched(Wrong(409, "Twice.", code="twice"))
    assert client.get("/x").json()["error"]["code"] == "twice"
    assert client.get("/x").status_code == 409


# -- the forms ---------------------------------------------------------------------------------------------------------


def test_of_others_messages_only_the_first_line_is_kept_and_keys_are_never(seen: Seen) -> None:
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task %s>", PROMPT)
    logging.getLogger("genwright.server").warning("a header: Bearer %s and gw-%s", "abcdefgh", "x" * 43)
    first, second = seen.lines
    assert first["said"] == "Task exception was never retrieved"
    assert PROMPT not in seen.out.getvalue()
    assert second["said"] == "a header: Bearer … and …"


def test_a_person_reads_a_plain_line(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    out = io.StringIO()
    monkeypatch.setenv("GENWRIGHT_LOG", "plain")
    logs.begin(out=out)
    _watched(KeyError(PROMPT))[0].get("/x")
    error, *where, line = out.getvalue().splitlines()
    assert error.endswith("error: not foreseen")
    assert where[-1] == "  KeyError"
    assert " GET (none) 500 " in line
    assert line.endswith("id r1")
