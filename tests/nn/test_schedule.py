"""Which rows make a step, and how fast it learns: pure functions of sizes, seed and settings."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from genwright.core.recipe import Train
from genwright.nn.schedule import Plan, learning_rate

from .tiny import settings

SIZES = np.random.default_rng(0).integers(1, 50, 200)


def plan(**changes: object) -> Plan:
    seed = changes.pop("seed", 0)
    return Plan(SIZES, settings(**{"tokens_per_batch": 100, "epochs": 2, **changes}), seed=seed)  # type: ignore[arg-type]


def test_each_epoch_takes_every_row_once_in_another_order() -> None:
    made = plan()
    steps = [made.rows(step) for step in range(made.steps)]
    first, second = (np.concatenate(part).tolist() for part in (steps[: made.starts[1]], steps[made.starts[1] :]))
    assert sorted(first) == sorted(second) == list(range(200))
    assert first != second


def test_a_step_holds_as_many_slots_as_fit_and_no_more() -> None:
    made = plan()
    filled = [int(SIZES[made.rows(step)].sum()) for step in range(made.starts[1])]
    assert max(filled) <= 100
    assert min(filled[:-1]) > 50
    assert [SIZES[made.rows(s)].sum() for s in range(3)] == filled[:3]  # asked again, out of order
    assert all(len(Plan([500, 3], settings(tokens_per_batch=10), seed=0).rows(s)) == 1 for s in (0, 1))


def test_the_plan_follows_the_seed_and_nothing_else() -> None:
    a, b, other = plan(), plan(), plan(seed=1)
    rows = [[p.rows(s).tolist() for s in reversed(range(p.steps))] for p in (a, b)]
    assert rows[0] == rows[1]
    assert a.rows(0).tolist() != other.rows(0).tolist()


def test_rows_per_batch_counts_rows() -> None:
    made = plan(rows_per_batch=16)
    assert {len(made.rows(s)) for s in range(made.steps)} == {16, 200 % 16}
    assert made.steps == 2 * math.ceil(200 / 16)


def test_epochs_may_be_a_fraction_and_max_steps_ends_it() -> None:
    whole = plan(epochs=1).steps
    assert plan(epochs=0.5).steps == round(whole / 2)
    assert plan(epochs=1.5).steps == whole + round((plan().steps - whole) / 2)
    assert plan(epochs=0.0001).steps == 1
    assert plan(max_steps=7).steps == 7
    assert plan(max_steps=7, epochs=10_000_000.0).steps == 7
    alone = Plan(SIZES, Train(rows_per_batch=10, max_steps=70), seed=0)
    assert (alone.steps, alone.epoch(70)) == (70, 3.5)
    assert plan().epoch(0) == 0
    assert plan().epoch(plan().steps) == 2
    assert plan().epoch(plan().starts[1]) == 1


def test_rates_rise_in_the_warm_up_and_fall_to_the_floor() -> None:
    def rates(**changes: object) -> list[float]:
        chosen = settings(learning_rate=1.0, **changes)
        return [learning_rate(step, 100, chosen) for step in range(100)]

    for shape in ("constant", "linear", "cosine", "inverse_sqrt", "wsd"):
        by_share, by_steps = rates(schedule=shape, warmup=0.1), rates(schedule=shape, warmup=10.0)
        assert by_share == by_steps
        assert by_share[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
        assert max(by_share) <= 1
        floored = rates(schedule=shape, warmup=0.1, min_learning_rate=0.25)
        assert min(floored[10:]) >= 0.25
        assert all(a >= b - 1e-12 for a, b in pairwise(by_share[10:]))
    assert rates(schedule="constant", warmup=0.0) == [1.0] * 100
    assert rates(schedule="linear", warmup=0.0)[50] == pytest.approx(0.5)
    assert rates(schedule="cosine", warmup=0.0)[50] == pytest.approx(0.5)
    assert rates(schedule="inverse_sqrt", warmup=4.0)[15] == pytest.approx(0.5)
    steady = rates(schedule="wsd", warmup=0.0)
    assert steady[:80] == [1.0] * 80
    assert steady[85] == pytest.approx(1 - math.sqrt(0.25))
    assert steady[99] < 0.03
