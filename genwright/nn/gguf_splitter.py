"""How the vocabulary of a GGUF file splits a text, by the tokenizers library instead of a call to the runner.

Only for byte-level vocabularies whose way of cutting text into words is known here. What it says is compared with
llama.cpp before it is trusted (nn/openvino).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from .gguf_header import Header

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_NO_WORDS = (3, 4)  # control tokens, and words that someone added: neither is ever taken apart


def splitter_of(header: Header) -> Callable[[str], list[int]] | None:
    """Text → tokens, reading <|…|> as control tokens; None where this file's way of splitting is not known."""
    keys = header.keys
    if keys.get("tokenizer.ggml.model") != "gpt2" or importlib.util.find_spec("tokenizers") is None:
        return None
    words = _words(str(keys.get("tokenizer.ggml.pre", "")))
    if words is None:
        return None
    from tokenizers import AddedToken, Tokenizer, models

    vocabulary = {token: number for number, token in enumerate(header.tokens)}
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in header.merges)]
    if not all({left, right, left + right} <= vocabulary.keys() for left, right in merges):
        return None
    whole = keys.get("tokenizer.ggml.pre") == "llama-bpe"  # a word of the vocabulary is one token, merges or not
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole))
    made.pre_tokenizer = words
    added = [token for token, kind in zip(header.tokens, header.types, strict=False) if kind in _NO_WORDS]
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return lambda text: made.encode(text, add_special_tokens=False).ids


def _words(name: str) -> Any:
    """What cuts a text into words before they are split, by llama.cpp's name for it."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    if name in ("gpt-2", "default", ""):
        return ByteLevel(add_prefix_space=False)
    if name == "smollm":
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    digits = {"qwen2": r"\p{N}", "llama-bpe": r"\p{N}{1,3}"}.get(name)
    if digits is None:
        return None
    pattern = Regex(f"{_LETTERS}|{digits}|{_REST}")
    return Sequence([Split(pattern, "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
