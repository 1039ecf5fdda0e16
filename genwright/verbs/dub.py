"""Dub: a subtitle file said aloud, each cue in its time, over the sound that is already there or over none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from genwright.core import SILENT, DataError, Tell, UsageError
from genwright.trust.ledger import Ledger

from .mix import finish, mix_options, opened, source_of
from .speaking import Speakers, Spoken, VoiceChoice
from .subtitles import read_subtitles

SLACK = 0.5  # seconds that a cue may sound longer than it is shown
_GAP = 0.05  # seconds between two cues at least
_NOT_SAID = re.compile(r"\[[^\]]{0,200}\]|[♪♫]")  # [music], [door opens]
_WORD = re.compile(r"[^\W_]")


@dataclass(frozen=True)
class Fit:
    """How a cue came out. `start` and `end` are its times (seconds), `said_from` and `said_to` those of its sound;
    `late` is how much later it begins, `over` how much longer it sounds than its end and the slack allow."""

    text: str
    start: float
    end: float
    said_from: float
    said_to: float
    speed: float
    late: float
    over: float

    @property
    def fits(self) -> bool:
        return not self.late and not self.over


def dub(
    subtitles: Path,
    out: Path,
    *,
    who: VoiceChoice = VoiceChoice(),  # noqa: B008 (frozen)
    fastest: float = 1.5,
    bed: Path | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    ledger: Ledger | Path | None = None,
    tell: Tell = SILENT,
) -> dict[str, Any]:
    """Say every cue of a .srt or .vtt file at its time and write the whole, labelled.

    A cue that is too long for its time is said faster, up to `fastest` times; one that does not fit even so sounds to
    its end, and the next waits for it: nothing is cut and no two speak at once. `bed` (a film's music, say) plays from
    the first second and goes down under the words; `options` are those of mixing. Returns what `mix` does, and
    "cues", "silent" (cues without words), "misfits" (a `Fit` each). Raises DataError for no subtitles.
    """
    from genwright.media.mix import Placed, mixed, timeline
    from genwright.media.recitation import hurried
    from genwright.media.sound import writable

    if not 1 <= fastest <= 3:
        raise UsageError(f"`fastest` is {fastest:g}.", "From 1 (never faster) to 3 can be understood.")
    how = mix_options({"lead": 0, "tail": 0, "length": "bed"} | dict(options or {}))
    writable([out])
    cues = _cues(subtitles)
    said = [cue for cue in cues if _WORD.search(cue["text"])]
    if not said:
        raise DataError(f"{subtitles} holds no words.", "Its cues are empty, or name sounds in brackets.")
    parts = out.with_name(f".{out.name}.parts")
    fits, placed, sources, free = list[Fit](), list[Placed](), [], 0.0
    tell.stage(f"Saying {len(said)} cues", total=len(said))
    with Speakers(parts, seed) as speakers:
        for cue, following in zip(said, [*said[1:], None], strict=True):
            begin = max(float(cue["start"]), free)
            until = min(cue["end"] + SLACK, following["start"] - _GAP if following else float("inf"))
            say = partial(_said_at, speakers, cue["text"], who)
            line, speed = hurried(say, until - begin, speed=who.speed, most=max(who.speed, fastest))
            free = begin + line.sound.seconds + _GAP
            placed.append(Placed(begin, line.sound))
            sources.append(line.source)
            fits.append(_fit(cue, begin, line.sound.seconds, until, speed))
            tell.advance()
    voice = timeline(placed, rate=placed[0].sound.rate, channels=placed[0].sound.channels)
    whole = mixed(voice, opened(bed) if bed else None, how)
    sources += [source_of(bed, ledger)] if bed else []
    found = finish(whole, out, sources, ledger=ledger, tell=tell)
    shutil.rmtree(parts, ignore_errors=True)
    return found | {"cues": len(said), "silent": len(cues) - len(said),
                    "misfits": [asdict(fit) for fit in fits if not fit.fits]}  # fmt: skip


def _cues(path: Path) -> Sequence[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Look at its name.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not written in UTF-8.", "Save it so.") from None
    return [cue | {"text": _NOT_SAID.sub("", cue["text"]).strip()} for cue in read_subtitles(text)]


def _said_at(speakers: Speakers, text: str, who: VoiceChoice, speed: float) -> Spoken:
    return speakers.say(text, who, speed=speed)


def _fit(cue: Mapping[str, Any], begin: float, seconds: float, until: float, speed: float) -> Fit:
    late, over = max(0.0, begin - cue["start"]), max(0.0, begin + seconds - until)
    times = (cue["start"], cue["end"], begin, begin + seconds, speed, late, over)
    return Fit(cue["text"], *(round(float(one), 3) for one in times))
