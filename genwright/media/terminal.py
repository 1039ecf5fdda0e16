"""Terminal: a picture where words stand, by the protocol of kitty or iTerm2, else as half blocks in colour."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .picture import encoded, open_picture, rgb

_LONGEST = 4096  # characters of base64 in one of kitty's escapes
_SIDE = 512  # pixels sent to a terminal that shows pixels
_COLUMNS = 48  # characters of a picture in half blocks


def for_terminal(path: Path, environment: Mapping[str, str], width: int) -> str:
    """What to write so that a terminal of `width` columns shows the picture; empty for one that has no colours.

    Known by their environment: kitty, Ghostty and WezTerm (kitty's graphics protocol), iTerm2 and mintty (inline
    images); others that tell of colours get two pixels a character.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term in ("", "dumb") or "NO_COLOR" in environment:
        return ""
    picture = rgb(open_picture(path))
    inside = environment.get("TMUX") or environment.get("STY")  # which pass such protocols on only when told to
    if not inside and ("KITTY_WINDOW_ID" in environment or program.lower() in ("ghostty", "wezterm")):
        return _kitty(_small(picture))
    if not inside and program in ("iTerm.app", "mintty"):
        return _iterm(_small(picture))
    true = environment.get("COLORTERM", "") in ("truecolor", "24bit") or term.endswith("-direct")
    if true or "256color" in term:
        return half_blocks(picture, min(width, _COLUMNS), true=true)
    return ""


def half_blocks(picture: Any, columns: int, *, true: bool = True) -> str:
    """Two pixels a character: the upper one is its colour, the lower one its ground. Without `true` colours, those of
    the 256-colour palette's cube."""
    import numpy as np

    columns = max(2, columns)
    rows = max(1, round(columns * picture.height / picture.width / 2))
    pixels = np.asarray(picture.resize((columns, 2 * rows))).reshape(rows, 2, columns, 3)
    lines = ("".join(_cell(up, down, true) for up, down in zip(*pair, strict=True)) for pair in pixels)
    return "".join(f"{line}\x1b[0m\n" for line in lines)


def _cell(up: Any, down: Any, true: bool) -> str:
    if true:
        return "\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*up, *down)
    numbers = [16 + 36 * (int(r) * 5 // 255) + 6 * (int(g) * 5 // 255) + int(b) * 5 // 255 for r, g, b in (up, down)]
    return f"\x1b[38;5;{numbers[0]};48;5;{numbers[1]}m▀"


def _kitty(picture: Any) -> str:
    """PNG in pieces: a=T shows at once, f=100 is PNG, m tells of more to come."""
    data = b64encode(encoded(picture, ".png")).decode()
    pieces = [data[at : at + _LONGEST] for at in range(0, len(data), _LONGEST)]
    made = []
    for number, piece in enumerate(pieces):
        head = ("a=T,f=100," if not number else "") + f"m={int(number < len(pieces) - 1)}"
        made.append(f"\x1b_G{head};{piece}\x1b\\")
    return "".join(made) + "\n"


def _iterm(picture: Any) -> str:
    data = encoded(picture, ".png")
    return f"\x1b]1337;File=inline=1;size={len(data)}:{b64encode(data).decode()}\a\n"


def _small(picture: Any) -> Any:
    """At most _SIDE pixels a side; tiny pictures are made larger, pixel by pixel, so that they can be seen."""
    factor = max(1, 192 // max(picture.size))
    if factor > 1:
        return picture.resize((picture.width * factor, picture.height * factor), 0)
    picture = picture.copy()
    picture.thumbnail((_SIDE, _SIDE))
    return picture
