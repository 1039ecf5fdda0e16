"""Ollama's API through Ollama's own client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ollama
import pytest

from genwright.server.tools import CLOSE, OPEN
from tests.formats.tiny import SENTENCES

from .parlour import Parlour, lines, raw, wait_until

HI = [{"role": "user", "content": "hi"}]
CALL = f'{OPEN}{{"name": "time", "arguments": {{"zone": "UTC"}}}}{CLOSE}'
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "time",
            "description": "Now.",
            "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]},
        },
    }
]


@pytest.fixture
def llama(parlour: Parlour) -> Iterator[Any]:
    with ollama.Client(parlour.address.removesuffix("/v1")) as made:
        yield made


def test_chats_and_prompts_are_answered_streamed_and_whole(llama: Any) -> None:
    ask: dict[str, Any] = {"model": "tiny", "options": {"num_predict": 60, "num_ctx": 99}}
    asked = [{"role": "user", "content": SENTENCES[0]}]
    whole = llama.chat(**ask, messages=asked)
    assert (whole.message.content, whole.done, whole.done_reason) == (SENTENCES[1], True, "stop")
    assert whole.eval_count > 10
    assert whole.prompt_eval_count > 10
    assert whole.total_duration >= whole.eval_duration > 0
    chunks = list(llama.chat(**ask, messages=asked, stream=True))
    assert "".join(chunk.message.content for chunk in chunks) == SENTENCES[1]
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].eval_count == whole.eval_count
    assert llama.generate(**ask, prompt=SENTENCES[0]).response == SENTENCES[1]
    assert "".join(one.response for one in llama.generate(**ask, prompt=SENTENCES[0], stream=True)) == SENTENCES[1]
    raw_text = llama.generate(**ask, prompt=SENTENCES[1][:12], raw=True).response
    assert raw_text != llama.generate(**ask, prompt=SENTENCES[1][:12]).response
    assert llama.chat(model="tiny:latest", messages=asked, options={"num_predict": 2}).done_reason == "length"
    named = llama.chat(**ask, messages=asked, format={"enum": ["cat", "dog"]}).message.content
    assert named in ('"cat"', '"dog"')


def test_what_is_asked_reaches_the_model(parlour: Parlour, llama: Any) -> None:
    options = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 11, "stop": ["x"], "num_predict": 5,
               "repeat_penalty": 1.5}  # fmt: skip
    call = {"function": {"name": "time", "arguments": {"zone": "UTC"}}}
    said = [{"role": "system", "content": "Be brief."}, *HI, {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": "12:00", "tool_name": "time"}]  # fmt: skip
    llama.chat(model="says", messages=said, options=options, format="json", keep_alive="5m", think=False)
    asked = parlour.script.asked[-1]
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"], asked["top_k"]) == (5, 0.5, 0.9, 7)
    assert (asked["repetition_penalty"], asked["seed"], asked["stop"]) == (1.5, 11, ["x"])
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert parlour.script.seen[2:] == [
        ("assistant", f'{OPEN}\n{{"name": "time", "arguments": {{"zone": "UTC"}}}}\n{CLOSE}'),
        ("user", "<tool_response>\n12:00\n</tool_response>"),
    ]
    llama.generate(model="says", prompt="hi", system="Be kind.")
    assert parlour.script.seen == [("system", "Be kind."), ("user", "hi")]


def test_calls_leave_whole(parlour: Parlour, llama: Any) -> None:
    parlour.script.says("See.", CALL, CALL)
    whole = llama.chat(model="says", messages=HI, tools=TOOLS).message
    assert whole.content == "See."
    assert [call.function.arguments for call in whole.tool_calls] == [{"zone": "UTC"}] * 2
    chunks = list(llama.chat(model="says", messages=HI, tools=TOOLS, stream=True))
    found = [call.function.arguments for chunk in chunks for call in chunk.message.tool_calls or ()]
    assert found == [{"zone": "UTC"}] * 2


def test_models_are_listed_shown_loaded_and_embed(llama: Any) -> None:
    assert [model.model for model in llama.list().models][:3] == ["tiny", "says", "guarded"]
    assert llama.show("tiny").capabilities == ["completion", "tools"]
    assert llama.generate(model="tiny").done_reason == "load"
    assert llama.chat(model="tiny", messages=[]).done_reason == "load"
    found = llama.embed(model="universal-sentence-encoder", input=["a cat", "a dog"], dimensions=8)
    assert [len(vector) for vector in found.embeddings] == [8, 8]
    with pytest.raises(ollama.ResponseError) as error:
        llama.show("nothing")
    assert error.value.status_code == 404


def test_refusals_failures_and_leaving(parlour: Parlour, llama: Any) -> None:
    with pytest.raises(ollama.ResponseError) as error:
        llama.generate(model="guarded", prompt="forbidden")
    assert error.value.status_code == 403
    parlour.script.says("a", error="It broke.", pause=0.05)
    with pytest.raises(ollama.ResponseError, match="It broke"):
        list(llama.chat(model="says", messages=HI, stream=True))
    parlour.script.says(*["x"] * 1000, pause=0.02)
    stream = llama.chat(model="says", messages=HI, stream=True)
    next(stream)
    stream.close()
    assert wait_until(lambda: parlour.script.running == 0, 2.0)


def test_lines_are_json_and_streams_are_the_rule(parlour: Parlour) -> None:
    found = lines(parlour.address, "/api/generate", {"model": "says", "prompt": "hi"})
    assert len(found) >= 2
    assert raw(parlour.address, "GET", "/api/version")[1]["version"]


@pytest.mark.parametrize(("more", "param"), [
    ({"options": {"mirostat": 1}}, "options.mirostat"), ({"options": {"temperature": 9}}, "options.temperature"),
    ({"think": True}, "think"), ({"template": "x"}, "template"), ({"images": ["aGk="]}, "images"), ({"n": 1}, "n"),
])  # fmt: skip
def test_wrong_requests_are_told(parlour: Parlour, more: dict[str, Any], param: str) -> None:
    status, said, _ = raw(parlour.address, "POST", "/api/generate", {"model": "says", "prompt": "hi"} | more)
    assert (status, said["error"]["param"]) == (400, param)
