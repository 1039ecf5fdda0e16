"""Files and uploads through the official client, and through forms that no honest client sends."""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from genwright.server import files as filing
from genwright.server.housekeeping import tidy
from genwright.server.routes import files, uploads
from genwright.server.store.tables import VectorFile, VectorStore

from .household import House, app_of, asgi, at_home, client, small_house

ROWS = b'{"messages": []}\n' * 1000


@pytest.fixture(scope="module")
def house(tmp_path_factory: Any) -> Iterator[House]:
    house = small_house(tmp_path_factory.mktemp("files"), largest_file=3_000_000)
    house.keys.create("alice")  # so that keys are needed
    yield house
    house.store.close()


@pytest.fixture(scope="module")
def address(house: House) -> Iterator[str]:
    with at_home(app_of(house, files, uploads)) as address:
        yield address


@pytest.fixture(scope="module")
def ann(house: House, address: str) -> Any:
    return client(address, house.keys.create("ann")[1])


@pytest.fixture(scope="module")
def bob(house: House, address: str) -> Any:
    return client(address, house.keys.create("bob")[1])


def _post(who: Any, path: str, **sent: Any) -> httpx.Response:
    return httpx.post(f"{who.base_url}{path}", headers={"Authorization": f"Bearer {who.api_key}"}, timeout=10, **sent)


def _get(who: Any, path: str) -> httpx.Response:
    return httpx.get(f"{who.base_url}{path}", headers={"Authorization": f"Bearer {who.api_key}"}, timeout=10)


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was_sent(ann: Any) -> None:
    made = ann.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", len(ROWS), "rows.jsonl", "fine-tune")
    assert made.status == "processed"
    assert made.expires_at is None
    assert ann.files.retrieve(made.id) == made
    assert ann.files.content(made.id).read() == ROWS
    assert made in list(ann.files.list())
    assert ann.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        ann.files.retrieve(made.id)


def test_the_async_client_uploads_too(ann: Any, address: str) -> None:
    async def upload() -> Any:
        async with openai.AsyncOpenAI(
            base_url=address, api_key=ann.api_key, max_retries=0, _strict_response_validation=True
        ) as other:
            made = await other.files.create(file=io.BytesIO(ROWS), purpose="user_data")
            return (await other.files.content(made.id)).content

    assert asyncio.run(upload()) == ROWS


def test_a_large_file_is_streamed_to_the_disk_and_too_large_a_one_leaves_nothing(ann: Any, house: House) -> None:
    data = bytes(range(256)) * 10_000
    made = ann.files.create(file=("big.bin", data), purpose="user_data")
    assert hashlib.sha256(ann.files.content(made.id).read()).digest() == hashlib.sha256(data).digest()
    before = set(house.blobs.all())
    with pytest.raises(openai.APIStatusError) as wrong:
        ann.files.create(file=("big.bin", data * 2), purpose="user_data")
    assert (wrong.value.status_code, wrong.value.body["code"]) == (413, "too_large")  # type: ignore[index]
    assert set(house.blobs.all()) == before
    assert not list(house.blobs.drafts.iterdir())


def test_files_are_listed_in_pages_newest_first_and_by_purpose(house: House, address: str) -> None:
    cat = client(address, house.keys.create("cat")[1])
    made = [cat.files.create(file=(f"{n}.txt", b"x"), purpose="assistants" if n % 2 else "vision").id for n in range(5)]
    assert [file.id for file in cat.files.list(limit=2)] == made[::-1]  # the client turns the pages
    assert [file.id for file in cat.files.list(order="asc", limit=4)] == made
    assert [file.id for file in cat.files.list(purpose="vision", order="asc")] == made[::2]
    page = cat.files.list(limit=2)
    assert page.has_more
    assert [file.id for file in cat.files.list(limit=2, after=page.data[-1].id).data] == [made[2], made[1]]
    with pytest.raises(openai.BadRequestError):
        cat.files.list(after="file-none")


def test_nobody_sees_anothers_files(ann: Any, bob: Any) -> None:
    made = ann.files.create(file=("mine.txt", b"mine"), purpose="user_data")
    for reach in (bob.files.retrieve, bob.files.content, bob.files.delete):
        with pytest.raises(openai.NotFoundError):
            reach(made.id)
    assert made.id not in [file.id for file in bob.files.list()]
    with pytest.raises(openai.BadRequestError):
        bob.files.list(after=made.id)
    assert ann.files.content(made.id).read() == b"mine"


def test_equal_contents_are_kept_once_and_go_with_the_last_file(ann: Any, bob: Any, house: House) -> None:
    first = ann.files.create(file=("a", b"the same words"), purpose="user_data")
    second = bob.files.create(file=("b", b"the same words"), purpose="user_data")
    sha256 = hashlib.sha256(b"the same words").hexdigest()
    ann.files.delete(first.id)
    assert bob.files.content(second.id).read() == b"the same words"
    bob.files.delete(second.id)
    assert sha256 not in house.blobs.all()


def test_a_file_that_comes_and_goes_at_once_with_its_twin_is_never_lost(ann: Any) -> None:
    """An upload shares a content that another request is just removing: whoever got an answer keeps the bytes."""
    lost: list[str] = []

    def come_and_go() -> None:
        for _ in range(15):
            made = ann.files.create(file=("twin", b"twin"), purpose="user_data")
            try:
                assert ann.files.content(made.id).read() == b"twin"
            except openai.APIStatusError as error:
                lost.append(str(error))
            ann.files.delete(made.id)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost


def test_a_file_expires(ann: Any, house: House) -> None:
    batch = ann.files.create(file=("b.jsonl", b"{}"), purpose="batch")
    assert batch.expires_at == batch.created_at + 30 * 86_400
    soon = ann.files.create(
        file=("s.txt", b"soon gone"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert soon.expires_at == soon.created_at + 3600
    with house.store.begin() as session:
        session.get(filing.File, _seq(house, soon.id)).expires = soon.created_at - 1  # type: ignore[union-attr]
    with pytest.raises(openai.NotFoundError):
        ann.files.content(soon.id)
    assert soon.id not in [file.id for file in ann.files.list()]
    asyncio.run(tidy(house, soon.created_at))
    assert hashlib.sha256(b"soon gone").hexdigest() not in house.blobs.all()


def _seq(house: House, id: str) -> int:
    with house.store.begin(reading=True) as session:
        return session.query(filing.File.seq).filter_by(id=id).scalar()


def test_a_deleted_file_leaves_every_vector_store(ann: Any, house: House) -> None:
    made = ann.files.create(file=("v.txt", b"known"), purpose="assistants")
    with house.store.begin() as session:
        session.add(
            VectorStore(id="vs_1", owner="ann", created=1, name="", description="", meta={}, settings={}, used=1)
        )
        session.flush()
        session.add(VectorFile(id="vsf_1", owner="ann", created=1, store="vs_1", file=made.id, batch="",
                               state="completed", attributes={}, chunking={}, size=5))  # fmt: skip
    ann.files.delete(made.id)
    with house.store.begin(reading=True) as session:
        assert session.query(VectorFile).count() == 0


def test_the_name_of_a_file_is_only_words(ann: Any, house: House, tmp_path: Path) -> None:
    outside = {path for path in tmp_path.rglob("*")}
    for sent, kept in {
        "../../etc/passwd": "passwd", "..\\..\\boot.ini": "boot.ini", "/abs/olute.txt": "olute.txt", "..": "file",
        "a\r\nSet-Cookie: x=1": "aSet-Cookie: x=1", 'quo"te.txt': 'quo"te.txt', "名前.jsonl": "名前.jsonl",
        "\u202egpj.exe": "gpj.exe", "": "file", "x" * 300 + ".jsonl": "x" * 249 + ".jsonl", "CON": "CON",
    }.items():  # fmt: skip
        made = _post(
            ann, "files", data={"purpose": "user_data"}, files={"file": (sent.replace('"', "%22"), b"x")}
        ).json()
        assert made["filename"].replace("%22", '"') == kept or sent.startswith("a\r")
        head = _get(ann, f"files/{made['id']}/content").headers
        assert head["content-disposition"].startswith("attachment; filename")
        assert head["content-type"] == "application/octet-stream"
        assert head["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in head
    assert {path for path in tmp_path.rglob("*")} == outside


@pytest.mark.parametrize(
    "id",
    ["..", "%2e%2e", "..%2f..%2fsecret", "%2fetc%2fpasswd", "file-%00", "file-\u202e", "a" * 5000, "file-'; drop table",
     "%ff%fe", "*", "file-%", "..;/", "....//", "%c0%ae%c0%ae", "C:\\x", "~root"],
)  # fmt: skip
def test_odd_ids_are_not_found(ann: Any, id: str) -> None:
    for path in (f"files/{id}", f"files/{id}/content", f"uploads/{id}"):
        found = _get(ann, path)
        assert found.status_code in (400, 404, 405), (path, found.status_code)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"data": {"purpose": "user_data"}}, 415),
        ({"json": {"purpose": "user_data"}}, 415),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"files": {"file": ("a", b"x")}}, 400),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "nonsense"}}, 400),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "user_data", "what": "this"}}, 400),
        ({"files": {"file": ("a", b"")}, "data": {"purpose": "user_data"}}, 400),
        ({"files": {"data": ("a", b"x")}, "data": {"purpose": "user_data"}}, 400),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "p" * 100_000}}, 413),
        ({"files": {"file": ("a", b"x")}, "data": {"purpose": "user_data", "expires_after[seconds]": "5"}}, 400),
        ({"files": [(f"f{n}", ("a", b"x")) for n in range(40)]}, 400),
        ({"files": [("file", ("a", b"x")), ("file", ("b", b"y"))], "data": {"purpose": "user_data"}}, 400),
    ],
)
def test_a_bad_form_is_turned_away_and_leaves_nothing(
    ann: Any, house: House, sent: dict[str, Any], status: int
) -> None:
    before = set(house.blobs.all())
    head = {"Authorization": f"Bearer {ann.api_key}"} | sent.pop("headers", {})
    found = httpx.post(f"{ann.base_url}files", headers=head, timeout=10, **sent)
    assert found.status_code == status, found.text
    assert set(found.json()["error"]) == {"message", "type", "param", "code"}
    assert set(house.blobs.all()) == before
    assert not list(house.blobs.drafts.iterdir())


def test_a_form_cut_off_or_broken_is_turned_away(ann: Any, house: House) -> None:
    head = {"Authorization": f"Bearer {ann.api_key}", "content-type": "multipart/form-data; boundary=bound"}
    part = b'--bound\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nbytes\r\n'
    for body in (b"", b"nonsense", part, part + b"--bound\r\n", b"--bound\r\n" * 50, b"--bound\r\n" + b"x" * 20_000,
                 b"--bound\r\n\r\nnameless\r\n--bound--\r\n",
                 part.replace(b"disposition", b"dispos\0tion") + b"--bound--"):  # fmt: skip
        found = httpx.post(f"{ann.base_url}files", headers=head, content=body, timeout=10)
        assert found.status_code == 400, (body[:50], found.text)
    assert not list(house.blobs.drafts.iterdir())


def test_a_lost_content_is_told_of(ann: Any, house: House) -> None:
    made = ann.files.create(file=("l", b"to be lost"), purpose="user_data")
    house.blobs.path(hashlib.sha256(b"to be lost").hexdigest()).unlink()
    with pytest.raises(openai.InternalServerError) as wrong:
        ann.files.content(made.id)
    assert wrong.value.body["code"] == "content_lost"  # type: ignore[index]


def test_jobs_keep_their_results_as_files(house: House, ann: Any, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes(b"step,loss\n")
    for data in (b"step,loss\n", tmp_path / "r.csv", (piece for piece in (b"step,", b"loss\n"))):
        made = asyncio.run(filing.save_file(house, "ann", "metrics.csv", "fine-tune-results", data))
        assert ann.files.content(made.id).read() == b"step,loss\n"
        assert ann.files.retrieve(made.id).purpose == "fine-tune-results"
    assert asyncio.run(filing.path_of(house, made.id, "ann")).read_bytes() == b"step,loss\n"


def test_a_job_that_is_done_again_keeps_its_result_once(house: House, ann: Any) -> None:
    first = asyncio.run(filing.save_file(house, "ann", "o.jsonl", "batch_output", b"1", id="file-job_1"))
    again = asyncio.run(filing.save_file(house, "ann", "o.jsonl", "batch_output", b"1", id="file-job_1"))
    other = asyncio.run(filing.save_file(house, "ann", "o.jsonl", "batch_output", b"1", id="file-job_2"))
    assert first.id == again.id != other.id
    assert [file.id for file in ann.files.list(purpose="batch_output", order="asc")] == [first.id, other.id]


def test_a_form_in_small_pieces_is_read_the_same(tmp_path: Path) -> None:
    house = small_house(tmp_path)
    data = b"--bound\r\n-" * 2000 + b"\r\n--boun"
    body = (b'--bound\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
            b'--bound\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: x/y\r\n\r\n'
            + data.replace(b"\r\n--bound\r\n", b"\r\n--b0und\r\n") + b"\r\n--bound--\r\n")  # fmt: skip

    async def pieces() -> Any:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    async def send() -> Any:
        async with asgi(app_of(house, files)) as http:
            made = await http.post(
                "/files", content=pieces(), headers={"content-type": "multipart/form-data; boundary=bound"}
            )
            return made.json(), (await http.get(f"/files/{made.json()['id']}/content")).content

    made, back = asyncio.run(send())
    house.store.close()
    assert back == data.replace(b"\r\n--bound\r\n", b"\r\n--b0und\r\n")
    assert made["bytes"] == len(back)


# -- uploads -----------------------------------------------------------------------------------------------------------


def test_a_file_in_parts_becomes_a_file(ann: Any, house: House) -> None:
    data = bytes(range(256)) * 40
    upload = ann.uploads.create(bytes=len(data), filename="d/big.bin", mime_type="x/y", purpose="user_data")
    assert (upload.status, upload.filename, upload.expires_at) == ("pending", "big.bin", upload.created_at + 3600)
    second = ann.uploads.parts.create(upload.id, data=data[5000:])
    first = ann.uploads.parts.create(upload.id, data=data[:5000])
    assert first.upload_id == upload.id
    with pytest.raises(openai.BadRequestError, match="md5"):
        ann.uploads.complete(upload.id, part_ids=[first.id, second.id], md5="0" * 32)
    done = ann.uploads.complete(upload.id, part_ids=[first.id, second.id], md5=hashlib.md5(data).hexdigest())
    assert done.status == "completed"
    assert ann.files.content(done.file.id).read() == data
    assert hashlib.sha256(data[:5000]).hexdigest() not in house.blobs.all()
    with pytest.raises(openai.BadRequestError, match="completed"):
        ann.uploads.complete(upload.id, part_ids=[first.id, second.id])
    with pytest.raises(openai.BadRequestError, match="completed"):
        ann.uploads.cancel(upload.id)


def test_the_clients_own_chunked_upload_works(ann: Any) -> None:
    data = b"0123456789" * 1000
    done = ann.uploads.upload_file_chunked(
        file=data, filename="c.bin", bytes=len(data), mime_type="x/y", purpose="user_data", part_size=3000
    )
    assert ann.files.content(done.file.id).read() == data


def test_what_does_not_add_up_is_turned_away(ann: Any, bob: Any) -> None:
    upload = ann.uploads.create(bytes=10, filename="a", mime_type="x/y", purpose="batch")
    part = ann.uploads.parts.create(upload.id, data=b"12345")
    for who, ids, kind in (
        (ann, [part.id], openai.BadRequestError), (ann, [part.id, part.id], openai.BadRequestError),
        (ann, ["part_none"], openai.BadRequestError), (bob, [part.id], openai.NotFoundError),
    ):  # fmt: skip
        with pytest.raises(kind):
            who.uploads.complete(upload.id, part_ids=ids)
    with pytest.raises(openai.BadRequestError, match="announced"):
        ann.uploads.parts.create(upload.id, data=b"123456")
    with pytest.raises(openai.NotFoundError):
        bob.uploads.parts.create(upload.id, data=b"1")
    with pytest.raises(openai.NotFoundError):
        bob.uploads.cancel(upload.id)
    assert ann.uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        ann.uploads.parts.create(upload.id, data=b"1")
    for wrong in ({"bytes": 0}, {"bytes": 9_000_000_000}, {"purpose": "none"}, {"filename": ""}):
        with pytest.raises(openai.BadRequestError):
            ann.uploads.create(**({"bytes": 1, "filename": "a", "mime_type": "x/y", "purpose": "batch"} | wrong))
