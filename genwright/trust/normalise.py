"""Normalise: read a text as a person reads it, through the disguises that hide a word from a program.

Seen through: width and font variants (NFKC), case, accents, invisible characters, look-alikes from other alphabets,
digits and signs that stand for letters (b0mb, $hit), separators put between letters (b.o.m.b) and stretched letters
(boooomb). Every character of the result knows where it stood, so a finding can be shown and cut in the original.

Look-alikes are read as Latin in words that mix alphabets, and in texts whose every letter of the other alphabet has a
Latin look-alike; a Russian or Greek sentence stays as it is. Traditional and simplified characters are not unified.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class View:
    """One reading of a text: letters and digits only. `text[i]` stood at [starts[i], ends[i]) of the original.

    Invisible characters belong to the letter before them, so between two letters lies only what can be seen.
    """

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]


_Unit = tuple[str, int, int]  # a folded character, and where it begins and ends in the original


def readings(text: str, *, leet: bool = True, eager: bool = False) -> list[View]:
    """All distinct readings of a text, the plainest first.

    >>> [view.text for view in readings("B\\u200bO-M b")]
    ['bomb']

    `eager` gives every reading that the end of the text may still turn out to have when more text follows.
    """
    units = _units(text)
    bases = [units]
    if any(c in _LOOKALIKE for c, _, _ in units):
        bases.append(_with_lookalikes(units, eager))
    if leet and any(c in _LEET for c, _, _ in units):
        bases += [_with_leet(base, eager) for base in tuple(bases)]
    found: dict[str, View] = {}
    for base in bases:
        view = _view(base)
        found.setdefault(view.text, view)
    for view in list(found.values()):
        if _STRETCHED.search(view.text):
            for keep in (1, 2):
                shorter = _shrunk(view, keep)
                found.setdefault(shorter.text, shorter)
    if eager:  # the last letter may yet be stretched
        for view in list(found.values()):
            size = len(view.text.rstrip(view.text[-1:]))
            found.setdefault(view.text[: size + 1], _first(view, size + 1))
    return list(found.values())


def one_letter(text: str) -> str:
    """A word as it reads where i and l cannot be told apart: to find k1ll, look for kiii too."""
    return text.replace("l", "i")


def is_spaced_letter(character: str) -> bool:
    """A letter or digit of a script that puts spaces between words (not Chinese, Japanese, Thai …)."""
    return character.isalnum() and not _UNSPACED.match(character)


_STRETCHED = re.compile(r"([^\W\d_])\1\1")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u31a0-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LEET = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b",
         "@": "a", "$": "s", "!": "i", "|": "i", "€": "e"}  # fmt: skip
_PAIRS = (
    "аa вb еe ёe кk мm нh оo рp сc тt уy хx іi їi јj ѕs һh ԁd ԛq ԝw ɡg ӏl ьb зz "  # Cyrillic
    "αa βb γy εe ηn ιi κk νv οo ρp σo τt υu χx ωw ζz "  # Greek
    "օo սu ոn հh ցg զq "  # Armenian
    "ᴀa ʙb ᴄc ᴅd ᴇe ꜰf ɢg ʜh ɪi ᴊj ᴋk ʟl ᴍm ɴn ᴏo ᴘp ʀr ꜱs ᴛt ᴜu ᴠv ᴡw ʏy ᴢz ıi ɑa ſs ƒf øo łl đd ħh ŧt"
)
_LOOKALIKE = {pair[0]: pair[1] for pair in _PAIRS.split()}
_BOXED = {chr(start + i): chr(97 + i) for start in (0x1F110, 0x1F130, 0x1F150, 0x1F170, 0x1F1E6) for i in range(26)}


def _units(text: str) -> list[_Unit]:
    """Folded characters with their places; a ligature gives several of one place, an invisible character none."""
    plain = [(c, place) for place, original in enumerate(text) for c in _fold(original)]
    ends: list[int] = []
    after, last = len(text), -1
    for _, place in reversed(plain):
        if place != last:
            end, after, last = after, place, place
        ends.append(end)
    return [(c, place, end) for (c, place), end in zip(plain, reversed(ends), strict=True)]


@cache  # as many entries as there are distinct characters
def _fold(character: str) -> str:
    """One character in its plainest form: compatible, without accent, small; nothing for an invisible one."""
    if character in _BOXED:
        return _BOXED[character]
    code = ord(character)
    if unicodedata.category(character) == "Cf" or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return ""
    if (
        0x300 <= code <= 0x36F
        or 0x1AB0 <= code <= 0x1AFF
        or 0x20D0 <= code <= 0x20FF
        or code in (0x115F, 0x1160, 0x3164, 0xFFA0)
    ):
        return ""
    plain = unicodedata.normalize("NFKC", character)
    if code < 0x2000:  # accents of Latin, Greek and Cyrillic; not the marks that Japanese or Hindi need
        plain = "".join(c for c in unicodedata.normalize("NFD", plain) if not 0x300 <= ord(c) <= 0x36F)
    return plain.casefold()


def _with_lookalikes(units: list[_Unit], eager: bool) -> list[_Unit]:
    """Foreign letters as the Latin ones they look like, where they pose as Latin."""
    foreign = [c for c, _, _ in units if c.isalpha() and not is_latin(c) and not _UNSPACED.match(c)]
    if eager or all(c in _LOOKALIKE for c in foreign):
        return [(_LOOKALIKE.get(c, c), start, end) for c, start, end in units]
    done, start = list(units), 0
    while start < len(units):
        end = start
        while end < len(units) and units[end][0].isalnum():
            end += 1
        if any(is_latin(c) for c, _, _ in units[start:end]):
            done[start:end] = [(_LOOKALIKE.get(c, c), first, last) for c, first, last in units[start:end]]
        start = end + 1
    return done


@cache
def is_latin(character: str) -> bool:
    return character.isalpha() and (character.isascii() or "LATIN" in unicodedata.name(character, ""))


def _with_leet(units: list[_Unit], eager: bool) -> list[_Unit]:
    """Digits and signs in words as letters. `1` may be an i or an l, so here every l is an i (see `one_letter`)."""
    done, at = [(one_letter(c), start, end) for c, start, end in units], 0
    groups = [(poses, list(word)) for poses, word in itertools.groupby(units, _may_pose)]
    words = [run for poses, run in groups if poses]
    posing = [eager or _is_word(words, number) for number in range(len(words))]
    number = 0
    for poses, run in groups:
        if poses and posing[number]:
            for i, (c, start, end) in enumerate(run):
                if c in _LEET and (eager or c not in "!|" or i + 1 < len(run)):  # at a word's end they are punctuation
                    done[at + i] = (_LEET[c], start, end)
        at, number = at + len(run), number + poses
    return done


def _may_pose(unit: _Unit) -> bool:
    return unit[0] in _LEET or is_latin(unit[0])


def _is_word(words: list[list[_Unit]], number: int) -> bool:
    """Digits are a number, a sign is a sign; with a letter among them or beside them (b.0.m.b) they are a word."""
    characters = {c for c, _, _ in words[number]}
    if len(words[number]) == 1:
        beside = words[max(0, number - 1) : number] + words[number + 1 : number + 2]
        return any(len(word) == 1 and is_latin(word[0][0]) for word in beside)
    return any(is_latin(c) for c in characters) or (len(characters) > 1 and not any(c.isdigit() for c in characters))


def _view(units: list[_Unit]) -> View:
    kept = [unit for unit in units if unit[0].isalnum()]
    return View("".join(u[0] for u in kept), tuple(u[1] for u in kept), tuple(u[2] for u in kept))


def _first(view: View, size: int) -> View:
    return View(view.text[:size], view.starts[:size], view.ends[:size])


def _shrunk(view: View, keep: int) -> View:
    """Unbroken runs of three and more of a letter cut down to `keep` (1 or 2); those cover the whole run."""
    text, starts, ends = [], list[int](), list[int]()
    at, size = 0, len(view.text)
    while at < size:
        last = at
        while last + 1 < size and view.text[last + 1] == view.text[at] and view.starts[last + 1] == view.ends[last]:
            last += 1
        if last - at >= 2 and view.text[at].isalpha():
            text.append(view.text[at] * keep)
            starts += [view.starts[at], view.starts[last]][:keep]
            ends += [view.starts[last], view.ends[last]][2 - keep :]
        else:
            text.append(view.text[at : last + 1])
            starts += view.starts[at : last + 1]
            ends += view.ends[at : last + 1]
        at = last + 1
    return View("".join(text), tuple(starts), tuple(ends))
