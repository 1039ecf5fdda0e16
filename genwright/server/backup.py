"""Backup: the whole state of a server in one file, taken while it runs, and put back on any machine.

The file is a plain tar: what it holds (`manifest.json`), the server's secret, each table's rows as JSON lines and the
contents of files by their sha256. Rows are written as plain values, so a backup of SQLite can be restored into
PostgreSQL and back. Restoring uses no name in the archive as a path, and commits nothing until all of it was read.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import secrets
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, MetaData, Table, func, select, text

from genwright.core import DataError, UsageError

from .store import Store
from .store.blobs import Blobs
from .store.store import NEWEST

_MEMBER = re.compile(r"manifest\.json|secret|rows/([a-z_]{1,40})\.jsonl|blobs/([0-9a-f]{64})")
_AT_ONCE = 500  # rows
_LARGEST_MANIFEST = 100_000_000  # bytes


def backup(store: Store, data: Path, file: Path) -> dict[str, Any]:
    """Write everything into `file`; what it holds. A server may go on working: its database and its blobs are taken
    as they are at one moment.

    Raises UsageError when the file exists.
    """
    if file.exists():
        raise UsageError(f"{file} exists already.", "Choose another name, or move it away.")
    blobs = Blobs(data / "blobs")
    aside = data / f"backup-{secrets.token_hex(8)}"
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        (aside / "rows").mkdir(parents=True, mode=0o700)
        with store.snapshot() as connection:
            with blobs.adding():
                schema = connection.execute(text("select version_num from alembic_version")).scalar_one()
                contents = _linked(blobs, aside)
            tables = {table.name: _dumped(connection, table, aside) for table in _tables(connection)}
        from genwright import __version__

        manifest = {"format": 1, "genwright": __version__, "schema": schema, "made": int(time.time()),
                    "tables": tables, "blobs": contents}  # fmt: skip
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            _pack(out, manifest, data / "secret", aside)
            out.flush()
            os.fsync(out.fileno())
        os.link(draft, file)  # never over another
    finally:
        draft.unlink(missing_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
    return {"file": str(file), "bytes": file.stat().st_size, "rows": sum(tables.values()), "blobs": len(contents)}


def restore(url: str, data: Path, file: Path) -> dict[str, Any]:
    """Put a backup into an empty database and folder; what it held.

    Raises UsageError when they are not empty or the backup is of a newer version, DataError when the file is no whole
    backup. Then nothing was restored.
    """
    try:
        with file.open("rb") as source, tarfile.open(fileobj=source, mode="r:") as archive:
            members = _members(archive, file.stat().st_size)
            name, inside = next(members, ("", io.BytesIO()))
            manifest = _manifest(name, inside)
            store = Store(url, at=manifest["schema"])
            try:
                blobs = Blobs(data / "blobs")
                with blobs.adding(), store.engine.begin() as connection:
                    _be_empty(connection, url, manifest["schema"])
                    _take_in(connection, blobs, data, manifest, members)
            finally:
                store.close()
        Store(url).close()  # which brings an older backup to the newest shape
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{file} is no backup, or not whole: {error}.", "Take another copy of it.") from None
    except OSError as error:
        raise UsageError(f"{error.filename or file}: {error.strerror}.", "Nothing was restored.") from None
    rows = sum(manifest["tables"].values())
    return {"file": str(file), "rows": rows, "blobs": len(manifest["blobs"]), "made": manifest["made"]}


# -- writing -----------------------------------------------------------------------------------------------------------


def _tables(connection: Connection) -> list[Table]:
    """The tables as they are in the database, each after those that it refers to."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def _linked(blobs: Blobs, aside: Path) -> dict[str, int]:
    """A second name for every blob, so that none goes while it is copied; their sizes."""
    sizes = {}
    for sha256 in blobs.all():
        source, copy = blobs.path(sha256), aside / sha256
        try:
            os.link(source, copy)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, copy)
        sizes[sha256] = copy.stat().st_size
    return sizes


def _dumped(connection: Connection, table: Table, aside: Path) -> int:
    """The names of the columns, then a row a line; how many rows."""
    count = 0
    rows = connection.execution_options(yield_per=_AT_ONCE).execute(select(table).order_by(*table.primary_key))
    with (aside / "rows" / f"{table.name}.jsonl").open("w", encoding="utf-8") as out:
        out.write(json.dumps(list(rows.keys())) + "\n")
        for row in rows:
            plain = [{"base64": base64.b64encode(v).decode()} if isinstance(v, bytes | memoryview) else v for v in row]
            out.write(json.dumps(plain) + "\n")
            count += 1
    return count


def _pack(out: BinaryIO, manifest: dict[str, Any], secret: Path, aside: Path) -> None:
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        said = json.dumps(manifest).encode()
        head = tarfile.TarInfo("manifest.json")
        head.size, head.mode, head.mtime = len(said), 0o600, manifest["made"]
        archive.addfile(head, io.BytesIO(said))
        files = [("secret", secret)] if secret.exists() else []
        files += [(f"rows/{name}.jsonl", aside / "rows" / f"{name}.jsonl") for name in manifest["tables"]]
        files += [(f"blobs/{sha256}", aside / sha256) for sha256 in manifest["blobs"]]
        for name, path in files:
            one = tarfile.TarInfo(name)
            one.size, one.mode, one.mtime = path.stat().st_size, 0o600, manifest["made"]
            with path.open("rb") as content:
                archive.addfile(one, content)


# -- reading -----------------------------------------------------------------------------------------------------------


def _members(archive: tarfile.TarFile, size: int) -> Iterator[tuple[str, BinaryIO]]:
    """What the archive holds, in its order. Raises DataError for anything that a backup does not have.

    `size` is the archive's in bytes: being packed plainly, it holds no more than that.
    """
    seen: set[str] = set()
    for member in archive:
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
        if not plain or not _MEMBER.fullmatch(member.name) or member.name in seen or not 0 <= member.size <= size:
            raise _odd(f"it holds {member.name[:100]!r}, which no backup has")
        seen.add(member.name)
        inside = archive.extractfile(member)
        assert inside is not None  # it is a plain file
        yield member.name, inside  # type: ignore[misc]


def _manifest(name: str, inside: BinaryIO) -> dict[str, Any]:
    try:
        found = json.loads(inside.read(_LARGEST_MANIFEST)) if name == "manifest.json" else {}
        good = (
            found["format"] == 1 and re.fullmatch(r"\d{4}", found["schema"]) and isinstance(found["made"], int)
            and all(isinstance(n, int) for part in ("tables", "blobs") for n in found[part].values())
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        good = False
    if not good:
        raise _odd("its manifest is missing or cannot be read")
    if found["schema"] > NEWEST:
        raise UsageError(f"The backup was made by a newer Genwright ({str(found['genwright'])[:40]}).",
                         "Install that version to restore it.")  # fmt: skip
    return dict(found)


def _be_empty(connection: Connection, url: str, schema: str) -> None:
    """Raises UsageError when the database holds anything: a restore never overwrites."""
    at = connection.execute(text("select version_num from alembic_version")).scalar_one()
    full = [t.name for t in _tables(connection) if connection.execute(select(func.count()).select_from(t)).scalar()]
    if full or at != schema:
        raise UsageError(f"The database is not empty: there are rows in {', '.join(full) or 'newer tables'}.",
                         "Restore into another one: --data NEW_FOLDER, and --database with PostgreSQL.")  # fmt: skip


def _take_in(
    connection: Connection, blobs: Blobs, data: Path, manifest: dict[str, Any], members: Iterator[tuple[str, BinaryIO]]
) -> None:
    tables = {table.name: table for table in _tables(connection)}
    rows: dict[str, int] = {}
    contents: set[str] = set()
    secret = b""
    for name, inside in members:
        table, sha256 = _MEMBER.fullmatch(name).groups()  # type: ignore[union-attr]
        if name == "secret":
            secret = inside.read(33)
        elif table in tables and table in manifest["tables"]:
            rows[table] = _insert(connection, tables[table], inside)
        elif sha256 in manifest["blobs"]:
            contents.add(_kept(blobs, sha256, inside, manifest["blobs"][sha256]))
        else:
            raise _odd(f"it holds {name!r}, which its manifest does not name")
    if rows != manifest["tables"] or contents != set(manifest["blobs"]):
        raise _odd("something that its manifest names is missing or cut short")
    if secret:
        _place_secret(data / "secret", secret)


def _insert(connection: Connection, table: Table, inside: BinaryIO) -> int:
    """Raises DataError for rows that are not of this table."""
    lines = io.TextIOWrapper(inside, encoding="utf-8")
    count = 0
    try:
        columns = json.loads(lines.readline())
        if set(columns) != set(table.columns.keys()):
            raise ValueError("other columns than the table has")
        batch: list[dict[str, Any]] = []
        for line in lines:
            batch.append(dict(zip(columns, map(_value, json.loads(line)), strict=True)))
            count += 1
            if len(batch) == _AT_ONCE:
                connection.execute(table.insert(), batch)
                batch = []
        if batch:
            connection.execute(table.insert(), batch)
    except (ValueError, TypeError, RecursionError) as error:
        raise _odd(f"the rows of {table.name} cannot be read near line {count + 2}: {error}") from None
    if connection.dialect.name == "postgresql" and "seq" in columns and count:
        counter = text(
            f"select setval(pg_get_serial_sequence('{table.name}', 'seq'), (select max(seq) from {table.name}))"
        )
        connection.execute(counter)
    return count


def _value(value: Any) -> Any:
    return base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value


def _kept(blobs: Blobs, sha256: str, inside: BinaryIO, size: int) -> str:
    with blobs.new(largest=size) as draft:
        while chunk := inside.read(1 << 20):
            draft.write(chunk)
        if draft.sha256 != sha256:
            raise _odd(f"the content {sha256[:12]}… is not what it says")
        return draft.keep()


def _place_secret(path: Path, secret: bytes) -> None:
    """No key exists yet, so a secret that a first start made here is not needed."""
    if len(secret) != 32:
        raise _odd("the secret in it is none")
    draft = path.with_name(f".secret.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _odd(why: str) -> DataError:
    return DataError(f"This is no backup that can be restored: {why}.", "Nothing was restored; take another copy.")
