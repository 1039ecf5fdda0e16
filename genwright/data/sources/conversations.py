"""Conversations in ShareGPT, OpenAI or Alpaca form, also a folder with LLaMA-Factory's dataset_info.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import Field

from genwright.core import Bad, DataError, FilePath, Row, did_you_mean
from genwright.core import Settings as Base
from genwright.data.arrow import parquet_rows
from genwright.data.files import decoded, find_files, must_exist
from genwright.data.json_rows import json_rows


class Settings(Base):
    path: FilePath = Field(description="A file, or a folder with dataset_info.json or with .json and .jsonl files")
    entry: str = Field("", description="Which entry of dataset_info.json; needed when it has several")
    formatting: Literal["", "sharegpt", "alpaca", "openai"] = Field(
        "", description="Form of the rows; empty is what the entry says, or each row's own"
    )
    columns: dict[str, str] = Field({}, description="{our name: their column}, as in dataset_info.json")
    tags: dict[str, str] = Field(
        {}, description="Names inside a turn, as in dataset_info.json: role_tag, content_tag, user_tag, assistant_tag …"
    )


_COLUMNS = {"alpaca": {"prompt": "instruction", "query": "input", "response": "output", "history": "history"}}
_TURN_TAGS = {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system", "observation_tag": "tool",
              "function_tag": "assistant"}  # fmt: skip


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Raises DataError when the entry is not there, has no file or points outside its folder."""
    path, entry = settings.path, dict[str, Any]()
    info = path / "dataset_info.json"
    if must_exist(path).is_dir() and info.is_file():
        entry = _entry(info, settings.entry)
        path = (path / str(entry["file_name"])).resolve()
        if not path.is_relative_to(info.parent.resolve()):
            raise DataError(f"{info} points outside its folder: {path}.", "Give that file itself as `path`.")
    elif settings.entry:
        raise DataError(f"There is no {info} to find the entry {settings.entry!r} in.", "Leave `entry` out.")
    tags = {**entry.get("tags", {}), **settings.tags}
    formatting = settings.formatting or entry.get("formatting", "alpaca" if entry else "")
    columns = {**_COLUMNS.get(formatting, {}), **entry.get("columns", {}), **settings.columns}
    include = ("*.json", "*.jsonl", "*.parquet") if entry else ("*.json", "*.jsonl")
    for file in find_files(path, include):
        if isinstance(file, Bad):
            yield file
            continue
        for row in parquet_rows(file) if file.suffix == ".parquet" else json_rows(file):
            if isinstance(row, Bad) or not (columns or tags or formatting):
                yield row
            else:
                yield _told(row, formatting, columns, tags, bool(entry.get("ranking")))


def _entry(info: Path, name: str) -> dict[str, Any]:
    text = decoded(info.read_bytes(), info.name)
    try:
        entries = orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError as error:
        raise DataError(f"{info} is not JSON: {error}", "Mend it, or give the data file itself as `path`.") from None
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{info} is no mapping of names to entries.", "Give the data file itself as `path`.")
    if not name and len(entries) > 1:
        raise DataError(f"{info} has several entries.", f"Choose one by `entry`: {', '.join(sorted(entries)[:30])}.")
    entry = entries.get(name or next(iter(entries)))
    if not isinstance(entry, dict):
        raise DataError(f"There is no entry {name!r} in {info}.", did_you_mean(name, entries))
    if "file_name" not in entry:
        hub = entry.get("hf_hub_url")
        hint = f"Use `source: hub, dataset: {hub}`." if hub else "Only entries with a file_name can be read here."
        raise DataError(f"The entry {name!r} of {info} names no file.", hint)
    return entry


def _told(row: Row, formatting: str, columns: Mapping[str, str], tags: Mapping[str, str], ranking: bool) -> Row | Bad:
    """A row in a form that rows are known by, from columns and tags of its own."""
    fields = row.fields
    told = {ours: fields[theirs] for ours, theirs in columns.items() if theirs in fields}
    for name in ("images", "audios", "system"):
        if name in fields:
            told.setdefault(name, fields[name])
    if formatting == "alpaca" or (not formatting and "prompt" in columns):
        names = {"prompt": "instruction", "query": "input", "response": "output"}
        told = {names.get(name, name): value for name, value in told.items()}
        if ranking or ("chosen" in told and "rejected" in told):
            asked = "\n".join(str(told[name]) for name in ("instruction", "input") if told.get(name))
            told = {"prompt": asked, **{name: told[name] for name in ("system", "chosen", "rejected") if name in told}}
        return Row(row.where, told)
    name = columns.get("messages", "messages" if "messages" in fields else "conversations")
    if not isinstance(fields.get(name), list):
        return Bad(row.where, f"`{name}` is no list of turns", str(fields)[:300])
    told["messages"] = [_turn(turn, tags) for turn in fields[name]]
    for answer in ("chosen", "rejected"):
        if answer in told:
            told[answer] = _turn(told[answer], tags)
    if "kto_tag" in told:
        told["label"] = told.pop("kto_tag")
    if isinstance(told.get("system"), str) and told["system"]:
        told["messages"] = [{"role": "system", "content": told.pop("system")}, *told["messages"]]
    return Row(row.where, told)


def _turn(turn: Any, tags: Mapping[str, str]) -> Any:
    if not isinstance(turn, dict):
        return turn
    role = turn.get(tags["role_tag"]) if "role_tag" in tags else turn.get("role", turn.get("from"))
    words = turn.get(tags["content_tag"]) if "content_tag" in tags else turn.get("content", turn.get("value"))
    named = {tags[tag]: ours for tag, ours in _TURN_TAGS.items() if tag in tags}
    return {"role": named.get(role, role) if isinstance(role, str) else role, "content": words}
