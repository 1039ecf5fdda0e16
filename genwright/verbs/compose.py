"""Compose: tunes of what words ask for, as sound with its notation beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genwright.core import SILENT, Part, Tell, UsageError, find_card, user

MODEL = "tunes"  # the card that composes when none is named
SOUNDFONT = "soundfont-gm"  # with which sound is made
_NOTATION = (".abc", ".mid", ".midi", ".musicxml")


def compose(
    prompt: str,
    out: Path,
    *,
    model: str = "",
    melody: Path | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
    tell: Tell = SILENT,
) -> list[dict[str, Any]]:
    """One entry a tune: {"abc", "file", "beside", "seconds", "told", "seed"}; `options` are those of the model.

    The file is a sound, or notation alone where `out` ends in .abc, .mid or .musicxml. What a card names is fetched
    when it is not here. Raises UsageError for a melody that cannot be read and for what cannot be asked.
    """
    from .ask import open_answerer
    from .models import pull

    given = dict(options or {})
    if melody is not None:
        try:
            given["melody"] = melody.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise UsageError(f"{melody} cannot be read: {why}.", "Name a file of ABC.") from None
    if out.suffix.lower() not in _NOTATION and not find_card(SOUNDFONT).is_here:
        pull(find_card(SOUNDFONT), tell=tell)
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
    texts = "".join(part.text for part in parts if part.kind == "text").split("X:")[1:]
    for abc, part in zip(texts, (part for part in parts if part.path), strict=True):
        meta = part.meta or {}
        more: dict[str, Any] = {name: meta[name] for name in ("beside", "seconds", "told", "seed") if name in meta}
        found.append({"abc": f"X:{abc}", "file": str(part.path), **more})
    return found
