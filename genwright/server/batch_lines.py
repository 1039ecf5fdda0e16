"""Batch lines: an uploaded file of requests, checked line by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .json_lines import MOST_LINES, Lines, look_through

NO_MODEL = ("/v1/moderations",)  # endpoints that are answered by guards
_LONGEST_ID = 512


def check_lines(path: Path, endpoint: str) -> Lines:
    """Read a whole file; its `problems` are empty when every line can be asked."""
    seen = set[str]()
    lines = look_through(path, lambda lines, number, asked: _check_line(lines, number, asked, endpoint, seen))
    if lines.ended_early:
        lines.object(None, "too_many_requests", f"A batch may hold {MOST_LINES:,} requests; this file has more.")
    if not len(lines):
        lines.object(None, "empty_file", "The file holds no request.")
    if len(lines.models) > 1:
        lines.object(None, "mismatched_model", f"A batch asks one model; this one names {', '.join(lines.models)}.",
                     "body.model")  # fmt: skip
    return lines


def _check_line(lines: Lines, number: int, asked: dict[str, Any], endpoint: str, seen: set[str]) -> None:
    id, body = asked.get("custom_id"), asked.get("body")
    if not isinstance(id, str) or not 0 < len(id) <= _LONGEST_ID:
        lines.object(number, "invalid_custom_id", f"`custom_id` must be a text of 1 to {_LONGEST_ID} characters.",
                     "custom_id")  # fmt: skip
    elif id in seen:
        lines.object(number, "duplicate_custom_id", f"The custom_id {id[:100]!r} is used twice.", "custom_id")
    else:
        seen.add(id)
    if asked.get("method", "POST") != "POST":
        lines.object(number, "invalid_method", "`method` must be POST.", "method")
    if asked.get("url") != endpoint:
        lines.object(number, "mismatched_url", f"`url` must be the batch's endpoint, {endpoint}.", "url")
    if not isinstance(body, dict):
        lines.object(number, "missing_required_parameter", "`body` must be an object.", "body")
    elif body.get("stream"):
        lines.object(number, "unsupported_parameter", "Answers of a batch cannot be streamed.", "body.stream")
    elif endpoint in NO_MODEL:
        pass
    elif not isinstance(body.get("model"), str) or not body["model"]:
        lines.object(number, "missing_required_parameter", "`body` must name a `model`.", "body.model")
    else:
        lines.models[body["model"]] = None
