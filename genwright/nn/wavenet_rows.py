"""Rows of a WaveNet: a sound's levels, what steers it frame by frame, and the windows that are learned of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.content import Message
from genwright.core.data import Example
from genwright.core.errors import GenwrightError
from genwright.core.model import Encoded, Unlearnable
from genwright.media import mel, pitches
from genwright.media.companding import SILENCE, levels_of
from genwright.media.sound import Sound, open_sound

from .captions import words_of
from .packing import IGNORE
from .wavenet_net import MARGIN
from .wavenet_options import HOP, WaveNetConfig


@dataclass(frozen=True)
class Waves:
    """A batch of windows: `levels` (B, L) that are seen, `targets` (B, N) of the last N samples after them, IGNORE
    where there is none, `frames` (B, F, bands) and `styles` (B,) that steer."""

    levels: Tensor
    targets: Tensor
    frames: Tensor
    styles: Tensor

    def __len__(self) -> int:
        return len(self.levels)

    def to(self, device: torch.device | str) -> Waves:
        return Waves(*(one.to(device) for one in (self.levels, self.targets, self.frames, self.styles)))


def encode(example: Example, config: WaveNetConfig, style: int) -> Encoded:
    """The levels (T,) uint8 of the answer's sound, the frames (F, bands) float16 that steer it and the number of its
    style. It costs what is learned of it at once.

    Raises Unlearnable for a row without sound, with a file that is none, or whose words are no notes where notes steer.
    """
    try:
        sound = sound_in([example.answer])
        if sound is None:
            raise Unlearnable("the answer holds no sound")
        levels = levels_of(sound.mono().at(config.rate).samples[:, 0])
        frames = steering(example.prompt, config, fallback=sound)
    except GenwrightError as error:
        raise Unlearnable(error.message.rstrip(".")) from None
    size = min(len(levels), config.crop)
    return Encoded(({"levels": levels, "frames": frames, "style": np.int64(style)},), size, float(size))


def steering(prompt: Sequence[Message], config: WaveNetConfig, *, fallback: Sound | None = None) -> np.ndarray:
    """(F, bands) float16, silence being 0: mel bands of the sound that is asked about (or of `fallback`), or the notes
    that the words name; (0, 0) where nothing steers. Raises UsageError or DataError for what steers nothing."""
    if config.local == "notes":
        return np.asarray(pitches.frames_of(pitches.notes_of(words_of(prompt)), config.rate / HOP))
    sound = (sound_in(prompt) or fallback) if config.local == "mel" else None
    if sound is None:
        return np.zeros((0, config.bands), np.float16)
    return (1 - mel.mel_of(sound) / mel.FLOOR).astype(np.float16)


def sound_in(messages: Sequence[Message]) -> Sound | None:
    """The first sound of the newest message that holds one. Raises DataError when it cannot be read."""
    paths = [p.path for m in reversed(messages) for p in m.parts if p.kind == "audio" and p.path]
    return open_sound(paths[0]) if paths else None


def collate(items: Sequence[Encoded], config: WaveNetConfig) -> Waves:
    """A window of each row, from a place that is drawn at random."""
    rows = [item.sequences[0] for item in items]
    count = max(-(-item.size // HOP) for item in items) * HOP
    ends = [
        int(torch.randint(-(-item.size // HOP), hops_of(row) + 1, ())) for item, row in zip(items, rows, strict=True)
    ]
    return windows(rows, [end * HOP for end in ends], count, config)


def hops_of(row: dict[str, Any]) -> int:
    """How many hops hold the whole sound."""
    return -(-len(row["levels"]) // HOP)


def windows(rows: Sequence[dict[str, Any]], ends: Sequence[int], count: int, config: WaveNetConfig) -> Waves:
    """Of each row the `count` samples before its end, a multiple of HOP; silence lies on either side of a sound."""
    seen = count + config.sees - 1
    levels = [_cut(row["levels"], end - seen - 1, end - 1, SILENCE) for row, end in zip(rows, ends, strict=True)]
    targets = [
        _cut(row["levels"].astype(np.int64), end - count, end, IGNORE) for row, end in zip(rows, ends, strict=True)
    ]
    hops = -(-seen // HOP)
    frames = [
        _cut(row["frames"], end // HOP - hops - MARGIN, end // HOP + MARGIN + 1, 0)
        for row, end in zip(rows, ends, strict=True)
    ]
    return Waves(
        torch.from_numpy(np.stack(levels)).long(), torch.from_numpy(np.stack(targets)),
        torch.from_numpy(np.stack(frames)).float(), torch.tensor([int(row["style"]) for row in rows]),
    )  # fmt: skip


def _cut(array: np.ndarray, start: int, end: int, outside: int) -> np.ndarray:
    """array[start:end] with `outside` where there is nothing."""
    inside = array[max(0, start) : max(0, end)]
    found = np.full_like(array, outside, shape=(end - start, *array.shape[1:]))
    found[max(0, -start) :][: len(inside)] = inside
    return found
