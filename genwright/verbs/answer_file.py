"""Answer file: every row of a JSON-lines file answered, here or by many workers, and nothing done twice.

The file is cut into parts at line ends. Whoever has answered a part writes it whole or not at all beside the output,
so a killed call goes on with the parts that are missing; at the end they are joined in order and labelled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from genwright.core import (
    SILENT,
    Chosen,
    DataError,
    Message,
    Provenance,
    Request,
    Tell,
    UsageError,
    choose,
    fingerprint,
    user,
    write_text,
)
from genwright.core.rows import example_messages, read_row

Part = dict[str, Any]  # {"number", "begin", "end" (bytes of the input), "rows"}
_PART = 64  # rows: what is lost at most with a worker


def answer_file(
    model: str | Path,
    rows: Path,
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    engine: str | None = None,
    guards: Sequence[str | Mapping[str, Any]] = (),
    executor: Chosen | str | Mapping[str, Any] = "local",
    tell: Tell = SILENT,
) -> dict[str, int]:
    """Answer each row of `rows` (prompt, messages, or any shape that training knows, whose answer is left out) and
    write it with its `answer` and `finish_reason` to `out`, in order; returns how many rows were answered and refused.

    `options` are fields of Request. A refused row has an empty answer and says which guard (`refused`). A row that
    cannot be read has an `error` instead. With an executor of many machines all of them must see both files.
    Raises DataError when there are no rows, UsageError when a file cannot be read or written, what the model raises.
    """
    chosen = executor if isinstance(executor, Chosen) else choose("executors", executor)
    if not hasattr(chosen.module, "spread"):
        raise UsageError(f"The executor {chosen.name} spreads no rows.", "Take local or ray.")
    rows, out = rows.resolve(), out.resolve()
    parts = _parts(rows)
    asked = {"model": str(model), "engine": engine, "guards": list(guards), "options": dict(options or {})}
    place = out.with_name(f".{out.name}.{fingerprint(asked, rows.stat().st_mtime_ns, parts)[:12]}.parts")
    place.mkdir(parents=True, exist_ok=True)
    todo = [part for part in parts if not _file(place, part["number"]).exists()]
    total = sum(part["rows"] for part in parts)
    tell.stage("Answering rows", total=total)
    tell.advance(total - sum(part["rows"] for part in todo))
    if todo:
        for done in chosen.module.spread(partial(_open, asked, rows, place), todo, chosen.settings):
            tell.advance(done)
    found = _joined(place, parts, out, tell)
    shutil.rmtree(place)
    return found


def _parts(rows: Path) -> list[Part]:
    parts: list[Part] = []
    try:
        with rows.open("rb") as file:
            begin = end = count = 0
            for line in file:
                end, count = end + len(line), count + 1
                if count == _PART:
                    parts.append({"number": len(parts), "begin": begin, "end": end, "rows": count})
                    begin, count = end, 0
    except OSError as error:
        raise UsageError(f"{rows} cannot be read: {error.strerror}.", "Is it the right file?") from None
    if count:
        parts.append({"number": len(parts), "begin": begin, "end": end, "rows": count})
    if not parts:
        raise DataError(f"{rows} is empty.", "One JSON object a line, with `prompt` or `messages`.")
    return parts


def _file(place: Path, number: int) -> Path:
    return place / f"{number:08d}.jsonl"


# -- what a worker does ------------------------------------------------------------------------------------------------


def _open(asked: dict[str, Any], rows: Path, place: Path) -> Callable[[Part], int]:
    """A worker: the model, opened once, which answers parts."""
    from .ask import open_answerer

    guards = [choose("guards", guard) for guard in asked["guards"]]
    answerer = open_answerer(asked["model"], engine=asked["engine"], guards=guards)
    write_text(place / "provenance.json", json.dumps({"provenance": answerer.provenance.as_dict(),
                                                      "marks": [m.as_dict() for m in answerer.marks]}))  # fmt: skip

    def work(part: Part) -> int:
        with rows.open("rb") as file:
            file.seek(part["begin"])
            lines = file.read(part["end"] - part["begin"]).splitlines()
        answered = b"".join(orjson.dumps(row) + b"\n" for row in _answered(answerer, lines, asked["options"]))
        write_text(_file(place, part["number"]), answered.decode())
        return int(part["rows"])

    return work


def _answered(answerer: Any, lines: Sequence[bytes], options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a part with their answers, in order."""
    from .generate import generate_many

    found = [_read(line) for line in lines if line.strip()]
    own = answerer.usual() | options
    asked = {number: Request(messages=answerer._framed(messages), **own)
             for number, (_, messages) in enumerate(found) if messages}  # fmt: skip
    order, answers = list(asked), dict[int, Message]()
    for index, message in generate_many(
        answerer.model, [asked[number] for number in order], guards=answerer.guards, provenance=answerer.provenance,
        model_name=answerer.name, purpose="answer",
    ):  # fmt: skip
        answers[order[index]] = message
    for number, (row, _) in enumerate(found):
        yield row | (_told(answers[number]) if number in answers else {})


def _read(line: bytes) -> tuple[dict[str, Any], tuple[Message, ...]]:
    """A row and what is asked in it; a row that cannot be read says why and asks nothing."""
    try:
        row = orjson.loads(line)
        if not isinstance(row, dict):
            raise ValueError("it is no object")
        if isinstance(row.get("prompt"), str):
            return row, (user(row["prompt"]),)
        messages = example_messages(row["messages"]) if "messages" in row else read_row(row)[0]
        asked = messages[:-1] if messages and messages[-1].role == "assistant" else messages
        if not asked:
            raise ValueError("it asks nothing")
        return row, asked
    except ValueError as error:
        return {"row": line.decode("utf-8", "replace")[:1000], "error": str(error)[:300]}, ()


def _told(message: Message) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    for part in message.parts:
        meta |= part.meta or {}
    refused = {"refused": meta["refused"], "rule": meta.get("rule", "")} if "refused" in meta else {}
    return {"answer": message.text, "finish_reason": meta.get("finish_reason", "content_filter" if refused else "stop"),
            **refused}  # fmt: skip


# -- the end -----------------------------------------------------------------------------------------------------------


def _joined(place: Path, parts: Sequence[Part], out: Path, tell: Tell) -> dict[str, int]:
    from .generate import write_labelled

    text = "".join(_file(place, part["number"]).read_text(encoding="utf-8") for part in parts)
    facts = json.loads((place / "provenance.json").read_text(encoding="utf-8"))
    marks = [choose("marks", mark) for mark in facts["marks"]]
    write_labelled(text, out, marks=marks, provenance=Provenance(**facts["provenance"]), tell=tell)
    rows = [orjson.loads(line) for line in text.splitlines()]
    refused, unreadable = (sum(name in row for row in rows) for name in ("refused", "error"))
    return {"rows": len(rows), "answered": len(rows) - refused - unreadable, "refused": refused,
            "unreadable": unreadable}  # fmt: skip
