"""Pictures that a model elsewhere paints: a second server of ours is the upstream, and one that misbehaves."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image, ImageChops

from genwright.server.app import create_app
from genwright.server.desk import Desk
from genwright.server.fleet import Fleet
from genwright.server.meters import Meters
from genwright.verbs.provenance import look_up

from .household import at_home, small_house
from .parlour import client
from .studio import FORBIDDEN, SIDE, Studio, studio_in

HAT: dict[str, Any] = {"model": "far", "prompt": "a red hat"}


class Odd:
    """An upstream that answers as a test wants, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Response] = []
        self.asked: list[dict[str, Any]] = []

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/images/generations")
        async def paint(request: Request) -> Response:
            self.asked.append(await request.json())
            return self.answers.pop(0)

        return app


def picture(size: tuple[int, int] = (8, 8)) -> str:
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: Any) -> Iterator[Studio]:
    with studio_in(tmp_path_factory.mktemp("far")) as studio:
        yield studio


@pytest.fixture(scope="module")
def odd() -> Odd:
    return Odd()


@pytest.fixture(scope="module")
def near(studio: Studio, odd: Odd, tmp_path_factory: Any) -> Iterator[Any]:
    """The official client of a server whose models "far" and "odd" are elsewhere."""
    place = tmp_path_factory.mktemp("near")
    with pytest.MonkeyPatch.context() as patch, at_home(odd.app()) as oddly:
        patch.setenv("FAR_KEY", studio.keys["ann"])
        engine = {"name": "openai_images", "retries": 1, "failures": 0}
        models = [
            {"name": "far", "source": "painter", "base_url": studio.address, "api_key_env": "FAR_KEY",
             "engine": engine | {"genwright": True}},
            {"name": "odd", "base_url": oddly, "engine": engine | {"base64": False}},
        ]  # fmt: skip
        house = small_house(place, meters=Meters(), models=models, memory=10**10)
        house.fleet = Fleet(house.options, house.store)
        house.desk = Desk(house.options, house.fleet, house.keys, house.limits, house.meters)
        with at_home(create_app(house)) as address, client(address) as made:
            yield made


def pixels(found: Any) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(found.data[0].b64_json)))


def test_what_is_painted_elsewhere_is_what_would_be_painted_there(near: Any, studio: Studio) -> None:
    with client(studio.address, api_key=studio.keys["ann"]) as there:
        own = there.images.generate(model="painter", prompt="a red hat", extra_body={"seed": 4})
    found = near.images.generate(**HAT, extra_body={"seed": 4})
    assert pixels(found).size == (SIDE, SIDE)
    assert not ImageChops.difference(pixels(found), pixels(own)).getbbox()
    assert found.data[0].seed == 4
    assert found.usage.total_tokens == own.usage.total_tokens > 0


def test_it_bears_a_label_and_stands_in_the_ledger_as_ours(near: Any, tmp_path: Path) -> None:
    path = tmp_path / "hat.png"
    path.write_bytes(base64.b64decode(near.images.generate(**HAT).data[0].b64_json))
    told = look_up(path)
    assert told["label"]["Label"] == "1"
    (answer,) = told["answers"]  # the upstream's own row is of the file that it sent
    assert (answer["outcome"], told["label"]["ProduceID"]) == ("complete", answer["request_id"])


def test_several_in_another_format_and_streamed(near: Any) -> None:
    found = near.images.generate(**HAT, n=2, output_format="webp", size="32x32", quality="low")
    assert [Image.open(io.BytesIO(base64.b64decode(one.b64_json))).format for one in found.data] == ["WEBP"] * 2
    assert pixels(found).size == (32, 32)
    events = list(near.images.generate(**HAT, stream=True))
    assert [event.type for event in events] == ["image_generation.completed"]
    with pytest.raises(openai.BadRequestError, match="does not know it"):
        list(near.images.generate(**HAT, stream=True, partial_images=1))


def test_pictures_are_edited_and_varied_elsewhere(near: Any, studio: Studio) -> None:
    given = base64.b64decode(picture((SIDE, SIDE)))
    mask = io.BytesIO()
    half = Image.new("L", (SIDE, SIDE), 255)
    half.paste(0, (0, 0, SIDE, SIDE // 2))
    Image.merge("LA", (half, half)).convert("RGBA").save(mask, "PNG")
    edited = pixels(
        near.images.edit(model="far", prompt="a hat", image=("a.png", given), mask=("m.png", mask.getvalue()))
    )
    assert edited.getpixel((2, SIDE - 2))[:3] == (255, 0, 0)  # what the mask covers stays as it was
    assert pixels(near.images.edit(model="far", prompt="a hat", image=[given, given])).size == (SIDE, SIDE)
    with pytest.deprecated_call():
        assert pixels(near.images.create_variation(model="far", image=given)).size == (SIDE, SIDE)


def test_the_first_model_that_gives_pictures_may_be_elsewhere(near: Any) -> None:
    assert near.models.retrieve("far").gives == "image"
    assert near.images.generate(prompt="a red hat").data[0].b64_json
    with pytest.raises(openai.BadRequestError, match="gives pictures, not text"):
        near.chat.completions.create(model="far", messages=[{"role": "user", "content": "hi"}])


def test_what_is_refused_there_is_told_here(near: Any) -> None:
    with pytest.raises(openai.APIStatusError, match=r"(?i)upstream .* answered 403"):
        near.images.generate(model="far", prompt=f"a {FORBIDDEN}")


@pytest.mark.parametrize(("answer", "said"), [
    ({"data": []}, "no pictures"),
    ({"data": [{"url": "http://127.0.0.1/secret"}]}, "addresses are not followed"),
    ({"data": [{"b64_json": "AAAA"}]}, "cannot be read"),
    ([], "no JSON object"),
])  # fmt: skip
def test_an_upstream_that_sends_no_pictures_is_an_error(near: Any, odd: Odd, answer: Any, said: str) -> None:
    odd.answers[:] = [JSONResponse(answer)]
    with pytest.raises(openai.InternalServerError, match=said):
        near.images.generate(model="odd", prompt="a cat")


def test_it_is_asked_again_when_it_is_busy_and_only_what_it_knows(near: Any, odd: Odd) -> None:
    odd.asked.clear()
    odd.answers[:] = [
        JSONResponse({"error": {"message": "busy"}}, 503, headers={"Retry-After": "0"}),
        JSONResponse({"data": [{"b64_json": picture((24, 16))}], "usage": {"input_tokens": 5, "output_tokens": 7}}),
    ]
    found = near.images.generate(model="odd", prompt="a cat", size="24x16", quality="high", style="vivid")
    once = {"model": "odd", "style": "vivid", "prompt": "a cat", "size": "24x16", "quality": "high"}
    assert odd.asked == [once, once]
    assert (pixels(found).size, found.size, found.usage.total_tokens) == ((24, 16), "24x16", 12)
    with pytest.raises(openai.BadRequestError, match="steps"):
        near.images.generate(model="odd", prompt="a cat", extra_body={"steps": 5})
    with pytest.raises(openai.BadRequestError, match="knows no seed"):
        near.images.generate(model="odd", prompt="a cat", extra_body={"seed": 5})
    with pytest.raises(openai.BadRequestError, match="8 to 2048"):
        near.images.generate(model="odd", prompt="a cat", size="9000x9000")
