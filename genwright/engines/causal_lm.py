"""Decoders that write on (GPT-2, Llama, SmolLM, Qwen, Gemma …), tuned and asked through transformers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genwright.core.things import SILENT, Tell
from genwright.nn.options import ModelSettings


class Settings(ModelSettings):
    """Options of decoders."""


def load(
    source: Path | None, settings: Settings, *, seed: int = 0, texts: Iterable[str] | None = None, tell: Tell = SILENT
) -> Any:
    """A `nn.decoder.Decoder` from a folder (full model or adapter), a GGUF file, or `settings.config` (random weights).

    `texts` are what a tokenizer is trained on when the settings ask for one. Raises ModelError or UsageError.
    """
    from genwright.nn.decoder import Decoder
    from genwright.nn.pretrained import open_pretrained

    return open_pretrained(Decoder, source, settings, auto="AutoModelForCausalLM", seed=seed, texts=texts, tell=tell)
