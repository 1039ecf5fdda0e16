"""Ollama's API over plain HTTP; its own client is tried in tests/clients."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from genwright.server.tools import CLOSE, OPEN
from tests.formats.tiny import SENTENCES

from .parlour import Parlour, lines, raw, wait_until

HI = [{"role": "user", "content": "hi"}]
CALL = f'{OPEN}{{"name": "time", "arguments": {{"zone": "UTC"}}}}{CLOSE}'
TOOLS: Any = [{"type": "function", "function": {"name": "time", "description": "Now.", "parameters": {
    "type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}}}]  # fmt: skip


def said(parlour: Parlour, what: str, **ask: Any) -> dict[str, Any]:
    """A whole answer of /api/`what`."""
    status, found, _ = raw(parlour.address, "POST", f"/api/{what}", ask | {"stream": False})
    assert status == 200, found
    return found


def streamed(parlour: Parlour, what: str, **ask: Any) -> list[dict[str, Any]]:
    """The lines of a streamed answer, which is the rule."""
    return [json.loads(line) for line in lines(parlour.address, f"/api/{what}", ask)]


def test_chats_and_prompts_are_answered_streamed_and_whole(parlour: Parlour) -> None:
    ask: dict[str, Any] = {"model": "tiny", "options": {"num_predict": 60, "num_ctx": 99}}
    asked = [{"role": "user", "content": SENTENCES[0]}]
    whole = said(parlour, "chat", **ask, messages=asked)
    assert whole["message"] == {"role": "assistant", "content": SENTENCES[1]}
    assert (whole["done"], whole["done_reason"]) == (True, "stop")
    assert whole["eval_count"] > 10
    assert whole["prompt_eval_count"] > 10
    assert whole["total_duration"] >= whole["eval_duration"] > 0
    found = streamed(parlour, "chat", **ask, messages=asked)
    assert "".join(one["message"]["content"] for one in found) == SENTENCES[1]
    assert [one["done"] for one in found] == [False] * (len(found) - 1) + [True]
    assert found[-1]["eval_count"] == whole["eval_count"]
    assert said(parlour, "generate", **ask, prompt=SENTENCES[0])["response"] == SENTENCES[1]
    assert "".join(one["response"] for one in streamed(parlour, "generate", **ask, prompt=SENTENCES[0])) == SENTENCES[1]
    framed = said(parlour, "generate", **ask, prompt=SENTENCES[1][:12])["response"]
    assert said(parlour, "generate", **ask, prompt=SENTENCES[1][:12], raw=True)["response"] != framed
    short = said(parlour, "chat", model="tiny:latest", messages=asked, options={"num_predict": 2})
    assert short["done_reason"] == "length"
    named = said(parlour, "chat", **ask, messages=asked, format={"enum": ["cat", "dog"]})
    assert named["message"]["content"] in ('"cat"', '"dog"')


def test_what_is_asked_reaches_the_model(parlour: Parlour) -> None:
    options = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 11, "stop": ["x"], "num_predict": 5,
               "repeat_penalty": 1.5}  # fmt: skip
    call = {"function": {"name": "time", "arguments": {"zone": "UTC"}}}
    turns = [{"role": "system", "content": "Be brief."}, *HI, {"role": "assistant", "tool_calls": [call]},
             {"role": "tool", "content": "12:00", "tool_name": "time"}]  # fmt: skip
    said(parlour, "chat", model="says", messages=turns, options=options, format="json", keep_alive="5m", think=False)
    asked = parlour.script.asked[-1]
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"], asked["top_k"]) == (5, 0.5, 0.9, 7)
    assert (asked["repetition_penalty"], asked["seed"], asked["stop"]) == (1.5, 11, ["x"])
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert parlour.script.seen[2:] == [
        ("assistant", f'{OPEN}\n{{"name": "time", "arguments": {{"zone": "UTC"}}}}\n{CLOSE}'),
        ("user", "<tool_response>\n12:00\n</tool_response>"),
    ]
    said(parlour, "generate", model="says", prompt="hi", system="Be kind.")
    assert parlour.script.seen == [("system", "Be kind."), ("user", "hi")]


def test_calls_leave_whole(parlour: Parlour) -> None:
    parlour.script.says("See.", CALL, CALL)
    calls = [{"function": {"name": "time", "arguments": {"zone": "UTC"}}}] * 2
    whole = said(parlour, "chat", model="says", messages=HI, tools=TOOLS)["message"]
    assert whole == {"role": "assistant", "content": "See.", "tool_calls": calls}
    found = streamed(parlour, "chat", model="says", messages=HI, tools=TOOLS)
    assert [call for one in found for call in one["message"].get("tool_calls", ())] == calls


def test_models_are_listed_shown_loaded_and_embed(parlour: Parlour) -> None:
    listed = raw(parlour.address, "GET", "/api/tags")[1]["models"]
    assert [model["model"] for model in listed][:3] == ["tiny", "says", "guarded"]
    shown = raw(parlour.address, "POST", "/api/show", {"model": "tiny"})[1]
    assert shown["capabilities"] == ["completion", "tools"]
    assert said(parlour, "generate", model="tiny")["done_reason"] == "load"
    assert said(parlour, "chat", model="tiny", messages=[])["done_reason"] == "load"
    ask = {"model": "universal-sentence-encoder", "input": ["a cat", "a dog"], "dimensions": 8}
    found = raw(parlour.address, "POST", "/api/embed", ask)[1]
    assert [len(vector) for vector in found["embeddings"]] == [8, 8]
    assert raw(parlour.address, "POST", "/api/show", {"model": "nothing"})[0] == 404
    assert raw(parlour.address, "GET", "/api/version")[1]["version"]


def test_refusals_failures_and_leaving(parlour: Parlour) -> None:
    assert raw(parlour.address, "POST", "/api/generate", {"model": "guarded", "prompt": "forbidden"})[0] == 403
    parlour.script.says("a", error="It broke.", pause=0.05)
    assert "It broke" in streamed(parlour, "chat", model="says", messages=HI)[-1]["error"]
    parlour.script.says(*["x"] * 1000, pause=0.02)
    address = parlour.address.removesuffix("/v1")
    with httpx.stream("POST", f"{address}/api/chat", json={"model": "says", "messages": HI}) as answer:
        next(answer.iter_bytes())
        assert parlour.script.running == 1
    assert wait_until(lambda: parlour.script.running == 0, 2.0)


@pytest.mark.parametrize(("more", "param"), [
    ({"options": {"mirostat": 1}}, "options.mirostat"), ({"options": {"temperature": 9}}, "options.temperature"),
    ({"think": True}, "think"), ({"template": "x"}, "template"), ({"images": ["aGk="]}, "images"), ({"n": 1}, "n"),
])  # fmt: skip
def test_wrong_requests_are_told(parlour: Parlour, more: dict[str, Any], param: str) -> None:
    status, found, _ = raw(parlour.address, "POST", "/api/generate", {"model": "says", "prompt": "hi"} | more)
    assert status == 400
    assert param in found["error"].replace("'", " ").replace(":", " ").split()  # Ollama's errors are one text
