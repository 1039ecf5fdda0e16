"""/v1/audio/music: tunes of what words ask for, as sound, notation, or a picture of it. A path of our own.

One tune comes as a file of the wanted kind; with `response_format` json, up to ten come as ABC, MIDI and MusicXML with
what is told of each. The tunes of one request come from the seeds `seed`, `seed` + 1 …
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from genwright.core import Message, Part
from genwright.core import Request as Asked

from ..answers import Asking, limits_of, reply
from ..conversation import Seed, Strict
from ..errors import Wrong
from ..house import house_of
from ..leaving import unless_gone
from ..orders import Order
from ..outbox import label_of, outbox, unplaced
from ..wire import documented, read_body

router = APIRouter()

KINDS = {"mp3": "audio/mpeg", "opus": "audio/ogg", "flac": "audio/flac", "wav": "audio/wav", "mid": "audio/midi",
         "abc": "text/vnd.abc", "musicxml": "application/vnd.recordare.musicxml+xml", "svg": "image/svg+xml",
         "png": "image/png"}  # fmt: skip
_EACH = 300  # tokens that a tune is taken for until the model has counted


class MusicRequest(Strict):
    """Words that ask for a tune, or a melody to go on from or to vary; what is not said is the model's to choose."""

    model: str = Field(min_length=1, max_length=500)
    prompt: str = Field("", max_length=2_000)
    response_format: Literal["mp3", "opus", "flac", "wav", "mid", "abc", "musicxml", "svg", "png", "json"] = "mp3"
    n: int | None = Field(None, ge=1, le=10, description="With json alone")
    seed: Seed | None = None
    key: str | None = Field(None, max_length=20)
    metre: str | None = Field(None, max_length=10)
    rhythm: str | None = Field(None, max_length=40)
    region: str | None = Field(None, max_length=40)
    bars: int | None = Field(None, ge=4, le=64)
    melody: str | None = Field(None, max_length=40_000, description="ABC")
    use: Literal["continue", "vary"] | None = None
    keep: float | None = Field(None, ge=0, le=1)
    title: str | None = Field(None, max_length=120)
    tempo: int | None = Field(None, ge=30, le=400)
    instrument: int | None = Field(None, ge=0, le=127)
    chords: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    lyrics: str | None = Field(None, min_length=1, max_length=4_000, description="Spoken over the tune, not sung")
    speaker: Literal["hibari", "kokoro-82m"] | None = None
    voice: str | None = Field(None, max_length=200)
    speed: float | None = Field(None, ge=0.5, le=2)
    fastest: float | None = Field(None, ge=1, le=2)
    duck: float | None = Field(None, ge=0, le=60)


_NO_OPTIONS = ("model", "prompt", "response_format", "seed")


@router.post(
    "/v1/audio/music",
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in (*KINDS.values(), "application/json")}}},
    openapi_extra=documented(MusicRequest),
)
async def compose(request: Request) -> Response:
    """Compose a tune. `X-Seed` tells from which seed it came; the same seed gives the same tune."""
    asked = await read_body(request, MusicRequest)
    if (asked.n or 1) > 1 and asked.response_format != "json":
        raise Wrong(400, "n: several tunes come as json alone.", param="n", code="unsupported_value")
    house = house_of(request)
    with outbox(house.options.data) as folder:
        asking = Asking.of(request, asked.model)
        parts = await unless_gone(request, _parts(asking, asked, folder))
        if asked.response_format == "json":
            return reply(request, {"object": "list", "data": await asyncio.to_thread(_tunes, parts, asking.model)})
        file = next(part for part in parts if part.path)
        assert file.path
        data, label = await asyncio.to_thread(file.path.read_bytes), label_of(file.path)
    head = (
        limits_of(request) | {"X-Seed": str((file.meta or {}).get("seed", ""))} | ({"X-AIGC": label} if label else {})
    )
    return Response(data, media_type=KINDS[asked.response_format], headers=head)


async def _parts(asking: Asking, asked: MusicRequest, folder: Path) -> list[Part]:
    letters = sum(len(words or "") for words in (asked.prompt, asked.melody, asked.lyrics))
    order = Order("audio", letters, _EACH * (asked.n or 1),
                  lambda facts: _request(asking.model, asked, folder, facts))  # fmt: skip
    said = asking.house.desk.ask(asking.caller, asking.model, order, deadline=asking.deadline)
    async with aclosing(unplaced(said, folder)) as parts:
        return [part async for part in parts]


def _request(model: str, asked: MusicRequest, folder: Path, facts: Mapping[str, Any]) -> Asked:
    known: Mapping[str, Any] = facts.get("options") or {}
    options = {name: value for name, value in asked.model_dump(exclude=set(_NO_OPTIONS)).items() if value is not None}
    if "melody" not in known:
        raise Wrong(400, f"{model} composes no tunes.", param="model", code="model_not_supported")
    suffix = "abc" if asked.response_format == "json" else asked.response_format
    return Asked(messages=(Message("user", (Part(text=asked.prompt),)),), seed=asked.seed, options=options,
                 out=folder / f"tune.{suffix}")  # fmt: skip


def _tunes(parts: list[Part], model: str) -> list[dict[str, Any]]:
    """Each tune with its notation and what is told of it."""
    found = []
    for part in parts:
        if part.path is None:
            continue
        meta = part.meta or {}
        spoken: dict[str, Any] = {name: meta[name] for name in ("speaker", "lines", "times") if name in meta}
        found.append(spoken | {
            "object": "music", "model": model, "abc": part.path.read_text(encoding="utf-8"),
            "midi": base64.b64encode(part.path.with_suffix(".mid").read_bytes()).decode(),
            "musicxml": part.path.with_suffix(".musicxml").read_text(encoding="utf-8"),
            "seed": meta.get("seed"), "told": meta.get("told"), "aigc": json.loads(label_of(part.path) or "null"),
        })  # fmt: skip
    return found
