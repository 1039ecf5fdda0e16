"""Backups hold everything of one moment, go back whole or not at all, and open no other file."""

from __future__ import annotations

import asyncio
import io
import json
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from genwright.core import DataError, UsageError
from genwright.server.backup import backup, restore
from genwright.server.files import path_of, remove_file, save_file
from genwright.server.house import House
from genwright.server.store.tables import Chunk, File, Table, VectorFile, VectorStore

from .household import DATABASE, fresh_url, small_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = small_house(tmp_path / "first")
    yield house
    house.store.close()


def _fill(house: House) -> tuple[str, str]:
    """Something in every corner; a key's secret and a file's id."""
    _, shown = house.keys.create("ann", name="odd \u202e ' \\ name", limits={"tokens_per_day": 9})

    async def more() -> str:
        file = await save_file(house, "ann", "rows.jsonl", "fine-tune", b"some rows\n" * 1000)
        await save_file(house, "bob", "same.jsonl", "batch", b"some rows\n" * 1000, lives=4_000_000_000)
        job = await house.jobs.submit("fine_tuning", "ann", {"file": file.id, "rate": 1e-5}, idempotency_key="once")
        await house.jobs.event(job.id, "begun", data={"step": 1})
        await house.store.put("response", "r1", "ann", {"id": "r1", "text": "NUL \0 and half \ud800"})
        async with house.limits.turn(await house.keys.authenticate(shown), "tiny", 1) as turn:
            turn.count(3, 4)
        await house.limits.flush()
        return file.id

    id = asyncio.run(more())
    with house.store.begin() as session:
        session.add(VectorStore(id="vs", owner="ann", created=1, name="", description="", meta={}, settings={}, used=1))
        session.flush()
        session.add(VectorFile(id="vf", owner="ann", created=1, store="vs", file=id, batch="", state="completed",
                               attributes={}, chunking={}, size=1))  # fmt: skip
        session.flush()
        session.add(Chunk(store="vs", vector_file="vf", number=0, text="t", tokens=1, embedding=bytes(range(256))))
    return shown, id


def _everything(house: House) -> dict[str, list[Any]]:
    with house.store.begin(reading=True) as session:
        return {name: sorted(map(tuple, session.execute(select(table)).all()), key=repr)
                for name, table in Table.metadata.tables.items()}  # fmt: skip


def test_what_was_backed_up_comes_back(house: House, tmp_path: Path) -> None:
    shown, id = _fill(house)
    before = _everything(house)
    said = backup(house.store, house.options.data, tmp_path / "b.tar")
    assert (said["rows"], said["blobs"]) == (sum(map(len, before.values())), 1)
    assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600
    assert not list(house.options.data.glob("backup-*"))
    url, data = fresh_url(tmp_path / "second"), tmp_path / "second" / "data"
    assert restore(url, data, tmp_path / "b.tar")["rows"] == said["rows"]
    other = small_house(tmp_path / "second")
    assert _everything(other) == before
    assert asyncio.run(path_of(other, id, "ann")).read_bytes() == b"some rows\n" * 1000
    assert asyncio.run(other.keys.authenticate(shown)).owner == "ann"  # the secret came along
    other.keys.create("new")  # and numbers go on behind those restored
    asyncio.run(save_file(other, "ann", "next", "user_data", b"next"))
    other.store.close()


@pytest.mark.skipif(not DATABASE, reason="needs PostgreSQL")
def test_a_backup_moves_between_databases(house: House, tmp_path: Path) -> None:
    _fill(house)
    backup(house.store, house.options.data, tmp_path / "postgres.tar")
    lite = f"sqlite:///{tmp_path / 'lite.db'}"
    restore(lite, tmp_path / "lite", tmp_path / "postgres.tar")
    there = small_house(tmp_path / "lite", database=lite, data=tmp_path / "lite")
    assert _everything(there) == _everything(house)
    backup(there.store, tmp_path / "lite", tmp_path / "sqlite.tar")
    restore(fresh_url(tmp_path / "back"), tmp_path / "back" / "data", tmp_path / "sqlite.tar")
    back = small_house(tmp_path / "back")
    assert _everything(back) == _everything(house)
    back.keys.create("ann")
    for one in (there, back):
        one.store.close()


def test_a_backup_of_a_busy_server_is_of_one_moment(house: House, tmp_path: Path) -> None:
    """Files come and go meanwhile; every file that the backup knows has its content in it."""
    stop = threading.Event()

    async def come_and_go(name: str) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            file = await save_file(house, "ann", name, "user_data", f"{name} {n % 7}".encode() * 50)
            if n % 3:
                await remove_file(house, file.id, "ann")

    busy = [threading.Thread(target=lambda n=n: asyncio.run(come_and_go(f"w{n}"))) for n in range(2)]
    for thread in busy:
        thread.start()
    try:
        for n in range(4):
            backup(house.store, house.options.data, tmp_path / f"{n}.tar")
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    for n in range(4):
        restore(fresh_url(tmp_path / str(n)), tmp_path / str(n) / "data", tmp_path / f"{n}.tar")
        other = small_house(tmp_path / str(n))
        with other.store.begin(reading=True) as session:
            for file in session.scalars(select(File)):
                assert other.blobs.path(file.sha256).stat().st_size == file.size
        other.store.close()


def test_nothing_is_overwritten(house: House, tmp_path: Path) -> None:
    _fill(house)
    backup(house.store, house.options.data, tmp_path / "b.tar")
    held = (tmp_path / "b.tar").read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        backup(house.store, house.options.data, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_bytes() == held
    before = _everything(house)
    with pytest.raises(UsageError, match="not empty"):
        restore(fresh_url(tmp_path / "first"), house.options.data, tmp_path / "b.tar")
    assert _everything(house) == before


# -- R26: archives that are no backups ---------------------------------------------------------------------------------


def _members(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path) as archive:
        return [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def _packed(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for member, data in members:
            member.size = len(data) if member.isreg() else member.size
            archive.addfile(member, io.BytesIO(data))
    return path


def _extra(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    one = tarfile.TarInfo(name)
    one.type, one.linkname = kind, link
    return one, b"evil" if kind == tarfile.REGTYPE else b""


EVIL = [
    _extra("../../evil"), _extra("/tmp/evil"), _extra("blobs/../../evil"), _extra("blobs/" + "A" * 64),
    _extra("blobs/CON"), _extra("rows/..jsonl"), _extra("rows/keys.JSONL"), _extra("evil\0.txt"), _extra("c:\\evil"),
    _extra("blobs/" + "0" * 64), _extra("rows/evil.jsonl"), _extra("Secret"), _extra("manifest.json"),
    _extra("blobs/" + "1" * 64, tarfile.SYMTYPE, "/etc/passwd"), _extra("blobs/" + "1" * 64, tarfile.LNKTYPE, "secret"),
    _extra("blobs", tarfile.DIRTYPE), _extra("rows/x.jsonl", tarfile.FIFOTYPE), _extra("x", tarfile.CHRTYPE),
    _extra("blobs/" + "1" * 64, tarfile.GNUTYPE_SPARSE),
]  # fmt: skip


def test_an_archive_with_anything_else_in_it_is_refused(house: House, tmp_path: Path) -> None:
    backup(house.store, house.options.data, tmp_path / "good.tar")
    good, into = _members(tmp_path / "good.tar"), tmp_path / "into"
    url = fresh_url(into)
    outside = {path for path in tmp_path.rglob("*") if into not in path.parents}
    for number, evil in enumerate(EVIL):
        where = (1, len(good), 0)[number % 3]
        path = _packed(into / "evil.tar", [*good[:where], evil, *good[where:]])
        with pytest.raises((DataError, UsageError)):
            restore(url, into / "data", path)
    many = [_extra(f"blobs/{n:064x}") for n in range(10_000)]
    with pytest.raises(DataError):
        restore(url, into / "data", _packed(into / "evil.tar", [*good, *many]))
    assert {path for path in tmp_path.rglob("*") if into not in path.parents} == outside
    restore(url, into / "data", tmp_path / "good.tar")  # nothing of them was restored: a good one still fits in


def test_a_backup_that_was_changed_or_cut_is_refused(house: House, tmp_path: Path) -> None:
    _fill(house)
    backup(house.store, house.options.data, tmp_path / "good.tar")
    good = (tmp_path / "good.tar").read_bytes()
    changed = {
        "cut": good[: len(good) // 2], "empty": b"", "nonsense": b"nonsense" * 1000, "short": good[:100],
        "byte": good.replace(b"some rows\nsome", b"some r0ws\nsome", 1), "rows": good.replace(b'"ann"', b'"ann', 1),
        "column": good.replace(b'"owner"', b'"own3r"', 1), "newer": good.replace(b'"0001"', b'"9999"', 1),
    }  # fmt: skip
    for name, data in changed.items():
        assert data != good, name
        path = tmp_path / f"{name}.tar"
        path.write_bytes(data)
        with pytest.raises((DataError, UsageError)):
            restore(fresh_url(tmp_path / "into"), tmp_path / "into" / "data", path)
    for missing in ("manifest.json", "rows/files.jsonl", "blobs/"):
        kept = [m for m in _members(tmp_path / "good.tar") if not m[0].name.startswith(missing)]
        with pytest.raises(DataError):
            restore(fresh_url(tmp_path / "into"), tmp_path / "into" / "data", _packed(tmp_path / "less.tar", kept))
    restore(fresh_url(tmp_path / "into"), tmp_path / "into" / "data", tmp_path / "good.tar")


def test_a_manifest_that_lies_is_refused(house: House, tmp_path: Path) -> None:
    backup(house.store, house.options.data, tmp_path / "good.tar")
    members, url = _members(tmp_path / "good.tar"), fresh_url(tmp_path / "into")
    manifest = json.loads(members[0][1])
    for lie in (
        {"tables": {"keys": -1}},
        {"blobs": {"0" * 64: 2**60}},
        {"format": 2},
        {"schema": "../x"},
        {"tables": 5},
    ):
        members[0] = (members[0][0], json.dumps(manifest | lie).encode())
        with pytest.raises((DataError, UsageError)):
            restore(url, tmp_path / "into" / "data", _packed(tmp_path / "lie.tar", members))


def test_a_file_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        restore(fresh_url(tmp_path / "into"), tmp_path / "into" / "data", tmp_path / "none.tar")
