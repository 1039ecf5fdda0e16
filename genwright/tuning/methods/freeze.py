"""Freeze: only the last blocks of the model are trained, or all but the first."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from genwright.core import Learner, UsageError
from genwright.core import Settings as Options
from genwright.tuning.adapters import blocks, merged, set_method


class Settings(Options):
    """Options of this method."""

    train_last: int | None = Field(None, ge=0, description="Train so many of the last blocks; 2 when neither is given")
    freeze_first: int | None = Field(None, ge=0, description="Train all blocks but so many of the first")
    head: bool = Field(True, description="Train what stands after the blocks: final norm, pooler, head, classifier")
    embeddings: bool = Field(False, description="Train the embeddings (and a head that shares their weights)")

    @model_validator(mode="after")
    def _one_of_two(self) -> Any:
        if self.train_last is not None and self.freeze_first is not None:
            raise ValueError("give `train_last` or `freeze_first`, not both")
        return self


def attach(learner: Learner, settings: Settings, *, seed: int = 0) -> Learner:
    """Set which parameters learn; no weight is added.

    Raises UsageError when there are fewer blocks than named, or nothing would be trained.
    """
    module = merged(learner)
    stack = blocks(module)
    first = _first_trained(settings, len(stack))
    place = {id(p): number for number, (_, block) in enumerate(stack) for p in block.parameters()}
    for name, parameter in module.named_parameters():
        if id(parameter) in place:
            learns = place[id(parameter)] >= first
        else:
            learns = settings.embeddings if _is_embedding(module, name) else settings.head
        parameter.requires_grad_(learns)
    if not any(p.requires_grad for p in module.parameters()):
        raise UsageError("Nothing would be trained.", "Raise `train_last`, or set `head` or `embeddings`.")
    set_method(learner, "freeze", *_notes(module, settings))
    return learner


def _first_trained(settings: Settings, count: int) -> int:
    named = settings.train_last if settings.train_last is not None else settings.freeze_first
    if named is not None and named > count:
        raise UsageError(f"The model has {count} blocks, not {named}.", "Give a number up to that.")
    if settings.freeze_first is not None:
        return int(settings.freeze_first)
    return max(0, count - (2 if settings.train_last is None else settings.train_last))


def _is_embedding(module: Any, name: str) -> bool:
    """Tokens, positions, and the norm that stands with them."""
    from torch import nn

    owner = module.get_submodule(name.rpartition(".")[0])
    return isinstance(owner, nn.Embedding) or "embed" in name


def _notes(module: Any, settings: Settings) -> list[str]:
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    tied = head is not None and head.weight is module.get_input_embeddings().weight
    if tied and settings.head and not settings.embeddings:
        return ["The head shares its weights with the embeddings and stays frozen; set `embeddings` to train both."]
    return []
