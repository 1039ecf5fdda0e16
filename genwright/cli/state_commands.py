"""Keys, jobs and backups, from the command line: on the server's own store, whether a server runs or not."""

from __future__ import annotations

import asyncio
import re
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genwright.core import GenwrightError, MissingExtra, ModelError, UsageError

from .render import Screen, size

if TYPE_CHECKING:
    from genwright.server.house import Options
    from genwright.server.jobs import Jobs
    from genwright.server.keys import Keys
    from genwright.server.store import Store
    from genwright.server.store.tables import Job, Key

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


# -- keys --------------------------------------------------------------------------------------------------------------


def keys_create(args: Namespace, screen: Screen) -> dict[str, Any]:
    with _store(args) as (options, store):
        keys = _keys(options, store)
        is_first = not keys.listed()
        limits = {name: value for name in _limits() if (value := getattr(args, name)) is not None}
        key, shown = keys.create(
            args.owner, name=args.name, roles=_roles(args), limits=limits, expires_in=_seconds(args.expires_in)
        )  # fmt: skip
        screen.say(shown)
        screen.tell.note("Keep it: it cannot be shown again. Clients send it as their api_key.")
        if is_first:
            screen.tell.note("From now on the server asks everybody for a key.")
        return _key_facts(key) | {"key": shown}


def _roles(args: Namespace) -> list[str]:
    return ["metrics"] if args.metrics else ["user", "admin"] if args.admin else ["user"]


def keys_list(args: Namespace, screen: Screen) -> dict[str, Any]:
    with _store(args) as (options, store):
        found = [_key_facts(key) | _used_today(store, key.id) for key in _keys(options, store).listed()]
    screen.table(
        ("id", "owner", "name", "begins", "roles", "limits", "state", "made", "requests today", "tokens today"),
        [
            (f["id"], f["owner"], f["name"], f["begins"], " ".join(f["roles"]),
             " ".join(f"{name}={most}" for name, most in f["limits"].items()), f["state"], _day(f["created"]),
             f["requests_today"], f["tokens_today"])
            for f in found
        ],
    )  # fmt: skip
    return {"keys": found}


def keys_revoke(args: Namespace, screen: Screen) -> dict[str, Any]:
    with _store(args) as (options, store):
        facts = _key_facts(_keys(options, store).revoke(args.id))
    screen.say(f"{facts['id']} of {facts['owner']} is revoked; a running server knows within a second.")
    return facts


# -- jobs --------------------------------------------------------------------------------------------------------------


def jobs_list(args: Namespace, screen: Screen) -> dict[str, Any]:
    from sqlalchemy import select

    from genwright.server.store.tables import Job

    with _store(args) as (_, store), store.begin(reading=True) as session:
        query = select(Job).order_by(Job.seq.desc()).limit(args.limit)
        for name in ("kind", "owner", "state"):
            if (wanted := getattr(args, name)) is not None:
                query = query.where(getattr(Job, name) == wanted)
        found = [_job_facts(job) for job in session.scalars(query)]
    screen.table(("id", "kind", "owner", "state", "made", "took"), [
        (f["id"], f["kind"], f["owner"], f["state"], _time(f["created"]), _took(f)) for f in found
    ])  # fmt: skip
    return {"jobs": found}


def jobs_show(args: Namespace, screen: Screen) -> dict[str, Any]:
    with _jobs(args) as jobs:
        job = asyncio.run(jobs.get(args.id, None))
        events = asyncio.run(jobs.events(args.id, 0, args.events, newest_first=True))[::-1]
    facts = _job_facts(job) | {
        "events": [{"created": e.created, "level": e.level, "message": e.message} for e in events]
    }
    screen.say(f"{job.id}  {job.kind} of {job.owner}: {job.state}, made {_time(job.created)}{_took(facts, ', took ')}")
    for event in events:
        screen.say(f"  {_time(int(event.created))}  {event.message}", style="yellow" if event.level != "info" else "")
    if job.error:
        screen.say(f"  failed: {job.error['message']}", style="red")
    return facts


def jobs_cancel(args: Namespace, screen: Screen) -> dict[str, Any]:
    return _changed(args, screen, "cancel")


def jobs_pause(args: Namespace, screen: Screen) -> dict[str, Any]:
    return _changed(args, screen, "pause")


def jobs_resume(args: Namespace, screen: Screen) -> dict[str, Any]:
    return _changed(args, screen, "resume")


def _changed(args: Namespace, screen: Screen, what: str) -> dict[str, Any]:
    with _jobs(args) as jobs:
        job = asyncio.run(getattr(jobs, what)(args.id, None))
    said = "is being paused" if job.wanted == "pause" else f"is {job.state}"
    screen.say(f"{job.id} {said}.")
    return _job_facts(job)


# -- backups -----------------------------------------------------------------------------------------------------------


def backup(args: Namespace, screen: Screen) -> dict[str, Any]:
    with _store(args) as (options, store):
        from genwright.server.backup import backup as write

        done = write(store, options.data, Path(args.file))
    screen.say(f"{done['file']}  {size(done['bytes'])}: {done['rows']:,} rows, {done['blobs']:,} contents of files.")
    screen.tell.note("It holds the server's secret and everybody's data: keep it where only you can read it.")
    return done


def restore(args: Namespace, screen: Screen) -> dict[str, Any]:
    with _told():
        from genwright.server.backup import restore as read

        options = _options(args)
        options.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        done = read(options.url, options.data, Path(args.file))
    screen.say(f"Restored as of {_time(done['made'])}: {done['rows']:,} rows, {done['blobs']:,} contents of files.")
    return done


# -- within ------------------------------------------------------------------------------------------------------------


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong in the server's parts, in the command line's words."""
    try:
        from genwright.server.errors import Wrong
    except ImportError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from None
    try:
        yield
    except ImportError as error:
        raise MissingExtra(error.name or "sqlalchemy", "serve") from None
    except Wrong as wrong:
        kind: Callable[..., GenwrightError] = UsageError if wrong.status < 500 else ModelError
        raise kind(str(wrong)) from None


@contextmanager
def _store(args: Namespace) -> Iterator[tuple[Options, Store]]:
    with _told():
        from genwright.server.store import Store

        options = _options(args)
        options.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = Store(options.url)
        try:
            yield options, store
        finally:
            store.close()


@contextmanager
def _jobs(args: Namespace) -> Iterator[Jobs]:
    from genwright.server.jobs import Jobs

    with _store(args) as (options, store):
        yield Jobs(store, options.data)


def _options(args: Namespace) -> Options:
    """Where the server's state is: --data and --database, or those of the file that `serve --config` takes."""
    from genwright.server.house import Options

    from .server_commands import _from_file

    said = _from_file(Path(args.config)) if args.config else {}
    said = {name: said[name] for name in ("data", "database") if name in said}
    said |= {name: value for name in ("data", "database") if (value := getattr(args, name)) is not None}
    return Options.model_validate(said)


def _keys(options: Options, store: Store) -> Keys:
    from genwright.server.keys import Keys

    return Keys(store, options.data)


def _limits() -> tuple[str, ...]:
    from genwright.server.keys import LIMITS

    return LIMITS


def _key_facts(key: Key) -> dict[str, Any]:
    expired = key.expires is not None and key.expires <= time.time()
    return {
        "id": key.id, "owner": key.owner, "name": key.name, "begins": key.shown, "roles": key.roles,
        "limits": key.limits, "created": key.created, "expires": key.expires,
        "state": "revoked" if key.revoked else "expired" if expired else "valid",
    }  # fmt: skip


def _used_today(store: Store, key: str) -> dict[str, int]:
    from sqlalchemy import select

    from genwright.server.store.tables import Usage

    today = datetime.now(UTC).date().isoformat()
    with store.begin(reading=True) as session:
        rows = session.scalars(select(Usage).where(Usage.key == key, Usage.day == today)).all()
    return {"requests_today": sum(row.requests for row in rows),
            "tokens_today": sum(row.prompt_tokens + row.completion_tokens for row in rows)}  # fmt: skip


def _job_facts(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in
            ("id", "kind", "owner", "state", "created", "started", "finished", "tries", "error", "result")}  # fmt: skip


def _took(facts: dict[str, Any], lead: str = "") -> str:
    if not facts["started"]:
        return "" if lead else "–"
    seconds = (facts["finished"] or int(time.time())) - facts["started"]
    return f"{lead}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).date().isoformat()


def _seconds(text: str | None) -> float | None:
    """
    >>> _seconds("90d"), _seconds("12h"), _seconds("30"), _seconds(None)
    (7776000, 43200, 30, None)
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})([smhdw]?)", text.strip().lower())
    if not found:
        raise UsageError(f"{text} is no time.", "Write --expires-in 90d, 12h or 30m.")
    return int(found[1]) * _SECONDS[found[2] or "s"]
