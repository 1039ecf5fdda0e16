"""A file of rows answered: in order, labelled, and nothing done twice after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genwright.core import DataError, UsageError
from genwright.executors import local
from genwright.verbs.answer_file import answer_file
from tests.formats.tiny import SENTENCES, tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any) -> Path:
    return tiny_run(tmp_path_factory.mktemp("run"), teach=True).folder


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_answered_in_order_whatever_its_shape(run: Path, tmp_path: Path) -> None:
    rows = _write(tmp_path / "rows.jsonl", [
        {"prompt": SENTENCES[0], "id": 7},
        {"messages": [{"role": "user", "content": SENTENCES[1]}, {"role": "assistant", "content": "left out"}]},
        "{broken",
        {"question": SENTENCES[2], "answer": "left out too"},
        "[1]",
    ])  # fmt: skip
    found = answer_file(run, rows, tmp_path / "out" / "answers.jsonl", options={"max_new_tokens": 60})
    assert found == {"rows": 5, "answered": 3, "refused": 0, "unreadable": 2}
    answers = _read(tmp_path / "out" / "answers.jsonl")
    assert [row.get("answer") for row in answers] == [SENTENCES[1], SENTENCES[2], None, SENTENCES[3], None]
    assert answers[0]["id"] == 7
    assert answers[0]["finish_reason"] == "stop"
    assert answers[2]["row"] == "{broken"
    assert "no object" in answers[4]["error"]
    label = json.loads((tmp_path / "out" / "answers.jsonl.genwright.json").read_text())
    assert label["AIGC"]["Label"] == "1"
    assert label["provenance"]["checkpoint"] or label["provenance"]["recipe"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["answers.jsonl", "answers.jsonl.genwright.json"]


def test_a_killed_call_goes_on_with_the_parts_that_are_missing(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    rows = _write(tmp_path / "rows.jsonl", [{"prompt": f"{n} {SENTENCES[n % 4]}"} for n in range(200)])
    ask: dict[str, Any] = {"options": {"max_new_tokens": 4}}
    whole = answer_file(run, rows, tmp_path / "whole.jsonl", **ask)
    spread, seen = local.spread, list[int]()

    def dies(open_worker: Callable[[], Any], parts: Any, settings: Any) -> Iterator[Any]:
        for done, part in zip(spread(open_worker, parts, settings), parts, strict=True):
            seen.append(part["number"])
            yield done
            if len(seen) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(local, "spread", dies)
    with pytest.raises(KeyboardInterrupt):
        answer_file(run, rows, tmp_path / "out.jsonl", **ask)
    assert not (tmp_path / "out.jsonl").exists()
    assert answer_file(run, rows, tmp_path / "out.jsonl", **ask) == whole
    assert seen == [0, 1, 2, 3]
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_refused_row_says_so_and_the_others_are_answered(run: Path, tmp_path: Path) -> None:
    rows = _write(tmp_path / "rows.jsonl", [{"prompt": "say forbidden"}, {"prompt": SENTENCES[0]}])
    guard = {"name": "keywords", "words": ["forbidden"], "action": "block"}
    found = answer_file(run, rows, tmp_path / "out.jsonl", guards=[guard], options={"max_new_tokens": 60})
    assert found == {"rows": 2, "answered": 1, "refused": 1, "unreadable": 0}
    first, second = _read(tmp_path / "out.jsonl")
    assert (first["answer"], first["refused"], first["finish_reason"]) == ("", "keywords", "content_filter")
    assert second["answer"] == SENTENCES[1]


def test_what_cannot_be_read_or_spread_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        answer_file(run, tmp_path / "no.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="is empty"):
        answer_file(run, _write(tmp_path / "rows.jsonl", []), tmp_path / "out.jsonl")
    with pytest.raises(ValueError, match="executors"):
        answer_file(run, _write(tmp_path / "rows.jsonl", [{"prompt": "x"}]), tmp_path / "out.jsonl", executor="moon")
