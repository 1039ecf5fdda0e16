"""The network of a voice that is taught: it reads tokens, tells how long each lasts, turns noise into a spectrogram.

Nothing tells which frames belong to which token: in training the best monotonic path is searched between the frames and
what each token expects of them (Glow-TTS, Kim et al. 2020), and durations are learned from that path. What the tokens
expect, stretched by their durations, is where flow matching begins to paint (Grad-TTS, Popov et al. 2021; Matcha-TTS,
Mehta et al. 2024); the network tells the clean spectrogram. All its blocks are convolutions beside an MLP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genwright.media.mel import BANDS

from .speech_flow_options import VoiceConfig

_DIAGONAL = 200.0  # nats that a path loses which is off the straight one by all of the sentence; a tenth loses 2


@dataclass(frozen=True)
class Read:
    """Tokens that were read: `hidden` (B, N, d), what each expects of a frame (B, N, BANDS), the logarithm of its
    frames (B, N), `there` (B, N) where there is a token, and the voice's vector (B, d)."""

    hidden: Tensor
    expected: Tensor
    lasts: Tensor
    there: Tensor
    voice: Tensor


class Block(nn.Module):
    """A depthwise convolution and an MLP over (B, T, d), told a vector (B, d); what is not `there` stays zero."""

    def __init__(self, width: int, inner: int, kernel: int):
        super().__init__()
        self.near = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.told = nn.Linear(width, width)
        self.into, self.out = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor, there: Tensor, told: Tensor) -> Tensor:
        near = self.near(x.transpose(1, 2)).transpose(1, 2)
        h = self.norm(near) + self.told(told)[:, None]
        found: Tensor = (x + self.out(F.gelu(self.into(h)))) * there[..., None]
        return found


class SpeechNet(nn.Module):
    """`tokens` is the size of the alphabet, `voices` how many there are; voice 0 is nobody's."""

    def __init__(self, config: VoiceConfig, tokens: int, voices: int):
        super().__init__()
        d, inner = config.width, int(config.width * config.mlp)
        self.tokens, self.voices = nn.Embedding(tokens, d), nn.Embedding(voices + 1, d)
        self.reading = nn.ModuleList(Block(d, inner, config.kernel) for _ in range(config.reading))
        self.expects = nn.Linear(d, BANDS)
        self.lasting = nn.ModuleList(Block(d, d, 3) for _ in range(2))
        self.lasts = nn.Linear(d, 1)
        self.noisy, self.heard, self.time = nn.Linear(BANDS, d), nn.Linear(d + BANDS, d), nn.Linear(d, d)
        self.speaking = nn.ModuleList(Block(d, inner, config.kernel) for _ in range(config.speaking))
        self.norm, self.clean = nn.LayerNorm(d), nn.Linear(d, BANDS)
        nn.init.normal_(self.voices.weight, std=0.02)
        nn.init.zeros_(self.clean.weight)
        nn.init.zeros_(self.clean.bias)
        nn.init.constant_(self.lasts.bias, 1.0)

    def read(self, tokens: Tensor, voices: Tensor) -> Read:
        """Tokens (B, N), 0 where there is none; voices (B,), 0 is nobody's."""
        there, voice = (tokens > 0).float(), self.voices(voices)
        x = (self.tokens(tokens) + voice[:, None]) * there[..., None]
        for block in self.reading:
            x = block(x, there, voice)
        lasting = x.detach()  # how long it lasts must not change what is expected
        for block in self.lasting:
            lasting = block(lasting, there, voice)
        return Read(x, self.expects(x), self.lasts(lasting)[..., 0], there, voice)

    def speak(self, z: Tensor, t: Tensor, read: Read, owners: Tensor, there: Tensor) -> Tensor:
        """The clean spectrogram (B, T, BANDS) behind `z` at the times (B,), when frame i belongs to token owners[i]."""
        expected = stretched(read.expected, owners)
        told = torch.cat([stretched(read.hidden, owners), expected], -1)
        when = self.time(_waves(t, read.voice.shape[1])) + read.voice
        x = (self.noisy(z) + self.heard(told)) * there[..., None]
        for block in self.speaking:
            x = block(x, there, when)
        return (expected + self.clean(self.norm(x))) * there[..., None]


def stretched(values: Tensor, owners: Tensor) -> Tensor:
    """(B, T, d): the value (B, N, d) of the token that owns each frame."""
    return values.gather(1, owners[..., None].expand(-1, -1, values.shape[2]))


def owners_of(frames: Tensor, length: int) -> Tensor:
    """(B, length): which token owns each frame, when tokens last `frames` (B, N); past the last it is the last."""
    ends = frames.cumsum(1)
    at = torch.arange(length, device=frames.device)
    return (at[None, :, None] >= ends[:, None, :]).sum(-1).clamp_max(frames.shape[1] - 1)


@torch.no_grad()
def aligned(expected: Tensor, tokens: Tensor, mels: Tensor, frames: Tensor) -> Tensor:
    """How many frames each token lasts (B, N), on the likeliest path that goes on by one token or stays, from the first
    to the last. `expected` (B, N, BANDS) of `tokens` (B,) tokens, `mels` (B, T, BANDS) of `frames` (B,) frames; no row
    may have fewer frames than tokens."""
    apart = expected.square().sum(2)[:, :, None] - 2 * expected @ mels.transpose(1, 2) + mels.square().sum(2)[:, None]
    n, t = (torch.arange(size, device=mels.device) for size in apart.shape[1:])
    off = (n[None] / tokens[:, None])[:, :, None] - (t[None] / frames[:, None])[:, None]
    likely = (-0.5 * apart - _DIAGONAL * off.square()).float().cpu().numpy()
    found = _best_path(likely, tokens.cpu().numpy(), frames.cpu().numpy())
    return torch.from_numpy(found).to(mels.device)


def _best_path(likely: np.ndarray, tokens: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Viterbi over all rows at once: (B, N) frames a token, of log-likelihoods (B, N, T)."""
    rows, width, length = likely.shape
    best = np.full((rows, width), -np.inf, np.float32)
    best[:, 0] = likely[:, 0, 0]
    moved = np.zeros((length, rows, width), bool)
    before = np.full_like(best, -np.inf)
    for t in range(1, length):
        before[:, 1:] = best[:, :-1]
        moved[t] = before > best
        best = np.maximum(before, best) + likely[:, :, t]
    at, row = tokens - 1, np.arange(rows)
    found = np.zeros((rows, width), np.int64)
    for t in range(length - 1, -1, -1):
        here = t < frames
        found[row, at] += here
        at = at - (here & moved[t, row, at])
    return found


def _waves(t: Tensor, width: int) -> Tensor:
    """(B, width) sines and cosines of times from 0 to 1."""
    rates = torch.exp(-math.log(1000.0) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = 100 * t[:, None] * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width % 2))


def with_voices(table: Any, count: int) -> Any:
    """The table of voices with room for `count` more, each beginning as nobody's."""
    old = table.weight.data
    return nn.Embedding.from_pretrained(torch.cat([old, old[:1].expand(count, -1)]).contiguous(), freeze=False)
