"""/v1/evals/{id}/runs: a model's answers to items, or answers that are there, judged by the criteria of an eval.

OpenAI's clients read an object in `error` also where there is none: then its texts are empty.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from ..conversation import Metadata, Strict
from ..errors import Wrong
from ..eval_sources import JsonLines, Prompt, Source, StoredCompletions, StoredResponses, Uploaded
from ..eval_work import AT_ONCE, ITEM, folder_of, work
from ..graders import check_model, check_template, fields_of
from ..house import Caller, House, caller_of, house_of, whose
from ..jobs import Handler
from ..output_items import api_error
from ..results import file_for
from ..store.documents import forget_children, nothing
from ..store.tables import Job
from ..wire import documented, new_id, read_body
from .evals import KEPT, RUN, Oldest

JOBS = {RUN: Handler(work, at_once=AT_ONCE)}
router = APIRouter()

_STATES = {"failed": "failed", "cancelled": "canceled", "cancelling": "canceled", "succeeded": "completed"}


class NewRun(Strict):
    name: str | None = Field(None, max_length=500)
    data_source: Source
    metadata: Metadata | None = None


@router.post("/v1/evals/{id}/runs", openapi_extra=documented(NewRun))
async def create(request: Request, id: str) -> dict[str, Any]:
    """A run of an eval. The same Idempotency-Key gives the same run again."""
    asked = await read_body(request, NewRun)
    house, caller = house_of(request), caller_of(request)
    eval = await house.store.get(KEPT, id, caller.owner)
    await _check(house, caller, asked, eval)
    config = eval["data_source_config"]
    payload = {
        "eval_id": id, "name": asked.name or eval["name"], "metadata": asked.metadata or {},
        "data_source": asked.data_source.model_dump(exclude_none=True, by_alias=True),
        "testing_criteria": eval["testing_criteria"], "config_type": config["type"],
        "config_metadata": config.get("metadata"), "item_schema": config["schema"]["properties"]["item"],
        **whose(caller),
    }  # fmt: skip
    key = request.headers.get("idempotency-key")
    job = await house.jobs.submit(RUN, caller.owner, payload, id=new_id("evalrun_"), idempotency_key=key)
    return shown(request, job)


@router.get("/v1/evals/{id}/runs")
async def listed(
    request: Request, id: str, page: Annotated[Oldest, Depends()],
    status: Annotated[Literal["queued", "in_progress", "completed", "canceled", "failed"] | None, Query()] = None,
) -> dict[str, Any]:  # fmt: skip
    """The runs of an eval, also by status."""
    house, owner = house_of(request), caller_of(request).owner
    await house.store.get(KEPT, id, owner)
    found = await house.jobs.list(
        RUN, owner, page.after, page.limit, page.order,
        fits=lambda job: job.payload["eval_id"] == id and status in (None, _status(job)),
    )  # fmt: skip
    return page.shown([shown(request, job) for job in found])


@router.get("/v1/evals/{id}/runs/{run}")
async def retrieve(request: Request, id: str, run: str) -> dict[str, Any]:
    """How far a run is, and what came of it."""
    return shown(request, await _run(request, id, run))


@router.post("/v1/evals/{id}/runs/{run}/cancel")
@router.post("/v1/evals/{id}/runs/{run}")  # as older clients say it
async def cancel(request: Request, id: str, run: str) -> dict[str, Any]:
    """End a run; items that were judged by then stay."""
    job = await _run(request, id, run)
    if job.state in ("succeeded", "failed"):
        raise Wrong(400, f"The run {run} is {_status(job)} already.", code="job_over")
    house = house_of(request)
    job = await house.jobs.cancel(run, caller_of(request).owner)
    if job.state == "cancelled":  # nobody works on it
        await asyncio.to_thread(shutil.rmtree, folder_of(house, run), ignore_errors=True)
    return shown(request, job)


@router.delete("/v1/evals/{id}/runs/{run}")
async def delete(request: Request, id: str, run: str) -> dict[str, Any]:
    """Forget a run with its output items; one under way is stopped."""
    house, owner = house_of(request), caller_of(request).owner
    await _run(request, id, run)
    await house.jobs.forget(run, owner, also=lambda session: forget_children(session, run, owner))
    await asyncio.to_thread(shutil.rmtree, folder_of(house, run), ignore_errors=True)
    return {"object": "eval.run.deleted", "run_id": run, "deleted": True}


@router.get("/v1/evals/{id}/runs/{run}/output_items")
async def items(
    request: Request, id: str, run: str, page: Annotated[Oldest, Depends()],
    status: Annotated[Literal["pass", "fail"] | None, Query()] = None,
) -> dict[str, Any]:  # fmt: skip
    """What a run tells of its items, also of those alone that passed or failed; a few appear at a time."""
    await _run(request, id, run)
    found = await house_of(request).store.list(
        ITEM, caller_of(request).owner, page.after, page.limit, page.order,
        {"status": status} if status else None, parent=run,
    )  # fmt: skip
    return page.shown(found)


@router.get("/v1/evals/{id}/runs/{run}/output_items/{item}")
async def item(request: Request, id: str, run: str, item: str) -> dict[str, Any]:
    """What a run tells of one item."""
    await _run(request, id, run)
    found = await house_of(request).store.get(ITEM, item, caller_of(request).owner)
    if found["run_id"] != run:
        raise nothing(item, "output item")
    return found


def shown(request: Request, job: Job) -> dict[str, Any]:
    """`eval.run`."""
    asked, place = job.payload, job.place or {}
    counts = place.get("counts") or {"passed": 0, "failed": 0, "errored": 0}
    results = place.get("criteria") or [{"passed": 0, "failed": 0} for _ in asked["testing_criteria"]]
    error = api_error(job.error["message"], job.error["code"] or "server_error") if job.error else api_error()
    return {
        "object": "eval.run", "id": job.id, "eval_id": asked["eval_id"], "created_at": job.created,
        "name": asked["name"], "metadata": asked["metadata"], "status": _status(job), "error": error,
        "model": asked["data_source"].get("model") or "", "data_source": asked["data_source"],
        "result_counts": counts | {"total": place.get("total", 0)},
        "per_testing_criteria_results": [{"testing_criteria": one["name"], **result} for one, result in
                                         zip(asked["testing_criteria"], results, strict=True)],
        "per_model_usage": [{"model_name": name, **used} for name, used in place.get("usage", {}).items()],
        "report_url": f"{request.base_url}v1/evals/{asked['eval_id']}/runs/{job.id}/output_items",
    }  # fmt: skip


def _status(job: Job) -> str:
    return _STATES.get(job.state) or ("in_progress" if "total" in (job.place or {}) else "queued")


async def _run(request: Request, id: str, run: str) -> Job:
    """Raises Wrong (404), also for a run of another eval."""
    job = await house_of(request).jobs.get(run, caller_of(request).owner)
    if job.kind != RUN or job.payload["eval_id"] != id:
        raise nothing(run, "run")
    return job


async def _check(house: House, caller: Caller, asked: NewRun, eval: dict[str, Any]) -> None:
    """Raises Wrong (400) for what can be seen before the items are."""
    data, source = asked.data_source, asked.data_source.source
    kept = isinstance(source, StoredCompletions | StoredResponses)
    if eval["data_source_config"]["type"] != "custom" and not kept:
        raise Wrong(400, "This eval judges kept answers: its runs have a source of stored_completions or responses.",
                    param="data_source.source", code="invalid_value")  # fmt: skip
    if isinstance(source, Uploaded):
        await house.store.read(file_for, source.id, caller.owner, "evals", "data_source.source.id")
    if isinstance(data, JsonLines):
        return
    if data.model is None and (data.input_messages or data.sampling_params):
        raise Wrong(400, "data_source.model is missing: who is to answer the messages?", param="data_source.model",
                    code="invalid_value")  # fmt: skip
    if data.model is None:
        return
    check_model(house, caller, data.model, "data_source.model")
    if data.input_messages is None and not kept:
        raise Wrong(400, "data_source.input_messages is missing: what is the model asked of an item?",
                    param="data_source.input_messages", code="invalid_value")  # fmt: skip
    if isinstance(data.input_messages, Prompt):
        param = "data_source.input_messages.template"
        fields = fields_of(eval["data_source_config"]["schema"]["properties"]["item"])
        for number, said in enumerate(data.input_messages.template):
            where = f"{param}.{number}.content"
            check_template(said.text(where), where, fields, sampled=False, prompt=True)
