"""/v1/evals: criteria by which answers are judged, and the shape of the items that are asked. Runs are in eval_runs.py.

Graders are string_check, text_similarity, label_model and score_model; nobody's code is run.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from genwright.core import MissingExtra

from .. import graders, grading
from ..conversation import Metadata, Strict
from ..errors import Wrong
from ..eval_work import folder_of
from ..graders import Criteria, Criterion, TextSimilarity, check_model
from ..house import Caller, House, caller_of, house_of
from ..item_schemas import checker
from ..store import documents
from ..store.documents import forget_children
from ..store.tables import Job
from ..wire import Page, documented, new_id, now, read_body

router = APIRouter()
KEPT, RUN = "eval", "eval_run"  # the kinds of the documents and of the jobs
_MOST = 10_000  # evals that are sorted by their last change

_SAMPLE = {
    "type": "object", "required": ["model", "output_text"],
    "properties": {
        "model": {"type": "string"}, "output_text": {"type": "string"}, "output_json": {},
        "output_tools": {"type": "array", "items": {"type": "object"}},
        "choices": {"type": "array", "items": {"type": "object"}},
    },
}  # fmt: skip
_KEPT_ITEM = {
    "type": "object", "required": ["id", "model", "input", "metadata"],
    "properties": {"id": {"type": "string"}, "model": {"type": "string"}, "metadata": {"type": "object"},
                   "input": {"type": "array", "items": {"type": "object"}}, "instructions": {}},
}  # fmt: skip


class Custom(Strict):
    """Items of a JSON schema; with `include_sample_schema` criteria may speak of the answers too ({{sample.…}})."""

    type: Literal["custom"]
    item_schema: dict[str, Any]
    include_sample_schema: bool = False


class Logs(Strict):
    """Chat completions and responses that were kept, with this metadata."""

    type: Literal["logs"]
    metadata: Metadata | None = None


class StoredCompletions(Strict):
    """The older name of `logs`."""

    type: Literal["stored_completions"]
    metadata: Metadata | None = None


class NewEval(Strict):
    name: str | None = Field(None, max_length=500)
    data_source_config: Annotated[Custom | Logs | StoredCompletions, Field(discriminator="type")]
    testing_criteria: Criteria
    metadata: Metadata | None = None


class ChangedEval(Strict):
    name: str | None = Field(None, max_length=500)
    metadata: Metadata | None = None


class Oldest(Page):
    """A page that begins with the oldest."""

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=200)] = None,
        order: Annotated[Literal["asc", "desc"], Query()] = "asc",
    ):
        super().__init__(limit, after, order)


@router.post("/v1/evals", openapi_extra=documented(NewEval))
async def create(request: Request) -> dict[str, Any]:
    """Criteria, checked: their templates, their models and what they compare by."""
    asked = await read_body(request, NewEval)
    house, caller = house_of(request), caller_of(request)
    config = asked.data_source_config
    schema = await _schema(config)
    fields = graders.fields_of(config.item_schema if isinstance(config, Custom) else _KEPT_ITEM)
    sampled = not isinstance(config, Custom) or config.include_sample_schema
    graders.check(asked.testing_criteria, fields, sampled=sampled)
    for number, one in enumerate(asked.testing_criteria):
        await _check_means(house, caller, one, f"testing_criteria.{number}")
    more = {} if isinstance(config, Custom) else {"metadata": config.metadata or {}}
    id = new_id("eval_")
    eval = {
        "object": "eval", "id": id, "created_at": now(), "updated_at": now(), "name": asked.name or "",
        "data_source_config": {"type": config.type, "schema": schema, **more}, "metadata": asked.metadata or {},
        "testing_criteria": [one.model_dump(exclude_none=True) for one in asked.testing_criteria],
    }  # fmt: skip
    await house.store.put(KEPT, id, caller.owner, eval)
    return eval


@router.get("/v1/evals")
async def listed(
    request: Request, page: Annotated[Oldest, Depends()],
    order_by: Annotated[Literal["created_at", "updated_at"], Query()] = "created_at",
) -> dict[str, Any]:  # fmt: skip
    """The caller's evals, by when they were made or last changed."""
    store, owner = house_of(request).store, caller_of(request).owner
    if order_by == "created_at":
        return page.shown(await store.list(KEPT, owner, page.after, page.limit, page.order))
    found = await store.list(KEPT, owner, None, _MOST, "asc")
    return page.shown(page.cut(sorted(found, key=lambda eval: eval["updated_at"])))


@router.get("/v1/evals/{id}")
async def retrieve(request: Request, id: str) -> dict[str, Any]:
    """One eval of the caller's."""
    return await house_of(request).store.get(KEPT, id, caller_of(request).owner)


@router.post("/v1/evals/{id}", openapi_extra=documented(ChangedEval))
async def change(request: Request, id: str) -> dict[str, Any]:
    """Give an eval another name or metadata; what is not named stays."""
    asked = await read_body(request, ChangedEval)
    owner = caller_of(request).owner
    said = {name: getattr(asked, name) or ("" if name == "name" else {}) for name in asked.model_fields_set}

    def work(session: Session) -> dict[str, Any]:
        eval = documents.get(session, KEPT, id, owner) | said | {"updated_at": now()}
        documents.put(session, KEPT, id, owner, eval)
        return eval

    return await house_of(request).store.run(work)


@router.delete("/v1/evals/{id}")
async def delete(request: Request, id: str) -> dict[str, Any]:
    """Forget an eval with its runs; those under way are stopped."""
    house, owner = house_of(request), caller_of(request).owner

    def work(session: Session) -> list[str]:
        documents.delete(session, KEPT, id, owner)
        jobs = session.scalars(select(Job).where(Job.owner == owner, Job.kind == RUN)).all()
        runs = [job for job in jobs if job.payload["eval_id"] == id]
        for job in runs:
            forget_children(session, job.id, owner)
            session.delete(job)
        return [job.id for job in runs]

    for run in await house.store.run(work):
        await asyncio.to_thread(shutil.rmtree, folder_of(house, run), ignore_errors=True)
    return {"object": "eval.deleted", "eval_id": id, "deleted": True}


# -- checks ------------------------------------------------------------------------------------------------------------


async def _schema(config: Custom | Logs | StoredCompletions) -> dict[str, Any]:
    """The schema of the names that templates may use. Raises Wrong (400) for an item schema that is none."""
    item = _KEPT_ITEM
    if isinstance(config, Custom):
        item = config.item_schema
        try:
            await asyncio.to_thread(checker, item, "data_source_config.item_schema")
        except MissingExtra as error:
            raise Wrong(400, f"Item schemas cannot be looked at here: {error.message} {error.hint}",
                        param="data_source_config.item_schema", code="unsupported_value") from None  # fmt: skip
    both = not isinstance(config, Custom) or config.include_sample_schema
    parts = {"item": item} | ({"sample": _SAMPLE} if both else {})
    return {"type": "object", "properties": parts, "required": list(parts)}


async def _check_means(house: House, caller: Caller, one: Criterion, param: str) -> None:
    """Raises Wrong (400) for a model that is not served, and for a likeness that nothing here can tell."""
    if not isinstance(one, TextSimilarity):
        if model := grading.asks(one, house.options.embedder):
            check_model(house, caller, model, f"{param}.model")
        return
    why, metric = "", one.evaluation_metric
    if metric == "cosine":
        check_model(house, caller, house.options.embedder, f"{param}.evaluation_metric")
    elif metric not in grading.METRICS:
        why = "meteor needs WordNet's synonyms, which this server has not"
    else:
        try:
            await asyncio.to_thread(grading.likeness, metric, "a", "a")
        except MissingExtra as error:
            why = f"{error.message} {error.hint}"
    if why:
        raise Wrong(400, f"{metric} cannot be told here: {why.rstrip('.')}. There are: cosine, "
                    f"{', '.join(grading.METRICS)}.", param=f"{param}.evaluation_metric",
                    code="unsupported_value")  # fmt: skip
