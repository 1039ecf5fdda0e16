"""Drop texts that rules of thumb call junk: repetition, symbols, shouting (Gopher's and C4's rules)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from genwright.core import Example
from genwright.core import Settings as Base
from genwright.core.words import is_unspaced, side_of, tokens

_STOP_WORDS = {
    "en": "the be to of and that have with",
    "de": "der die und das ist nicht zu den", "fr": "le la et les des est que de",
    "es": "el la de que y en los es", "it": "il di che la e un per non", "pt": "o de que a e em para os",
    "nl": "de het een van en is dat niet", "zh": "的 了 是 在 不 有 我 和", "ja": "の に は を た が で て",
}  # fmt: skip
_SYMBOL = re.compile(r"[#…]|\.\.\.")
_BULLETS = tuple("-*•●▪‣◦")


class Settings(Base):
    on: Literal["row", "prompt", "answer"] = Field("answer", description="Which words are looked at")
    min_words: int = Field(0, ge=0, description="Fewest words (characters in scripts without spaces)")
    max_words: int = Field(100_000, ge=1, description="Most words")
    min_word_length: float = Field(
        0.0, ge=0, description="Least mean word length; Gopher says 3; not for unspaced scripts"
    )
    max_word_length: float = Field(20.0, gt=0, description="Greatest mean word length; Gopher says 10")
    max_symbols: float = Field(0.3, ge=0, description="Most hash signs and ellipses a word; Gopher says 0.1")
    min_letters: float = Field(
        0.5, ge=0, le=1, description="Least share of letters and digits among visible characters"
    )
    max_capitals: float = Field(
        0.9, ge=0, le=1, description="Greatest share of capitals among letters (texts of 5 words on)"
    )
    max_repeated_lines: float = Field(0.3, ge=0, le=1, description="Greatest share of lines that stood there before")
    max_repeated_ngrams: float = Field(
        0.5, ge=0, le=1, description="Greatest share of 5-word runs that stood there before (texts of 20 words on)"
    )
    max_top_word: float = Field(
        0.5, ge=0, le=1, description="Greatest share of the commonest word (texts of 10 words on)"
    )
    max_bullets: float = Field(
        1.0, ge=0, le=1, description="Greatest share of lines that begin with a bullet; Gopher 0.9"
    )
    max_ellipses: float = Field(1.0, ge=0, le=1, description="Greatest share of lines that end in …; Gopher says 0.3")
    min_stop_words: int = Field(0, ge=0, description="Fewest different stop words; Gopher says 2")
    stop_words: tuple[str, ...] = Field((), description="Stop words instead of the common ones of nine languages")
    must_end: bool = Field(False, description="The text must end in a mark such as . ! ? or a closing quote (C4)")
    banned: tuple[str, ...] = Field(
        (), description="Phrases that make a text junk, e.g. [lorem ipsum]; case-insensitive"
    )


def refine(examples: Iterator[Example], settings: Settings, *, report: Any) -> Iterator[Example]:
    """Each row is dropped for the first rule that it breaks, which names the option to turn."""
    stop_words = set(settings.stop_words) or {w for words in _STOP_WORDS.values() for w in words.split()}
    for example in examples:
        fault = fault_of(side_of(example, settings.on), settings, stop_words)
        if fault:
            report.drop(example, fault)
        else:
            yield example


def fault_of(text: str, settings: Settings, stop_words: set[str]) -> str:
    """The first rule that a text breaks, or an empty string. Rae et al. 2021 (table A1) and Raffel et al. 2020."""
    words, visible = tokens(text), [c for c in text if not c.isspace()]
    lines = [line for line in text.split("\n") if line.strip()]
    letters = [c for c in visible if c.isalpha()]
    count = max(1, len(words))
    mean = sum(map(len, words)) / count
    lowered = text.casefold()
    rules = (
        (len(words) < settings.min_words, "too few words (min_words)"),
        (len(words) > settings.max_words, "too many words (max_words)"),
        (mean < settings.min_word_length and not is_unspaced(text), "words too short (min_word_length)"),
        (mean > settings.max_word_length, "words too long (max_word_length)"),
        (len(_SYMBOL.findall(text)) > settings.max_symbols * count, "too many symbols (max_symbols)"),
        (_share(map(str.isalnum, visible)) < settings.min_letters, "too few letters (min_letters)"),
        (len(words) >= 5 and _share(map(str.isupper, letters)) > settings.max_capitals, "capitals (max_capitals)"),
        (_repeated(lines) > settings.max_repeated_lines, "repeated lines (max_repeated_lines)"),
        (_repeated_ngrams(words) > settings.max_repeated_ngrams, "repeated n-grams (max_repeated_ngrams)"),
        (_top(words) > settings.max_top_word, "one word again and again (max_top_word)"),
        (_share(line.lstrip().startswith(_BULLETS) for line in lines) > settings.max_bullets, "bullets (max_bullets)"),
        (
            _share(line.rstrip().endswith(("…", "...")) for line in lines) > settings.max_ellipses,
            "ellipses (max_ellipses)",
        ),
        (
            settings.min_stop_words and len(stop_words & {w.casefold() for w in words}) < settings.min_stop_words,
            "too few stop words (min_stop_words)",
        ),
        (settings.must_end and not text.rstrip().endswith(tuple(".!?。！？…\"'”’」』)）")), "no end mark (must_end)"),
        (any(phrase.casefold() in lowered for phrase in settings.banned), "a banned phrase (banned)"),
    )
    return next((reason for broken, reason in rules if broken), "")


def _share(signs: Any) -> float:
    found = [bool(sign) for sign in signs]
    return sum(found) / len(found) if found else 0.0


def _repeated(things: list[Any]) -> float:
    return 1 - len(set(things)) / len(things) if things else 0.0


def _repeated_ngrams(words: list[str]) -> float:
    return _repeated([tuple(words[i : i + 5]) for i in range(len(words) - 4)]) if len(words) >= 20 else 0.0


def _top(words: list[str]) -> float:
    return Counter(words).most_common(1)[0][1] / len(words) if len(words) >= 10 else 0.0
