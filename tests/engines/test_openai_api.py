"""The engine openai_api against our own server, and against upstreams that misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from genwright.core import Constraints, ModelError, Part, Request, Scorer, UsageError, assistant, user
from genwright.core.recipe import ModelChoice
from genwright.engines import openai_api
from genwright.nn.upstream import Breaker
from tests.server.local import Says, served, wait_until


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))


def _open(address: str, **options: Any) -> openai_api.Upstream:
    return openai_api.load(None, openai_api.Settings(**{"model": "tiny", "base_url": address, "timeout": 5, **options}))


def _ask(**options: Any) -> Request:
    return Request(messages=(user("hi"),), **options)


def _told(model: Any, **options: Any) -> str:
    return "".join(part.text for part in model.generate(_ask(**options)))


# -- against a server of ours -----------------------------------------------------------------------------------------


def test_an_answer_streams_with_its_figures() -> None:
    with served(Says(["Hel", "lo."])) as address:
        parts = list(_open(address).generate(_ask()))
    assert [part.text for part in parts] == ["Hel", "lo.", ""]
    assert parts[-1].meta == {"finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 2}
    assert parts[-1] == Part()


def test_every_field_of_a_request_reaches_the_upstream() -> None:
    model = Says()
    schema = {"type": "object"}
    with served(model) as address:
        _told(_open(address), max_new_tokens=7, temperature=0.5, top_p=0.9, top_k=3, repetition_penalty=1.2, seed=5,
              stop=("a", "b"), constraints=Constraints(json_schema=schema))  # fmt: skip
    asked = model.asked[0]
    assert (asked.max_new_tokens, asked.temperature, asked.top_p, asked.top_k) == (7, 0.5, 0.9, 3)
    assert (asked.repetition_penalty, asked.seed, asked.stop) == (1.2, 5, ("a", "b"))
    assert asked.constraints.json_schema == schema


def test_many_requests_run_so_many_at_once() -> None:
    model = Says(["x"] * 5, pause=0.02)
    model.parallel = 8  # type: ignore[attr-defined]
    with served(model) as address:
        upstream = _open(address, parallel=3)
        found = dict(upstream.generate_many([_ask()] * 7))
    assert {i: found[i].text for i in sorted(found)} == dict.fromkeys(range(7), "xxxxx")
    assert model.most == 3
    assert len({request.seed for request in model.asked}) == 7


def test_closing_the_iterator_hangs_up_and_the_upstream_stops() -> None:
    model = Says(["x"] * 1000, pause=0.02)
    with served(model) as address:
        stream = _open(address).generate(_ask())
        next(stream)
        stream.close()
        assert wait_until(lambda: model.closed == 1, 2)


def test_a_busy_upstream_is_asked_again_as_it_wishes(monkeypatch: Any) -> None:
    model = Says(["x"] * 10, pause=0.05)
    with served(model, queue=0) as address:
        first = threading.Thread(target=_told, args=(_open(address),))
        first.start()
        assert wait_until(lambda: model.running == 1)
        waits: list[float] = []
        upstream = _open(address, retries=3)
        upstream._wait = lambda seconds: (waits.append(seconds), time.sleep(seconds))[0]  # type: ignore[func-returns-value]
        assert _told(upstream) == "x" * 10
        first.join()
    assert set(waits) == {1.0}  # its Retry-After


def test_what_the_upstream_refuses_is_a_usage_error_with_its_words() -> None:
    with served(Says()) as address, pytest.raises(UsageError, match=r"answered 404: There is no model 'other'"):
        _told(_open(address, model="other"))


def test_it_offers_no_likelihoods() -> None:
    assert not isinstance(_open("http://127.0.0.1:1/v1"), Scorer)


# -- constraints ------------------------------------------------------------------------------------------------------


def test_choice_and_regex_come_unpacked_and_are_checked() -> None:
    model = Says([json.dumps({"answer": "no"})])
    with served(model) as address:
        upstream = _open(address)
        assert _told(upstream, constraints=Constraints(choice=("yes", "no"))) == "no"
        schema = model.asked[0].constraints.json_schema
        assert schema
        assert schema["properties"]["answer"]["enum"] == ["yes", "no"]
        assert _told(upstream, constraints=Constraints(regex="[no]+")) == "no"
        with pytest.raises(ModelError, match="did not keep to the constraint"):
            _told(upstream, constraints=Constraints(choice=("yes", "maybe")))
        with pytest.raises(ModelError, match="did not keep to the constraint"):
            _told(upstream, constraints=Constraints(regex=r"\d"))
    with served(Says(["not JSON"])) as address, pytest.raises(ModelError, match="did not keep"):
        _told(_open(address), constraints=Constraints(choice=("a",)))


@pytest.mark.parametrize("constraints", [{"must_not_include": ("a",)}, {"choice": ("a",), "regex": "a"}])
def test_what_an_upstream_cannot_be_kept_to_is_refused(constraints: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        _told(_open("http://127.0.0.1:1/v1"), constraints=Constraints(**constraints))


# -- upstreams that misbehave -----------------------------------------------------------------------------------------


@contextmanager
def _upstream(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that gives the answers in turn (the last one for ever) and keeps what it was sent."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append({"headers": dict(self.headers), "body": json.loads(body), "path": self.path})
            status, headers, said = answers[min(len(seen), len(answers)) - 1]
            self.send_response(status)
            for name, value in {"Content-Type": "text/event-stream", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()


def test_penalties_biases_and_log_probabilities_are_asked_for_and_read() -> None:
    content = [{"token": "hi", "bytes": [104, 105], "logprob": -0.5,
                "top_logprobs": [{"token": "ho", "bytes": None, "logprob": -1.5}]}]  # fmt: skip
    told = [{"token": "hi", "bytes": [104, 105], "logprob": -0.5,
             "top": [{"token": "ho", "bytes": [104, 111], "logprob": -1.5}]}]  # fmt: skip
    delta = {"choices": [{"index": 0, "delta": {"content": "hi"}, "logprobs": {"content": content}}]}
    with _upstream((200, {}, b"data: " + json.dumps(delta).encode() + b"\n\ndata: [DONE]\n\n")) as (address, seen):
        request = _ask(presence_penalty=0.5, frequency_penalty=-0.5, logit_bias={7: -100.0}, logprobs=1)
        first, _ = _open(address).generate(request)
        assert first.meta == {"logprobs": told}
        body = seen[0]["body"]
        assert (body["presence_penalty"], body["frequency_penalty"], body["logit_bias"]) == (0.5, -0.5, {"7": -100.0})
        assert (body["logprobs"], body["top_logprobs"]) == (True, 1)
        list(_open(address).generate(_ask()))
        assert not {"presence_penalty", "frequency_penalty", "logit_bias", "logprobs"} & seen[1]["body"].keys()
    odd = {"choices": [{"index": 0, "delta": {"content": "hi"}, "logprobs": {"content": [{"logprob": 1}]}}]}
    said = (200, {}, b"data: " + json.dumps(odd).encode() + b"\n\n")
    with _upstream(said) as (address, _), pytest.raises(ModelError, match="not OpenAI's"):
        _told(_open(address))


def test_the_beginning_of_an_answer_is_gone_on_with_by_completions() -> None:
    figures = {"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0], "top_logprobs": [{"a": -1.0}, None]}
    delta = {"choices": [{"index": 0, "text": "ab", "logprobs": figures, "finish_reason": "stop"}]}
    with _upstream((200, {}, b"data: " + json.dumps(delta).encode() + b"\n\ndata: [DONE]\n\n")) as (address, seen):
        request = Request(messages=(assistant("Once"),), logprobs=2, max_new_tokens=3)
        first, last = _open(address, max_tokens_key="max_completion_tokens").generate(request)
    assert seen[0]["path"] == "/v1/completions"
    assert (seen[0]["body"]["prompt"], seen[0]["body"]["logprobs"], seen[0]["body"]["max_tokens"]) == ("Once", 2, 3)
    assert "messages" not in seen[0]["body"]
    assert (first.text, last.meta) == ("ab", {"finish_reason": "stop"})
    assert first.meta == {"logprobs": [
        {"token": "a", "bytes": [97], "logprob": -1.0, "top": [{"token": "a", "bytes": [97], "logprob": -1.0}]},
        {"token": "b", "bytes": [98], "logprob": -2.0, "top": []},
    ]}  # fmt: skip


def test_an_upstream_that_keeps_failing_is_left_alone_until_one_request_finds_it_back() -> None:
    with _upstream(*[(500, {}, b"{}")] * 4, (200, {}, GOOD)) as (address, seen):
        upstream = _open(address, retries=9, failures=3, rest=10)
        now = [0.0]
        upstream.breaker.clock = lambda: now[0]
        upstream._wait = lambda seconds: None
        with pytest.raises(ModelError, match="answered 500"):
            _told(upstream)
        assert len(seen) == 3  # not ten
        with pytest.raises(ModelError, match=r"has failed 3 times in a row; it is left alone for 10 s"):
            _told(upstream)
        assert len(seen) == 3
        now[0] = 10.5
        with pytest.raises(ModelError, match="answered 500"):
            _told(upstream)  # the one that finds out
        with pytest.raises(ModelError, match="left alone for 20 s"):
            _told(upstream)
        assert len(seen) == 4
        now[0] = 31.0
        assert _told(upstream) == _told(upstream) == "hi"
        assert upstream.breaker.count == 0


def test_only_one_request_finds_out_and_0_failures_leave_nobody_alone() -> None:
    now = [0.0]
    breaker = Breaker(1, 4.0, lambda: now[0])
    breaker.failed()
    now[0] = 5.0
    assert [breaker.enter() for _ in range(3)] == [0.0, 4.0, 4.0]
    never = Breaker(0, 4.0, lambda: now[0])
    for _ in range(50):
        never.failed()
    assert never.enter() == 0
    for _ in range(40):
        breaker.failed()
    assert breaker.enter() == 60.0


def test_an_answer_that_has_begun_is_never_asked_for_again() -> None:
    with _upstream((200, {}, GOOD[:-16]), (200, {}, GOOD)) as (address, seen):
        upstream = _open(address, failures=1)
        with pytest.raises(ModelError, match="hung up"):
            _told(upstream)
        assert len(seen) == 1
        assert upstream.breaker.enter() > 0


def test_the_upstream_says_when_to_come_back() -> None:
    soon = formatdate(time.time() + 9, usegmt=True)
    waits: list[float] = []
    with _upstream((503, {"Retry-After": soon}, b"{}"), (429, {"Retry-After": "2.5"}, b"{}"), (200, {}, GOOD)) as (
        at,
        _,
    ):
        upstream = _open(at)
        upstream._wait = waits.append
        assert _told(upstream) == "hi"
    assert 7 < waits[0] <= 9
    assert waits[1:] == [2.5]
    with _upstream((429, {"Retry-After": "3600"}, b"{}"), (200, {}, GOOD)) as (address, seen):
        with pytest.raises(ModelError, match="answered 429"):
            _told(_open(address))  # an hour is not waited for, nor is it asked sooner
        assert len(seen) == 1


GOOD = b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "length"}]}\n\ndata: [DONE]\n\n'


def test_failures_are_tried_again_with_longer_and_longer_waits() -> None:
    waits: list[float] = []
    with _upstream((500, {}, b"{}"), (503, {"Retry-After": "soon"}, b"oops"), (200, {}, GOOD)) as (address, seen):
        upstream = _open(address)
        upstream._wait = waits.append
        assert _told(upstream) == "hi"
    assert waits == [0.5, 1.0]
    assert len(seen) == 3
    with _upstream((500, {}, b'{"error": {"message": "boom"}}')) as (address, seen):
        upstream = _open(address, retries=1)
        upstream._wait = waits.append
        with pytest.raises(ModelError, match="answered 500: boom"):
            _told(upstream)
        assert len(seen) == 2
    with _upstream((429, {"x-should-retry": "false"}, b"{}")) as (address, seen):
        with pytest.raises(ModelError, match="answered 429"):
            _told(_open(address))
        assert len(seen) == 1


def test_a_stream_that_breaks_off_or_is_none_is_an_error() -> None:
    for said, match in ((GOOD[:-16], "hung up"), (b"data: nonsense\n\n", "no JSON"), (b"data: [1]\n\n", "no JSON"),
                        (b'data: {"error": {"message": "late"}}\n\n', "stopped: late")):  # fmt: skip
        with _upstream((200, {}, said)) as (address, _), pytest.raises(ModelError, match=match):
            _told(_open(address))
    page = (200, {"Content-Type": "text/html"}, b"<html>")
    with _upstream(page) as (address, _), pytest.raises(ModelError, match="does not stream"):
        _told(_open(address))


def test_nobody_there_and_nobody_answering_are_errors() -> None:
    with pytest.raises(ModelError, match="cannot be reached"):
        _told(_open("http://127.0.0.1:1/v1", retries=0))
    with served(Says(["x"], pause=3)) as address:
        started = time.monotonic()
        with pytest.raises(ModelError, match=r"cannot be reached|hung up"):
            _told(_open(address, timeout=0.3, retries=0))
        assert time.monotonic() - started < 2


def test_the_key_comes_from_the_environment_and_is_never_shown(monkeypatch: Any) -> None:
    monkeypatch.setenv("MY_KEY", "sk-CANARY")
    with _upstream((401, {}, b'{"error": {"message": "Incorrect key: sk-CANARY"}}')) as (address, seen):
        upstream = _open(address, api_key_env="MY_KEY")
        with pytest.raises(ModelError) as error:
            _told(upstream)
        assert seen[0]["headers"]["Authorization"] == "Bearer sk-CANARY"
    assert "CANARY" not in error.value.message + error.value.hint + repr(upstream.settings)
    assert "MY_KEY" in error.value.hint
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(UsageError, match="MY_KEY is not set"):
        _open("http://127.0.0.1:1/v1", api_key_env="MY_KEY")


def test_the_key_does_not_follow_a_redirect(monkeypatch: Any) -> None:
    monkeypatch.setenv("MY_KEY", "sk-CANARY")
    with _upstream((200, {}, GOOD)) as (other, stolen):
        away = (307, {"Location": f"{other}/chat/completions"}, b"")
        with _upstream(away) as (address, _), pytest.raises(ModelError, match="answered 307"):
            _told(_open(address, api_key_env="MY_KEY"))
    assert not stolen


@pytest.mark.parametrize("wrong", [{"api_key_env": "sk-abc"}, {"base_url": "ftp://a"}, {"base_url": "http://u:p@a/v1"},
                                   {"base_url": "file:///etc/passwd"}, {"base_url": "http://a/v1?key=1"}])  # fmt: skip
def test_keys_and_odd_addresses_do_not_belong_into_settings(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        openai_api.Settings(model="a", **wrong)


def test_the_name_of_the_limit_can_be_chosen() -> None:
    for key in ("max_tokens", "max_completion_tokens"):
        with _upstream((200, {}, GOOD)) as (address, seen):
            assert _told(_open(address, max_tokens_key=key), max_new_tokens=9) == "hi"
        assert seen[0]["body"][key] == 9
        assert seen[0]["path"] == "/v1/chat/completions"


def test_a_recipe_names_an_upstream_in_one_line() -> None:
    from genwright.verbs.models import open_model

    with served(Says(["yes"])) as address:
        choice = ModelChoice.model_validate({"source": "tiny", "engine": "openai_api", "base_url": address})
        assert _told(open_model(choice)) == "yes"
