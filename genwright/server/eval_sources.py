"""Eval sources: where the items of a run come from, and what a model is asked of each; OpenAI's data sources.

A run reads its items once, into a file of its own, so that they stay the same however often it is taken up again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field
from sqlalchemy.orm import Session

from .conversation import Metadata, ResponseFormat, Seed, Strict
from .graders import Effort, Model, Said
from .json_lines import MOST_LINES, Lines, look_through
from .routes.chat import Tool
from .routes.responses import ResponseTool, TextConfig
from .store.documents import kept
from .templates import Missing, found, rendered
from .wire import check_depth

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
_LONGEST = 1_000_000  # bytes of a line
_TURN = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal")


class Row(Strict):
    item: dict[str, Any]
    sample: dict[str, Any] | None = None


class Content(Strict):
    """Items in the request itself."""

    type: Literal["file_content"]
    content: list[Row] = Field(min_length=1, max_length=MOST_LINES)


class Uploaded(Strict):
    """An uploaded file (purpose `evals`) with {"item": {…}} on each line, and perhaps a `sample`."""

    type: Literal["file_id"]
    id: str = Field(min_length=1, max_length=200)


class Kept(Strict):
    """Which answers that were kept."""

    created_after: int | None = Field(None, ge=0, lt=2**62)
    created_before: int | None = Field(None, ge=0, lt=2**62)
    metadata: Metadata | None = None
    model: Model | None = None


class StoredCompletions(Kept):
    """Chat completions that were kept (`store`)."""

    type: Literal["stored_completions"]
    limit: int | None = Field(None, ge=1, le=MOST_LINES)


class StoredResponses(Kept):
    """Responses that were kept."""

    type: Literal["responses"]
    instructions_search: str | None = Field(None, max_length=10_000)
    temperature: float | None = None
    top_p: float | None = None


class Prompt(Strict):
    """Messages whose places are filled in from the item."""

    type: Literal["template"]
    template: list[Said] = Field(min_length=1, max_length=1000)


class Reference(Strict):
    """Messages that stand in the item, as `item.messages`."""

    type: Literal["item_reference"]
    item_reference: str = Field(pattern=r"^item\.", max_length=500)


Messages = Annotated[Prompt | Reference, Field(discriminator="type")]


class Sampling(Strict):
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: Seed | None = None
    reasoning_effort: Effort | None = None  # accepted; changes no answer here


class ChatSampling(Sampling):
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=128)


class ResponseSampling(Sampling):
    text: TextConfig | None = None
    tools: list[ResponseTool] | None = Field(None, max_length=128)


class JsonLines(Strict):
    """Items whose answers are there already, or that are judged alone."""

    type: Literal["jsonl"]
    source: Annotated[Content | Uploaded, Field(discriminator="type")]


class Completions(Strict):
    """Items that `model` answers as a chat; without a model, kept answers are judged as they are."""

    type: Literal["completions"]
    source: Annotated[Content | Uploaded | StoredCompletions, Field(discriminator="type")]
    input_messages: Messages | None = None
    model: Model | None = None
    sampling_params: ChatSampling | None = None


class Responses(Strict):
    """The same by way of /v1/responses."""

    type: Literal["responses"]
    source: Annotated[Content | Uploaded | StoredResponses, Field(discriminator="type")]
    input_messages: Messages | None = None
    model: Model | None = None
    sampling_params: ResponseSampling | None = None


Source = Annotated[JsonLines | Completions | Responses, Field(discriminator="type")]


# -- what a model is asked ---------------------------------------------------------------------------------------------


def question(source: Completions | Responses, item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(path, body) of what the model is asked of an item. Raises Missing."""
    said = _messages(source.input_messages or Reference(type="item_reference", item_reference="item.input"), item)
    given = source.sampling_params.model_dump(exclude_none=True, by_alias=True) if source.sampling_params else {}
    body = {"model": source.model, **given}
    if isinstance(source, Completions):
        turns = [{key: one[key] for key in _TURN if one.get(key) is not None} for one in said]
        return CHAT, body | {"messages": turns}
    if "max_completion_tokens" in body:
        body["max_output_tokens"] = body.pop("max_completion_tokens")
    body.pop("reasoning_effort", None)
    return RESPONSES, body | {"input": said, "store": False}


def _messages(asked: Prompt | Reference, item: dict[str, Any]) -> list[dict[str, Any]]:
    names = {"item": item}
    if isinstance(asked, Prompt):
        return [{"role": said.role, "content": rendered(said.text("content"), names)} for said in asked.template]
    value = found(asked.item_reference, names)
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return value
    raise Missing(f"{asked.item_reference!r} is neither a text nor a list of messages.")


# -- the items ---------------------------------------------------------------------------------------------------------


def write_rows(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """A file of lines, there only when it is whole."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_kept(
    session: Session, source: StoredCompletions | StoredResponses, owner: str, until: int, path: Path
) -> None:  # fmt: skip
    """The kept answers that a source names, oldest first, as a file of lines."""
    limit = source.limit if isinstance(source, StoredCompletions) else None
    write_rows(islice(_stored(session, source, owner, until), limit or MOST_LINES), path)


def _stored(session: Session, source: Any, owner: str, until: int) -> Iterator[dict[str, Any]]:
    whole = isinstance(source, StoredCompletions)
    for body in kept(session, "chat.completion" if whole else "response", owner):
        answer = body if whole else body["response"]
        made = answer["created"] if whole else answer["created_at"]
        fits = (
            made <= until and (source.created_after or 0) <= made <= (source.created_before or until)
            and (source.model is None or answer["model"] == source.model)
            and (answer.get("metadata") or {}).items() >= (source.metadata or {}).items()
            and (whole or _is_such(answer, source))
        )  # fmt: skip
        if fits:
            item = {"id": answer["id"], "model": answer["model"], "input": body["input"],
                    "metadata": answer.get("metadata") or {}}  # fmt: skip
            yield {"item": item if whole else item | {"instructions": answer["instructions"]}, "sample": answer}


def _is_such(answer: dict[str, Any], source: StoredResponses) -> bool:
    return (
        answer["status"] in ("completed", "incomplete")
        and (source.instructions_search or "") in (answer["instructions"] or "")
        and all(getattr(source, name) in (None, answer[name]) for name in ("temperature", "top_p"))
    )


def read_items(path: Path, check: Callable[[Any], str], *, needs_sample: bool) -> Lines:
    """Look through the items; `problems` says with line numbers what is wrong with them."""

    def look(lines: Lines, number: int, row: dict[str, Any]) -> None:
        if lines.ends[-1] - lines.starts[-1] > _LONGEST:
            lines.object(number, "item_too_large", f"The line is longer than {_LONGEST:,} bytes.")
            return
        try:
            check_depth(row)
        except ValueError as error:
            lines.object(number, "invalid_item", f"The line cannot be used: {error}.")
            return
        if not isinstance(row.get("item"), dict):
            lines.object(number, "invalid_item", '`item` must be an object: {"item": {…}}.', "item")
        elif wrong := check(row["item"]):
            lines.object(number, "invalid_item", f"The item is not as the item schema wants it: {wrong}", "item")
        if row.get("sample") is not None and not isinstance(row["sample"], dict):
            lines.object(number, "invalid_sample", "`sample` must be an object.", "sample")
        elif needs_sample and not row.get("sample"):
            lines.object(number, "missing_sample", "There is no `sample`, which a criterion reads.", "sample")

    lines = look_through(path, look)
    if lines.ended_early:
        lines.object(None, "too_many_items", f"A run may have {MOST_LINES:,} items; this file has more.")
    if not len(lines):
        lines.object(None, "no_items", "There are no items.")
    return lines
