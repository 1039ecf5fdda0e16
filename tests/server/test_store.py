"""The store: what is committed stays, what is another's is not there, and every shape of text goes in and out."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select, text

from genwright.core import UsageError
from genwright.server.errors import Wrong
from genwright.server.housekeeping import tidy
from genwright.server.store import Store
from genwright.server.store.blobs import Blobs
from genwright.server.store.documents import mine, paged
from genwright.server.store.tables import Alias, Chunk, Document, Table, Upload, VectorFile, VectorStore

from .household import DATABASE, fresh_url, small_house


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(fresh_url(tmp_path))
    yield store
    store.close()


def _upload(id: str, owner: str, **other: Any) -> Upload:
    usual = {"id": id, "owner": owner, "created": 1, "name": "n", "purpose": "batch", "size": 1, "mime_type": "x",
             "state": "pending", "expires": 9, "file_expires_after": None, "file": None}  # fmt: skip
    return Upload(**usual | other)


# -- opening -----------------------------------------------------------------------------------------------------------


def test_the_migrations_lead_to_the_tables(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


def test_servers_that_start_at_once_do_not_collide(tmp_path: Path) -> None:
    url = fresh_url(tmp_path)
    code = f"from genwright.server.store import Store; Store({url!r}).close(); print('open')"
    starting = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].strip() for process in starting] == ["open"] * 2


def test_a_second_opening_takes_what_is_there(tmp_path: Path, store: Store) -> None:
    with store.begin() as session:
        session.add(Alias(name="gpt-4o", model="mine", created=1))
    began = time.monotonic()
    again = Store(fresh_url(tmp_path))
    assert time.monotonic() - began < 1
    with again.begin(reading=True) as session:
        assert session.get(Alias, "gpt-4o").model == "mine"  # type: ignore[union-attr]
    again.close()


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path, store: Store) -> None:
    with store.begin() as session:
        session.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(UsageError, match="newer Genwright"):
        Store(fresh_url(tmp_path))


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://x/y", "sqlite://", "oracle+none://x", "postgresql://127.0.0.1:1/x"]
)
def test_a_database_that_cannot_be_had_is_told_of(url: str) -> None:
    with pytest.raises(UsageError) as wrong:
        Store(url)
    assert "sqlite:////folder" in wrong.value.hint


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but something somebody wrote, long enough to be looked at" * 20)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="cannot be opened"):
        Store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_passwords_are_not_told() -> None:
    with pytest.raises(UsageError) as wrong:
        Store("postgresql://ann:CANARY@127.0.0.1:1/x")
    assert "CANARY" not in f"{wrong.value.message}{wrong.value.hint}"


@pytest.mark.skipif(bool(DATABASE), reason="of SQLite")
def test_sqlite_keeps_every_commit_on_the_disk(store: Store) -> None:
    with store.begin() as session:
        asked = {name: session.execute(text(f"PRAGMA {name}")).scalar() for name in
                 ("journal_mode", "synchronous", "foreign_keys")}  # fmt: skip
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


# -- transactions ------------------------------------------------------------------------------------------------------


def test_what_fails_half_way_never_happened(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.begin() as session:
        session.add(Alias(name="a", model="m", created=1))
        session.flush()
        _ = 1 / 0
    with store.begin(reading=True) as session:
        assert session.get(Alias, "a") is None


def test_writers_take_turns_and_lose_nothing(store: Store) -> None:
    with store.begin() as session:
        session.add(Alias(name="count", model="m", created=0))

    def more(session: Any) -> None:
        row = session.scalars(select(Alias).where(Alias.name == "count").with_for_update()).one()
        seen = row.created
        time.sleep(0.001)
        row.created = seen + 1

    async def all_at_once() -> None:
        await asyncio.gather(*(store.run(more) for _ in range(40)))

    asyncio.run(all_at_once())
    with store.begin(reading=True) as session:
        assert session.get(Alias, "count").created == 40  # type: ignore[union-attr]


@pytest.mark.skipif(bool(DATABASE), reason="of SQLite")
def test_a_database_that_is_away_is_503_and_comes_back(tmp_path: Path, store: Store) -> None:
    other = sqlite3.connect(str(store.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    event.listen(store.engine, "checkout", lambda raw, *_: raw.execute("PRAGMA busy_timeout=50"))
    with pytest.raises(Wrong) as wrong, store.begin() as session:
        session.add(Alias(name="late", model="m", created=1))
    assert (wrong.value.status, wrong.value.headers["Retry-After"]) == (503, "5")
    with store.begin(reading=True) as session:
        assert session.get(Alias, "late") is None  # who only reads waits for no writer
    other.execute("ROLLBACK")
    other.close()
    with store.begin() as session:
        session.add(Alias(name="late", model="m", created=1))


def test_text_of_every_kind_goes_in_and_out(store: Store) -> None:
    odd = "NUL \0, half a pair \ud800, 名前, 𝄞, \u202e, ' \" \\ %"
    body = {"id": "d", odd: [odd, 2**80, 1e300, None, True, {"deep": [[[]]]}]}
    asyncio.run(store.put("odd", "d", odd, body))
    assert asyncio.run(store.get("odd", "d", odd)) == body
    with pytest.raises(Wrong):
        asyncio.run(store.get("odd", "d\0", odd))


def test_what_hangs_on_a_row_goes_with_it(store: Store) -> None:
    with store.begin() as session:
        session.add(VectorStore(id="vs", owner="a", created=1, name="", description="", meta={}, settings={}, used=1))
        session.flush()
        session.add(VectorFile(id="vf", owner="a", created=1, store="vs", file="f", batch="", state="completed",
                               attributes={}, chunking={}, size=1))  # fmt: skip
        session.flush()
        session.add(Chunk(store="vs", vector_file="vf", number=0, text="t", tokens=1, embedding=b"\0\0\x80?"))
    with store.begin() as session:
        assert session.scalars(select(Chunk)).one().embedding == b"\0\0\x80?"
        session.delete(mine(session, VectorStore, "vs", "a"))
    with store.begin(reading=True) as session:
        assert not session.scalars(select(Chunk)).all()
        assert not session.scalars(select(VectorFile)).all()


# -- whose it is -------------------------------------------------------------------------------------------------------


def test_anothers_rows_are_not_there(store: Store) -> None:
    with store.begin() as session:
        session.add_all([_upload("upload_a", "ann"), _upload("upload_b", "bob")])
    with store.begin() as session:
        assert mine(session, Upload, "upload_a", "ann").id == "upload_a"
        for id, owner in (("upload_a", "bob"), ("upload_a", ""), ("upload_none", "ann"), ("upload_%", "ann")):
            with pytest.raises(Wrong) as wrong:
                mine(session, Upload, id, owner)
            assert wrong.value.status == 404
        assert [row.id for row in paged(session, Upload, "bob", None, 10, "asc")] == ["upload_b"]
        with pytest.raises(Wrong, match="after"):
            paged(session, Upload, "bob", "upload_a", 10, "asc")


def test_pages_follow_the_order_of_making(store: Store) -> None:
    with store.begin() as session:
        session.add_all([_upload(f"u{n:02}", "ann", size=n % 3) for n in range(20)])
        session.flush()
        ids = [row.id for row in paged(session, Upload, "ann", None, 5, "desc")]
        assert ids == [f"u{n:02}" for n in range(19, 13, -1)]  # one more than asked for tells that there are more
        assert [row.id for row in paged(session, Upload, "ann", "u17", 5, "asc")] == ["u18", "u19"]
        thirds = paged(session, Upload, "ann", "u03", 2, "asc", Upload.size == 0)
        assert [row.id for row in thirds] == ["u06", "u09", "u12"]


def test_documents_are_kept_replaced_listed_and_removed(store: Store) -> None:
    async def story() -> None:
        for n in range(6):
            body = {"id": f"r{n}", "n": n, "metadata": {"topic": "ab"[n % 2], "dotted.key": "x"}}
            await store.put("response", f"r{n}", "ann", body)
        await store.put("response", "r5", "ann", {"id": "r5", "n": 50})
        assert (await store.get("response", "r5", "ann"))["n"] == 50
        assert [body["n"] for body in await store.list("response", "ann", limit=2)] == [50, 4, 3]
        assert [body["n"] for body in await store.list("response", "ann", "r1", 10, "asc")] == [2, 3, 4, 50]
        found = await store.list(
            "response", "ann", where={"metadata.topic": "b", "metadata.dotted.key": "x"}, order="asc"
        )
        assert [body["n"] for body in found] == [1, 3]
        assert await store.list("response", "bob") == []
        assert await store.list("chat.completion", "ann") == []
        for wrong in (store.get("response", "r1", "bob"), store.get("chat.completion", "r1", "ann"),
                      store.delete("response", "r1", "bob"), store.put("response", "r1", "bob", {})):  # fmt: skip
            with pytest.raises(Wrong) as caught:
                await wrong
            assert caught.value.status == 404
        await store.put("item", "i1", "ann", {"id": "i1"}, parent="r1")
        assert [body["id"] for body in await store.list("item", "ann", parent="r1")] == ["i1"]
        await store.delete("response", "r1", "ann")
        assert await store.list("item", "ann") == []

    asyncio.run(story())


def test_a_long_list_is_searched_to_its_end(store: Store) -> None:
    with store.begin() as session:
        session.add_all(
            Document(id=f"d{n}", kind="k", owner="a", created=1, parent="", body={"id": f"d{n}", "odd": n % 700 == 0})
            for n in range(1500)
        )
    found = asyncio.run(store.list("k", "a", where={"odd": True}, order="asc"))
    assert [body["id"] for body in found] == ["d0", "d700", "d1400"]


def test_what_has_expired_is_not_there_and_then_gone(tmp_path: Path) -> None:
    house = small_house(tmp_path)
    soon = int(time.time()) - 1

    async def story() -> None:
        await house.store.put("k", "old", "a", {"id": "old"}, expires=soon)
        await house.store.put("k", "new", "a", {"id": "new"}, expires=soon + 1000)
        with pytest.raises(Wrong):
            await house.store.get("k", "old", "a")
        assert [body["id"] for body in await house.store.list("k", "a")] == ["new"]
        await tidy(house, time.time(), everything=True)

    asyncio.run(story())
    with house.store.begin(reading=True) as session:
        assert [row.id for row in session.scalars(select(Document))] == ["new"]
    house.store.close()


# -- blobs -------------------------------------------------------------------------------------------------------------


def test_a_blob_is_named_by_its_content_and_kept_once(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    sha256, size = blobs.put([b"some ", b"bytes"])
    assert (sha256, size) == (hashlib.sha256(b"some bytes").hexdigest(), 10)
    assert blobs.put(b"some bytes") == (sha256, size)
    assert list(blobs.all()) == [sha256]
    with blobs.open(sha256) as file:
        assert file.read() == b"some bytes"
    assert not list(blobs.drafts.iterdir())
    with pytest.raises(Wrong):
        blobs.open("0" * 64)
    for odd in ("../../etc/passwd", "", "0" * 63 + "/", "0" * 65, "A" * 64):
        with pytest.raises(ValueError):
            blobs.path(odd)


def test_only_wanted_blobs_and_young_drafts_outlive_a_sweep(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    kept, gone = blobs.put(b"kept")[0], blobs.put(b"gone")[0]
    old, young = blobs.drafts / "old", blobs.drafts / "young"
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    assert blobs.sweep(lambda: {kept}, [kept, gone]) == 1
    assert list(blobs.all()) == [kept]
    assert [path.name for path in blobs.drafts.iterdir()] == ["young"]


def test_a_full_disk_is_told_of_and_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    blobs = Blobs(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Wrong) as wrong:
        blobs.put(b"too much")
    assert wrong.value.status == 507
    assert not list(blobs.all())
    assert not list(blobs.drafts.iterdir())
