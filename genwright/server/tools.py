"""Tools: how functions that a program offers are told to a model, and how its calls are found in what it says.

Few small models' templates know of tools, so tools travel as text, in the words that Hermes and Qwen were taught:

    system      … For each function call, return a json object … within <tool_call></tool_call> XML tags
    assistant   <tool_call>
                {"name": "weather", "arguments": {"city": "Oslo"}}
                </tool_call>
    user        <tool_response>
                4 °C
                </tool_response>

A model that may choose (`auto`) is watched: what stands between the tags leaves as a call or, when it is none, as words
without the tags. A model that must call (`required`, or a named function) says JSON under a grammar, so that the call
exists and its arguments validate: one call an answer.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import orjson
from pydantic import ConfigDict, Field

from .errors import Wrong
from .wire import Body

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
OPEN, CLOSE = "<tool_call>", "</tool_call>"
_BLANK = " \t\r\n"

TOLD = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


class Function(Body):
    """A function that the model may call; `parameters` is the JSON schema of its arguments."""

    model_config = ConfigDict(strict=True)

    name: Name
    description: str | None = Field(None, max_length=20_000)
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def arguments(self) -> dict[str, Any]:
        """The JSON schema of its arguments: an object, with no keys when nothing is said of them."""
        return {**(self.parameters or {"properties": {}, "additionalProperties": False}), "type": "object"}


@dataclass(frozen=True)
class Tools:
    """What may be called: all `functions` are told to the model, those of `allowed` may be called.

    `choice`: "auto" (the model decides) or "required" (it must). `parallel` allows several calls in an answer.
    """

    functions: tuple[Function, ...]
    allowed: tuple[Function, ...]
    choice: Literal["auto", "required"]
    parallel: bool = True

    @classmethod
    def of(
        cls, functions: Sequence[Function], choice: str | dict[str, Any] | None, *, parallel: bool = True
    ) -> Tools | None:
        """None when there is nothing that may be called. `choice` is OpenAI's `tool_choice`, in the spelling of chat
        completions or of responses. Raises Wrong (400)."""
        known = {function.name: function for function in functions}
        if len(known) < len(functions):
            raise Wrong(400, "Two tools have the same name.", param="tools", code="invalid_value")
        mode, names = _chosen(choice)
        if mode == "required" and not known:
            raise Wrong(400, "tool_choice demands a call, but there are no tools.", param="tool_choice")
        if unknown := [name for name in names or () if name not in known]:
            said = f"tool_choice names {unknown[0][:200]!r}, which is not among the tools."
            raise Wrong(400, said, param="tool_choice", code="invalid_value")
        allowed = tuple(known[name] for name in names) if names is not None else tuple(functions)
        if mode == "none" or not allowed:
            return None
        return cls(tuple(functions), allowed, "required" if mode == "required" else "auto", parallel)

    def told(self) -> str:
        """The part of the system message that tells of them."""
        shown = (f.model_dump(exclude_none=True, exclude={"strict"}) for f in self.functions)
        lines = (json.dumps({"type": "function", "function": one}, ensure_ascii=False) for one in shown)
        return TOLD.format(tools="\n".join(lines))

    def schema(self, otherwise: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """What the whole answer must be: a call, or (when the model may choose) `otherwise`; None asks for nothing."""
        if self.choice == "auto" and otherwise is None:
            return None
        definitions: dict[str, Any] = {}
        calls = []
        for number, function in enumerate(self.allowed):
            definitions[f"tool{number}"] = _moved(function.arguments(), f"#/$defs/tool{number}")
            calls.append(_object(name={"const": function.name}, arguments={"$ref": f"#/$defs/tool{number}"}))
        if self.choice == "required":
            return {**(calls[0] if len(calls) == 1 else {"anyOf": calls}), "$defs": definitions}
        definitions["answer"] = _moved(otherwise or {}, "#/$defs/answer")
        wrapped = [_object(tool_call=call) for call in calls]
        return {"anyOf": [{"$ref": "#/$defs/answer"}, *wrapped], "$defs": definitions}

    def watch(self, *, masked: bool) -> Watch:
        """What finds the calls in an answer; `masked` says that the answer keeps to `schema`."""
        if self.choice == "required":
            return Forced()
        return Either() if masked else Tagged({f.name for f in self.allowed}, self.parallel)


def call_text(name: str, arguments: str) -> str:
    """A call that was made earlier, as the model would have said it."""
    said = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments.strip() or "{}"}}}'
    return f"{OPEN}\n{said}\n{CLOSE}"


def response_text(said: str) -> str:
    """What a function gave back, as the model is told."""
    return f"<tool_response>\n{said}\n</tool_response>"


# -- tool_choice ------------------------------------------------------------------------------------------------------


def _chosen(choice: str | dict[str, Any] | None) -> tuple[str, list[str] | None]:
    """(mode, names of the functions that may be called or None for all) of OpenAI's tool_choice."""
    if choice is None:
        return "auto", None
    if isinstance(choice, str) and choice in ("none", "auto", "required"):
        return choice, None
    if isinstance(choice, dict) and choice.get("type") == "function":
        return "required", [_name(choice)]
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        told = choice.get("allowed_tools", choice)
        tools = told.get("tools") if isinstance(told, dict) else None
        if isinstance(tools, list) and told.get("mode") in ("auto", "required"):
            return told["mode"], [_name(tool) for tool in tools]
    raise Wrong(400, "tool_choice is none, auto, required, a function, or allowed_tools.", param="tool_choice",
                code="invalid_value")  # fmt: skip


def _name(said: Any) -> str:
    """{"type": "function", "function": {"name": …}} or {"type": "function", "name": …}."""
    inner = said.get("function", said) if isinstance(said, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str):
        raise Wrong(400, "tool_choice does not say the function's name.", param="tool_choice", code="invalid_value")
    return name


# -- schemas ----------------------------------------------------------------------------------------------------------


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _moved(schema: Any, place: str) -> Any:
    """A schema that now stands at `place`: its references to its own root go there."""
    if isinstance(schema, list):
        return [_moved(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    if isinstance(target := schema.get("$ref"), str) and target.startswith("#"):
        moved["$ref"] = place + target[1:]
    return moved


# -- watching ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Delta:
    """A piece of an answer: words, or of call number `call` its beginning (`id`, `name`) or more of its arguments."""

    text: str = ""
    call: int = -1
    id: str = ""
    name: str = ""
    logprobs: list[dict[str, Any]] | None = None


class Watch(Protocol):
    """Finds calls in an answer as it comes. `done` is set when nothing more of the answer is wanted."""

    done: bool

    def feed(self, text: str) -> list[Delta]: ...
    def end(self, *, cut: bool) -> list[Delta]:
        """The rest; `cut` says that the answer ended because it was too long."""
        ...


class Tagged:
    """Calls between tags, in an answer that may also be words. A tag never leaves, not even a piece of one."""

    def __init__(self, names: set[str], parallel: bool):
        self.names, self.parallel = names, parallel
        self.held, self.inside, self.calls, self.done = "", False, 0, False

    def feed(self, text: str) -> list[Delta]:
        begin = max(0, len(self.held) - len(CLOSE))  # what is held was looked through before
        self.held += text
        found: list[Delta] = []
        while not self.done:
            tag = CLOSE if self.inside else OPEN
            place = self.held.find(tag, begin)
            begin = 0
            if place < 0:
                break
            piece, self.held = self.held[:place], self.held[place + len(tag) :]
            found += self._call(piece) if self.inside else self._words(piece.rstrip(_BLANK))
            self.inside = not self.inside
        if not self.inside and not self.done:
            whole = len(self.held) - _held_back(self.held)
            found += self._words(self.held[:whole])
            self.held = self.held[whole:]
        return found

    def end(self, *, cut: bool) -> list[Delta]:
        if self.done:
            return []
        held, self.held = self.held, ""
        return self._call(held) if self.inside else self._words(held)

    def _words(self, text: str) -> list[Delta]:
        if self.calls and not text.strip():
            return []  # blank lines between calls
        return [Delta(text)] if text else []

    def _call(self, piece: str) -> list[Delta]:
        """The call in a piece of text, in two deltas; a piece that is no call is words."""
        try:
            said = orjson.loads(piece)
        except orjson.JSONDecodeError:
            said = None
        if not isinstance(said, dict) or said.get("name") not in self.names:
            return self._words(piece.strip())
        arguments = said.get("arguments", said.get("parameters", {}))
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if not isinstance(arguments, str):
            return self._words(piece.strip())
        number, self.calls = self.calls, self.calls + 1
        self.done = not self.parallel
        return [Delta(call=number, id=_call_id(), name=said["name"]), Delta(arguments, call=number)]


class Forced:
    """An answer that is nothing but `{"name": …, "arguments": …}`; the arguments leave as they come."""

    def __init__(self, inner: str = r"\{", braces: int = 1):
        self.head = re.compile(rf'\s*{inner}\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\S)')
        self.braces = braces  # how many close behind the arguments
        self.held, self.said, self.begun, self.done = "", "", False, False

    def feed(self, text: str) -> list[Delta]:
        self.held += text
        found = []
        if not self.begun:
            head = self.head.match(self.held)
            if not head:
                return []
            self.begun = True
            found.append(Delta(call=0, id=_call_id(), name=json.loads(head[1])))
            self.held = self.held[head.end() :]
        ready = len(self.held.rstrip(_BLANK + "}"))
        if ready:
            found.append(Delta(self.held[:ready], call=0))
            self.said += self.held[:ready]
            self.held = self.held[ready:]
        return found

    def end(self, *, cut: bool) -> list[Delta]:
        rest = self.held.rstrip(_BLANK)
        if self.begun:
            bare = rest
            for _ in range(self.braces):
                bare = bare.removesuffix("}").rstrip(_BLANK)
            rest = bare if not cut or _is_json(self.said + bare) else rest
        return [Delta(rest, call=0 if self.begun else -1)] if rest else []


class Either:
    """JSON that is an answer in its own shape, or `{"tool_call": {"name": …, "arguments": …}}`."""

    _BEGINS = '{"tool_call":'

    def __init__(self) -> None:
        self.held, self.chosen, self.done = "", "", False
        self.call = Forced(r'\{\s*"tool_call"\s*:\s*\{', braces=2)

    def feed(self, text: str) -> list[Delta]:
        if not self.chosen:
            self.held += text
            plain = "".join(self.held.split())
            if plain.startswith(self._BEGINS):
                self.chosen = "call"
            elif not self._BEGINS.startswith(plain):
                self.chosen = "words"
            else:
                return []
            text, self.held = self.held, ""
        return self.call.feed(text) if self.chosen == "call" else [Delta(text)]

    def end(self, *, cut: bool) -> list[Delta]:
        return self.call.end(cut=cut) if self.chosen == "call" else [Delta(self.held)] if self.held else []


def _held_back(text: str) -> int:
    """How many of the last characters may be the blank before a tag, or the beginning of one."""
    tag = next((size for size in range(min(len(OPEN) - 1, len(text)), 0, -1) if OPEN.startswith(text[-size:])), 0)
    return len(text) - len(text[: len(text) - tag].rstrip(_BLANK))


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"
