"""Search: the best of some trials as a recipe, the same after an interruption, hopeless trials stopped early."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from genwright.core import ModelError, Recipe, RecipeError, Tell, UsageError
from genwright.verbs import tune as tuning
from genwright.verbs.search import Range, _as_suggested, read_space, search, trial_recipe

pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
WORDS = ["red", "blue", "green", "black", "white", "round", "small", "large", "old", "new"]
LLAMA = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1, "intermediate_size": 32, "max_position_embeddings": 64}  # fmt: skip
RATES = {"train.learning_rate": {"low": "1e-4", "high": "3e-2", "log": True}}


class Notes(Tell):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def recipe(folder: Path, space: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    path = folder / "turned.jsonl"
    if not path.exists():
        asked = [(WORDS[i % 10], WORDS[(i * 7 + i // 10) % 10]) for i in range(60)]
        path.write_text(
            "".join(json.dumps({"prompt": f"{a} and {b}", "completion": f"{b} and {a}"}) + "\n" for a, b in asked)
        )
    fields: dict[str, Any] = {
        "name": "turned", "data": {"source": "jsonl", "path": str(path), "held_out": 0.2},
        "task": {"name": "instruct", "max_length": 48, "max_new_tokens": 4},
        "model": {"config": LLAMA, "tokenizer": {"train": "bpe", "vocab_size": 300}},
        "method": "full",
        "train": {"tokens_per_batch": 512, "epochs": 2, "threads": 1, "evaluate_every": 1, "dtype": "float32"},
        "search": {"space": RATES if space is None else space, "trials": 4, "pruner": "none"}
        | changes.pop("search", {}),
    }  # fmt: skip
    return Recipe.from_dict(fields | changes)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def without_time(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_the_best_of_the_trials_becomes_a_recipe(tmp_path: Path) -> None:
    made, out = recipe(tmp_path), tmp_path / "out"
    found = search(made, out)
    rows = table(out)
    assert [row["state"] for row in rows] == ["done"] * 4
    assert found["value"] == min(float(row["value"]) for row in rows)
    assert len({row["train.learning_rate"] for row in rows}) == 4
    assert all(1e-4 <= float(row["train.learning_rate"]) <= 3e-2 for row in rows)
    best = Recipe.load(out / "best.yaml")
    assert best.train.learning_rate == pytest.approx(found["params"]["train.learning_rate"])
    assert best.train.tokens_per_batch == 512
    assert best.search.space == {}
    kept = [path.parent.name for path in out.glob("trials/*/model")]
    assert kept == [Path(found["run"]).name]
    assert not list(out.glob("trials/*/checkpoints"))
    assert json.loads((out / "summary.json").read_text())["params"] == found["params"]
    html = (out / "search.html").read_text()
    assert html.count('class="trial done"') == 4
    assert "learning_rate" in html
    assert "http://" not in html
    assert "https://" not in html
    assert found["importances"] == {"train.learning_rate": pytest.approx(1.0)}


def test_it_goes_on_to_more_trials_and_the_seed_decides(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    search(recipe(tmp_path, search={"trials": 2}), whole)
    parts = tmp_path / "parts"
    search(recipe(tmp_path, search={"trials": 1}), parts)
    assert len(table(parts)) == 1
    search(recipe(tmp_path, search={"trials": 2}), parts)
    assert without_time(table(parts)) == without_time(table(whole))
    other = tmp_path / "other"
    search(recipe(tmp_path, search={"trials": 1}, seed=1), other)
    assert table(other)[0]["train.learning_rate"] != table(whole)[0]["train.learning_rate"]


def test_a_killed_trial_is_taken_up_again_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    more = {"train": {"tokens_per_batch": 256, "epochs": 2, "threads": 1, "evaluate_every": 1, "checkpoint_every": 1,
                      "dtype": "float32"}}  # fmt: skip
    search(recipe(tmp_path, search={"trials": 2}, **more), whole)
    real = tuning.tune

    def killed(made: Recipe, run: Any, rows: Any, *, tell: Any, watch: Any) -> Any:
        def until_the_third_look(step: int, loss: float) -> None:
            watch(step, loss)
            if run.folder.name == "001" and step == 2:
                raise SystemExit("killed")

        return real(made, run, rows, tell=tell, watch=until_the_third_look)

    monkeypatch.setattr(tuning, "tune", killed)
    with pytest.raises(SystemExit):
        search(recipe(tmp_path, search={"trials": 2}, **more), parts)
    monkeypatch.setattr(tuning, "tune", real)
    tell = Notes()
    search(recipe(tmp_path, search={"trials": 2}, **more), parts, tell=tell)
    assert any("001 was interrupted" in line for line in tell.said)
    assert any(line.startswith("Going on from step 1") for line in tell.said)
    assert without_time(table(parts)) == without_time(table(whole))


def test_hopeless_trials_are_stopped_early(tmp_path: Path) -> None:
    made = recipe(
        tmp_path, {"train.learning_rate": [1e-2, 1.1e-2, 1.2e-2, 1.3e-2, 1e-7]},
        search={"sampler": "grid", "trials": 5, "pruner": "median"},
    )  # fmt: skip
    found = search(made, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert rows[4]["state"] == "pruned"
    assert rows[4]["value"] == ""
    assert int(rows[4]["looks"]) < int(rows[0]["looks"])
    assert found["pruned"] == 1
    assert 'class="trial pruned"' in (tmp_path / "out" / "search.html").read_text()


def test_hyperband_stops_trials_too(tmp_path: Path) -> None:
    space = {"train.learning_rate": [1e-2, 1.1e-2, 1e-7, 1.2e-7, 1.3e-7]}
    long = {"tokens_per_batch": 512, "epochs": 4, "threads": 1, "evaluate_every": 1, "dtype": "float32"}
    made = recipe(tmp_path, space, search={"sampler": "grid", "trials": 5, "pruner": "hyperband"}, train=long)
    assert search(made, tmp_path / "out")["pruned"] > 0


def test_a_grid_tries_every_combination_once(tmp_path: Path) -> None:
    space = {"train.learning_rate": [1e-3, 1e-2], "train.weight_decay": {"low": 0.0, "high": 0.1, "step": 0.1}}
    made = recipe(tmp_path, space, search={"sampler": "grid", "trials": 10})
    search(made, tmp_path / "out")
    tried = [(float(row["train.learning_rate"]), float(row["train.weight_decay"])) for row in table(tmp_path / "out")]
    assert tried == [(1e-3, 0.0), (1e-3, 0.1), (1e-2, 0.0), (1e-2, 0.1)]


@pytest.mark.parametrize("sampler", ["random", "cmaes"])
def test_every_sampler_proposes_within_the_space(tmp_path: Path, sampler: str) -> None:
    space = {**RATES, "train.weight_decay": {"low": 0.0, "high": 0.1}, "train.clip": [1.0, None]}
    search(recipe(tmp_path, space, search={"sampler": sampler, "trials": 3}), tmp_path / "out")
    rows = table(tmp_path / "out")
    assert len({row["train.weight_decay"] for row in rows}) == 3
    assert all(0 <= float(row["train.weight_decay"]) <= 0.1 and row["train.clip"] in ("1.0", "") for row in rows)


def test_methods_and_whole_choices_can_be_searched(tmp_path: Path) -> None:
    space = {"method": [{"name": "lora", "rank": 2}, "freeze"], "regularizers": [[{"name": "neftune"}]]}
    found = search(recipe(tmp_path, space, search={"sampler": "grid"}), tmp_path / "out")
    assert found["finished"] == 2
    assert found["params"]["method"] in space["method"]
    assert Recipe.load(tmp_path / "out" / "best.yaml").method.name in ("lora", "freeze")


def test_a_metric_can_be_searched_for(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"train.learning_rate": [1e-6, 1e-2]}, metrics=["exact_match"],
                  search={"sampler": "grid", "metric": "chrf", "direction": "maximize"})  # fmt: skip
    found = search(made, tmp_path / "out")
    values = [float(row["value"]) for row in table(tmp_path / "out")]
    assert found["value"] == max(values)
    assert [m.name for m in Recipe.load(tmp_path / "out" / "best.yaml").metrics or []] == ["exact_match"]


def test_keys_of_the_data_prepare_each_trial(tmp_path: Path) -> None:
    found = search(recipe(tmp_path, {"data.limit": [20, 40]}, search={"sampler": "grid"}), tmp_path / "out")
    assert found["finished"] == 2
    assert not (tmp_path / "out" / "rows").exists()


def test_a_failing_trial_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tuning.tune

    def tune(made: Recipe, *args: Any, **more: Any) -> Any:
        if made.train.learning_rate == 1e-3:
            raise ModelError("It blew up.", "Try less.")
        return real(made, *args, **more)

    monkeypatch.setattr(tuning, "tune", tune)
    made = recipe(tmp_path, {"train.learning_rate": [1e-3, 1e-2]}, search={"sampler": "grid"})
    found = search(made, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert [row["state"] for row in rows] == ["failed", "done"]
    assert rows[0]["problem"] == "It blew up. Try less."
    assert found["failed"] == 1
    alone = recipe(tmp_path, {"train.learning_rate": [1e-3]}, search={"sampler": "grid"})
    with pytest.raises(UsageError, match="No trial came to an end: It blew up"):
        search(alone, tmp_path / "none")


def test_another_search_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    search(recipe(tmp_path, search={"trials": 1}), tmp_path / "out")
    with pytest.raises(UsageError, match="another recipe or space"):
        search(recipe(tmp_path, {"train.weight_decay": [0.0, 0.1]}), tmp_path / "out")


@pytest.mark.parametrize(
    ("space", "more", "said"),
    [
        ({}, {}, "is empty"),
        ({"train.learning_rte": [1e-3]}, {}, "Did you mean 'learning_rate'"),
        ({"train.learning_rate": {"low": 1, "high": 0.1}}, {}, "low is above high"),
        ({"train.learning_rate": {"low": 0, "high": 1, "log": True}}, {}, "starts above 0"),
        ({"train.learning_rate": {"low": 0.1, "high": 1, "lgo": True}}, {}, "unknown key"),
        ({"train.learning_rate": {"low": -1.0, "high": 1.0}}, {}, "-1.0 will not do"),
        ({"train.learning_rate": 3}, {}, "must be a list"),
        ({"train.learning_rate": {"low": 0.1, "high": 1.0}}, {"sampler": "grid"}, "a list or a step"),
        ({"train.learning_rate": [1e-3]}, {"metric": "chrf"}, "search.direction: is needed"),
        ({"train.learning_rate": [1e-3]}, {"metric": "chfr", "direction": "maximize"}, "Did you mean 'chrf'"),
        ({"regularizers.3.alpha": [1]}, {}, "should be a valid list"),
    ],
)
def test_all_that_is_wrong_with_a_space_is_said(tmp_path: Path, space: Any, more: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said.replace("[", r"\[")):
        read_space(recipe(tmp_path, space, search=more))


def test_no_held_out_rows_no_search(tmp_path: Path) -> None:
    made = recipe(tmp_path, search={"trials": 1})
    fields = made.as_dict()
    fields["data"]["held_out"] = 0.0
    with pytest.raises(UsageError, match="Keep some rows aside"):
        search(Recipe.from_dict(fields), tmp_path / "out")


def test_a_method_option_can_be_searched_when_the_recipe_names_none(tmp_path: Path) -> None:
    made = recipe(tmp_path, {"method.rank": [2, 4]})
    fields = made.as_dict() | {"model": {"source": "smollm2-135m-instruct"}}
    del fields["method"]
    assert trial_recipe(Recipe.from_dict(fields), {"method.rank": 2}, "x").method.settings.rank == 2


def test_an_option_that_the_method_lacks_is_told_before_any_trial_runs(tmp_path: Path) -> None:
    """Of random weights all is trained, and that way has no rank."""
    made = recipe(tmp_path, {"method.rank": [2, 4]})
    with pytest.raises(RecipeError, match=r"unknown key\. There are none\. \(method\.rank\)"):
        search(made, tmp_path / "out")


def test_ranges_know_whole_numbers() -> None:
    assert Range(low=1, high=4).whole
    assert not Range(low=1, high=4.0).whole
    assert Range.model_validate({"low": "1e-5", "high": "1"}).low == 1e-5
    assert _as_suggested([{"a": 1}], {"a": 1}) == '{"a": 1}'
