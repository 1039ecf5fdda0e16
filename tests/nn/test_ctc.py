"""CTC: its loss is the sum over all ways to say the tokens frame by frame."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from genwright.nn.ctc import add_head, ctc_loss, needed


class Tiny(torch.nn.Module):
    """What a head is put on: a width, a vocabulary, and some parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(d_model=5, vocab_size=3, init_std=0.5)
        self.any = torch.nn.Linear(1, 1)


@pytest.fixture
def module() -> Any:
    torch.manual_seed(0)
    made = Tiny()
    add_head(made, None)
    return made


def said(path: Any) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != 0]


def test_the_loss_is_that_of_all_ways_to_say_it(module):
    heard, seen = torch.randn(2, 5, 5), torch.tensor([[1] * 5, [1, 1, 1, 1, 0]])
    rows = [torch.tensor([1, 2, 2]), torch.tensor([2])]
    chances = module.ctc_head(heard).softmax(-1)
    expected = 0.0
    for row, tokens in enumerate(rows):
        frames = range(int(seen[row].sum()))
        paths = [p for p in itertools.product(range(3), repeat=len(frames)) if said(p) == tokens.tolist()]
        expected -= math.log(sum(math.prod(chances[row, f, p[f]].item() for f in frames) for p in paths))
    assert ctc_loss(module, heard, seen, rows, blank=0).item() == pytest.approx(expected, rel=1e-5)


def test_a_sound_too_short_for_its_tokens_counts_nothing(module):
    rows = [torch.tensor([1, 1])]
    assert needed([1, 1]) == 3
    assert needed([1, 2, 1]) == 3
    assert ctc_loss(module, torch.randn(1, 2, 5), torch.ones(1, 2).long(), rows, blank=0).item() == 0
    assert ctc_loss(module, torch.randn(1, 3, 5), torch.ones(1, 3).long(), rows, blank=0).item() > 0
