"""Subtitles: segments of speech as SubRip (.srt) and WebVTT (.vtt), written and read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from genwright.core.errors import DataError

_TIMES = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2})[,.](\d{1,3})\s*-->\s*(?:(\d+):)?(\d{1,2}):(\d{2})[,.](\d{1,3})")


def srt(segments: Iterable[Mapping[str, Any]]) -> str:
    """Of {"start", "end" (seconds), "text"}.

    >>> print(srt([{"start": 0.0, "end": 1.5, "text": " Hello."}]), end="")
    1
    00:00:00,000 --> 00:00:01,500
    Hello.
    <BLANKLINE>
    """
    return "".join(
        f"{number}\n{_clock(one['start'], ',')} --> {_clock(one['end'], ',')}\n{_words(one)}\n\n"
        for number, one in enumerate(segments, 1)
    )


def vtt(segments: Iterable[Mapping[str, Any]]) -> str:
    """The same as WebVTT (W3C); in a segment that has `words` with times, each word but the first says when it begins.

    >>> words = [{"word": "Hello", "start": 0.0, "end": 0.5}, {"word": "you.", "start": 0.6, "end": 0.9}]
    >>> print(vtt([{"start": 0.0, "end": 1.0, "text": " Hello you.", "words": words}]), end="")
    WEBVTT
    <BLANKLINE>
    00:00:00.000 --> 00:00:01.000
    Hello <00:00:00.600>you.
    <BLANKLINE>
    """
    cues = (f"{_clock(one['start'], '.')} --> {_clock(one['end'], '.')}\n{_timed(one)}\n\n" for one in segments)
    return "WEBVTT\n\n" + "".join(cues)


def by_words(segments: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A cue for each word of segments that have `words`."""
    return [{"start": word["start"], "end": word["end"], "text": word["word"]}
            for one in segments for word in one.get("words") or ()]  # fmt: skip


def read_subtitles(text: str) -> list[dict[str, Any]]:
    """The cues of either format in order of time. Raises DataError for none, or for one that ends too early."""
    found: list[dict[str, Any]] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines = block.strip().split("\n")
        at = next((k for k, line in enumerate(lines) if _TIMES.search(line)), None)
        if at is None:
            continue
        times = _TIMES.search(lines[at])
        assert times
        start, end = (_seconds(*times.groups()[k : k + 4]) for k in (0, 4))
        if end < start:
            raise DataError(f"The cue at {lines[at]} ends before it begins.", "Mend its times.")
        words = re.sub(r"<[^>]*>", "", " ".join(lines[at + 1 :])).strip()
        found += [{"start": start, "end": end, "text": words}] if words else []
    if not found:
        raise DataError("There is no subtitle in it.", "Give a .srt or .vtt file.")
    return sorted(found, key=lambda cue: float(cue["start"]))


def _clock(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"


def _timed(one: Mapping[str, Any]) -> str:
    """The words of a segment, those after the first with their times; as its text spaces them."""
    words, text = list(one.get("words") or ()), str(one["text"]).strip()
    said, at = "", 0
    for number, word in enumerate(words):
        found = text.find(word["word"], at)
        if found < 0:  # other words than the text's
            return _words(one)
        said += text[at:found] + (f"<{_clock(word['start'], '.')}>" if number else "") + word["word"]
        at = found + len(word["word"])
    return (said + text[at:]).replace("-->", "→") if words else _words(one)


def _words(one: Mapping[str, Any]) -> str:
    return str(one["text"]).strip().replace("-->", "→")


def _seconds(hours: str | None, minutes: str, seconds: str, part: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(part.ljust(3, "0")) / 1000
