"""/v1/uploads: a large file in parts, each up to 64 MB; when it is complete it is a file like any other."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .. import files
from ..errors import Wrong
from ..forms import read_form
from ..house import House, caller_of, house_of
from ..housekeeping import drop_blobs
from ..store.documents import mine
from ..store.tables import File, Upload, UploadPart
from ..wire import Body, documented, new_id, now, read_body
from .files import ExpiresAfter, Purpose, lives

router = APIRouter()

_LARGEST = 8_000_000_000  # bytes of an upload
_LARGEST_PART = 64_000_000
_HOUR = 3600


class NewUpload(Body):
    bytes: int = Field(ge=1, le=_LARGEST)
    filename: str = Field(min_length=1, max_length=1000)
    mime_type: str = Field(min_length=1, max_length=200)
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class PartForm(Body):
    data: str = Field(json_schema_extra={"format": "binary"})


class Completed(Body):
    part_ids: list[str] = Field(min_length=1, max_length=10_000)
    md5: str | None = Field(None, max_length=100)


@router.post("/v1/uploads", openapi_extra=documented(NewUpload))
async def create(request: Request) -> dict[str, Any]:
    """Announce a file that will come in parts; there is an hour to send them."""
    asked, made = await read_body(request, NewUpload), now()
    upload = Upload(
        id=new_id("upload_"), owner=caller_of(request).owner, created=made, name=files.safe_name(asked.filename),
        purpose=asked.purpose, size=asked.bytes, mime_type=asked.mime_type, state="pending", expires=made + _HOUR,
        file_expires_after=lives(asked.purpose, asked.expires_after), file=None,
    )  # fmt: skip
    await house_of(request).store.run(Session.add, upload)
    return _shown(upload)


@router.post("/v1/uploads/{id}/parts", openapi_extra=documented(PartForm, kind="multipart/form-data"))
async def add_part(request: Request, id: str) -> dict[str, Any]:
    """One part. Parts may come in any order, and several at once."""
    house, owner = house_of(request), caller_of(request).owner
    await house.store.read(_pending, id, owner)
    async with read_form(request, file="data", largest=_LARGEST_PART) as form:
        if form.fields:
            raise Wrong(400, f"{next(iter(form.fields))[:100]} is not supported here.", code="unsupported_parameter")
        part = UploadPart(id=new_id("part_"), owner=owner, created=now(), upload=id, size=form.draft.size, sha256="")

        def keep() -> None:
            form.draft.sync()
            with house.blobs.adding():
                part.sha256 = form.draft.keep()
                with house.store.begin() as session:
                    _add_part(session, part)

        await asyncio.to_thread(keep)
    return {"id": part.id, "object": "upload.part", "created_at": part.created, "upload_id": id}


@router.post("/v1/uploads/{id}/complete", openapi_extra=documented(Completed))
async def complete(request: Request, id: str) -> dict[str, Any]:
    """Put the named parts together, in that order. It must come to as many bytes as were announced."""
    asked = await read_body(request, Completed)
    house, owner = house_of(request), caller_of(request).owner
    upload, parts = await house.store.read(_chosen, id, owner, asked.part_ids)
    return await asyncio.to_thread(_joined, house, upload, parts, asked.md5)


@router.post("/v1/uploads/{id}/cancel")
async def cancel(request: Request, id: str) -> dict[str, Any]:
    """Forget the parts; none can be added any more."""

    def forget(session: Session, owner: str) -> tuple[Upload, set[str]]:
        upload = _pending(session, id, owner, lock=True)
        upload.state = "cancelled"
        return upload, _forget_parts(session, id)

    house = house_of(request)
    upload, gone = await house.store.run(forget, caller_of(request).owner)
    await house.store.in_thread(lambda: drop_blobs(house.store, house.blobs, gone))
    return _shown(upload)


def _joined(house: House, upload: Upload, parts: list[UploadPart], md5: str | None) -> dict[str, Any]:
    """The parts made one file, in a thread: gigabytes are copied."""
    total = hashlib.md5(usedforsecurity=False)
    with house.blobs.new(largest=upload.size) as draft:
        for part in parts:
            with _opened(house, upload, part) as source:
                while chunk := source.read(1 << 20):
                    total.update(chunk)
                    draft.write(chunk)
        if md5 is not None and md5.lower() != total.hexdigest():
            raise Wrong(
                400, f"The parts' md5 is {total.hexdigest()}, not the one given.", param="md5", code="wrong_md5"
            )
        draft.sync()
        with house.blobs.adding():
            sha256 = draft.keep()
            with house.store.begin() as session:
                ended = _pending(session, upload.id, upload.owner, lock=True)
                seconds = ended.file_expires_after
                file = files.add(session, draft, sha256, ended.owner, ended.name, ended.purpose, seconds)
                ended.state, ended.file = "completed", file.id
                gone = _forget_parts(session, ended.id)
    drop_blobs(house.store, house.blobs, gone)
    return _shown(ended, file)


def _opened(house: House, upload: Upload, part: UploadPart) -> BinaryIO:
    try:
        return house.blobs.open(part.sha256)
    except Wrong:
        with house.store.begin(reading=True) as session:
            _pending(session, upload.id, upload.owner)  # says so if it was completed or cancelled meanwhile
        raise


def _pending(session: Session, id: str, owner: str, *, lock: bool = False) -> Upload:
    """Raises Wrong: 404 when there is none, 400 when it has ended."""
    upload = mine(session, Upload, id, owner, lock=lock)
    if (state := _state(upload)) != "pending":
        raise Wrong(400, f"The upload is {state}.", code="upload_over")
    return upload


def _chosen(session: Session, id: str, owner: str, ids: list[str]) -> tuple[Upload, list[UploadPart]]:
    """The upload and its named parts in that order. Raises Wrong (400, 404)."""
    upload = _pending(session, id, owner)
    parts = {part.id: part for part in session.scalars(select(UploadPart).where(UploadPart.upload == id))}
    if missing := [part for part in ids if part not in parts]:
        raise Wrong(400, f"This upload has no part {missing[0][:100]!r}.", param="part_ids", code="unknown_part")
    if len(set(ids)) < len(ids):
        raise Wrong(400, "A part is named twice.", param="part_ids", code="invalid_value")
    chosen = [parts[part] for part in ids]
    if (size := sum(part.size for part in chosen)) != upload.size:
        raise Wrong(400, f"The parts have {size:,} bytes, and {upload.size:,} were announced.", param="part_ids",
                    code="wrong_size")  # fmt: skip
    return upload, chosen


def _add_part(session: Session, part: UploadPart) -> None:
    upload = _pending(session, part.upload, part.owner, lock=True)
    already = session.scalar(select(func.sum(UploadPart.size)).where(UploadPart.upload == part.upload)) or 0
    if already + part.size > upload.size:
        raise Wrong(400, f"With this part there are more than the {upload.size:,} bytes announced.", param="data",
                    code="wrong_size")  # fmt: skip
    session.add(part)


def _forget_parts(session: Session, id: str) -> set[str]:
    """Their contents, for `drop_blobs`."""
    parts = session.scalars(select(UploadPart).where(UploadPart.upload == id)).all()
    for part in parts:
        session.delete(part)
    return {part.sha256 for part in parts}


def _state(upload: Upload) -> str:
    return "expired" if upload.state == "pending" and upload.expires <= now() else upload.state


def _shown(upload: Upload, file: File | None = None) -> dict[str, Any]:
    """OpenAI's shape."""
    return {
        "id": upload.id, "object": "upload", "bytes": upload.size, "created_at": upload.created,
        "expires_at": upload.expires, "filename": upload.name, "purpose": upload.purpose, "status": _state(upload),
        "file": files.shown(file) if file else None,
    }  # fmt: skip
