"""Options of the transformers engines: light, so that listing the shelf loads no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from genwright.core.plugin import FilePath, Settings


class TrainTokenizer(Settings):
    """A tokenizer made from the training texts."""

    train: Literal["bpe", "wordpiece", "unigram"] = Field(description="Kind: byte-level BPE, WordPiece or Unigram")
    vocab_size: int = Field(8000, ge=64, description="Most tokens it may have, special ones included")


class ModelSettings(Settings):
    """Options that every transformers engine shares."""

    config: dict[str, Any] = Field(
        {},
        description="Random weights by this, keys as in config.json: {model_type: llama, hidden_size: 256, …}",
    )
    tokenizer: TrainTokenizer | FilePath | None = Field(
        None, description="{train: bpe, vocab_size: 8000}, or a model folder or tokenizer.json; null is the model's own"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Precision the weights are kept in; auto is float32, and bfloat16 beyond a billion parameters",
    )
