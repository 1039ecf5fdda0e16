"""Training rows: an uploaded file, checked line by line, becomes the conversations that a recipe learns from.

OpenAI's spellings (`messages` with `weight`, `input`/`preferred_output`/`non_preferred_output`, `prompt`/`completion`)
and the other shapes of core/rows.py. One malformed line refuses the whole file: what was uploaded is what is learned.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genwright.core import Bad, DataError, Example, Message, choose
from genwright.core.rows import read_row

Kind = Literal["supervised", "dpo"]
_SHOWN = 10  # problems that are told one by one
_UNTAUGHT = ("tools", "functions", "tool_calls", "function_call")  # parts of a row that no recipe learns from


@dataclass
class Checked:
    """What a file came to: `problems` are sentences with line numbers, at most ten; `bad` counts all of them.

    `weighted`: some assistant turns have weight 0, so `rows` holds one conversation for each turn to learn.
    """

    lines: int = 0
    rows: int = 0
    bad: int = 0
    problems: list[str] = field(default_factory=list)
    weighted: bool = False

    def sentence(self, what: str) -> str:
        """All that is wrong, for the job's error."""
        if not self.lines:
            return f"The {what} is empty: it holds no line to learn from."
        more = self.bad - len(self.problems)
        rest = f"; and {more:,} more" if more else ""
        return f"The {what} has {self.bad:,} malformed of {self.lines:,} lines. {'; '.join(self.problems)}{rest}."


def check_rows(path: Path, target: Path, kind: Kind) -> Checked:
    """Read the JSON lines of `path`; write what they teach to `target` when every line is sound."""
    found = Checked()
    for where, given in _lines(path):
        found.lines += 1
        try:
            turns = read_line(given, kind)
            found.weighted = found.weighted or any(weight == 0 for weight in turns.weights)
        except ValueError as problem:
            found.bad += 1
            found.problems += [f"{where}: {problem}"] if len(found.problems) < _SHOWN else []
    if found.bad or not found.lines:
        return found
    temporary = target.with_name(f".{target.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for _, given in _lines(path):
            for example in read_line(given, kind).examples(found.weighted):
                file.write(json.dumps(_as_row(example), ensure_ascii=False) + "\n")
                found.rows += 1
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, target)
    return found


@dataclass(frozen=True)
class Turns:
    """A conversation and, for each of its messages, whether it is learned: 1, 0, or None for others' words."""

    example: Example
    weights: tuple[int | None, ...]

    def examples(self, one_by_one: bool) -> Iterator[Example]:
        """The conversation itself, or one up to each turn of weight 1, which is then its answer."""
        if not one_by_one:
            yield self.example
            return
        for end, weight in enumerate(self.weights, 1):
            if weight == 1:
                yield Example(self.example.messages[:end], self.example.meta)


def read_line(given: dict[str, Any] | Bad, kind: Kind) -> Turns:
    """One line as a conversation. Raises ValueError with a sentence."""
    if isinstance(given, Bad):
        raise ValueError(given.reason)
    for name in _UNTAUGHT:
        if given.get(name) or any(isinstance(turn, dict) and turn.get(name) for turn in _turns(given)):
            raise ValueError(f"`{name}` cannot be learned from here yet; leave it out")
    messages, meta = read_row(given)
    for message in (*messages, *filter(None, [meta.get("rejected")])):
        if any(part.kind != "text" for part in message.parts):
            raise ValueError("only text can be learned from here, not pictures, sound or files")
    weights = _weights(given, messages)
    _must_teach(messages, meta, weights, kind)
    return Turns(Example(messages, {k: v for k, v in meta.items() if k == "rejected"}), weights)


def _must_teach(
    messages: tuple[Message, ...], meta: dict[str, Any], weights: tuple[int | None, ...], kind: Kind
) -> None:
    rejected = meta.get("rejected")
    if kind == "dpo":
        if not isinstance(rejected, Message):
            raise ValueError("dpo needs `input`, `preferred_output` and `non_preferred_output`")
        if rejected.role != "assistant" or messages[-1].role != "assistant":
            raise ValueError("the preferred and the non-preferred output must be by the assistant")
        if rejected == messages[-1]:
            raise ValueError("the preferred and the non-preferred output are the same")
    elif rejected is not None:
        raise ValueError("it is a preference row: use the method dpo")
    elif 1 not in weights:
        none = set(weights) == {None}
        raise ValueError("there is no turn of the assistant to learn" if none else "all weights are 0")
    if messages[-1].role != "assistant":
        raise ValueError(f"the last message is by the {messages[-1].role}, so there is no answer to learn")
    if any(not m.text.strip() for m, weight in zip(messages, weights, strict=True) if weight == 1):
        raise ValueError("an answer of the assistant is empty")


def _weights(given: dict[str, Any], messages: tuple[Message, ...]) -> tuple[int | None, ...]:
    turns = given.get("messages")
    said = [turn.get("weight", 1) for turn in turns] if isinstance(turns, list) else [1] * len(messages)
    if any(isinstance(weight, bool) or weight not in (0, 1, None) for weight in said):
        raise ValueError("`weight` must be 0 or 1")
    return tuple(
        (1 if weight is None else int(weight)) if message.role == "assistant" else None
        for message, weight in zip(messages, said, strict=True)
    )


def _turns(given: dict[str, Any]) -> list[Any]:
    """All messages of a row that may hold more than words."""
    asked = given.get("input")
    lists = [given.get("messages"), given.get("preferred_output"), given.get("non_preferred_output")]
    lists += [asked.get("messages"), [asked]] if isinstance(asked, dict) else []
    return [turn for found in lists if isinstance(found, list) for turn in found]


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | Bad]]:
    """(`line 3`, its object or why it is none) for every line that is not blank."""
    try:
        for row in choose("sources", {"name": "jsonl", "path": str(path)})():
            where = f"line {row.where.rpartition(':')[2]}"
            yield where, row if isinstance(row, Bad) else row.fields
    except DataError as error:
        yield "the file", Bad(str(path), error.message)


def _as_row(example: Example) -> dict[str, Any]:
    rejected = example.meta.get("rejected")
    row: dict[str, Any] = {"messages": [message.as_dict() for message in example.messages]}
    return row | ({"meta": {"rejected": rejected.as_dict()}} if rejected else {})
