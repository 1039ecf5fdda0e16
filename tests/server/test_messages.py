"""Anthropic's messages through Anthropic's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
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


@pytest.fixture
def claude(parlour: Parlour) -> Iterator[Any]:
    with anthropic.Anthropic(
        base_url=parlour.address.removesuffix("/v1"), api_key="none", max_retries=0, _strict_response_validation=True
    ) as made:
        yield made


def test_a_streamed_message_is_the_whole_one(claude: Any) -> None:
    whole = claude.messages.create(**TINY)
    assert (whole.content[0].text, whole.stop_reason, whole.model) == (SENTENCES[1], "end_turn", "tiny")
    assert whole.usage.input_tokens + whole.usage.cache_read_input_tokens > 10
    assert whole.usage.output_tokens > 10
    with claude.messages.stream(**TINY) as stream:
        assert "".join(stream.text_stream) == SENTENCES[1]
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", whole.usage.output_tokens)
    short = claude.messages.create(**TINY | {"max_tokens": 2})
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
    stopped = claude.messages.create(**TINY, stop_sequences=["bread"])
    assert stopped.content[0].text == SENTENCES[1].partition("bread")[0]
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "bread")


def test_what_is_asked_reaches_the_model(parlour: Parlour, claude: Any) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "time", "input": {"zone": "UTC"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "12:00"}]}
    failed = {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": True}
    cached = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "user", "content": "hi"},
                {"role": "assistant", "content": [{"type": "text", "text": "So."}, use]},
                {"role": "user", "content": [result, failed, {"type": "text", "text": "And?"}]}]  # fmt: skip
    older = {"temperature": 0.5, "top_p": 0.9, "top_k": 3}  # the client does not name them any more
    claude.messages.create(model="says", max_tokens=7, messages=messages, system=[cached], extra_body=older,
                           stop_sequences=["x"], metadata={"user_id": "u"})  # fmt: skip
    asked = parlour.script.asked[-1]
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"], asked["top_k"]) == (7, 0.5, 0.9, 3)
    assert asked["stop"] == ["x"]
    assert parlour.script.seen == [
        ("system", "Be brief."), ("user", "hi"),
        ("assistant", f'So.\n{OPEN}\n{{"name": "time", "arguments": {{"zone": "UTC"}}}}\n{CLOSE}'),
        ("user", "<tool_response>\n12:00\n</tool_response>\n<tool_response>\nError: no\n</tool_response>"),
        ("user", "And?"),
    ]  # fmt: skip


def test_calls_are_blocks(parlour: Parlour, claude: Any) -> None:
    parlour.script.says("Let me ", "see.\n", CALL, CALL)
    whole = claude.messages.create(**ASK, tools=TOOLS)
    assert [block.type for block in whole.content] == ["text", "tool_use", "tool_use"]
    assert (whole.content[0].text, whole.content[1].input, whole.stop_reason) == (
        "Let me see.",
        {"zone": "UTC"},
        "tool_use",
    )
    with claude.messages.stream(**ASK, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use", "tool_use"]
    assert final.content[2].input == {"zone": "UTC"}
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 3
    one = claude.messages.create(**ASK, tools=TOOLS, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert len(one.content) == 2
    for choice in ({"type": "any"}, {"type": "tool", "name": "time"}):
        forced = claude.messages.create(**TINY, tools=TOOLS, tool_choice=choice)
        jsonschema.validate(forced.content[0].input, ZONE)
        assert (len(forced.content), forced.stop_reason) == (1, "tool_use")
    claude.messages.create(**ASK, tools=TOOLS, tool_choice={"type": "none"})
    assert parlour.script.seen == [("user", "hi")]


def test_a_format_is_kept_to(claude: Any) -> None:
    format = {"format": {"type": "json_schema", "schema": ZONE}}
    assert json.loads(claude.messages.create(**TINY, output_config=format).content[0].text)["zone"] in ("UTC", "CET")


def test_tokens_are_counted(claude: Any) -> None:
    ask = {name: value for name, value in TINY.items() if name != "max_tokens"}
    whole = claude.messages.create(**TINY).usage
    counted = claude.messages.count_tokens(**ask, system="").input_tokens
    assert counted == whole.input_tokens + whole.cache_read_input_tokens
    assert claude.messages.count_tokens(**ask, tools=TOOLS).input_tokens > counted + 50


def test_an_empty_answer_is_an_empty_block(parlour: Parlour, claude: Any) -> None:
    parlour.script.says()
    assert claude.messages.create(**ASK).content[0].text == ""
    with claude.messages.stream(**ASK) as stream:
        assert stream.get_final_message().content[0].text == ""


def test_refusals_failures_and_leaving(parlour: Parlour, claude: Any) -> None:
    with pytest.raises(anthropic.PermissionDeniedError):
        claude.messages.create(**ASK | {"model": "guarded", "messages": [{"role": "user", "content": "forbidden"}]})
    parlour.script.says("word " * 100, "forbidden")
    with claude.messages.stream(**ASK | {"model": "guarded"}) as stream:
        assert stream.get_final_message().stop_reason == "refusal"
    parlour.script.says("a", error="It broke.", pause=0.05)
    with pytest.raises(anthropic.APIStatusError, match="It broke"), claude.messages.stream(**ASK) as stream:
        stream.get_final_message()
    found = lines(parlour.address, "/v1/messages", ASK | {"stream": True})
    assert found[-2] == "event: error"
    parlour.script.says(*["x"] * 1000, pause=0.02)
    with claude.messages.stream(**ASK) as stream:
        next(iter(stream))
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
    status, said, _ = raw(parlour.address, "POST", "/v1/messages", ASK | more)
    assert (status, said["error"]["param"]) == (400, param)
