"""EfficientNet-Lite0: a picture as 1,280 numbers, by a network that learned to tell ImageNet's thousand classes.

Tan & Le 2019; the "lite" form without squeeze-and-excitation, with ReLU6 (2020). 4.7 million numbers, 18.8 MB from a
package. Only for looking, so each normalisation is folded into the convolution before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genwright.core.card import find_card
from genwright.core.errors import ModelError

from .torch_file import read_torch_file
from .weights import card_folder

CARD = "efficientnet-lite0"
WIDTH = 1280
_STEM = 32
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # blocks, kernel, stride of the first, times wider inside, channels  # fmt: skip
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPSILON = 1e-3


class EfficientNetLite(nn.Module):
    """Call it with pixels uint8 (B, S, S, 3): features (B, 1280), means over the places of the last layer, from 0 to
    6."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM, 3, stride=2)
        blocks, width = [], _STEM
        for count, kernel, stride, wider, out in _STAGES:
            for number in range(count):
                blocks.append(_Block(width, out, kernel, 1 if number else stride, wider))
                width = out
        self.blocks = nn.Sequential(*blocks)
        self.head = _Convolution(width, WIDTH, 1)
        self.classes = nn.Linear(WIDTH, 1000)

    def forward(self, pixels: Tensor) -> Tensor:
        like = self.classes.weight
        mean, spread = (torch.tensor(one, device=pixels.device) * 255 for one in (_MEAN, _SPREAD))
        x = ((pixels - mean) / spread).permute(0, 3, 1, 2).to(like.dtype)
        return self.head(self.blocks(self.stem(x))).mean((2, 3))

    def logits(self, pixels: Tensor) -> Tensor:
        """(B, 1000) scores of ImageNet's classes."""
        scores: Tensor = self.classes(self(pixels))
        return scores

    def take(self, state: Mapping[str, np.ndarray]) -> None:
        """Weights in the names of the packaged file. Raises ModelError when they are those of another network."""
        left = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
        try:
            with torch.no_grad():
                for convolution, name, norm in self._named():
                    scale, shift, mean, variance = (
                        torch.from_numpy(left.pop(f"{norm}.{one}")).double()
                        for one in ("weight", "bias", "running_mean", "running_var")
                    )
                    scale = scale / (variance + _EPSILON).sqrt()
                    weight = torch.from_numpy(left.pop(f"{name}.weight")).double() * scale[:, None, None, None]
                    _copy(convolution.weight, weight)
                    assert convolution.bias is not None
                    _copy(convolution.bias, shift - mean * scale)
                _copy(self.classes.weight, torch.from_numpy(left.pop("_fc.weight")))
                _copy(self.classes.bias, torch.from_numpy(left.pop("_fc.bias")))
        except (KeyError, IndexError, ValueError) as error:
            raise ModelError(f"These are no weights of EfficientNet-Lite0: {error}.") from None
        if left:
            raise ModelError(f"These are no weights of EfficientNet-Lite0: {next(iter(left))} is too much.")

    def _named(self) -> Iterator[tuple[_Convolution, str, str]]:
        """Each convolution with the file's names of it and of its normalisation."""
        yield self.stem, "_conv_stem", "_bn0"
        block: Any
        for number, block in enumerate(self.blocks):
            before = f"_blocks.{number}."
            if block.widen is not None:
                yield block.widen, f"{before}_expand_conv", f"{before}_bn0"
            yield block.spread, f"{before}_depthwise_conv", f"{before}_bn1"
            yield block.narrow, f"{before}_project_conv", f"{before}_bn2"
        yield self.head, "_conv_head", "_bn1"


@cache
def efficientnet_lite() -> EfficientNetLite:
    """The network of the card, in float32, once a process. Raises ModelError when the card has not been fetched or
    its file is not what it should be."""
    network = EfficientNetLite()
    network.take(read_torch_file(card_folder(CARD) / find_card(CARD).files[0].name))
    return network.eval().requires_grad_(False)


class _Convolution(nn.Conv2d):
    """With TensorFlow's padding: as much as keeps size / stride, the odd pixel right and below."""

    def __init__(self, width: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1, bent: bool = True):
        super().__init__(width, out, kernel, stride=stride, groups=groups)
        self.bent = bent

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        both = [max(0, (-(-size // stride) - 1) * stride + kernel - size) for size in x.shape[:1:-1]]
        if any(both):
            x = F.pad(x, [part for extra in both for part in (extra // 2, extra - extra // 2)])
        x = super().forward(x)
        return F.relu6(x) if self.bent else x


class _Block(nn.Module):
    """Wide inside, narrow outside (Sandler et al. 2018)."""

    def __init__(self, width: int, out: int, kernel: int, stride: int, wider: int):
        super().__init__()
        inside = width * wider
        self.widen = _Convolution(width, inside, 1) if wider > 1 else None
        self.spread = _Convolution(inside, inside, kernel, stride=stride, groups=inside)
        self.narrow = _Convolution(inside, out, 1, bent=False)
        self.adds = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        inside = self.widen(x) if self.widen is not None else x
        found: Tensor = self.narrow(self.spread(inside))
        return found + x if self.adds else found


def _copy(parameter: Tensor, values: Tensor) -> None:
    """Raises ValueError when the shapes differ: `copy_` alone would stretch one to the other."""
    if parameter.shape != values.shape:
        raise ValueError(f"{tuple(values.shape)} stands where {tuple(parameter.shape)} belongs")
    parameter.copy_(values)
