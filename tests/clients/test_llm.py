"""The `llm` command line, pointed at us by a file as its handbook tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from served import Server

WEATHER = 'def get_weather(location: str) -> str:\n    "Get the weather at a location."\n    return "It\'s sunny."\n'


class Llm:
    def __init__(self, home: Path, server: Server):
        self.environment = dict(os.environ) | {"LLM_USER_PATH": str(home)}
        common = {"api_base": server.v1, "api_key_name": "ours", "supports_schema": True, "supports_tools": True}
        models = [
            {"model_id": "ours", "model_name": "apprentice", **common},
            {"model_id": "ours-responses", "model_name": "apprentice", "responses": True, **common},
            {"model_id": "ours-completion", "model_name": "apprentice", "completion": True, **common},
        ]
        (home / "extra-openai-models.yaml").write_text(json.dumps(models), encoding="utf-8")  # JSON is YAML
        self("keys", "set", "ours", "--value", server.keys["alice"])

    def __call__(self, *arguments: str) -> str:
        command = [Path(sys.executable).with_name("llm"), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()


@pytest.fixture(scope="module")
def llm(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Llm:
    return Llm(tmp_path_factory.mktemp("llm"), server)


def test_our_models_are_listed(llm: Llm) -> None:
    assert "ours" in llm("models", "list")


@pytest.mark.parametrize("model", ["ours", "ours-responses"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_is_answered(llm: Llm, model: str, stream: bool) -> None:
    assert llm("-m", model, *([] if stream else ["--no-stream"]), "Hello") == "Hello, how may I help?"


def test_a_text_is_gone_on_with(llm: Llm) -> None:
    said = llm("-m", "ours-completion", "-o", "max_tokens", "8", "-o", "temperature", "0", "Tell me a joke")
    assert said


@pytest.mark.parametrize("model", ["ours", "ours-responses"])
def test_an_answer_keeps_to_a_schema(llm: Llm, model: str) -> None:
    said = json.loads(llm("-m", model, "--schema", "setup, punchline", "Tell me a joke about cats."))
    assert set(said) == {"setup", "punchline"}


@pytest.mark.parametrize("model", ["ours", "ours-responses"])
def test_a_tool_is_called_and_its_answer_used(llm: Llm, model: str) -> None:
    asked = ("-m", model, "-o", "temperature", "0", "--functions", WEATHER, "What is the weather in San Francisco, CA?")
    assert llm(*asked) == "It is sunny in San Francisco."


def test_what_was_said_is_known_to_the_next_question(llm: Llm) -> None:
    llm("-m", "ours", "Hello")
    llm("-c", "hi")
    kept = json.loads(llm("logs", "list", "-n", "2", "--json"))
    assert len({one["conversation_id"] for one in kept}) == 1
    assert all(one["response"] for one in kept)
