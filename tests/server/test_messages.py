"""Anthropic's messages over plain HTTP; its own client is tried in tests/clients."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema
import pytest

from genwright.server.tools import CLOSE, OPEN
from tests.formats.tiny import SENTENCES

from .parlour import Parlour, lines, raw, wait_until

ASK: dict[str, Any] = {"model": "says", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
TINY: dict[str, Any] = {"model": "tiny", "max_tokens": 60, "messages": [{"role": "user", "content": SENTENCES[0]}]}
CALL = f'{OPEN}{{"name": "time", "arguments": {{"zone": "UTC"}}}}{CLOSE}'
ZONE: Any = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"],
             "additionalProperties": False}  # fmt: skip
TOOLS: Any = [{"name": "time", "description": "Now.", "input_schema": ZONE}]


def said(parlour: Parlour, ask: dict[str, Any], **more: Any) -> dict[str, Any]:
    status, found, _ = raw(parlour.address, "POST", "/v1/messages", ask | more)
    assert status == 200, found
    return found


def events(parlour: Parlour, ask: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """The events of a stream, each named as its type says."""
    found = lines(parlour.address, "/v1/messages", ask | more | {"stream": True})
    made = [json.loads(line.removeprefix("data: ")) for line in found[1::2]]
    assert [line.removeprefix("event: ") for line in found[::2]] == [event["type"] for event in made]
    return made


def gathered(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that the events tell of, as Anthropic's client puts it together."""
    first, *rest = found
    assert first["type"] == "message_start"
    message = first["message"]
    for event in rest:
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"] | {"json": ""})
        elif event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
            message["content"][event["index"]]["text"] += event["delta"]["text"]
        elif event["type"] == "content_block_delta":
            message["content"][event["index"]]["json"] += event["delta"]["partial_json"]
        elif event["type"] == "message_delta":
            message |= event["delta"] | {"usage": message["usage"] | event["usage"]}
    assert rest[-1] == {"type": "message_stop"}
    for block in message["content"]:
        arguments = block.pop("json")
        block |= {"input": json.loads(arguments)} if block["type"] == "tool_use" else {}
    return message


def test_a_streamed_message_is_the_whole_one(parlour: Parlour) -> None:
    whole = said(parlour, TINY)
    assert (whole["content"], whole["stop_reason"]) == ([{"type": "text", "text": SENTENCES[1]}], "end_turn")
    assert (whole["type"], whole["role"], whole["model"]) == ("message", "assistant", "tiny")
    assert whole["usage"]["input_tokens"] + whole["usage"]["cache_read_input_tokens"] > 10
    streamed = gathered(events(parlour, TINY))
    assert {key for key, value in streamed.items() if value == whole[key]} >= {
        "content",
        "stop_reason",
        "model",
        "role",
    }
    assert streamed["usage"]["output_tokens"] == whole["usage"]["output_tokens"] > 10
    short = said(parlour, TINY, max_tokens=2)
    assert (short["stop_reason"], short["usage"]["output_tokens"]) == ("max_tokens", 2)
    stopped = said(parlour, TINY, stop_sequences=["bread"])
    assert stopped["content"][0]["text"] == SENTENCES[1].partition("bread")[0]
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "bread")


def test_what_is_asked_reaches_the_model(parlour: Parlour) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "time", "input": {"zone": "UTC"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "12:00"}]}
    failed = {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": True}
    cached = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "user", "content": "hi"},
                {"role": "assistant", "content": [{"type": "text", "text": "So."}, use]},
                {"role": "user", "content": [result, failed, {"type": "text", "text": "And?"}]}]  # fmt: skip
    said(parlour, {"model": "says", "max_tokens": 7, "messages": messages, "system": [cached], "temperature": 0.5,
                   "top_p": 0.9, "top_k": 3, "stop_sequences": ["x"], "metadata": {"user_id": "u"}})  # fmt: skip
    asked = parlour.script.asked[-1]
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"], asked["top_k"]) == (7, 0.5, 0.9, 3)
    assert asked["stop"] == ["x"]
    assert parlour.script.seen == [
        ("system", "Be brief."), ("user", "hi"),
        ("assistant", f'So.\n{OPEN}\n{{"name": "time", "arguments": {{"zone": "UTC"}}}}\n{CLOSE}'),
        ("user", "<tool_response>\n12:00\n</tool_response>\n<tool_response>\nError: no\n</tool_response>"),
        ("user", "And?"),
    ]  # fmt: skip


def test_calls_are_blocks(parlour: Parlour) -> None:
    parlour.script.says("Let me ", "see.\n", CALL, CALL)
    whole = said(parlour, ASK, tools=TOOLS)
    assert [block["type"] for block in whole["content"]] == ["text", "tool_use", "tool_use"]
    assert (whole["content"][0]["text"], whole["stop_reason"]) == ("Let me see.", "tool_use")
    assert whole["content"][1]["input"] == {"zone": "UTC"}
    found = events(parlour, ASK, tools=TOOLS)
    streamed = gathered(found)
    assert [block.get("input") for block in streamed["content"]] == [None, {"zone": "UTC"}, {"zone": "UTC"}]
    assert sum(event["type"] == "content_block_stop" for event in found) == 3
    one = said(parlour, ASK, tools=TOOLS, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert len(one["content"]) == 2
    for choice in ({"type": "any"}, {"type": "tool", "name": "time"}):
        forced = said(parlour, TINY, tools=TOOLS, tool_choice=choice)
        jsonschema.validate(forced["content"][0]["input"], ZONE)
        assert (len(forced["content"]), forced["stop_reason"]) == (1, "tool_use")
    said(parlour, ASK, tools=TOOLS, tool_choice={"type": "none"})
    assert parlour.script.seen == [("user", "hi")]


def test_a_format_is_kept_to(parlour: Parlour) -> None:
    found = said(parlour, TINY, output_config={"format": {"type": "json_schema", "schema": ZONE}})
    assert json.loads(found["content"][0]["text"])["zone"] in ("UTC", "CET")


def test_tokens_are_counted(parlour: Parlour) -> None:
    def counted(**more: Any) -> int:
        ask = {name: value for name, value in TINY.items() if name != "max_tokens"} | more
        return int(raw(parlour.address, "POST", "/v1/messages/count_tokens", ask)[1]["input_tokens"])

    used = said(parlour, TINY)["usage"]
    assert counted(system="") == used["input_tokens"] + used["cache_read_input_tokens"]
    assert counted(tools=TOOLS) > counted() + 50


def test_an_empty_answer_is_an_empty_block(parlour: Parlour) -> None:
    parlour.script.says()
    assert said(parlour, ASK)["content"] == gathered(events(parlour, ASK))["content"] == [{"type": "text", "text": ""}]


def test_refusals_failures_and_leaving(parlour: Parlour) -> None:
    ask = ASK | {"model": "guarded"}
    forbidden = [{"role": "user", "content": "forbidden"}]
    assert raw(parlour.address, "POST", "/v1/messages", ask | {"messages": forbidden})[0] == 403
    parlour.script.says("word " * 100, "forbidden")
    assert gathered(events(parlour, ask))["stop_reason"] == "refusal"
    parlour.script.says("a", error="It broke.", pause=0.05)
    last = events(parlour, ASK)[-1]
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    assert "It broke" in last["error"]["message"]
    parlour.script.says(*["x"] * 1000, pause=0.02)
    with httpx.stream("POST", f"{parlour.address}/messages", json=ASK | {"stream": True}) as answer:
        next(answer.iter_bytes())
        assert parlour.script.running == 1
    assert wait_until(lambda: parlour.script.running == 0, 2.0)


@pytest.mark.parametrize(("more", "param"), [
    ({"max_tokens": None}, "max_tokens"), ({"temperature": 1.5}, "temperature"), ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages.0.content"),
    ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}, "messages.0.content"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.input_schema"),
    ({"tools": [{"name": "no spaces", "input_schema": {}}]}, "tools.0.name"), ({"tool_choice": {}}, "tool_choice.type"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type"), ({"container": "c"}, "container"),
])  # fmt: skip
def test_wrong_messages_are_told(parlour: Parlour, more: dict[str, Any], param: str) -> None:
    status, found, _ = raw(parlour.address, "POST", "/v1/messages", ASK | more)
    assert (status, found["error"]["param"]) == (400, param)
