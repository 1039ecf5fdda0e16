"""Words: what a word is, in scripts with spaces and in those without, and when two texts count as the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

from .content import Message
from .data import Example

# Han, kana, Hangul syllables are counted by character; Thai, Lao, Khmer and Burmese write no spaces either.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’][^\W_{_UNSPACED}]+)*")
_NO_SPACES = re.compile(rf"[{_UNSPACED}]")


def tokens(text: str) -> list[str]:
    """Words, and single characters of scripts that write no spaces; punctuation is left out.

    >>> tokens("It's 3 o'clock, 你好!")
    ["It's", '3', "o'clock", '你', '好']
    """
    return _TOKEN.findall(text)


def is_unspaced(text: str) -> bool:
    """Is most of it written without spaces (Chinese, Japanese, Thai …)?"""
    if text.isascii():
        return False
    return 2 * len(_NO_SPACES.findall(text)) >= sum(not c.isspace() for c in text)


def normal(text: str) -> str:
    """The text as it counts when it is compared: NFKC, without case, each run of whitespace one space."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def text_of(messages: Iterable[Message]) -> str:
    """All words of some messages, with a newline between them."""
    return "\n".join(message.text for message in messages)


def side_of(example: Example, side: str) -> str:
    """The words of the `prompt`, of the `answer`, or of the whole `row`."""
    return example.answer.text if side == "answer" else text_of(messages_of(example, side))


def identity(messages: Iterable[Message], *, exact: bool = False) -> int:
    """64 bits that say whether two conversations count as the same: roles and order matter, width and case do not.

    Files count by their names, which prepared data makes of their content.
    """
    said = (f"{m.role}\0{m.text if exact else normal(m.text)}{_files(m)}" for m in messages)
    return digest64("\0".join(said))


def _files(message: Message) -> str:
    return "".join(f"\1{part.text}\1{part.path.name}" for part in message.parts if part.path is not None)


def messages_of(example: Example, side: str) -> tuple[Message, ...]:
    """The messages of the `prompt`, the `answer` alone, or the whole `row`."""
    return {"prompt": example.prompt, "answer": (example.answer,)}.get(side, example.messages)


def digest64(text: str) -> int:
    """64 bits of a text's BLAKE2b: a million rows collide with a chance of 3 in 100 million."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
