"""Anthropic's client, against /v1/messages."""

from __future__ import annotations

import anthropic
import pytest
from lessons import COUNT, COUNTED
from served import Server

HELLO = {"model": "apprentice", "max_tokens": 60, "messages": [{"role": "user", "content": "Hello"}]}
TOOL = {
    "name": "get_weather",
    "description": "Get the weather at a location.",
    "input_schema": {"properties": {"location": {"type": "string"}}, "required": ["location"], "type": "object"},
}
WEATHER = {"role": "user", "content": "What is the weather in San Francisco, CA?"}


@pytest.fixture
def client(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=server.address, api_key=server.keys["alice"], max_retries=0, _strict_response_validation=True
    )


def test_a_message_is_answered_and_counted(client: anthropic.Anthropic) -> None:
    said = client.messages.create(**HELLO)
    assert [block.text for block in said.content] == ["Hello, how may I help?"]
    assert said.stop_reason == "end_turn"
    counted = client.messages.count_tokens(model="apprentice", messages=HELLO["messages"])
    assert counted.input_tokens == said.usage.input_tokens > 0


def test_a_stream_gathers_to_the_same_message(client: anthropic.Anthropic) -> None:
    asked = HELLO | {"max_tokens": 200, "messages": [{"role": "user", "content": COUNT}]}
    with client.messages.stream(**asked) as stream:
        words = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(words) > 1
    assert "".join(words) == final.content[0].text == COUNTED
    assert final.usage.output_tokens == client.messages.create(**asked).usage.output_tokens


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_is_called_and_its_answer_used(client: anthropic.Anthropic, streamed: bool) -> None:
    asked = HELLO | {"messages": [WEATHER], "tools": [TOOL]}
    if streamed:
        with client.messages.stream(**asked) as stream:
            said = stream.get_final_message()
    else:
        said = client.messages.create(**asked)
    (call,) = [block for block in said.content if block.type == "tool_use"]
    assert (call.name, call.input, said.stop_reason) == ("get_weather", {"location": "San Francisco, CA"}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "It's sunny."}
    turns = [WEATHER, {"role": "assistant", "content": said.content}, {"role": "user", "content": [result]}]
    assert client.messages.create(**asked | {"messages": turns}).content[0].text == "It is sunny in San Francisco."


def test_a_tool_may_be_demanded(client: anthropic.Anthropic) -> None:
    said = client.messages.create(**HELLO, tools=[TOOL], tool_choice={"type": "any"})
    assert [block.name for block in said.content] == ["get_weather"]


def test_mistakes_are_its_own_kinds_of_error(server: Server, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**HELLO | {"model": "nobody"})
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**HELLO | {"max_tokens": -1})
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=server.address, api_key="gw-wrong", max_retries=0).messages.create(**HELLO)
