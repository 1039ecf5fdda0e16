"""Tune: a recipe through the real engine into a model folder; killed, gone on, left alone, done anew."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from genwright.core import Dataset, Example, Recipe, Run, Tell, UsageError, assistant, shelves, user
from genwright.verbs.tune import tune

WORDS = ["red", "blue", "green", "black", "white", "round", "small", "large", "old", "new"]
LLAMA = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 128}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}


def rows(count: int, start: int = 0) -> Dataset:
    asked = [(WORDS[i % 10], WORDS[(i * 7 + i // 10) % 10]) for i in range(start, start + count)]
    return Dataset(
        Example((user(f"{a} and {b} turned"), assistant(f"{b} and {a}")), {"rejected": assistant(a)}) for a, b in asked
    )


@dataclass
class Prepared:
    train: Dataset
    held_out: Dataset


DATA = Prepared(rows(60), rows(12, start=60))


def recipe(**changes: Any) -> Recipe:
    train = {"tokens_per_batch": 128, "learning_rate": 5e-3, "epochs": 2, "checkpoint_every": 2, "threads": 1}
    fields: dict[str, Any] = {
        "name": "turned", "data": {"source": "jsonl", "path": "turned.jsonl"},
        "task": {"name": "instruct", "max_length": 64},
        "model": {"config": LLAMA, "tokenizer": {"train": "bpe", "vocab_size": 300}},
        "method": {"name": "lora", "rank": 4}, "train": train | changes.pop("train", {}),
    }  # fmt: skip
    return Recipe.from_dict(fields | changes)


class Notes(Tell):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.stages: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def stage(self, title: str, total: float | None = None) -> None:
        self.stages.append(title)


def tuned(folder: Path, made: Recipe, data: Prepared = DATA, **more: Any) -> tuple[Run, Notes]:
    tell = Notes()
    return tune(made, Run.create(made, folder), data, tell=tell, **more), tell


def losses(run: Run) -> list[str]:
    return [float(event["loss"]).hex() for event in run.events("step")]


def weights(run: Run) -> dict[str, str]:
    return {str(p.relative_to(run.model)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(run.model.rglob("*.safetensors"))}  # fmt: skip


WITH_GPT2 = {"method": "full", "model": {"config": GPT2, "tokenizer": {"train": "bpe", "vocab_size": 300}}}
FOR_PICTURES = ("textual_inversion", "prior_preservation")  # tests/nn/test_diffusers.py kills those
KINDS = [
    {"method": {"name": "lora", "rank": 4, "dropout": 0.1}},
    WITH_GPT2,
    *({"method": name} for name in shelves["methods"] if name not in ("lora", "full", "none", *FOR_PICTURES)),
    *(
        {"regularizers": [name], "method": {"name": "lora", "dropout": 0.1}}
        for name in shelves["regularizers"]
        if name not in ("replay", *FOR_PICTURES)
    ),
    {"objective": "dpo"},
    {"objective": "dpo", "method": "full"},
    {"method": "full", "regularizers": ["kl_to_base", "ewc"], "train": {"ema": 0.9}},
]


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_a_killed_tuning_ends_in_the_same_model(tmp_path: Path, changes: dict[str, Any]) -> None:
    class Killed(BaseException):
        pass

    def die(step: int, loss: float) -> None:
        if step == 3:
            raise Killed

    made = recipe(**{**changes, "train": {"evaluate_every": 3, "max_steps": 5} | changes.get("train", {})})
    whole, _ = tuned(tmp_path / "whole", made)
    with pytest.raises(Killed):
        tuned(tmp_path / "killed", made, watch=die)
    assert not (tmp_path / "killed" / "model").exists()
    again, tell = tuned(tmp_path / "killed", made)
    assert "Going on from step 2 of" in " ".join(tell.said)
    assert losses(again) == losses(whole)
    assert weights(again) == weights(whole)


@pytest.mark.parametrize("fast", [True, False])
def test_weights_that_this_machine_multiplies_slowly_are_told(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genwright.nn.device.has_fast_bfloat16", lambda device: fast)
    model = {"config": LLAMA, "tokenizer": {"train": "bpe", "vocab_size": 300}, "dtype": "bfloat16"}
    asked, tell = recipe(model=model, train={"max_steps": 1, "dtype": "float32"}), Notes()
    tune(asked, Run.create(asked, tmp_path / "run"), DATA, tell=tell)
    assert ("set model.dtype to float32" in " ".join(tell.said)) != fast


def test_the_model_folder_says_where_it_comes_from(tmp_path: Path) -> None:
    run, _ = tuned(tmp_path, recipe())
    facts = json.loads((run.model / "genwright.json").read_text())
    assert (facts["engine"], facts["method"], facts["method_settings"]["rank"]) == ("causal_lm", "lora", 4)
    assert facts["objective"] == {"name": "sft"}
    assert facts["task"] == "instruct"
    assert facts["task_settings"]["max_length"] == 64
    digest = hashlib.sha256((run.model / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert facts["checkpoint"] == digest
    assert facts["base"]["path"] == "base"
    assert len(facts["data"]) == len(facts["recipe"]) == 64
    assert (run.model / "tokenizer.json").is_file()
    assert digest in (run.model / "SHA256SUMS").read_text()
    assert [e["checkpoint"] for e in run.events("model")] == [digest]


def test_the_tuned_model_opens_and_is_the_one_that_was_trained(tmp_path: Path) -> None:
    from genwright.verbs.models import open_model

    run, _ = tuned(tmp_path, recipe(method="full", train={"epochs": 6, "learning_rate": 1e-2}))
    start, end = (next(iter(run.events(e))) for e in ("look", "tune.end"))
    assert end["held_out_last"] < start["held_out_loss"] - 0.5
    model: Any = open_model(str(run.folder), purpose="tune")
    found = list(model.likelihood(DATA.held_out))
    mean = sum(f.nll for f in found) / sum(f.tokens for f in found)
    assert mean == pytest.approx(end["held_out_last"], rel=0.02)


def test_nothing_is_done_twice_and_a_change_is_done_anew(tmp_path: Path) -> None:
    run, _ = tuned(tmp_path, recipe())
    first = weights(run)
    _, tell = tuned(tmp_path, recipe())
    assert tell.said == ["Tuning: nothing has changed, the model stays."]
    assert not tell.stages
    _, tell = tuned(tmp_path, recipe(train={"checkpoint_every": 3, "keep_checkpoints": 1}))
    assert tell.said == ["Tuning: nothing has changed, the model stays."]
    _, tell = tuned(tmp_path, recipe(task={"name": "instruct", "max_length": 64, "max_new_tokens": 5}))
    assert tell.said == ["Tuning: nothing has changed, the model stays."]
    for change in ({"train": {"learning_rate": 1e-3}}, {"method": {"name": "lora", "rank": 2}}, {"seed": 5},
                   {"regularizers": ["neftune"]}, {"objective": "pretrain"}):  # fmt: skip
        _, tell = tuned(tmp_path, recipe(**change))
        assert "starts anew" in " ".join(tell.said), change
        assert weights(run) != first
    _, tell = tuned(tmp_path, recipe(), Prepared(rows(50), DATA.held_out))
    assert "starts anew" in " ".join(tell.said)


def test_a_model_that_was_lost_is_saved_again_without_training(tmp_path: Path) -> None:
    import shutil

    run, _ = tuned(tmp_path, recipe())
    first, steps = weights(run), losses(run)
    shutil.rmtree(run.model)
    _, tell = tuned(tmp_path, recipe())
    assert f"Going on from step {len(steps)} of {len(steps)}." in tell.said
    assert weights(run) == first
    assert losses(run) == steps


def test_regularizers_that_change_the_rows_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genwright.tuning.regularizers import neftune

    asked: list[int] = []

    def mix(train: Dataset, settings: Any, *, seed: int) -> Dataset:
        asked.append(seed)
        return Dataset([*train, *rows(20, start=100)])

    monkeypatch.setattr(neftune, "mix", mix, raising=False)
    run, _ = tuned(tmp_path, recipe(regularizers=["neftune"], seed=4))
    assert asked == [4]
    assert next(iter(run.events("tune.start")))["rows"] == 80


def test_labels_and_the_longest_row_reach_the_learner() -> None:
    from genwright.verbs.tune import _fit_to_task

    class Learner:
        def set_max_length(self, length: int) -> None:
            self.length = length

        def set_labels(self, labels: list[str]) -> None:
            self.labels = labels

    train = Dataset(Example((user("x"), assistant(label))) for label in ("b", "a", "b"))
    learner = Learner()
    made = recipe(task={"name": "classify", "max_length": 32})
    _fit_to_task(learner, made, train)
    assert (learner.length, learner.labels) == (32, ["a", "b"])
    _fit_to_task(learner, recipe(task={"name": "classify", "labels": ["z", "y"]}), train)
    assert learner.labels == ["z", "y"]


def test_an_engine_that_only_answers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genwright.verbs import models

    monkeypatch.setattr(models, "open_model", lambda *a, **k: ModuleType("answers"))
    with pytest.raises(UsageError, match="cannot be taught"):
        tuned(tmp_path, recipe())
