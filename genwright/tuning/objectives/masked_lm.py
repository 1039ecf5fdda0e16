"""Masked LM: guess tokens that were hidden, as BERT is trained (Devlin et al. 2018)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field, model_validator

from genwright.core import Encoded, Example, Loss, Unlearnable, UsageError
from genwright.core import Settings as Options


class Settings(Options):
    """Options of masking."""

    share: float = Field(0.15, gt=0, lt=1, description="Share of the tokens to be guessed")
    masked: float = Field(0.8, ge=0, le=1, description="Of those, the share replaced by the mask token")
    random: float = Field(0.1, ge=0, le=1, description="Of those, the share replaced by a random token; the rest stay")

    @model_validator(mode="after")
    def _shares(self) -> Any:
        if self.masked + self.random > 1:
            raise ValueError("masked and random are shares of the same tokens and may not exceed 1 together")
        return self


def encode(learner: Any, example: Example, settings: Settings) -> Encoded:
    """The whole text; its weight is the number of tokens that will be hidden on average."""
    from genwright.nn.text import special_ids

    encoded: Encoded = learner.encode(example, supervise="all")
    special = special_ids(learner.tokenizer)
    words = sum(int(token) not in special for part in encoded.sequences for token in part["tokens"])
    if not words:
        raise Unlearnable("no tokens to hide")
    return replace(encoded, weight=words * settings.share)


def prepare(learner: Any, settings: Settings) -> None:
    """Raises UsageError when the tokenizer has no mask token."""
    if learner.tokenizer.mask_token_id is None:
        raise UsageError("The tokenizer has no mask token.", "Use a model made for masking, or `objective: pretrain`.")


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """Sum of the losses at the hidden tokens (arXiv 1810.04805); the weight is their number.

    In training they are drawn anew at each pass; otherwise they depend on the batch alone, so that two looks at the
    same rows can be compared.
    """
    hidden = hide(batch, learner.tokenizer, settings, fixed=not learner.module.training)
    total = learner.loss(hidden, label_smoothing=getattr(learner, "label_smoothing", 0.0))
    return Loss(total, float((hidden.targets != -100).sum()))


def hide(batch: Any, tokenizer: Any, settings: Settings, *, fixed: bool) -> Any:
    """The batch with tokens hidden and targets where they were. At least one token of it is hidden."""
    import torch

    from genwright.nn.text import special_ids

    tokens = batch.tokens
    generator = None
    if fixed:
        generator = torch.Generator(tokens.device).manual_seed(int(tokens.sum()) * 1_000_003 + len(tokens))
    draw = torch.rand(tokens.shape, generator=generator, device=tokens.device)
    fate = torch.rand(tokens.shape, generator=generator, device=tokens.device)
    other = torch.randint(len(tokenizer), tokens.shape, generator=generator, device=tokens.device)
    special = torch.tensor(sorted(special_ids(tokenizer)), device=tokens.device)
    draw = draw.masked_fill(torch.isin(tokens, special), 2.0)
    chosen = (draw < settings.share) | (draw == draw.min())
    swapped = torch.where(fate < settings.masked, tokenizer.mask_token_id, other)
    swapped = torch.where(fate < settings.masked + settings.random, swapped, tokens)
    return replace(
        batch,
        tokens=torch.where(chosen, swapped, tokens),
        targets=torch.where(chosen, tokens, torch.full_like(tokens, -100)),
    )
