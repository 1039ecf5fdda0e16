"""A crew of processes learns what one process learns, whatever its size, and goes on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genwright.nn.crew import Crew
from tests.executors.crew import DEAD, crew, teach


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    return found


def test_a_crew_learns_what_one_learns_also_when_one_is_killed_and_others_go_on(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    teach(0, 1, alone, -1, {})
    assert crew(together, 2, dies_at=7) == [1, DEAD]  # step 4 was written; the other does not go on as if nothing were
    assert crew(together, 3) == [0, 0, 0]  # of two rows a step, so somebody has none
    one, three = facts(alone), facts(together)
    assert len(one["losses"]) == one["steps"] == 40
    assert three["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert three["resumed_from"] == 4
    assert one["passes"] == [1] * 40
    assert three["passes"] == [2] * 40
    for key in ("steps", "supervised", "real", "slots", "looks"):
        assert three[key] == one[key]
    for key in ("held_out_first", "held_out_last"):
        assert three[key] == pytest.approx(one[key], rel=1e-5)
    np.testing.assert_allclose(_weights(together, 0), _weights(alone, 0), atol=2e-5)
    assert _weights(together, 0).tobytes() == _weights(together, 1).tobytes() == _weights(together, 2).tobytes()


def test_a_killed_crew_of_the_same_size_ends_bit_equal_also_with_dropout(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert crew(whole, 2, dropout=0.2, max_steps=12) == [0, 0]
    assert crew(killed, 2, dies_at=7, dropout=0.2, max_steps=12) == [1, DEAD]
    assert crew(killed, 2, dropout=0.2, max_steps=12) == [0, 0]
    assert facts(killed)["resumed_from"] == 4
    assert facts(killed)["losses"] == facts(whole)["losses"]
    assert _weights(killed, 0).tobytes() == _weights(whole, 0).tobytes()


def _weights(folder: Path, rank: int) -> np.ndarray:
    found: np.ndarray = np.load(folder / f"weights-{rank}.npy")
    return found


def test_rows_are_dealt_out_once_each_and_evenly() -> None:
    sizes = np.random.default_rng(0).integers(1, 500, 200)
    shares = [Crew(rank, 3).share(sizes) for rank in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(200))
    loads = [int(sizes[share].sum()) for share in shares]
    assert max(loads) - min(loads) < 20
    assert Crew().share(sizes).tolist() == list(range(200))
    assert len(Crew(2, 3).share(np.array([5, 4]))) == 0
