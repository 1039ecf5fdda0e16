"""The work of a fine-tuning job: check the files, write a recipe, let a child process carry it out, serve the result.

Whatever dies on the way, the job goes on where it was: what was decided is in `job.place`, what was learned in the
checkpoints of the run, and each step of the end may be done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import zlib
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from genwright.core import Run
from genwright.core.run import write_text

from .child import Child, undisturbed
from .errors import Wrong
from .house import House
from .jobs import Jobs
from .registry import Served
from .results import borrow, file_for, keep_file
from .store.tables import Job
from .tuning import recipe_of, resolved, result_csv
from .wire import new_id, now

AT_ONCE = 4  # jobs whose files are checked or that wait for their turn; one of them is tuned
_MODULE = "genwright.server.tuning_job"
_FAILED = 3  # exit code of the child: failed.json says why
_MOST_CRASHES = 3  # in a row without a step between them
_SPEED_OF = 20  # newest steps from which the end is estimated
_turns: WeakKeyDictionary[Jobs, asyncio.Lock] = WeakKeyDictionary()


async def work(job: Job, house: House) -> dict[str, Any]:
    """See the module. Raises Wrong (400) for files or a model that cannot be used."""
    tuning = Tuning(job, house)
    tuning.folder.mkdir(parents=True, exist_ok=True)
    if "checked" not in job.place:
        await tuning.check()
    async with _turns.setdefault(house.jobs, asyncio.Lock()):
        await tuning.tune()
    return await tuning.release()


def folder_of(house: House, id: str) -> Path:
    """Where a job's files lie; the run has the same name again inside, so that trackers show it."""
    return house.options.data.resolve() / "tuned" / id


class Tuning:
    """One job under way."""

    def __init__(self, job: Job, house: House):
        self.job, self.house, self.asked = job, house, job.payload
        self.folder = folder_of(house, job.id)
        self.run = self.folder / job.id
        self.tail = Tail(self.run / "events.jsonl")
        self.seconds: list[float] = []  # of the newest steps

    # -- first: the files ----------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Read every line of the files and find the base. Raises Wrong (400) with line numbers."""
        await self.remember(phase="validating_files")
        await self.say(f"Validating training file: {self.asked['training_file']}")
        await self._bring("training")
        if self.asked["validation_file"]:
            await self._bring("validation")
        plan = {"kind": self.asked["kind"], "model": self.asked["source"]}
        write_text(self.folder / "plan.json", json.dumps(plan))
        await self._carry_out("check")
        found = json.loads((self.folder / "checked.json").read_text(encoding="utf-8"))
        for part in ("training", "validation"):
            if problem := found.get(part, {}).get("problem"):
                raise Wrong(400, problem, param=f"{part}_file", code=f"invalid_{part}_file")
        chosen = resolved(self.asked["hyperparameters"], found["training"]["rows"], found["size"])
        await self.say("Files validated, moving job to queued state")
        await self.remember(phase="queued", checked=found, chosen=chosen, result_file=new_id("file-"))

    async def _bring(self, part: str) -> None:
        """The uploaded file, beside the recipe: it stays there although the upload may be deleted."""
        target = self.folder / f"{part}.jsonl"
        if target.is_file():
            return
        asked = (self.asked[f"{part}_file"], self.job.owner, "fine-tune", f"{part}_file")
        file = await self.house.store.read(file_for, *asked)
        await asyncio.to_thread(borrow, self.house.blobs.path(file.sha256), target)

    # -- second: the training ------------------------------------------------------------------------------------------

    async def tune(self) -> None:
        """Write the recipe and have it carried out; a child that dies is started again where it was."""
        begun = (self.folder / "recipe.json").is_file()
        await self.remember(phase="running")
        await self.say("Fine-tuning job resumed" if begun else "Fine-tuning job started")
        if not begun:
            write_text(self.folder / "recipe.json", json.dumps(self._recipe(), indent=2))
        if not (self.folder / "result.json").is_file():
            await self._carry_out("tune")

    def _recipe(self) -> dict[str, Any]:
        asked, checked = self.asked, self.job.place["checked"]
        adapter = asked["adapted"] or checked["base"] == "gguf"
        return recipe_of(
            name=model_id(self.job), source=checked["source"], kind=asked["kind"], folder=self.folder,
            rows=checked["training"]["rows"], weighted=checked["training"]["weighted"],
            validated="validation" in checked, chosen=self.job.place["chosen"], seed=seed_of(self.job),
            trackers=asked["trackers"], formats=[{"name": "gguf", "adapter": True} if adapter else {"name": "gguf"}],
        )  # fmt: skip

    async def _carry_out(self, what: str) -> None:
        """Let a child do it. Raises Wrong (400) when it cannot be done, or the child dies again and again."""
        crashes = 0
        while True:
            step, log = self.job.place.get("step", 0), self.folder / "child.log"
            child = await Child.start(_MODULE, what, str(self.folder), log=log, said=self._note)
            try:
                code = await child.end(self._look)
            except BaseException:
                await undisturbed(self._stop(child, what))
                raise
            if code == 0:
                return
            if code == _FAILED:
                told = json.loads((self.folder / "failed.json").read_text(encoding="utf-8"))
                param = "training_file" if told["code"] == "invalid_training_file" else None
                raise Wrong(400, told["message"], code=told["code"], param=param)
            crashes = 1 if self.job.place.get("step", 0) > step else crashes + 1
            if crashes == _MOST_CRASHES:
                raise Wrong(400, f"The process that tunes has ended {crashes} times without getting on (exit code "
                            f"{code}). {_last_line(log)}".strip(), code="tuning_crashed")  # fmt: skip
            await self.say(f"The process that tunes has ended (exit code {code}); it goes on where it was.", "warn")

    async def _stop(self, child: Child, what: str) -> None:
        """When the job is cancelled nothing is kept; else a checkpoint is written, in a pause without hurry."""
        job = await self.house.jobs.get(self.job.id, None)
        cancelled = job.state == "cancelling"
        await child.stop(at_once=cancelled or what == "check", **({"patience": None} if job.wanted == "pause" else {}))
        if cancelled:
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
        elif job.wanted == "pause":
            await self.say("The job has been paused.")

    async def _note(self, told: dict[str, Any]) -> None:
        note = str(told.get("note", ""))
        if note and str(self.house.options.data.resolve()) not in note:  # where things lie is no client's business
            await self.say(note)

    async def _look(self) -> None:
        """Tell of the newest step. What a resumed run says again has been told."""
        place = dict(self.job.place)
        told: dict[str, Any] = {}
        for event in self.tail.read():
            if event["event"] == "tune.start":
                place["steps"] = event["steps"]
            elif event["event"] == "step" and event["step"] > place.get("step", 0):
                place["step"] = event["step"]
                told |= {"step": event["step"], "train_loss": round(event["loss"], 6)}
                self.seconds = [*self.seconds[1 - _SPEED_OF :], event["seconds"]]
            elif event["event"] == "look" and event["step"] == place.get("step"):
                told |= {"step": event["step"], "valid_loss": round(event["held_out_loss"], 6)}
        if not told:
            if place != self.job.place:  # it has begun, and there is no step yet
                await self.house.jobs.remember(self.job, place)
            return
        left = (place["steps"] - place["step"]) * statistics.fmean(self.seconds) if self.seconds else 0.0
        place["estimated_finish"] = now() + round(left)
        losses = [f"{part} loss={told[key]:.4f}" for part, key in _LOSSES if key in told]
        data = told | {"total_steps": place["steps"]}
        await self.say(f"Step {place['step']}/{place['steps']}: {', '.join(losses)}", data=data)
        await self.house.jobs.remember(self.job, place)

    # -- third: what came of it ----------------------------------------------------------------------------------------

    async def release(self) -> dict[str, Any]:
        """The result file and the served model; then what only tuning needed is removed."""
        made = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
        events = await asyncio.to_thread(lambda: list(Run(self.run).events()))
        await keep_file(self.house, result_csv(events).encode(), id=self.job.place["result_file"], owner=self.job.owner,
                        name="step_metrics.csv", purpose="fine-tune-results")  # fmt: skip
        checkpoints = [{"step": one["step"], "model": f"{model_id(self.job)}:ckpt-step-{one['step']}",
                        "path": one["path"], "run": one["run"]} for one in made["checkpoints"]]  # fmt: skip
        last = {"step": made["steps"], "model": model_id(self.job), "path": made["path"], "run": str(self.run)}
        for one in (*checkpoints, last):
            await self.house.fleet.register(self._served(one, adapter=made["kind"] == "adapter"))
        await self.say(f"New fine-tuned model created: {model_id(self.job)}")
        await asyncio.to_thread(self._tidy)
        await self.say("The job has successfully completed")
        return {
            "model": model_id(self.job), "kind": made["kind"], "trained_tokens": made["trained_tokens"],
            "checkpoints": [_metrics(one, events) for one in (*checkpoints, last)],
        }  # fmt: skip

    def _served(self, one: dict[str, Any], *, adapter: bool) -> Served:
        """An adapter shares the process of the model at the root; anything else is a run of its own."""
        worn = {"adapter": one["path"], "run": one["run"]} if adapter else {}
        parent = self.asked["root"] if adapter else self.asked["model"]
        return Served(one["model"], source=one["run"], parent=parent, owner=self.job.owner, **worn)

    def _tidy(self) -> None:
        """Rows and checkpoints go; the model, its provenance and the events stay."""
        for part in ("training", "validation"):
            for name in (f"{part}.jsonl", f"{part}.rows.jsonl"):
                (self.folder / name).unlink(missing_ok=True)
        for part in ("checkpoints", "tokens", "data"):
            shutil.rmtree(self.run / part, ignore_errors=True)

    # -- telling -------------------------------------------------------------------------------------------------------

    async def say(self, message: str, level: str = "info", data: dict[str, Any] | None = None) -> None:
        await self.house.jobs.event(self.job.id, message, level, data)

    async def remember(self, **facts: Any) -> None:
        await self.house.jobs.remember(self.job, self.job.place | facts)


_LOSSES = (("training", "train_loss"), ("validation", "valid_loss"))


class Tail:
    """A file of JSON lines that grows, and that may be put anew in its place: then it is read from the start."""

    def __init__(self, path: Path):
        self.path, self.file, self.at = path, 0, 0

    def read(self) -> list[dict[str, Any]]:
        """The whole lines that came since the last call."""
        try:
            with self.path.open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                if number != self.file:
                    self.file, self.at = number, 0
                file.seek(self.at)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self.at += len(whole) + len(newline)
        found = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):  # torn by a kill
                found.append(json.loads(line))
        return found


def model_id(job: Job) -> str:
    """`ft:base:owner:suffix:id`, as OpenAI names them."""
    root = job.payload["root"]
    base = root.split(":")[1] if root.startswith("ft:") else root
    return f"ft:{base}:{job.owner}:{job.payload['suffix']}:{job.id[-8:]}"


def seed_of(job: Job) -> int:
    """The one that was asked for, else one that follows from the job's id."""
    asked = job.payload["seed"]
    return zlib.crc32(job.id.encode()) >> 1 if asked is None else int(asked)


def _metrics(one: dict[str, Any], events: list[dict[str, Any]]) -> dict[str, Any]:
    """A checkpoint with what was measured at its step; `full_valid_loss` is over all rows of the validation file."""
    found: dict[str, Any] = {"step": one["step"]}
    rows = next((e["held_out_rows"] for e in events if e["event"] == "tune.start"), 0)
    for event in events:
        if event.get("step") == one["step"] and event["event"] == "step":
            found["train_loss"] = event["loss"]
        elif event.get("step") == one["step"] and event["event"] == "look":
            found["valid_loss"] = event["held_out_loss"]
            found |= {"full_valid_loss": event["held_out_loss"]} if event["rows"] == rows else {}
    return {"step": one["step"], "model": one["model"], "metrics": found}


def _last_line(log: Path) -> str:
    """The last thing that a child said before it died."""
    lines = log.read_bytes()[-4000:].decode("utf-8", "replace").strip().splitlines()
    return f"Its last words: {lines[-1][:300]}" if lines else ""
