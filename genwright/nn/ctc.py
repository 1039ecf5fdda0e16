"""CTC: a second head, over the frames of an encoder, that says which token is heard where (Graves et al. 2006).

Beside the attention of a decoder it tells an encoder of random weights that sounds come in the order of the words
(Watanabe et al. 2017): without it a small Whisper learns to spell before it hears. The padding token is the blank.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .weights import weight_files

HEAD = "ctc_head"


def add_head(module: Any, folder: Path | None) -> None:
    """Give a transformers speech model the head `ctc_head`, (vocabulary, d_model): that of `folder`, where it is among
    its weights, else a new one drawn from torch's generator. The model saves it with its own weights."""
    config, like = module.config, next(module.parameters())
    head = nn.Linear(config.d_model, config.vocab_size)
    nn.init.normal_(head.weight, std=config.init_std)
    nn.init.zeros_(head.bias)
    if folder is not None:
        head.load_state_dict(dict(head.state_dict()) | _kept(folder))
    module.add_module(HEAD, head.to(like.device, like.dtype))


def has_head(module: Any) -> bool:
    """Whether the module has a head of CTC."""
    return hasattr(module, HEAD)


def needed(tokens: Any) -> int:
    """Frames that CTC needs at least to say `tokens`: one each, and a blank between two that are equal."""
    return len(tokens) + sum(int(a == b) for a, b in itertools.pairwise(tokens))


def ctc_loss(module: Any, heard: Tensor, seen: Tensor, targets: list[Tensor], blank: int) -> Tensor:
    """-log p(tokens | frames) summed over the rows, in nats. `heard` (B, S, d), `seen` (B, S) 1 where the sound is,
    `targets` B rows of tokens without start and end. A row that hiding and stretching left too short counts nothing."""
    spelled = getattr(module, HEAD)(heard).float().log_softmax(-1).transpose(0, 1)
    lengths = torch.tensor([len(row) for row in targets])
    return nn.functional.ctc_loss(
        spelled, torch.cat(targets), seen.sum(1), lengths, blank=blank, reduction="sum", zero_infinity=True
    )


def _kept(folder: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    found = dict[str, Tensor]()
    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(f"{HEAD}.")]  # noqa: SIM118 - no mapping
            found |= {name.removeprefix(f"{HEAD}."): file.get_tensor(name) for name in names}
    return found
