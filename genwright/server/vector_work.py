"""The work of vector stores: files are read, cut and embedded; and all is embedded anew for another embedding model.

A file's chunks appear all at once with its `completed`, so a server that dies in between begins that file again. When
the operator chooses another embedding model, new vectors are made aside while the old ones answer, then swapped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from genwright.core import GenwrightError

from .chunking import Piece, Window, pieces_of, window_for, windows_of
from .errors import Wrong, body_of
from .house import Caller, House, asker, whose
from .store.tables import Chunk, File, Job, VectorFile, VectorStore
from .texts import Unreadable, text_of
from .wire import now

AT_ONCE = 2  # jobs
CHUNK, OVERLAP = 800, 400  # tokens, OpenAI's `auto`
_HANDFUL = 64  # windows that are embedded together
_TRIES = 4  # of a handful, when the model cannot be had
_LONGEST_WAIT = 60.0


async def add_files(job: Job, house: House) -> dict[str, Any]:
    """The job `vector_files`: what of its payload's files is still in progress."""
    caller = asker(job)
    for id in job.payload["files"]:
        try:
            await _add(house, id, caller)
        except Unreadable as error:
            await house.store.run(_failed, id, error.code, str(error))
        except (Wrong, GenwrightError) as error:
            if getattr(error, "code", "") == "store_unavailable":
                raise
            said = body_of(error)[1]["error"]["message"]
            await house.store.run(_failed, id, "server_error", said)
    return {}


async def _add(house: House, id: str, caller: Caller) -> None:
    """Raises Unreadable, and what embedding raises."""
    while found := await house.store.read(_to_do, id):
        file, sha256, name, embedder = found
        chunking = file.chunking
        text, windows, pieces = await asyncio.to_thread(
            _cut, house.blobs.path(sha256), name, chunking["max_chunk_size_tokens"], chunking["chunk_overlap_tokens"]
        )
        vectors = await embedded(house, caller, embedder, [text[w.start : w.end] for w in windows])
        if await house.store.run(_put, id, embedder, text, windows, pieces, vectors):
            return


def _cut(path: Path, name: str, size: int, overlap: int) -> tuple[str, list[Window], list[Piece]]:
    text = text_of(path, name)
    windows = windows_of(text, window_for(size))
    if not windows:
        raise Unreadable("The file holds no words.")
    return text, windows, pieces_of(windows, size, overlap)


async def embedded(house: House, caller: Caller, model: str, texts: Sequence[str]) -> np.ndarray:
    """(texts, dimensions) in float32. Waits while there is no room. Raises what embedding raises."""
    rows = []
    for start in range(0, len(texts), _HANDFUL):
        rows.append(await _handful(house, caller, model, texts[start : start + _HANDFUL]))
    return np.concatenate(rows)


async def _handful(house: House, caller: Caller, model: str, texts: Sequence[str]) -> np.ndarray:
    tries = 0
    while True:
        try:
            vectors, _ = await house.desk.embed(caller, model, texts)
            return np.asarray(vectors, dtype="<f4")
        except Wrong as error:
            tries += error.status != 429
            if error.status not in (429, 503) or tries == _TRIES or error.headers.get("x-should-retry") == "false":
                raise
            wait = error.headers.get("Retry-After", "")
            await asyncio.sleep(min(_LONGEST_WAIT, float(wait) if wait.isdecimal() else 2.0**tries))


async def embed_anew(job: Job, house: House) -> dict[str, Any]:
    """The job `vector_rebuild`: every chunk of a store by another model. Chunks that come meanwhile are waited for."""
    store, embedder, caller = job.payload["store"], job.payload["embedder"], asker(job)
    made: dict[int, np.ndarray] = {}
    while not await house.store.run(_swap, store, embedder, made):
        for seq, text, size in await house.store.read(_missing, store, set(made)):
            windows = windows_of(text, window_for(size))
            made[seq] = await embedded(house, caller, embedder, [text[w.start : w.end] for w in windows])
    return {"chunks": len(made)}


# -- transactions ------------------------------------------------------------------------------------------------------


def _to_do(session: Session, id: str) -> tuple[VectorFile, str, str, str] | None:
    """A file in progress, with its content, name and store's model; None when there is nothing to do any more."""
    query = select(VectorFile, File.sha256, File.name, VectorStore.settings).where(
        VectorFile.id == id, VectorFile.state == "in_progress", File.id == VectorFile.file,
        VectorStore.id == VectorFile.store,
    )  # fmt: skip
    row = session.execute(query).one_or_none()
    return None if row is None else (row[0], row[1], row[2], row[3]["embedder"])


def _put(
    session: Session, id: str, embedder: str, text: str, windows: Sequence[Window], pieces: Sequence[Piece],
    vectors: np.ndarray,
) -> bool:  # fmt: skip
    """Keep a file's chunks, unless it is gone or cancelled. False when the store has another model by now."""
    file = session.scalars(select(VectorFile).where(VectorFile.id == id).with_for_update()).one_or_none()
    if file is None or file.state != "in_progress":
        return True
    store = session.scalars(select(VectorStore).where(VectorStore.id == file.store).with_for_update()).one()
    if store.settings["embedder"] != embedder:
        return False
    store.settings = store.settings | {"dimensions": vectors.shape[1]}
    size = 0
    for number, piece in enumerate(pieces):
        words = text[windows[piece.first].start : windows[piece.last - 1].end]
        embedding = vectors[piece.first : piece.last].tobytes()
        session.add(Chunk(store=file.store, vector_file=id, number=number, text=words, tokens=piece.tokens,
                          embedding=embedding))  # fmt: skip
        size += len(words.encode()) + len(embedding)
    file.state, file.size, file.error = "completed", size, None
    return True


def _failed(session: Session, id: str, code: str, message: str) -> None:
    file = session.scalars(select(VectorFile).where(VectorFile.id == id).with_for_update()).one_or_none()
    if file is not None and file.state == "in_progress":
        file.state, file.error = "failed", {"code": code, "message": message}
        session.execute(delete(Chunk).where(Chunk.vector_file == id))


def _missing(session: Session, store: str, made: set[int], limit: int = 200) -> list[tuple[int, str, int]]:
    """Chunks that have no new vectors yet, and how long chunks of their file may be."""
    query = select(Chunk.seq, Chunk.text, VectorFile.chunking).where(
        Chunk.store == store, VectorFile.id == Chunk.vector_file
    )
    rows = session.execute(query.order_by(Chunk.seq))
    missing = ((seq, text, cut["max_chunk_size_tokens"]) for seq, text, cut in rows if seq not in made)
    return list(islice(missing, limit))


def _swap(session: Session, store_id: str, embedder: str, made: dict[int, np.ndarray]) -> bool:
    """Put the new vectors in the place of the old ones, if all are there; True when there is no more to do."""
    store = session.scalars(select(VectorStore).where(VectorStore.id == store_id).with_for_update()).one_or_none()
    if store is None or store.settings["embedder"] == embedder:
        return True
    chunks = session.scalars(select(Chunk).where(Chunk.store == store_id)).all()
    if any(chunk.seq not in made for chunk in chunks):
        return False
    for chunk in chunks:
        chunk.embedding = made[chunk.seq].tobytes()
    width = {"dimensions": made[chunks[0].seq].shape[1]} if chunks else {}
    store.settings = {"embedder": embedder, **width}
    return True


# -- for the routes ----------------------------------------------------------------------------------------------------


async def begin_rebuild(house: House, store: VectorStore, caller: Caller) -> None:
    """Once a day at most, have a store embedded by the model that the operator chose since it was made."""
    chosen, has = house.options.embedder, store.settings["embedder"]
    if chosen != has and any(served.id == chosen for served in house.fleet.list()):
        payload = {"store": store.id, "embedder": chosen, **whose(caller)}
        key = f"{store.id} {has} {chosen} {now() // 86_400}"
        await house.jobs.submit("vector_rebuild", store.owner, payload, idempotency_key=key)


def lives_until(expires_after: dict[str, Any] | None, used: float) -> int | None:
    return None if expires_after is None else int(used) + 86_400 * int(expires_after["days"])


def touch(store: VectorStore) -> None:
    """It was used just now."""
    store.used = int(time.time())
    store.expires = lives_until(store.expires_after, store.used)
