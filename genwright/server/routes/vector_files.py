"""/v1/vector_stores/{id}/files and file_batches: which files are in a store, and how far they have been read."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ..conversation import Strict
from ..errors import Wrong
from ..files import living
from ..house import caller_of, house_of
from ..jobs import Handler
from ..store import documents
from ..store.documents import mine, nothing
from ..store.tables import Document, VectorFile, VectorStore
from ..texts import Unreadable, text_of
from ..vector_work import AT_ONCE, add_files, embed_anew
from ..wire import documented, new_id, now, read_body
from .vector_stores import Attributes, BothWays, Chunking, Id, attach, begin_reading, counts, open_store

BATCH = "vector_store.files_batch"
JOBS = {"vector_files": Handler(add_files, at_once=AT_ONCE), "vector_rebuild": Handler(embed_anew)}
router = APIRouter()
State = Literal["in_progress", "completed", "failed", "cancelled"]


class NewFile(Strict):
    file_id: Id
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None


class ChangedFile(Strict):
    attributes: Attributes | None


class NewBatch(Strict):
    """`file_ids` with the same attributes and chunking, or `files` with their own."""

    file_ids: list[Id] | None = Field(None, max_length=2000)
    files: list[NewFile] | None = Field(None, max_length=2000)
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None

    def each(self) -> list[NewFile]:
        """Raises Wrong (400) when neither or both are given."""
        if bool(self.file_ids) is bool(self.files):
            raise Wrong(400, "Give `file_ids` or `files`, one of them.", param="file_ids", code="invalid_value")
        cut, told = self.chunking_strategy, self.attributes
        same = (NewFile(file_id=id, attributes=told, chunking_strategy=cut) for id in self.file_ids or ())
        given = self.files or list(same)
        return list({one.file_id: one for one in given}.values())


# -- files -----------------------------------------------------------------------------------------------------------


@router.post("/v1/vector_stores/{id}/files", openapi_extra=documented(NewFile))
async def add(request: Request, id: str) -> dict[str, Any]:
    """Put a file into a store; one that is there is read anew."""
    asked = await read_body(request, NewFile)
    house, caller = house_of(request), caller_of(request)
    file = await house.store.run(_attach, id, caller.owner, [asked], "")
    await begin_reading(house, caller, [one.id for one in file])
    return shown(file[0])


@router.get("/v1/vector_stores/{id}/files")
async def listed(
    request: Request, id: str, page: Annotated[BothWays, Depends()],
    filter: Annotated[State | None, Query()] = None,
) -> dict[str, Any]:  # fmt: skip
    """The files of a store."""
    found = await house_of(request).store.read(_listed, id, caller_of(request).owner, page, filter, None)
    return page.shown(found)


@router.get("/v1/vector_stores/{id}/files/{file_id}")
async def retrieve(request: Request, id: str, file_id: str) -> dict[str, Any]:
    """How far a file has been read."""
    return shown(await house_of(request).store.read(_file, id, file_id, caller_of(request).owner))


@router.post("/v1/vector_stores/{id}/files/{file_id}", openapi_extra=documented(ChangedFile))
async def change(request: Request, id: str, file_id: str) -> dict[str, Any]:
    """Give a file other attributes."""
    asked = await read_body(request, ChangedFile)

    def work(session: Session) -> dict[str, Any]:
        file = _file(session, id, file_id, caller_of(request).owner)
        file.attributes = asked.attributes or {}
        return shown(file)

    return await house_of(request).store.run(work)


@router.delete("/v1/vector_stores/{id}/files/{file_id}")
async def remove(request: Request, id: str, file_id: str) -> dict[str, Any]:
    """Take a file out of a store; the file itself stays."""
    owner = caller_of(request).owner
    await house_of(request).store.run(lambda session: session.delete(_file(session, id, file_id, owner)))
    return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}


@router.get("/v1/vector_stores/{id}/files/{file_id}/content")
async def content(request: Request, id: str, file_id: str) -> dict[str, Any]:
    """The words that were read out of a file."""
    house, owner = house_of(request), caller_of(request).owner
    await house.store.read(_file, id, file_id, owner)
    file = await house.store.read(living, file_id, owner)
    try:
        text = await asyncio.to_thread(text_of, house.blobs.path(file.sha256), file.name)
    except Unreadable as error:
        raise Wrong(400, str(error), code=error.code) from None
    return {"object": "vector_store.file_content.page", "data": [{"type": "text", "text": text}], "has_more": False,
            "next_page": None}  # fmt: skip


# -- batches of files ------------------------------------------------------------------------------------------------


@router.post("/v1/vector_stores/{id}/file_batches", openapi_extra=documented(NewBatch))
async def add_many(request: Request, id: str) -> dict[str, Any]:
    """Put many files into a store."""
    asked = await read_body(request, NewBatch)
    house, caller = house_of(request), caller_of(request)
    batch = new_id("vsfb_")
    files = await house.store.run(_attach, id, caller.owner, asked.each(), batch)
    await begin_reading(house, caller, [file.id for file in files])
    return await house.store.read(_batch, id, batch, caller.owner)


@router.get("/v1/vector_stores/{id}/file_batches/{batch}")
async def retrieve_batch(request: Request, id: str, batch: str) -> dict[str, Any]:
    """How far the files of a batch have been read."""
    return await house_of(request).store.read(_batch, id, batch, caller_of(request).owner)


@router.post("/v1/vector_stores/{id}/file_batches/{batch}/cancel")
async def cancel_batch(request: Request, id: str, batch: str) -> dict[str, Any]:
    """Read no more files of a batch; those that have been read stay."""

    def work(session: Session) -> dict[str, Any]:
        owner = caller_of(request).owner
        _batch(session, id, batch, owner)
        which = (VectorFile.batch == batch, VectorFile.owner == owner, VectorFile.state == "in_progress")
        session.execute(update(VectorFile).where(*which).values(state="cancelled"))
        return _batch(session, id, batch, owner)

    return await house_of(request).store.run(work)


@router.get("/v1/vector_stores/{id}/file_batches/{batch}/files")
async def listed_batch(
    request: Request, id: str, batch: str, page: Annotated[BothWays, Depends()],
    filter: Annotated[State | None, Query()] = None,
) -> dict[str, Any]:  # fmt: skip
    """The files of a batch."""
    store, owner = house_of(request).store, caller_of(request).owner
    await store.read(_batch, id, batch, owner)
    return page.shown(await store.read(_listed, id, owner, page, filter, batch))


# -- shapes and transactions -------------------------------------------------------------------------------------------


def shown(file: VectorFile) -> dict[str, Any]:
    """`vector_store.file`."""
    return {
        "object": "vector_store.file", "id": file.file, "created_at": file.created, "vector_store_id": file.store,
        "status": file.state, "last_error": file.error, "usage_bytes": file.size, "attributes": file.attributes,
        "chunking_strategy": {"type": "static", "static": file.chunking},
    }  # fmt: skip


def _attach(session: Session, id: str, owner: str, asked: list[NewFile], batch: str) -> list[VectorFile]:
    store = open_store(session, id, owner)
    if batch:
        documents.put(session, BATCH, batch, owner, {"created": now(), "store": id}, parent=id)
    return [
        attach(session, store, one.file_id, chunking=one.chunking_strategy, attributes=one.attributes, batch=batch)
        for one in asked
    ]


def _file(session: Session, store: str, file: str, owner: str) -> VectorFile:
    """Raises Wrong (404)."""
    mine(session, VectorStore, store, owner)
    query = select(VectorFile).where(VectorFile.store == store, VectorFile.file == file, VectorFile.owner == owner)
    found = session.scalars(query.with_for_update()).one_or_none()
    if found is None:
        raise nothing(file, "file of this store")
    return found


def _listed(
    session: Session, store: str, owner: str, page: BothWays, state: str | None, batch: str | None
) -> list[dict[str, Any]]:
    mine(session, VectorStore, store, owner)
    for name in ("after", "before"):  # clients know the files' ids, not those of our rows
        if id := getattr(page, name):
            setattr(page, name, _file(session, store, id, owner).id)
    which = [VectorFile.store == store]
    which += [VectorFile.state == state] if state else []
    which += [VectorFile.batch == batch] if batch else []
    return [shown(file) for file in page.rows(session, VectorFile, owner, *which)]


def _batch(session: Session, store: str, batch: str, owner: str) -> dict[str, Any]:
    """`vector_store.files_batch`. Raises Wrong (404)."""
    body = mine(session, Document, batch, owner, Document.kind == BATCH, Document.parent == store).body
    files = counts(session, VectorFile.batch == batch, VectorFile.owner == owner)
    if files["in_progress"]:
        status = "in_progress"
    else:
        status = "cancelled" if files["cancelled"] else "completed" if files["completed"] else "failed"
    return {"object": BATCH, "id": batch, "created_at": body["created"], "vector_store_id": store, "status": status,
            "file_counts": files}  # fmt: skip
