"""The loop obeys every key of `train`, counts by weight, and goes on bit-equal after a kill."""

from __future__ import annotations

import errno
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from genwright.core import DataError, Dataset, Loss, ModelError, Tell, UsageError
from genwright.core.plugin import Chosen
from genwright.nn import checkpoint as disk
from genwright.nn.loop import Outcome, fit, rewind_events

from .tiny import (
    Example,
    Killed,
    Log,
    Objective,
    Regularizer,
    Tiny,
    assistant,
    digest,
    plain_loss,
    rows,
    settings,
    user,
)

TRAIN, HELD_OUT = rows(60), rows(20, seed=1)


def teach(folder: Path, *, learner: Any = None, objective: Any = None, regularizers: Any = (), seed: int = 3,
          train: Dataset = TRAIN, held_out: Dataset = HELD_OUT, given: dict[str, Any] | None = None,
          **changes: Any) -> tuple[Tiny, Outcome, Log]:  # fmt: skip
    learner, log = learner or Tiny(), Log(folder)
    outcome = fit(learner, train, held_out, objective=objective or Objective(), regularizers=regularizers,
                  settings=settings(**changes), seed=seed, folder=folder, log=log, **(given or {}))  # fmt: skip
    return learner, outcome, log


def killed_at(step: int) -> Objective:
    """An objective that dies in the middle of that step (from 1)."""
    calls = {"n": 0}

    def loss(learner: Any, batch: Any) -> Loss:
        if learner.module.training:
            calls["n"] += 1
            if calls["n"] == step:
                raise Killed
        return plain_loss(learner, batch)

    return Objective(loss)


# -- it learns, and says what it did ---------------------------------------------------------------------------------


def test_it_learns_and_says_so(tmp_path: Path) -> None:
    _, outcome, log = teach(tmp_path, epochs=20)
    assert outcome.held_out_first is not None
    assert outcome.held_out_last is not None
    assert outcome.held_out_last < 0.5 * outcome.held_out_first
    assert outcome.steps == outcome.planned_steps == len(log["step"])
    assert outcome.real == 20 * sum(len(e.prompt[0].text + e.answer.text) for e in TRAIN)
    start = log["tune.start"][0]
    assert start["steps"] == outcome.steps
    assert start["trainable"] == start["parameters"] == sum(p.numel() for p in Tiny().module.parameters())
    step = log["step"][5]
    assert {"epoch", "loss", "learning_rate", "grad_norm", "seconds", "supervised_per_second", "real_per_second",
            "slots_per_second", "memory", "rows", "passes"} <= set(step)  # fmt: skip
    assert step["supervised_per_second"] < step["real_per_second"] == step["slots_per_second"]
    assert log["look"][0]["step"] == 0
    assert log["look"][-1]["step"] == outcome.steps
    assert len(log["look"]) == 11
    assert log["tune.end"][0]["steps"] == outcome.steps


def test_the_held_out_loss_is_the_mean_over_supervised_tokens(tmp_path: Path) -> None:
    learner, outcome, _ = teach(tmp_path, tokens_per_pass=30)
    learner.module.eval()
    encoded = [learner.encode(e) for e in HELD_OUT]
    with torch.no_grad():
        total = sum(float(learner.loss(learner.collate([item]))) for item in encoded)
    assert outcome.held_out_last == pytest.approx(total / sum(item.weight for item in encoded), rel=1e-5)


def test_one_pass_or_four_give_the_same_step(tmp_path: Path) -> None:
    """Accumulation is weighted by tokens: 1 = 4 (transformers PR 34191 tells how the field got this wrong)."""
    runs = {n: teach(tmp_path / str(n), tokens_per_batch=128, tokens_per_pass=128 // n, dropout=0.0) for n in (1, 4)}
    assert {e["passes"] for e in runs[1][2]["step"]} == {1}
    assert max(e["passes"] for e in runs[4][2]["step"]) >= 4
    for one, four in zip(runs[1][2]["step"], runs[4][2]["step"], strict=True):
        assert one["loss"] == pytest.approx(four["loss"], abs=1e-5)
        assert one["rows"] == four["rows"]
    first = [run[2]["step"][0] for run in runs.values()]
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], rel=1e-6)
    assert first[0]["grad_norm"] == pytest.approx(first[1]["grad_norm"], rel=1e-6)


def test_a_loss_whose_weight_is_not_the_planned_one_is_divided_by_its_own(tmp_path: Path) -> None:
    def half(learner: Any, batch: Any) -> Loss:
        loss = plain_loss(learner, batch)
        return Loss(loss.total / 2, loss.weight / 2)

    _, _, log = teach(tmp_path / "half", objective=Objective(half), dropout=0.0)
    _, _, plain = teach(tmp_path / "plain", dropout=0.0)
    for a, b in zip(log["step"], plain["step"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_the_same_recipe_twice_is_bit_equal_and_another_seed_is_not(tmp_path: Path) -> None:
    a, b, c = (teach(tmp_path / str(n), seed=s) for n, s in enumerate((3, 3, 4)))
    assert a[2].losses == b[2].losses != c[2].losses
    assert digest(a[0].module) == digest(b[0].module) != digest(c[0].module)


def test_rows_that_teach_nothing_are_counted_with_their_reason(tmp_path: Path) -> None:
    train = Dataset([*TRAIN, Example((user("ABC"), assistant("")), {"where": "x.jsonl:7"})])
    _, outcome, log = teach(tmp_path, train=train)
    assert outcome.unlearnable == {"the answer is empty": 1}
    assert outcome.rows == len(TRAIN)
    told = next(e for e in log["tokens"] if e["part"] == "train")
    assert told["shown"] == [{"where": "x.jsonl:7", "reason": "the answer is empty"}]
    with pytest.raises(DataError, match="1 × the answer is empty"):
        teach(tmp_path / "none", train=train[len(TRAIN) :])


def test_rows_are_encoded_once_and_again_when_the_encoding_changes(tmp_path: Path) -> None:
    first, _, _ = teach(tmp_path)
    again, _, _ = teach(tmp_path, seed=4)
    assert first.encoded > len(TRAIN) + len(HELD_OUT)
    assert again.encoded <= 2 * 16  # a few probes
    assert len(list((tmp_path / "tokens").iterdir())) == 2

    class Other(Tiny):
        def encode(self, example: Example, *, supervise: str = "answer") -> Any:
            return super().encode(Example((user("Z"), example.answer)))

    other, _, _ = teach(tmp_path, learner=Other())
    assert other.encoded > len(TRAIN) + len(HELD_OUT)


def test_an_objective_may_encode_and_prepare_itself(tmp_path: Path) -> None:
    told: list[str] = []

    def encode(learner: Any, example: Example, settings: Any) -> Any:
        told.append("encode")
        return learner.encode(Example((user("Z"), example.answer)))

    objective = Objective(encode=encode, prepare=lambda learner, settings: told.append("prepare"))
    _, outcome, _ = teach(tmp_path, objective=objective)
    assert told.count("prepare") == 1
    assert told.index("prepare") > told.index("encode")
    assert outcome.real == 2 * sum(1 + len(e.answer.text) for e in TRAIN)


def test_regularizers_wrap_the_step_in_order_and_know_its_number(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []

    def named(name: str) -> Regularizer:
        def wrap(step: Any, learner: Any, context: Any) -> Any:
            def wrapped(batch: Any) -> Loss:
                calls.append((name, context.step_number))
                loss = step(batch)
                return Loss(loss.total * 2, loss.weight)

            return wrapped

        return Regularizer(wrap)

    _, _, log = teach(tmp_path / "a", regularizers=[named("inner"), named("outer")], dropout=0.0)
    _, _, plain = teach(tmp_path / "b", dropout=0.0)
    assert calls[:4] == [("outer", 0), ("inner", 0), ("outer", 1), ("inner", 1)]
    assert log["step"][0]["loss"] == pytest.approx(4 * plain["step"][0]["loss"], rel=1e-5)
    assert log["look"][0]["held_out_loss"] == plain["look"][0]["held_out_loss"]  # looks are without them


# -- every key of `train` turns something ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [("tokens_per_batch", 32), ("rows_per_batch", 3), ("learning_rate", 0.02), ("epochs", 1.5), ("max_steps", 5),
     ("optimizer", "adam"), ("optimizer", "sgd"), ("optimizer", "adafactor"), ("betas", (0.5, 0.9)),
     ("weight_decay", 0.3), ("schedule", "linear"), ("warmup", 4.0), ("min_learning_rate", 0.5), ("clip", 0.1),
     ("clip", None), ("label_smoothing", 0.2), ("dropout", 0.5), ("ema", 0.9), ("dtype", "bfloat16")],
)  # fmt: skip
def test_turning_a_key_changes_the_weights(tmp_path: Path, key: str, value: Any) -> None:
    more = {"weight_decay": 0.1} if value == "adam" else {}
    before, _, _ = teach(tmp_path / "before", **more)
    after, _, _ = teach(tmp_path / "after", **more, **{key: value})
    assert digest(before.module) != digest(after.module)


def test_momentum_changes_sgd(tmp_path: Path) -> None:
    runs = [teach(tmp_path / str(m), optimizer="sgd", momentum=m)[0] for m in (0.0, 0.9)]
    assert digest(runs[0].module) != digest(runs[1].module)


def test_plans_of_steps_follow_their_keys(tmp_path: Path) -> None:
    assert teach(tmp_path / "a", rows_per_batch=7)[1].planned_steps == 2 * math.ceil(60 / 7)
    assert teach(tmp_path / "b", rows_per_batch=10, epochs=0.5)[1].planned_steps == 3
    assert teach(tmp_path / "c", rows_per_batch=10, max_steps=4, epochs=100)[1].planned_steps == 4


def test_weight_decay_spares_norms_biases_and_embeddings(tmp_path: Path) -> None:
    def no_gradient(learner: Any, batch: Any) -> Loss:
        loss = plain_loss(learner, batch)
        return Loss(loss.total * 0, loss.weight)

    start = Tiny().module.state_dict()
    for optimizer in ("adamw", "sgd", "adafactor"):
        objective = Objective(no_gradient)
        learner, _, _ = teach(tmp_path / optimizer, objective=objective, optimizer=optimizer, weight_decay=0.5)
        for name, tensor in learner.module.state_dict().items():
            decays = name in ("inner.weight", "out.weight")
            assert torch.equal(tensor, start[name]) is not decays, (optimizer, name)
            assert tensor.norm() <= start[name].norm()


def test_label_smoothing_reaches_training_and_stays_out_of_looks(tmp_path: Path) -> None:
    learner, _, log = teach(tmp_path, label_smoothing=0.3)
    assert set(learner.heard) == {0.0, 0.3}
    assert learner.heard[0] == 0.0
    assert learner.heard.count(0.3) == sum(e["passes"] for e in log["step"])


def test_dropout_is_set_in_layers_and_in_plain_numbers(tmp_path: Path) -> None:
    learner = Tiny()
    learner.module.inner.attention_dropout = 0.0  # as transformers' attention keeps it
    teach(tmp_path, learner=learner, dropout=0.25)
    assert learner.module.dropout.p == learner.module.inner.attention_dropout == 0.25


def test_the_average_of_the_weights_is_what_is_looked_at_and_left(tmp_path: Path) -> None:
    learner, outcome, _ = teach(tmp_path, ema=0.99)
    last = disk.newest(tmp_path / "checkpoints", lambda *_: None)
    assert last
    for name, parameter in learner.module.named_parameters():
        assert torch.equal(parameter, last.part("ema")[name])
        assert not torch.equal(parameter, last.part("weights")[name])
    learner.module.eval()
    encoded = [learner.encode(e) for e in HELD_OUT]
    with torch.no_grad():
        total = float(learner.loss(learner.collate(encoded)))
    assert outcome.held_out_last == pytest.approx(total / sum(item.weight for item in encoded), rel=1e-5)


def test_early_stopping_stops_and_gives_the_best_back(tmp_path: Path) -> None:
    """A rate that wrecks the model after some steps: what is left must be as good as the best look."""
    learner, outcome, log = teach(
        tmp_path, learning_rate=2.0, schedule="linear", warmup=200, epochs=60, evaluate_every=10, early_stopping=2
    )
    assert outcome.stopped_early
    assert outcome.steps < outcome.planned_steps
    assert outcome.best_step == outcome.steps - 20
    assert log["early stop"][0]["best_step"] == outcome.best_step
    learner.module.eval()
    encoded = [learner.encode(e) for e in HELD_OUT]
    with torch.no_grad():
        total = float(learner.loss(learner.collate(encoded)))
    assert outcome.held_out_best == pytest.approx(total / sum(item.weight for item in encoded), rel=1e-5)
    with pytest.raises(UsageError, match="held-out"):
        teach(tmp_path / "none", held_out=Dataset(), early_stopping=1)


def test_looks_checkpoints_and_how_many_are_kept_follow_their_keys(tmp_path: Path) -> None:
    _, outcome, log = teach(tmp_path, evaluate_every=4, checkpoint_every=3, keep_checkpoints=3)
    n = outcome.steps
    assert [e["step"] for e in log["look"]] == [*range(0, n, 4), *([n] if n % 4 or True else [])]
    assert [e["step"] for e in log["checkpoint"]] == sorted({*range(3, n, 3), n})
    assert len(disk.names(tmp_path / "checkpoints")) == 3


def test_without_held_out_rows_it_trains_all_the_same(tmp_path: Path) -> None:
    _, outcome, log = teach(tmp_path, held_out=Dataset())
    assert outcome.held_out_last is None
    assert not log["look"]


def test_threads_and_determinism_are_as_set_within_and_as_before_after(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def loss(learner: Any, batch: Any) -> Loss:
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        return plain_loss(learner, batch)

    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    teach(tmp_path / "a", objective=Objective(loss), threads=2, deterministic=True, max_steps=1)
    teach(tmp_path / "b", objective=Objective(loss), threads=1, deterministic=False, max_steps=1)
    assert {(2, True), (1, False)} == set(seen)
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no device 'cuda:9'"):
        teach(tmp_path, device="cuda:9")


def test_compile_is_asked_for_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: asked.append(how))
    teach(tmp_path / "a", max_steps=1)
    assert not asked
    teach(tmp_path / "b", max_steps=1, compile=True)
    assert asked == [{"dynamic": True}]
    monkeypatch.setattr("genwright.nn.device.shutil.which", lambda name: None)
    with pytest.raises(UsageError, match="compiler"):
        teach(tmp_path / "c", max_steps=1, compile=True)


def test_trackers_hear_every_step_and_look(tmp_path: Path) -> None:
    heard: list[tuple[int, dict[str, float]]] = []
    closed: list[bool] = []

    class Tracker:
        def log(self, step: int, figures: dict[str, float]) -> None:
            heard.append((step, figures))

        def close(self) -> None:
            closed.append(True)

    class Choice(Objective):
        def __call__(self, folder: Path, name: str) -> Any:  # type: ignore[override]
            assert (folder, name) == (tmp_path, tmp_path.name)
            return Tracker()

    _, outcome, log = teach(tmp_path, trackers=[Choice()])
    assert [s for s, f in heard if "loss" in f] == list(range(1, outcome.steps + 1))
    assert [f["held_out_loss"] for _, f in heard if "held_out_loss" in f] == [e["held_out_loss"] for e in log["look"]]
    assert closed == [True]


def test_the_watcher_may_end_a_hopeless_training(tmp_path: Path) -> None:
    class Hopeless(Exception):
        pass

    def watch(step: int, loss: float) -> None:
        if step >= 3:
            raise Hopeless

    with pytest.raises(Hopeless):
        teach(tmp_path, evaluate_every=3, given={"watch": watch})


# -- killed, and gone on ---------------------------------------------------------------------------------------------


def stateful() -> Regularizer:
    """Adds a share of its own running mean of losses, and noise from torch's generator."""

    def wrap(step: Any, learner: Any, context: Any) -> Any:
        class Running:
            mean = torch.zeros(())

            def __call__(self, batch: Any) -> Loss:
                loss = step(batch)
                self.mean = 0.9 * self.mean + 0.1 * loss.total.detach() * torch.rand(())
                return Loss(loss.total + 1e-3 * self.mean * loss.total, loss.weight)

            def state(self) -> dict[str, torch.Tensor]:
                return {"mean": self.mean}

            def restore(self, state: dict[str, torch.Tensor]) -> None:
                self.mean = state["mean"]

        return Running()

    return Regularizer(wrap)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "sgd"}, {"optimizer": "adafactor"}, {"optimizer": "adam", "weight_decay": 0.1},
     {"ema": 0.9, "dtype": "bfloat16"}, {"early_stopping": 50, "evaluate_every": 3}, {"tokens_per_pass": 20}],
    ids=str,
)  # fmt: skip
def test_a_killed_run_ends_bit_equal(tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, expected, log = teach(tmp_path / "whole", regularizers=[stateful()], checkpoint_every=4, **changes)
    folder = tmp_path / "killed"
    often = 4 if "tokens_per_pass" in changes else 1  # passes a step
    for step in (7 * often, 1, 6 * often):  # the second dies before any new step is saved
        with pytest.raises(Killed):
            teach(folder, objective=killed_at(step), regularizers=[stateful()], checkpoint_every=4, **changes)
    learner, outcome, again = teach(folder, regularizers=[stateful()], checkpoint_every=4, **changes)
    assert outcome.resumed_from > 0
    assert again.losses == log.losses
    assert [e["rows"] for e in again["step"]] == [e["rows"] for e in log["step"]]
    assert [e["held_out_loss"] for e in again["look"]] == [e["held_out_loss"] for e in log["look"]]
    assert digest(learner.module) == digest(whole.module)
    assert (outcome.real, outcome.loss) == (expected.real, expected.loss)


def test_running_means_come_back_too(tmp_path: Path) -> None:
    def make() -> Tiny:
        learner = Tiny()
        learner.module.norm = torch.nn.BatchNorm1d(32)
        learner.module.register_buffer("still", torch.ones(3))
        return learner

    whole, _, log = teach(tmp_path / "whole", learner=make(), checkpoint_every=4)
    with pytest.raises(Killed):
        teach(tmp_path / "killed", learner=make(), objective=killed_at(7), checkpoint_every=4)
    learner, _, again = teach(tmp_path / "killed", learner=make(), checkpoint_every=4)
    assert digest(learner.module) == digest(whole.module)
    assert again.losses == log.losses
    last = disk.newest(tmp_path / "killed" / "checkpoints", lambda *_: None)
    assert last
    assert set(last.part("buffers")) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def test_a_finished_run_goes_straight_to_its_end(tmp_path: Path) -> None:
    first, _, log = teach(tmp_path)
    again, outcome, _ = teach(tmp_path, objective=killed_at(1))
    assert outcome.resumed_from == outcome.steps
    assert digest(first.module) == digest(again.module)
    assert len(log["step"]) == outcome.steps
    assert len(log["tune.end"]) == 1


def test_other_inputs_start_anew_and_the_old_is_set_aside(tmp_path: Path) -> None:
    _, old, _ = teach(tmp_path)
    _, new, log = teach(tmp_path, learning_rate=0.003)
    assert new.resumed_from == 0
    assert disk.names(tmp_path / "checkpoints.old-1")
    assert len(log["step"]) == new.steps
    assert sum(b'"step", "step"' in line or b'"event": "step"' in line for line in
               (tmp_path / "events.old-1.jsonl").read_bytes().splitlines()) == old.steps  # fmt: skip
    _, free, _ = teach(tmp_path, learning_rate=0.003, checkpoint_every=1, keep_checkpoints=1, max_bad_steps=3)
    assert free.resumed_from == new.steps  # what does not change the weights may be changed


def test_a_broken_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path) -> None:
    class Notes(Tell):
        def __init__(self) -> None:
            self.said: list[str] = []

        def note(self, text: str) -> None:
            self.said.append(text)

    whole, _, log = teach(tmp_path / "whole", checkpoint_every=4)
    folder, tell = tmp_path / "killed", Notes()
    with pytest.raises(Killed):
        teach(folder, objective=killed_at(11), checkpoint_every=4)
    (folder / "checkpoints" / "step-00000008" / disk.TENSORS).unlink()
    learner, outcome, again = teach(folder, checkpoint_every=4, given={"tell": tell})
    assert outcome.resumed_from == 4
    assert "The checkpoint step-00000008 is passed over: tensors.safetensors is missing." in tell.said
    assert again["checkpoint broken"][0]["checkpoint"] == "step-00000008"
    assert again.losses == log.losses
    assert digest(learner.module) == digest(whole.module)
    for name in disk.names(folder / "checkpoints"):
        (folder / "checkpoints" / name / disk.STATE).write_text("{")
    with pytest.raises(ModelError, match=r"No checkpoint in .* is whole"):
        teach(folder, checkpoint_every=4)


def test_ctrl_c_writes_a_checkpoint_and_the_same_call_goes_on(tmp_path: Path) -> None:
    whole, _, log = teach(tmp_path / "whole")

    def interrupted(learner: Any, batch: Any) -> Loss:
        if learner.module.training and len(Log(tmp_path / "cut")["step"]) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return plain_loss(learner, batch)

    with pytest.raises(KeyboardInterrupt):
        teach(tmp_path / "cut", objective=Objective(interrupted))
    assert disk.names(tmp_path / "cut" / "checkpoints")[-1] == "step-00000005"
    learner, outcome, again = teach(tmp_path / "cut")
    assert outcome.resumed_from == 5
    assert again.losses == log.losses
    assert digest(learner.module) == digest(whole.module)


def test_two_processes_do_not_tune_into_one_folder(tmp_path: Path) -> None:
    with disk.only_one(tmp_path), pytest.raises(UsageError, match="Another process"):
        teach(tmp_path)


def test_events_after_the_checkpoint_are_said_once(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log("prepare", rows=3)
    for step in range(4):
        log("step", step=step + 1)
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "step", "st')
    rewind_events(tmp_path / "events.jsonl", 2, "")
    assert [(e["event"], e.get("step")) for e in log.run.events()] == [("prepare", None), ("step", 1), ("step", 2)]
    assert [p.name for p in tmp_path.iterdir()] == ["events.jsonl"]


# -- what is not finite ----------------------------------------------------------------------------------------------


def sick_at(*steps: int, where: str) -> Regularizer:
    """A loss or a gradient that is not a number, in those steps (from 0)."""

    def wrap(step: Any, learner: Any, context: Any) -> Any:
        def wrapped(batch: Any) -> Loss:
            loss = step(batch)
            if context.step_number not in steps:
                return loss
            if where == "loss":
                return Loss(loss.total * math.nan, loss.weight)
            loss.total.register_hook(lambda gradient: gradient * math.inf)
            return loss

        return wrapped

    return Regularizer(wrap)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_sick_step_is_skipped_and_counted(tmp_path: Path, where: str) -> None:
    learner, outcome, log = teach(tmp_path, regularizers=[sick_at(2, 3, 8, where=where)], max_bad_steps=3)
    assert outcome.skipped_steps == 3
    assert [e["step"] for e in log["skipped step"]] == [3, 4, 9]
    assert {e["reason"] for e in log["skipped step"]} == {f"the {where} is not finite"}
    assert len(log["step"]) == outcome.steps - 3
    assert all(bool(p.isfinite().all()) for p in learner.module.parameters())


def test_too_many_sick_steps_in_a_row_stop_and_keep_the_last_good_checkpoint(tmp_path: Path) -> None:
    sick = sick_at(*range(5, 99), where="gradient")
    learner = Tiny()
    with pytest.raises(ModelError, match="3 steps in a row were skipped") as caught:
        teach(tmp_path, learner=learner, regularizers=[sick], max_bad_steps=3, checkpoint_every=5)
    assert "step-00000005" in caught.value.hint
    kept = disk.newest(tmp_path / "checkpoints", lambda *_: None)
    assert kept
    assert all(torch.equal(p, kept.part("weights")[n]) for n, p in learner.module.named_parameters())


def test_a_step_with_nothing_supervised_is_skipped(tmp_path: Path) -> None:
    def nothing(learner: Any, batch: Any) -> Loss:
        loss = plain_loss(learner, batch)
        return Loss(loss.total * 0, 0.0)

    with pytest.raises(ModelError, match="nothing is supervised"):
        teach(tmp_path, objective=Objective(nothing), max_bad_steps=2)


def test_a_model_with_nothing_to_train_is_refused(tmp_path: Path) -> None:
    learner = Tiny()
    learner.module.requires_grad_(False)
    with pytest.raises(ModelError, match="Nothing is trainable"):
        teach(tmp_path, learner=learner)


def test_frozen_weights_stay_and_stay_out_of_checkpoints(tmp_path: Path) -> None:
    learner = Tiny()
    learner.module.letters.requires_grad_(False)
    teach(tmp_path, learner=learner)
    assert torch.equal(learner.module.letters.weight, Tiny().module.letters.weight)
    kept = disk.newest(tmp_path / "checkpoints", lambda *_: None)
    assert kept
    assert "letters.weight" not in kept.part("weights")


def test_a_full_disk_says_how_much_is_needed_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _, log = teach(tmp_path / "whole", checkpoint_every=4)
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("genwright.nn.checkpoint.shutil.disk_usage", lambda path: usage._replace(
        free=1000 if (tmp_path / "full" / "checkpoints" / "step-00000004").exists() else usage.free))  # fmt: skip
    with pytest.raises(disk.NotSaved, match=r"The disk is full: .*step-00000008 needs 0\.\d MB") as caught:
        teach(tmp_path / "full", checkpoint_every=4)
    assert caught.value.exit_code == 75
    monkeypatch.undo()
    learner, outcome, again = teach(tmp_path / "full", checkpoint_every=4)
    assert outcome.resumed_from == 4
    assert again.losses == log.losses
    assert digest(learner.module) == digest(whole.module)


def test_a_disk_that_is_full_under_the_events_is_told_too(tmp_path: Path) -> None:
    def full(learner: Any, batch: Any) -> Loss:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(disk.NotSaved, match="The disk is full"):
        teach(tmp_path, objective=Objective(full))


def test_memory_that_does_not_suffice_is_a_sentence(tmp_path: Path) -> None:
    def greedy(learner: Any, batch: Any) -> Loss:
        return Loss(torch.empty(1 << 50).sum(), 1.0)

    with pytest.raises(ModelError, match="memory does not suffice") as caught:
        teach(tmp_path, objective=Objective(greedy))
    assert "tokens_per_pass" in caught.value.hint


def test_a_choice_from_the_shelf_has_what_the_loop_asks_for() -> None:
    """The stand-ins above are called as real choices are."""
    assert {"module", "settings", "as_dict", "__call__"} <= set(dir(Chosen("objectives", "x")))
