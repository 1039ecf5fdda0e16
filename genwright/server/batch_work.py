"""The work of a batch: each line asked as its caller would ask it, as many at once as the model answers together."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from .batch_lines import check_lines
from .child import undisturbed
from .errors import Wrong
from .house import House, asker
from .inside import Inside, Reply, each
from .json_lines import Lines
from .notebook import Notebook
from .results import borrow, file_for, keep_file
from .routes import chat, completions, embeddings, moderations, responses
from .store.tables import Job
from .wire import new_id, now

AT_ONCE = 2  # batches
ENDPOINTS = {"/v1/chat/completions": chat, "/v1/completions": completions, "/v1/embeddings": embeddings,
             "/v1/responses": responses, "/v1/moderations": moderations}  # fmt: skip
_OFTEN = 0.5  # seconds between two notes of how far it is
_WITHOUT_MODEL = 2  # lines at once that no model answers


async def work(job: Job, house: House) -> dict[str, Any]:
    """See the module. Raises Wrong (400) for a file that cannot be asked."""
    batch = Batch(job, house)
    batch.folder.mkdir(parents=True, exist_ok=True)
    await batch.open()
    try:
        async with asyncio.timeout(max(0.0, job.created + job.payload["window"] - time.time())):
            await batch.answer()
    except TimeoutError:
        return await undisturbed(batch.close("expired"))
    except asyncio.CancelledError:
        return await undisturbed(batch.cancelled())
    return await undisturbed(batch.close("completed"))


class Batch:
    """One batch under way."""

    def __init__(self, job: Job, house: House):
        self.job, self.house, self.asked = job, house, job.payload
        self.caller = asker(job)
        self.folder: Path = house.options.data / "batches" / job.id
        self.notebook = Notebook(self.folder / "answered.jsonl")
        self.inside = Inside(house, ENDPOINTS[self.asked["endpoint"]])
        self.noted = 0.0
        self.lines: Lines

    async def open(self) -> None:
        """Check the file, and learn what was answered before. Raises Wrong (400) with line numbers in the job."""
        copy = self.folder / "input.jsonl"
        if not copy.exists():
            asked = (self.asked["input_file_id"], self.job.owner, "batch", "input_file_id")
            file = await self.house.store.read(file_for, *asked)
            await asyncio.to_thread(borrow, self.house.blobs.path(file.sha256), copy)
        self.lines = lines = await asyncio.to_thread(check_lines, copy, self.asked["endpoint"])
        model = next(iter(lines.models), "")
        if model and not lines.problems:
            try:
                self.house.fleet.find(model, self.caller)
            except Wrong as unknown:
                lines.object(None, "model_not_found", str(unknown), "body.model")
        if lines.problems:
            await self.remember(errors=lines.problems)
            first = lines.problems[0]
            where = f"Line {first['line']}: " if first["line"] else ""
            raise Wrong(400, f"{where}{first['message']}", param=first["param"], code=first["code"])
        await asyncio.to_thread(self.notebook.open)
        if "output" not in self.job.place:
            ids = {"output": new_id("file-"), "errors_file": new_id("file-")}
            await self.remember(phase="in_progress", in_progress_at=now(), model=model, total=len(lines), **ids)

    async def answer(self) -> None:
        """Ask every line that has no answer yet."""
        model, together = self.job.place["model"], _WITHOUT_MODEL
        if model:
            facts = await self.house.fleet.ready(self.house.fleet.find(model, self.caller))
            together = max(1, int(facts.get("parallel") or 1))
        left = [n for n, number in enumerate(self.lines.numbers) if number not in self.notebook.places]
        await each(left, self._answer, at_once=together)

    async def _answer(self, place: int) -> None:
        asked = await asyncio.to_thread(self.lines.read, place)
        reply = await self.inside.ask(self.asked["endpoint"], asked["body"], self.caller)
        await self.notebook.keep(_entry(self.lines.numbers[place], asked["custom_id"], reply))
        if time.monotonic() - self.noted > _OFTEN:
            self.noted = time.monotonic()
            await self.remember(totals=dict(self.notebook.totals))

    # -- the end -------------------------------------------------------------------------------------------------------

    async def cancelled(self) -> dict[str, Any]:
        """When the caller wanted that, what was answered is theirs; when the server ends, it goes on later."""
        job = await self.house.jobs.get(self.job.id, None)
        if job.state != "cancelling":
            raise asyncio.CancelledError
        return await self.close("cancelled")

    async def close(self, status: str) -> dict[str, Any]:
        """Write the result files. Lines that an expired batch has not come to stand in the error file."""
        await self.remember(phase="finalizing", finalizing_at=now(), totals=dict(self.notebook.totals))
        async with self.notebook.writing:  # whoever was cancelled may still be writing
            if status == "expired":
                await asyncio.to_thread(self.notebook.write, self._too_late())
        totals, files = self.notebook.totals, {}
        for key, good, count in (("output", True, totals["completed"]), ("errors_file", False, totals["failed"])):
            if count:
                after = self.asked["output_expires_after"]
                files[key] = await keep_file(
                    self.house, self.notebook.lines(good), id=self.job.place[key], owner=self.job.owner,
                    name=f"{self.job.id}_{'output' if good else 'error'}.jsonl", purpose="batch_output",
                    lives=after or None,
                )  # fmt: skip
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
        return {"status": status, "totals": dict(totals), "at": now(), **files}

    def _too_late(self) -> Iterator[dict[str, Any]]:
        error = {"code": "batch_expired", "message": "This request was not come to before the batch expired."}
        for place, number in enumerate(self.lines.numbers):
            if number not in self.notebook.places:
                line = {"id": new_id("batch_req_"), "custom_id": self.lines.read(place)["custom_id"], "response": None,
                        "error": error}  # fmt: skip
                yield {"n": number, "good": False, "input": 0, "output": 0, "line": line}

    async def remember(self, **facts: Any) -> None:
        await self.house.jobs.remember(self.job, self.job.place | facts)


def _entry(number: int, custom_id: str, reply: Reply) -> dict[str, Any]:
    """An answer as the notebook holds it."""
    body = orjson.loads(reply.body) if reply.body else None
    usage = (body.get("usage") or {}) if isinstance(body, dict) else {}
    return {
        "n": number, "good": reply.status < 400,
        "input": usage.get("input_tokens", usage.get("prompt_tokens", 0)) or 0,
        "output": usage.get("output_tokens", usage.get("completion_tokens", 0)) or 0,
        "line": {"id": new_id("batch_req_"), "custom_id": custom_id, "error": None,
                 "response": {"status_code": reply.status, "request_id": reply.request_id, "body": body}},
    }  # fmt: skip
