"""The tables. What a caller makes has an owner; nobody else is ever shown it.

`seq` is the order of making, by which lists are paged; `id` is the name that clients know. Times are seconds since
1970. A JSON column holds plain data: give it a new value, a changed dict is not noticed.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import BigInteger, Double, ForeignKey, Index, Integer, LargeBinary, Text, TypeDecorator
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Words(TypeDecorator[str]):
    """Text that every database takes: NUL and halves of surrogate pairs become U+FFFD and ?."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


class Json(TypeDecorator[Any]):
    """Plain data as JSON in ASCII, which no text of a client can break."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Table(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012
        str: Words(), bytes: LargeBinary(), int: BigInteger(), float: Double(),
        dict[str, Any]: Json(), list[Any]: Json(),
    }  # fmt: skip


Number = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only what it calls INTEGER


class Owned(Table):
    """A row that a caller made."""

    __abstract__ = True

    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True, sort_order=-4)
    id: Mapped[str] = mapped_column(unique=True, sort_order=-3)
    owner: Mapped[str] = mapped_column(sort_order=-2)
    created: Mapped[int] = mapped_column(sort_order=-1)


class Key(Owned):
    """An API key: of the secret only HMAC-SHA256 under the server's own secret is kept, and its first characters."""

    __tablename__ = "keys"

    name: Mapped[str]
    shown: Mapped[str]  # the first characters, to tell keys apart
    hash: Mapped[str] = mapped_column(unique=True)
    roles: Mapped[list[Any]]
    limits: Mapped[dict[str, Any]]
    expires: Mapped[int | None]
    revoked: Mapped[int | None]


class File(Owned):
    """An uploaded file, or a job's result; its content is the blob `sha256`."""

    __tablename__ = "files"
    __table_args__ = (Index("files_of", "owner", "seq"), Index("files_by_blob", "sha256"))

    name: Mapped[str]
    purpose: Mapped[str]
    size: Mapped[int]  # bytes
    sha256: Mapped[str]
    expires: Mapped[int | None]


class Upload(Owned):
    """A file that arrives in parts. `state`: pending, completed, cancelled."""

    __tablename__ = "uploads"

    name: Mapped[str]
    purpose: Mapped[str]
    size: Mapped[int]  # bytes, as announced
    mime_type: Mapped[str]
    state: Mapped[str]
    expires: Mapped[int]
    file_expires_after: Mapped[int | None]  # seconds
    file: Mapped[str | None]  # id of the file that it became


class UploadPart(Owned):
    __tablename__ = "upload_parts"
    __table_args__ = (Index("parts_of", "upload"), Index("parts_by_blob", "sha256"))

    upload: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"))
    size: Mapped[int]
    sha256: Mapped[str]


class Job(Owned):
    """Durable work (jobs.py). `state`: queued, running, paused, cancelling, succeeded, failed, cancelled."""

    __tablename__ = "jobs"
    __table_args__ = (
        Unique("owner", "kind", "idempotency_key", name="jobs_once"),
        Index("jobs_of", "kind", "owner", "seq"),
        Index("jobs_due", "state", "not_before"),
        Index("jobs_taken", "owner", "taken"),
    )

    kind: Mapped[str]
    state: Mapped[str]
    payload: Mapped[dict[str, Any]]
    place: Mapped[dict[str, Any]]  # how far the work is, for whoever goes on with it
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]  # {"message", "type", "param", "code"}
    idempotency_key: Mapped[str | None]
    wanted: Mapped[str]  # "" or "pause", of a running job
    worker: Mapped[str]  # who runs it; empty when nobody does
    taken: Mapped[float]  # when somebody last began to
    lease: Mapped[float]  # until when nobody else may
    not_before: Mapped[float]
    tries: Mapped[int]  # that ended with an error
    most_tries: Mapped[int]
    losses: Mapped[int]  # leases lost in a row, without getting on
    started: Mapped[int | None]
    finished: Mapped[int | None]


class JobEvent(Table):
    """What was told of a job, for whoever follows it."""

    __tablename__ = "job_events"

    job: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # 1, 2, 3 … of its job
    created: Mapped[float]
    level: Mapped[str]  # info, warn, error
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None]


class Model(Owned):
    """A model that was registered while the server ran. `engine` and `settings` are options as in a recipe."""

    __tablename__ = "models"

    parent: Mapped[str]  # the model that an adapter stands on; empty for none
    source: Mapped[str]
    engine: Mapped[dict[str, Any]]
    settings: Mapped[dict[str, Any]]
    pinned: Mapped[bool]


class Alias(Table):
    __tablename__ = "aliases"

    name: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    created: Mapped[int]


class Usage(Table):
    """What a key used of a model on a day (UTC, as 2026-11-23). `key` is empty where no keys are needed."""

    __tablename__ = "usage"

    key: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    requests: Mapped[int]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]


class Document(Owned):
    """What is only kept, shown and listed (documents.py). Its id is unique among its kind."""

    __tablename__ = "documents"
    __table_args__ = (
        Unique("kind", "id", name="documents_once"),
        Index("documents_of", "kind", "owner", "parent", "seq"),
    )

    id: Mapped[str] = mapped_column(sort_order=-3)
    kind: Mapped[str]
    parent: Mapped[str]  # id of what it belongs to; empty for none
    body: Mapped[dict[str, Any]]
    expires: Mapped[int | None]


class VectorStore(Owned):
    """A collection of files to search by meaning."""

    __tablename__ = "vector_stores"
    __table_args__ = (Index("vector_stores_of", "owner", "seq"),)

    name: Mapped[str]
    description: Mapped[str]
    meta: Mapped[dict[str, Any]]
    settings: Mapped[dict[str, Any]]  # the embedding model, its size, how texts are cut
    expires_after: Mapped[dict[str, Any] | None]
    expires: Mapped[int | None]
    used: Mapped[int]


class VectorFile(Owned):
    """A file in a vector store; `file` is the id of the uploaded file, by which clients know it."""

    __tablename__ = "vector_files"
    __table_args__ = (Unique("store", "file", name="vector_files_once"), Index("vector_files_by_file", "file"))

    store: Mapped[str] = mapped_column(ForeignKey("vector_stores.id", ondelete="CASCADE"))
    file: Mapped[str]
    batch: Mapped[str]  # id of its file batch; empty for none
    state: Mapped[str]
    error: Mapped[dict[str, Any] | None]
    attributes: Mapped[dict[str, Any]]
    chunking: Mapped[dict[str, Any]]
    size: Mapped[int]  # bytes that it takes in the store


class Chunk(Table):
    """A piece of a file with its embedding, float32 little-endian."""

    __tablename__ = "chunks"
    __table_args__ = (Index("chunks_of", "store"),)

    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=True)
    store: Mapped[str] = mapped_column(ForeignKey("vector_stores.id", ondelete="CASCADE"))
    vector_file: Mapped[str] = mapped_column(ForeignKey("vector_files.id", ondelete="CASCADE"), index=True)
    number: Mapped[int]
    text: Mapped[str]
    tokens: Mapped[int]
    embedding: Mapped[bytes]
