"""Keys, jobs and backups from the command line, on the store of a server."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from genwright.cli import state_commands as commands
from genwright.cli.render import Screen
from genwright.core import UsageError
from genwright.server.house import House
from tests.server.household import fresh_url, small_house

SCREEN = Screen(quiet=True)
NEW_KEY = {"owner": "ann", "name": "", "admin": False, "metrics": False, "expires_in": None,
           "requests_per_minute": None, "tokens_per_minute": None, "tokens_per_day": None}  # fmt: skip


def said(tmp_path: Path, **more: Any) -> Namespace:
    return Namespace(**{"data": str(tmp_path / "data"), "database": fresh_url(tmp_path), "config": None} | more)


@pytest.fixture
def house(tmp_path: Path) -> Any:
    house = small_house(tmp_path)
    yield house
    house.store.close()


def test_keys_are_made_listed_and_revoked(house: House, tmp_path: Path, capsys: Any) -> None:
    made = commands.keys_create(
        said(tmp_path, **NEW_KEY | {"admin": True, "tokens_per_day": 500, "expires_in": "90d"}), SCREEN
    )
    assert made["key"] in capsys.readouterr().out
    caller = asyncio.run(house.keys.authenticate(made["key"]))
    assert (caller.owner, caller.is_admin, caller.limits) == ("ann", True, {"tokens_per_day": 500})

    async def use() -> None:
        async with house.limits.turn(caller, "tiny", 1) as turn:
            turn.count(3, 4)
        await house.limits.flush()

    asyncio.run(use())
    (listed,) = commands.keys_list(said(tmp_path), SCREEN)["keys"]
    assert (listed["state"], listed["requests_today"], listed["tokens_today"]) == ("valid", 1, 7)
    assert listed["expires"] == listed["created"] + 90 * 86_400
    out = capsys.readouterr().out
    assert made["begins"] in out
    assert made["key"] not in out
    assert commands.keys_revoke(said(tmp_path, id=made["id"]), SCREEN)["state"] == "revoked"
    assert not asyncio.run(house.keys.is_valid(caller)) or asyncio.run(_later(house, caller))
    with pytest.raises(UsageError):
        commands.keys_revoke(said(tmp_path, id="key_none"), SCREEN)
    scraper = commands.keys_create(said(tmp_path, **NEW_KEY | {"metrics": True}), SCREEN)
    assert asyncio.run(house.keys.authenticate(scraper["key"])).roles == {"metrics"}
    with pytest.raises(UsageError, match="no time"):
        commands.keys_create(said(tmp_path, **NEW_KEY | {"expires_in": "soon"}), SCREEN)


async def _later(house: House, caller: Any) -> bool:
    await asyncio.sleep(0.6)
    return not await house.keys.is_valid(caller)


def test_jobs_are_shown_and_steered_beside_a_running_server(house: House, tmp_path: Path, capsys: Any) -> None:
    async def work(job: Any, house: House) -> dict[str, Any]:
        await house.jobs.event(job.id, "Step 1 of 1000.")
        await asyncio.sleep(60)
        return {}

    async def story() -> None:
        house.jobs.register("fine_tuning", work)
        await house.jobs.start(house)
        job = await house.jobs.submit("fine_tuning", "ann", {})

        async def state(*wanted: str) -> None:
            while (await house.jobs.get(job.id, None)).state not in wanted:
                await asyncio.sleep(0.05)

        async def steer(command: Any, **more: Any) -> dict[str, Any]:
            return dict(await asyncio.to_thread(command, said(tmp_path, id=job.id, **more), SCREEN))

        await state("running")
        await steer(commands.jobs_pause)
        await state("paused")
        await steer(commands.jobs_resume)
        await state("running")
        await steer(commands.jobs_cancel)
        await state("cancelled")
        shown = await steer(commands.jobs_show, events=10)
        assert [event["message"] for event in shown["events"]] == ["Step 1 of 1000."] * 2
        with pytest.raises(UsageError, match="cancelled already"):
            await steer(commands.jobs_resume)
        await house.jobs.stop()

    asyncio.run(asyncio.wait_for(story(), 20))
    every = {"kind": None, "owner": None, "state": None, "limit": 20}
    assert [job["state"] for job in commands.jobs_list(said(tmp_path, **every), SCREEN)["jobs"]] == ["cancelled"]
    assert commands.jobs_list(said(tmp_path, **every | {"owner": "bob"}), SCREEN)["jobs"] == []
    assert "fine_tuning" in capsys.readouterr().out
    with pytest.raises(UsageError, match="job_none"):
        commands.jobs_show(said(tmp_path, id="job_none", events=10), SCREEN)


def test_a_backup_is_made_and_restored(house: House, tmp_path: Path, capsys: Any) -> None:
    house.keys.create("ann")
    assert commands.backup(said(tmp_path, file=str(tmp_path / "b.tar")), SCREEN)["rows"] == 1
    there = said(tmp_path / "there", file=str(tmp_path / "b.tar"))
    assert commands.restore(there, SCREEN)["rows"] == 1
    assert [key["owner"] for key in commands.keys_list(there, SCREEN)["keys"]] == ["ann"]
    with pytest.raises(UsageError, match="not empty"):
        commands.restore(there, SCREEN)


def test_the_servers_own_file_says_where_its_state_is(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text(f"models: [x]\ndata: {tmp_path / 'elsewhere'}\n")
    asked = Namespace(data=None, database=None, config=str(tmp_path / "serve.yaml"), **NEW_KEY)
    commands.keys_create(asked, SCREEN)
    assert (tmp_path / "elsewhere" / "server.db").exists()
    assert (tmp_path / "elsewhere" / "secret").exists()
