"""Our own API document: complete, true about keys, and shown on a page that needs nothing from elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from genwright.server.app import create_app, modules
from genwright.server.fleet import Fleet
from genwright.server.house import House
from genwright.server.meters import Meters
from genwright.server.openapi import document_of, operations

from .household import asgi, small_house

OPEN = {"/healthz", "/readyz"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = small_house(tmp_path_factory.mktemp("house"), meters=Meters())
    house.fleet = Fleet(house.options, house.store)
    house.keys.create("ann")
    return house


@pytest.fixture(scope="module")
def document(house: House) -> dict[str, Any]:
    return document_of(create_app(house))


def _routes() -> Iterator[Any]:
    for module in modules():
        yield from module.router.routes


def test_every_path_is_in_it_with_a_text_and_an_id_of_its_own(document: dict[str, Any]) -> None:
    told = {(path, method) for path, method, _ in operations(document)}
    served = {(r.path_format, method.lower()) for r in _routes() if r.include_in_schema for method in r.methods}
    assert told == served
    ids = [operation["operationId"] for *_, operation in operations(document)]
    assert len(ids) == len(set(ids))
    silent = [path for path, _, operation in operations(document) if not operation.get("description")]
    assert silent == [], "the docstring of a route is its text"


def test_every_body_that_is_read_is_described(document: dict[str, Any]) -> None:
    reads = re.compile(r"read_body\(|read_bytes\(|\.form\(|\.stream\(")
    silent = []
    for route in _routes():
        for method in route.methods:
            operation = document["paths"].get(route.path_format, {}).get(method.lower())
            if operation and reads.search(inspect.getsource(route.endpoint)) and "requestBody" not in operation:
                silent.append(f"{method} {route.path_format}: openapi_extra=documented(Shape)")
    assert silent == []


def test_every_reference_leads_somewhere_and_every_error_has_four_keys(document: dict[str, Any]) -> None:
    shapes = document["components"]["schemas"]
    refs = set(re.findall(r"'\$ref': '#/components/schemas/([^']+)'", str(document)))
    assert refs - set(shapes) == set()
    assert "$defs" not in str(document)
    assert "HTTPValidationError" not in str(document)
    for _, _, operation in operations(document):
        assert {"4XX", "5XX"} <= set(operation["responses"])
    assert set(shapes["Error"]["properties"]["error"]["required"]) == {"message", "type", "param", "code"}


def test_nobody_gets_past_the_door_without_a_key_on_any_path(house: House, document: dict[str, Any]) -> None:
    async def statuses() -> dict[str, int]:
        async with asgi(create_app(house), "gw-wrong") as http:
            return {
                f"{method} {path}": (
                    await http.request(method, "http://127.0.0.1" + re.sub(r"{[^}]+}", "x", path), json={})
                ).status_code
                for path, method, _ in operations(document)
            }

    house.state = "ready"
    house.keys._wrong.clear()
    found = asyncio.run(statuses())
    assert {key for key, status in found.items() if status not in (401, 429)} == {f"get {path}" for path in OPEN}
    assert {path for path, _, operation in operations(document) if not operation["security"]} == OPEN


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize(("asked", "language", "word"), [("", "en", "Parameters"), ("zh-CN,zh", "zh", "参数")])
def test_the_page_shows_every_path_and_needs_nothing_from_elsewhere(
    house: House, document: dict[str, Any], asked: str, language: str, word: str
) -> None:
    async def get() -> Any:
        async with asgi(create_app(house)) as http:
            return await http.get("http://127.0.0.1/docs", headers={"Accept-Language": asked})

    answer = asyncio.run(get())
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    page = _Page()
    page.feed(answer.text)
    assert ("html", {"lang": language}) in page.tags
    assert word in answer.text
    assert not {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe", "object", "form", "base"}
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") or name == "style" for name in attrs)]
    links = [attrs["href"] or "" for tag, attrs in page.tags if tag == "a"]
    assert links
    assert [link for link in links if not link.startswith(("#", "?", "/openapi.json"))] == []
    targets = {attrs.get("id") for _, attrs in page.tags}
    assert [link for link in links if link.startswith("#") and link[1:] not in targets] == []
    for path, _, _ in operations(document):
        assert f"<code>{path}</code>" in answer.text


def test_what_a_docstring_says_cannot_become_markup(document: dict[str, Any]) -> None:
    from genwright.server.routes.docs import _Page as Page

    evil: dict[str, Any] = {
        "info": {"title": "<i>", "version": "<i>"}, "tags": [{"name": "t", "description": "<script>"}],
        "components": {"schemas": {"<b>": {"description": "<u>", "properties": {"<p>": {"enum": ["<s>"]}}}}},
        "paths": {"/<a>": {"get": {"tags": ["t"], "security": [], "summary": "<q>", "description": "<em>",
                                   "responses": {"200": {"description": "<tt>", "content": {"<kbd>": {}}}}}}},
    }  # fmt: skip
    html = "".join(Page(evil, chinese=False).html(""))
    for mark in ("<i>", "<script>", "<b>", "<u>", "<s>", "<a>", "<q>", "<em>", "<tt>", "<kbd>"):
        assert mark not in html


def test_the_style_is_part_of_the_package() -> None:
    import genwright.server

    assert (Path(genwright.server.__file__).parent / "docs.css").is_file()
