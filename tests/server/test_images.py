"""Pictures over the API: the official client reads all paths, whole and streamed; bad input is told what it is."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import inspect
import io
import json
import re
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from genwright.verbs.provenance import look_up

from .parlour import client, wait_until
from .studio import FORBIDDEN, SIDE, STEPS, Studio, studio_in

HAT: dict[str, Any] = {"model": "painter", "prompt": "a red hat"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with studio_in(tmp_path_factory.mktemp("studio")) as studio:
        yield studio


@pytest.fixture(scope="module")
def ann(studio: Studio) -> Iterator[Any]:
    """The official client, strict, with ann's key."""
    with client(studio.address, api_key=studio.keys["ann"]) as made:
        yield made


@pytest.fixture(scope="module")
def http(studio: Studio) -> Iterator[httpx.Client]:
    """The same without the client's own checks."""
    head = {"Authorization": f"Bearer {studio.keys['ann']}"}
    with httpx.Client(base_url=studio.address, headers=head, timeout=30) as made:
        yield made


def both(studio: Studio, ann: Any, ask: Callable[[Any], Any]) -> list[Any]:
    """What the sync and the async client make of it; of a stream, the list of its events."""
    found = ask(ann)
    first = list(found) if isinstance(found, openai.Stream) else found

    async def again() -> Any:
        async with client(studio.address, openai.AsyncOpenAI, api_key=studio.keys["ann"]) as made:
            found = ask(made)
            found = await found if inspect.isawaitable(found) else found
            return [one async for one in found] if isinstance(found, AsyncIterator | openai.AsyncStream) else found

    return [first, asyncio.run(again())]


def picture(found: str | bytes) -> Image.Image:
    data = base64.b64decode(found) if isinstance(found, str) else found
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def pixels(found: str | bytes) -> np.ndarray:
    return np.asarray(picture(found))


def sent(array: np.ndarray, kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **more)
    return out.getvalue()


def noise(height: int = 24, width: int = 24, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


# -- generations -------------------------------------------------------------------------------------------------------


def test_words_become_pictures_as_the_official_client_reads_them(studio: Studio, ann: Any) -> None:
    for found in both(studio, ann, lambda c: c.images.generate(**HAT, n=2, extra_body={"seed": 5})):
        assert (found.size, found.output_format, found.quality, found.background) == (
            f"{SIDE}x{SIDE}", "png", "medium", "opaque")  # fmt: skip
        assert [one.seed for one in found.data] == [5, 6]
        assert [picture(one.b64_json).size for one in found.data] == [(SIDE, SIDE)] * 2
        assert found.usage.output_tokens == 2 * (SIDE // 8) ** 2
        assert found.usage.input_tokens_details.text_tokens == 3
        assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens


def test_a_seed_is_a_picture(ann: Any) -> None:
    one, same, other = (ann.images.generate(**HAT, extra_body={"seed": s}).data[0] for s in (3, 3, 4))
    assert (pixels(one.b64_json) == pixels(same.b64_json)).all()
    assert (pixels(one.b64_json) != pixels(other.b64_json)).any()


@pytest.mark.parametrize(("more", "kind", "side"), [
    ({}, "PNG", SIDE), ({"size": "auto"}, "PNG", SIDE), ({"size": "256x256"}, "PNG", 256),
    ({"output_format": "jpeg"}, "JPEG", SIDE), ({"output_format": "webp", "size": "64x64"}, "WEBP", 64),
])  # fmt: skip
def test_sizes_and_formats_are_as_asked(ann: Any, more: dict[str, Any], kind: str, side: int) -> None:
    found = ann.images.generate(**HAT, **more)
    made = picture(found.data[0].b64_json)
    assert (made.format, made.size) == (kind, (side, side))
    assert found.size == f"{side}x{side}"


def test_compression_makes_files_smaller(ann: Any) -> None:
    sizes = [
        len(ann.images.generate(**HAT, size="128x128", output_format="jpeg", output_compression=c,
                                extra_body={"seed": 1}).data[0].b64_json)
        for c in (5, 100)
    ]  # fmt: skip
    assert sizes[0] < 0.7 * sizes[1]


@pytest.mark.parametrize(("quality", "steps", "told"), [
    ("low", 1, "low"), ("medium", 2, "medium"), ("high", 4, "high"), ("xhigh", 6, "xhigh"), ("max", 10, "max"),
    ("auto", 2, "medium"), ("standard", 2, "medium"), ("hd", 4, "high"),
])  # fmt: skip
def test_quality_is_steps(http: httpx.Client, quality: str, steps: int, told: str) -> None:
    """Relative to what the model takes by itself (2 here)."""
    lines = http.post("/images/generations", json=HAT | {"quality": quality, "stream": True}).text.splitlines()
    assert [line for line in lines if line.startswith(": step")][-1] == f": step {steps} of {steps}"
    assert json.loads(next(line for line in lines if line.startswith("data:"))[5:])["quality"] == told
    assert STEPS == 2


def test_what_the_model_knows_can_be_said(ann: Any) -> None:
    def painted(**more: Any) -> np.ndarray:
        extra = {"seed": 1, **{k: v for k, v in more.items() if k in ("steps", "guidance", "negative")}}
        plain = {k: v for k, v in more.items() if k not in extra}
        return pixels(ann.images.generate(**HAT, **plain, extra_body=extra).data[0].b64_json)

    plain = painted()
    for more in ({"style": "round"}, {"steps": 4}, {"guidance": 20.0}, {"negative": "blue"}):
        assert (painted(**more) != plain).any(), more
    for more in ({"style": "vivid"}, {"style": "natural"}, {"moderation": "low"}, {"user": "u"}):
        assert (painted(**more) == plain).all(), more
    assert ann.images.generate(**HAT, user="u", safety_identifier="s").safety_identifier == "s"


def test_the_first_picture_model_answers_for_unnamed_ones(ann: Any) -> None:
    assert ann.images.generate(prompt="a hat").data[0].b64_json


# -- urls --------------------------------------------------------------------------------------------------------------


def test_a_url_is_the_owners_alone_and_only_for_an_hour(studio: Studio, ann: Any, http: httpx.Client) -> None:
    found = ann.images.generate(**HAT, response_format="url", output_format="webp").data[0]
    assert found.b64_json is None
    assert re.fullmatch(re.escape(studio.address) + r"/images/files/file-[0-9a-f]{30}", found.url)
    mine = http.get(found.url)
    assert (mine.status_code, mine.headers["content-type"]) == (200, "image/webp")
    assert picture(mine.content).size == (SIDE, SIDE)
    assert look_up_bytes(mine.content)["label"]["Label"] == "1"
    bobs = {"Authorization": f"Bearer {studio.keys['bob']}"}
    assert httpx.get(found.url, headers=bobs).status_code == 404
    assert httpx.get(found.url).status_code == 401
    id = found.url.rpartition("/")[2]
    file = ann.files.retrieve(id)
    assert 3500 < file.expires_at - time.time() <= 3600
    other = ann.files.create(file=("a.png", b"no picture of ours"), purpose="user_data")
    assert http.get(f"/images/files/{other.id}").status_code == 404
    ann.files.delete(id)
    assert http.get(found.url).status_code == 404


def look_up_bytes(data: bytes) -> dict[str, Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        path.write_bytes(data)
        return look_up(path)


# -- labels, ledger, guards --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_every_picture_says_in_itself_that_it_is_made(http: httpx.Client, kind: str) -> None:
    answer = http.post("/images/generations", json=HAT | {"n": 2, "output_format": kind})
    labels = [look_up_bytes(base64.b64decode(one["b64_json"]))["label"] for one in answer.json()["data"]]
    assert [label["Label"] for label in labels] == ["1", "1"]
    assert json.loads(answer.headers["x-aigc"]) == labels[0]
    assert labels[0]["ProduceID"].startswith("gw-")


def test_unfinished_pictures_are_labelled_too(ann: Any) -> None:
    events = list(ann.images.generate(**HAT, stream=True, partial_images=1, extra_body={"steps": 4}))
    assert [look_up_bytes(base64.b64decode(one.b64_json))["label"]["Label"] for one in events] == ["1", "1"]


def test_the_ledger_has_a_row_with_the_files(studio: Studio, http: httpx.Client) -> None:
    import hashlib

    answer = http.post("/images/generations", json=HAT).json()["data"][0]["b64_json"]
    digest = hashlib.sha256(base64.b64decode(answer)).hexdigest()
    rows = [json.loads(line) for path in (studio.house.options.data.parent / "home").rglob("*.jsonl")
            for line in path.read_text().splitlines() if digest in line]  # fmt: skip
    assert [row["outcome"] for row in rows] == ["complete"]
    assert rows[0]["model"] == "painter"


@pytest.mark.parametrize("body", [
    HAT | {"prompt": f"a {FORBIDDEN}"}, HAT | {"prompt": f"a {FORBIDDEN}", "stream": True},
])  # fmt: skip
def test_a_forbidden_prompt_is_refused(http: httpx.Client, body: dict[str, Any]) -> None:
    answer = http.post("/images/generations", json=body)
    assert (answer.status_code, answer.json()["error"]["code"].split(":")[0]) == (403, "content_filter")


def test_what_a_picture_should_be_unlike_is_no_prompt(http: httpx.Client) -> None:
    assert http.post("/images/generations", json=HAT | {"negative": FORBIDDEN}).status_code == 200
    answer = http.post("/images/generations", json=HAT | {"negative": FORBIDDEN, "guidance": 0.5})
    assert (answer.status_code, "guidance" in answer.json()["error"]["message"]) == (400, True)


def test_a_word_beside_a_mask_is_seen_by_guards(http: httpx.Client) -> None:
    mask = np.zeros((24, 24, 4), np.uint8)
    files = {"image": ("a.png", sent(noise())), "mask": ("m.png", sent(mask))}
    answer = http.post("/images/edits", data=HAT | {"prompt": f"a {FORBIDDEN}"}, files=files)
    assert answer.status_code == 403


# -- streams -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partial", [0, 1, 3])
def test_pictures_are_streamed_as_they_get_clearer(studio: Studio, ann: Any, partial: int) -> None:
    more = {"steps": 8, "seed": 2}
    for events in both(
        studio, ann, lambda c: c.images.generate(**HAT, stream=True, partial_images=partial, extra_body=more)
    ):
        assert [e.type for e in events] == [
            *["image_generation.partial_image"] * partial, "image_generation.completed"]  # fmt: skip
        assert [e.partial_image_index for e in events[:-1]] == list(range(partial))
        assert {(e.size, e.output_format, e.quality, e.background) for e in events} == {
            (f"{SIDE}x{SIDE}", "png", "medium", "opaque")}  # fmt: skip
        assert events[-1].usage.output_tokens == (SIDE // 8) ** 2
        assert len({e.b64_json for e in events}) == partial + 1
    whole = ann.images.generate(**HAT, extra_body=more).data[0].b64_json
    assert (pixels(whole) == pixels(events[-1].b64_json)).all()


def test_edits_are_streamed_under_their_own_names(studio: Studio, ann: Any) -> None:
    image = ("a.png", sent(noise()), "image/png")
    for events in both(studio, ann, lambda c: c.images.edit(
        image=image, **HAT, stream=True, partial_images=1, extra_body={"steps": 4}
    )):  # fmt: skip
        assert [e.type for e in events] == ["image_edit.partial_image", "image_edit.completed"]
        assert events[-1].usage.input_tokens_details.image_tokens == (SIDE // 8) ** 2


def test_who_hangs_up_stops_the_painting(studio: Studio, http: httpx.Client) -> None:
    long = HAT | {"steps": 1000, "seed": 1}
    with http.stream("POST", "/images/generations", json=long | {"stream": True}) as answer:
        assert next(answer.iter_lines()).startswith(": step 1 of 1000")
    with pytest.raises(httpx.ReadTimeout):
        http.post("/images/generations", json=long, timeout=0.3)
    link = next(seat.link for seat in studio.house.fleet.seats.values() if seat.name == "painter")
    assert link
    assert wait_until(lambda: not link.busy, 3.0)
    assert b'status="aborted"} ' in studio.house.meters.text()
    assert wait_until(lambda: not list((studio.house.options.data / "outbox").iterdir()))


def test_what_takes_too_long_is_stopped(http: httpx.Client) -> None:
    answer = http.post("/images/generations", json=HAT | {"steps": 1000}, headers={"X-Request-Timeout": "0.2"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_many_at_once_are_painted_as_alone(studio: Studio, ann: Any) -> None:
    def one(seed: int) -> np.ndarray:
        more = {"seed": seed, "steps": 5 if seed % 4 else 6}
        return pixels(ann.images.generate(**HAT, extra_body=more).data[0].b64_json)

    alone = [one(seed) for seed in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(one, range(8)))
    assert max(abs(a.astype(int) - b).max() for a, b in zip(alone, together, strict=True)) <= 1
    assert len({a.tobytes() for a in together}) == 8


# -- edits and variations ----------------------------------------------------------------------------------------------


def test_outside_the_mask_no_pixel_changes(studio: Studio, ann: Any) -> None:
    """The mask as OpenAI has it: transparent is what may change."""
    given, mask = noise(30, 40), np.full((30, 40, 4), 255, np.uint8)
    mask[5:20, 10:30, 3] = 0
    for found in both(studio, ann, lambda c: c.images.edit(
        image=("a.png", sent(given)), mask=("m.png", sent(mask)), **HAT
    )):  # fmt: skip
        made = pixels(found.data[0].b64_json)
        assert made.shape == (30, 40, 3)
        assert found.size == "40x30"
        free = mask[:, :, 3] == 0
        assert (made[~free] == given[~free]).all()
        assert (made[free] != given[free]).any(1).mean() > 0.9


def test_an_edit_may_name_the_size_that_it_has(ann: Any) -> None:
    mask = np.zeros((32, 32, 4), np.uint8)
    mask[:8] = 255
    files = {"image": sent(noise(32, 32)), "mask": sent(mask)}
    assert ann.images.edit(**files, **HAT, size="32x32").size == "32x32"
    with pytest.raises(openai.BadRequestError, match="size of its own"):
        ann.images.edit(**files, **HAT, size="256x256")


def test_how_near_an_edit_without_mask_stays_can_be_said(ann: Any) -> None:
    given = sent(noise(SIDE, SIDE))
    found = [
        ann.images.edit(image=given, **HAT, extra_body={"seed": 1, **extra}, **more).data[0].b64_json
        for extra, more in (
            ({"strength": 0.4}, {}),
            ({}, {"input_fidelity": "high"}),
            ({"strength": 0.7}, {}),
            ({}, {}),
        )
    ]
    near, closely, far, plain = map(pixels, found)
    assert (near == closely).all()
    assert (far == plain).all()
    assert (near != far).any()


def test_two_pictures_are_mixed(ann: Any) -> None:
    one, other = (np.full((SIDE, SIDE, 3), v, np.uint8) for v in (0, 255))
    found = ann.images.edit(image=[sent(one), sent(other)], **HAT, n=3, extra_body={"strength": 0.1, "seed": 1})
    assert len({d.b64_json for d in found.data}) == 3
    assert [d.seed for d in found.data] == [1, 1, 1], "the noise is one, what is mixed changes"
    assert found.usage.input_tokens_details.image_tokens == 2 * (SIDE // 8) ** 2


@pytest.mark.filterwarnings("ignore:deprecated")
def test_variations(studio: Studio, ann: Any) -> None:
    image = sent(noise(SIDE, SIDE))
    for found in both(studio, ann, lambda c: c.images.create_variation(
        image=image, model="painter", n=2, size="256x256", response_format="b64_json", user="u"
    )):  # fmt: skip
        assert [picture(d.b64_json).size for d in found.data] == [(256, 256)] * 2
        assert found.data[0].b64_json != found.data[1].b64_json
    for found in both(studio, ann, lambda c: c.images.create_variation(image=image, response_format="url")):
        assert found.data[0].url.startswith(studio.address)


@pytest.mark.parametrize("kind", ["16 bit", "cmyk", "alpha", "palette", "grey", "webp", "gif"])
def test_pictures_of_many_kinds_can_be_edited(ann: Any, kind: str) -> None:
    grey = Image.fromarray(noise(20, 20)[:, :, 0])
    images = {
        "16 bit": Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160),
        "cmyk": grey.convert("CMYK"),
        "alpha": Image.fromarray(noise(20, 20, 4)), "palette": grey.convert("P"), "grey": grey,
        "webp": grey.convert("RGB"), "gif": grey.convert("P"),
    }  # fmt: skip
    out = io.BytesIO()
    images[kind].save(out, {"cmyk": "JPEG", "webp": "WEBP", "gif": "GIF"}.get(kind, "PNG"))
    assert picture(ann.images.edit(image=out.getvalue(), **HAT).data[0].b64_json).size == (SIDE, SIDE)


# -- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "status", "param"), [
    ({"prompt": ""}, 400, "prompt"), ({"prompt": "  \n"}, 400, None), ({"prompt": None}, 400, "prompt"),
    ({"prompt": "a " * 20_000}, 400, "prompt"), ({"n": 0}, 400, "n"), ({"n": 11}, 400, "n"), ({"n": "2"}, 400, "n"),
    ({"size": "0x0"}, 400, "size"), ({"size": "1024x1536"}, 400, "size"), ({"size": "99999x99999"}, 400, "size"),
    ({"size": "4096x4096"}, 400, "size"), ({"size": "big"}, 400, "size"), ({"size": "4x4"}, 400, "size"),
    ({"size": 256}, 400, "size"), ({"quality": "best"}, 400, "quality"), ({"style": "rond"}, 400, None),
    ({"background": "transparent"}, 400, "background"), ({"output_format": "gif"}, 400, "output_format"),
    ({"output_format": "svg"}, 400, "output_format"), ({"output_format": "bmp"}, 400, "output_format"),
    ({"output_compression": 50}, 400, "output_compression"), ({"output_compression": 101}, 400, "output_compression"),
    ({"partial_images": 1}, 400, "partial_images"), ({"partial_images": 4, "stream": True}, 400, "partial_images"),
    ({"n": 2, "stream": True}, 400, "n"), ({"stream": True, "response_format": "url"}, 400, "response_format"),
    ({"response_format": "png"}, 400, "response_format"), ({"model": "nobody"}, 404, "model"),
    ({"model": "words"}, 400, "model"), ({"model": "words", "stream": True}, 400, "model"),
    ({"seed": 1.5}, 400, "seed"), ({"steps": 0}, 400, "steps"), ({"frame_count": 3}, 400, "frame_count"),
    ({"nonsense": 1}, 400, "nonsense"), ({"strength": 2}, 400, "strength"),
])  # fmt: skip
def test_wrong_requests_are_told_what_is_wrong(
    http: httpx.Client, change: dict[str, Any], status: int, param: str | None
) -> None:
    answer = http.post("/images/generations", json=HAT | change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_prompt_of_ten_thousand_characters_is_painted(ann: Any) -> None:
    assert ann.images.generate(model="painter", prompt="猫 and dog " * 1000 + "!" * 1000).data[0].b64_json


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says that it has 400 million pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9999)) + chunk(b"IEND", b"")
    )


def moving() -> bytes:
    frames = [Image.fromarray(noise(8, 8) // (k + 1)) for k in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


PNG = sent(noise())
MASK = sent(np.zeros((24, 24, 4), np.uint8))


@pytest.mark.parametrize(("files", "status"), [
    ([("image", PNG[:200])], 422), ([("image", b"no picture")], 422), ([("image", b"")], 400),
    ([("image", bomb())], 413), ([("image", moving())], 422), ([("image", PNG), ("mask", PNG[:300])], 422),
    ([("image", PNG), ("mask", sent(np.zeros((9, 9, 4), np.uint8)))], 400),
    ([("image", PNG), ("mask", sent(np.full((24, 24, 4), 255, np.uint8)[:, :, :3] * 0))], 400),
    ([("mask", MASK)], 400), ([("image", PNG), ("markup", PNG)], 400),
    ([("image[]", PNG), ("image[]", PNG), ("image[]", PNG)], 400),
    ([("image[]", PNG), ("image[]", PNG), ("mask", MASK)], 400),
    ([("image", PNG), ("mask", MASK), ("mask", MASK)], 400),
])  # fmt: skip
def test_wrong_pictures_are_told_what_is_wrong(
    studio: Studio, http: httpx.Client, files: list[tuple[str, bytes]], status: int
) -> None:
    parts = [(name, (f"{name}.png", data, "image/png")) for name, data in files]
    answer = http.post("/images/edits", data=HAT, files=parts)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"].endswith((".", "?"))
    assert str(studio.house.options.data) not in answer.text, "no word of where files lie"


@pytest.mark.parametrize("path", ["edits", "variations"])
def test_other_kinds_of_bodies_are_turned_away(http: httpx.Client, path: str) -> None:
    assert http.post(f"/images/{path}", json=HAT).status_code == 415
    assert (
        http.post(f"/images/{path}", content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == 400
    )
    assert http.post("/images/generations", data=HAT).status_code == 415
    assert (
        http.post("/images/generations", content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    )


def test_a_form_says_the_same_as_json_would(http: httpx.Client) -> None:
    for change, param in (
        ({"n": "0"}, "n"),
        ({"size": "10x20"}, "size"),
        ({"seed": "x"}, "seed"),
        ({"odd": "1"}, "odd"),
    ):
        answer = http.post("/images/edits", data=HAT | change, files={"image": PNG})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    answer = http.post("/images/edits", data={"model": "painter"}, files={"image": PNG})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


def test_pictures_that_are_too_many_bytes_are_turned_away(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genwright.server.routes.images._FORM", 1000)
    assert http.post("/images/edits", data=HAT, files={"image": PNG}).status_code == 413


def test_models_of_words_and_of_pictures_are_told_apart(ann: Any, http: httpx.Client) -> None:
    for path, body in (
        ("/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/completions", {"prompt": "hi"}), ("/responses", {"input": "hi"}),
        ("/messages", {"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}),
    ):  # fmt: skip
        answer = http.post(path, json={"model": "painter", **body})
        assert answer.status_code == 400, (path, answer.text)
        assert "painter gives pictures, not text. Ask it at /v1/images/generations." in answer.text
    answer = http.post("/images/edits", data=HAT | {"model": "words"}, files={"image": PNG})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert "words gives text, not pictures. Ask it at /v1/chat/completions." in answer.text


def test_a_model_of_words_is_sent_no_pictures(http: httpx.Client) -> None:
    url = {"url": "data:image/png;base64,AAAA"}
    parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": url}]
    answer = http.post("/chat/completions", json={"model": "words", "messages": [{"role": "user", "content": parts}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_value")
    answer = http.post("/responses", json={"model": "words", "input": [
        {"role": "user", "content": [{"type": "input_image", "image_url": url["url"]}]}]})  # fmt: skip
    assert answer.status_code == 400


# -- around it ---------------------------------------------------------------------------------------------------------


def test_it_is_listed_counted_and_shown_like_any_model(studio: Studio, ann: Any, http: httpx.Client) -> None:
    ann.images.generate(**HAT)
    assert {"painter", "words"} <= {model.id for model in ann.models.list()}
    assert ann.models.retrieve("painter").gives == "image"
    head = {"Authorization": f"Bearer {studio.keys['ops']}"}
    figures = http.get(studio.address.removesuffix("/v1") + "/metrics", headers=head).text
    assert re.search(r'genwright_requests_total\{model_name="painter",status="stop"\} \d', figures)
    assert re.search(r'genwright_generation_tokens_total\{model_name="painter"\} [1-9]', figures)
    shown = http.get(studio.address.removesuffix("/v1") + "/admin/ps", headers=head).json()["data"]
    [one] = [seat for seat in shown if seat["name"] == "painter"]
    assert (one["state"], one["engine"], one["parallel"], one["gives"]) == ("loaded", "FlowImage", 16, "image")


def test_limits_count_pictures(studio: Studio) -> None:
    key = studio.house.keys.create("few", limits={"requests_per_minute": 2})[1]
    with client(studio.address, api_key=key) as few:
        for _ in range(2):
            few.images.generate(**HAT)
        with pytest.raises(openai.RateLimitError):
            few.images.generate(**HAT)


def test_nothing_stays_behind(studio: Studio, http: httpx.Client) -> None:
    http.post("/images/edits", data=HAT, files={"image": PNG, "mask": MASK})
    http.post("/images/edits", data=HAT, files={"image": PNG[:100]})
    assert wait_until(lambda: not list((studio.house.options.data / "outbox").iterdir()))
    assert not list((studio.house.options.data / "blobs" / "drafts").iterdir())
