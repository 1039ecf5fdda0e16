"""Log-probabilities of an answer's tokens: {"token": text, "bytes": [int], "logprob": nats, "top": [the same, likeliest
first, without "top"]}. They are the model's own, before penalties, biases, heat and grammars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .gguf_words import byte_letters
from .text import special_ids


def begun_within(entries: Sequence[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """Those whose token begins within the text: what a stop word took away has no figures either."""
    kept, place, size = [], 0, len(text.encode("utf-8", "replace"))
    for entry in entries:
        if place >= size and entry["bytes"]:
            break
        kept.append(entry)
        place += len(entry["bytes"])
    return kept


def figure(tokenizer: Any, chances: Any, token: int, top: int) -> dict[str, Any]:
    """One token's entry out of log-probabilities (V,), a tensor; `tokenizer` is one of transformers'."""

    def one(token: int) -> dict[str, Any]:
        said = bytes_of(tokenizer, token)
        return {
            "token": said.decode("utf-8", "replace"),
            "bytes": list(said),
            "logprob": max(-9999.0, float(chances[token])),
        }

    return one(token) | {"top": [one(int(other)) for other in chances.topk(top).indices]}


def bytes_of(tokenizer: Any, token: int) -> bytes:
    """What a token says; special tokens say nothing."""
    kind, special = _habits(tokenizer)
    if token in special:
        return b""
    word = tokenizer.convert_ids_to_tokens(token)
    if word is None:  # a row of the model without a word
        return b""
    letters = byte_letters() if kind == "bytes" else {}
    if letters and all(letter in letters for letter in word):
        return bytes(letters[letter] for letter in word)
    if word.startswith("<0x") and word.endswith(">"):
        return bytes([int(word[1:-1], 16)])
    if kind == "wordpiece":
        word = word.removeprefix("##") if word.startswith("##") else f" {word}"
    return str(word).replace("\u2581", " ").encode("utf-8", "replace")


def _habits(tokenizer: Any) -> tuple[str, set[int]]:
    """How a tokenizer spells its words, and which are special; looked up once."""
    known = getattr(tokenizer, "_genwright_habits", None)
    if known is None:
        decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] if tokenizer.is_fast else None
        told = json.dumps(decoder)
        kind = "bytes" if '"ByteLevel"' in told else "wordpiece" if '"WordPiece"' in told else "pieces"
        known = tokenizer._genwright_habits = (kind, special_ids(tokenizer))
    return known
