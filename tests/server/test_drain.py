"""Stopping: what was begun ends, what comes is sent elsewhere, and nothing stays behind; on a real server."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from genwright.core import UsageError
from genwright.server.house import Options
from genwright.server.keys import Keys
from genwright.server.serve import household, serve, serve_options
from genwright.server.store import Store

from .crew import Running, running_server, says, with_engine


@contextmanager
def _served(place: Path, **options: Any) -> Iterator[Running]:
    told = {"models": [says("m", parallel=32)], "embedder": "", **options}
    with with_engine(place), running_server(place, told) as server:
        yield server


def _get(server: Running, path: str) -> tuple[int, float]:
    """(status, seconds); status 0 when nobody answers."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status, time.monotonic() - began
    except OSError:
        return 0, time.monotonic() - began
    finally:
        connection.close()


@contextmanager
def _asked(server: Running, **told: Any) -> Iterator[http.client.HTTPResponse]:
    """A stream that has begun."""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": json.dumps(told)}]}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        yield (response := connection.getresponse())
        response.close()
    finally:
        connection.close()


def _open_streams(server: Running, count: int, **told: Any) -> tuple[list[threading.Thread], list[str]]:
    found: list[str] = []

    def read() -> None:
        with _asked(server, **told) as response:
            try:
                found.append(response.read().decode())
            except http.client.HTTPException:
                found.append("broken")

    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, found


def _alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_streams_end_whole_others_are_sent_away_readiness_flips_first_and_it_exits_0(tmp_path: Path) -> None:
    with _served(tmp_path) as server:
        threads, found = _open_streams(server, 8, say=["x"], times=20, pause=0.1)
        time.sleep(0.5)
        assert _get(server, "/readyz")[0] == 200
        workers = server.workers
        os.kill(server.process.pid, signal.SIGTERM)
        time.sleep(0.05)
        seen = [(_get(server, "/readyz")[0], _get(server, "/healthz")[0]) for _ in range(5)]
        assert seen == [(503, 200)] * 5
        began = time.monotonic()
        with _asked(server) as refused:
            assert time.monotonic() - began < 0.1
            assert (refused.status, json.loads(refused.read())["error"]["code"]) == (503, "draining")
            assert int(refused.headers["Retry-After"]) >= 1
        for thread in threads:
            thread.join(20)
        assert all(said.endswith("data: [DONE]\n\n") for said in found)
        assert [said.count('"content":"x') for said in found] == [20] * 8
        assert server.process.wait(10) == 0
        assert not _alive(workers)


def test_who_takes_longer_than_the_window_is_cut_off(tmp_path: Path) -> None:
    with _served(tmp_path, drain=0.5) as server:
        threads, found = _open_streams(server, 1, say=["x"], times=400, pause=0.05)
        time.sleep(0.3)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(15) == 0
        assert 0.4 < time.monotonic() - began < 8
        threads[0].join(10)
        assert not found[0].endswith("data: [DONE]\n\n")


def test_a_killed_server_leaves_no_process_behind(tmp_path: Path) -> None:
    with _served(tmp_path) as server, _asked(server, say=["x"], times=400, pause=0.05):
        workers = server.workers
        assert workers
        server.process.kill()
        server.process.wait(5)
        end = time.monotonic() + 5
        while _alive(workers) and time.monotonic() < end:
            time.sleep(0.05)
        assert not _alive(workers)


def test_a_model_that_cannot_be_loaded_is_told_and_the_server_does_not_stay(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"There is no model 'smollm2-135m-instrukt'.*Did you mean"):
        serve("smollm2-135m-instrukt", port=0)


def test_a_public_address_needs_keys_and_a_taken_port_another(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path))
    for host in ("0.0.0.0", "::"):
        with pytest.raises(UsageError, match="no keys yet") as error:
            serve_options(Options(models=["anything"], host=host, port=0, data=tmp_path / "data"))
        assert "genwright keys create" in error.value.hint
    options = Options(host="0.0.0.0", data=tmp_path / "data")
    Keys(Store(options.url), options.data).create("ann")
    house = household(options)
    assert not house.keys.open_door
    house.store.close()
