"""Words: how judging cuts a text into units, so that Chinese and Japanese are counted as fairly as spaced scripts."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Sequence

_KANA = "\u3040-\u30ff"
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNITS = re.compile(rf"[{_HAN}{_KANA}]|[^\s{_HAN}{_KANA}]+")
_SPELT = re.compile(rf"[{_HAN}{_KANA}]|[^\W_{_HAN}{_KANA}]+")
_CJK_MARKS = "。，、；：？！“”‘’（）《》〈〉【】「」『』…—～·"
_PUNCTUATION = str.maketrans("", "", string.punctuation + _CJK_MARKS)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def units(text: str) -> list[str]:
    """Words between spaces, but every Chinese character and kana by itself.

    >>> units("I like 北京 a lot.")
    ['I', 'like', '北', '京', 'a', 'lot.']
    """
    return _UNITS.findall(text)


def spelt(text: str) -> list[str]:
    """Lower-case runs of letters and digits of any script; every Chinese character and kana by itself.

    >>> spelt("Été, 2024: 你好!")
    ['été', '2024', '你', '好']
    """
    return _SPELT.findall(text.lower())


def plain(text: str) -> str:
    """SQuAD's normal form: lower case, no punctuation, no English articles, single spaces.

    >>> plain("The  Eiffel Tower!")
    'eiffel tower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def cjk_share(texts: Iterable[str]) -> float:
    """Share of Chinese characters and kana among all letters and digits.

    >>> cjk_share(["你好 ok"])
    0.5
    """
    letters = cjk = 0
    for text in texts:
        letters += sum(map(str.isalnum, text))
        cjk += len(re.findall(rf"[{_HAN}{_KANA}]", text))
    return cjk / letters if letters else 0.0


def has_kana(texts: Iterable[str]) -> bool:
    return any(re.search(f"[{_KANA}]", text) for text in texts)


def ngrams(tokens: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    """All runs of n tokens.

    >>> list(ngrams("abc", 2))
    [('a', 'b'), ('b', 'c')]
    """
    return (tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
