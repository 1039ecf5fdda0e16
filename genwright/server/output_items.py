"""Output items: what a run of an eval tells of one item, in OpenAI's shape, where every field has a value.

Where nothing was said of sampling, the model's own defaults stood, and what is shown are the server's (greedy, 256
tokens). A text of an `error` is empty when there was none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from genwright.core import Request

from . import eval_sources
from .conversation import words
from .errors import Wrong
from .eval_sources import JsonLines, Source
from .grading import sample_names
from .store.tables import Job
from .templates import Missing
from .wire import now

_NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "cached_tokens": 0}


def output_item(
    job: Job, place: int, row: dict[str, Any], source: Source, answer: dict[str, Any] | None,
    results: Sequence[dict[str, Any]], error: str,
) -> dict[str, Any]:  # fmt: skip
    """`eval.run.output_item` of the item at a place. `answer` is what the model gave, None where none was asked;
    `error` says why there are no results."""
    status = "pass" if all(one["passed"] for one in results) else "fail"
    if error or any("error" in one for one in results):
        status = "error"
    return {
        "object": "eval.run.output_item", "id": f"outputitem_{job.id.removeprefix('evalrun_')}_{place}",
        "created_at": now(), "run_id": job.id, "eval_id": job.payload["eval_id"], "status": status,
        "datasource_item_id": place, "datasource_item": row["item"], "results": list(results),
        "sample": _sample(row, source, answer, error),
    }  # fmt: skip


def api_error(message: str = "", code: str = "") -> dict[str, str]:
    """OpenAI's clients read an object here also where there is no error."""
    return {"code": code, "message": message}


def _sample(row: dict[str, Any], source: Source, answer: dict[str, Any] | None, error: str) -> dict[str, Any]:
    said = {} if isinstance(source, JsonLines) or not source.sampling_params else source.sampling_params.model_dump()
    asked = None if isinstance(source, JsonLines) else source.model
    body = answer["body"] if answer and answer["status"] < 400 else None if asked else row.get("sample")
    text = str(sample_names(body)["output_text"]) if body else ""
    defaults = {name: Request.model_fields[name].default for name in ("temperature", "top_p", "max_new_tokens")}

    def chosen(name: str, default: Any) -> Any:
        return default if said.get(name) is None else said[name]

    return {
        "model": str((body or {}).get("model") or asked or ""), "input": _input(row, source),
        "output": [{"role": "assistant", "content": text}] if body else [], "finish_reason": _finish(body or {}),
        "error": api_error(error, "sample_error" if error else ""), "usage": answer["usage"] if answer else _NO_USAGE,
        "temperature": chosen("temperature", defaults["temperature"]), "top_p": chosen("top_p", defaults["top_p"]),
        "max_completion_tokens": chosen("max_completion_tokens", defaults["max_new_tokens"]),
        "seed": chosen("seed", 0),
    }  # fmt: skip


def _input(row: dict[str, Any], source: Source) -> list[dict[str, str]]:
    """The messages that were answered, each as a text."""
    messages: Any = row["item"].get("input") if not isinstance(source, JsonLines) else []
    if not isinstance(source, JsonLines) and source.model:
        try:
            _, body = eval_sources.question(source, row["item"])
        except Missing:
            return []
        messages = body.get("messages") or body.get("input")
    if not isinstance(messages, list):
        return []
    return [{"role": str(one.get("role") or one.get("type") or "user"), "content": _text(one)} for one in messages
            if isinstance(one, dict)]  # fmt: skip


def _text(message: dict[str, Any]) -> str:
    try:
        return words(message.get("content"), "content")
    except (Wrong, TypeError, AttributeError):  # it is no text, or none of ours
        return orjson.dumps(message).decode()


def _finish(body: dict[str, Any]) -> str:
    choices, incomplete = body.get("choices"), body.get("incomplete_details")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return str(choices[0].get("finish_reason") or "")
    reason = incomplete.get("reason") if isinstance(incomplete, dict) else None
    if reason:
        return "length" if reason == "max_output_tokens" else str(reason)
    return "stop" if body.get("status") == "completed" else ""
