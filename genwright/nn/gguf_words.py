"""The words of a GGUF file: what each token says in bytes, and how the tokens of an answer become text.

Done here rather than by the runner, for a call a token costs more than a small model's arithmetic.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import cache

from .gguf_header import Header

_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6


def pieces_of(header: Header) -> list[bytes]:
    """What each token of the vocabulary says; control tokens say nothing.

    As llama.cpp's `token_to_piece`: byte-level vocabularies (`gpt2`) spell bytes as letters, sentencepiece's (`llama`)
    write a blank as ▁ and single bytes as <0x0A>.
    """
    letters = byte_letters() if header.keys.get("tokenizer.ggml.model") == "gpt2" else {}
    types = header.types or [1] * len(header.tokens)
    return [_piece(token, kind, letters) for token, kind in zip(header.tokens, types, strict=True)]


class Spoken:
    """Tokens on their way to text: `add` gives what may be shown, never half a character nor a stop word's beginning.

    `ended` says that a stop word came; what it begins with is not shown, and nothing after it.
    """

    def __init__(self, pieces: Sequence[bytes], stop: Sequence[str]):
        self.pieces, self.stop = pieces, [word for word in stop if word]
        self.characters = codecs.getincrementaldecoder("utf-8")("replace")
        self.held = ""
        self.ended = False

    def add(self, tokens: Sequence[int], *, final: bool = False) -> str:
        """What may be shown after these tokens; all of it when they are the last ones."""
        if self.ended:
            return ""
        self.held += self.characters.decode(b"".join(map(self.pieces.__getitem__, tokens)), final)
        if not self.stop:
            text, self.held = self.held, ""
            return text
        first = min((place for word in self.stop if (place := self.held.find(word)) >= 0), default=-1)
        if first >= 0:
            self.ended = True
            return self.held[:first]
        kept = 0 if final else max(_begun(self.held, word) for word in self.stop)
        shown = len(self.held) - kept
        text, self.held = self.held[:shown], self.held[shown:]
        return text


def _begun(text: str, word: str) -> int:
    """How many characters at the end of the text begin the word."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)


def _piece(token: str, kind: int, letters: dict[str, int]) -> bytes:
    if kind == _CONTROL:
        return b""
    if kind == _USER_DEFINED:
        return token.encode("utf-8", "replace")
    if letters:
        return bytes(letters[c] for c in token) if all(c in letters for c in token) else token.encode()
    if kind == _BYTE:
        return bytes([int(token[1:-1], 16)])
    return "\u2585".encode() if kind == _UNKNOWN else token.replace("\u2581", " ").encode("utf-8", "replace")


@cache
def byte_letters() -> dict[str, int]:
    """GPT-2's spelling of bytes: those that can be printed stand for themselves, the others follow from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(0x100 + n): b for n, b in enumerate(others)}
