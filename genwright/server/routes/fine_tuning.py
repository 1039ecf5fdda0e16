"""/v1/fine_tuning/jobs: an uploaded file becomes a model that is served beside the others.

A job that is paused is shown as `queued`, for OpenAI's clients know no other word; `paused` says it beside.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from ..conversation import Metadata, Strict
from ..errors import Wrong
from ..house import Caller, House, caller_of, house_of
from ..jobs import OVER, Handler
from ..registry import Served
from ..results import file_for
from ..store.documents import nothing
from ..store.tables import Job, JobEvent
from ..tuning import DpoHyperparameters, Hyperparameters
from ..tuning_work import AT_ONCE, folder_of, seed_of, work
from ..wire import DONE, STREAM_HEAD, Page, documented, event, new_id, read_body

KIND = "fine_tuning"
JOBS = {KIND: Handler(work, at_once=AT_ONCE)}
router = APIRouter()


class Supervised(Strict):
    hyperparameters: Hyperparameters | None = None


class Dpo(Strict):
    hyperparameters: DpoHyperparameters | None = None


class Method(Strict):
    """How is learned: from answers, or from pairs of a better and a worse one."""

    type: Literal["supervised", "dpo"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None


class Wandb(Strict):
    project: str = Field(min_length=1, max_length=128)
    entity: str | None = Field(None, max_length=128)
    tags: list[Annotated[str, Field(max_length=64)]] = Field([], max_length=20)


class Integration(Strict):
    type: Literal["wandb"]
    wandb: Wandb


class NewJob(Strict):
    """`hyperparameters` beside `method` is the older way of supervised tuning."""

    model: str = Field(min_length=1, max_length=500)
    training_file: str = Field(min_length=1, max_length=200)
    validation_file: str | None = Field(None, max_length=200)
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    suffix: str | None = Field(None, min_length=1, max_length=64, pattern=r"^[\w.-]+$")
    seed: int | None = Field(None, ge=0, lt=2**31)
    metadata: Metadata | None = None
    integrations: list[Integration] | None = Field(None, max_length=5)

    @property
    def kind(self) -> Literal["supervised", "dpo"]:
        return self.method.type if self.method else "supervised"

    def chosen(self) -> dict[str, Any]:
        """The hyper-parameters of the method. Raises Wrong (400) when they stand in two places, or in the wrong one."""
        if self.method is None:
            return (self.hyperparameters or Hyperparameters()).model_dump()
        other = "dpo" if self.kind == "supervised" else "supervised"
        if self.hyperparameters is not None or getattr(self.method, other) is not None:
            param = "hyperparameters" if self.hyperparameters is not None else f"method.{other}"
            raise Wrong(400, f"{param} does not belong to the method {self.kind}; give method.{self.kind}."
                        "hyperparameters.", param=param, code="invalid_value")  # fmt: skip
        own: Any = getattr(self.method, self.kind)
        fallback = DpoHyperparameters() if self.kind == "dpo" else Hyperparameters()
        return ((own and own.hyperparameters) or fallback).model_dump()


@router.post("/v1/fine_tuning/jobs", openapi_extra=documented(NewJob))
async def create(request: Request) -> dict[str, Any]:
    """A job that tunes a served model by an uploaded file. The same Idempotency-Key gives the same job again."""
    asked = await read_body(request, NewJob)
    house, caller = house_of(request), caller_of(request)
    for param in ("training_file", "validation_file"):
        if id := getattr(asked, param):
            await house.store.read(file_for, id, caller.owner, "fine-tune", param)
    payload = {
        "model": asked.model, "training_file": asked.training_file, "validation_file": asked.validation_file,
        "kind": asked.kind, "hyperparameters": asked.chosen(), "suffix": asked.suffix or "", "seed": asked.seed,
        "metadata": asked.metadata, "integrations": [one.model_dump() for one in asked.integrations or ()],
        "trackers": _trackers(asked), **_base(house.fleet.find(asked.model, caller)),
    }  # fmt: skip
    key = request.headers.get("idempotency-key")
    job = await house.jobs.submit(KIND, caller.owner, payload, id=new_id("ftjob-"), idempotency_key=key)
    return shown(job)


def _base(served: Served) -> dict[str, Any]:
    """What is tuned: `root` is the model whose weights the tuned one answers by. Raises Wrong (400)."""
    why = ""
    if served.embeds:
        why = "it gives embeddings"
    elif served.is_elsewhere:
        why = "it is not on this machine"
    elif served.adapter and not served.run:
        why = "it is an adapter that was not tuned here"
    if why:
        raise Wrong(400, f"{served.id} cannot be tuned: {why}.", param="model", code="model_not_available")
    if served.adapter:
        return {"source": served.run, "root": served.parent, "adapted": True}
    return {"source": served.source, "root": served.id, "adapted": False}


def _trackers(asked: NewJob) -> list[dict[str, Any]]:
    """Weights & Biases keeps its curves in the job's folder (`wandb sync` sends them). Raises Wrong (400)."""
    if asked.integrations and importlib.util.find_spec("wandb") is None:
        raise Wrong(400, "Weights & Biases is not installed on this server (pip install 'genwright[trackers]').",
                    param="integrations", code="unsupported_value")  # fmt: skip
    return [
        {"name": "wandb", "project": one.wandb.project, "entity": one.wandb.entity, "tags": one.wandb.tags}
        for one in asked.integrations or ()
    ]


@router.get("/v1/fine_tuning/jobs")
async def jobs(request: Request, page: Annotated[Page, Depends()]) -> dict[str, Any]:
    """The caller's jobs, also by `metadata[key]=value` or `metadata=null`."""
    house, owner = house_of(request), caller_of(request).owner
    asked = dict(request.query_params)
    wanted = {key[9:-1]: value for key, value in asked.items() if key.startswith("metadata[") and key.endswith("]")}

    def fits(job: Job) -> bool:
        has = job.payload["metadata"]
        if asked.get("metadata") == "null":
            return not has
        return all((has or {}).get(key) == value for key, value in wanted.items())

    found = await house.jobs.list(KIND, owner, page.after, page.limit, page.order, fits=fits)
    return page.shown([shown(job) for job in found])


@router.get("/v1/fine_tuning/jobs/{id}")
async def retrieve(request: Request, id: str) -> dict[str, Any]:
    """One job of the caller's."""
    return shown(await _job(house_of(request), id, caller_of(request)))


@router.post("/v1/fine_tuning/jobs/{id}/cancel")
async def cancel(request: Request, id: str) -> dict[str, Any]:
    """End a job; nothing of it is kept."""
    house, caller = house_of(request), caller_of(request)
    await _job(house, id, caller)
    job = await house.jobs.cancel(id, caller.owner)
    if job.state == "cancelled":  # nobody works on it
        await asyncio.to_thread(shutil.rmtree, folder_of(house, id), ignore_errors=True)
    return shown(job)


@router.post("/v1/fine_tuning/jobs/{id}/pause")
async def pause(request: Request, id: str) -> dict[str, Any]:
    """Stop at a checkpoint, and give the machine back."""
    house, caller = house_of(request), caller_of(request)
    await _job(house, id, caller)
    return shown(await house.jobs.pause(id, caller.owner))


@router.post("/v1/fine_tuning/jobs/{id}/resume")
async def resume(request: Request, id: str) -> dict[str, Any]:
    """Go on exactly where it was."""
    house, caller = house_of(request), caller_of(request)
    await _job(house, id, caller)
    return shown(await house.jobs.resume(id, caller.owner))


@router.get(
    "/v1/fine_tuning/jobs/{id}/events", response_model=None,
    responses={200: {"content": {"text/event-stream": {}}}},
)  # fmt: skip
async def events(
    request: Request,
    id: str,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=200)] = None,
    stream: bool = False,
) -> dict[str, Any] | Response:
    """What happened, newest first; with `stream`, oldest first from behind `after` and on, as it happens."""
    house = house_of(request)
    job = await _job(house, id, caller_of(request))
    number = _number(job, after)
    if stream:
        return StreamingResponse(_followed(house, job, number), media_type="text/event-stream", headers=STREAM_HEAD)
    found = await house.jobs.events(id, number, limit + 1, newest_first=True)
    return {"object": "list", "data": [_told(job, one) for one in found[:limit]], "has_more": len(found) > limit}


async def _followed(house: House, job: Job, number: int) -> AsyncIterator[bytes]:
    async for one in house.jobs.follow(job.id, number):
        yield event(_told(job, one))
    yield DONE


@router.get("/v1/fine_tuning/jobs/{id}/checkpoints")
async def checkpoints(
    request: Request,
    id: str,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> dict[str, Any]:
    """What can be asked of the job's end and of its last steps before, newest first; all are models by their names."""
    job = await _job(house_of(request), id, caller_of(request))
    found = [
        {"object": "fine_tuning.job.checkpoint", "id": f"ftckpt-{job.id.removeprefix('ftjob-')}-{one['step']}",
         "created_at": job.finished, "fine_tuned_model_checkpoint": one["model"], "fine_tuning_job_id": job.id,
         "metrics": one["metrics"], "step_number": one["step"]}
        for one in reversed((job.result or {}).get("checkpoints", []))
    ]  # fmt: skip
    ids = [one["id"] for one in found]
    if after is not None and after not in ids:
        raise Wrong(400, f"after: there is nothing {after!r} here.", param="after", code="invalid_value")
    rest = found[ids.index(after) + 1 :] if after else found
    page = Page(limit=limit, after=after, order="desc")
    return page.shown(rest)


# -- shapes ------------------------------------------------------------------------------------------------------------


def shown(job: Job) -> dict[str, Any]:
    """`fine_tuning.job`."""
    asked, place, result = job.payload, job.place or {}, job.result or {}
    chosen = place.get("chosen") or asked["hyperparameters"]
    error = job.error and {"code": job.error["code"] or "server_error", "message": job.error["message"],
                           "param": job.error["param"]}  # fmt: skip
    status = _status(job)
    return {
        "object": "fine_tuning.job", "id": job.id, "created_at": job.created, "model": asked["model"],
        "status": status, "paused": job.state == "paused" or job.wanted == "pause",
        "training_file": asked["training_file"], "validation_file": asked["validation_file"],
        "method": {"type": asked["kind"], asked["kind"]: {"hyperparameters": chosen}},
        "hyperparameters": {name: chosen[name] for name in Hyperparameters.model_fields},
        "seed": seed_of(job), "suffix": asked["suffix"] or None, "metadata": asked["metadata"],
        "integrations": asked["integrations"], "organization_id": job.owner, "user_provided_suffix": asked["suffix"],
        "fine_tuned_model": result.get("model"), "trained_tokens": result.get("trained_tokens"),
        "result_files": [place["result_file"]] if job.state == "succeeded" else [],
        "finished_at": job.finished, "error": error,
        "estimated_finish": place.get("estimated_finish") if status == "running" else None,
    }  # fmt: skip


def _status(job: Job) -> str:
    if job.state in OVER:
        return job.state
    if job.state == "cancelling":
        return "cancelled"
    phase = str((job.place or {}).get("phase", "validating_files"))
    return "queued" if job.state != "running" and phase == "running" else phase


def _told(job: Job, one: JobEvent) -> dict[str, Any]:
    measured = bool(one.data and "step" in one.data)
    return {"object": "fine_tuning.job.event", "id": f"ftevent-{job.id.removeprefix('ftjob-')}-{one.number}",
            "created_at": int(one.created), "level": one.level, "message": one.message, "data": one.data,
            "type": "metrics" if measured else "message"}  # fmt: skip


def _number(job: Job, after: str | None) -> int:
    """Which event `after` names; 0 for none. Raises Wrong (400)."""
    if after is None:
        return 0
    head, _, number = after.rpartition("-")
    if head != f"ftevent-{job.id.removeprefix('ftjob-')}" or not number.isdecimal() or len(number) > 15:
        raise Wrong(400, f"after: there is no event {after!r} of this job.", param="after", code="invalid_value")
    return int(number)


async def _job(house: House, id: str, caller: Caller) -> Job:
    """Raises Wrong (404), also for a job of another kind."""
    job = await house.jobs.get(id, caller.owner)
    if job.kind != KIND:
        raise nothing(id, "fine-tuning job")
    return job
