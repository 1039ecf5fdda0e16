"""/v1/images: pictures of what words describe, changes of pictures that are sent, and variations of them.

`seed`, `steps`, `guidance`, `negative` and `strength` may be said too (the client's `extra_body`), where the model
knows them. The pictures of one request come from the seeds `seed`, `seed` + 1 …, and each tells its own. Every picture
has its label and where it comes from in its own metadata.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from pydantic import Field

from genwright.core import Message, Part
from genwright.core import Request as Asked

from ..answers import Asking, reply, streamed
from ..conversation import Seed, Strict
from ..errors import Wrong
from ..files import file_of, save_file
from ..forms import Sent, read_files
from ..house import caller_of, house_of
from ..leaving import unless_gone
from ..orders import Order
from ..outbox import label_of, outbox, unplaced
from ..wire import Body, documented, event, now, read_body, shaped

router = APIRouter()

PASSED_OVER = ("moderation", "complexity")  # guards stand whatever is said, and there is one way of planning
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
QUALITIES = {"low": 0.4, "medium": 1.0, "high": 2.0, "xhigh": 3.0, "max": 5.0}  # times the model's usual steps
_OLD = {"auto": "medium", "standard": "medium", "hd": "high"}  # other names of qualities
_STEPS = 20  # usual ones of a model that does not say
_LARGEST = 2048  # pixels of a side: larger ones would only be blown up
_FORM = 64_000_000  # bytes of all pictures that are sent
_FIELD = 131_072  # bytes: a prompt of 32,000 characters in any script
_MOST = 2  # pictures
_LIVES = 3600  # seconds that a url is good for
_EACH = 64  # tokens that a picture is taken for until the model has counted


class Pictures(Body):
    """What every path takes. `size` is WIDTHxHEIGHT or auto (as the model paints)."""

    model: str | None = Field(None, min_length=1, max_length=500)
    n: int | None = Field(None, ge=1, le=10)
    size: str | None = Field(None, max_length=20)
    response_format: Literal["b64_json", "url"] | None = None
    safety_identifier: str | None = Field(None, max_length=512)
    user: str | None = Field(None, max_length=512)
    seed: Seed | None = None
    steps: int | None = Field(None, ge=1, le=1000)
    guidance: float | None = Field(None, ge=0, le=50)
    negative: str | None = Field(None, max_length=10_000)
    strength: float | None = Field(None, gt=0, le=1)


class Prompted(Pictures):
    """What paths take that have a prompt."""

    prompt: str = Field(min_length=1, max_length=32_000)
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = None
    style: str | None = Field(None, max_length=200, description="vivid and natural change nothing")
    background: Literal["auto", "opaque", "transparent"] | None = None
    output_format: Literal["png", "jpeg", "webp", "gif", "svg"] | None = None
    output_compression: int | None = Field(None, ge=0, le=100)
    partial_images: int | None = Field(None, ge=0, le=3)
    stream: bool | None = None


class GenerationRequest(Prompted, Strict):
    """Words that describe a picture."""


class NewEdit(Prompted):
    """What the form of an edit says beside the pictures."""

    input_fidelity: Literal["high", "low"] | None = None


class EditForm(NewEdit):
    """Pictures, and a mask: transparent where the first may change. `image[]` may come twice; two are mixed."""

    image: str = Field(json_schema_extra={"format": "binary"})
    mask: str | None = Field(None, json_schema_extra={"format": "binary"})


class VariationForm(Pictures):
    image: str = Field(json_schema_extra={"format": "binary"})


@router.post(
    "/v1/images/generations", openapi_extra=documented(GenerationRequest, passed_over=PASSED_OVER, streams=True)
)
async def generate(request: Request) -> Response:
    """Paint what words describe.

    Squares of any size are made of what the model paints; `quality` changes how many steps it takes. A `url` is good
    for an hour, with a key of the same owner. With `stream`, unfinished pictures come on the way (`partial_images`),
    and lines of comment tell of the steps.
    """
    asked = await read_body(request, GenerationRequest, passed_over=PASSED_OVER)
    with ExitStack() as stack:
        folder = stack.enter_context(outbox(house_of(request).options.data))
        return await _answered(request, _Work.of(request, asked, folder, "image_generation"), stack)


@router.post(
    "/v1/images/edits",
    openapi_extra=documented(EditForm, kind="multipart/form-data", passed_over=PASSED_OVER, streams=True),
)
async def edit(request: Request) -> Response:
    """Change a picture as words describe; with a mask, only where that is transparent: all else stays as it is."""
    return await _edited(request, NewEdit, {"image": _MOST, "mask": 1}, "image_edit")


@router.post(
    "/v1/images/variations",
    openapi_extra=documented(VariationForm, kind="multipart/form-data", passed_over=PASSED_OVER),
)
async def vary(request: Request) -> Response:
    """Paint a picture anew, like the one that is sent."""
    return await _edited(request, Pictures, {"image": 1}, "image_variation")


@router.get("/v1/images/files/{id}", response_class=FileResponse)
async def picture(request: Request, id: str) -> FileResponse:
    """A picture that was answered as a url."""
    house = house_of(request)
    file = await file_of(house, id, caller_of(request).owner)
    kind = next((kind for kind, suffix in SUFFIXES.items() if file.name.endswith(suffix)), None)
    if kind is None or file.purpose != "vision":
        raise Wrong(404, f"There is no picture {id[:200]!r}.", param="id", code="not_found")
    head = {"Cache-Control": "private", "Content-Security-Policy": "default-src 'none'; sandbox"}
    return FileResponse(house.blobs.path(file.sha256), media_type=f"image/{kind}", headers=head)


async def _edited(request: Request, shape: type[Pictures], most: Mapping[str, int], kind: str) -> Response:
    house = house_of(request)
    largest = min(_FORM, house.options.largest_file)
    with ExitStack() as stack:
        folder = stack.enter_context(outbox(house.options.data))
        async with read_files(request, most, largest=largest, field=_FIELD) as form:
            asked = shaped(form.fields, shape, passed_over=PASSED_OVER)
            given = await asyncio.to_thread(_placed, form.files, folder)
        return await _answered(request, _Work.of(request, asked, folder, kind, given), stack)


def _placed(files: Sequence[Sent], folder: Path) -> list[Part]:
    """Pictures that were sent, as parts whose files lie in the folder. Raises Wrong (400) for an empty one."""
    given = []
    for number, sent in enumerate(files, 1):
        if sent.draft.size == 0:
            raise Wrong(400, f"The file of {sent.name} is empty.", param=sent.name, code="empty_file")
        sent.draft.file.flush()
        path = folder / (f"{sent.name}-{number}" if sent.name == "image" else sent.name)
        os.replace(sent.draft.path, path)
        given.append(Part("image", " mask " if sent.name == "mask" else "", path))  # its word stands apart for guards
    return given


@dataclass(frozen=True)
class _Work:
    """What is asked for, by whom, and where its files go. `kind` is how events are called."""

    asking: Asking
    asked: Pictures
    folder: Path
    kind: str
    given: Sequence[Part]

    @classmethod
    def of(cls, request: Request, asked: Pictures, folder: Path, kind: str, given: Sequence[Part] = ()) -> _Work:
        """Raises Wrong (400, 404) for what no model here can do."""
        work = cls(Asking.of(request, asked.model or _any(request)), asked, folder, kind, given)
        work.check()
        return work

    # What only some requests have.
    @property
    def prompt(self) -> str:
        return str(getattr(self.asked, "prompt", ""))

    @property
    def format(self) -> str:
        return getattr(self.asked, "output_format", None) or "png"

    @property
    def quality(self) -> str:
        said = getattr(self.asked, "quality", None) or "auto"
        return _OLD.get(said, said)

    @property
    def streams(self) -> bool:
        return bool(getattr(self.asked, "stream", None))

    @property
    def partial(self) -> int:
        return getattr(self.asked, "partial_images", None) or 0

    def check(self) -> None:
        """Raises Wrong (400) for what contradicts itself, or is not to be had."""
        wrong = {
            "output_format": self.format not in SUFFIXES and f"pictures are not written as {self.format}",
            "background": getattr(self.asked, "background", None) == "transparent" and "models here paint opaquely",
            "output_compression": self.format == "png" and getattr(self.asked, "output_compression", None)
            not in (None, 100) and "PNG loses nothing; ask for jpeg or webp",
            "partial_images": self.partial and not self.streams and "it needs `stream`",
            "n": self.streams and (self.asked.n or 1) > 1 and "a stream brings one picture",
            "response_format": self.streams and self.asked.response_format == "url" and "a stream brings no urls",
            "mask": any(part.text for part in self.given) and len(self.given) > 2 and "it belongs to one picture",
        }  # fmt: skip
        for param, why in wrong.items():
            if why:
                raise Wrong(400, f"{param}: {why}.", param=param, code="unsupported_value")
        _sides(self.asked.size)

    def order(self) -> Order:
        words = len(self.prompt) + len(self.asked.negative or "")
        return Order("image", words, _EACH * (self.asked.n or 1), self.request)

    def request(self, facts: Mapping[str, Any]) -> Asked:
        """For a model of whom these are the facts. Raises Wrong (400) for what it does not know."""
        known: Mapping[str, Any] = facts.get("options") or {}
        asked, (width, height) = self.asked, _sides(self.asked.size) or (0, 0)
        style, told = getattr(asked, "style", None), getattr(asked, "output_compression", None)
        usual = known.get("steps") or _STEPS
        closely = getattr(asked, "input_fidelity", None) == "high" and not any(part.text for part in self.given)
        wanted = {  # parameter: (option, value)
            "n": ("n", asked.n), "size": ("size", width or None), "partial_images": ("partial", self.partial or None),
            "style": ("style", style if style not in ("vivid", "natural") or "effort" in known else None),
            "output_compression": ("quality", told if self.format != "png" else None),
            "steps": ("steps", asked.steps), "guidance": ("guidance", asked.guidance),
            "negative": ("negative", asked.negative or None), "strength": ("strength", asked.strength),
        }  # fmt: skip
        options = {}
        for param, (option, value) in wanted.items():
            if value is None or (param == "n" and value == 1):
                continue
            if option not in known:
                raise Wrong(400, f"{param}: {self.asking.model} does not know it.", param=param,
                            code="unsupported_parameter")  # fmt: skip
            options[option] = value
        if width != height:
            if "height" not in known:
                said = f"size: pictures of {self.asking.model} are squares, as 256x256."
                raise Wrong(400, said, param="size", code="invalid_value")
            options["height"] = height
        if "effort" in known:  # what is asked elsewhere is told how it was said here
            options |= {"effort": self.quality} if getattr(asked, "quality", None) not in (None, "auto") else {}
        elif "steps" in known and asked.steps is None and QUALITIES[self.quality] != 1:
            options["steps"] = max(1, min(1000, round(usual * QUALITIES[self.quality])))
        if closely and "strength" in known and asked.strength is None:
            options["strength"] = 0.4
        words = [Part(text=self.prompt)] if self.prompt else []
        message = Message("user", (*words, *self.given))
        out = self.folder / f"picture{SUFFIXES[self.format]}"
        return Asked(messages=(message,), seed=asked.seed, options=options, out=out)

    async def parts(self) -> AsyncGenerator[Part]:
        """What the model says, for as long as somebody listens."""
        asking = self.asking
        said = asking.house.desk.ask(asking.caller, asking.model, self.order(), deadline=asking.deadline)
        async with aclosing(unplaced(said, self.folder)) as parts:
            async for part in parts:
                yield part

    def shown(self) -> dict[str, Any]:
        """What answers and events tell of themselves."""
        who = self.asked.safety_identifier or self.asked.user
        return {"background": "opaque", "output_format": self.format, "quality": self.quality,
                **({"safety_identifier": who} if who else {})}  # fmt: skip


async def _answered(request: Request, work: _Work, stack: ExitStack) -> Response:
    """The response; a stream takes what is in the stack along."""
    if work.streams:
        return await streamed(request, _events(work, stack.pop_all()))
    body, label = await unless_gone(request, _whole(request, work))
    response = reply(request, body)
    if label:
        response.headers["X-AIGC"] = label
    return response


async def _whole(request: Request, work: _Work) -> tuple[dict[str, Any], str]:
    """The body, and the label of its pictures."""
    made: list[Part] = []
    usage: dict[str, Any] = {}
    async with aclosing(work.parts()) as parts:
        async for part in parts:
            if part.path and "partial" not in (part.meta or {}):
                made.append(part)
            usage |= part.meta or {}
    made.sort(key=lambda part: (part.meta or {}).get("number", 0))
    data = [await _datum(request, work, part) for part in made]
    body = {"created": now(), **work.shown(), "size": _size(made[0]) if made else "auto", "data": data,
            "usage": _usage(usage)}  # fmt: skip
    return body, label_of(made[0].path) if made and made[0].path else ""


async def _datum(request: Request, work: _Work, part: Part) -> dict[str, Any]:
    """OpenAI's picture, with the seed that it was made of."""
    assert part.path
    told = {"seed": part.meta["seed"]} if part.meta and "seed" in part.meta else {}
    if work.asked.response_format != "url":
        return {"b64_json": await asyncio.to_thread(_packed, part.path), **told}
    name = f"picture{part.path.suffix}"
    owner = work.asking.caller.owner
    file = await save_file(work.asking.house, owner, name, "vision", part.path, lives=_LIVES)
    return {"url": str(request.url_for("picture", id=file.id)), **told}


async def _events(work: _Work, owned: ExitStack) -> AsyncGenerator[bytes]:
    """Unfinished pictures, the finished one, and comments that tell of the steps and keep the connection awake."""
    shown, index = work.shown(), 0
    usage: dict[str, Any] = {}
    last: Part | None = None
    with owned:
        async with aclosing(work.parts()) as parts:
            async for part in parts:
                meta = part.meta or {}
                usage |= meta
                if part.path is None:
                    if "progress" in meta:
                        yield b": step %d of %d\n\n" % (meta["progress"], meta.get("of", 0))
                elif "partial" in meta:
                    kind = f"{work.kind}.partial_image"
                    packed = await asyncio.to_thread(_packed, part.path)
                    yield event({"type": kind, "b64_json": packed, "partial_image_index": index, "created_at": now(),
                                 "size": _size(part), **shown}, kind)  # fmt: skip
                    index += 1
                else:
                    last = part
        if last and last.path:
            kind = f"{work.kind}.completed"
            packed = await asyncio.to_thread(_packed, last.path)
            yield event({"type": kind, "b64_json": packed, "created_at": now(), "size": _size(last), **shown,
                         "usage": _usage(usage)}, kind)  # fmt: skip


def _any(request: Request) -> str:
    """The first model that gives pictures. Raises Wrong (400) where there is none."""
    fleet = house_of(request).fleet
    for served in fleet.list(caller_of(request)):
        if fleet.gives(served) == "image":
            return served.id
    raise Wrong(400, "There is no model here that gives pictures.", param="model", code="model_not_found")


def _sides(size: str | None) -> tuple[int, int] | None:
    """Width and height in pixels. Raises Wrong (400) for what is none, or too large."""
    if size in (None, "auto"):
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", str(size))
    if not found:
        raise Wrong(400, "size: it is auto or WIDTHxHEIGHT, as in 256x256.", param="size", code="invalid_value")
    width, height = int(found[1]), int(found[2])
    if not (8 <= width <= _LARGEST and 8 <= height <= _LARGEST):
        raise Wrong(400, f"size: pictures here have 8 to {_LARGEST} pixels a side, as in 256x256.",
                    param="size", code="invalid_value")  # fmt: skip
    return width, height


def _size(part: Part) -> str:
    meta = part.meta or {}
    return f"{meta['width']}x{meta['height']}" if {"width", "height"} <= set(meta) else "auto"


def _usage(said: Mapping[str, Any]) -> dict[str, Any]:
    given, made = int(said.get("prompt_tokens", 0)), int(said.get("completion_tokens", 0))
    pictures = int(said.get("file_tokens", 0))
    return {
        "input_tokens": given, "input_tokens_details": {"image_tokens": pictures, "text_tokens": given - pictures},
        "output_tokens": made, "output_tokens_details": {"image_tokens": made, "text_tokens": 0},
        "total_tokens": given + made,
    }  # fmt: skip


def _packed(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
