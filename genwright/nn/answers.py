"""Answers in pictures: what every picture model does with requests, whatever way it paints."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from genwright.core.content import Message, Part
from genwright.core.errors import DataError
from genwright.core.model import Request
from genwright.media.picture import save_picture

AT_ONCE = 16  # pictures painted together


class Wanted(Protocol):
    """A picture to paint: the `number`-th of its request. Those of one `way` can be painted together."""

    @property
    def number(self) -> int: ...
    @property
    def way(self) -> Any: ...


W = TypeVar("W", bound=Wanted)
Plan = Callable[[Request], Sequence[W]]  # what a request asks for, one entry a picture
Paint = Callable[[Sequence[W], Sequence[Path]], Iterator[Part]]  # at most AT_ONCE of one way, into these files


def answer(request: Request, plan: Plan[W], paint: Paint[W]) -> Iterator[Part]:
    """All parts that `paint` gives for the pictures of a request, and at last a `finish_reason`."""
    wanted = plan(request)
    files = request.files(len(wanted), ".png")
    for start in range(0, len(wanted), AT_ONCE):
        yield from paint(wanted[start : start + AT_ONCE], files[start : start + AT_ONCE])
    yield Part(meta={"finish_reason": "stop"})


def answer_many(requests: Sequence[Request], plan: Plan[W], paint: Paint[W]) -> Iterator[tuple[int, Message]]:
    """(index of a request, its finished pictures) as they are ready; what goes one way is painted together."""
    groups: dict[Any, list[tuple[int, W, Path]]] = {}
    answers: dict[int, list[Part | None]] = {}
    for index, request in enumerate(requests):
        wanted = plan(request)
        answers[index] = [None] * len(wanted)
        for one, file in zip(wanted, request.files(len(wanted), ".png"), strict=True):
            groups.setdefault(one.way, []).append((index, one, file))
    for group in groups.values():
        for start in range(0, len(group), AT_ONCE):
            some = group[start : start + AT_ONCE]
            parts = paint([one for _, one, _ in some], [file for _, _, file in some])
            made = [part for part in parts if part.path and "partial" not in (part.meta or {})]
            for (index, one, _), part in zip(some, made, strict=True):
                answers[index][one.number] = part
                if all(answers[index]):
                    yield index, Message("assistant", tuple(p for p in answers[index] if p))


def seed_of(request: Request) -> int:
    """The seed of the first picture: the one asked for, else any."""
    return random.SystemRandom().randrange(1 << 31) if request.seed is None else request.seed


def write(picture: Any, path: Path, *, quality: int = 90) -> None:
    """Save a Pillow image without metadata; `quality` is of JPEG and WebP. Raises DataError when it cannot be
    written."""
    try:
        save_picture(picture, path, metadata={}, quality=quality)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.", "Choose another place.") from None
