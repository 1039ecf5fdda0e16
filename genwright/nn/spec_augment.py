"""Sounds told anew in training: stretches hidden (SpecAugment, Park et al. 2019), said faster or slower, by a longer or
shorter throat (Jaitly and Hinton 2013), nearer or through another microphone. All of it on the log-mel window, drawn
from torch's generator, so that a killed training goes on bit-equal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_HIDDEN = 2  # stretches of each kind that are hidden
_LINEAR, _LOG = 15.0, 27 / math.log(6.4)  # Slaney's mel scale: even below 1000 Hz (15 mel), then logarithmic


@dataclass(frozen=True)
class Augment:
    """How much is changed at most; zeros change nothing."""

    frames: int = 0
    bands: int = 0
    tempo: float = 0.0
    throat: float = 0.0
    loud: float = 0.0
    late: int = 0

    @classmethod
    def of(cls, settings: Any) -> Augment:
        """By the options of an engine."""
        return cls(settings.hide_frames, settings.hide_bands, settings.tempo, settings.throat, settings.loudness,
                   settings.late)  # fmt: skip

    @property
    def any(self) -> bool:
        return bool(self.frames or self.bands or self.tempo or self.throat or self.loud or self.late)


def augment(source: Tensor, seen: Tensor, how: Augment) -> tuple[Tensor, Tensor]:
    """Log-mel windows (B, bands, frames) and where they sound (B, positions), changed by chance."""
    if how.tempo or how.throat or how.late:
        source, seen = _warped(source, seen, how)
    if how.loud:
        source = _through(source, how.loud)
    if how.frames or how.bands:
        source = source.clone()
        for row in source:
            _hide(row, how)
    return source, seen


def _warped(source: Tensor, seen: Tensor, how: Augment) -> tuple[Tensor, Tensor]:
    """The window read at other times and frequencies, by straight lines between its points."""
    rows, bands, frames = source.shape
    tempo, throat = (1 + most * (2 * torch.rand(rows, 1) - 1) for most in (how.tempo, how.throat))
    lengths = seen.sum(1)
    tempo = torch.maximum(tempo, lengths[:, None].cpu() / seen.shape[1])  # what is slower must fit in
    top = 2 * _mel(torch.tensor(8000.0)) / (bands + 1)  # of half the rate
    centres = _hertz(top / 2 * torch.arange(1, bands + 1))
    bands_at = _mel(centres / throat) / (top / 2) - 1
    ends = lengths[:, None].cpu() / tempo  # in positions, of which each is two frames
    late = torch.rand(rows, 1) * torch.clamp(2 * (seen.shape[1] - ends), 0, how.late)
    frames_at = (torch.arange(frames) - late) * tempo
    grid = torch.stack([
        (2 * frames_at / (frames - 1) - 1)[:, None, :].expand(rows, bands, frames),
        (2 * bands_at / (bands - 1) - 1)[:, :, None].expand(rows, bands, frames),
    ], -1).to(source)  # fmt: skip
    made = torch.nn.functional.grid_sample(
        source[:, None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )[:, 0]
    ends = (ends + late / 2).ceil().clamp(1, seen.shape[1]).to(seen.device)
    return made, (torch.arange(seen.shape[1], device=seen.device) < ends).to(seen.dtype)


def _through(source: Tensor, most: float) -> Tensor:
    """Louder or softer, and tilted from the lowest band to the highest, by up to `most` bel each (a bel is 1/4)."""
    level, tilt = most / 4 * (2 * torch.rand(2, len(source), 1, 1) - 1).to(source)
    return source + level + tilt * torch.linspace(-0.5, 0.5, source.shape[1], device=source.device)[:, None]


def _hide(row: Tensor, how: Augment) -> None:
    """In place: up to so many frames and bands, at random places of a sound (bands, frames)."""
    for most, axis in ((how.frames, 1), (how.bands, 0)):
        for _ in range(_HIDDEN if most else 0):
            width = int(torch.randint(min(most, row.shape[axis]) + 1, ()))
            start = int(torch.randint(row.shape[axis] - width + 1, ()))
            row.narrow(axis, start, width).zero_()


def _mel(hertz: Tensor) -> Tensor:
    return torch.where(hertz < 1000, hertz * 3 / 200, _LINEAR + (hertz.clamp(min=1000) / 1000).log() * _LOG)


def _hertz(mel: Tensor) -> Tensor:
    return torch.where(mel < _LINEAR, mel * 200 / 3, 1000 * ((mel - _LINEAR) / _LOG).exp())
