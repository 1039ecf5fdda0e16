"""Encoders that read both ways (BERT, RoBERTa, ModernBERT): sort texts by label, or fill in masked words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core.things import SILENT, Tell
from genwright.nn.options import ModelSettings


class Settings(ModelSettings):
    """Options of encoders."""

    head: Literal["auto", "labels", "masked_lm"] = Field(
        "auto", description="Sort by label or fill in masks; auto is what the folder was saved for, else labels"
    )
    labels: tuple[str, ...] = Field((), description="All labels in order; empty takes those of the folder or the task")


def load(
    source: Path | None,
    settings: Settings,
    *,
    seed: int = 0,
    texts: Iterable[str] | None = None,
    labels: Sequence[str] = (),
    tell: Tell = SILENT,
) -> Any:
    """A `nn.encoder.Encoder` from a folder or from `settings.config` (random weights).

    `labels` are those of the task or of its training rows; those of the settings go before them. `texts` are what a
    tokenizer is trained on when the settings ask for one. Raises ModelError or UsageError.
    """
    from genwright.nn.encoder import Encoder
    from genwright.nn.pretrained import architectures, open_pretrained

    labels = settings.labels or tuple(labels)
    head = settings.head
    if head == "auto":
        head = "masked_lm" if not labels and any("MaskedLM" in name for name in architectures(source)) else "labels"
    auto = "AutoModelForMaskedLM" if head == "masked_lm" else "AutoModelForSequenceClassification"
    encoder = open_pretrained(Encoder, source, settings, auto=auto, seed=seed, texts=texts, tell=tell, framed=True)
    if labels:
        encoder.set_labels(labels, seed=seed)
    return encoder
