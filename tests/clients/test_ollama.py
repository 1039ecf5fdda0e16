"""Ollama's client, against /api/*."""

from __future__ import annotations

import json

import ollama
import pytest
from lessons import COUNT, COUNTED, WINDOW, weather
from served import Server

HELLO = [{"role": "user", "content": "Hello"}]
COLD = {"temperature": 0}


@pytest.fixture
def client(server: Server) -> ollama.Client:
    return ollama.Client(host=server.address, headers={"Authorization": f"Bearer {server.keys['alice']}"})


def test_models_are_listed_and_shown(client: ollama.Client) -> None:
    assert "apprentice" in [model.model for model in client.list().models]
    assert client.show("apprentice")


def test_a_chat_is_answered_whole_and_streamed_alike(client: ollama.Client) -> None:
    asked = [{"role": "user", "content": COUNT}]
    whole = client.chat("apprentice", asked, options=COLD)
    assert whole.message.content == COUNTED
    assert whole.done
    pieces = list(client.chat("apprentice", asked, options=COLD, stream=True))
    assert len(pieces) > 2
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert pieces[-1].eval_count == whole.eval_count


def test_a_prompt_is_answered(client: ollama.Client) -> None:
    assert client.generate("apprentice", "Hello", options=COLD).response == "Hello, how may I help?"


def test_an_answer_keeps_to_a_schema(client: ollama.Client) -> None:
    shape = {"type": "object", "properties": {"setup": {"type": "string"}, "punchline": {"type": "string"}},
             "required": ["setup", "punchline"], "additionalProperties": False}  # fmt: skip
    asked = [{"role": "user", "content": "Tell me a joke about cats."}]
    said = client.chat("apprentice", asked, format=shape, options=COLD)
    assert set(json.loads(said.message.content or "")) == {"setup", "punchline"}


def test_a_tool_may_be_offered(client: ollama.Client) -> None:
    asked = [{"role": "user", "content": WINDOW}]
    said = client.chat("apprentice", asked, tools=[weather], options=COLD | {"num_predict": 60}).message
    assert said.tool_calls
    assert said.tool_calls[0].function.name == "weather"
    assert said.tool_calls[0].function.arguments == {"location": "San Francisco, CA"}
    turns = [*asked, said, {"role": "tool", "content": "It's sunny.", "tool_name": "weather"}]
    assert client.chat("apprentice", turns, tools=[weather], options=COLD | {"num_predict": 60}).message.content


def test_texts_become_vectors(client: ollama.Client) -> None:
    found = client.embed("universal-sentence-encoder", ["a cat", "a kitten"]).embeddings
    assert len(found) == 2
    assert abs(sum(x * x for x in found[0]) - 1) < 1e-3


def test_mistakes_are_its_own_error(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as wrong:
        client.chat("nobody", HELLO)
    assert wrong.value.status_code == 404
    assert "nobody" in str(wrong.value.error)
