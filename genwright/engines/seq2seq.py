"""Encoder–decoders that turn one text into another (Marian, T5, BART): translation, summaries, rewriting."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genwright.core.things import SILENT, Tell
from genwright.nn.options import ModelSettings


class Settings(ModelSettings):
    """Options of encoder–decoders."""


def load(
    source: Path | None, settings: Settings, *, seed: int = 0, texts: Iterable[str] | None = None, tell: Tell = SILENT
) -> Any:
    """A `nn.encoder_decoder.EncoderDecoder` from a folder (full model or adapter) or from `settings.config`.

    `texts` are what a tokenizer is trained on when the settings ask for one. Raises ModelError or UsageError.
    """
    from genwright.nn.encoder_decoder import EncoderDecoder
    from genwright.nn.pretrained import open_pretrained

    return open_pretrained(
        EncoderDecoder, source, settings, auto="AutoModelForSeq2SeqLM", seed=seed, texts=texts, tell=tell
    )
