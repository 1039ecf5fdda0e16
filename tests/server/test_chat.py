"""The server through the official client, and through clients that misbehave."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from genwright.core import ModelError, UsageError, choose
from genwright.server.serve import serve
from tests.formats.tiny import SENTENCES, tiny_run

from .local import Says, served, wait_until


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))


def _client(address: str, kind: Any = openai.OpenAI) -> Any:
    return kind(base_url=address, api_key="none", max_retries=0, _strict_response_validation=True)


def _raw(
    address: str, verb: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    host = address.removeprefix("http://").removesuffix("/v1")
    connection = http.client.HTTPConnection(host, timeout=10)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    head = {"Content-Type": "application/json"} if data is not None else {}
    connection.request(verb, path, data, head | {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    found = json.loads(response.read())
    connection.close()
    return response.status, found, {k.lower(): v for k, v in response.headers.items()}


ASK = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


# -- the official client ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: Any) -> Iterator[str]:
    """A tiny tuned model, exported to GGUF and served."""
    from genwright.engines import gguf
    from genwright.formats import gguf as gguf_format

    place = tmp_path_factory.mktemp("served")
    run = tiny_run(place, teach=True)
    path = next(p for p in gguf_format.export(run, place / "out", gguf_format.Settings()) if p.suffix == ".gguf")
    model = gguf.load(path, gguf.Settings(runner="llama.cpp", context=256, parallel=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENWRIGHT_HOME", str(place / "home"))
        with served(model) as address:
            yield address
    model.close()


def test_the_official_client_lists_asks_and_streams(tuned: str) -> None:
    client = _client(tuned)
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "genwright"
    ask = {"model": "tiny", "messages": [{"role": "user", "content": SENTENCES[0]}], "max_tokens": 60}
    whole = client.chat.completions.create(**ask)
    assert whole.choices[0].message.content == SENTENCES[1]
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 20
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    short = client.chat.completions.create(**ask | {"max_completion_tokens": 2})
    assert short.choices[0].finish_reason == "length"
    client.close()


def test_the_official_async_client_asks_and_streams(tuned: str) -> None:
    async def talk() -> tuple[str, str]:
        async with _client(tuned, openai.AsyncOpenAI) as client:
            ask = {"model": "tiny", "messages": [{"role": "user", "content": SENTENCES[1]}], "max_tokens": 60}
            whole = await client.chat.completions.create(**ask)
            stream = await client.chat.completions.create(**ask, stream=True)
            return whole.choices[0].message.content, "".join([c.choices[0].delta.content or "" async for c in stream])

    assert asyncio.run(talk()) == (SENTENCES[2], SENTENCES[2])


def test_structured_answers_validate_streamed_and_whole(tuned: str) -> None:
    client = _client(tuned)
    schema = {"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}}, "required": ["kind"],
              "additionalProperties": False}  # fmt: skip
    format = {"type": "json_schema", "json_schema": {"name": "pet", "schema": schema, "strict": True}}
    ask: Any = {"model": "tiny", "messages": [{"role": "user", "content": "a pet"}], "response_format": format}
    whole = client.chat.completions.create(**ask)
    assert json.loads(whole.choices[0].message.content)["kind"] in ("cat", "dog")
    streamed = client.chat.completions.create(**ask, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == whole.choices[0].message.content
    client.close()


def test_seed_temperature_and_stop_reach_the_model(tuned: str) -> None:
    client = _client(tuned)

    def said(**options: Any) -> str:
        ask: Any = {
            "model": "tiny",
            "messages": [{"role": "user", "content": SENTENCES[0]}],
            "max_tokens": 30,
            **options,
        }
        return str(client.chat.completions.create(**ask).choices[0].message.content)

    assert said(temperature=2, seed=1) == said(temperature=2, seed=1) != said(temperature=2, seed=2)
    assert said(temperature=2, top_p=0.001, seed=2) == said()
    assert said(stop=["bread"]) == said().partition("bread")[0]
    assert said(stop="bread") == said(stop=["bread"])
    client.close()


# -- what is asked reaches the model ----------------------------------------------------------------------------------


def test_every_option_becomes_a_field_of_the_request() -> None:
    model = Says()
    ask = {**ASK, "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.5, "seed": 11,
           "stop": ["x"], "response_format": {"type": "json_object"}, "user": "someone", "n": 1}  # fmt: skip
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    ask["messages"] = [{"role": "developer", "content": "Be brief."}, {"role": "assistant", "content": None},
                       {"role": "user", "content": parts}]  # fmt: skip
    with served(model) as address:
        assert _raw(address, "POST", "/v1/chat/completions", ask)[0] == 200
    asked = model.asked[0]
    assert [(m.role, m.text) for m in asked.messages] == [("system", "Be brief."), ("assistant", ""), ("user", "ab")]
    assert (asked.max_new_tokens, asked.temperature, asked.top_p, asked.top_k) == (5, 0.5, 0.9, 7)
    assert (asked.repetition_penalty, asked.seed, asked.stop) == (1.5, 11, ("x",))
    assert asked.constraints.json_schema == {"type": "object"}


# -- errors have four keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "status", "param"), [
    ({**ASK, "frobnicate": 1}, 400, "frobnicate"),
    ({**ASK, "n": 2}, 400, "n"),
    ({**ASK, "tools": []}, 400, "tools"),
    ({**ASK, "temperature": 9}, 400, "temperature"),
    ({**ASK, "max_tokens": 0}, 400, "max_tokens"),
    ({**ASK, "messages": []}, 400, "messages"),
    ({**ASK, "messages": [{"role": "king", "content": "a"}]}, 400, "messages.0.role"),
    ({**ASK, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0.content"),
    ({**ASK, "messages": [{"role": "user", "content": [{}]}]}, 400, "messages.0.content"),
    ({**ASK, "messages": [{"role": "user"}]}, 400, "messages.0.content"),
    ({**ASK, "response_format": {"type": "json_schema"}}, 400, "response_format.json_schema"),
    ({**ASK, "model": "other"}, 404, "model"),
    (b"{", 400, None), (b"[]", 400, None), (b"[" * 100_000, 400, None), (b"\xff", 400, None), (b"NaN", 400, None),
])  # fmt: skip
def test_wrong_requests_are_told_what_is_wrong(body: Any, status: int, param: str | None) -> None:
    with served(Says()) as address:
        found, said, _ = _raw(address, "POST", "/v1/chat/completions", body)
    assert found == status
    assert set(said["error"]) == {"message", "type", "param", "code"}
    assert said["error"]["param"] == param


def test_wrong_paths_verbs_types_and_sizes_have_the_same_body() -> None:
    with served(Says()) as address:
        wanted = [(404, ("GET", "/v1/nothing")), (405, ("GET", "/v1/chat/completions")), (404, ("GET", "/docs")),
                  (404, ("GET", "/openapi.json")), (404, ("GET", "/v1/models/other")),
                  (413, ("POST", "/v1/chat/completions", b" " * 10_000_001))]  # fmt: skip
        for status, given in wanted:
            found, said, _ = _raw(address, *given)
            assert (found, set(said["error"])) == (status, {"message", "type", "param", "code"})
        assert _raw(address, "POST", "/v1/chat/completions", ASK, Content_Type="text/plain")[0] == 415


def test_a_foreign_host_or_origin_is_turned_away() -> None:
    model = Says()
    with served(model) as address:
        for header in ({"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example:80"}, {"Origin": "https://evil.example"},
                       {"Origin": "null"}, {"Host": ""}):  # fmt: skip
            status, said, answer = _raw(address, "POST", "/v1/chat/completions", ASK, **header)
            assert status in (400, 403, 421)
            assert "access-control-allow-origin" not in answer
            assert set(said["error"]) == {"message", "type", "param", "code"}
        assert _raw(address, "GET", "/v1/models", Host="localhost:1")[0] == 200
        assert _raw(address, "GET", "/v1/models", Origin="http://localhost:3000")[0] == 200
    assert not model.asked


def test_a_models_failure_is_a_503_and_an_unforeseen_one_says_nothing_of_itself() -> None:
    with served(Says([], fails=ModelError("It broke.", "Load it again."))) as address:
        status, said, headers = _raw(address, "POST", "/v1/chat/completions", ASK)
        assert (status, said["error"]["message"]) == (503, "It broke. Load it again.")
        assert len(headers["x-request-id"]) == 32
    with served(Says([], fails=ZeroDivisionError("secret"))) as address:
        status, said, _ = _raw(address, "POST", "/v1/chat/completions", ASK)
        assert status == 500
        assert "secret" not in json.dumps(said)
        assert _raw(address, "GET", "/healthz")[0] == 200


def test_a_failure_in_the_middle_of_a_stream_reaches_the_client() -> None:
    with served(Says(["a"], fails=ModelError("It broke."))) as address:
        client = _client(address)
        stream = client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIError, match="It broke"):
            list(stream)
        client.close()


# -- guards -----------------------------------------------------------------------------------------------------------


def _guard() -> Any:
    return choose("guards", {"name": "keywords", "words": ["forbidden"], "action": "block"})


def test_a_refused_request_is_a_403_before_any_header_says_otherwise() -> None:
    model = Says()
    with served(model, guards=[_guard()]) as address:
        client = _client(address)
        for stream in (False, True):
            with pytest.raises(openai.PermissionDeniedError) as refusal:
                client.chat.completions.create(
                    model="tiny", messages=[{"role": "user", "content": "say forb\u200bidden"}], stream=stream
                )
            assert refusal.value.type == "content_filter"
            assert "keywords" in str(refusal.value.code)
        client.close()
    assert not model.asked


def test_a_blocked_answer_ends_as_content_filter_and_nothing_of_it_leaves() -> None:
    pieces = ["word " * 100, "this is for", "bid", "den here", " and more " * 50]
    with served(Says(pieces), guards=[_guard()]) as address:
        client = _client(address)
        chunks = list(client.chat.completions.create(**ASK, stream=True))
        said = "".join(c.choices[0].delta.content or "" for c in chunks)
        assert chunks[-1].choices[0].finish_reason == "content_filter"
        assert "word" in said
        assert "forb" not in said
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(**ASK)
        client.close()


# -- leaving, queueing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_model(stream: bool) -> None:
    model = Says(["x"] * 1000, pause=0.02)
    with served(model) as address:
        host, port = address.removeprefix("http://").removesuffix("/v1").split(":")
        body = json.dumps({**ASK, "stream": stream}).encode()
        with socket.create_connection((host, int(port))) as line:
            line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                         b"Content-Length: %d\r\n\r\n%s" % (len(body), body))  # fmt: skip
            if stream:
                assert line.recv(100)
            assert wait_until(lambda: model.running == 1)
        assert wait_until(lambda: model.closed == 1, 1.0)
        assert wait_until(lambda: model.running == 0)


def test_the_queue_is_bounded_and_the_rest_is_sent_away_at_once() -> None:
    model = Says(["x"] * 10, pause=0.05)
    with served(model, queue=2) as address:
        found: list[tuple[int, float, dict[str, str]]] = []

        def ask() -> None:
            started = time.monotonic()
            status, _, headers = _raw(address, "POST", "/v1/chat/completions", ASK)
            found.append((status, time.monotonic() - started, headers))

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(status for status, _, _ in found) == [200] * 3 + [429] * 9
        for status, took, headers in found:
            if status == 429:
                assert took < 1.0
                assert headers["retry-after"] == "1"
                assert headers["x-should-retry"] == "true"
        assert model.most == 1
        assert _raw(address, "POST", "/v1/chat/completions", ASK)[0] == 200  # all places are free again


def test_as_many_answers_run_at_once_as_the_model_can_decode() -> None:
    model = Says(["x"] * 5, pause=0.05)
    model.parallel = 3  # type: ignore[attr-defined]
    with served(model, queue=9) as address:
        threads = [threading.Thread(target=_raw, args=(address, "POST", "/v1/chat/completions", ASK)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert model.most == 3


def test_a_waiting_client_that_leaves_frees_its_place() -> None:
    model = Says(["x"] * 40, pause=0.05)
    with served(model, queue=1) as address:
        thread = threading.Thread(target=_raw, args=(address, "POST", "/v1/chat/completions", ASK))
        thread.start()
        assert wait_until(lambda: model.running == 1)
        host, port = address.removeprefix("http://").removesuffix("/v1").split(":")
        body = json.dumps(ASK).encode()
        with socket.create_connection((host, int(port))) as line:
            line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                         b"Content-Length: %d\r\n\r\n%s" % (len(body), body))  # fmt: skip
            assert wait_until(lambda: _raw(address, "POST", "/v1/chat/completions", ASK)[0] == 429)
        time.sleep(0.3)
        assert _raw(address, "POST", "/v1/chat/completions", ASK)[0] == 200
        thread.join()
    assert len(model.asked) == 2


# -- serve ------------------------------------------------------------------------------------------------------------


def test_health_and_readiness() -> None:
    with served(Says()) as address:
        assert _raw(address, "GET", "/healthz")[:2] == (200, {"status": "ok"})
        assert _raw(address, "GET", "/readyz")[:2] == (200, {"status": "ready"})


def test_a_public_address_is_refused() -> None:
    for host in ("0.0.0.0", "192.168.1.2", "::"):
        with pytest.raises(UsageError, match="no keys yet"):
            serve("anything", host=host)


def test_a_taken_port_is_an_error_with_a_hint() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door, pytest.raises(UsageError, match="cannot be had") as error:
        serve("anything", port=door.getsockname()[1])
    assert "--port" in error.value.hint


def test_serve_answers_from_a_file_and_ends_when_told(tmp_path: Path) -> None:
    from genwright.formats import gguf as gguf_format

    run = tiny_run(tmp_path, teach=True)
    path = next(p for p in gguf_format.export(run, tmp_path / "out", gguf_format.Settings()) if p.suffix == ".gguf")
    program = (
        "import sys; from genwright.core import Tell; from genwright.server.serve import serve\n"
        "class Say(Tell):\n"
        "    def note(self, text): print(text, flush=True)\n"
        "serve(sys.argv[1], port=0, tell=Say())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("tiny-q8_0 answers at http://127.0.0.1:")
        client = _client(line.split()[3])
        ask: Any = {"model": "tiny-q8_0", "messages": [{"role": "user", "content": SENTENCES[0]}]}
        assert client.chat.completions.create(**ask, max_tokens=60).choices[0].message.content == SENTENCES[1]
        client.close()
        process.terminate()
        assert process.wait(15) in (0, -15)
