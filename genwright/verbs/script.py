"""Script: who says what, in Markdown or YAML.

    ---
    title: Tea
    voices: {Anna: af_heart, Ben: {model: hibari, speed: 1.1}}
    bed: music.mp3            # beside the script; pause, chapter_pause and mix (options of mixing) may stand here too
    ---
    # How it began
    Anna: Tea is old. This line
    goes on here.
    (pause 1.5)
    Ben: How old?

As YAML the same keys stand beside `script`, a list of {Anna: words}, {chapter: title} and {pause: seconds}. Without
`voices` whoever speaks gets one of the usual ones, in order of appearance.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator

from genwright.core import DataError, FilePath, Settings, UsageError
from genwright.core.plugin import sentences

from .speaking import VoiceChoice

CAST = ("af_heart", "am_michael", "bf_emma", "bm_george", "af_bella", "am_fenrir")  # for voices that nobody chose
CHINESE_CAST = ("zf_xiaoyi", "zm_yunxi", "zf_xiaoxiao", "zm_yunjian")
_FRONT = re.compile(r"\A---[ \t]*\n(?P<inside>(?:(?!---).*\n)*)---[ \t]*(?:\n|\Z)")
_TURN = re.compile(r"([^\W\d_][\w .'·-]{0,39})[:：]\s*(.*)")
_PAUSE = re.compile(r"[(\[（]\s*(?:pause|停顿)\s*(\d{1,2}(?:\.\d{1,3})?)?\s*(?:s|seconds|秒)?\s*[)\]）]", re.IGNORECASE)
_LINK = re.compile(r"\[([^\[\]]{0,500})\]\([^()\s]{0,2000}\)")
_LONGEST = 200_000  # characters


class Head(Settings):
    """What stands above a script."""

    title: str = Field("", description="Of the whole")
    voices: dict[str, VoiceChoice] = Field({}, description="Name -> a voice, or {model, voice, speed}")
    pause: float = Field(0.4, ge=0, le=30, description="Seconds between two lines")
    chapter_pause: float = Field(1.2, ge=0, le=60, description="Seconds before a chapter")
    bed: FilePath | None = Field(None, description="Music under the voices, beside the script")
    mix: dict[str, Any] = Field({}, description="Options of mixing: {duck: 15, loudness: -18}")

    @field_validator("voices", mode="before")
    @classmethod
    def _short(cls, voices: Any) -> Any:
        if not isinstance(voices, Mapping):
            return voices
        return {name: {"voice": one} if isinstance(one, str) else one for name, one in voices.items()}


@dataclass(frozen=True)
class Line:
    """`kind` is say, pause or chapter."""

    kind: str
    text: str = ""
    who: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Script:
    head: Head
    lines: tuple[Line, ...]
    voices: Mapping[str, VoiceChoice]


def read_script(path: Path) -> Script:
    """Raises DataError for a file that cannot be read, UsageError for what is wrong in it, with its line."""
    try:
        text = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Look at its name.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not written in UTF-8.", "Save it so.") from None
    if len(text) > _LONGEST:
        raise DataError(f"{path} has {len(text):,} characters, more than {_LONGEST:,}.", "Make several of it.")
    if path.suffix.lower() in (".yaml", ".yml"):
        facts = _mapping(text, path)
        listed = facts.pop("script", None)
        head = _head(facts, path)
        lines = list(_listed(listed, path))
    else:
        front = _FRONT.match(text)
        head = _head(_mapping(front["inside"], path) if front else {}, path)
        before = text[: front.end()].count("\n") if front else 0
        lines = list(_written(text[front.end() :] if front else text, head, path, before))
    if not any(line.kind == "say" for line in lines):
        raise UsageError(f"Nobody says anything in {path}.", "Write lines like `Anna: Hello.`")
    return Script(head, tuple(lines), _cast(lines, head, path))


def _mapping(text: str, path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML: {str(error).splitlines()[0]}.", "Mend it.") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is no mapping of keys.", "title, voices, script …")
    return found


def _head(facts: Mapping[str, Any], path: Path) -> Head:
    try:
        return Head.model_validate(facts, context={"folder": path.parent})
    except ValidationError as error:
        wrong = "; ".join(f"{where}: {sentence}" for where, sentence in sentences(error, Head))
        raise UsageError(f"{path}: {wrong}", "Mend it and try again.") from None


def _listed(listed: Any, path: Path) -> Iterator[Line]:
    if not isinstance(listed, list):
        raise UsageError(f"{path} has no list `script`.", "script: [{Anna: Hello.}, {pause: 1}, {chapter: Two}]")
    for number, one in enumerate(listed, 1):
        if not isinstance(one, dict) or len(one) != 1:
            raise UsageError(f"{path}: item {number} of `script` is not one name with its words.", "{Anna: Hello.}")
        ((who, said),) = one.items()
        if who == "pause":
            yield Line("pause", seconds=_seconds(said, path))
        elif who == "chapter":
            yield Line("chapter", str(said))
        else:
            yield Line("say", _bare(str(said)), str(who))


def _written(text: str, head: Head, path: Path, before: int) -> Iterator[Line]:
    """The lines of a Markdown script; words without a name go on with the turn above."""
    who, words = (next(iter(head.voices)) if len(head.voices) == 1 else ""), list[str]()

    def turn() -> Iterator[Line]:
        said = _bare(" ".join(words))
        words.clear()
        if said:
            yield Line("say", said, who)

    for number, line in enumerate((one.strip() for one in _without_comments(text).split("\n")), before + 1):
        pause, named = _PAUSE.fullmatch(line), _TURN.match(_without_stars(line))
        if pause or line.startswith("#"):
            yield from turn()
            yield Line("pause", seconds=_seconds(pause[1] or 1, path)) if pause else Line("chapter", line.lstrip("# "))
        elif named and _is_name(named[1].strip(), head, path, number):
            yield from turn()
            who = named[1].strip()
            words.append(named[2])
        elif line and not who:
            raise UsageError(f"{path}, line {number}: nobody says {line[:40]!r}.", "Begin it with a name: `Anna: …`")
        elif line:
            words.append(line)
    yield from turn()


def _without_comments(text: str) -> str:
    """Without <!-- these -->, their line ends kept so that lines keep their numbers."""
    first, *others = text.split("<!--")
    pieces = [first]
    for other in others:
        inside, closed, after = other.partition("-->")
        pieces.append("\n" * inside.count("\n") + after if closed else f"<!--{other}")
    return "".join(pieces)


def _without_stars(line: str) -> str:
    """`**Anna:** Hello` begins a turn too."""
    return line.replace("**", "") if line.startswith("**") else line


def _is_name(name: str, head: Head, path: Path, number: int) -> bool:
    """Whether a turn begins: with any name where none are declared, else with one of those. Raises UsageError for a
    slip of the pen."""
    if not head.voices or name in head.voices:
        return True
    near = difflib.get_close_matches(name, head.voices, n=1, cutoff=0.7)
    if near:
        raise UsageError(f"{path}, line {number}: {name} has no voice.", f"Did you mean {near[0]}?")
    return False


def _seconds(said: Any, path: Path) -> float:
    try:
        found = float(said)
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found <= 60:
        raise UsageError(f"{path}: a pause of {said!r} cannot be.", "From 0 to 60 seconds.")
    return found


def _bare(text: str) -> str:
    """Words without Markdown's emphasis, code marks and links."""
    return re.sub(r"[*`]|(?<!\w)_|_(?!\w)", "", _LINK.sub(r"\1", text)).strip()


def _cast(lines: list[Line], head: Head, path: Path) -> Mapping[str, VoiceChoice]:
    names = dict.fromkeys(line.who for line in lines if line.kind == "say")
    if head.voices:
        if unknown := [name for name in names if name not in head.voices]:
            raise UsageError(f"{path}: {unknown[0]} has no voice.", f"There are: {', '.join(head.voices)}.")
        return head.voices
    chinese = any("\u3400" <= letter <= "\u9fff" for line in lines for letter in line.text)
    usual = CHINESE_CAST if chinese else CAST
    return {name: VoiceChoice(voice=usual[k % len(usual)]) for k, name in enumerate(names)}
