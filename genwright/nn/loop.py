"""The one training loop, for every modality: it knows a learner, encoded rows and a loss, and no more.

A step is one change of the weights. Its rows come from a plan (nn/schedule.py), go through the model in passes of a
bounded size, and count by weight: one pass or four, the gradient is the same. A killed run goes on bit-equal from its
newest whole checkpoint (nn/checkpoint.py).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genwright.core.data import Dataset, Example
from genwright.core.errors import DataError, ModelError, UsageError
from genwright.core.model import Encoded, Learner, Loss
from genwright.core.plugin import Chosen
from genwright.core.recipe import Train
from genwright.core.run import fingerprint
from genwright.core.things import SILENT, Tell

from . import checkpoint as disk
from . import device as machine
from .crew import Crew
from .packing import plan_rows
from .schedule import Plan, epochs_wanted, learning_rate
from .tokens import Counts, Tokens, encode_all, forget_others

HELD_OUT_ROWS = 256  # most rows looked at during training, always the same; the evaluation afterwards takes all
LOOK_SHARE = 0.25  # of the slots trained between two looks: with no backward, looking costs a tenth of the training
STEP_EVENTS = ("step", "look", "checkpoint", "skipped step", "early stop")
RUN_EVENTS = ("tune.start", "tune.resume", "tokens")
_FREE = {"checkpoint_every", "keep_checkpoints", "max_bad_steps", "trackers", "threads", "device", "compile"}

Step = Callable[[Any], Loss]


@dataclass(frozen=True)
class Outcome:
    """What came of a training. Losses are means by weight (nats a token for text); `best_*` are of the saved weights
    when early stopping is on. `speed` is in real tokens a second, over all steps."""

    steps: int
    planned_steps: int
    epochs: float
    loss: float
    held_out_first: float | None
    held_out_last: float | None
    held_out_best: float | None
    best_step: int
    skipped_steps: int
    stopped_early: bool
    resumed_from: int
    rows: int
    held_out_rows: int
    unlearnable: dict[str, int]
    cut_rows: int
    supervised: float
    real: int
    slots: int
    seconds: float
    speed: float
    trainable: int
    parameters: int
    peak_memory: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Context:
    """What a regularizer is told besides the step that it wraps."""

    seed: int
    train: Dataset
    objective: Chosen
    encode: Callable[[Example], Encoded]
    device: torch.device
    folder: Path
    step_number: int = 0


def fit(
    learner: Learner,
    train: Dataset,
    held_out: Dataset,
    *,
    objective: Chosen,
    regularizers: Sequence[Chosen] = (),
    settings: Train,
    seed: int,
    folder: Path,
    log: Callable[..., None] = lambda event, **facts: None,
    tell: Tell = SILENT,
    inputs: str = "",
    encoding: str = "",
    watch: Callable[[int, float], None] = lambda step, loss: None,
    crew: Crew = Crew(),  # noqa: B008 (frozen)
) -> Outcome:
    """Teach `learner` and leave in it the weights to save.

    `folder` is the run's: checkpoints and tokens live there. `inputs` names everything else that the training depends
    on (base weights, method); a checkpoint made from other inputs is set aside. `encoding` names what encoding depends
    on. `watch(step, loss)` hears of every look at the held-out rows and may raise to end a hopeless training. In a
    `crew` of several each calls this with the same arguments; only the first writes, logs and tells.

    Objectives find `learner.label_smoothing` set: from the recipe in training, 0 in looks.

    Raises DataError when nothing can be learned from the rows, ModelError after too many NaN steps in a row or when
    all checkpoints are broken, NotSaved when the disk is full; KeyboardInterrupt once a checkpoint is written.
    """
    if not crew.is_first:
        log, tell, watch = (lambda event, **facts: None), SILENT, (lambda step, loss: None)
        settings = settings.model_copy(update={"trackers": []})
    alone: AbstractContextManager[None] = disk.only_one(folder) if crew.is_first else nullcontext()
    with disk.told_when_full(folder), alone, machine.as_set(settings):
        if crew.is_first:
            disk.clean(folder / "checkpoints")
        machine.seed_all(seed)
        place = machine.choose_device(settings.device)
        learner.module.to(place)
        if machine.is_slow(learner.module, place):
            tell.note("The weights are kept in bfloat16, which this machine multiplies many times slower than float32: "
                      "set model.dtype to float32 where memory allows it.")  # fmt: skip
        _set_dropout(learner.module, settings.dropout)

        def encode(example: Example) -> Encoded:
            own = getattr(objective.module, "encode", None)
            found: Encoded = own(learner, example, objective.settings) if own else learner.encode(example)
            return found

        with crew.first_goes_first():
            rows, looked = _encode(train, held_out, encode, folder, encoding, objective, log, tell)
        if settings.early_stopping and not len(looked):
            raise UsageError("train.early_stopping needs held-out rows, and there are none.", "Set data.held_out.")
        machine.seed_all(seed)  # whether rows were encoded just now or long ago
        if prepare := getattr(objective.module, "prepare", None):
            prepare(learner, objective.settings)
        context = Context(seed, train, objective, encode, place, folder)
        training = _Training(
            learner, rows, looked, objective, regularizers, settings, seed, folder, log, tell, watch, place, context,
            crew,
        )  # fmt: skip
        with crew.first_goes_first():
            training.resume(inputs, train.fingerprint, held_out.fingerprint)
        return training.run()


class _Training:
    """One training under way: the weights, their optimizer, and how far it has come."""

    def __init__(
        self, learner: Learner, rows: Tokens, looked: Tokens, objective: Chosen, regularizers: Sequence[Chosen],
        settings: Train, seed: int, folder: Path, log: Callable[..., None], tell: Tell,
        watch: Callable[[int, float], None], device: torch.device, context: Context, crew: Crew,
    ):  # fmt: skip
        self.learner, self.module, self.rows, self.looked = learner, learner.module, rows, looked
        self.objective, self.chosen, self.settings, self.seed = objective, regularizers, settings, seed
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self.log, self.tell, self.watch, self.device, self.context = log, tell, watch, device, context
        self.crew = crew
        self.dtype = machine.choose_dtype(settings.dtype, device)
        self.plan = Plan(rows.sizes, settings, seed=seed)
        self.weights = _trainable(self.module)
        self.buffers = {name: buffer.clone() for name, buffer in _buffers(self.module).items()}
        self.optimizer = make_optimizer(self.module, settings)
        self.ema = {n: p.detach().clone() for n, p in self.weights.items()} if settings.ema else {}
        self.best: dict[str, Tensor] = {}
        self.progress = Progress()
        self.resumed_from = 0
        self.steps_taken: list[Any] = []  # the regularizers' steps, innermost first; some have a state
        self.step_with_all = self._wrap(context)
        self.look_every = settings.evaluate_every or max(1, math.ceil(self.plan.steps / 10))
        self.look_rows = _some(len(looked), self._most_looked(), seed)
        self.save_every = settings.checkpoint_every or max(1, math.ceil(self.plan.steps / 5))
        if settings.compile:
            machine.compile_module(getattr(learner, "part_to_compile", self.module), device)

    # -- the story ---------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        progress, plan = self.progress, self.plan
        self.learner.label_smoothing = self.settings.label_smoothing  # type: ignore[attr-defined]
        trackers = [chosen(self.folder, self.folder.name) for chosen in self.settings.trackers]
        self.tell.stage("Tuning", total=plan.steps)
        self.tell.advance(progress.step)
        try:
            with _Interrupts(self.tell) as interrupts, _memory_as_model_error(), machine.memory_kept():
                self._must_agree()
                if progress.step == 0 and not progress.looks:
                    self._look(trackers)
                while progress.step < plan.steps and not progress.stopped:
                    asked = self._step(trackers, interrupts)
                    done = progress.step == plan.steps
                    if len(self.looked) and (done or progress.step % self.look_every == 0):
                        self._look(trackers)
                    done = done or progress.stopped
                    asked = asked or (self.crew.size == 1 and interrupts.asked > 0)
                    if done or asked or progress.step % self.save_every == 0:
                        self._save()
                    if asked and not done:
                        interrupts.leave(progress.step)
        finally:
            self.learner.label_smoothing = 0.0  # type: ignore[attr-defined]
            for tracker in trackers:
                tracker.close()
        self._leave_weights()
        outcome = self._outcome()
        self.log("tune.end", **outcome.as_dict())
        return outcome

    def _most_looked(self) -> int:
        """Rows of a look: few when looks are frequent or steps small, but never under 32."""
        if not len(self.looked):
            return 0
        between = self.look_every * self.plan.slots_per_step
        return max(32, min(HELD_OUT_ROWS, int(LOOK_SHARE * between / max(1.0, float(self.looked.sizes.mean())))))

    def _step(self, trackers: list[Any], interrupts: _Interrupts) -> bool:
        """One change of the weights, or a skipped step when loss or gradient is not finite. Says whether somebody of
        the crew was asked to stop."""
        progress, settings, began = self.progress, self.settings, time.perf_counter()
        chosen = self.plan.rows(progress.step)
        self.context.step_number = progress.step
        rate = learning_rate(progress.step, self.plan.steps, settings)
        self.module.train()
        done = self._gradient(chosen, interrupts)
        weight = done.weight
        norm = self._finish_gradient(self._planned_weight(chosen), weight)
        loss = done.total / weight if weight else math.nan
        bad = not (math.isfinite(loss) and math.isfinite(norm))
        progress.step += 1
        if not bad:
            self._change_weights(rate)
        self.optimizer.zero_grad(set_to_none=True)

        seconds, real = time.perf_counter() - began, int(self.rows.real[chosen].sum())
        progress.seconds += seconds
        progress.supervised += weight
        progress.real += real
        progress.slots += done.slots
        digest = hashlib.sha256(np.ascontiguousarray(self.rows.rows[chosen]).tobytes()).hexdigest()[:16]
        if bad:
            self._note_bad(loss, norm, weight, digest)
            return done.asked
        progress.bad_in_row, progress.loss = 0, loss
        figures = {name: value / weight for name, value in done.figures.items()}
        facts = {"epoch": self.plan.epoch(progress.step), "loss": loss, "learning_rate": rate, "grad_norm": norm,
                 "seconds": seconds, "supervised_per_second": weight / seconds, "real_per_second": real / seconds,
                 "slots_per_second": done.slots / seconds, "passes": done.passes,
                 "memory": machine.peak_memory(self.device)}  # fmt: skip
        self.log("step", step=progress.step, rows=digest, figures=figures, **facts)
        for tracker in trackers:
            tracker.log(progress.step, figures | facts)
        self.tell.advance(1, loss=loss, learning_rate=rate, tokens_per_second=real / seconds)
        return done.asked

    def _gradient(self, chosen: np.ndarray, interrupts: _Interrupts) -> Done:
        """Run the passes of a step, or our share of them. Gradients are left divided by the planned weight, and summed
        over the crew."""
        if self.crew.size > 1:  # everyone draws other numbers, and after a restart the same ones again
            machine.seed_all(int(fingerprint(self.seed, self.progress.step, self.crew.rank)[:12], 16))
        planned, totals, done = self._planned_weight(chosen), [], Done(asked=interrupts.asked > 0)
        mine = chosen[self.crew.share(self.rows.sizes[chosen])]
        for members in plan_rows(self.rows.sizes[mine].tolist(), self.settings.tokens_per_pass):
            batch, size = self._batch(self.rows, mine[members])
            with machine.passes_in(self.dtype, self.device):
                loss = self.step_with_all(batch)
            (loss.total / planned).backward()
            totals.append(loss.total.detach())
            done.weight, done.slots, done.passes = done.weight + float(loss.weight), done.slots + size, done.passes + 1
            for name, value in loss.logs.items():
                done.figures[name] = done.figures.get(name, 0.0) + value * float(loss.weight)
        done.total = float(torch.stack(totals).cpu().double().sum()) if totals else 0.0
        self.crew.sum_gradients(self.weights.values())
        return _sum([Done(**one) for one in self.crew.together(asdict(done))])

    def _finish_gradient(self, planned: float, weight: float) -> float:
        """Divide by the true weight where it differs from the planned one (masked at random, say), then clip."""
        gradients = [p.grad for p in self.weights.values() if p.grad is not None]
        if not gradients:
            raise ModelError("No gradient reached a trainable weight.", "Another method or objective is needed here.")
        scale = planned / weight if weight else 1.0
        norm = float(nn.utils.get_total_norm(gradients)) * scale
        if self.settings.clip and math.isfinite(norm):
            scale *= min(1.0, self.settings.clip / (norm + 1e-6))
        if scale != 1.0:
            torch._foreach_mul_(gradients, scale)
        return norm

    def _change_weights(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            if self.settings.optimizer == "sgd" and group["decay"]:  # torch's SGD has only the coupled kind
                torch._foreach_mul_([p.detach() for p in group["params"]], 1 - rate * group["decay"])
        self.optimizer.step()
        if self.ema:
            count = self.progress.step
            keep = min(self.settings.ema or 0.0, (1 + count) / (10 + count))  # else the start would weigh for long
            torch._foreach_lerp_(list(self.ema.values()), [p.detach() for p in self.weights.values()], 1 - keep)

    def _note_bad(self, loss: float, norm: float, weight: float, digest: str) -> None:
        progress = self.progress
        progress.bad += 1
        progress.bad_in_row += 1
        sick = "gradient" if math.isfinite(loss) else "loss"
        reason = f"the {sick} is not finite" if weight else "nothing is supervised"
        self.log("skipped step", step=progress.step, reason=reason, loss=str(loss), grad_norm=str(norm), rows=digest)
        self.tell.note(f"Step {progress.step} is skipped: {reason}.")
        self.tell.advance(1)
        if progress.bad_in_row >= self.settings.max_bad_steps:
            kept = disk.names(self.checkpoints)
            raise ModelError(
                f"{progress.bad_in_row} steps in a row were skipped, the last because {reason} (step {progress.step}).",
                "Lower train.learning_rate, add warm-up, or set train.dtype to float32."
                + (f" The last good checkpoint is {self.checkpoints / kept[-1]}." if kept else ""),
            )

    def _look(self, trackers: list[Any]) -> None:
        """The held-out loss of the weights that would be saved now; with early stopping, is it the best yet?"""
        progress = self.progress
        if not len(self.looked):
            return
        began = time.perf_counter()
        with self._shown_as_saved(), machine.own_randomness(self.seed, self.device):
            loss = self._held_out_loss()
        if not progress.looks:
            progress.held_out_first = loss
        progress.looks, progress.held_out_last = progress.looks + 1, loss
        better = progress.best_loss is None or loss < progress.best_loss
        if better:
            progress.best_loss, progress.best_step, progress.looks_without = loss, progress.step, 0
            if self.settings.early_stopping:
                self.best = {n: t.detach().clone() for n, t in self._to_save().items()}
        else:
            progress.looks_without += 1
        facts = {"rows": len(self.look_rows), "seconds": time.perf_counter() - began}
        epoch = self.plan.epoch(progress.step)
        self.log("look", step=progress.step, epoch=epoch, held_out_loss=loss, better=better, **facts)
        for tracker in trackers:
            tracker.log(progress.step, {"held_out_loss": loss})
        self.tell.advance(0, held_out_loss=loss)
        if self.settings.early_stopping and progress.looks_without >= self.settings.early_stopping:
            progress.stopped = True
            self.log("early stop", step=progress.step, best_step=progress.best_step, best_loss=progress.best_loss)
            self.tell.note(
                f"Stopped at step {progress.step}: no better held-out loss for {progress.looks_without} looks. "
                f"The best was {progress.best_loss:.4f} at step {progress.best_step}; those weights are kept."
            )
        self.watch(progress.step, loss)

    def _held_out_loss(self) -> float:
        total, weight = 0.0, 0.0
        self.module.eval()
        self.learner.label_smoothing = 0.0  # type: ignore[attr-defined]
        passes = plan_rows(self.looked.sizes[self.look_rows].tolist(), self.settings.tokens_per_pass)
        with torch.no_grad():
            for members in passes[self.crew.rank :: self.crew.size]:
                batch, _ = self._batch(self.looked, self.look_rows[members])
                with machine.passes_in(self.dtype, self.device):
                    loss: Loss = self.objective(self.learner, batch)
                total, weight = total + float(loss.total), weight + float(loss.weight)
        self.learner.label_smoothing = self.settings.label_smoothing  # type: ignore[attr-defined]
        self.module.train()
        seen = self.crew.together({"total": total, "weight": weight})
        total, weight = sum(one["total"] for one in seen), sum(one["weight"] for one in seen)
        return total / weight if weight else math.nan

    # -- stopping and going on ---------------------------------------------------------------------------------------

    def resume(self, inputs: str, train: str, held_out: str) -> None:
        """Go on from the newest whole checkpoint made from the same inputs, or begin."""
        mine = self._fingerprint(inputs, train, held_out)
        self.progress.inputs = mine
        found = disk.newest(self.checkpoints, self._note_broken)
        if found and found.state["progress"]["inputs"] != mine:
            aside = disk.set_aside(self.checkpoints)
            self.tell.note(f"Data, model or settings have changed: tuning starts anew. The old checkpoints: {aside}.")
            found = None
        if self.crew.is_first:
            rewind_events(self.folder / "events.jsonl", found.step if found else -1, mine)
        if found:
            self._restore(found)
            self.tell.note(f"Going on from step {found.step} of {self.plan.steps}.")
            self.log("tune.resume", step=found.step, checkpoint=found.name)
            return
        for name, tokens in (("train", self.rows), ("held_out", self.looked)):
            self.log("tokens", part=name, **asdict(tokens.counts))
        trainable, parameters = self._sizes()
        self.log("tune.start", rows=len(self.rows), held_out_rows=len(self.looked), slots=int(self.rows.sizes.sum()),
                 supervised=float(self.rows.weights.sum()), trainable=trainable, parameters=parameters,
                 device=str(self.device), dtype=str(self.dtype).removeprefix("torch."), threads=torch.get_num_threads(),
                 steps=self.plan.steps, epochs=self.plan.epoch(self.plan.steps), seed=self.seed,
                 inputs=mine)  # fmt: skip

    def _must_agree(self) -> None:
        """Crews differ by nothing but their rows: the same software on the same kind of machine, or no crew."""
        if self.crew.size == 1:
            return
        digest = hashlib.sha256()
        for parameter in self.weights.values():
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        digests = [one["weights"] for one in self.crew.together({"weights": digest.hexdigest()})]
        if len(set(digests)) > 1:
            raise ModelError(
                f"The weights of the {self.crew.size} workers differ at step {self.progress.step}.",
                "Give them the same files, libraries and kind of processor.",
            )

    def _save(self) -> None:
        progress = self.progress
        if progress.bad_in_row and not all(bool(p.isfinite().all()) for p in self.weights.values()):
            return  # the last good checkpoint stays the newest
        self._must_agree()
        if not self.crew.is_first:
            return
        began, plain = time.perf_counter(), {}
        tensors: dict[str, Tensor] = {f"weights.{n}": p for n, p in self.weights.items()}
        tensors |= {f"buffers.{n}": b for n, b in self._changed_buffers().items()}
        tensors |= {f"ema.{n}": t for n, t in self.ema.items()} | {f"best.{n}": t for n, t in self.best.items()}
        for key, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{key}.{name}"] = value
                elif value is not None:
                    plain[f"{key}.{name}"] = value
        for number, step in enumerate(self.steps_taken):
            if hasattr(step, "state"):
                tensors |= {f"regularizers.{number}.{name}": t for name, t in step.state().items()}
        random_tensors, random_plain = machine.random_state(self.device)
        tensors |= {f"random.{name}": t for name, t in random_tensors.items()}
        state = {"progress": asdict(progress), "optimizer": plain, "random": random_plain}
        _sync_events(self.folder / "events.jsonl")
        path = disk.save(self.checkpoints, progress.step, state, tensors, keep=self.settings.keep_checkpoints)
        place, seconds = str(path.relative_to(self.folder)), time.perf_counter() - began
        self.log("checkpoint", step=progress.step, path=place, seconds=seconds)

    def _restore(self, found: disk.Checkpoint) -> None:
        self.progress = Progress(**found.state["progress"])
        self.resumed_from = found.step
        buffers = _buffers(self.module)
        with torch.no_grad():
            for name, tensor in found.part("weights").items():
                self.weights[name].copy_(tensor)
            for name, tensor in found.part("buffers").items():
                buffers[name].copy_(tensor)
            for name, tensor in found.part("ema").items():
                self.ema[name].copy_(tensor)
        self.best = {n: t.to(self.device) for n, t in found.part("best").items()}
        values: dict[int, dict[str, Any]] = {}
        for name, value in (*found.part("optimizer").items(), *found.state["optimizer"].items()):
            key, _, name = name.partition(".")
            values.setdefault(int(key), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": values})
        for number, step in enumerate(self.steps_taken):
            if hasattr(step, "restore"):
                step.restore({n: t.to(self.device) for n, t in found.part(f"regularizers.{number}").items()})
        machine.set_random_state(found.part("random"), found.state["random"], self.device)

    def _fingerprint(self, inputs: str, train: str, held_out: str) -> str:
        shapes = [(name, list(p.shape)) for name, p in self.weights.items()]
        wrapped = [chosen.as_dict() for chosen in self.chosen]
        plain = (self.objective.as_dict(), wrapped, what_matters(self.settings), self.seed)
        return fingerprint(inputs, train, held_out, plain, shapes, self.rows.digest, self.looked.digest)

    def _note_broken(self, name: str, reason: str) -> None:
        self.log("checkpoint broken", checkpoint=name, reason=reason)
        self.tell.note(f"The checkpoint {name} is passed over: {reason}.")

    def _leave_weights(self) -> None:
        """Put into the module what is to be saved: with early stopping the best, else the average, else what it has."""
        chosen = self.best if self.settings.early_stopping and self.best else self.ema
        with torch.no_grad():
            for name, tensor in chosen.items():
                self.weights[name].copy_(tensor)
        if not all(bool(p.isfinite().all()) for p in self.weights.values()):
            raise ModelError("The tuned weights are not finite.", "Lower train.learning_rate, or use float32.")
        self.module.eval()

    # -- details -----------------------------------------------------------------------------------------------------

    def _wrap(self, context: Context) -> Step:
        def plain(batch: Any) -> Loss:
            loss: Loss = self.objective(self.learner, batch)
            return loss

        step: Step = plain
        for chosen in self.chosen:
            step = chosen(step, self.learner, context=context)
            self.steps_taken.append(step)
        return step

    def _batch(self, rows: Tokens, members: np.ndarray) -> tuple[Any, int]:
        """What the learner collates, on the device, and the slots that it takes there."""
        items = [rows[int(i)] for i in members]
        batch = self.learner.collate(items)
        if self.device.type != "cpu" and hasattr(batch, "to"):
            batch = batch.to(self.device)
        return batch, int(getattr(batch, "slots", 0) or sum(item.size for item in items))

    def _planned_weight(self, chosen: np.ndarray) -> float:
        return float(self.rows.weights[chosen].sum()) or 1.0

    def _to_save(self) -> dict[str, Tensor]:
        return self.ema or dict(self.weights)

    @contextmanager
    def _shown_as_saved(self) -> Iterator[None]:
        """The averaged weights in place of the trained ones, without a copy."""
        trained = {name: p.data for name, p in self.weights.items()}
        for name, average in self.ema.items():
            self.weights[name].data = average
        try:
            yield
        finally:
            for name in self.ema:
                self.weights[name].data = trained[name]

    def _changed_buffers(self) -> dict[str, Tensor]:
        """Buffers written since the start (running means): compared by value, for torch counts not every write."""
        return {n: b for n, b in _buffers(self.module).items() if n not in self.buffers or not b.equal(self.buffers[n])}

    def _sizes(self) -> tuple[int, int]:
        return sum(p.numel() for p in self.weights.values()), sum(p.numel() for p in self.module.parameters())

    def _outcome(self) -> Outcome:
        progress, (trainable, parameters) = self.progress, self._sizes()
        return Outcome(
            steps=progress.step, planned_steps=self.plan.steps, epochs=self.plan.epoch(progress.step),
            loss=progress.loss, held_out_first=progress.held_out_first, held_out_last=progress.held_out_last,
            held_out_best=progress.best_loss, best_step=progress.best_step, skipped_steps=progress.bad,
            stopped_early=progress.stopped, resumed_from=self.resumed_from, rows=len(self.rows),
            held_out_rows=len(self.looked), unlearnable=dict(self.rows.counts.reasons),
            cut_rows=self.rows.counts.cut_rows, supervised=progress.supervised, real=progress.real,
            slots=progress.slots, seconds=progress.seconds,
            speed=progress.real / progress.seconds if progress.seconds else 0.0, trainable=trainable,
            parameters=parameters, peak_memory=machine.peak_memory(self.device),
        )  # fmt: skip


@dataclass
class Progress:
    """How far a training has come: plain data, saved in each checkpoint."""

    step: int = 0
    inputs: str = ""
    loss: float = math.inf
    looks: int = 0
    held_out_first: float | None = None
    held_out_last: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    looks_without: int = 0
    stopped: bool = False
    bad: int = 0
    bad_in_row: int = 0
    seconds: float = 0.0
    supervised: float = 0.0
    real: int = 0
    slots: int = 0


@dataclass
class Done:
    """What the passes of a step came to; `figures` are sums by weight."""

    total: float = 0.0
    weight: float = 0.0
    slots: int = 0
    passes: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    asked: bool = False


def _sum(parts: Sequence[Done]) -> Done:
    whole = parts[0]
    for part in parts[1:]:
        whole.total, whole.weight = whole.total + part.total, whole.weight + part.weight
        whole.slots, whole.passes = whole.slots + part.slots, whole.passes + part.passes
        whole.asked = whole.asked or part.asked
        for name, value in part.figures.items():
            whole.figures[name] = whole.figures.get(name, 0.0) + value
    return whole


def what_matters(settings: Train) -> dict[str, Any]:
    """The settings that make the training what it is; the others may change between a kill and the next start."""
    return settings.model_dump(mode="json", exclude=_FREE) | {"epochs": str(epochs_wanted(settings))}


def make_optimizer(module: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """Weights that multiply decay; norms, biases and embeddings do not.

    AdamW, SGD and Adafactor decay the weights themselves (Loshchilov & Hutter 2019); Adam, as it was published, adds
    the decay to the gradient.
    """
    tables = [part for part in module.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))]
    embedded = {id(parameter) for table in tables for parameter in table.parameters()}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            keep = parameter.ndim < 2 or id(parameter) in embedded or name.endswith("bias")
            (plain if keep else decayed).append(parameter)
    decay = settings.weight_decay
    groups = [{"params": p, "decay": d, "weight_decay": d} for p, d in ((decayed, decay), (plain, 0.0)) if p]
    rate, betas = settings.learning_rate, settings.betas
    match settings.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, rate, betas=betas, fused=True)
        case "adam":
            return torch.optim.Adam(groups, rate, betas=betas, fused=True)
        case "sgd":
            return torch.optim.SGD([{**g, "weight_decay": 0.0} for g in groups], rate, momentum=settings.momentum)
        case "adafactor":
            return torch.optim.Adafactor(groups, rate)


def rewind_events(path: Path, step: int, inputs: str) -> None:
    """Take out of events.jsonl what the loop will say again: its events after `step`, and torn lines.

    With step -1 everything that the loop ever said goes; what an earlier training from other inputs said is kept as
    `events.old-1.jsonl`. The file is replaced at once.
    """
    if not path.exists():
        return
    kept: list[bytes] = []
    gone: list[bytes] = []
    foreign = False
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            fact = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        event = fact.get("event")
        foreign = foreign or (event == "tune.start" and fact.get("inputs") != inputs)
        again = event == "tune.end" or (event in STEP_EVENTS and fact.get("step", 0) > step)
        again = again or (step < 0 and event in RUN_EVENTS)
        (gone if again else kept).append(line)
    if foreign and gone:
        number = 1
        while (aside := path.with_name(f"events.old-{number}.jsonl")).exists():
            number += 1
        _replace(aside, b"".join(gone))
    _replace(path, b"".join(kept))


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _sync_events(path: Path) -> None:
    """A checkpoint must not outlive the events before it."""
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _encode(
    train: Dataset, held_out: Dataset, encode: Callable[[Example], Encoded], folder: Path, encoding: str,
    objective: Chosen, log: Callable[..., None], tell: Tell,
) -> tuple[Tokens, Tokens]:  # fmt: skip
    key, place = fingerprint(encoding, objective.as_dict()), folder / "tokens"
    rows = encode_all(train, encode, place, key=key, tell=tell, title="Encoding training rows")
    looked = encode_all(held_out, encode, place, key=key, tell=tell, title="Encoding held-out rows")
    forget_others(place, rows, looked)
    for name, counts in (("training", rows.counts), ("held-out", looked.counts)):
        if counts.unlearnable:
            tell.note(f"{counts.unlearnable} {name} rows teach nothing: {_reasons(counts)}.")
    if not len(rows):
        log("tokens", part="train", **asdict(rows.counts))
        why = f" of {rows.counts.unlearnable} rows ({_reasons(rows.counts)})" if rows.counts.unlearnable else ""
        raise DataError(f"There is nothing to learn: no row{why} can be taught.", "Look at the data report.")
    return rows, looked


def _reasons(counts: Counts) -> str:
    return ", ".join(f"{number} × {reason}" for reason, number in Counter(counts.reasons).most_common(5))


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that learn, kept in float32 whatever the precision of the passes."""
    found = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not found:
        raise ModelError("Nothing is trainable in this model.", "Choose another method.")
    for parameter in found.values():
        if parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
    return found


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """Persistent buffers but the big ones, which are constants (a quantised base's weights)."""
    weights = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    kept = module.state_dict(keep_vars=True).items()
    return {n: t for n, t in kept if n not in weights and isinstance(t, Tensor) and t.numel() <= 1 << 20}


def _set_dropout(module: nn.Module, share: float | None) -> None:
    """Layers, and the plain numbers that attention reads (`attention_dropout`, `dropout`, `activation_dropout` …)."""
    if share is None:
        return
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = share
        for name, value in list(vars(part).items()):
            if isinstance(value, float) and (name.endswith("dropout") or name.endswith(("dropout_prob", "dropout_p"))):
                setattr(part, name, share)


def _some(count: int, most: int, seed: int) -> np.ndarray:
    """At most `most` of `count` rows, always the same for the same seed."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng((seed, 1)).choice(count, most, replace=False))


class _Interrupts:
    """Ctrl-C (or SIGTERM) is heard between steps, so that a checkpoint can be written; a second is obeyed at once."""

    def __init__(self, tell: Tell):
        self.tell, self.asked = tell, 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def leave(self, step: int) -> None:
        self.tell.note(f"Stopped after step {step}; a checkpoint is written. The same command goes on from there.")
        if self.asked == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _hear(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = number
        self.tell.note("Finishing this step and writing a checkpoint; once more to stop at once.")


@contextmanager
def _memory_as_model_error() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise ModelError(
            f"The memory does not suffice: {str(error).splitlines()[0]}",
            "Lower train.tokens_per_pass (the result stays the same) or task.max_length.",
        ) from error
