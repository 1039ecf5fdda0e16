"""Sounding: what is asked of a WaveNet becomes sounds, drawn sample by sample, and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core.content import Message, Part
from genwright.core.errors import DataError, UsageError
from genwright.core.model import Request
from genwright.media.companding import levels_of, wave_of
from genwright.media.sound import save_sound, sound_of, writable

from .answers import seed_of
from .picture_rows import style_number
from .wavenet_options import HOP, SoundOptions
from .wavenet_rows import sound_in, steering
from .wavenet_sampling import Queues, Wish, draw

AT_ONCE = 16  # sounds drawn together
_USUAL = 2.0  # seconds
_MOST = 120.0


@dataclass(frozen=True)
class Piece:
    """The `number`-th sound of its request."""

    number: int
    wish: Wish


def sound(model: Any, request: Request) -> Iterator[Part]:
    """Sounds as files, with seed and seconds in `meta`; on the way parts without file that tell the seconds drawn of
    how many (`meta["progress"]`, `meta["of"]`); at last a `finish_reason`.

    A sound that is asked about is gone on with, or is what steers where mel bands do. Raises UsageError for what
    cannot be asked.
    """
    pieces = pieces_of(model, request)
    files = writable(request.files(len(pieces), ".wav"))
    for start in range(0, len(pieces), AT_ONCE):
        yield from made(model, pieces[start : start + AT_ONCE], files[start : start + AT_ONCE])
    yield Part(meta={"finish_reason": "stop"})


def sound_many(model: Any, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
    """Answers of many requests, drawn together, those of like length at once."""
    wanted: list[tuple[int, Piece, Path]] = []
    for index, request in enumerate(requests):
        pieces = pieces_of(model, request)
        wanted += [(index, *pair) for pair in zip(pieces, writable(request.files(len(pieces), ".wav")), strict=True)]
    wanted.sort(key=lambda one: one[1].wish.length)
    parts: dict[int, list[Part]] = {index: [] for index in range(len(requests))}
    counts = {index: sum(one[0] == index for one in wanted) for index in parts}
    for start in range(0, len(wanted), AT_ONCE):
        some = wanted[start : start + AT_ONCE]
        drawn = made(model, [piece for _, piece, _ in some], [file for _, _, file in some])
        for (index, _, _), part in zip(some, (part for part in drawn if part.path), strict=True):
            parts[index].append(part)
            if len(parts[index]) == counts[index]:
                yield index, Message("assistant", tuple(sorted(parts[index], key=lambda p: p.meta["number"])))  # type: ignore[index]


def pieces_of(model: Any, request: Request) -> list[Piece]:
    """What a request asks for, one entry a sound."""
    how, config = request.options_as(SoundOptions), model.config
    given = sound_in(request.messages)
    if odd := [p.kind for m in request.messages for p in m.parts if p.kind not in ("text", "audio")]:
        raise UsageError(
            f"The request holds a part of kind {odd[0]}; this model takes words and sound.", "Leave it out."
        )
    if config.local == "mel" and given is None:
        raise UsageError("This model makes a sound again, and was given none.", "Give it a sound.")
    if config.local == "notes" and given is not None:
        raise UsageError("This model plays notes and takes no sound.", "Leave the sound out.")
    frames = steering(request.messages, config)
    usual = (
        given.seconds
        if given and config.local == "mel"
        else (len(frames) - 1) * HOP / config.rate
        if len(frames)
        else _USUAL
    )
    seconds = how.seconds or usual
    if seconds > _MOST:
        raise UsageError(f"{seconds:.0f} seconds are asked for, more than {_MOST:.0f} at once.", "Ask in pieces.")
    before = np.zeros(0, np.uint8)
    if given and config.local == "none":
        before = levels_of(given.mono().at(config.rate).samples[:, 0])
    style, seed = style_number(how.style or "", config.styles), seed_of(request)
    return [
        Piece(
            number,
            Wish(max(1, round(seconds * config.rate)), seed + number, how.temperature, before, frames, style),
        )
        for number in range(how.n)
    ]


def made(model: Any, pieces: Sequence[Piece], files: Sequence[Path]) -> Iterator[Part]:
    """A part a second of the longest without file, then the sounds in order."""
    rate, drawn = model.config.rate, list[list[np.ndarray]]([] for _ in pieces)
    longest, told = max(piece.wish.length for piece in pieces), 0
    with model.answering() as net:
        for hops, some in enumerate(
            draw(_queues(model)(net, [piece.wish for piece in pieces]), [piece.wish for piece in pieces]), 1
        ):
            for levels, more in zip(drawn, some, strict=True):
                levels.append(more)
            if hops * HOP // rate > told:
                told = hops * HOP // rate
                yield Part("audio", meta={"progress": told, "of": longest / rate})
    for piece, levels, file in zip(pieces, drawn, files, strict=True):
        made = sound_of(wave_of(np.concatenate(levels)), rate)
        try:
            save_sound(made, file)
        except OSError as error:
            raise DataError(f"{file} cannot be written: {error.strerror or error}.", "Choose another place.") from None
        yield Part("audio", path=file, meta={"number": piece.number, "seed": piece.wish.seed, "seconds": made.seconds})


def _queues(model: Any) -> type[Queues]:
    """Compiled loops where the runner asks for them, or where there are such and the network lies on a CPU."""
    if model.runner == "compiled" or (model.runner == "auto" and model.device.type == "cpu" and find_spec("numba")):
        from .wavenet_compiled import Compiled

        return Compiled
    return Queues
