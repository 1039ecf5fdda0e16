"""The document of our API, held against the server: fuzzed (R42), and shut to whoever has no key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fuzz import fuzz
from served import Server

OPEN = {"/healthz", "/readyz"}  # of the document; beside it stand the document itself and its page
ADMINS = ("/admin/", "/metrics", "/v1/load_lora_adapter", "/v1/unload_lora_adapter")


@pytest.fixture(scope="module")
def operations(server: Server) -> list[tuple[str, str, bool]]:
    """(method, path with something for its parts, whether it says that it needs a key)."""
    paths: dict[str, Any] = httpx.get(f"{server.address}/openapi.json").json()["paths"]
    return [
        (method, path.replace("{", "x").replace("}", ""), bool(operation["security"]))
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


def test_fuzzed_requests_are_answered_as_the_document_says(server: Server, tmp_path: Path) -> None:
    report = fuzz(server, tmp_path, each=8, seed=1)
    print(report)
    assert not report.failures, report.failures[-20_000:]
    assert not [status for status in report.statuses if status >= 500]
    assert report.cases > 300
    assert report.shapes > 50


@pytest.mark.parametrize("shown", [{}, {"Authorization": "Bearer gw-" + "A" * 43}, {"Authorization": "Basic YTpi"},
                                   {"x-api-key": "gw-wrong"}, {"Authorization": "Bearer"}])  # fmt: skip
def test_nothing_opens_without_a_key(
    server: Server, operations: list[tuple[str, str, bool]], shown: dict[str, str]
) -> None:
    assert {path for _, path, needs_key in operations if not needs_key} == OPEN
    with _elsewhere(server, shown) as stranger:
        for method, path, needs_key in operations:
            if needs_key:
                answer = stranger.request(method, path)
                assert answer.status_code in (401, 429), (method, path, answer.text)
                told = answer.json()["error"]
                if not path.startswith("/api/"):  # Ollama's errors are a text
                    assert told["code"] in ("invalid_api_key", "too_many_tries")


def test_wrong_tries_do_not_lock_out_right_keys(server: Server) -> None:
    with _elsewhere(server, {}) as stranger:
        told = [stranger.get("/v1/models").status_code for _ in range(70)]
        assert set(told[:10]) <= {401, 429}
        assert told[-1] == 429
        right = {"Authorization": f"Bearer {server.keys['alice']}"}
        assert stranger.get("/v1/models", headers=right).status_code == 200


def test_what_is_an_administrators_is_shut_to_users(server: Server, operations: list[tuple[str, str, bool]]) -> None:
    with server.client("alice") as user:
        found = {
            (method, path): user.request(method, path) for method, path, _ in operations if path.startswith(ADMINS)
        }
    assert len(found) >= 6
    assert {answer.status_code for answer in found.values()} == {403}, found


def _elsewhere(server: Server, shown: dict[str, str]) -> httpx.Client:
    """A client at another address of this machine, so that its wrong tries are counted apart."""
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    return httpx.Client(base_url=server.address, headers=shown, transport=transport, timeout=60)
