"""Textual inversion: a new word for what the pictures show; only its embeddings learn (Gal et al. 2022)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Settings as Options
from genwright.core import UsageError
from genwright.tuning.adapters import set_method


class Settings(Options):
    """Options of the new word."""

    token: str = Field("<thing>", min_length=2, pattern=r"^\S+$", description="The new word, as captions write it")
    start: str = Field("", description="Word that it begins as, near to what it is to mean; empty begins at random")
    vectors: int = Field(1, ge=1, le=64, description="Embeddings that it stands for")


def attach(learner: Any, settings: Settings, *, seed: int = 0) -> Any:
    """Everything is frozen but the word's embeddings (arXiv 2208.01618). Raises UsageError where there are no words."""
    if not hasattr(learner, "learn_word"):
        raise UsageError("Textual inversion is for picture models that read words by a text encoder.", "Use `lora`.")
    learner.learn_word(settings.token, settings.start, settings.vectors, seed=seed)
    set_method(learner, "textual_inversion")
    return learner
