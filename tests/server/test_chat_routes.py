"""Chat completions: what is asked reaches the model, what it says leaves in OpenAI's shape, whoever leaves ends it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import openai
import pytest

from genwright.core import Part
from genwright.server.registry import Served
from genwright.server.routes import chat, responses
from genwright.server.store import documents
from tests.formats.tiny import SENTENCES

from .household import app_of, asgi, at_home, small_house
from .parlour import ASK, Parlour, lines, raw, wait_until

TINY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": SENTENCES[0]}], "max_tokens": 60}
FOUR = {"message", "type", "param", "code"}

# -- answers ----------------------------------------------------------------------------------------------------------


def test_a_streamed_answer_is_the_whole_one(talk: Any) -> None:
    whole = talk.chat.completions.create(**TINY)
    assert whole.choices[0].message.content == SENTENCES[1]
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 20
    chunks = list(talk.chat.completions.create(**TINY, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == SENTENCES[1]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert len({c.id for c in chunks}) == 1
    again = talk.chat.completions.create(**TINY)  # its prompt was read before
    assert 0 < again.usage.prompt_tokens_details.cached_tokens < again.usage.prompt_tokens
    short = talk.chat.completions.create(**TINY | {"max_completion_tokens": 2})
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 2


def test_structured_answers_validate_streamed_and_whole(talk: Any) -> None:
    schema = {"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}}, "required": ["kind"],
              "additionalProperties": False}  # fmt: skip
    format = {"type": "json_schema", "json_schema": {"name": "pet", "schema": schema, "strict": True}}
    whole = talk.chat.completions.create(**TINY, response_format=format)
    assert json.loads(whole.choices[0].message.content)["kind"] in ("cat", "dog")
    chunks = talk.chat.completions.create(**TINY, response_format=format, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    free = talk.chat.completions.create(**TINY | {"max_tokens": 300}, response_format={"type": "json_object"})
    assert free.choices[0].finish_reason == "length" or isinstance(json.loads(free.choices[0].message.content), dict)


def test_seed_temperature_stop_and_bias_reach_the_model(talk: Any) -> None:
    def said(**options: Any) -> str:
        return str(talk.chat.completions.create(**TINY | {"max_tokens": 30, **options}).choices[0].message.content)

    assert said(temperature=2, seed=1) == said(temperature=2, seed=1) != said(temperature=2, seed=2)
    assert said(temperature=2, top_p=0.001, seed=2) == said()
    assert said(stop=["bread"]) == said().partition("bread")[0]
    assert said(stop="bread") == said(stop=["bread"])
    banned = talk.chat.completions.create(**TINY, logprobs=True).choices[0].logprobs.content[0].token
    ids = raw_tokens(talk, banned)
    assert not said(logit_bias={str(ids[0]): -100}).startswith(banned)


def raw_tokens(talk: Any, text: str) -> list[int]:
    """Ids that the tiny model's tokenizer gives a text."""
    from tests.formats.tiny import tokenizer

    return list(tokenizer()(text, add_special_tokens=False)["input_ids"])


def test_log_probabilities_come_with_their_tokens(talk: Any) -> None:
    whole = talk.chat.completions.create(**TINY, logprobs=True, top_logprobs=3).choices[0]
    assert "".join(one.token for one in whole.logprobs.content) == whole.message.content
    for one in whole.logprobs.content:
        assert len(one.top_logprobs) == 3
        assert max(other.logprob for other in one.top_logprobs) == pytest.approx(one.logprob)  # greedy took the best
        assert bytes(one.bytes).decode() == one.token
    chunks = talk.chat.completions.create(**TINY, logprobs=True, top_logprobs=3, stream=True)
    found = [one for c in chunks if c.choices[0].logprobs for one in c.choices[0].logprobs.content]
    assert found == whole.logprobs.content
    bare = talk.chat.completions.create(**TINY, logprobs=True).choices[0].logprobs.content
    assert all(one.top_logprobs == [] for one in bare)


def test_several_choices_differ_by_seed_and_are_counted_once(talk: Any) -> None:
    ask = TINY | {"n": 3, "seed": 5, "temperature": 2, "max_tokens": 12}
    three = talk.chat.completions.create(**ask)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in three.choices]
    assert len(set(texts)) == 3
    each = [talk.chat.completions.create(**ask | {"n": 1, "seed": 5 + i}) for i in range(3)]
    assert [one.choices[0].message.content for one in each] == texts
    assert three.usage.prompt_tokens == each[0].usage.prompt_tokens
    assert three.usage.completion_tokens == sum(one.usage.completion_tokens for one in each)
    streamed = ["", "", ""]
    for chunk in talk.chat.completions.create(**ask, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_what_is_asked_reaches_the_upstream(parlour: Parlour) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    ask = ASK | {
        "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.5, "seed": 11,
        "stop": ["x"], "response_format": {"type": "json_object"}, "user": "someone", "n": 1, "service_tier": "auto",
        "reasoning_effort": "low", "safety_identifier": "s", "prompt_cache_key": "k", "modalities": ["text"],
        "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hi", "name": "Ann"},
                     {"role": "assistant", "content": None, "refusal": None, "annotations": []},
                     {"role": "user", "content": parts}]}  # fmt: skip
    status, said, head = raw(parlour.address, "POST", "/v1/chat/completions", ask)
    assert (status, said["choices"][0]["message"]["content"]) == (200, "Hello.")
    assert parlour.script.seen == [("system", "Be brief."), ("user", "hi"), ("assistant", ""), ("user", "ab")]
    asked = parlour.script.asked[-1]
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"], asked["top_k"]) == (5, 0.5, 0.9, 7)
    assert (asked["repetition_penalty"], asked["seed"], asked["stop"]) == (1.5, 11, ["x"])
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert head["content-type"] == "application/json"


def test_an_alias_answers_under_the_models_own_name(talk: Any) -> None:
    assert talk.chat.completions.create(**ASK | {"model": "alias"}).model == "says"
    assert next(iter(talk.chat.completions.create(**ASK | {"model": "alias"}, stream=True))).model == "says"


def test_text_of_any_kind_arrives_as_it_is(parlour: Parlour, talk: Any) -> None:
    odd = 'Zoë 你好 🎉 "quoted" \\ back\n\x00\u2028 </script> data: [DONE]'
    parlour.script.says(*odd)
    assert talk.chat.completions.create(**ASK).choices[0].message.content == odd
    chunks = talk.chat.completions.create(**ASK, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == odd


# -- kept answers -----------------------------------------------------------------------------------------------------


def test_answers_that_were_to_be_kept_are_listed_changed_and_forgotten(talk: Any) -> None:
    made = [talk.chat.completions.create(**ASK, store=True, metadata={"topic": topic}) for topic in ("a", "b", "a")]
    streamed = list(talk.chat.completions.create(**ASK, store=True, metadata={"topic": "s"}, stream=True))
    listed = list(talk.chat.completions.list(order="asc", limit=2))
    assert [one.id for one in listed] == [*(one.id for one in made), streamed[0].id]
    assert [one.id for one in talk.chat.completions.list(metadata={"topic": "a"}, order="asc")] == [
        made[0].id,
        made[2].id,
    ]
    assert list(talk.chat.completions.list(model="tiny")) == []
    again = talk.chat.completions.retrieve(streamed[0].id)
    assert again.choices[0].message.content == "Hello."
    assert again.input[0]["content"] == "hi"
    said = talk.chat.completions.messages.list(made[0].id)
    assert [(one.role, one.content) for one in said] == [("assistant", "Hello.")]
    assert talk.chat.completions.update(made[0].id, metadata={"topic": "c"}).metadata == {"topic": "c"}
    assert talk.chat.completions.retrieve(made[0].id).metadata == {"topic": "c"}
    for one in listed:
        assert talk.chat.completions.delete(one.id).deleted
    with pytest.raises(openai.NotFoundError):
        talk.chat.completions.retrieve(made[0].id)
    assert list(talk.chat.completions.list()) == []
    talk.chat.completions.create(**ASK)  # one that was not to be kept
    assert list(talk.chat.completions.list()) == []


def test_what_is_kept_is_its_owners_alone(tmp_path: Path) -> None:
    house = small_house(tmp_path)
    (_, ann), (_, bob) = (house.keys.create(owner) for owner in ("ann", "bob"))
    with house.store.begin() as session:
        documents.put(session, chat.KEPT, "chatcmpl-1", "ann", {"id": "chatcmpl-1", "choices": []})
        kept = {"response": {"id": "resp_1", "status": "completed", "background": True}, "input": []}
        documents.put(session, responses.KEPT, "resp_1", "ann", kept)

    async def statuses(key: str) -> list[int]:
        found = []
        async with asgi(app_of(house, chat, responses), key) as http:
            for verb, path in (
                ("GET", "chat/completions/chatcmpl-1"), ("GET", "chat/completions/chatcmpl-1/messages"),
                ("POST", "chat/completions/chatcmpl-1"), ("GET", "responses/resp_1"),
                ("GET", "responses/resp_1/input_items"), ("POST", "responses/resp_1/cancel"),
                ("DELETE", "chat/completions/chatcmpl-1"), ("DELETE", "responses/resp_1"),
            ):  # fmt: skip
                found.append(
                    (await http.request(verb, f"http://127.0.0.1/v1/{path}", json={"metadata": {}})).status_code
                )
            listed = await http.get("http://127.0.0.1/v1/chat/completions")
            found.append(len(listed.json()["data"]) if listed.status_code == 200 else listed.status_code)
        return found

    assert asyncio.run(statuses(bob)) == [404] * 8 + [0]
    assert asyncio.run(statuses("gw-none")) == [401] * 9
    assert asyncio.run(statuses(ann)) == [200] * 8 + [0]  # she deleted hers


# -- errors have four keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "status", "param"), [
    ({**ASK, "frobnicate": 1}, 400, "frobnicate"),
    ({**ASK, "n": 17}, 400, "n"), ({**ASK, "n": 0}, 400, "n"),
    ({**ASK, "temperature": 9}, 400, "temperature"), ({**ASK, "temperature": "1"}, 400, "temperature"),
    ({**ASK, "max_tokens": 0}, 400, "max_tokens"), ({**ASK, "max_tokens": 1.5}, 400, "max_tokens"),
    ({**ASK, "stop": 5}, 400, "stop"), ({**ASK, "stop": ["a", 5]}, 400, "stop"),
    ({**ASK, "logit_bias": {"a": 1}}, 400, "logit_bias"), ({**ASK, "logit_bias": {"1": 101}}, 400, "logit_bias.1"),
    ({**ASK, "top_logprobs": 2}, 400, "top_logprobs"),
    ({**ASK, "logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
    ({**ASK, "presence_penalty": 3}, 400, "presence_penalty"), ({**ASK, "seed": 2**63}, 400, "seed"),
    ({**ASK, "modalities": ["audio"]}, 400, "modalities.0"), ({**ASK, "audio": {}}, 400, "audio"),
    ({**ASK, "metadata": {"a": 1}}, 400, "metadata.a"), ({**ASK, "metadata": {"a": "x" * 513}}, 400, "metadata.a"),
    ({**ASK, "stream_options": {"other": 1}}, 400, "stream_options.other"),
    ({**ASK, "messages": []}, 400, "messages"), ({"model": "says"}, 400, "messages"),
    ({**ASK, "model": 5}, 400, "model"), ({**ASK, "model": ""}, 400, "model"),
    ({**ASK, "messages": [{"role": "king", "content": "a"}]}, 400, "messages.0.role"),
    ({**ASK, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages.0.content"),
    ({**ASK, "messages": [{"role": "user", "content": [{}]}]}, 400, "messages.0.content"),
    ({**ASK, "messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, 400, "messages.0.content"),
    ({**ASK, "messages": [{"role": "user", "content": [{"type": []}]}]}, 400, "messages.0.content"),
    ({**ASK, "messages": [{"role": "user"}]}, 400, "messages.0.content"),
    ({**ASK, "response_format": {"type": "json_schema"}}, 400, "response_format.json_schema"),
    ({**ASK, "response_format": {"type": "xml"}}, 400, "response_format.type"),
    ({**ASK, "model": "other"}, 404, "model"),
    (b"{", 400, None), (b"[]", 400, None), (b"[" * 100_000, 400, None), (b"\xff", 400, None), (b"NaN", 400, None),
    (b'{"model": "\\ud800"}', 400, None), (b"", 400, None), (b'{"a":' * 101 + b"1" + b"}" * 101, 400, None),
])  # fmt: skip
def test_wrong_requests_are_told_what_is_wrong(parlour: Parlour, body: Any, status: int, param: str | None) -> None:
    found, said, _ = raw(parlour.address, "POST", "/v1/chat/completions", body)
    assert found == status
    assert set(said["error"]) == FOUR
    assert said["error"]["param"] == param
    assert not parlour.script.asked


def test_a_schema_that_cannot_be_kept_to_is_a_400(parlour: Parlour) -> None:
    format = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/nothing"}}}
    for more in ({}, {"stream": True}):
        status, said, _ = raw(
            parlour.address, "POST", "/v1/chat/completions", TINY | {"response_format": format} | more
        )
        assert (status, set(said["error"])) == (400, FOUR)


def test_wrong_paths_verbs_types_and_sizes_have_the_same_body(parlour: Parlour) -> None:
    wanted = [(404, ("GET", "/v1/nothing")), (405, ("PUT", "/v1/chat/completions")), (404, ("GET", "/v1/chat")),
              (413, ("POST", "/v1/chat/completions", b" " * 10_000_001)), (501, ("POST", "/v1/videos")),
              (415, ("POST", "/v1/audio/transcriptions")), (501, ("GET", "/v1/assistants"))]  # fmt: skip
    for status, given in wanted:
        found, said, _ = raw(parlour.address, *given)
        assert (found, set(said["error"])) == (status, FOUR)
    assert raw(parlour.address, "POST", "/v1/chat/completions", ASK, Content_Type="text/plain")[0] == 415


def test_a_prompt_longer_than_the_context_is_told_so(talk: Any) -> None:
    long = TINY | {"messages": [{"role": "user", "content": "water " * 4000}]}
    with pytest.raises(openai.BadRequestError) as error:
        talk.chat.completions.create(**long)
    assert error.value.code == "context_length_exceeded"


def test_what_the_upstream_refuses_is_told_in_its_words(parlour: Parlour, talk: Any) -> None:
    parlour.script.says(error="Not like this.")
    with pytest.raises(openai.BadRequestError, match="Not like this"):
        talk.chat.completions.create(**ASK)
    with pytest.raises(openai.BadRequestError, match="Not like this"):
        talk.chat.completions.create(**ASK, stream=True)


def test_a_failure_in_the_middle_of_a_stream_reaches_the_client(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("a", "b", error="It broke.", pause=0.05)
    found = []
    with pytest.raises(openai.APIError, match="It broke"):
        found.extend(talk.chat.completions.create(**ASK, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in found) == "ab"
    with pytest.raises(openai.InternalServerError, match="It broke"):
        talk.chat.completions.create(**ASK)


def test_an_unforeseen_error_says_nothing_of_itself(tmp_path: Path) -> None:
    class Broken:
        """A desk and a fleet that break after the given number of words."""

        words = 0

        def find(self, name: str, caller: Any) -> Any:
            return Served("says")

        async def ask(self, *asked: Any, **more: Any) -> AsyncGenerator[Part]:
            for _ in range(self.words):
                yield Part(text="word ")
            raise ZeroDivisionError("a secret")

    broken = Broken()
    with at_home(app_of(small_house(tmp_path, fleet=broken, desk=broken), chat)) as address:
        for more in ({}, {"stream": True}, {"n": 2}):
            status, said, _ = raw(address, "POST", "/v1/chat/completions", ASK | more)
            assert (status, set(said["error"])) == (500, FOUR)
            assert "secret" not in str(said)
        broken.words = 3
        last = json.loads(lines(address, "/v1/chat/completions", ASK | {"stream": True})[-1].removeprefix("data: "))
        assert last["error"]["code"] == "internal_error"
        assert "secret" not in str(last)


def test_a_failing_choice_fails_its_answer(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("a", error="It broke.")
    with pytest.raises(openai.InternalServerError, match="It broke"):
        talk.chat.completions.create(**ASK, n=2)
    assert wait_until(lambda: parlour.script.running == 0)
    parlour.script.says("Well.")
    talk.chat.completions.create(**ASK)  # an upstream that fails too often in a row is given a rest


def test_a_foreign_host_or_origin_is_turned_away(parlour: Parlour) -> None:
    for header in ({"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example:80"}, {"Origin": "https://evil.example"},
                   {"Origin": "null"}, {"Host": ""}):  # fmt: skip
        status, said, answer = raw(parlour.address, "POST", "/v1/chat/completions", ASK, **header)
        assert status in (400, 403, 421)
        assert "access-control-allow-origin" not in answer
        assert set(said["error"]) == FOUR
    assert not parlour.script.asked
    status, said, answer = raw(parlour.address, "POST", "/v1/chat/completions", ASK, Host="localhost:1")
    assert (status, len(answer["x-request-id"])) == (200, 32)


# -- guards -----------------------------------------------------------------------------------------------------------

GUARDED = ASK | {"model": "guarded"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_request_is_a_403_before_any_header_says_otherwise(parlour: Parlour, talk: Any, stream: bool) -> None:
    with pytest.raises(openai.PermissionDeniedError) as refusal:
        talk.chat.completions.create(
            model="guarded", messages=[{"role": "user", "content": "say forb\u200bidden"}], stream=stream
        )
    assert refusal.value.type == "content_filter"
    assert "keywords" in str(refusal.value.code)
    assert not parlour.script.asked


@pytest.mark.parametrize("n", [1, 2])
def test_a_blocked_answer_ends_as_content_filter_and_nothing_of_it_leaves(parlour: Parlour, talk: Any, n: int) -> None:
    parlour.script.says("word " * 100, "this is for", "bid", "den here", " and more " * 50)
    chunks = list(talk.chat.completions.create(**GUARDED, stream=True, n=n))
    said = "".join(c.choices[0].delta.content or "" for c in chunks)
    ends = [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason]
    assert ends == ["content_filter"] * n
    assert "word" in said
    assert "forb" not in said
    with pytest.raises(openai.PermissionDeniedError):
        talk.chat.completions.create(**GUARDED, n=n)


def test_an_answer_blocked_before_its_first_word_is_a_403_streamed_too(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("forbidden")
    for n in (1, 2):
        with pytest.raises(openai.PermissionDeniedError):
            talk.chat.completions.create(**GUARDED, stream=True, n=n)


# -- leaving, waiting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{"stream": True}, {}, {"n": 2}, {"stream": True, "n": 2}])
def test_a_client_that_leaves_stops_the_model(parlour: Parlour, more: dict[str, Any]) -> None:
    parlour.script.says(*["x"] * 1000, pause=0.02)
    with _sent(parlour.address, ASK | more) as line:
        if "stream" in more:
            assert line.recv(100)
        assert wait_until(lambda: parlour.script.running == more.get("n", 1))
    assert wait_until(lambda: parlour.script.running == 0, 2.0)
    assert parlour.script.closed == more.get("n", 1)


def _sent(address: str, ask: dict[str, Any]) -> socket.socket:
    host, port = address.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps(ask).encode()
    line = socket.create_connection((host, int(port)))
    line.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\n\r\n%s" % (len(body), body))  # fmt: skip
    return line


def test_a_request_may_say_how_long_it_waits(parlour: Parlour) -> None:
    parlour.script.says(*["x"] * 100, pause=0.05)
    began = time.monotonic()
    status, said, _ = raw(parlour.address, "POST", "/v1/chat/completions", ASK, X_Request_Timeout="0.5")
    assert (status, said["error"]["code"]) == (504, "deadline_exceeded")
    assert 0.4 < time.monotonic() - began < 1.5
    assert wait_until(lambda: parlour.script.running == 0, 2.0)
    found = lines(parlour.address, "/v1/chat/completions", ASK | {"stream": True}, X_Request_Timeout="0.5")
    assert json.loads(found[-1].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    for odd in ("soon", "0", "-1", "nan"):
        assert raw(parlour.address, "POST", "/v1/chat/completions", ASK, X_Request_Timeout=odd)[0] == 400


def test_answers_run_side_by_side(parlour: Parlour) -> None:
    parlour.script.says(*["x"] * 10, pause=0.05)
    threads = [
        threading.Thread(target=raw, args=(parlour.address, "POST", "/v1/chat/completions", ASK)) for _ in range(4)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    assert wait_until(lambda: parlour.script.running == 4)
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 4 * 0.5


def test_a_stream_is_events_and_ends_once(parlour: Parlour) -> None:
    found = lines(parlour.address, "/v1/chat/completions", ASK | {"stream": True})
    assert all(line.startswith("data: ") for line in found)
    assert found[-1] == "data: [DONE]"
    assert sum("[DONE]" in line for line in found) == 1
    assert all(json.loads(line[6:])["object"] == "chat.completion.chunk" for line in found[:-1])
