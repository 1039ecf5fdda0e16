"""Spoken form: a text as it is read aloud, in English, in Chinese, or in both, so that no voice has to guess.

Each sentence is put into the words of its own language. English of three words and more inside a Chinese sentence keeps
its numbers English ("I have 3 apples"); a name does not ("iPhone 15"). Emoji are not read.
"""

from __future__ import annotations

import re

from .spoken_chinese import spoken_chinese
from .spoken_english import spoken_english

_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u200d\ufe0e\ufe0f\u20e3]")
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_SENTENCE = re.compile(
    rf"[。！？；\n]|[.!?;](?= {{0,3}}{_HAN.pattern})|(?<={_HAN.pattern})[.!?;](?=\s)"
)  # not at "Dr. "
_ENGLISH = re.compile(r"[A-Za-z][A-Za-z'’-]{0,40}(?:[ ,]{1,2}[A-Za-z0-9$€£][A-Za-z0-9'’.,%:$/-]{0,40}){2,200}")
_PLAIN = re.compile(r"[A-Za-z'’-]+")


def spoken_form(text: str, language: str = "auto") -> str:
    """The text with numbers, dates, money, units, addresses and signs as words. `language` is en, zh, or auto: by the
    characters of each sentence. Words are never changed.

    >>> spoken_form("He paid $5 on 3/15/2024. 他花了5元。🙂")
    'He paid five dollars on March fifteenth, twenty twenty-four. 他花了五元。'
    """
    text = _EMOJI.sub("", text)
    made, start = [], 0
    for end in (*(found.end() for found in _SENTENCE.finditer(text)), len(text)):
        made.append(_sentence(text[start:end], language))
        start = end
    return "".join(made)


def _sentence(text: str, language: str) -> str:
    if (language == "en") or (language == "auto" and not _HAN.search(text)):
        return spoken_english(text)
    pieces, start = [], 0
    for found in _ENGLISH.finditer(text):
        words = _PLAIN.findall(found[0])
        if len(words) >= 3 and any(word.islower() for word in words[1:]) and re.search(r"\d", found[0]):
            pieces += [spoken_chinese(text[start : found.start()]), spoken_english(found[0])]
            start = found.end()
    return "".join([*pieces, spoken_chinese(text[start:])])
