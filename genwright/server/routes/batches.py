"""/v1/batches: a file of requests, answered when there is room, each as if it were asked by itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from ..batch_work import AT_ONCE, work
from ..conversation import Metadata, Strict
from ..errors import Wrong
from ..house import Caller, House, caller_of, house_of, whose
from ..jobs import OVER, Handler
from ..results import file_for
from ..store.documents import nothing
from ..store.tables import Job
from ..wire import Page, documented, new_id, now, read_body

KIND = "batch"
JOBS = {KIND: Handler(work, at_once=AT_ONCE)}
router = APIRouter()

_SECONDS = {"h": 3600, "d": 86_400}


class ExpiresAfter(Strict):
    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class NewBatch(Strict):
    """`completion_window` is a number of hours or days, as `24h`; what was not answered by then has expired."""

    input_file_id: str = Field(min_length=1, max_length=200)
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations"]
    completion_window: str = Field(pattern=r"^[1-9]\d{0,2}[hd]$")
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


@router.post("/v1/batches", openapi_extra=documented(NewBatch))
async def create(request: Request) -> dict[str, Any]:
    """A batch of the requests in an uploaded file. The same Idempotency-Key gives the same batch again."""
    asked = await read_body(request, NewBatch)
    house, caller = house_of(request), caller_of(request)
    await house.store.read(file_for, asked.input_file_id, caller.owner, "batch", "input_file_id")
    window = int(asked.completion_window[:-1]) * _SECONDS[asked.completion_window[-1]]
    after = asked.output_expires_after
    payload = asked.model_dump() | {
        "window": window, "output_expires_after": after.seconds if after else None, **whose(caller),
    }  # fmt: skip
    key = request.headers.get("idempotency-key")
    return shown(await house.jobs.submit(KIND, caller.owner, payload, id=new_id("batch_"), idempotency_key=key))


@router.get("/v1/batches")
async def listed(request: Request, page: Annotated[Page, Depends()]) -> dict[str, Any]:
    """The caller's batches."""
    jobs = house_of(request).jobs
    found = await jobs.list(KIND, caller_of(request).owner, page.after, page.limit, page.order)
    return page.shown([shown(job) for job in found])


@router.get("/v1/batches/{id}")
async def retrieve(request: Request, id: str) -> dict[str, Any]:
    """How far a batch is."""
    return shown(await _batch(house_of(request), id, caller_of(request)))


@router.post("/v1/batches/{id}/cancel")
async def cancel(request: Request, id: str) -> dict[str, Any]:
    """End a batch; what was answered by then is in its output file."""
    house, caller = house_of(request), caller_of(request)
    job = await _batch(house, id, caller)
    if job.state == "succeeded":
        raise Wrong(400, f"The batch {id} is {(job.result or {})['status']} already.", code="job_over")
    return shown(await house.jobs.cancel(id, caller.owner))


def shown(job: Job) -> dict[str, Any]:
    """`batch`."""
    asked, place, result = job.payload, job.place or {}, job.result or {}
    status = _status(job)
    totals = result.get("totals") or place.get("totals") or {"completed": 0, "failed": 0, "input": 0, "output": 0}
    ended = result.get("at") or job.finished
    ends = ("completed", "failed", "expired", "cancelled")
    times = {f"{name}_at": ended if status == name else None for name in ends}
    errors = place.get("errors") or ([job.error | {"line": None}] if job.error else [])
    return {
        "object": "batch", "id": job.id, "created_at": job.created, "status": status, "endpoint": asked["endpoint"],
        "input_file_id": asked["input_file_id"], "completion_window": asked["completion_window"],
        "model": place.get("model"), "metadata": asked["metadata"],
        "errors": {"object": "list", "data": errors} if errors else None,
        "output_file_id": result.get("output"), "error_file_id": result.get("errors_file"),
        "in_progress_at": place.get("in_progress_at"), "finalizing_at": place.get("finalizing_at"),
        "expires_at": job.created + asked["window"], **times,
        "cancelling_at": now() if status == "cancelling" else ended if status == "cancelled" else None,
        "request_counts": {"total": place.get("total", 0), "completed": totals["completed"],
                           "failed": totals["failed"]},
        "usage": {
            "input_tokens": totals["input"], "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": totals["output"], "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": totals["input"] + totals["output"],
        },
    }  # fmt: skip


def _status(job: Job) -> str:
    if job.state == "succeeded":
        return str((job.result or {})["status"])
    if job.state in (*OVER, "cancelling"):
        return job.state
    return str((job.place or {}).get("phase", "validating"))


async def _batch(house: House, id: str, caller: Caller) -> Job:
    """Raises Wrong (404), also for a job of another kind."""
    job = await house.jobs.get(id, caller.owner)
    if job.kind != KIND:
        raise nothing(id, "batch")
    return job
