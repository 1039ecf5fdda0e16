"""Health: alive, ready or why not, the figures for those who may see them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from genwright.server.app import create_app
from genwright.server.fleet import Fleet
from genwright.server.house import House
from genwright.server.meters import Meters

from .household import asgi, small_house
from .parlour import Parlour, raw, send, wait_until

HTTP = (
    'http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="200",'
    'http_route="/v1/chat/completions"}'
)


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = small_house(tmp_path, meters=Meters())
    house.fleet = Fleet(house.options, house.store)
    return house


def _get(house: House, *asked: tuple[str, str]) -> list[Any]:
    """The answers to (path, key), in turn, without a port."""

    async def get() -> list[Any]:
        async with asgi(create_app(house)) as http:
            return [await http.get(f"http://127.0.0.1{path}", headers={"Authorization": key}) for path, key in asked]

    return asyncio.run(get())


def test_alive_is_always_so_and_ready_says_why_not(house: House) -> None:
    for state, why, said in (("loading", "Models are being loaded.", "Models are being loaded."),
                             ("loading", "", "Starting."), ("draining", "", "Told to stop")):  # fmt: skip
        house.state, house.why = state, why
        alive, ready = _get(house, ("/healthz", ""), ("/readyz", ""))
        assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
        assert ready.status_code == 503
        assert ready.headers["retry-after"] == "1"
        assert ready.json()["status"] == state
        assert ready.json()["reason"].startswith(said)
    house.state = "ready"
    assert _get(house, ("/readyz", ""))[0].json() == {"status": "ready"}


def test_figures_are_for_scrapers_and_admins_only_and_a_scrapers_key_opens_nothing_else(house: House) -> None:
    house.state = "ready"
    user, admin, scraper = (
        f"Bearer {house.keys.create('ann', roles=[role])[1]}" for role in ("user", "admin", "metrics")
    )
    paths = ("/metrics", "/version", "/v1/models", "/healthz", "/readyz")
    seen = {
        name: [answer.status_code for answer in _get(house, *((path, key) for path in paths))]
        for name, key in (("nobody", ""), ("user", user), ("admin", admin), ("scraper", scraper))
    }
    assert seen == {"nobody": [401, 401, 401, 200, 200], "user": [403, 200, 200, 200, 200],
                    "admin": [200, 200, 200, 200, 200], "scraper": [200, 403, 403, 200, 200]}  # fmt: skip
    house.state = "draining"
    assert [answer.status_code for answer in _get(house, ("/metrics", scraper), ("/v1/models", user))] == [200, 503]


def test_a_running_server_counts_what_it_does(parlour: Parlour) -> None:
    parlour.script.says("a", "b", "c", pause=0.05)
    ask = {"model": "says", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    before = _samples(parlour)
    assert send(parlour.address, "POST", "/v1/chat/completions", ask)[0] == 200
    wait_until(lambda: _samples(parlour).get(HTTP, 0.0) > before.get(HTTP, 0.0))
    after = _samples(parlour)

    def grew(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grew('genwright_generation_tokens_total{model_name="says"}') == 3
    assert grew('genwright_time_to_first_token_seconds_count{model_name="says"}') == 1
    assert grew('genwright_inter_token_latency_seconds_count{model_name="says"}') == 2
    assert grew('genwright_requests_total{model_name="says",status="stop"}') == 1
    assert after['genwright_num_requests_running{model_name="says"}'] == 0
    assert after["process_resident_memory_bytes"] > 10e6
    assert grew(HTTP) == 1


def _samples(parlour: Parlour) -> dict[str, float]:
    status, text, head = send(parlour.address, "GET", "/metrics")
    assert status == 200
    assert head["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    pairs = (line.rsplit(" ", 1) for line in text.decode().splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def test_the_version_is_ours(parlour: Parlour) -> None:
    from genwright import __version__

    assert raw(parlour.address, "GET", "/version")[:2] == (200, {"name": "genwright", "version": __version__})
