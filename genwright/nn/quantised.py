"""Quantised layers: weights kept in 4 or 8 bits and restored for the moment of their use. No library, any machine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# NormalFloat: 16 levels with an equal share each of a normal distribution, scaled to [-1, 1] (arXiv 2305.14314, app. E)
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class QuantisedLinear(nn.Linear):
    """A linear layer without a weight of its own: `codes` and `scales` say what it is. It learns nothing.

    8 bits: one int8 a weight and a float32 scale a row (the largest magnitude / 127).
    4 bits: two NF4 codes a byte and a bfloat16 scale for each `block` weights along a row: 0.53 bytes a weight at 64.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, inputs: int, outputs: int, bits: int, block: int, bias: Tensor | None):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bits, self.block = inputs, outputs, bits, block
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)  # type: ignore[assignment]

    @classmethod
    def of(cls, layer: nn.Linear, *, bits: int, block: int = 64) -> QuantisedLinear:
        """The nearest quantised layer to `layer`. Rows that are no multiple of `block` are filled up with zeros."""
        weight = layer.weight.detach().float()
        new = cls(layer.in_features, layer.out_features, bits, block, None if layer.bias is None else layer.bias.data)
        codes, scales = _to_int8(weight) if bits == 8 else _to_nf4(weight, block)
        new.register_buffer("codes", codes, persistent=False)
        new.register_buffer("scales", scales, persistent=False)
        return new.train(layer.training)

    @property
    def bytes(self) -> int:
        """Memory that codes and scales take."""
        return sum(part.numel() * part.element_size() for part in (self.codes, self.scales))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The restored weight (outputs, inputs), float32, made anew at each look: changing it changes nothing."""
        return self.restore(torch.float32)

    def restore(self, dtype: torch.dtype) -> Tensor:
        """The weight (outputs, inputs) in `dtype`."""
        if self.bits == 8:
            return self.codes.to(dtype) * self.scales.to(dtype)
        pairs = _pairs(dtype, self.codes.device)[self.codes.int()]  # (outputs, groups, block / 2, 2)
        rows = pairs.flatten(2) * self.scales.to(dtype)
        return rows.flatten(1)[:, : self.in_features]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Product.apply(x, self)
        return out if self.bias is None else out + self.bias.to(out.dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"


def quantised_as(module: nn.Module) -> dict[str, int]:
    """How the layers of `module` are quantised, as options of `quantise_layers`; empty when none is."""
    for layer in module.modules():
        if isinstance(layer, QuantisedLinear):
            return {"bits": layer.bits, "block": layer.block}
    return {}


def restore_layers(module: nn.Module) -> None:
    """Turn every quantised layer inside `module` back into an ordinary one, in place: before merging, for instance."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, QuantisedLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
            plain.weight, plain.bias = nn.Parameter(layer.weight, requires_grad=False), layer.bias
            owner, _, last = name.rpartition(".")
            setattr(module.get_submodule(owner), last, plain.train(layer.training))


def quantise_layers(module: nn.Module, *, bits: int = 4, block: int = 64) -> tuple[int, int]:
    """Replace every linear layer inside the repeated blocks by a quantised one. Returns their bytes before and after.

    The same call on the same weights gives the same layers, so a saved adapter meets the base it was trained on.
    An adapter's own matrices, the embeddings and the head stay as they are.
    """
    before = after = 0
    for name, layer in list(module.named_modules()):
        if type(layer) is not nn.Linear or "lora_" in name or not _in_a_block(module, name):
            continue
        small = QuantisedLinear.of(layer, bits=bits, block=block)
        owner, _, last = name.rpartition(".")
        setattr(module.get_submodule(owner), last, small)
        before += layer.weight.numel() * layer.weight.element_size()
        after += small.bytes
    for parameter in module.parameters() if before else ():  # else they would hold the mapped file, all of it
        parameter.data = parameter.data.clone()
    return before, after


def _in_a_block(module: nn.Module, name: str) -> bool:
    """Whether one of the layer's owners is a list of blocks."""
    parts = name.split(".")
    return any(isinstance(module.get_submodule(".".join(parts[:end])), nn.ModuleList) for end in range(1, len(parts)))


class _Product(torch.autograd.Function):
    """x Wᵀ that keeps no restored weight for the backward pass: that would be the memory we mean to save."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        device = x.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        ctx.given = x.dtype
        return F.linear(x.to(ctx.dtype), layer.restore(ctx.dtype))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return (slope.to(ctx.dtype) @ ctx.layer.restore(ctx.dtype)).to(ctx.given), None


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return torch.round(weight / scales).to(torch.int8), scales


def _to_nf4(weight: Tensor, block: int) -> tuple[Tensor, Tensor]:
    rows = F.pad(weight, (0, -weight.shape[1] % block)).unflatten(1, (-1, block))
    scales = rows.abs().amax(2, keepdim=True).clamp_min(1e-12).to(torch.bfloat16)
    levels = torch.tensor(NF4, device=weight.device)
    between = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(rows / scales.float(), between).to(torch.uint8)
    return codes[..., 0::2] * 16 + codes[..., 1::2], scales


_TABLES: dict[tuple[torch.dtype, torch.device], Tensor] = {}


def _pairs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(256, 2): the two levels that a byte stands for. One look-up for two weights."""
    if (dtype, device) not in _TABLES:
        levels = torch.tensor(NF4, dtype=dtype, device=device)
        _TABLES[dtype, device] = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], 1)
    return _TABLES[dtype, device]
