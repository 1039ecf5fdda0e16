"""Tools: told to the model as text, its calls found in what it says, forced ones valid by grammar."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import openai
import pytest
from pydantic import BaseModel

from genwright.server.errors import Wrong
from genwright.server.tools import CLOSE, OPEN, Delta, Either, Forced, Function, Tagged, Tools

from .parlour import ASK, Parlour, raw, wait_until

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"$ref": "#/$defs/Days"}},
           "required": ["city", "days"], "additionalProperties": False,
           "$defs": {"Days": {"type": "integer", "minimum": 1, "maximum": 9}}}  # fmt: skip
TIME = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"],
        "additionalProperties": False}  # fmt: skip
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Ahead.", "parameters": WEATHER, "strict": True},
    },
    {"type": "function", "function": {"name": "time", "parameters": TIME}},
    {"type": "function", "function": {"name": "reset"}},
]  # fmt: skip
CALL = '{"name": "time", "arguments": {"zone": "UTC"}}'
QUESTION = [{"role": "user", "content": "What is the weather in Oslo?"}]


# -- what a model says ------------------------------------------------------------------------------------------------


def _fed(watch: Any, pieces: Any, *, cut: bool = False) -> tuple[str, list[tuple[str, str]]]:
    """(words, [(name, arguments)]) of an answer that comes in pieces."""
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += watch.feed(piece)
        if watch.done:
            break
    deltas += watch.end(cut=cut)
    said = "".join(d.text for d in deltas if d.call < 0)
    calls: list[tuple[str, str]] = []
    for d in deltas:
        if d.call >= 0 and d.name:
            assert d.call == len(calls)
            assert d.id.startswith("call_")
            calls.append((d.name, d.text))
        elif d.call >= 0:
            calls[d.call] = (calls[d.call][0], calls[d.call][1] + d.text)
    return said, calls


@pytest.mark.parametrize(("text", "words", "calls"), [
    ("Plain words.", "Plain words.", []),
    ("a < b and <tool> too\n", "a < b and <tool> too\n", []),
    ("ends in <tool_c", "ends in <tool_c", []),
    (f"{OPEN}\n{CALL}\n{CLOSE}", "", ["UTC"]),
    (f"\n\n{OPEN}{CALL}{CLOSE}\n", "", ["UTC"]),
    (f"Let me see. \n{OPEN}{CALL}{CLOSE}", "Let me see.", ["UTC"]),
    (f"{OPEN}{CALL}{CLOSE}\n{OPEN}\n{CALL.replace('UTC', 'CET')}\n{CLOSE}", "", ["UTC", "CET"]),
    (f"{OPEN}{CALL}{CLOSE} Done.", " Done.", ["UTC"]),
    (f"{OPEN}{CALL}", "", ["UTC"]),  # the model ended without closing it
    (f"{OPEN}not json{CLOSE}after", "not jsonafter", []),
    (f"{OPEN}{CALL.replace('time', 'unknown')}{CLOSE}", CALL.replace("time", "unknown"), []),
    (OPEN + CALL.replace('{"zone": "UTC"}', '"{}"') + CLOSE, "", ["{}"]),  # arguments as a text
    (OPEN + CALL.replace('{"zone": "UTC"}', "5") + CLOSE, CALL.replace('{"zone": "UTC"}', "5"), []),
    (f'{OPEN}{{"arguments": {{"zone": "UTC"}}, "name": "time"}}{CLOSE}', "", ["UTC"]),
])  # fmt: skip
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_tagged_calls_are_found_however_the_answer_is_cut(text: str, words: str, calls: list[str], size: int) -> None:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    said, found = _fed(Tagged({"time"}, parallel=True), pieces)
    assert said == words
    assert [name for name, _ in found] == ["time"] * len(calls)
    assert [json.loads(arguments).get("zone", arguments) for _, arguments in found] == calls


def test_no_piece_of_a_tag_leaves() -> None:
    watch = Tagged({"time"}, parallel=True)
    left = "".join(d.text for c in f"Well. {OPEN}{CALL}" for d in watch.feed(c) if d.call < 0)
    assert left == "Well."


def test_without_parallel_calls_the_answer_ends_with_the_first() -> None:
    said, calls = _fed(Tagged({"time"}, parallel=False), [f"{OPEN}{CALL}{CLOSE}{OPEN}{CALL}{CLOSE} more"])
    assert (said, len(calls)) == ("", 1)


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    "arguments", ["{}", '{"a":{"b":"}}}"}}', '{"zone":"U}T{C"}', '{"x":[1,{"y":{}}]}', '{"q":"\\"}"}']
)
def test_forced_arguments_leave_as_they_come_and_whole(arguments: str, size: int) -> None:
    for text, watch in ((f'{{"name":"time","arguments":{arguments}}}', Forced()),
                        (f' {{ "name" : "time" , "arguments" : {arguments} }}\n', Forced()),
                        (f'{{"tool_call":{{"name":"time","arguments":{arguments}}}}}', Either())):  # fmt: skip
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert _fed(watch, pieces) == ("", [("time", arguments)])


def test_a_forced_call_that_was_cut_off_gives_what_there_is() -> None:
    assert _fed(Forced(), ['{"name":"time","arguments":{"zo'], cut=True) == ("", [("time", '{"zo')])
    assert _fed(Forced(), ['{"name":"time","arguments":{"a":{}}}'], cut=True) == ("", [("time", '{"a":{}}')])
    assert _fed(Forced(), ['{"name":"time","arguments":{"a":{}'], cut=True) == ("", [("time", '{"a":{}')])
    assert _fed(Forced(), ["no call at all"]) == ("no call at all", [])


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("text", ['{"tool":1}', '{"answer":"{\\"tool_call\\":"}', "{}", "[1]", '{"tool_cal', ""])
def test_an_answer_in_its_own_shape_is_words(text: str, size: int) -> None:
    assert _fed(Either(), [text[i : i + size] for i in range(0, len(text), size)]) == (text, [])


# -- what is told to the model ----------------------------------------------------------------------------------------


def test_tools_stand_in_the_system_message_and_calls_in_the_conversation(parlour: Parlour, talk: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"zone":"UTC"}'}}
    messages = [{"role": "system", "content": "Be brief."}, *QUESTION,
                {"role": "assistant", "content": "Let me see.", "tool_calls": [call, call]},
                {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
                {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "13:00"}]}]  # fmt: skip
    talk.chat.completions.create(model="says", messages=messages, tools=TOOLS)
    (_, told), _, (_, said), (who, given) = parlour.script.seen
    assert told.startswith("Be brief.\n\n# Tools")
    shown = [json.loads(line) for line in told.split("<tools>\n")[1].split("\n</tools>")[0].split("\n")]
    assert shown[0] == {
        "type": "function",
        "function": {"name": "weather", "description": "Ahead.", "parameters": WEATHER},
    }
    assert [tool["function"]["name"] for tool in shown] == ["weather", "time", "reset"]
    assert said == f'Let me see.\n{OPEN}\n{{"name": "time", "arguments": {{"zone":"UTC"}}}}\n{CLOSE}' + (
        f'\n{OPEN}\n{{"name": "time", "arguments": {{"zone":"UTC"}}}}\n{CLOSE}')  # fmt: skip
    assert (who, given) == (
        "user",
        "<tool_response>\n12:00\n</tool_response>\n<tool_response>\n13:00\n</tool_response>",
    )
    talk.chat.completions.create(model="says", messages=QUESTION, tools=TOOLS, tool_choice="none")
    assert parlour.script.seen == [("user", QUESTION[0]["content"])]


def test_calls_are_answered_as_the_client_gathers_them(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("I look.\n<tool", f"_call>{CALL}</tool_c", "all>\n", f"{OPEN}{CALL}{CLOSE}")
    whole = talk.chat.completions.create(**ASK, tools=TOOLS).choices[0]
    assert (whole.finish_reason, whole.message.content) == ("tool_calls", "I look.")
    assert [(c.type, c.function.name, c.function.arguments) for c in whole.message.tool_calls] == [
        ("function", "time", '{"zone": "UTC"}')] * 2  # fmt: skip
    assert len({call.id for call in whole.message.tool_calls}) == 2
    with talk.chat.completions.stream(**ASK, tools=TOOLS) as stream:
        events = [event.type for event in stream]
        streamed = stream.get_final_completion().choices[0]
    assert events.count("tool_calls.function.arguments.done") == 2
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.content == "I look."
    assert [c.function.arguments for c in streamed.message.tool_calls] == ['{"zone": "UTC"}'] * 2
    one = talk.chat.completions.create(**ASK, tools=TOOLS, parallel_tool_calls=False).choices[0]
    assert len(one.message.tool_calls) == 1
    parlour.script.says(f"{OPEN}{CALL}{CLOSE}")
    assert talk.chat.completions.create(**ASK, tools=TOOLS).choices[0].message.content is None
    parlour.script.says("No need.")
    plain = talk.chat.completions.create(**ASK, tools=TOOLS).choices[0]
    assert (plain.finish_reason, plain.message.content, plain.message.tool_calls) == ("stop", "No need.", None)


def test_a_client_that_leaves_while_a_call_is_held_back_stops_the_model(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("See.", OPEN, *["x"] * 1000, pause=0.02)
    stream = talk.chat.completions.create(**ASK, tools=TOOLS, stream=True)
    assert "See." in "".join(next(stream).choices[0].delta.content or "" for _ in range(2))
    assert parlour.script.running == 1
    stream.close()
    assert wait_until(lambda: parlour.script.running == 0, 2.0)


# -- forced calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("choice", "names"), [
    ("required", {"time", "reset"}),
    ({"type": "function", "function": {"name": "time"}}, {"time"}),
    ({"type": "function", "function": {"name": "reset"}}, {"reset"}),
    ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOLS[1]]}}, {"time"}),
])  # fmt: skip
def test_a_model_that_must_call_calls_validly(talk: Any, choice: Any, names: set[str]) -> None:
    """A tiny model that knows nothing of tools: only the grammar makes it do so."""
    schemas = {"time": TIME, "reset": {"type": "object", "maxProperties": 0}}
    found = set()
    for seed in range(6):
        ask: Any = {"model": "tiny", "messages": QUESTION, "tools": TOOLS[1:], "tool_choice": choice, "temperature": 2,
                    "seed": seed}  # fmt: skip
        whole = talk.chat.completions.create(**ask).choices[0]
        assert (whole.finish_reason, whole.message.content) == ("tool_calls", None)
        (call,) = whole.message.tool_calls
        jsonschema.validate(json.loads(call.function.arguments), schemas[call.function.name])
        with talk.chat.completions.stream(**ask) as stream:
            (streamed,) = stream.get_final_completion().choices[0].message.tool_calls
        assert streamed.function.arguments == call.function.arguments
        assert streamed.function.name == call.function.name
        found.add(call.function.name)
    assert found <= names


def test_the_grammar_of_a_named_function_holds_its_schema() -> None:
    functions = [Function.model_validate(tool["function"]) for tool in TOOLS]
    tools = Tools.of(functions, {"type": "function", "name": "weather"})
    assert tools
    schema: Any = tools.schema()
    jsonschema.validate({"name": "weather", "arguments": {"city": "Oslo", "days": 2}}, schema)
    for wrong in ({"name": "time", "arguments": {"zone": "UTC"}}, {"name": "weather", "arguments": {"city": "Oslo"}},
                  {"name": "weather", "arguments": {"city": "Oslo", "days": 10}}):  # fmt: skip
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    either: Any = Tools.of(functions, "auto").schema({"$ref": "#/$defs/A", "$defs": {"A": {"const": 1}}})  # type: ignore[union-attr]
    jsonschema.validate(1, either)
    jsonschema.validate({"tool_call": {"name": "time", "arguments": {"zone": "UTC"}}}, either)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "time", "arguments": {"zone": "UTC"}}, either)


class City(BaseModel):
    name: str


def test_a_format_and_tools_may_come_together(parlour: Parlour, talk: Any) -> None:
    parlour.script.says('{"tool_', 'call":{"name":"time","argu', 'ments":{"zone":"UTC"}}', "}")
    called = talk.chat.completions.parse(**ASK, tools=TOOLS[:1], response_format=City).choices[0]
    assert called.message.tool_calls[0].function.arguments == '{"zone":"UTC"}'
    assert called.message.content is None
    parlour.script.says('{"na', 'me":"Oslo"}')
    said = talk.chat.completions.parse(**ASK, tools=TOOLS[:1], response_format=City).choices[0]
    assert said.message.parsed == City(name="Oslo")
    assert not said.message.tool_calls


# -- wrong ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("more", "param"), [
    ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools.0.function.name"),
    ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, "tools.0.type"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": 5}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": 5}}, "tool_choice"),
    ({"functions": [{"name": "a"}]}, "functions"),
])  # fmt: skip
def test_wrong_tools_are_told(parlour: Parlour, more: dict[str, Any], param: str) -> None:
    status, said, _ = raw(parlour.address, "POST", "/v1/chat/completions", ASK | more)
    assert (status, said["error"]["param"]) == (400, param)


def test_a_schema_that_is_none_is_a_400(talk: Any) -> None:
    odd = [{"type": "function", "function": {"name": "a", "parameters": {"properties": {"b": {"type": "nonsense"}}}}}]
    with pytest.raises(openai.BadRequestError):
        talk.chat.completions.create(model="tiny", messages=QUESTION, tools=odd, tool_choice="required")


def test_a_choice_that_is_odd_is_wrong() -> None:
    function = Function(name="a")
    assert Tools.of([], "auto") is None
    assert Tools.of([function], "none") is None
    for odd in ({"type": "function"}, {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "b"}]}, {}):
        with pytest.raises(Wrong):
            Tools.of([function], odd)
