"""Block or redact words and phrases, also when they are disguised (b.o.m.b, b0mb, full width, look-alike letters)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from genwright.core import DataError, FilePath, Finding, Part, Verdict, did_you_mean
from genwright.trust.guarding import GuardSettings
from genwright.trust.normalise import View, is_spaced_letter, one_letter, readings

_LISTS = Path(__file__).parent.parent / "lists"
_SPARED = ""  # the rule of phrases that are left alone


class Settings(GuardSettings):
    words: tuple[str, ...] = Field((), description="Words and phrases")
    files: tuple[FilePath, ...] = Field(
        (),
        description="Text files with one word or phrase a line; # begins a comment, `not:` a phrase to spare. The rule "
        "is the file's name",
    )
    lists: tuple[str, ...] = Field((), description="Lists that ship with Genwright: sexual (English and Chinese)")
    spare: tuple[str, ...] = Field((), description="Phrases in which a listed word is meant otherwise (naked eye)")
    action: Literal["block", "redact", "note"] = Field(
        "block", description="block refuses, redact replaces, note only writes it in the ledger"
    )
    whole_words: bool = Field(
        True, description="In scripts with spaces, find words only, not parts of words (Scunthorpe is a town)"
    )
    disguises: bool = Field(True, description="See through digits and signs for letters, and separators between them")
    max_gap: int = Field(3, ge=1, le=20, description="Most characters between two letters that are seen through")
    replacement: str = Field("[…]", description="What stands in place of redacted words; {rule} is the list's name")

    @model_validator(mode="after")
    def _some(self) -> Settings:
        if not self.words and not self.files and not self.lists:
            raise ValueError("needs `words`, `files` or `lists`")
        return self

    @field_validator("lists")
    @classmethod
    def _known(cls, lists: tuple[str, ...]) -> tuple[str, ...]:
        ships = sorted(path.stem for path in _LISTS.glob("*.txt"))
        for name in lists:
            if name not in ships:
                raise ValueError(f"there is no list {name!r}. {did_you_mean(name, ships)}")
        return lists

    @cached_property
    def phrases(self) -> _Lists:
        """The words, ready to be looked for; read at the first look."""
        return _read(self)


def check(parts: Sequence[Part], settings: Settings) -> Verdict:
    """Every listed phrase in every reading of the parts' text. Raises DataError when a list cannot be read."""
    text, lists = "".join(part.text for part in parts), settings.phrases
    spans: dict[tuple[int, int], str] = {}
    for view in readings(text, leet=settings.disguises):
        for first, last, entry in _matches(view, lists):
            if _holds(text, view, first, last, entry, settings):
                spans.setdefault((view.starts[first], view.ends[last - 1]), entry.rule)
    findings = tuple(Finding(rule, start, end) for (start, end), rule in sorted(_unspared(spans).items()))
    if not findings:
        return Verdict()
    rules = ", ".join(sorted({finding.rule for finding in findings}))
    action = "allow" if settings.action == "note" else settings.action
    return Verdict(action, findings, f"words of the list {rules}", settings.replacement)


def undecided(text: str, settings: Settings) -> int:
    """Where the longest ending begins that may still grow into a listed word, in any reading."""
    lists = settings.phrases
    base = max(0, len(text) - lists.longest * (2 + settings.max_gap) - 16)
    place = len(text)
    for view in readings(text[base:], leet=settings.disguises, eager=True):
        for size in range(min(lists.longest, len(view.text)), 0, -1):
            if view.text[-size:] in lists.beginnings:
                place = min(place, base + view.starts[-size])
                break
    return place


def context(settings: Settings) -> int:
    """The word before, and enough to tell the alphabet of the text."""
    return 40


# -- the lists --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """A listed phrase: the name of its list, and after how many letters it has a gap of its own."""

    rule: str
    gaps: frozenset[int]


@dataclass(frozen=True)
class _Lists:
    entries: dict[str, tuple[_Entry, ...]]  # squeezed phrase -> who lists it
    sizes: tuple[tuple[int, dict[str, tuple[int, ...]]], ...]  # head length, {head: lengths of phrases that begin so}
    beginnings: frozenset[str]
    longest: int


def _read(settings: Settings) -> _Lists:
    entries: dict[str, set[_Entry]] = {}
    for rule, phrase in _phrases(settings):
        for view in readings(phrase, leet=False)[:2]:  # as it is, and with its look-alikes as Latin
            gaps = [i for i in range(1, len(view.text)) if view.ends[i - 1] < view.starts[i]]
            for form in {view.text, one_letter(view.text)} - {""}:
                entries.setdefault(form, set()).add(_Entry(rule, frozenset(gaps)))
    sizes: dict[int, dict[str, set[int]]] = {}
    for word in entries:
        head = word[: min(3, len(word))]
        sizes.setdefault(len(head), {}).setdefault(head, set()).add(len(word))
    return _Lists(
        {word: tuple(found) for word, found in entries.items()},
        tuple((n, {head: tuple(sorted(found)) for head, found in heads.items()}) for n, heads in sizes.items()),
        frozenset(word[:size] for word in entries for size in range(1, len(word) + 1)),
        max(map(len, entries), default=0),
    )


def _phrases(settings: Settings) -> Iterator[tuple[str, str]]:
    """(rule, phrase) of all that is listed."""
    for word in settings.words:
        yield "keyword", word
    for word in settings.spare:
        yield _SPARED, word
    for path in (*settings.files, *(_LISTS / f"{name}.txt" for name in settings.lists)):
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"The list of words {path} cannot be read: {error}", "Give a UTF-8 text file.") from None
        for line in lines:
            word = line.partition("#")[0].strip()
            if word.startswith("not:"):
                yield _SPARED, word[4:].strip()
            elif word:
                yield Path(path).stem, word


def _unspared(spans: dict[tuple[int, int], str]) -> dict[tuple[int, int], str]:
    """Without the phrases that are left alone, and without what lies in one."""
    spared = [span for span, rule in spans.items() if rule == _SPARED]
    return {
        (start, end): rule
        for (start, end), rule in spans.items()
        if rule != _SPARED and not any(low <= start and end <= high for low, high in spared)
    }


# -- matching ---------------------------------------------------------------------------------------------------------


def _matches(view: View, lists: _Lists) -> Iterator[tuple[int, int, _Entry]]:
    """(first letter, after the last letter, entry) of every phrase in the squeezed text. Linear in its length."""
    text, entries = view.text, lists.entries
    for head, sizes in lists.sizes:
        for at in range(len(text)):
            for size in sizes.get(text[at : at + head], ()):
                if at + size <= len(text):
                    for entry in entries.get(text[at : at + size], ()):
                        yield at, at + size, entry


def _holds(text: str, view: View, first: int, last: int, entry: _Entry, settings: Settings) -> bool:
    """Whether a match is the phrase and no accident of neighbouring words ("the pen is mine")."""
    if settings.whole_words and (_goes_on(view, first - 1, first) or _goes_on(view, last - 1, last)):
        return False
    inner = [
        (view.text[i - 1], text[view.ends[i - 1] : view.starts[i]])
        for i in range(first + 1, last)
        if view.ends[i - 1] < view.starts[i] and i - first not in entry.gaps
    ]
    if not inner:
        return True
    if not settings.disguises or any(len(gap) > settings.max_gap for _, gap in inner):
        return False
    if len(inner) == last - first - 1 - len(entry.gaps) and last - first >= 3:
        return True  # every letter stands alone
    return all(
        not _PARTING.intersection(gap) if is_spaced_letter(c) else not _STOPS.intersection(gap) for c, gap in inner
    )


def _goes_on(view: View, i: int, j: int) -> bool:
    """Whether the letters i and j = i + 1 stand in the same word."""
    if i < 0 or j >= len(view.text) or view.ends[i] < view.starts[j]:
        return False
    left, right = view.text[i], view.text[j]
    return is_spaced_letter(left) and is_spaced_letter(right) and left.isdigit() == right.isdigit()


_PARTING = frozenset(" \t\n\r'’ʼ`´/\u3000\u00a0")  # parts words, or joins them rightly (he'll, and/or)
_STOPS = frozenset("。！？；，、：!?;,:\n\r")  # parts sentences
