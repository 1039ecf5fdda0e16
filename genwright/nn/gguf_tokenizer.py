"""The tokenizer of a GGUF file, with the few names of transformers' tokenizers that `nn/text` uses.

So a conversation becomes tokens by the same code when a model is tuned and when its GGUF file answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Protocol

from .gguf_header import Header


class _Words(Protocol):
    def tokenize(self, text: str, *, special: bool) -> list[int]: ...
    def detokenize(self, tokens: Sequence[int]) -> str: ...


class GgufTokenizer:
    """Splits by the runner that also answers; special tokens, template and habits are read from the file's header."""

    is_fast = False  # it knows no offsets

    def __init__(self, runner: _Words, header: Header):
        self.runner = runner
        self.chat_template = header.chat_template
        self.added_tokens_decoder = {i: SimpleNamespace(content=t, special=True) for i, t in header.control.items()}
        self.all_special_ids, self.all_special_tokens = list(header.control), list(header.control.values())
        self.vocab_size = len(header.tokens)
        keys = header.keys
        names = {"bos": "bos", "eos": "eos", "sep": "seperator", "pad": "padding", "unk": "unknown"}  # their spelling
        self.special_tokens_map = {}
        for ours, theirs in names.items():
            number = keys.get(f"tokenizer.ggml.{theirs}_token_id")
            text = header.control.get(number) if number is not None else None
            setattr(self, f"{ours}_token_id", number)
            setattr(self, f"{ours}_token", text)
            if text is not None:
                self.special_tokens_map[f"{ours}_token"] = text
        sentencepiece = keys.get("tokenizer.ggml.model") == "llama"
        self._begins = self.bos_token_id if keys.get("tokenizer.ggml.add_bos_token", sentencepiece) else None
        self._ends = self.eos_token_id if keys.get("tokenizer.ggml.add_eos_token", False) else None

    def __getattr__(self, name: str) -> Any:
        if name.endswith(("_token", "_token_id")):
            return None
        raise AttributeError(name)

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = self.runner.tokenize(text, special=True) if text else []
        if add_special_tokens:
            ids = [
                *([] if self._begins is None else [self._begins]),
                *ids,
                *([] if self._ends is None else [self._ends]),
            ]
        return {"input_ids": ids}

    def decode(self, ids: Sequence[int]) -> str:
        return self.runner.detokenize(ids)
