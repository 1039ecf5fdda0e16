"""int8: linear layers for answering, whose products are of whole numbers; for processors that have no bfloat16.

Weights have a scale a row; what comes in has one scale for all of it, found at each call ("dynamic"), and is kept to
seven bits, for without VNNI pairs of products are summed in sixteen bits and would overflow.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """In place of an `nn.Linear`: takes and gives float32 and learns nothing."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        weight = layer.weight.detach().float()
        scales = weight.abs().amax(1).clamp_min(1e-12) / 127
        with warnings.catch_warnings():  # a newer way to hold such tensors is announced; its layers take no float
            warnings.simplefilter("ignore", UserWarning)
            nothing = torch.zeros(len(weight), dtype=torch.long)
            codes = torch.quantize_per_channel(weight, scales, nothing, 0, torch.qint8)
        bias = None if layer.bias is None else layer.bias.detach().float()
        self.packed = torch.ops.quantized.linear_prepack(codes, bias)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.quantized.linear_dynamic(x, self.packed, True)
        return found
