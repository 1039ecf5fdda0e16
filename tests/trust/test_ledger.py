"""The ledger: a later change shows, several writers take turns, a killed writer harms nothing."""

import json
import multiprocessing
from itertools import pairwise
from pathlib import Path

import pytest

from genwright.core import GenwrightError
from genwright.trust.ledger import Ledger, verify


def _filled(path: Path, rows: int = 5) -> list[bytes]:
    ledger = Ledger(path)
    for number in range(rows):
        ledger.append("answer", what=f"row {number}")
    return path.read_bytes().splitlines(keepends=True)


def test_rows_are_chained_and_verify(tmp_path):
    lines = _filled(tmp_path / "l.jsonl")
    rows = [json.loads(line) for line in lines]
    assert [row["n"] for row in rows] == [1, 2, 3, 4, 5]
    assert all(after["previous"] == before["hash"] for before, after in pairwise(rows))
    assert verify(tmp_path / "l.jsonl").ok


@pytest.mark.parametrize("row", [1, 2, 3, 4, 5])
def test_an_edited_row_is_named(tmp_path, row):
    path = tmp_path / "l.jsonl"
    lines = _filled(path)
    lines[row - 1] = lines[row - 1].replace(b"row ", b"raw ")
    path.write_bytes(b"".join(lines))
    found = verify(path)
    assert (found.ok, found.row) == (False, row)
    assert f"Row {row} was edited" in found.sentence


@pytest.mark.parametrize("row", [1, 2, 3, 4, 5])
def test_a_removed_row_is_named(tmp_path, row):
    path = tmp_path / "l.jsonl"
    lines = _filled(path)
    path.write_bytes(b"".join(lines[: row - 1] + lines[row:]))
    found = verify(path)
    assert (found.ok, found.row) == (False, row)
    assert "missing" in found.sentence


def test_a_row_rewritten_with_a_right_hash_breaks_the_chain(tmp_path):
    from genwright.trust.ledger import _line

    path = tmp_path / "l.jsonl"
    lines = _filled(path)
    row = json.loads(lines[2]) | {"what": "another"}
    del row["hash"]
    lines[2] = _line(row)[0]
    path.write_bytes(b"".join(lines))
    assert verify(path).row == 4  # row 4 does not follow the row before it any more


def test_the_last_row_rewritten_with_a_right_hash_does_not_fit_the_head(tmp_path):
    from genwright.trust.ledger import _line

    path = tmp_path / "l.jsonl"
    lines = _filled(path)
    row = json.loads(lines[-1]) | {"what": "another"}
    del row["hash"]
    path.write_bytes(b"".join(lines[:-1]) + _line(row)[0])
    assert verify(path).row == 5


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_torn_last_line_is_mended_by_the_next_writer(tmp_path, cut):
    path = tmp_path / "l.jsonl"
    lines = _filled(path)
    path.write_bytes(b"".join(lines) + lines[-1][:-cut])
    assert verify(path).ok
    assert "torn" in verify(path).sentence
    Ledger(path).append("answer", what="after")
    rows = list(Ledger(path).rows())
    assert [row["event"] for row in rows] == ["answer"] * 5 + ["mended", "answer"]
    assert rows[5]["bytes"] == len(lines[-1]) - cut
    assert verify(path).ok


def test_only_a_torn_line_is_mended_too(tmp_path):
    path = tmp_path / "l.jsonl"
    path.write_bytes(b'{"n": 1, "ti')
    Ledger(path).append("answer")
    assert [row["event"] for row in Ledger(path).rows()] == ["mended", "answer"]
    assert verify(path).ok


def _write(path: Path, who: int, count: int) -> None:
    ledger = Ledger(path)
    for number in range(count):
        ledger.append("answer", who=who, number=number)


def test_several_processes_take_turns(tmp_path):
    path = tmp_path / "l.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, who, 25)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = list(Ledger(path).rows())
    assert len(rows) == 100
    assert verify(path).ok
    for who in range(4):
        assert [row["number"] for row in rows if row["who"] == who] == list(range(25))


def test_a_writer_killed_at_any_moment_leaves_a_sound_ledger(tmp_path):
    """Kill -9 in the middle of writing, 12 times; rows that were acknowledged are never lost."""
    import os
    import signal
    import time

    path = tmp_path / "l.jsonl"
    context = multiprocessing.get_context("fork")
    seen = 0
    for number in range(12):
        writer = context.Process(target=_write, args=(path, number, 10_000))
        writer.start()
        time.sleep(0.03 + 0.004 * number)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        Ledger(path).append("answer", who="after")
        found = verify(path)
        assert found.ok, found.sentence
        assert found.rows > seen
        seen = found.rows


def test_a_ledger_that_cannot_be_written_is_an_error_with_a_hint(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GenwrightError) as caught:
        Ledger(tmp_path / "file" / "l.jsonl").append("answer")
    assert "Nothing is answered without it" in caught.value.message
    assert caught.value.hint


def test_no_ledger_yet_is_no_fault(tmp_path):
    assert verify(tmp_path / "none.jsonl") == verify(tmp_path / "none.jsonl")
    assert verify(tmp_path / "none.jsonl").ok
