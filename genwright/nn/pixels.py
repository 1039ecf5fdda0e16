"""Pixels: pictures as numbers from -1 to 1 and back, the noise they are made of, and changes that leak nothing."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

AUGMENTS = 5  # numbers that tell how a training picture was changed; zeros: not at all


def noise_of(seed: int, size: int) -> Tensor:
    """(1, 3, S, S) Gaussian noise, the same for the same seed on every device."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed % (1 << 63)))


def from_bytes(pixels: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) from -1 to 1."""
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_bytes(x: Tensor, snap: float = 0.0) -> np.ndarray:
    """(B, 3, S, S) from -1 to 1 -> (B, S, S, 3) uint8; pixels within `snap` of white (of the whole range) are white."""
    x = x.float().clamp(-1, 1)
    if snap:
        x = torch.where((x > 1 - 2 * snap).all(1, keepdim=True), 1.0, x)
    found: np.ndarray = x.add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return found


def augmented(x: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Some pictures mirrored, moved and with other colours, and (B, 5) how: mirrored, moved right and down (of the
    side), cosine - 1 and sine of the turn of the hue. The network is told, so none of it leaks into what it paints
    (Karras et al. 2022, appendix F.2)."""
    count, _, side, _ = x.shape
    mirrored, moved, turned = torch.rand(3, count, device=x.device) < share
    most = max(1, side // 8)
    shift = torch.randint(-most, most + 1, (count, 2), device=x.device) * moved[:, None]
    angle = (torch.rand(count, device=x.device) - 0.5) * math.pi * turned
    x = changed(x, mirrored, shift, angle)
    told = (mirrored, shift[:, 0] / side, shift[:, 1] / side, angle.cos() - 1, angle.sin())
    assert len(told) == AUGMENTS
    return x, torch.stack([one.float() for one in told], 1)


def changed(x: Tensor, mirrored: Tensor, shift: Tensor, angle: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) mirrored where `mirrored` (B,), moved right and down by `shift` (B, 2) pixels with the
    edges drawn out, and their hue turned by `angle` (B,) radians. Gradients pass."""
    side = x.shape[2]
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    across, down = ((torch.arange(side, device=x.device) - shift[:, k, None]).clamp(0, side - 1) for k in (0, 1))
    x = x.gather(3, across[:, None, None].expand_as(x)).gather(2, down[:, None, :, None].expand_as(x))
    return torch.einsum("bij,bjhw->bihw", hue(angle), x)


def hue(angle: Tensor) -> Tensor:
    """(B, 3, 3) turns of colour around grey, by an angle (B,)."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    grey = torch.full((3, 3), 1 / 3, device=angle.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=angle.device) / math.sqrt(3)
    return cos * torch.eye(3, device=angle.device) + (1 - cos) * grey + sin * cross
