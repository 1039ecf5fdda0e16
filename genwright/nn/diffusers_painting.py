"""Painting by a diffusers pipeline: pictures from words, from a picture, or under a mask, step by step."""

from __future__ import annotations

import inspect
import queue
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator

from genwright.core.content import Part
from genwright.core.errors import Refused, UsageError
from genwright.core.model import Request
from genwright.core.plugin import Settings
from genwright.media.design import DESIGN, Design
from genwright.media.edit import Canvas, canvas_of, finished

from .answers import seed_of, write
from .captions import words_of

AT_ONCE = 4  # pictures painted together
_Say = Callable[[int, int], None]


class PipelineOptions(Settings):
    """What a request to a pipeline may ask for."""

    n: int = Field(1, ge=1, le=64, description="Pictures")
    size: int | None = Field(
        None, ge=8, le=4096, description="Pixels of a side of what is painted; null is what the model was made for"
    )
    design: Design | None = Field(None, description=DESIGN)
    negative: str = Field("", max_length=10_000, description="What the picture should be unlike")
    steps: int | None = Field(
        None, ge=1, le=1000, description="Steps from noise to picture; null is the pipeline's own"
    )
    guidance: float | None = Field(
        None, ge=0, le=50, description="How strictly the words are kept to; null is the pipeline's own"
    )
    strength: float | None = Field(
        None, gt=0, le=1,
        description="How much of a given picture is painted anew, 1 is all; null is 0.7, and 1 under a mask",
    )  # fmt: skip
    expand: tuple[int, int, int, int] = Field(
        (0, 0, 0, 0), description="Pixels to add to a given picture: left, top, right, bottom"
    )

    @model_validator(mode="after")
    def _sound(self) -> PipelineOptions:
        if min(self.expand) < 0 or max(self.expand) > 4096:
            raise ValueError("expand must be four counts of pixels from 0 to 4096")
        return self


def paint(model: Any, request: Request) -> Iterator[Part]:
    """Pictures as files, with their seed in `meta`; before them a part without file a step (`meta["progress"]`); at
    last a `finish_reason`. Closing the iterator stops before the next step.

    A picture among the parts is varied by `strength`, or painted over where a part with the text "mask" allows it.
    Raises UsageError for what does not fit the pipeline, Refused when its own safety checker objects.
    """
    how = request.options_as(PipelineOptions)
    canvases = canvas_of(request.messages, how.expand)
    words = words_of(request.messages)
    if not words.strip() and not canvases:
        raise UsageError("There is nothing to paint: the request has no words.", "Say what is to be seen.")
    if len(canvases) > 1:
        raise UsageError("A pipeline starts from one picture, and there are two.", "Give one picture.")
    canvas = canvases[0] if canvases else None
    edited = canvas is not None and not canvas.is_free
    if edited and request.out and request.out.suffix.lower() not in ("", ".png"):
        raise UsageError(f"What stays of a picture would change in a {request.out.suffix} file.", "Write a .png.")
    seed = seed_of(request)
    files = request.files(how.n, ".png")
    for start in range(0, how.n, AT_ONCE):
        seeds = range(seed + start, seed + min(start + AT_ONCE, how.n))
        pictures = yield from _stepped(partial(_painted, model, how, words, canvas, seeds))
        for number, made in enumerate(pictures, start):
            picture = canvas.filled(made) if canvas is not None and edited else finished(made, None, design=how.design)
            write(picture, files[number])
            yield Part(kind="image", path=files[number], meta={"number": number, "seed": seed + number})
    yield Part(meta={"finish_reason": "stop"})


def _painted(
    model: Any, how: PipelineOptions, words: str, canvas: Canvas | None, seeds: range, say: _Say
) -> list[np.ndarray]:
    """One call of the pipeline: uint8 (h, w, 3) a seed."""
    side = how.size or model.size
    call, given = _way(model.pipeline, canvas, side, how)
    takes = inspect.signature(call.__call__).parameters
    wishes = {"negative_prompt": how.negative or None, "num_inference_steps": how.steps, "guidance_scale": how.guidance}
    wishes = {name: wish for name, wish in wishes.items() if wish is not None}
    if odd := sorted(wishes.keys() - takes):
        raise UsageError(f"A {type(call).__name__} knows no {', '.join(odd)}.", "Leave it out.")
    generators = [torch.Generator().manual_seed(seed % (1 << 63)) for seed in seeds]
    always = {
        "prompt": words, "num_images_per_prompt": len(seeds), "height": side, "width": side, "generator": generators,
        "use_resolution_binning": False,  # PixArt: exactly the size that is asked for
    }  # fmt: skip

    def heard(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        say(step + 1, pipeline.num_timesteps)
        return tensors

    always |= {"callback_on_step_end": heard}
    try:
        with model.answering(), quiet():
            answer = call(**given, **wishes, **{name: value for name, value in always.items() if name in takes})
    except ValueError as error:
        raise UsageError(f"The pipeline cannot paint this: {' '.join(str(error).split())[:300]}") from None
    if any(getattr(answer, "nsfw_content_detected", None) or ()):
        raise Refused(
            "A picture was stopped by the safety checker that belongs to the pipeline.", "Put it differently.",
            guard="safety_checker", rule="unsafe",
        )  # fmt: skip
    return [np.asarray(picture.convert("RGB")) for picture in answer.images]


def _way(pipeline: Any, canvas: Canvas | None, side: int, how: PipelineOptions) -> tuple[Any, dict[str, Any]]:
    """The pipeline for what is given (its parts shared), and what it takes besides words. Raises UsageError."""
    if canvas is None:
        if how.strength is not None:
            raise UsageError("`strength` is for a given picture, and there is none.", "Give one, or leave it out.")
        return pipeline, {}
    from PIL import Image

    with quiet():
        from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

    kind = AutoPipelineForImage2Image if canvas.is_free else AutoPipelineForInpainting
    try:
        call = kind.from_pipe(pipeline)
    except ValueError:
        odd = "starts from no picture" if canvas.is_free else "paints under no mask"
        raise UsageError(f"A {type(pipeline).__name__} {odd}.", "Use another model, or words alone.") from None
    call.set_progress_bar_config(disable=True)
    picture, free = canvas.small(side)
    given = {"image": Image.fromarray(picture), "strength": how.strength or (0.7 if canvas.is_free else 1.0)}
    return call, given | ({} if canvas.is_free else {"mask_image": Image.fromarray(free.astype(np.uint8) * 255)})


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of what diffusers, PEFT and torch are about to drop, which nobody can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        yield


class _Left(Exception):
    """Nobody waits for the picture any more."""


def _stepped(work: Callable[[_Say], list[np.ndarray]]) -> Generator[Part, None, list[np.ndarray]]:
    """Do `work` in a thread, telling of its steps as they are made: a pipeline's call returns only at its end."""
    heard: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
    left, threads = threading.Event(), torch.get_num_threads()

    def say(step: int, of: int) -> None:
        if left.is_set():
            raise _Left
        heard.put((step, of))

    def run() -> list[np.ndarray]:
        torch.set_num_threads(threads)  # a new thread would take all
        try:
            return work(say)
        finally:
            heard.put(None)

    with ThreadPoolExecutor(1, "painting") as pool:
        done = pool.submit(run)
        try:
            while (at := heard.get()) is not None:
                yield Part(kind="image", meta={"progress": at[0], "of": at[1]})
        finally:
            left.set()
        return done.result()
