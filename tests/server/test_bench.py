"""The load generator, against a server whose pace is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genwright.core import ModelError, UsageError
from genwright.verbs.bench import bench

from .local import Says, served


@pytest.fixture(autouse=True)
def _own_ledger(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))


def test_it_measures_the_pace_that_the_model_has() -> None:
    model = Says(["word "] * 6, pause=0.02)
    model.parallel = 2  # type: ignore[attr-defined]
    with served(model, queue=8) as address:
        found = bench(address, streams=2, seconds=1.0)
    assert found["model"] == "tiny"
    assert found["errors"] == {}
    assert 10 < found["whole_answers"] <= 20  # two streams, 0.12 s an answer
    assert 20 <= found["gap_ms"]["p50"] < 35
    assert found["first_ms"]["p50"] >= 20
    assert found["tokens_per_second"] == pytest.approx(found["tokens"], rel=0.01)
    assert 60 < found["tokens"] <= 100
    assert model.most == 2
    starts = {request.messages[-1].text for request in model.asked}
    assert len(starts) == len(model.asked)  # no cache of prefixes answers


def test_errors_are_counted_by_kind_and_not_as_answers() -> None:
    with served(Says(["a"], pause=0.05), queue=0) as address:
        found = bench(address, streams=4, seconds=0.5)
    assert found["errors"]["HTTP 429"] >= 3
    with served(Says([], fails=ModelError("It broke."))) as address:
        found = bench(address, streams=1, seconds=0.3)
    assert set(found["errors"]) == {"HTTP 503"}
    assert (found["requests"], found["first_ms"], found["tokens"]) == (0, None, 0)


def test_what_cannot_be_measured_is_said_at_once() -> None:
    with pytest.raises(ModelError, match="lists no model"):
        bench("http://127.0.0.1:9/v1")
    for wrong in ("ftp://x", "http://", "http://x:99999999"):
        with pytest.raises(UsageError, match="no address"):
            bench(wrong)
    with pytest.raises(UsageError, match="at least one stream"):
        bench("http://127.0.0.1:9", streams=0)
