"""Tenancy (R36): what is somebody else's does not exist, on every path of the document and in every body."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from served import Server
from things import ITEMS, one_of_each

METHODS = ("get", "post", "delete", "put", "patch")
BODIES = {  # what a valid request says, where one must say something; "{…}" is an id of the owner
    ("post", "/v1/chat/completions/{id}"): {"json": {"metadata": {"a": "b"}}},
    ("post", "/v1/uploads/{id}/parts"): {"files": {"data": b"{}"}},
    ("post", "/v1/uploads/{id}/complete"): {"json": {"part_ids": ["{part}"]}},
    ("post", "/v1/vector_stores/{id}"): {"json": {"name": "mine now"}},
    ("post", "/v1/vector_stores/{id}/search"): {"json": {"query": "ferry"}},
    ("post", "/v1/vector_stores/{id}/files"): {"json": {"file_id": "{text}"}},
    ("post", "/v1/vector_stores/{id}/files/{file_id}"): {"json": {"attributes": {"a": "b"}}},
    ("post", "/v1/vector_stores/{id}/file_batches"): {"json": {"file_ids": ["{text}"]}},
    ("post", "/v1/evals/{id}"): {"json": {"name": "mine now"}},
    ("post", "/v1/evals/{id}/runs"): {"json": {"data_source": ITEMS}},
}
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
NAMED = [  # bodies that name what may be somebody else's, on paths that need no id
    ("/v1/chat/completions", HELLO | {"model": "{/v1/models}"}),
    ("/v1/completions", {"model": "{/v1/models}", "prompt": "Hello", "max_tokens": 2}),
    ("/v1/responses", {"model": "{/v1/models}", "input": "Hello"}),
    ("/v1/responses", {"model": "apprentice", "input": "Hello", "previous_response_id": "{/v1/responses}"}),
    ("/v1/messages", HELLO | {"model": "{/v1/models}"}),
    ("/api/chat", {"model": "{/v1/models}", "messages": HELLO["messages"], "stream": False}),
    ("/api/show", {"model": "{/v1/models}"}),
    ("/tokenize", {"model": "{/v1/models}", "prompt": "Hello"}),
    ("/v1/fine_tuning/jobs", {"model": "apprentice", "training_file": "{/v1/files}"}),
    ("/v1/fine_tuning/jobs", {"model": "{/v1/models}", "training_file": "{/v1/files}"}),
    ("/v1/batches", {"completion_window": "24h", "endpoint": "/v1/chat/completions", "input_file_id": "{lines}"}),
    ("/v1/vector_stores", {"name": "mine now", "file_ids": ["{text}"]}),
    ("/v1/images/generations", {"model": "{/v1/models}", "prompt": "a hat"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    return httpx.get(f"{server.address}/openapi.json").json()


@pytest.fixture(scope="module")
def things(server: Server, document: dict[str, Any]) -> dict[str, str]:
    """One of each, of alice."""
    return one_of_each(server, "alice", set(document["paths"]))


@pytest.fixture(scope="module")
def bob(server: Server) -> Iterator[httpx.Client]:
    with server.client("bob") as client:
        yield client


def test_every_path_with_an_id_is_closed_to_others(
    document: dict[str, Any], things: dict[str, str], bob: httpx.Client
) -> None:
    unknown, open_paths = _strangers(things), []
    asked = 0
    for path, operations in document["paths"].items():
        for method in operations.keys() & set(METHODS) if "{" in path else ():
            given = BODIES.get((method, path), {})
            theirs = bob.request(method, _filled(path, things), **_said(given, things))
            nobodys = bob.request(method, _filled(path, unknown), **_said(given, unknown))
            asked += 1
            if theirs.status_code not in (403, 404) or _told(theirs, things) != _told(nobodys, unknown):
                open_paths.append((method, path, theirs.status_code, theirs.text[:200], nobodys.text[:200]))
    assert not open_paths
    assert asked > 20


def test_bodies_cannot_name_what_others_own(
    document: dict[str, Any], things: dict[str, str], bob: httpx.Client
) -> None:
    unknown, open_paths = _strangers(things), []
    for path, body in NAMED:
        if path not in document["paths"]:
            continue
        theirs = bob.post(path, **_said({"json": body}, things))
        nobodys = bob.post(path, **_said({"json": body}, unknown))
        if theirs.status_code not in (400, 403, 404) or _told(theirs, things) != _told(nobodys, unknown):
            open_paths.append((path, body, theirs.status_code, theirs.text[:200], nobodys.text[:200]))
    assert not open_paths


def test_lists_show_nothing_of_others(document: dict[str, Any], things: dict[str, str], bob: httpx.Client) -> None:
    for path, operations in document["paths"].items():
        if "get" in operations and "{" not in path and path not in ("/metrics", "/readyz"):
            shown = bob.get(path).text
            assert not [id for id in things.values() if id in shown], path


def test_nothing_was_changed_by_the_tries(
    server: Server, document: dict[str, Any], things: dict[str, str], bob: httpx.Client
) -> None:
    with server.client("alice") as alice:
        for path, operations in document["paths"].items():
            if "get" in operations and "{" in path:
                assert alice.get(_filled(path, things)).status_code == 200, path
        kept = alice.get(f"/v1/chat/completions/{things['/v1/chat/completions']}").json()
        assert kept["metadata"] == {}
        assert alice.get(f"/v1/fine_tuning/jobs/{things['/v1/fine_tuning/jobs']}").json()["status"] == "succeeded"


# -- within -----------------------------------------------------------------------------------------------------------


def _filled(path: str, things: dict[str, str]) -> str:
    """The path with the id of the kind that each part names. Raises KeyError for a kind that things.py lacks."""
    filled, rest = "", path
    while "{" in rest:
        before, _, rest = rest.partition("{")
        _, _, rest = rest.partition("}")
        filled += before
        template = path[: len(path) - len(rest)].rpartition("/{")[0]
        filled += things[template]
    return filled + rest


def _said(given: dict[str, Any], things: dict[str, str]) -> dict[str, Any]:
    def put(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\{([\w/]+)\}", lambda found: things.get(found[1], "file-none"), value)
        if isinstance(value, list):
            return [put(one) for one in value]
        return {name: put(one) for name, one in value.items()} if isinstance(value, dict) else value

    return {"json": put(given["json"])} if "json" in given else dict(given)


def _strangers(things: dict[str, str]) -> dict[str, str]:
    """Ids like those, of nothing."""
    return {kind: id[:-12] + secrets.token_hex(6) for kind, id in things.items()}


def _told(response: httpx.Response, things: dict[str, str]) -> tuple[int, str]:
    """Status and text of an answer, without the ids that stand in it."""
    text = response.text
    for id in things.values():
        text = text.replace(id, "…")
    return response.status_code, text
