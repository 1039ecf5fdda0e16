"""Diffusion: pictures out of noise along straight lines. Path, times, loss, guidance and samplers, for any network.

Flow matching on the linear path (Lipman et al. 2023; Liu et al. 2023): z = (1 - t) x + t e runs from the picture x at
t = 0 to Gaussian noise e at t = 1, with the velocity v = e - x = (z - x) / t. The network tells x, which lies on the
low-dimensional manifold of pictures, and is judged by the velocity that follows from it (Li & He 2025).

A `Predict` is called with z (B, …) and a time, and gives x-hat of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

Predict = Callable[[Tensor, float], Tensor]
SMALLEST = 0.05  # times below weigh as this one: the velocity's error would grow without bound


def mix(x: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
    """z on the way from `x` to `noise`; a `t` of shape (B,) is one time a picture."""
    t = _beside(t, x)
    return (1 - t) * x + t * noise


def velocity(z: Tensor, x: Tensor, t: Tensor | float, smallest: float = 0.0) -> Tensor:
    """dz/dt at `z` when the picture is `x`; equal to noise - x on the path."""
    t = _beside(t, z)
    return (z - x) / (t.clamp_min(smallest) if isinstance(t, Tensor) else max(t, smallest))


def velocity_loss(predicted: Tensor, x: Tensor, t: Tensor, smallest: float = SMALLEST) -> Tensor:
    """(B,) mean squared error of the velocity that follows from `predicted`: that of x over t²."""
    error = (predicted.float() - x.float()).square().flatten(1).mean(1)
    return error / t.clamp_min(smallest).square()


def logit_normal(count: int, mean: float, spread: float, device: torch.device | str = "cpu") -> Tensor:
    """(count,) times in (0, 1) whose logit is normal (Esser et al. 2024); a mean above 0 leans towards noise."""
    return torch.sigmoid(mean + spread * torch.randn(count, device=device))


def times(steps: int, start: float = 1.0) -> list[float]:
    """`steps` + 1 times from `start` down to 0, evenly spread."""
    return [start * (steps - i) / steps for i in range(steps + 1)]


def guided(told: Tensor, untold: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): further from what would come without the words."""
    return torch.lerp(untold, told, scale)


def walk(predict: Predict, z: Tensor, when: list[float], *, method: str = "heun") -> Iterator[tuple[Tensor, Tensor]]:
    """Follow the velocity from `z` at when[0] to when[-1]; yields (z, x-hat) after each step.

    `euler` asks the network once a step. `heun` corrects each step by the velocity at its end (second order, Karras et
    al. 2022) and asks twice, but once in a step to t = 0. There z is x-hat itself, free of what is left of the noise.
    """
    for now, then in pairwise(when):
        x = predict(z, now)
        if then == 0:
            yield x, x
            return
        speed = velocity(z, x, now)
        if method == "heun":
            ahead = z + (then - now) * speed
            speed = (speed + velocity(ahead, predict(ahead, then), then)) / 2
        z = z + (then - now) * speed
        yield z, x


def _beside(t: Tensor | float, x: Tensor) -> Tensor | float:
    return t.reshape(-1, *[1] * (x.dim() - 1)) if isinstance(t, Tensor) and t.dim() else t
