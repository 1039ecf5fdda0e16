"""The work of a run of an eval: its items are answered, judged, and kept as output items, a handful at a time.

Within a handful all items are asked of one model before any is asked of the next, so that two models which do not fit
into memory together do not push each other out at every item. What was asked stands in a notebook on the disk, and a
handful's output items appear at once with the note of how far the run is: a run that is taken up again asks nothing
twice.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from . import eval_sources, grading
from .child import undisturbed
from .errors import Wrong
from .eval_sources import Content, JsonLines, Source, Uploaded, read_items, write_kept, write_rows
from .graders import Criteria, Criterion, texts_of
from .house import House, asker
from .inside import Inside, Reply, each
from .item_schemas import checker
from .json_lines import Lines
from .notebook import Notebook
from .output_items import output_item
from .results import borrow, file_for
from .routes import chat, embeddings, responses
from .store.documents import put
from .store.tables import Job
from .templates import Missing, places, steps
from .wire import now

AT_ONCE = 2  # runs
ITEM = "eval.run.output_item"  # the kind of the documents; their parent is the run
_HANDFUL = 64  # items
_TOLD = 10  # problems of a file that are told
_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)
_CRITERIA: TypeAdapter[list[Criterion]] = TypeAdapter(Criteria)


async def work(job: Job, house: House) -> dict[str, Any]:
    """See the module. Raises Wrong (400) for items that cannot be used, (401) when the key is no longer valid."""
    if not await house.keys.is_valid(asker(job)):
        raise Wrong(401, "The key that asked for this run is not valid any more.", code="invalid_api_key")
    run = EvalRun(job, house)
    await asyncio.to_thread(run.folder.mkdir, parents=True, exist_ok=True)
    try:
        await run.open()
        await run.go_through()
    except Wrong as error:
        if error.status < 500:
            await asyncio.to_thread(run.remove)
        raise
    except asyncio.CancelledError:
        await undisturbed(run.cancelled())
        raise
    await asyncio.to_thread(run.remove)
    return {}


def folder_of(house: House, id: str) -> Path:
    return house.options.data / "evals" / id


class EvalRun:
    """One run under way."""

    def __init__(self, job: Job, house: House):
        self.job, self.house, self.asked, self.caller = job, house, job.payload, asker(job)
        self.folder = folder_of(house, job.id)
        self.notebook = Notebook(self.folder / "answered.jsonl")
        self.inside = Inside(house, chat, responses, embeddings)
        self.source = _SOURCE.validate_python(self.asked["data_source"])
        self.criteria = _CRITERIA.validate_python(self.asked["testing_criteria"])
        self.embedder = house.options.embedder
        self.handful: Sequence[int] = ()
        self.lines: Lines

    # -- the items -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Bring the items, look at each, and learn what was answered before. Raises Wrong (400) with line numbers."""
        path = self.folder / "items.jsonl"
        if not path.exists():
            await self._bring(path)
        schema, config = self.asked["item_schema"], self.asked["config_type"]
        check = checker(schema, "item_schema") if schema is not None and config == "custom" else lambda item: ""
        self.lines = lines = await asyncio.to_thread(read_items, path, check, needs_sample=self._needs_sample())
        if lines.problems:
            told = [f"Line {one['line']}: {one['message']}" if one["line"] else one["message"]
                    for one in lines.problems[:_TOLD]]  # fmt: skip
            raise Wrong(400, " ".join(told), code=lines.problems[0]["code"])
        await asyncio.to_thread(self.notebook.open)
        if "total" not in self.job.place:
            fresh = {"total": len(lines), "done": 0, "counts": {"passed": 0, "failed": 0, "errored": 0}, "usage": {},
                     "criteria": [{"passed": 0, "failed": 0, "errored": 0} for _ in self.criteria]}  # fmt: skip
            await self.house.jobs.remember(self.job, fresh | {"in_progress_at": now()})

    async def _bring(self, path: Path) -> None:
        source = self.source.source
        if isinstance(source, Content):
            rows = [row.model_dump(exclude_none=True) for row in source.content]
            await asyncio.to_thread(write_rows, rows, path)
        elif isinstance(source, Uploaded):
            file = await self.house.store.read(file_for, source.id, self.job.owner, "evals", "data_source.source.id")
            await asyncio.to_thread(borrow, self.house.blobs.path(file.sha256), path)
        else:
            wanted = (self.asked["config_metadata"] or {}) | (source.metadata or {})
            source = source.model_copy(update={"metadata": wanted})
            await self.house.store.read(write_kept, source, self.job.owner, self.job.created, path)

    def _needs_sample(self) -> bool:
        """Whether a criterion reads an answer that no model is asked for."""
        if not isinstance(self.source, JsonLines) and self.source.model:
            return False
        return any(steps(place)[0] == "sample" for one in self.criteria for _, text in texts_of(one)
                   for place in places(text))  # fmt: skip

    # -- asking --------------------------------------------------------------------------------------------------------

    async def go_through(self) -> None:
        """Ask and judge all items that are not kept yet."""
        while (done := self.job.place["done"]) < len(self.lines):
            self.handful = range(done, min(done + _HANDFUL, len(self.lines)))
            sampled = getattr(self.source, "model", None)
            if sampled:
                await self._ask(0, sampled)
            for step, one in enumerate(self.criteria, 1):
                if model := grading.asks(one, self.embedder):
                    await self._ask(step, model)
            await self._keep(self.handful)

    async def _ask(self, step: int, model: str) -> None:
        """Ask one model what step (0: the answer; 1 …: a criterion) wants to know of each item of the handful."""
        left = [item for item in self.handful if self._number(item, step) not in self.notebook.places]
        if not left:
            return
        facts = await self.house.fleet.ready(self.house.fleet.find(model, self.caller))

        async def ask(place: int) -> None:
            if asked := await asyncio.to_thread(self._question, place, step):
                reply = await self.inside.ask(*asked, self.caller)
                await self.notebook.keep(_entry(self._number(place, step), reply))

        await each(left, ask, at_once=max(1, int(facts.get("parallel") or 1)))

    def _question(self, place: int, step: int) -> tuple[str, dict[str, Any]] | None:
        """What is to be asked; None for what cannot be, which the output item tells."""
        row = self.lines.read(place)
        try:
            if step == 0:
                assert not isinstance(self.source, JsonLines)
                return eval_sources.question(self.source, row["item"])
            return grading.question(self.criteria[step - 1], self._names(row, place), self.embedder)
        except Missing:
            return None

    def _names(self, row: dict[str, Any], place: int) -> dict[str, Any]:
        """The names that templates may use. Raises Missing when the item has no answer that it should have."""
        sample = row.get("sample")
        if getattr(self.source, "model", None):
            sample = self._answered(place)
        return {"item": row["item"], **({"sample": grading.sample_names(sample)} if sample else {})}

    def _answered(self, place: int) -> dict[str, Any]:
        entry = self.notebook.read(self._number(place, 0))
        if entry is None:
            raise Missing("The item could not be asked.")
        grading.check_answer(entry["line"])
        found: dict[str, Any] = entry["line"]["body"]
        return found

    def _number(self, place: int, step: int) -> int:
        """What an answer is called in the notebook."""
        return place * (len(self.criteria) + 1) + step

    # -- keeping -------------------------------------------------------------------------------------------------------

    async def _keep(self, handful: Sequence[int]) -> None:
        items = await asyncio.to_thread(lambda: [self._output_item(place) for place in handful])
        place = _counted(self.job.place, items)

        def keep(session: Session) -> None:
            for item in items:
                shown = {key: value for key, value in item.items() if key != "asked"}
                put(session, ITEM, item["id"], self.job.owner, shown, parent=self.job.id)

        await self.house.jobs.remember(self.job, place, also=keep)

    def _output_item(self, place: int) -> dict[str, Any]:
        """The output item, and under `asked` what was asked for it: [(model, usage)]."""
        row = self.lines.read(place)
        answers = [self.notebook.read(self._number(place, step)) for step in range(len(self.criteria) + 1)]
        bodies = [entry and entry["line"] for entry in answers]
        error, results, names = "", [], {"item": row["item"]}
        try:
            if getattr(self.source, "model", None):
                eval_sources.question(self.source, row["item"])  # type: ignore[arg-type]  # what is missing is told
            names = self._names(row, place)
            results = [grading.result(one, names, body) for one, body in zip(self.criteria, bodies[1:], strict=True)]
        except Missing as missing:
            error = str(missing)
        made = output_item(self.job, place, row, self.source, bodies[0], results, error)
        return made | {"asked": [(body["model"], body["usage"]) for body in bodies if body and body["status"] < 400]}

    # -- the end -------------------------------------------------------------------------------------------------------

    async def cancelled(self) -> None:
        """When the caller wanted that, items that were asked everything are kept; when the server ends, it goes on
        later; and of a run that was deleted nothing stays."""
        try:
            job = await self.house.jobs.get(self.job.id, None)
        except Wrong as error:
            if error.status == 404:
                await asyncio.to_thread(self.remove)
            return
        if job.state == "cancelling" and "total" in self.job.place:
            async with self.notebook.writing:  # whoever was stopped may still be writing
                whole = [place for place in self.handful if place >= self.job.place["done"] and self._is_whole(place)]
            await self._keep(whole)
            await asyncio.to_thread(self.remove)

    def _is_whole(self, place: int) -> bool:
        asked = [0] if getattr(self.source, "model", None) else []
        asked += [step for step, one in enumerate(self.criteria, 1) if grading.asks(one, self.embedder)]
        return all(self._number(place, step) in self.notebook.places for step in asked)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _entry(number: int, reply: Reply) -> dict[str, Any]:
    """An answer as the notebook holds it: of a response or a chat its body, of vectors their cosine."""
    body = orjson.loads(reply.body) if reply.body else {}
    usage = body.get("usage") or {}
    used = {"input": usage.get("input_tokens", usage.get("prompt_tokens", 0)) or 0,
            "output": usage.get("output_tokens", usage.get("completion_tokens", 0)) or 0}  # fmt: skip
    cached = (usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}).get("cached_tokens", 0)
    if reply.status < 400 and isinstance(body.get("data"), list):
        body = {"cosine": grading.cosine([one["embedding"] for one in body["data"]]), "model": body["model"],
                "usage": usage}  # fmt: skip
    told = {"prompt_tokens": used["input"], "completion_tokens": used["output"], "cached_tokens": cached,
            "total_tokens": sum(used.values())}  # fmt: skip
    line = {"status": reply.status, "body": body, "model": body.get("model"), "usage": told}
    return {"n": number, "good": reply.status < 400, **used, "line": line}


def _counted(place: dict[str, Any], items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far the run is, with these items too."""
    counts, criteria = dict(place["counts"]), [dict(one) for one in place["criteria"]]
    used = {model: dict(one) for model, one in place["usage"].items()}
    for item in items:
        counts[_COUNTED[item["status"]]] += 1
        for one, result in zip(criteria, item["results"], strict=False):
            one["errored" if "error" in result else "passed" if result["passed"] else "failed"] += 1
        for model, usage in item["asked"]:
            sums = used.setdefault(model, {"invocation_count": 0} | dict.fromkeys(usage, 0))
            sums["invocation_count"] += 1
            for name, count in usage.items():
                sums[name] += count
    done = place["done"] + len(items)
    return place | {"done": done, "counts": counts, "criteria": criteria, "usage": used}


_COUNTED = {"pass": "passed", "fail": "failed", "error": "errored"}
