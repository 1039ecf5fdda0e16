"""Pictures made larger by a packaged super-resolution network (Real-ESRGAN by ncnn), tile by tile on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import DataError, Part, Request, UsageError
from genwright.core import Settings as Base


class Settings(Base):
    threads: int = Field(1, ge=1, description="CPU threads")
    tile: int = Field(64, ge=16, le=1024, description="Pixels of a side of a tile: memory grows with its square")
    colours: bool = Field(True, description="Keep the picture's own colours, which the network shifts a little")


class UpscaleOptions(Base):
    """What a request may ask for."""

    factor: float = Field(
        4, gt=1, le=4, description="How many times as wide and high; below 4 it is made smaller again"
    )


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """An `Upscaler` with the network in a card's folder. Raises UsageError without a source, ModelError for a broken
    one."""
    from genwright.media.enlarge import Network

    if source is None:
        raise UsageError("What makes pictures larger needs a network.", "Use the card upscale-drawing or upscale-fast.")
    return Upscaler(Network(source, threads=settings.threads), settings)


class Upscaler:
    """Answers with the request's picture, larger. The network is the same every time: there is no chance in it."""

    gives = "image"
    options = UpscaleOptions

    def __init__(self, network: Any, settings: Settings):
        self.network, self.settings = network, settings

    def generate(self, request: Request) -> Iterator[Part]:
        """A part without file a tile (`meta["progress"]`), then the picture.

        Raises UsageError when there is not one picture or it would become too large, DataError for what is no picture
        or cannot be written.
        """
        from PIL import Image

        from genwright.media.apart import open_given
        from genwright.media.enlarge import enlarging
        from genwright.media.picture import save_picture

        how = request.options_as(UpscaleOptions)
        given = [part.path for part in request.messages[-1].parts if part.kind == "image" and part.path]
        if len(given) != 1:
            raise UsageError(f"One picture is made larger at a time, and there are {len(given)}.", "Give one: --image.")
        picture, made = open_given(given[0]), None
        for number, made in enumerate(enlarging(picture, self.network, tile=self.settings.tile,
                                                colours=self.settings.colours), 1):  # fmt: skip
            if made is None:
                yield Part(kind="image", meta={"progress": number})
        assert made is not None
        if how.factor < 4:
            size = (round(picture.width * how.factor), round(picture.height * how.factor))
            made = made.resize(size, Image.Resampling.LANCZOS)
        (path,) = request.files(1, ".png")
        try:
            save_picture(made, path)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.", "Choose another place.") from None
        yield Part(kind="image", path=path, meta={"number": 0, "width": made.width, "height": made.height})
        yield Part(meta={"finish_reason": "stop"})
