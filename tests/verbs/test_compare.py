"""Two runs side by side: differences in pairs on the rows that both answered."""

import os
import sys

import pytest

from genwright.core import Dataset, Run
from genwright.verbs.compare import compare
from genwright.verbs.evaluate import evaluate

sys.path.insert(0, os.path.dirname(__file__))
from ngram_model import NgramModel
from test_evaluate import GENERAL, HELD_OUT, OTHER, TRAIN, recipe


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))


def a_run(tmp_path, name, taught, *, held_out=HELD_OUT, **fields):
    asked = recipe(name=name, **fields)
    run = Run.create(asked, tmp_path / name)
    TRAIN.save(run.data / "train.jsonl")
    for step in (1, 2, 2):
        run.log("step", step=step, loss=3.0 - len(taught) / 100 - step / 10, seconds=1.5)
    run.log("look", step=2, held_out_loss=2.0)
    run.model.mkdir()
    (run.model / "weights").write_bytes(b"x" * 10)
    evaluate(NgramModel([*OTHER, *taught]), held_out, asked, train=TRAIN, general=GENERAL, folder=run.folder)
    return run


def test_scores_are_paired_on_the_same_rows(tmp_path):
    few, many = a_run(tmp_path, "few", list(TRAIN)[:4]), a_run(tmp_path, "many", TRAIN)
    found = compare(few, many)
    by = {row["metric"]: row for row in found["scores"]}
    assert list(by) == ["perplexity", "chrf", "exact_match", "forgetting"]
    assert by["exact_match"]["b"] == 1
    assert by["exact_match"]["difference"] == pytest.approx(1 - by["exact_match"]["a"])
    assert by["exact_match"]["low"] > 0
    assert by["exact_match"]["verdict"] == "better"
    assert (by["exact_match"]["rows"], by["perplexity"]["rows"], by["forgetting"]["rows"]) == (12, 20, 2)
    assert "general:tiny" in by["forgetting"]["signature"]
    assert found["loss"]["training"] == (pytest.approx(2.76), pytest.approx(2.4))
    assert found["seconds"] == (3.0, 3.0)
    assert found["bytes"] == (10, 10)


def test_a_run_beside_itself_differs_by_nothing(tmp_path):
    run = a_run(tmp_path, "one", TRAIN)
    found = compare(run, run)
    assert found["recipe"] == {}
    assert all(row["difference"] == 0 and row["verdict"] == "no clear difference" for row in found["scores"])


def test_recipes_differ_by_dotted_keys_with_defaults_filled_in(tmp_path):
    one = Run.create(recipe(), tmp_path / "one")
    two = Run.create(recipe(train={"learning_rate": 1e-3}, method={"name": "lora", "rank": 4}, seed=2, name="other"),
                     tmp_path / "two")  # fmt: skip
    found = compare(one, two)
    assert found["recipe"]["train.learning_rate"] == (2e-4, 1e-3)
    assert found["recipe"]["seed"] == (0, 2)
    assert found["recipe"]["method.rank"][1] == 4
    assert found["recipe"]["method.rank"][0] is not None
    assert set(found["recipe"]) == {"train.learning_rate", "seed", "method.rank"}
    assert found["scores"] == []
    assert len(found["notes"]) == 2


def test_runs_judged_on_other_rows_are_not_compared(tmp_path):
    half = Dataset(list(HELD_OUT)[:10])
    rest = Dataset(list(HELD_OUT)[10:])
    found = compare(a_run(tmp_path, "a", TRAIN, held_out=half), a_run(tmp_path, "b", TRAIN, held_out=rest))
    assert found["scores"] == []
    assert "different rows" in found["notes"][0]


def test_rows_common_to_both_are_compared_and_counted(tmp_path):
    found = compare(a_run(tmp_path, "a", TRAIN, held_out=Dataset(list(HELD_OUT)[:10])), a_run(tmp_path, "b", TRAIN))
    assert found["scores"][0]["rows"] == 10
    assert "10 rows are common to both" in found["notes"][0]


def test_a_metric_set_differently_is_named_and_left_out(tmp_path):
    a = a_run(tmp_path, "a", TRAIN, metrics=["bleu"])
    b = a_run(tmp_path, "b", TRAIN, metrics=[{"name": "bleu", "lowercase": True}])
    found = compare(a, b)
    assert [row["metric"] for row in found["scores"]] == ["forgetting"]
    assert "bleu was set differently" in found["notes"][0]
