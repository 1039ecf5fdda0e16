"""Engraving: a tune as a picture of its score, SVG and PNG, by Verovio (extra `engrave`).

Verovio reads MusicXML that we wrote from notes we counted: no text of a stranger reaches it but titles and words, and
these are escaped. What it says of its work goes nowhere.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genwright.core.errors import DataError, MissingExtra

from .abc import Tune
from .musicxml import musicxml_of

PICTURES = (".svg", ".png")
_NOTES = 4_000  # of a score; a second of work
_WORDS = 20_000  # under them
_ROOM = 1.25  # words are measured so much larger than they are drawn: other letters than Times are broader
_LYRIC = 4.5 * _ROOM
_PAGE = {"pageWidth": 2100, "pageHeight": 60_000, "adjustPageHeight": True, "scale": 40, "svgViewBox": True,
         "header": "auto", "footer": "none", "breaks": "smart", "lyricSize": _LYRIC, "inputFrom": "musicxml",
         "xmlIdSeed": 1}  # fmt: skip
_PLAIN = "Aileron"
_GROUND = '<rect width="100%" height="100%" style="fill:#fff;stroke:none"/>'
_SYLLABLE = re.compile(r'(class="syl">\s*<text[^>]*>\s*<tspan[^>]*>\s*<tspan font-size=")(\d+(?:\.\d+)?)px"')
_HAN = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
_PIXELS = 1_680  # width of a PNG


def engraved(tune: Tune, *, verses: Sequence[Mapping[int, str]] = ()) -> str:
    """The score as SVG on one page that is as high as it must be, with its title and words; the same tune gives the
    same text. Raises DataError for a tune beyond all measure, MissingExtra without Verovio."""
    words = sum(len(verse) for verse in verses)
    if len(tune.notes) > _NOTES or words > _WORDS:
        raise DataError(
            f"A score of {len(tune.notes):,} notes and {words:,} words is not engraved.",
            f"Up to {_NOTES:,} and {_WORDS:,} are; cut the tune.",
        )
    verovio = engraver()
    verovio.enableLog(verovio.LOG_OFF)
    writer = verovio.toolkit()
    writer.setOptions(_PAGE)
    if not writer.loadData(musicxml_of(tune, verses=[_broad(verse) for verse in verses])) or writer.getPageCount() != 1:
        raise DataError("The score cannot be engraved.", "Look at the tune: it may be empty, or too long for a page.")
    return _plain(writer.renderToSVG(1))


def engraver() -> Any:
    """Verovio's module. Raises MissingExtra without it."""
    try:
        import verovio
    except ImportError:
        raise MissingExtra("verovio", "engrave") from None
    return verovio


def picture_of(svg: str) -> bytes:
    """The score as a PNG on white; letters that are not Latin come from this machine's fonts. Raises MissingExtra
    without resvg-py, UsageError where words are Chinese and no font has such letters."""
    try:
        import resvg_py
    except ImportError:
        raise MissingExtra("resvg-py", "image") from None
    from PIL import Image

    from .design import font_for

    font_for(svg, 12)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.ttf"  # Pillow's own: not every machine has a Times
        plain.write_bytes(font_for("", 12).font_bytes)
        drawn = resvg_py.svg_to_bytes(svg_string=svg, width=_PIXELS, background="#ffffff", skip_system_fonts=False,
                                      font_files=[str(plain)], serif_family=_PLAIN)  # fmt: skip
    out = io.BytesIO()
    Image.open(io.BytesIO(drawn)).convert("L").save(out, "PNG", optimize=True)
    return out.getvalue()


def _broad(verse: Mapping[int, str]) -> dict[int, str]:
    """Chinese words with room behind them: Verovio takes their letters for narrow ones."""
    return {place: words + "\u00a0" * len(_HAN.findall(words)) for place, words in verse.items()}


def _plain(svg: str) -> str:
    """On white, words in their own size, and without the size of nothing around them, which some programs take at its
    word."""
    svg = svg.replace(' font-size="0px"', "")
    svg = _SYLLABLE.sub(lambda found: f'{found[1]}{round(float(found[2]) / _ROOM)}px"', svg)
    return svg.replace('<svg class="definition-scale"', f'{_GROUND}<svg class="definition-scale"', 1)
