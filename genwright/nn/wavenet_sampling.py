"""Drawing samples from a WaveNet one after the other, each at the cost of one (Le Paine et al. 2016, "Fast WaveNet").

What a layer will look back at waits in a queue as long as its dilation. All queues are read and written at once, and
all products with what was are one; biases of residuals are carried into those of the gates, sigmoids are tanhs, and a
layer's residual and skip are one product into one sum. What is left a layer and a sample are five small operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.media.companding import SILENCE

from .wavenet_net import MARGIN, WaveNet, drawn_out
from .wavenet_options import HOP


@dataclass(frozen=True)
class Wish:
    """One sound to draw: `length` samples that follow the levels `before` (none: silence), steered by `frames`
    (F, bands) and a `style` (0: any). Samples are drawn by `seed`; a temperature of 0 takes the likeliest."""

    length: int
    seed: int
    temperature: float = 1.0
    before: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    style: int = 0


def draw(queues: Queues, wishes: Sequence[Wish]) -> Iterator[list[np.ndarray]]:
    """Levels (uint8) of each wish, HOP samples at a time; those that are whole give nothing any more."""
    chances = [torch.Generator().manual_seed(wish.seed) for wish in wishes]
    live = list(range(len(wishes)))
    for start in range(0, max(wish.length for wish in wishes), HOP):
        stay = [place for place, i in enumerate(live) if wishes[i].length > start]
        if len(stay) < len(live):
            queues.keep(stay)
            live = [live[place] for place in stay]
        chance = torch.stack([torch.rand(HOP, generator=chances[i]) for i in live], 1)
        drawn = queues.hop(chance.to(queues.level.device)).cpu().numpy().astype(np.uint8)
        found = [np.zeros(0, np.uint8) for _ in wishes]
        for place, i in enumerate(live):
            found[i] = drawn[: wishes[i].length - start, place]
        yield found


class Queues:
    """What every layer of a WaveNet has to remember of sounds that are drawn together."""

    def __init__(self, net: WaveNet, wishes: Sequence[Wish]):
        self.net, self.fused, device = net, _Fused(net), net.out.weight.device
        lead = -(-net.shape.sees // HOP)  # hops that lie before the first sample
        hops = max(-(-wish.length // HOP) for wish in wishes)
        frames = np.zeros((len(wishes), lead + hops + 1 + 2 * MARGIN, net.shape.bands), np.float32)
        before = np.full((len(wishes), net.shape.sees), SILENCE, np.int64)
        for row, wish in enumerate(wishes):
            known = wish.frames[: hops + 1 + MARGIN]
            if len(known):
                frames[row, lead + MARGIN : lead + MARGIN + len(known)] = known
            if len(wish.before):
                before[row, -len(wish.before) :] = wish.before[-net.shape.sees :]
        styles = torch.tensor([wish.style for wish in wishes], device=device)
        told = net.read(torch.from_numpy(frames).to(device))
        self.steady = self.fused.steady(net.styles(styles))
        self.local = None if told is None else self.fused.local(told[:, lead:])
        sharpness = [1 / wish.temperature if wish.temperature else 0.0 for wish in wishes]
        self.sharpness = torch.tensor(sharpness, device=device)[:, None]
        levels = torch.from_numpy(before).to(device)
        self.level, self.time = levels[:, -1], 0
        begun = None if told is None else told[:, : lead + 1]
        self.waiting = self._begun(levels[:, :-1], begun, net.styles(styles))

    def _begun(self, levels: Tensor, told: Tensor | None, styles: Tensor) -> Tensor:
        """The queues (slots, B, d) after the levels (B, sees - 1), by convolution."""
        h, slots = self.net.levels(levels), []
        for number, layer in enumerate(self.net.layers):
            slots.append(h[:, -layer.dilation :].transpose(0, 1) - self.fused.carried[number])
            if h.shape[1] > layer.dilation:
                local = None if told is None else drawn_out(layer.local(told), levels.shape[1])
                h, _ = layer(h, local, styles)
        return torch.cat(slots)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only."""
        some = torch.tensor(rows, dtype=torch.long, device=self.level.device)
        self.waiting, self.steady = self.waiting[:, some], self.steady[:, some]
        self.level, self.sharpness = self.level[some], self.sharpness[some]
        self.local = None if self.local is None else self.local[:, some]

    def hop(self, chance: Tensor) -> Tensor:
        """The next HOP levels (HOP, B), drawn by `chance` (HOP, B) from 0 to 1."""
        steering = self.steering()
        found = torch.empty(chance.shape, dtype=torch.long, device=chance.device)
        for place, share in enumerate(chance.unbind()):
            sharp = (self.step(steering[min(place, len(steering) - 1)]) * self.sharpness).softmax(1).cumsum(1)
            drawn = (sharp <= share[:, None] * sharp[:, -1:]).sum(1).clamp_max_(sharp.shape[1] - 1)
            self.level = torch.where(self.sharpness[:, 0] > 0, drawn, self.logits.argmax(1))
            found[place] = self.level
        return found

    def step(self, steering: Tensor) -> Tensor:
        """Logits (B, 256) of the next sample after `level`, with what steers it (layers, B, 2 · d)."""
        fused, d = self.fused, self.net.shape.channels
        places = fused.places[self.time % len(fused.places)]
        gates = torch.baddbmm(steering, self.waiting.index_select(0, places), fused.then)
        seen = torch.empty(gates.shape[0], gates.shape[1], d, device=gates.device)
        total = fused.levels[self.level]  # what is handed on, and the sum of what goes to the output
        h = total[:, :d]
        for z, kept, now, out in zip(gates.unbind(), seen.unbind(), fused.now, fused.out, strict=True):
            kept.copy_(h)
            z = torch.addmm(z, h, now).tanh_()
            total.addmm_(torch.addcmul(z[:, :d], z[:, :d], z[:, d:]), out)
        self.waiting.index_copy_(0, places, seen)
        self.time += 1
        self.logits = self.net.logits(total[:, d:] + fused.bias)
        return self.logits

    def steering(self) -> Tensor:
        """(HOP, layers, B, 2 · d) of the hop that begins, or (1, …) where it is always the same."""
        if self.local is None:
            return self.steady[None]
        here = self.time // HOP
        share = torch.arange(HOP, device=self.local.device)[:, None, None, None] / HOP
        return torch.lerp(self.local[:, :, here], self.local[:, :, here + 1], share) + self.steady


class _Fused:
    """The weights of a WaveNet as `Queues` multiplies them: half as much in the gates, for tanh to be a sigmoid, and
    twice that gate's share taken back in `out`."""

    def __init__(self, net: WaveNet):
        layers, d = list(net.layers), net.shape.channels
        self.layers, self.half = layers, torch.cat([torch.ones(d), torch.full((d,), 0.5)]).to(net.out.weight)
        self.then = torch.stack([(layer.gate.weight[:, :d].T * self.half) for layer in layers])
        self.now = [(layer.gate.weight[:, d:].T * self.half).contiguous() for layer in layers]
        self.out = [(layer.out.weight.T * 0.5).contiguous() for layer in layers]
        biases = torch.stack([layer.out.bias for layer in layers]).cumsum(0)
        self.carried = torch.cat([biases.new_zeros(1, d), biases[:-1, :d]])  # of residuals, before each layer
        self.bias = biases[-1, d:]
        self.levels = torch.cat([net.levels.weight, net.levels.weight.new_zeros(256, net.shape.skip)], 1)
        self.places = self._places(net.shape.dilations).to(net.out.weight.device)

    def steady(self, styles: Tensor) -> Tensor:
        """(layers, B, 2 · d): the gates' biases, what the style (B, told) says, and biases carried from below."""
        found = [
            (layer.gate(torch.cat([carried, carried])) + layer.style(styles)) * self.half
            for layer, carried in zip(self.layers, self.carried, strict=True)
        ]
        return torch.stack(found)

    def local(self, told: Tensor) -> Tensor:
        """(layers, B, F, 2 · d) of what steers (B, F, told)."""
        return torch.stack([layer.local(told) * self.half for layer in self.layers])

    def _places(self, dilations: Sequence[int]) -> Any:
        """(period, layers): in which slot of all queues each layer finds the sample it looks back at, and leaves its
        own."""
        starts = np.concatenate([[0], np.cumsum(dilations)[:-1]])
        times = np.arange(max(dilations))[:, None]
        return torch.from_numpy(starts + times % np.array(dilations))
