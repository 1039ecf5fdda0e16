"""Compose: tunes of what words ask for, as sound with its notation beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genwright.core import SILENT, Part, Tell, UsageError, find_card, user

MODEL = "tunes"  # the card that composes when none is named
SOUNDFONT = "soundfont-gm"  # with which sound is made
_TOLD = ("beside", "seconds", "told", "seed", "speaker", "lines", "times")
_SILENT = (".abc", ".mid", ".midi", ".musicxml", ".svg", ".png")


def compose(
    prompt: str,
    out: Path,
    *,
    model: str = "",
    melody: Path | None = None,
    lyrics: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
    tell: Tell = SILENT,
) -> list[dict[str, Any]]:
    """One entry a tune: {"abc", "file", "beside", "seconds", "told", "seed"}; `options` are those of the model.

    The file is a sound, or notation alone where `out` ends in .abc, .mid, .musicxml, or .svg or .png for a picture of
    the score (extra `engrave`). `lyrics`, a text or its file, are spoken (not sung) over the tune, each line from a
    bar line on; then an entry tells its "lines" too. What a card names is fetched when it is not here. Raises
    UsageError for a file that cannot be read and for what cannot be asked.
    """
    from genwright.media.abc import tunes_of
    from genwright.media.tune_words import facts_in

    from .ask import open_answerer
    from .models import pull

    given = dict(options or {})
    if melody is not None:
        given["melody"] = _read(melody, "Name a file of ABC.")
    if lyrics is not None:
        given["lyrics"] = _read(lyrics, "Name a file of text.") if isinstance(lyrics, Path) else lyrics
    for card in _needed(out, given):
        if not find_card(card).is_here:
            pull(find_card(card), tell=tell)
    if prompt.strip() and not (melody or facts_in(prompt)):
        tell.note(f"Nothing in {prompt[:60]!r} names a key, metre, rhythm, region or length, so any tune may come.")
    answerer = open_answerer(model or MODEL, task="text_to_music")
    found: list[dict[str, Any]] = []
    parts: list[Part] = []
    tell.stage(f"Composing {out.name}")
    try:
        for part in answerer.ask([user(prompt)], options=given, seed=seed, out=out):
            tell.advance()
            parts.append(part)
    finally:
        answerer.close()
    texts = [f"{text}\n" for _, text in tunes_of("".join(part.text for part in parts if part.kind == "text"))]
    files = [(part, part.meta or {}) for part in parts if part.path]
    for abc, (part, meta) in zip(texts, [one for one in files if "told" in one[1]], strict=True):
        more: dict[str, Any] = {name: meta[name] for name in _TOLD if name in meta}
        pictures = [
            str(other.path) for other, facts in files if "told" not in facts and facts["number"] == meta["number"]
        ]
        found.append({"abc": abc, "file": str(part.path), **more, **({"pictures": pictures} if pictures else {})})
    return found


def _needed(out: Path, given: Mapping[str, Any]) -> Iterator[str]:
    """The cards of what makes sound."""
    from genwright.nn.voice_options import PACKAGED, usual_card

    if out.suffix.lower() not in _SILENT:
        yield SOUNDFONT
    if words := given.get("lyrics"):
        card = given.get("speaker") or usual_card(str(words), given.get("voice"))
        if card in PACKAGED.values():
            yield card


def _read(path: Path, hint: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"{path} cannot be read: {why}.", hint) from None
