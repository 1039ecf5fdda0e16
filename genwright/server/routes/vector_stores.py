"""/v1/vector_stores: files that can be searched by what they mean. Files come and go by vector_files.py.

A store keeps the embedding model that it was made with until its chunks have been embedded by the one that the operator
chose since; meanwhile the old one answers. `rewrite_query` is accepted and changes nothing: no model rewrites here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, model_validator
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ..conversation import Metadata, Strict
from ..errors import Wrong
from ..files import living
from ..house import Caller, House, caller_of, house_of, whose
from ..store.documents import mine, paged
from ..store.tables import File, VectorFile, VectorStore
from ..vector_index import Hit, Indexes, fitting
from ..vector_work import CHUNK, OVERLAP, begin_rebuild, embedded, lives_until, touch
from ..wire import Page, documented, new_id, now, read_body

router = APIRouter()
_INDEXES = Indexes()
_STATES = ("in_progress", "completed", "failed", "cancelled")
_DEEPEST = 8  # filters within filters

Attributes = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)] | float | bool],
    Field(max_length=16),
]
Id = Annotated[str, Field(min_length=1, max_length=200)]
Scalar = str | float | bool


class Static(Strict):
    """Chunks of so many tokens at most, which share so many with the one before."""

    max_chunk_size_tokens: int = Field(ge=100, le=4096)
    chunk_overlap_tokens: int = Field(ge=0)

    @model_validator(mode="after")
    def _half(self) -> Static:
        if self.chunk_overlap_tokens * 2 > self.max_chunk_size_tokens:
            raise ValueError("chunk_overlap_tokens must not be more than half of max_chunk_size_tokens")
        return self


class Chunking(Strict):
    """How files are cut; `auto` is chunks of 800 tokens that share 400 with the one before."""

    type: Literal["auto", "static"] = "auto"
    static: Static | None = None

    @model_validator(mode="after")
    def _whole(self) -> Chunking:
        if (self.type == "static") is (self.static is None):
            raise ValueError("`static` goes with the type static, and only with it")
        return self

    def numbers(self) -> dict[str, int]:
        return self.static.model_dump() if self.static else {
            "max_chunk_size_tokens": CHUNK, "chunk_overlap_tokens": OVERLAP}  # fmt: skip


class ExpiresAfter(Strict):
    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class NewStore(Strict):
    name: str | None = Field(None, max_length=256)
    description: str | None = Field(None, max_length=512)
    file_ids: list[Id] = Field([], max_length=500)
    chunking_strategy: Chunking | None = None
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class ChangedStore(Strict):
    name: str | None = Field(None, max_length=256)
    expires_after: ExpiresAfter | None = None
    metadata: Metadata | None = None


class Comparison(Strict):
    """One attribute compared with a value, or with several."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str = Field(max_length=64)
    value: Scalar | list[Scalar]

    @model_validator(mode="after")
    def _kinds(self) -> Comparison:
        if (self.type in ("in", "nin")) is not isinstance(self.value, list):
            raise ValueError("`in` and `nin` take a list of values, the others one value")
        return self


class Compound(Strict):
    type: Literal["and", "or"]
    filters: list[Comparison | Compound] = Field(min_length=1, max_length=20)


class Ranking(Strict):
    """`none` compares meanings alone; the others words too."""

    ranker: Literal["none", "auto", "default-2024-11-15"] = "auto"
    score_threshold: float = Field(0.0, ge=0, le=1)


class Search(Strict):
    """One question or several; of several, a chunk's nearest counts."""

    query: Annotated[str, Field(min_length=1)] | Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=10)]  # fmt: skip
    filters: Comparison | Compound | None = None
    max_num_results: int = Field(10, ge=1, le=50)
    ranking_options: Ranking = Ranking()
    rewrite_query: bool | None = None

    @property
    def questions(self) -> list[str]:
        return [self.query] if isinstance(self.query, str) else self.query


class BothWays(Page):
    """A page that may also end where another begins (`before`)."""

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=200)] = None,
        before: Annotated[str | None, Query(max_length=200)] = None,
        order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    ):
        super().__init__(limit, after, order)
        self.before = before
        if after and before:
            raise Wrong(400, "Give `after` or `before`, not both.", param="before", code="invalid_value")

    def rows(self, session: Session, table: Any, owner: str, *also: Any) -> list[Any]:
        """One more than `limit` when there is more to come. Raises Wrong (400) for a cursor that is nothing."""
        if self.before is None:
            return paged(session, table, owner, self.after, self.limit, self.order, *also)
        back = "asc" if self.order == "desc" else "desc"
        found = paged(session, table, owner, self.before, self.limit, back, *also)
        return [*found[: self.limit][::-1], *found[self.limit :]]


# -- stores ----------------------------------------------------------------------------------------------------------


@router.post("/v1/vector_stores", openapi_extra=documented(NewStore))
async def create(request: Request) -> dict[str, Any]:
    """A store, and what of the files is to be in it."""
    asked = await read_body(request, NewStore)
    house, caller = house_of(request), caller_of(request)
    made = await house.store.run(_create, asked, caller.owner, house.options.embedder)
    await begin_reading(house, caller, [file.id for file in made[1]])
    return await house.store.read(shown, made[0].id, caller.owner)


@router.get("/v1/vector_stores")
async def listed(request: Request, page: Annotated[BothWays, Depends()]) -> dict[str, Any]:
    """The caller's stores."""

    def work(session: Session) -> list[dict[str, Any]]:
        owner = caller_of(request).owner
        return [_shown(session, store) for store in page.rows(session, VectorStore, owner)]

    return page.shown(await house_of(request).store.read(work))


@router.get("/v1/vector_stores/{id}")
async def retrieve(request: Request, id: str) -> dict[str, Any]:
    """What is known of a store."""
    return await house_of(request).store.read(shown, id, caller_of(request).owner)


@router.post("/v1/vector_stores/{id}", openapi_extra=documented(ChangedStore))
async def change(request: Request, id: str) -> dict[str, Any]:
    """Give a store another name, metadata or time to live; what is not named stays."""
    asked = await read_body(request, ChangedStore)
    return await house_of(request).store.run(_change, id, caller_of(request).owner, asked)


@router.delete("/v1/vector_stores/{id}")
async def remove(request: Request, id: str) -> dict[str, Any]:
    """Remove a store; the files that were in it stay."""
    await house_of(request).store.run(
        lambda session: session.delete(mine(session, VectorStore, id, caller_of(request).owner))
    )
    return {"id": id, "object": "vector_store.deleted", "deleted": True}


@router.post("/v1/vector_stores/{id}/search", openapi_extra=documented(Search))
async def search(request: Request, id: str) -> dict[str, Any]:
    """The chunks of a store that are nearest to a question, best first."""
    asked = await read_body(request, Search)
    house, caller = house_of(request), caller_of(request)
    _check_depth(asked.filters)
    store = await house.store.run(_used, id, caller.owner)
    await begin_rebuild(house, store, caller)
    files = await house.store.read(_files, id)
    wanted = asked.filters.model_dump() if asked.filters else None
    allowed = {file.id: (file, name) for file, name in files if list(fitting([file], wanted))}
    index = await _INDEXES.of(house, id)
    hits: list[Hit] = []
    if index is not None and allowed:
        vectors = await _vectors(house, caller, index.version[2], asked.questions)
        hits = await asyncio.to_thread(
            index.search, asked.questions, vectors, files=allowed, most=asked.max_num_results,
            threshold=asked.ranking_options.score_threshold, with_words=asked.ranking_options.ranker != "none",
        )  # fmt: skip
    return {
        "object": "vector_store.search_results.page", "search_query": asked.questions, "has_more": False,
        "next_page": None, "data": [_hit(hit, *allowed[hit.file]) for hit in hits],
    }  # fmt: skip


async def _vectors(house: House, caller: Caller, embedder: str, questions: Sequence[str]) -> np.ndarray | None:
    """The questions' vectors; None when the store's model is not served any more: then words alone are compared."""
    if not any(served.id == embedder for served in house.fleet.list()):
        return None
    return await embedded(house, caller, embedder, questions)


def _check_depth(filters: Any, depth: int = 1) -> None:
    if depth > _DEEPEST:
        raise Wrong(400, f"filters: more than {_DEEPEST} within one another.", param="filters", code="invalid_value")
    for one in getattr(filters, "filters", ()):
        _check_depth(one, depth + 1)


# -- for vector_files too --------------------------------------------------------------------------------------------


async def begin_reading(house: House, caller: Caller, files: Sequence[str]) -> None:
    """Have files (ids of rows of vector_files) read and embedded."""
    if files:
        await house.jobs.submit("vector_files", caller.owner, {"files": list(files), **whose(caller)})


def attach(
    session: Session, store: VectorStore, file_id: str, *, chunking: Chunking | None = None,
    attributes: dict[str, Any] | None = None, batch: str = "",
) -> VectorFile:  # fmt: skip
    """A file that is to be in a store, in place of what it was there before. Raises Wrong (404)."""
    file = living(session, file_id, store.owner)
    before = select(VectorFile).where(VectorFile.store == store.id, VectorFile.file == file.id)
    if (old := session.scalars(before).one_or_none()) is not None:
        session.delete(old)
        session.flush()
    made = VectorFile(
        id=new_id("vsfile_"), owner=store.owner, created=now(), store=store.id, file=file.id, batch=batch,
        state="in_progress", error=None, attributes=attributes or {}, size=0,
        chunking=(chunking or Chunking()).numbers(),
    )  # fmt: skip
    session.add(made)
    return made


def open_store(session: Session, id: str, owner: str) -> VectorStore:
    """A store that can be used. Raises Wrong (404; 400 when it has expired)."""
    store = mine(session, VectorStore, id, owner, lock=True)
    if store.expires is not None and store.expires <= now():
        raise Wrong(400, f"The vector store {id} has expired.", code="vector_store_expired")
    touch(store)
    return store


def counts(session: Session, *which: Any) -> dict[str, int]:
    """How many files are in which state, and in all."""
    query = select(VectorFile.state, func.count()).where(*which).group_by(VectorFile.state)
    found = dict.fromkeys(_STATES, 0) | {state: count for state, count in session.execute(query)}
    return found | {"total": sum(found.values())}


def shown(session: Session, id: str, owner: str) -> dict[str, Any]:
    """`vector_store`. Raises Wrong (404)."""
    return _shown(session, mine(session, VectorStore, id, owner))


def _shown(session: Session, store: VectorStore) -> dict[str, Any]:
    files = counts(session, VectorFile.store == store.id)
    size = session.scalar(select(func.sum(VectorFile.size)).where(VectorFile.store == store.id)) or 0
    expired = store.expires is not None and store.expires <= now()
    return {
        "object": "vector_store", "id": store.id, "created_at": store.created, "name": store.name,
        "description": store.description, "usage_bytes": int(size), "file_counts": files,
        "status": "expired" if expired else "in_progress" if files["in_progress"] else "completed",
        "expires_after": store.expires_after, "expires_at": store.expires, "last_active_at": store.used,
        "metadata": store.meta, "embedder": store.settings["embedder"],
    }  # fmt: skip


# -- transactions ------------------------------------------------------------------------------------------------------


def _create(session: Session, asked: NewStore, owner: str, embedder: str) -> tuple[VectorStore, list[VectorFile]]:
    after = asked.expires_after.model_dump() if asked.expires_after else None
    store = VectorStore(
        id=new_id("vs_"), owner=owner, created=now(), name=asked.name or "", description=asked.description or "",
        meta=asked.metadata or {}, settings={"embedder": embedder}, expires_after=after,
        expires=lives_until(after, now()), used=now(),
    )  # fmt: skip
    session.add(store)
    session.flush()
    files = dict.fromkeys(asked.file_ids)
    return store, [attach(session, store, file, chunking=asked.chunking_strategy) for file in files]


def _change(session: Session, id: str, owner: str, asked: ChangedStore) -> dict[str, Any]:
    store = mine(session, VectorStore, id, owner, lock=True)
    said = asked.model_fields_set
    if "name" in said:
        store.name = asked.name or ""
    if "metadata" in said:
        store.meta = asked.metadata or {}
    if "expires_after" in said:
        store.expires_after = asked.expires_after.model_dump() if asked.expires_after else None
        store.expires = lives_until(store.expires_after, store.used)
    session.flush()
    return _shown(session, store)


def _used(session: Session, id: str, owner: str) -> VectorStore:
    return open_store(session, id, owner)


def _files(session: Session, store: str) -> list[tuple[VectorFile, str]]:
    """The files of a store that can be found, with their names."""
    query = select(VectorFile, File.name).where(
        VectorFile.store == store, VectorFile.state == "completed", File.id == VectorFile.file
    )
    return [(file, name) for file, name in session.execute(query)]


def _hit(hit: Hit, file: VectorFile, name: str) -> dict[str, Any]:
    return {"file_id": file.file, "filename": name, "score": hit.score, "attributes": file.attributes,
            "content": [{"type": "text", "text": hit.text}]}  # fmt: skip
