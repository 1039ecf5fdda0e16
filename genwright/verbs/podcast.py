"""Podcast: a script for several voices said aloud, with pauses, music, chapters and a transcript."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genwright.core import SILENT, Tell, UsageError, write_text
from genwright.trust.ledger import Ledger

from .mix import finish, mix_options, opened, source_of
from .script import Script, read_script
from .speaking import Speakers
from .subtitles import vtt


def podcast(
    script: Path,
    out: Path,
    *,
    bed: Path | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    ledger: Ledger | Path | None = None,
    tell: Tell = SILENT,
) -> dict[str, Any]:
    """Say a script (`verbs/script.py` tells how one is written) and write the whole, labelled; `bed` and `options` go
    before the script's own.

    Beside `out` lie `.vtt` (who says what when), `.txt` (the transcript) and, with chapters, `.chapters.json`
    (JSON Chapters 1.2, as podcast players read them). Returns what `mix` does, and "lines", "chapters", "files".
    Raises UsageError and DataError as reading a script and mixing do.
    """
    from genwright.media.mix import mixed, timeline
    from genwright.media.sound import writable

    play = read_script(script)
    how = mix_options(play.head.mix | dict(options or {}))
    writable([out])
    bed = bed or play.head.bed
    music = opened(bed) if bed else None
    lead = how.lead if music else 0.0  # everything that is said comes so much later
    parts = out.with_name(f".{out.name}.parts")
    said = sum(line.kind == "say" for line in play.lines)
    tell.stage(f"Saying {said} lines", total=said)
    placed, spoken, chapters, sources = _said(play, parts, seed, tell)
    sounds = [one.sound for one in placed]
    voice = timeline(placed, rate=max(s.rate for s in sounds), channels=max(s.channels for s in sounds))
    whole = mixed(voice, music, how)
    sources += [source_of(bed, ledger)] if bed else []
    found = finish(whole, out, sources, ledger=ledger, tell=tell)
    chapters = [chapter | {"startTime": round(chapter["startTime"] + lead, 3) if number else 0.0}
                for number, chapter in enumerate(chapters)]  # fmt: skip
    spoken = [cue | {"start": cue["start"] + lead, "end": cue["end"] + lead} for cue in spoken]
    files = _written(out, play, spoken, chapters)
    shutil.rmtree(parts, ignore_errors=True)
    return found | {"lines": len(spoken), "chapters": chapters, "files": [str(path) for path in files]}


def _said(play: Script, parts: Path, seed: int, tell: Tell) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """The lines' sounds placed, their cues, the chapters and the sources; the first line stands at 0 seconds."""
    from genwright.media.mix import Placed

    placed, spoken, chapters, sources = list[Any](), list[Any](), list[Any](), list[Any]()
    at, opening = 0.0, True  # nothing to pause after
    with Speakers(parts, seed) as speakers:
        for line in play.lines:
            if line.kind == "pause":
                at += line.seconds
                continue
            if line.kind == "chapter":
                at += play.head.chapter_pause if placed else 0.0
                chapters.append({"startTime": at, "title": line.text})
                opening = True
                continue
            at += 0.0 if opening else play.head.pause
            one = speakers.say(line.text, play.voices[line.who])
            placed.append(Placed(at, one.sound))
            sources.append(one.source)
            spoken.append({"start": at, "end": at + one.sound.seconds, "who": line.who, "text": line.text})
            at, opening = at + one.sound.seconds, False
            tell.advance()
    return placed, spoken, chapters, sources


def _written(out: Path, play: Script, spoken: list[Any], chapters: list[Any]) -> list[Path]:
    """The transcript as cues and as text, and the chapters."""
    cues = [cue | {"text": f"<v {cue['who']}>{_plain(cue['text'])}"} for cue in spoken]
    texts = {out.with_suffix(".vtt"): vtt(cues), out.with_suffix(".txt"): _transcript(play, spoken)}
    if chapters:
        whole = {"version": "1.2.0", "title": play.head.title, "chapters": chapters}
        texts[out.with_suffix(".chapters.json")] = json.dumps(whole, ensure_ascii=False, indent=1) + "\n"
    for path, text in texts.items():
        try:
            write_text(path, text)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}.", "Make room.") from None
    return list(texts)


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _transcript(play: Script, spoken: list[Any]) -> str:
    lines = [f"{play.head.title}\n\n"] if play.head.title else []
    for cue in spoken:
        whole = int(cue["start"])
        lines.append(f"[{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}] {cue['who']}: {cue['text']}\n")
    return "".join(lines)
