"""A picture model elsewhere, through any API like OpenAI's images: hosted ones, LocalAI, or `genwright serve`."""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import DataError, ModelError, Part, Request, UsageError
from genwright.core import Settings as Base
from genwright.nn.upstream import Address, Connection

remote = True  # its `source` is a name at the upstream, not something on this machine
gives = "image"
_LARGEST = 400_000_000  # bytes of an answer
_MOST = 10  # pictures of a request
_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


class Settings(Address):
    timeout: float = Field(600.0, gt=0, description="Seconds to wait for the next bytes")
    base64: bool = Field(
        True, description="Ask for pictures in base64; false for models that send them so and refuse to be asked"
    )
    genwright: bool = Field(
        False, description="The upstream is a Genwright: it also knows seed, steps, guidance, negative and strength"
    )


class Options(Base):
    """What a request may ask for of any upstream."""

    n: int = Field(1, ge=1, le=_MOST, description="Pictures")
    size: int | None = Field(None, ge=8, description="Pixels of the width; null is as the model likes")
    height: int | None = Field(None, ge=8, description="Pixels of the height; null is as many as `size`")
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="Quality, as it is called there"
    )
    style: str | None = Field(None, description="Style, as it is called there")
    quality: int | None = Field(None, ge=1, le=100, description="Of JPEG and WebP files, which are written here")


class Wider(Options):
    """What a Genwright knows besides."""

    steps: int | None = Field(None, ge=1, le=1000, description="Steps")
    guidance: float | None = Field(None, ge=0, le=50, description="Guidance")
    negative: str | None = Field(None, description="What is not to be seen")
    strength: float | None = Field(None, gt=0, le=1, description="How much of a given picture is painted anew")


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Painter:
    """Nothing is sent before the first request. Raises UsageError when the key's variable is not set."""
    return Painter(settings, settings.key())


class Painter(Connection):
    """A model of pictures that answers over HTTP.

    Its pictures are decoded apart and written anew, so that nothing but pixels comes in: labels and metadata are ours.
    """

    gives = "image"
    settings: Settings

    def __init__(self, settings: Settings, key: str):
        super().__init__(settings, key)
        self.parallel = settings.parallel
        self.options = Wider if settings.genwright else Options

    def generate(self, request: Request) -> Iterator[Part]:
        """The pictures, each with its width and height in the meta, then what it took.

        Words go to `/images/generations`, words with pictures (the one whose part has a text is the mask) to
        `/images/edits`, pictures alone to `/images/variations`. Raises UsageError for what the upstream refuses (HTTP
        4xx), ModelError when it fails, hangs up or sends no pictures, DataError when a file cannot be written.
        """
        how = request.options_as(self.options)
        path, data, kind = self._asked(request, how)
        with closing(self.post(path, data, kind, "application/json")) as response:
            answer = self._answer(response)
        found = answer.get("data")
        if not isinstance(found, list) or not found or len(found) > _MOST:
            raise ModelError(f"{self.place} sent no pictures.")
        for number, (one, file) in enumerate(zip(found, request.files(len(found), ".png"), strict=True)):
            yield self._picture(one, file, number, how)
        usage = answer["usage"] if isinstance(answer.get("usage"), dict) else {}
        told = {ours: usage[theirs] for ours, theirs in (("prompt_tokens", "input_tokens"),
                ("completion_tokens", "output_tokens")) if isinstance(usage.get(theirs), int)}  # fmt: skip
        yield Part(meta={"finish_reason": "stop", **told})

    def _asked(self, request: Request, how: Options) -> tuple[str, bytes, str]:
        """(path, body, its content type)."""
        parts = request.messages[-1].parts
        if odd := [part.kind for part in parts if part.kind not in ("text", "image")]:
            raise UsageError(f"Words and pictures are sent to {self.place}, not {odd[0]}.", "Leave it out.")
        if request.seed is not None and not self.settings.genwright:
            raise UsageError(f"{self.place} knows no seed.", "Leave it out, or set `genwright` if it is one.")
        prompt = "".join(part.text for part in parts if part.kind == "text")
        given = [part for part in parts if part.path and part.kind == "image"]
        known = how.model_dump(exclude_defaults=True, exclude={"size", "height", "effort", "quality"})
        fields = {"model": self.settings.model, **known}
        fields |= {"prompt": prompt} if prompt else {}
        fields |= {"size": f"{how.size}x{how.height or how.size}"} if how.size else {}
        fields |= {"quality": how.effort} if how.effort else {}
        fields |= {"response_format": "b64_json"} if self.settings.base64 else {}
        fields |= {"seed": request.seed} if request.seed is not None else {}
        if not given:
            return "/images/generations", json.dumps(fields).encode("utf-8", "replace"), "application/json"
        boundary = secrets.token_hex(16)
        path = "/images/edits" if prompt else "/images/variations"
        return path, _form(fields, given, boundary), f"multipart/form-data; boundary={boundary}"

    def _answer(self, response: Any) -> dict[str, Any]:
        try:
            data = response.read(_LARGEST + 1)
        except (OSError, http.client.HTTPException) as error:
            self.breaker.failed()
            raise ModelError(f"{self.place} hung up in the middle of an answer: {error}.", "Try again.") from None
        self.breaker.went_well()
        if len(data) > _LARGEST:
            raise ModelError(f"{self.place} sent more than {_LARGEST:,} bytes.")
        return self.object_in(data)

    def _picture(self, one: Any, file: Path, number: int, how: Options) -> Part:
        from genwright.media.apart import open_given
        from genwright.media.picture import save_picture

        packed = one.get("b64_json") if isinstance(one, dict) else None
        if not isinstance(packed, str):
            raise ModelError(f"{self.place} sent a picture that is not in base64.",
                             "Its addresses are not followed; set `base64` if it was off.")  # fmt: skip
        try:
            picture = open_given(base64.b64decode(packed, validate=True))
        except (binascii.Error, DataError) as error:
            raise ModelError(f"{self.place} sent a picture that cannot be read: {error}") from None
        try:
            save_picture(picture, file, quality=how.quality or 90)
        except OSError as error:
            raise DataError(f"{file} cannot be written: {error.strerror or error}.", "Choose another place.") from None
        told = {"number": number, "width": picture.width, "height": picture.height}
        seed = one.get("seed")
        return Part(kind="image", path=file, meta=told | ({"seed": seed} if isinstance(seed, int) else {}))


def _form(fields: dict[str, Any], given: list[Part], boundary: str) -> bytes:
    """RFC 7578. Pictures are called `image`, or `image[]` when there are several, and the one with a text `mask`."""
    body = bytearray()
    for name, value in fields.items():
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        body += str(value).encode("utf-8", "replace") + b"\r\n"
    several = sum(not part.text for part in given) > 1
    for number, part in enumerate(given):
        assert part.path
        data = part.path.read_bytes()
        kind = next((kind for magic, kind in _TYPES.items() if data.startswith(magic)), "application/octet-stream")
        name = "mask" if part.text else "image[]" if several else "image"
        body += (f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{number}.'
                 f'{kind.rpartition("/")[2]}"\r\nContent-Type: {kind}\r\n\r\n').encode()  # fmt: skip
        body += data + b"\r\n"
    return bytes(body + f"--{boundary}--\r\n".encode())
