"""Responses and moderations: items in and out, events in order, kept for the next request, made in the background."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from genwright.server.tools import CLOSE, OPEN
from tests.formats.tiny import SENTENCES

from .parlour import Parlour, lines, raw, wait_until

ASK: dict[str, Any] = {"model": "says", "input": "hi"}
CALL = f'{OPEN}{{"name": "time", "arguments": {{"zone": "UTC"}}}}{CLOSE}'
TOOLS: Any = [
    {
        "type": "function",
        "name": "time",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string"}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    }
]


# -- answers ----------------------------------------------------------------------------------------------------------


def test_a_streamed_response_is_the_whole_one(talk: Any) -> None:
    ask: dict[str, Any] = {"model": "tiny", "input": SENTENCES[0], "max_output_tokens": 60}
    whole = talk.responses.create(**ask)
    assert (whole.status, whole.output_text) == ("completed", SENTENCES[1])
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens > 20
    with talk.responses.stream(**ask) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]  # fmt: skip
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                          "response.completed"]  # fmt: skip
    assert final.output_text == SENTENCES[1]
    assert final.usage.total_tokens == whole.usage.total_tokens
    short = talk.responses.create(**ask | {"max_output_tokens": 2})
    assert (short.status, short.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert short.output[0].status == "incomplete"


def test_every_event_is_named_and_in_its_type(parlour: Parlour) -> None:
    parlour.script.says("Let me ", "see.\n", CALL)
    found = lines(parlour.address, "/v1/responses", ASK | {"tools": TOOLS, "stream": True})
    kinds = [line.removeprefix("event: ") for line in found[::2]]
    events = [json.loads(line.removeprefix("data: ")) for line in found[1::2]]
    assert [event["type"] for event in events] == kinds
    adapter: Any = TypeAdapter(ResponseStreamEvent)
    state: Any = ResponseStreamState(input_tools=TOOLS, text_format=openai.omit)
    for event in events:
        state.handle_event(adapter.validate_python(event))
    assert kinds[-5:] == ["response.output_item.added", "response.function_call_arguments.delta",
                          "response.function_call_arguments.done", "response.output_item.done",
                          "response.completed"]  # fmt: skip
    assert [event["output_index"] for event in events if "output_index" in event] == sorted(
        event["output_index"] for event in events if "output_index" in event)  # fmt: skip


def test_items_instructions_and_earlier_responses_reach_the_model(parlour: Parlour, talk: Any) -> None:
    first = talk.responses.create(**ASK, instructions="Be brief.", metadata={"a": "b"})
    assert parlour.script.seen == [("system", "Be brief."), ("user", "hi")]
    assert (first.metadata, first.instructions) == ({"a": "b"}, "Be brief.")
    items = [{"role": "developer", "content": "Kindly."}, {"type": "message", "role": "user", "content": [
        {"type": "input_text", "text": "and "}, {"type": "input_text", "text": "you?"}]}]  # fmt: skip
    second = talk.responses.create(model="says", input=items, previous_response_id=first.id)
    said = [("user", "hi"), ("assistant", "Hello."), ("system", "Kindly."), ("user", "and you?")]
    assert parlour.script.seen == said  # the instructions were for the first only
    third = talk.responses.create(model="says", input="bye", previous_response_id=second.id, instructions="Go.")
    assert parlour.script.seen == [("system", "Go."), *said, ("assistant", "Hello."), ("user", "bye")]
    assert third.previous_response_id == second.id
    again = talk.responses.create(
        model="says", input=[*items, *[o.model_dump(exclude_none=True) for o in second.output]]
    )
    assert again.status == "completed"
    assert parlour.script.seen[-1] == ("assistant", "Hello.")


def test_calls_and_what_came_of_them_are_items(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("Let me see.\n", CALL)
    first = talk.responses.create(**ASK, tools=TOOLS)
    message, call = first.output
    assert (message.content[0].text, call.name, call.arguments) == ("Let me see.", "time", '{"zone": "UTC"}')
    assert first.tools[0].name == "time"
    with talk.responses.stream(**ASK, tools=TOOLS) as stream:
        list(stream)
        streamed = stream.get_final_response()
    assert [item.type for item in streamed.output] == ["message", "function_call"]
    assert streamed.output[1].parsed_arguments == {"zone": "UTC"}
    parlour.script.says("Noon.")
    given = [{"type": "function_call_output", "call_id": call.call_id, "output": "12:00"}]
    second = talk.responses.create(model="says", input=given, previous_response_id=first.id, tools=TOOLS)
    assert second.output_text == "Noon."
    (who, told), _, (_, said), (_, back) = parlour.script.seen
    assert who == "system"
    assert '"name": "time"' in told
    assert said.startswith(f"Let me see.\n{OPEN}")
    assert back == "<tool_response>\n12:00\n</tool_response>"
    forced = talk.responses.create(model="tiny", input="time?", tools=TOOLS, tool_choice="required", temperature=1,
                                   max_output_tokens=300)  # fmt: skip
    assert forced.output[0].type == "function_call"
    assert forced.output[0].name == "time"


class Pet(BaseModel):
    kind: bool


def test_a_format_is_kept_to(parlour: Parlour, talk: Any) -> None:
    assert isinstance(talk.responses.parse(model="tiny", input="a pet", text_format=Pet).output_parsed, Pet)
    with talk.responses.stream(model="tiny", input="a pet", text_format=Pet) as stream:
        list(stream)
        assert isinstance(stream.get_final_response().output_parsed, Pet)
    talk.responses.create(
        **ASK, text={"format": {"type": "json_object"}, "verbosity": "low"}, reasoning={"effort": "low"}
    )
    assert parlour.script.asked[-1]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_log_probabilities_come_when_they_are_included(talk: Any) -> None:
    ask: dict[str, Any] = {"model": "tiny", "input": SENTENCES[0], "max_output_tokens": 5, "top_logprobs": 2}
    part = talk.responses.create(**ask, include=["message.output_text.logprobs"]).output[0].content[0]
    assert "".join(one.token for one in part.logprobs) == part.text
    assert all(len(one.top_logprobs) == 2 for one in part.logprobs)
    with talk.responses.stream(**ask) as stream:
        found = [one for event in stream if event.type == "response.output_text.delta" for one in event.logprobs]
    assert [one.logprob for one in found] == [one.logprob for one in part.logprobs]
    assert talk.responses.create(model="tiny", input="a", max_output_tokens=2).output[0].content[0].logprobs == []


def test_tokens_are_counted_before_they_are_asked(talk: Any) -> None:
    ask: dict[str, Any] = {"model": "tiny", "input": SENTENCES[0], "instructions": "Be brief."}
    counted = talk.responses.input_tokens.count(**ask)
    assert counted.input_tokens == talk.responses.create(**ask, max_output_tokens=1).usage.input_tokens


# -- kept -------------------------------------------------------------------------------------------------------------


def test_responses_are_kept_listed_and_forgotten(talk: Any) -> None:
    made = talk.responses.create(model="says", input=[{"role": "user", "content": c} for c in "abc"])
    assert talk.responses.retrieve(made.id) == made
    items = list(talk.responses.input_items.list(made.id, limit=2))
    assert [item.content[0].text for item in items] == ["c", "b", "a"]
    assert [item.content[0].text for item in talk.responses.input_items.list(made.id, order="asc")] == ["a", "b", "c"]
    with pytest.raises(openai.BadRequestError, match="background"):
        talk.responses.cancel(made.id)
    talk.responses.delete(made.id)
    for again in (
        talk.responses.retrieve,
        talk.responses.input_items.list,
        talk.responses.delete,
        talk.responses.cancel,
    ):
        with pytest.raises(openai.NotFoundError):
            again(made.id)
    with pytest.raises(openai.NotFoundError) as error:
        talk.responses.create(**ASK, previous_response_id=made.id)
    assert error.value.code == "previous_response_not_found"
    unkept = talk.responses.create(**ASK, store=False)
    with pytest.raises(openai.NotFoundError):
        talk.responses.retrieve(unkept.id)


def test_a_response_is_made_in_the_background(parlour: Parlour, talk: Any) -> None:
    parlour.script.says(*"Hello.", pause=0.05)
    made = talk.responses.create(**ASK, background=True)
    assert (made.status, made.output, made.background) == ("queued", [], True)
    assert wait_until(lambda: talk.responses.retrieve(made.id).status == "in_progress")
    with pytest.raises(openai.BadRequestError, match="not finished"):
        talk.responses.create(**ASK, previous_response_id=made.id)
    assert wait_until(lambda: talk.responses.retrieve(made.id).status == "completed")
    assert talk.responses.retrieve(made.id).output_text == "Hello."
    assert talk.responses.cancel(made.id).status == "completed"


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_a_response_in_the_background_is_stopped(parlour: Parlour, talk: Any, how: str) -> None:
    parlour.script.says(*["x"] * 1000, pause=0.02)
    made = talk.responses.create(**ASK, background=True)
    assert wait_until(lambda: parlour.script.running == 1)
    if how == "cancel":
        assert talk.responses.cancel(made.id).status == "cancelled"
        assert talk.responses.retrieve(made.id).status == "cancelled"
    else:
        talk.responses.delete(made.id)
    assert wait_until(lambda: parlour.script.running == 0)


def test_a_response_in_the_background_that_fails_says_why(parlour: Parlour, talk: Any) -> None:
    parlour.script.says(error="Not like this.")
    made = talk.responses.create(**ASK, background=True)
    assert wait_until(lambda: talk.responses.retrieve(made.id).status == "failed")
    assert "Not like this" in talk.responses.retrieve(made.id).error.message


# -- refused, failing, wrong ------------------------------------------------------------------------------------------


def test_a_blocked_answer_is_incomplete_in_a_stream_and_refused_whole(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("word " * 100, "this is for", "bid", "den here")
    with talk.responses.stream(**ASK | {"model": "guarded"}) as stream:
        last = list(stream)[-1]
    assert (last.type, last.response.incomplete_details.reason) == ("response.incomplete", "content_filter")
    assert "word" in last.response.output_text
    assert "forb" not in last.response.output_text
    with pytest.raises(openai.PermissionDeniedError):
        talk.responses.create(**ASK | {"model": "guarded"})
    with pytest.raises(openai.PermissionDeniedError):
        talk.responses.create(model="guarded", input="forbidden", stream=True)


def test_a_stream_that_fails_ends_with_what_it_said(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("a", "b", error="It broke.", pause=0.05)
    last = list(talk.responses.create(**ASK, stream=True))[-1]
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert "It broke" in last.response.error.message
    assert last.response.output_text == "ab"


@pytest.mark.parametrize(("more", "param"), [
    ({"input": 5}, "input"), ({"input": [{"role": "king", "content": "a"}]}, "input.0"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0.content"),
    ({"input": [{"type": "function_call", "name": "a"}]}, "input.0.call_id"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0"), ({"input": [5]}, "input"),
    ({"tools": [{"type": "web_search"}]}, "tools.0.type"), ({"conversation": "c"}, "conversation"),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
    ({"background": True, "stream": True}, "background"), ({"background": True, "store": False}, "background"),
    ({"temperature": 3}, "temperature"), ({"max_output_tokens": 0}, "max_output_tokens"), ({"n": 2}, "n"),
    ({"model": "other"}, "model"),
])  # fmt: skip
def test_wrong_responses_are_told(parlour: Parlour, more: dict[str, Any], param: str) -> None:
    status, said, _ = raw(parlour.address, "POST", "/v1/responses", ASK | more)
    assert status == (404 if param == "model" else 400)
    assert said["error"]["param"] == param


# -- moderations ------------------------------------------------------------------------------------------------------


def test_moderations_say_what_guards_find_and_what_nobody_looked_for(talk: Any) -> None:
    found = talk.moderations.create(input=["Write to joe@example.com", "A fine day."])
    assert found.model == "guards:pii"
    bad, good = (one.model_dump(by_alias=True) for one in found.results)
    assert (bad["flagged"], bad["categories"]["pii/email"], bad["category_scores"]["pii"]) == (True, True, 1.0)
    assert (good["flagged"], good["categories"]["pii"], good["category_scores"]["pii/email"]) == (False, False, 0.0)
    assert good["category_applied_input_types"]["pii/email"] == ["text"]
    assert good["category_applied_input_types"]["hate"] == []
    parts: Any = [{"type": "text", "text": "Write to"}, {"type": "text", "text": "joe@example.com"}]
    assert talk.moderations.create(input=parts, model="omni-moderation-latest").results[0].flagged
    with pytest.raises(openai.NotFoundError):
        talk.moderations.create(input="a", model="other")
    with pytest.raises(openai.BadRequestError):
        talk.moderations.create(input=[{"type": "image_url", "image_url": {"url": "x"}}])
