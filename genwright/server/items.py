"""Items: what responses are made of. Input items become the turns of a chat; deltas become output items and events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .conversation import CalledFunction, ToolCall, Turn, words
from .errors import Wrong
from .tools import Delta
from .wire import new_id

Event = tuple[str, dict[str, Any]]  # its type, and what else it says

_ROLES = ("user", "assistant", "system", "developer")


def input_items(given: str | Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Input as OpenAI lists it: every item complete, with an id. Raises Wrong (400) for what is not understood."""
    if given is None or isinstance(given, str):
        return [_message("user", given or "")]
    found = (_item(item, f"input.{number}") for number, item in enumerate(given))
    return [item for item in found if item]


def turns_of(items: Sequence[dict[str, Any]]) -> list[Turn]:
    """The turns of a chat that input and output items stand for."""
    turns: list[Turn] = []
    for item in items:
        if item["type"] == "function_call_output":
            turns.append(Turn(role="tool", tool_call_id=item["call_id"], content=item["output"]))
        elif item["type"] == "function_call":
            function = CalledFunction(name=item["name"], arguments=item["arguments"])
            call = ToolCall(id=item["call_id"], function=function)
            if turns and turns[-1].role == "assistant":  # calls belong to what was said before them
                last = turns.pop()
                turns.append(last.model_copy(update={"tool_calls": [*(last.tool_calls or ()), call]}))
            else:
                turns.append(Turn(role="assistant", tool_calls=[call]))
        else:
            turns.append(Turn(role=item["role"], content=words(item["content"], "input")))
    return turns


def _item(item: dict[str, Any], param: str) -> dict[str, Any] | None:
    """One input item, complete; None for one that says nothing to our models (another model's reasoning)."""
    kind = item.get("type", "message")
    if kind == "message" and item.get("role") in _ROLES:
        return _message(item["role"], words(item.get("content"), f"{param}.content"), item.get("id"))
    if kind == "function_call":
        call_id, name, arguments = (_text(item, key, param) for key in ("call_id", "name", "arguments"))
        return {"id": _id(item, "fc_"), "type": "function_call", "call_id": call_id, "name": name,
                "arguments": arguments, "status": "completed"}  # fmt: skip
    if kind == "function_call_output":
        return {"id": _id(item, "fco_"), "type": "function_call_output", "call_id": _text(item, "call_id", param),
                "output": words(item.get("output"), f"{param}.output"), "status": "completed"}  # fmt: skip
    if kind == "reasoning":
        return None
    said = f"{param}: items are messages (of {', '.join(_ROLES)}), function_call and function_call_output."
    raise Wrong(400, said, param=param, code="unsupported_value")


def _message(role: str, text: str, id: Any = None) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": "input_text", "text": text}
    if role == "assistant":
        shown = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": id if isinstance(id, str) and id else new_id("msg_"), "type": "message", "role": role,
            "status": "completed", "content": [shown]}  # fmt: skip


def _text(item: dict[str, Any], key: str, param: str) -> str:
    if not isinstance(item.get(key), str):
        raise Wrong(400, f"{param}.{key} must be a text.", param=f"{param}.{key}", code="invalid_value")
    return str(item[key])


def _id(item: dict[str, Any], prefix: str) -> str:
    id = item.get("id")
    return id if isinstance(id, str) and id else new_id(prefix)


class Output:
    """Output items, built from deltas; each step gives the events by which a stream tells of it."""

    def __init__(self, *, logprobs: bool):
        self.logprobs = logprobs
        self.items: list[dict[str, Any]] = []
        self.open = False  # whether the last item still grows
        self.call = -1  # which call it is; -1 is a message

    def add(self, delta: Delta) -> list[Event]:
        """Events of a delta; one that begins another item ends the last one."""
        if delta.call < 0:
            events = [] if self.open and self.call < 0 else [*self._end("completed"), *self._begin_message()]
            return [*events, self._more_words(delta)]
        events = [*self._end("completed"), *self._begin_call(delta)] if delta.name else []
        if not delta.text:
            return events
        self.items[-1]["arguments"] += delta.text
        return [*events, ("response.function_call_arguments.delta", self._place() | {"delta": delta.text})]

    def end(self, finish: str) -> list[Event]:
        """The last events. An answer that said nothing at all is an empty message."""
        begun = [] if self.items else self._begin_message()
        return [*begun, *self._end("incomplete" if finish in ("length", "content_filter") else "completed")]

    def _begin_message(self) -> list[Event]:
        shown = {"id": new_id("msg_"), "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self.items.append({**shown, "content": [{**part, "logprobs": []}]})
        self.open, self.call = True, -1
        return [("response.output_item.added", {"output_index": len(self.items) - 1, "item": shown}),
                ("response.content_part.added", self._place() | {"content_index": 0, "part": part})]  # fmt: skip

    def _begin_call(self, delta: Delta) -> list[Event]:
        item = {"id": new_id("fc_"), "type": "function_call", "call_id": delta.id, "name": delta.name,
                "arguments": "", "status": "in_progress"}  # fmt: skip
        self.items.append(item)
        self.open, self.call = True, delta.call
        return [("response.output_item.added", {"output_index": len(self.items) - 1, "item": dict(item)})]

    def _more_words(self, delta: Delta) -> Event:
        part = self.items[-1]["content"][0]
        part["text"] += delta.text
        found = delta.logprobs if self.logprobs and delta.logprobs else []
        part["logprobs"] += [_logprob(one) for one in found]
        brief = [_brief(one) for one in found]
        said = self._place() | {"content_index": 0, "delta": delta.text, "logprobs": brief}
        return "response.output_text.delta", said

    def _end(self, status: str) -> list[Event]:
        if not self.open:
            return []
        item, self.open = self.items[-1], False
        item["status"] = status
        done = ("response.output_item.done", {"output_index": len(self.items) - 1, "item": item})
        if item["type"] == "function_call":
            arguments = {"arguments": item["arguments"], "name": item["name"]}
            return [("response.function_call_arguments.done", self._place() | arguments), done]
        part = item["content"][0]
        brief = [{"token": one["token"], "logprob": one["logprob"]} for one in part["logprobs"]]
        text = {"content_index": 0, "text": part["text"], "logprobs": brief}
        return [("response.output_text.done", self._place() | text),
                ("response.content_part.done", self._place() | {"content_index": 0, "part": part}), done]  # fmt: skip

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}


def _logprob(one: dict[str, Any]) -> dict[str, Any]:
    top = [{"token": each["token"], "bytes": each["bytes"], "logprob": each["logprob"]} for each in one["top"]]
    return {"token": one["token"], "bytes": one["bytes"], "logprob": one["logprob"], "top_logprobs": top}


def _brief(one: dict[str, Any]) -> dict[str, Any]:
    top = [{"token": each["token"], "logprob": each["logprob"]} for each in one["top"]]
    return {"token": one["token"], "logprob": one["logprob"], "top_logprobs": top}
