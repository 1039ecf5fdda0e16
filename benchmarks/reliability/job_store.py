"""Kill -9 a server's writer again and again inside its transactions: nothing that it acknowledged may be lost.

    python benchmarks/reliability/job_store.py --kills 100 --seed 0
    .ci/postgres python benchmarks/reliability/job_store.py --kills 100     # in GENWRIGHT_TEST_DATABASE instead

Part one (R22): a process submits jobs, tells of them, keeps files and documents, all at once, and says of each when it
is on the disk. It is killed at a random moment; then the database is checked and everything it had said is looked for.
Part two (R13): a process does jobs that each leave one file, while their submission is repeated under the same
Idempotency-Key; it is killed and started again until all are done. Then there is one job and one file for each key.
Exit 1 on any loss or double. What a kill cannot show, the loss of power, is up to synchronous=FULL and fsync.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
FORK = multiprocessing.get_context("fork")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=60, help="of part two")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        wrong = acknowledged(Path(first), options.kills, chance) + once(Path(second), options.jobs, chance)
    print(f"\n{wrong} lost, doubled or broken")
    return 1 if wrong else 0


# -- R22 ---------------------------------------------------------------------------------------------------------------


def acknowledged(folder: Path, kills: int, chance: random.Random) -> int:
    """How much was lost or broken."""
    _house(folder).store.close()  # the tables are made once
    said: list[str] = []
    broken = midway = 0
    began = time.perf_counter()
    for _ in range(kills):
        open_transactions = FORK.Value("i", 0)
        reader, writer = os.pipe()
        child = FORK.Process(target=write_on, args=(folder, writer, open_transactions))
        child.start()
        os.close(writer)
        with os.fdopen(reader, "rb") as lines:
            said.append(lines.readline().decode())  # it is at work
            time.sleep(chance.uniform(0, 0.5))
            os.kill(child.pid or 0, signal.SIGKILL)
            said += [line.decode() for line in lines if line.endswith(b"\n")]
        child.join()
        midway += open_transactions.value > 0
        broken += not _is_sound(folder)
    missing, counts = _missing(folder, said)
    print(f"R22: {kills} kills, {midway} of them inside a transaction, {time.perf_counter() - began:.0f} s")
    print("     acknowledged: " + ", ".join(f"{count} {kind}s" for kind, count in sorted(counts.items())))
    print(f"     integrity broken {broken} times, {len(missing)} acknowledged things missing {missing[:3] or ''}")
    return broken + len(missing)


def write_on(folder: Path, out: int, open_transactions: Any) -> None:
    """Everything that a server keeps, at once, without end; a line for each when it is said to be kept."""
    from genwright.server.files import save_file

    house = _house(folder)
    begin, turn = house.store.begin, threading.Lock()

    @contextmanager
    def counted(*, reading: bool = False) -> Iterator[Any]:
        with begin(reading=reading) as session:
            session.connection()  # the transaction begins here
            with turn:
                open_transactions.value += not reading
            yield session
        with turn:  # it is committed
            open_transactions.value -= not reading

    house.store.begin = counted

    def tell(*words: str) -> None:
        os.write(out, (" ".join(words) + "\n").encode())

    async def jobs() -> None:
        while True:
            job = await house.jobs.submit("nothing", "ann", {"n": "x" * random.randrange(3000)})
            tell("job", job.id)
            await house.jobs.event(job.id, "told")
            tell("event", job.id)

    async def files() -> None:
        while True:
            data = random.randbytes(random.randrange(1, 50_000))
            file = await save_file(house, "ann", "f", "user_data", data)
            tell("file", file.id, hashlib.sha256(data).hexdigest())

    async def documents() -> None:
        n = 0
        while True:
            n += 1
            id = f"r{os.getpid()}-{n}"
            await house.store.put("response", id, "ann", {"id": id, "text": "x" * random.randrange(10_000)})
            tell("document", id)

    async def all_at_once() -> None:
        await asyncio.gather(jobs(), jobs(), files(), documents())

    random.seed(os.getpid())
    asyncio.run(all_at_once())


def _is_sound(folder: Path) -> bool:
    path = folder / "server.db"
    if not path.exists():
        return True  # PostgreSQL looks after itself
    connection = sqlite3.connect(path)
    found = connection.execute("PRAGMA integrity_check").fetchall()
    dangling = connection.execute("PRAGMA foreign_key_check").fetchall()
    connection.close()
    return found == [("ok",)] and not dangling


def _missing(folder: Path, said: list[str]) -> tuple[list[str], dict[str, int]]:
    from sqlalchemy import select

    from genwright.server.store.tables import Document, File, Job, JobEvent

    house = _house(folder)
    with house.store.begin(reading=True) as session:
        there = {
            "job": set(session.scalars(select(Job.id))), "event": set(session.scalars(select(JobEvent.job))),
            "document": set(session.scalars(select(Document.id))),
        }  # fmt: skip
        contents = {file.id: file.sha256 for file in session.scalars(select(File))}
    missing, counts = [], dict[str, int]()
    for line in said:
        kind, id, *more = line.split()
        counts[kind] = counts.get(kind, 0) + 1
        if kind == "file":
            kept = contents.get(id) == more[0] and _hash(house.blobs.path(more[0])) == more[0]
        else:
            kept = id in there[kind]
        if not kept:
            missing.append(line.strip())
    house.store.close()
    return missing, counts


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- R13 ---------------------------------------------------------------------------------------------------------------


def once(folder: Path, jobs: int, chance: random.Random) -> int:
    """How many jobs or files there are too many or too few."""
    from sqlalchemy import select

    from genwright.server.store.tables import File, Job

    house = _house(folder)
    keys = [f"key-{n}" for n in range(jobs)]
    kills, done = 0, 0
    began = time.perf_counter()
    while done < jobs:
        child = FORK.Process(target=work_on, args=(folder, keys, chance.random()))
        child.start()
        child.join(chance.uniform(0.2, 2))
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        kills += 1
        with house.store.begin(reading=True) as session:
            done = len(session.scalars(select(Job.id).where(Job.state == "succeeded")).all())
    with house.store.begin(reading=True) as session:
        every = session.scalars(select(Job)).all()
        files = session.scalars(select(File)).all()
    results = {job.result["file"] for job in every if job.result}
    lost = sum(job.state != "succeeded" for job in every)
    print(f"R13: {jobs} keys submitted again and again over {kills} kills, {time.perf_counter() - began:.0f} s")
    print(f"     {len(every)} jobs, {len(files)} files, {len(results)} results; {lost} jobs not done")
    house.store.close()
    return abs(len(every) - jobs) + abs(len(files) - jobs) + len(results ^ {file.id for file in files}) + lost


def work_on(folder: Path, keys: list[str], seed: float) -> None:
    """A server that does the jobs, and a client beside it that submits them over and over."""
    from genwright.server.files import save_file
    from genwright.server.jobs import Handler

    async def work(job: Any, house: Any) -> dict[str, Any]:
        await asyncio.sleep(0.02)
        name = job.payload["name"]
        file = await save_file(house, job.owner, name, "user_data", name.encode(), id=f"file-{job.id}")
        await asyncio.sleep(0.02)
        return {"file": file.id}

    async def serve() -> None:
        house = _house(folder)
        house.jobs.register("once", Handler(work, at_once=4))
        await house.jobs.start(house)
        order = random.Random(seed)
        while True:
            name = order.choice(keys)
            await house.jobs.submit("once", "ann", {"name": name}, idempotency_key=name)
            await asyncio.sleep(0.002)

    asyncio.run(serve())


def _house(folder: Path) -> Any:
    from tests.server.household import small_house

    return small_house(folder)


if __name__ == "__main__":
    sys.exit(main())
