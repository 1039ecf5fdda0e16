"""/v1/files: data goes in, results come out; each file is its owner's alone."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse
from pydantic import Field
from sqlalchemy import or_

from ..errors import Wrong
from ..files import file_of, keep, remove_file, shown
from ..forms import read_form
from ..house import caller_of, house_of
from ..store.documents import paged
from ..store.tables import File
from ..wire import Body, Page, documented, now, shaped

router = APIRouter()

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
_DAY = 86_400


class ExpiresAfter(Body):
    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=30 * _DAY)


class NewFile(Body):
    """What the form of an upload says beside the file."""

    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class FileForm(NewFile):
    file: str = Field(json_schema_extra={"format": "binary"})


class FilePage(Page):
    """Files are listed by the ten thousand."""

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        after: Annotated[str | None, Query(max_length=200)] = None,
        order: Annotated[Literal["asc", "desc"], Query()] = "desc",
    ):
        super().__init__(limit, after, order)


@router.post("/v1/files", openapi_extra=documented(FileForm, kind="multipart/form-data"))
async def create(request: Request) -> dict[str, Any]:
    """Upload a file."""
    house, owner = house_of(request), caller_of(request).owner
    async with read_form(request, file="file", largest=house.options.largest_file) as form:
        said = shaped(form.fields, NewFile)
        if form.draft.size == 0:
            raise Wrong(400, "The file is empty.", param="file", code="empty_file")
        name = form.filename or "file"
        seconds = lives(said.purpose, said.expires_after)
        return shown(await asyncio.to_thread(keep, house, form.draft, owner, name, said.purpose, seconds))


@router.get("/v1/files")
async def listed(
    request: Request, page: Annotated[FilePage, Depends()],
    purpose: Annotated[str | None, Query(max_length=100)] = None,
) -> dict[str, Any]:  # fmt: skip
    """The caller's files, also by purpose."""
    where = [or_(File.expires.is_(None), File.expires > now()), *([File.purpose == purpose] if purpose else [])]
    found = await house_of(request).store.read(
        paged, File, caller_of(request).owner, page.after, page.limit, page.order, *where
    )
    return page.shown([shown(file) for file in found])


@router.get("/v1/files/{id}")
async def retrieve(request: Request, id: str) -> dict[str, Any]:
    """What is known of a file."""
    return shown(await file_of(house_of(request), id, caller_of(request).owner))


@router.get("/v1/files/{id}/content", response_class=FileResponse)
async def content(request: Request, id: str) -> FileResponse:
    """Its bytes, as something to keep: a browser does not open them."""
    house = house_of(request)
    file = await file_of(house, id, caller_of(request).owner)
    path = house.blobs.path(file.sha256)
    return FileResponse(
        path, media_type="application/octet-stream", filename=file.name, content_disposition_type="attachment"
    )


@router.delete("/v1/files/{id}")
async def delete(request: Request, id: str) -> dict[str, Any]:
    """Remove a file, also from vector stores."""
    await remove_file(house_of(request), id, caller_of(request).owner)
    return {"id": id, "object": "file", "deleted": True}


def lives(purpose: str, expires_after: ExpiresAfter | None) -> int | None:
    """Seconds; files for batches go after 30 days unless told otherwise, others stay."""
    if expires_after is not None:
        return expires_after.seconds
    return 30 * _DAY if purpose == "batch" else None
