"""Keys: shown once, kept as a hash, ended within a second; and nobody comes in without one where there are some."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import inspect
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import text

from genwright.core import UsageError
from genwright.server.errors import Wrong
from genwright.server.house import Caller, House
from genwright.server.keys import Keys, secret_of
from genwright.server.routes import files

from .household import app_of, at_home, client, small_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = small_house(tmp_path)
    yield house
    house.store.close()


def _who(house: House, header: str, address: str = "") -> Caller:
    return asyncio.run(house.keys.authenticate(header, address))


def _refused(house: House, header: str, address: str = "") -> Wrong:
    with pytest.raises(Wrong) as wrong:
        _who(house, header, address)
    return wrong.value


def test_a_key_lets_its_owner_in_with_its_roles_and_limits(house: House) -> None:
    key, shown = house.keys.create("ann", name="laptop", roles=["user", "admin"], limits={"tokens_per_day": 5})
    assert shown.startswith("gw-")
    assert len(shown) == 46  # 256 bits
    for header in (f"Bearer {shown}", f"bearer {shown} ", shown):
        assert _who(house, header) == Caller("ann", key.id, frozenset({"user", "admin"}), {"tokens_per_day": 5})
    _, other = house.keys.create("bob")
    assert not _who(house, other).is_admin
    assert [key.name for key in house.keys.listed()] == ["laptop", ""]


def test_only_a_keyed_hash_is_kept(house: House) -> None:
    _, shown = house.keys.create("ann")
    with house.store.begin(reading=True) as session:
        dump = str(session.execute(text("select * from keys")).all())
    secret = (house.options.data / "secret").read_bytes()
    assert shown[3:] not in dump
    assert shown[:7] in dump  # enough to tell keys apart
    assert hashlib.sha256(shown.encode()).hexdigest() not in dump
    assert hmac.new(secret, shown.encode(), hashlib.sha256).hexdigest() in dump
    assert len(secret) == 32
    assert secret.hex() not in dump
    assert stat.S_IMODE((house.options.data / "secret").stat().st_mode) == 0o600
    for path in house.options.data.parent.rglob("*"):
        assert not path.is_file() or shown[3:].encode() not in path.read_bytes()


def test_without_keys_everybody_is_local_and_the_first_key_ends_that(house: House) -> None:
    assert _who(house, "") == _who(house, "Bearer none") == Caller()
    other = Keys(house.store, house.options.data)  # the command line, beside the server
    key, shown = other.create("ann")
    time.sleep(0.6)
    assert _refused(house, "").status == 401
    assert _who(house, shown).owner == "ann"
    other.revoke(key.id)
    time.sleep(0.6)
    assert _refused(house, shown).status == 401
    assert _refused(house, "").status == 401  # a house that had keys is not open again


def test_a_public_house_is_never_open(house: House) -> None:
    public = Keys(house.store, house.options.data, open_door=False)
    with pytest.raises(Wrong) as wrong:
        asyncio.run(public.authenticate(""))
    assert wrong.value.status == 401
    assert wrong.value.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "gw-", "Bearer gw-", "Bearer gw-" + "A" * 43, "Basic Z3c6Z3c=", "gw-\ud800", "gw-\0",
     "gw-" + "x" * 100_000, "Bearer none", "Bearer sk-123"],
)  # fmt: skip
def test_what_is_no_key_is_turned_away(house: House, header: str) -> None:
    house.keys.create("ann")
    assert _refused(house, header).status == 401


def test_part_of_a_key_and_its_hash_are_no_keys(house: House) -> None:
    key, shown = house.keys.create("ann")
    for near in (shown[:-1], shown + "A", shown[:-1] + ("A" if shown[-1] != "A" else "B"), key.hash, "gw-" + key.hash,
                 key.id, shown.upper()):  # fmt: skip
        assert _refused(house, near).status == 401


def test_a_key_expires(tmp_path: Path) -> None:
    now = [1_000_000.0]
    house = small_house(tmp_path)
    house.keys.clock = lambda: now[0]
    _, shown = house.keys.create("ann", expires_in=60)
    caller = _who(house, shown)
    now[0] += 59
    assert _who(house, shown).owner == "ann"
    assert asyncio.run(house.keys.is_valid(caller))
    now[0] += 1
    assert _refused(house, shown).status == 401
    assert not asyncio.run(house.keys.is_valid(caller))
    house.store.close()


def test_a_revoked_key_ends_within_a_second_also_for_who_is_inside(house: House) -> None:
    key, shown = house.keys.create("ann")
    _, others = house.keys.create("bob")
    caller = _who(house, shown)

    async def watch() -> float:
        while await house.keys.is_valid(caller):  # as the desk does for an open stream
            await asyncio.sleep(0.3)
        return time.monotonic()

    async def story() -> float:
        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.7)
        began = time.monotonic()
        await asyncio.to_thread(Keys(house.store, house.options.data).revoke, key.shown)
        return await watching - began

    assert asyncio.run(story()) <= 1.0
    assert _refused(house, shown).status == 401
    assert _who(house, others).owner == "bob"


def test_asking_whether_a_caller_may_stay_seldom_asks_the_store(house: House, monkeypatch: Any) -> None:
    _, shown = house.keys.create("ann")
    caller = _who(house, shown)
    reads, read = [], house.store.read

    async def counted(*args: Any) -> Any:
        reads.append(time.monotonic())
        return await read(*args)

    monkeypatch.setattr(house.store, "read", counted)

    async def ask() -> float:
        began = time.monotonic()
        for _ in range(1000):
            assert await house.keys.is_valid(caller)
        return time.monotonic() - began

    assert len(reads) <= asyncio.run(ask()) / 0.5 + 1


def test_many_wrong_tries_of_an_address_make_it_wait(house: House) -> None:
    _, shown = house.keys.create("ann")
    house.keys.ticks = lambda: 600.0

    async def guess() -> list[int]:
        statuses = []
        for _ in range(70):
            try:
                await house.keys.authenticate("gw-wrong", "10.0.0.1")
            except Wrong as wrong:
                statuses.append(wrong.status)
        return statuses

    statuses = asyncio.run(guess())
    assert statuses == [401] * 60 + [429] * 10
    assert _who(house, shown, "10.0.0.2").owner == "ann"
    house.keys.ticks = lambda: 660.0
    assert _who(house, shown, "10.0.0.1").owner == "ann"


def test_hashes_are_compared_in_constant_time() -> None:
    assert "hmac.compare_digest" in inspect.getsource(Keys.authenticate)


@pytest.mark.parametrize(
    ("owner", "more"),
    [("", {}), ("  ", {}), ("ann", {"expires_in": 0}), ("x" * 101, {}), ("ann", {"roles": ["root"]}),
     ("ann", {"roles": []}), ("ann", {"limits": {"tokens_per_hour": 1}}), ("ann", {"limits": {"tokens_per_day": 0}})],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_not_made(house: House, owner: str, more: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        house.keys.create(owner, **more)
    assert house.keys.listed() == []


def test_an_unknown_key_cannot_be_revoked(house: House) -> None:
    house.keys.create("ann")
    with pytest.raises(UsageError, match="No key"):
        house.keys.revoke("gw-none")


def test_a_damaged_secret_is_told_of_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    first = secret_of(path)
    assert secret_of(path) == first
    path.write_bytes(first[:10])
    with pytest.raises(UsageError, match="not the server's secret"):
        secret_of(path)
    assert path.read_bytes() == first[:10]


def test_servers_that_start_at_once_have_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(secret_of, [tmp_path / "s"] * 8))) == 1
    assert os.listdir(tmp_path) == ["s"]


def test_over_http_a_key_is_asked_for_and_never_told(tmp_path: Path) -> None:
    house = small_house(tmp_path)
    key, shown = house.keys.create("ann")
    with at_home(app_of(house, files)) as address:
        assert list(client(address, shown).files.list()) == []
        for wrong in ("gw-CANARY", "none", shown[:-2]):
            with pytest.raises(openai.AuthenticationError) as caught:
                client(address, wrong).files.list()
            assert caught.value.body["code"] == "invalid_api_key"  # type: ignore[index]
            assert "CANARY" not in caught.value.response.text
        house.keys.revoke(key.id)
        time.sleep(0.6)
        with pytest.raises(openai.AuthenticationError):
            client(address, shown).files.list()
    house.store.close()
