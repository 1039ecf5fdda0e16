"""/v1/batches through the official client: each line answered once, whatever dies."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from genwright.server.batch_lines import check_lines
from genwright.server.notebook import Notebook
from tests.formats.tiny import SENTENCES

from .works import house_of, serving, tiny_base, until, upload

CHAT = "/v1/chat/completions"
OVER = ("completed", "failed", "expired", "cancelled")


def _line(id: str, text: str = SENTENCES[0], url: str = CHAT, **body: Any) -> dict[str, Any]:
    plain = {"model": "tiny", "max_tokens": 40, "temperature": 0}
    if url == CHAT:
        plain["messages"] = [{"role": "user", "content": text}]
    return {"custom_id": id, "method": "POST", "url": url, "body": plain | body}


# -- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "code"), [
    ("{", "invalid_json_line"),
    ("[]", "invalid_json_line"),
    ({**_line("b"), "custom_id": 5}, "invalid_custom_id"),
    ({**_line("b"), "custom_id": "x" * 513}, "invalid_custom_id"),
    (_line("a"), "duplicate_custom_id"),
    ({**_line("b"), "method": "GET"}, "invalid_method"),
    ({**_line("b"), "url": "/v1/embeddings"}, "mismatched_url"),
    ({**_line("b"), "body": None}, "missing_required_parameter"),
    (_line("b", model=""), "missing_required_parameter"),
    (_line("b", stream=True), "unsupported_parameter"),
])  # fmt: skip
def test_a_line_that_cannot_be_asked_is_named(tmp_path: Path, line: Any, code: str) -> None:
    rows = [_line("a"), "", line, _line("c")]
    path = tmp_path / "input.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    found = check_lines(path, CHAT)
    assert [(problem["line"], problem["code"]) for problem in found.problems] == [(3, code)]
    assert list(found.numbers) == [1, 3, 4]


def test_a_batch_asks_one_model_and_holds_something(tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    path.write_text(f"{json.dumps(_line('a'))}\n{json.dumps(_line('b', model='other'))}")
    assert [problem["code"] for problem in check_lines(path, CHAT).problems] == ["mismatched_model"]
    path.write_text("\n\n")
    assert [problem["code"] for problem in check_lines(path, CHAT).problems] == ["empty_file"]


def test_lines_are_read_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    rows = [_line(name) for name in "abc"]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(map(json.dumps, rows)).encode())
    found = check_lines(path, CHAT)
    assert not found.problems
    assert [found.read(place) for place in range(3)] == rows


def test_a_notebook_keeps_each_line_once_and_mends_a_torn_end(tmp_path: Path) -> None:
    def entry(number: int, good: bool = True) -> dict[str, Any]:
        return {"n": number, "good": good, "input": 2, "output": 3, "line": {"custom_id": str(number)}}

    book = Notebook(tmp_path / "book.jsonl")
    book.open()
    book.write([entry(3), entry(1)])
    with book.path.open("ab") as file:
        file.write(b'{"n": 2, "go')
    again = Notebook(book.path)
    again.open()
    assert set(again.places) == {1, 3}
    again.write([entry(2, False), entry(1), entry(4)])
    last = Notebook(book.path)
    last.open()
    assert [json.loads(line)["custom_id"] for line in last.lines(True)] == ["1", "3", "4"]
    assert [json.loads(line)["custom_id"] for line in last.lines(False)] == ["2"]
    assert last.totals == again.totals == {"completed": 3, "failed": 1, "input": 8, "output": 12}


# -- the server ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: Any) -> Path:
    place = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENWRIGHT_HOME", str(place / "home"))
        return tiny_base(place)


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: Any) -> Iterator[Any]:
    place = tmp_path_factory.mktemp("batches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENWRIGHT_HOME", str(place / "home"))
        with serving(house_of(place, base)) as client:
            yield client


def _run(made: Any, lines: list[Any], endpoint: str = CHAT, **more: Any) -> Any:
    options = {"completion_window": "24h"} | more
    batch = made.batches.create(input_file_id=upload(made, lines, "batch"), endpoint=endpoint, **options)
    assert batch.status in ("validating", "in_progress")
    return until(lambda: made.batches.retrieve(batch.id), lambda seen: seen.status in OVER)


def _results(made: Any, file: str | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made.files.content(file).text.splitlines()] if file else []


def test_every_line_is_answered_as_if_it_were_asked_alone(made: Any) -> None:
    lines = [_line(f"line {i}", text) for i, text in enumerate(SENTENCES)]
    batch = _run(made, [*lines, _line("hot", temperature=9)], metadata={"a": "b"})
    assert batch.status == "completed"
    assert batch.request_counts.to_dict() == {"total": 6, "completed": 5, "failed": 1}
    found = _results(made, batch.output_file_id)
    assert [one["custom_id"] for one in found] == [line["custom_id"] for line in lines]
    for one, line in zip(found, lines, strict=True):
        alone = made.chat.completions.create(**line["body"])
        body = one["response"]["body"]
        assert body["choices"][0]["message"]["content"] == alone.choices[0].message.content
        assert body["usage"]["total_tokens"] == alone.usage.total_tokens
        assert (one["error"], one["response"]["status_code"]) == (None, 200)
    wrong = _results(made, batch.error_file_id)
    assert [(one["custom_id"], one["response"]["status_code"]) for one in wrong] == [("hot", 400)]
    assert wrong[0]["response"]["body"]["error"]["param"] == "temperature"
    assert batch.usage.total_tokens == sum(one["response"]["body"]["usage"]["total_tokens"] for one in found)
    assert (batch.model, batch.metadata, batch.errors) == ("tiny", {"a": "b"}, None)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at <= batch.expires_at
    assert made.files.retrieve(batch.output_file_id).purpose == "batch_output"


@pytest.mark.parametrize(("endpoint", "body"), [
    ("/v1/completions", {"model": "tiny", "prompt": "The", "max_tokens": 5}),
    ("/v1/responses", {"model": "tiny", "input": "Hi.", "max_output_tokens": 5}),
    ("/v1/moderations", {"input": "call 13800138000"}),
])  # fmt: skip
def test_other_endpoints_are_asked_too(made: Any, endpoint: str, body: dict[str, Any]) -> None:
    line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
    batch = _run(made, [line], endpoint)
    assert (batch.status, batch.request_counts.completed) == ("completed", 1), _results(made, batch.error_file_id)


def test_a_broken_file_fails_the_batch_with_line_numbers(made: Any) -> None:
    batch = _run(made, [_line("a"), "{", _line("a")])
    assert (batch.status, batch.output_file_id) == ("failed", None)
    assert [(one.line, one.code) for one in batch.errors.data] == [(2, "invalid_json_line"), (3, "duplicate_custom_id")]
    unknown = _run(made, [_line("a", model="nobody")])
    assert [one.code for one in unknown.errors.data] == ["model_not_found"]


def test_a_cancelled_batch_keeps_what_was_answered(made: Any) -> None:
    batch = made.batches.create(
        input_file_id=upload(made, [_line(str(i)) for i in range(3000)], "batch"), endpoint=CHAT,
        completion_window="24h",
    )  # fmt: skip
    until(lambda: made.batches.retrieve(batch.id), lambda seen: seen.request_counts.completed > 3)
    assert made.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    ended = until(lambda: made.batches.retrieve(batch.id), lambda seen: seen.status in OVER)
    assert (ended.status, ended.completed_at) == ("cancelled", None)
    found = _results(made, ended.output_file_id)
    assert 3 < len(found) == ended.request_counts.completed < 3000
    with pytest.raises(openai.BadRequestError, match="cancelled already"):
        made.batches.cancel(batch.id)


@pytest.mark.parametrize(("changes", "param"), [
    ({"endpoint": "/v1/images/generations"}, "endpoint"),
    ({"completion_window": "soon"}, "completion_window"),
    ({"input_file_id": "file-nothing"}, "input_file_id"),
    ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "output_expires_after.seconds"),
    ({"frobnicate": 1}, "frobnicate"),
])  # fmt: skip
def test_wrong_requests_are_told_what_is_wrong(made: Any, changes: dict[str, Any], param: str) -> None:
    asked = {"input_file_id": upload(made, [_line("a")], "batch"), "endpoint": CHAT, "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError) as error:
        made.post("/batches", body=asked | changes, cast_to=object)
    assert error.value.param == param


def test_batches_are_listed_and_unknown_ones_are_404(made: Any) -> None:
    assert len(list(made.batches.list(limit=2))) > 2
    for ask in (made.batches.retrieve, made.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            ask("batch_nothing")


def test_a_batch_goes_on_where_a_server_ended_and_answers_nothing_twice(base: Path, tmp_path: Path) -> None:
    count = 400
    with serving(house_of(tmp_path, base)) as first:
        file = upload(first, [_line(str(i), max_tokens=5) for i in range(count)], "batch")
        batch = first.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h")
        begun = until(lambda: first.batches.retrieve(batch.id), lambda seen: seen.request_counts.completed > 5)
        assert begun.status == "in_progress"
    book = tmp_path / "data" / "batches" / batch.id / "answered.jsonl"
    before = {json.loads(line)["n"]: json.loads(line)["line"] for line in book.read_text().splitlines()}
    assert begun.request_counts.completed <= len(before) < count
    with serving(house_of(tmp_path, base)) as second:
        ended = until(lambda: second.batches.retrieve(batch.id), lambda seen: seen.status in OVER)
        assert ended.request_counts.to_dict() == {"total": count, "completed": count, "failed": 0}
        found = _results(second, ended.output_file_id)
    assert [one["custom_id"] for one in found] == [str(i) for i in range(count)]
    assert all(found[number - 1] == line for number, line in before.items())


def test_what_an_expired_batch_did_not_come_to_is_told(base: Path, tmp_path: Path) -> None:
    from genwright.server.wire import new_id, now

    house = house_of(tmp_path, base)
    with serving(house) as made:
        file = upload(made, [_line("a"), _line("b")], "batch")
        payload = {"input_file_id": file, "endpoint": CHAT, "completion_window": "1h", "window": 3600, "metadata": None,
                   "output_expires_after": None, "key_id": "", "roles": ["user"], "limits": {}}  # fmt: skip

        async def submit() -> Any:
            house.jobs.clock = lambda: now() - 3600  # made an hour ago
            return await house.jobs.submit("batch", "local", payload, id=new_id("batch_"))

        job = asyncio.run(submit())
        house.jobs.clock = time.time
        ended = until(lambda: made.batches.retrieve(job.id), lambda seen: seen.status in OVER)
        assert (ended.status, ended.request_counts.failed) == ("expired", 2)
        assert [one["error"]["code"] for one in _results(made, ended.error_file_id)] == ["batch_expired"] * 2
