"""Sound: FLAC when saved, read from whatever libsndfile reads, within limits of bytes, seconds and channels."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from genwright.core import DataError, Modality, Part
from genwright.media.sound import (
    Sound,
    encoded,
    log_mel,
    open_sound,
    peaks,
    save_sound,
    sound_facts,
    sound_of,
    spectrogram,
)

_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_PLAYED = 30  # seconds of a sound that a page holds
_WIDTH, _HEIGHT = 480, 64  # pixels of a wave on a page
SHEET = "sounds.svg"
_BARS = " ▁▂▃▄▅▆▇█"


def save(content: Any, path: Path) -> Part:
    """Write a `Sound`, or (samples, rate), as the path's suffix says, whole or not at all."""
    sound = content if isinstance(content, Sound) else sound_of(*content)
    return Part("audio", path=save_sound(sound, path))


def read(part: Part) -> Sound:
    """Raises DataError when it is not there, no sound, damaged or beyond the limits."""
    if part.path is None:
        raise DataError("This part is no sound: it has no file.", "Give it a path.")
    return open_sound(part.path)


def check(file: Path | bytes) -> dict[str, str]:
    """Decodes it whole, so that what is damaged is known before anything is learned. Raises DataError."""
    facts, seconds = sound_facts(file), open_sound(file).seconds
    most = next((bound for bound in _SECONDS if seconds < bound), None)
    least = max((bound for bound in _SECONDS if bound <= seconds), default=0)
    return {
        "suffix": facts["suffix"],
        "length": f"{least}–{most} s" if most else f"{least} s and more",
        "rate": f"{facts['rate']:,} Hz",
        "channels": str(facts["channels"]),
    }


def html(part: Part) -> str:
    """A player with the sound inside (its first 30 seconds) below its wave and its spectrogram; what cannot be read is
    named."""
    try:
        sound = read(part)
    except DataError as error:
        return f"<em>{escape(error.message)}</em>"
    words = escape(part.text or (part.path.name if part.path else ""), quote=True)
    start = Sound(sound.mono().samples[: _PLAYED * sound.rate], sound.rate)
    data, picture = (b64encode(one).decode() for one in (encoded(start, ".flac"), spectrogram(start, _WIDTH)))
    return (
        f'<figure class="sound"><svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="wave">'
        f'<path d="{_wave(start)}" stroke="currentColor"/></svg><br>'
        f'<img width="{_WIDTH}" height="{_HEIGHT}" alt="spectrogram" src="data:image/png;base64,{picture}"><br>'
        f'<audio controls preload="none" src="data:audio/flac;base64,{data}">'
        f"</audio><figcaption>{words} {sound.seconds:.1f} s</figcaption></figure>"
    )


def _wave(sound: Sound) -> str:
    """The outline of a wave: from its least to its greatest sample in each column."""
    middle = _HEIGHT / 2
    return "".join(
        f"M{x + 0.5:g} {middle - high * middle:.1f}V{middle - low * middle + 0.5:.1f}"
        for x, (low, high) in enumerate(peaks(sound, _WIDTH).tolist())
    )


def terminal(part: Part, environment: Mapping[str, str], width: int) -> str:
    """One line of bars as high as the sound is loud, and its length."""
    if part.path is None:
        return ""
    sound = read(part)
    columns = max(8, min(width, 80) - 10)
    loud = abs(peaks(sound, columns)).max(1)
    bars = "".join(_BARS[round(min(1.0, float(one)) * (len(_BARS) - 1))] for one in loud)
    return f"{bars} {sound.seconds:.1f} s\n"


def views(part: Part) -> Any:
    """(1, 256): log power of 16 mel bands in 16 equal spans, from 30 dB below the greatest, centred and of length 1:
    how it goes, not how loud, and no noise below it."""
    import numpy as np

    bands = log_mel(read(part).at(16_000), bands=16)
    bands = np.maximum(bands, bands.max() - 3)
    spans = np.stack([piece.mean(0) for piece in np.array_split(np.repeat(bands, 16, axis=0), 16)]).reshape(1, -1)
    spans = spans - spans.mean()
    return spans / max(1e-9, float(np.linalg.norm(spans)))


def overview(parts: Sequence[Part], captions: Sequence[str], folder: Path) -> Path | None:
    """A drawing of the waves of the first sixteen, each under its caption."""
    if not parts:
        return None
    rows = []
    for row, (part, caption) in enumerate(zip(parts[:16], captions, strict=False)):
        sound, y = read(part), row * (_HEIGHT + 24)
        rows.append(f'<text x="4" y="{y + 16}">{escape(caption[:80])} ({sound.seconds:.1f} s)</text>')
        rows.append(f'<path transform="translate(0 {y + 20})" d="{_wave(sound)}" stroke="#246"/>')
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SHEET
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{len(rows) // 2 * (_HEIGHT + 24)}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(rows)}</svg>\n",
        encoding="utf-8",
    )
    return path


modality = Modality("audio", ".flac", save, read, check, html, overview, terminal, views, near=0.3)
