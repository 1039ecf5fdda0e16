"""The store: one database, opened at its newest shape, used in short transactions.

    with store.begin() as session: ...           # here and now; commits at the end, or nothing happened
    await store.run(function, *arguments)        # function(session, *arguments) in one transaction, off the event loop
    await store.read(function, *arguments)       # the same where nothing is written: it waits for no writer

On SQLite a transaction that may write takes the write lock when it begins, so it never fails half-way because another
was quicker; a commit is on the disk when it returns (synchronous=FULL). On PostgreSQL rows that are changed after
being read are to be read `with_for_update()`, which SQLite ignores.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.orm import Session

from genwright.core import MissingExtra, UsageError
from genwright.core.home import locked

from ..errors import Wrong
from . import documents

P = ParamSpec("P")
T = TypeVar("T")

NEWEST = "0001"  # the migration that this version of the tables stands at
_AWAY = (OperationalError, InterfaceError)
_LOG = logging.getLogger("genwright.server")
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000")


class Store:
    """`url` is SQLAlchemy's: sqlite:///… or postgresql://…. Opening it brings its tables to their newest shape.

    Raises UsageError when it cannot be reached or was made by a newer Genwright, MissingExtra without its driver.
    """

    def __init__(self, url: str, *, threads: int = 4, at: str = NEWEST):
        self.url = _url_of(url)
        self.is_sqlite = self.url.drivername.startswith("sqlite")
        if self.is_sqlite:
            Path(self.url.database or "").parent.mkdir(parents=True, exist_ok=True)
        self.engine = self._engine(threads)
        self.reader = self.engine.execution_options(reading=True)
        self.threads = ThreadPoolExecutor(threads, "store")
        self._open(at)

    @contextmanager
    def begin(self, *, reading: bool = False) -> Iterator[Session]:
        """One transaction. Raises Wrong (503) when the database is away, locked for too long, or its disk is full."""
        try:
            with Session(self.reader if reading else self.engine, expire_on_commit=False) as session, session.begin():
                yield session
        except DBAPIError as error:
            if not isinstance(error, _AWAY) and type(error) is not DatabaseError:
                raise  # our own mistake
            _LOG.error("the database cannot be used: %s", error.orig, exc_info=error)
            raise Wrong(503, "The server's database cannot be used now; try again in a moment.",
                        code="store_unavailable", headers={"Retry-After": "5"}) from error  # fmt: skip

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """The database as it is at one moment, for reading, however long that takes and whatever others write."""
        options = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self.reader.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    async def run(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.in_thread(lambda: self._done(False, work, *args, **kwargs))

    async def read(self, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.in_thread(lambda: self._done(True, work, *args, **kwargs))

    def _done(self, reading: bool, work: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self.begin(reading=reading) as session:
            return work(session, *args, **kwargs)

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    # -- documents: what is only kept, shown and listed (documents.py) ---------------------------------------------

    async def put(
        self, kind: str, id: str, owner: str, body: dict[str, Any], *, parent: str = "", expires: int | None = None
    ) -> None:
        await self.run(documents.put, kind, id, owner, body, parent=parent, expires=expires)

    async def get(self, kind: str, id: str, owner: str) -> dict[str, Any]:
        return await self.read(documents.get, kind, id, owner)

    async def delete(self, kind: str, id: str, owner: str) -> None:
        await self.run(documents.delete, kind, id, owner)

    async def list(
        self, kind: str, owner: str, after: str | None = None, limit: int = 20, order: str = "desc",
        where: dict[str, Any] | None = None, *, parent: str | None = None,
    ) -> Sequence[dict[str, Any]]:  # fmt: skip
        return await self.read(documents.listed, kind, owner, after, limit, order, where, parent=parent)

    def close(self) -> None:
        self.threads.shutdown(wait=True)
        self.engine.dispose()

    # -- opening -------------------------------------------------------------------------------------------------------

    def _engine(self, threads: int) -> Any:
        try:
            options: dict[str, Any] = {"pool_size": threads, "max_overflow": 16}
            if not self.is_sqlite:
                options["pool_pre_ping"] = True  # a database that was restarted is met again
            engine = create_engine(self.url, **options)
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "pg8000", "postgres") from None
        except (NoSuchModuleError, SQLAlchemyError) as error:
            raise UsageError(f"{self.url!r} is no database that is known here: {error}.", _URLS) from None
        if self.is_sqlite:
            event.listen(engine, "connect", _prepare)
            event.listen(engine, "begin", _begin)
        return engine

    def _open(self, at: str) -> None:
        turn = locked(Path(f"{self.url.database}.lock")) if self.is_sqlite else nullcontext()
        try:
            with turn, self.engine.begin() as connection:
                if not self.is_sqlite:
                    connection.execute(text("select pg_advisory_xact_lock(848480001)"))
                upgrade(connection, at)
        except DBAPIError as error:
            self.close()
            raise UsageError(f"The database {self.url!r} cannot be opened: {error.orig}.", _URLS) from error
        except UsageError:
            self.close()
            raise


_URLS = "Give --database a URL as sqlite:////folder/server.db or postgresql://user:password@host/database."


def upgrade(connection: Connection, to: str = NEWEST) -> None:
    """Bring the tables to the shape of migration `to`, inside the connection's transaction. Others wait for it."""
    has = connection.dialect.has_table(connection, "alembic_version")
    at = connection.execute(text("select version_num from alembic_version")).scalar() if has else None
    if at is not None and at > NEWEST:
        raise UsageError(f"The database was made by a newer Genwright (its tables are at {at}, known is {NEWEST}).",
                         "Install the newer version again, or use another --data folder.")  # fmt: skip
    if at is not None and at >= to:
        return
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    command.upgrade(config, to)


def _url_of(url: str) -> Any:
    try:
        found = make_url(url)
    except SQLAlchemyError as error:
        raise UsageError(f"The database's URL is none: {error}.", _URLS) from None
    kind = found.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise UsageError(f"{kind[:50]} is no database that is known here.", _URLS)
    if kind == "sqlite" and not found.database:
        raise UsageError("A database in memory would forget everything.", _URLS)
    if found.drivername == "postgresql":  # the driver with a permissive licence; users by default as in psql
        found = found.set(drivername="postgresql+pg8000", username=found.username or getpass.getuser())
    return found


def _prepare(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # `_begin` begins; the driver would do so only before the first change
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
