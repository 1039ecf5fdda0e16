"""Design: a painted thing becomes an app icon, a pattern that repeats without seams, or a cover with a title.

The thing is cut out of its white ground, colours are taken from it, and words are set so that they can be read
(contrast of at least 4.5 to 1, WCAG 2.2, 1.4.3). All of it is arithmetic on pixels: the same picture, options and
number give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal

import numpy as np
from pydantic import Field

from genwright.core.errors import UsageError
from genwright.core.plugin import Settings

READABLE = 4.5  # contrast of words to what they stand on
_SETS: dict[str, tuple[tuple[float, float], ...]] = {
    "grid": ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)),
    "brick": ((0.25, 0.25), (0.75, 0.25), (0.0, 0.75), (0.5, 0.75)),
    "drop": ((0.25, 0.25), (0.75, 0.5), (0.25, 0.75), (0.75, 0.0)),
    "tossed": ((0.18, 0.22), (0.68, 0.12), (0.43, 0.52), (0.9, 0.6), (0.12, 0.78), (0.63, 0.88)),
}
_TURNED = (0, 25, -20, 40, -35, 15)  # degrees of what is tossed
_FONTS = ("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
          "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc", "/usr/share/fonts/truetype/arphic/uming.ttc",
          "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf", "/System/Library/Fonts/PingFang.ttc",
          "C:/Windows/Fonts/msyh.ttc")  # fmt: skip


DESIGN = "Make an icon, a pattern or a cover of what is painted: {kind: cover, title: Fresh, width: 1200, height: 630}"


class Design(Settings):
    """What becomes of a painted thing."""

    kind: Literal["icon", "pattern", "cover"] = Field(
        description="icon: on a plate, for an app; pattern: a tile that repeats without seams; cover: beside a title"
    )
    width: int = Field(512, ge=32, le=4096, description="Pixels of the whole")
    height: int | None = Field(None, ge=32, le=4096, description="Pixels of the whole; null is as high as wide")
    ground: str = Field(
        "", max_length=40, description="Colour behind the thing (#ffcc00, navy); empty is one that suits it"
    )
    plate: Literal["rounded", "circle", "square", "none"] = Field("rounded", description="Shape of an icon's plate")
    arrangement: Literal["grid", "brick", "drop", "tossed"] = Field("tossed", description="How a pattern's things lie")
    scale: float = Field(0.6, gt=0, le=1, description="How much of its room the thing takes")
    title: str = Field("", max_length=120, description="A cover's title")
    subtitle: str = Field("", max_length=240, description="Smaller words below it")
    font: str = Field(
        "", description="A TrueType or OpenType file; empty is Pillow's own, or one of this machine that has Chinese"
    )


def designed(picture: Any, how: Design) -> Any:
    """A PIL image of the size asked for: RGBA for an icon, else RGB.

    Raises UsageError for a colour or a font that is none, and for words that this machine has no letters for.
    """
    thing = cut_out(picture)
    ground = colour_of(how.ground) if how.ground else suiting(thing)
    size = (how.width, how.height or how.width)
    return {"icon": _icon, "pattern": _pattern, "cover": _cover}[how.kind](thing, ground, size, how)


def cut_out(picture: Any) -> Any:
    """RGBA, cropped to what is there: white that is reached from the border becomes clear, with soft edges."""
    from PIL import Image, ImageChops, ImageDraw, ImageFilter

    if picture.mode == "RGBA" and picture.getextrema()[3][0] == 0:
        cut = picture
    else:
        plain = picture.convert("RGB")
        near = plain.point(lambda value: 255 if value >= 236 else 0).split()
        white = ImageChops.multiply(ImageChops.multiply(near[0], near[1]), near[2])
        around = Image.new("L", (plain.width + 2, plain.height + 2), 255)
        around.paste(white, (1, 1))
        ImageDraw.floodfill(around, (0, 0), 128)
        there = around.crop((1, 1, plain.width + 1, plain.height + 1)).point(lambda value: 0 if value == 128 else 255)
        cut = plain.convert("RGBA")
        cut.putalpha(ImageChops.darker(there, there.filter(ImageFilter.GaussianBlur(max(0.6, plain.width / 256)))))
    box = cut.getchannel("A").point(lambda value: 255 if value > 8 else 0).getbbox()
    return cut.crop(box) if box else cut


def suiting(thing: Any) -> tuple[int, int, int]:
    """A light tint of the hue opposite to the thing's own, on which it stands out."""
    import colorsys

    pixels = np.asarray(thing.convert("RGBA"), np.float64).reshape(-1, 4)
    weight = pixels[:, 3] * (pixels[:, :3].max(1) - pixels[:, :3].min(1) + 1)
    red, green, blue = (pixels[:, :3] * weight[:, None]).sum(0) / max(weight.sum(), 1e-9) / 255
    hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
    tint = colorsys.hsv_to_rgb((hue + 0.5) % 1, 0.06 + 0.22 * saturation, 0.97)
    return tuple(round(255 * one) for one in tint)  # type: ignore[return-value]


def colour_of(name: str) -> tuple[int, int, int]:
    """Red, green, blue from 0 to 255. Raises UsageError."""
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(name)[:3]
    except ValueError:
        raise UsageError(
            f"There is no colour {name!r}.", "Write it as #ffcc00, or by a CSS name such as navy."
        ) from None


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """From 1 to 21 (WCAG 2.2)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def font_for(text: str, size: int, file: str = "", *, boxes: bool = False) -> Any:
    """A font that has the letters. Raises UsageError for a file that is none, and where no font has Chinese letters;
    with `boxes` one may then do that shows boxes."""
    from PIL import ImageFont

    if file:
        try:
            return ImageFont.truetype(file, size)
        except OSError:
            raise UsageError(f"{file} is no font that can be read.", "Name a .ttf or .otf file.") from None
    if any(char > "\u2e7f" for char in text):
        for place in _FONTS:
            if os.path.isfile(place):
                return ImageFont.truetype(place, size)
        if not boxes:
            raise UsageError(
                "This machine has no font with these letters.",
                "Name one by `font` (Debian: fonts-droid-fallback has them).",
            )
    return ImageFont.load_default(size)


class Lettering:
    """Writes a text that may have Chinese and Latin letters in it, each by a font that has them, on one line. Raises
    UsageError as `font_for` does."""

    def __init__(self, text: str, size: int, file: str = "", *, boxes: bool = False):
        wide = font_for(text, size, file, boxes=boxes)
        self.fonts = (wide if file else font_for("", size), wide)
        self.rise = max(font.getmetrics()[0] for font in self.fonts)

    def getlength(self, text: str) -> float:
        """Pixels from one end to the other."""
        return float(sum(font.getlength(run) for run, font in self._runs(text)))

    def write(self, draw: Any, place: tuple[float, float], text: str, fill: Any) -> None:
        """`place` is the upper left corner."""
        x, y = place
        for run, font in self._runs(text):
            draw.text((x, y + self.rise), run, fill=fill, font=font, anchor="ls")
            x += font.getlength(run)

    def _runs(self, text: str) -> Iterator[tuple[str, Any]]:
        for wide, letters in groupby(text, lambda char: char > "\u2e7f"):
            yield "".join(letters), self.fonts[wide]


# -- the three -------------------------------------------------------------------------------------------------------


def _icon(thing: Any, ground: tuple[int, int, int], size: tuple[int, int], how: Design) -> Any:
    from PIL import Image, ImageDraw

    fine = 4  # the plate is drawn larger, then averaged
    plate = Image.new("L", (size[0] * fine, size[1] * fine), 0)
    box, draw = (0, 0, plate.width - 1, plate.height - 1), ImageDraw.Draw(plate)
    if how.plate == "circle":
        draw.ellipse(box, fill=255)
    elif how.plate != "none":
        draw.rounded_rectangle(box, 0.22 * min(plate.size) if how.plate == "rounded" else 0, fill=255)
    whole = Image.new("RGBA", size, (*ground, 0))
    whole.putalpha(plate.resize(size, Image.Resampling.BOX))
    small = _fitted(thing, (round(size[0] * how.scale), round(size[1] * how.scale)))
    whole.alpha_composite(small, ((size[0] - small.width) // 2, (size[1] - small.height) // 2))
    return whole


def _pattern(thing: Any, ground: tuple[int, int, int], size: tuple[int, int], how: Design) -> Any:
    from PIL import Image

    places = _SETS[how.arrangement]
    room = min(size) / (2 if len(places) == 4 else 2.4)
    whole = Image.new("RGBA", size, (*ground, 255))
    for number, (x, y) in enumerate(places):
        small = _fitted(thing, (round(room * how.scale), round(room * how.scale)))
        if how.arrangement == "tossed":
            small = small.rotate(_TURNED[number], Image.Resampling.BICUBIC, expand=True)
        left, top = round(x * size[0] - small.width / 2), round(y * size[1] - small.height / 2)
        for across in (-size[0], 0, size[0]):  # what leaves on one side comes in on the other
            for down in (-size[1], 0, size[1]):
                _laid(whole, small, left + across, top + down)
    return whole.convert("RGB")


def _cover(thing: Any, ground: tuple[int, int, int], size: tuple[int, int], how: Design) -> Any:
    from PIL import Image, ImageDraw

    wide = size[0] >= 1.2 * size[1]
    words = (size[0] // 2, size[1]) if wide else (size[0], size[1] * 2 // 5)
    room = (size[0] - words[0], size[1]) if wide else (size[0], size[1] - words[1])
    whole = Image.new("RGBA", size, (*ground, 255))
    small = _fitted(thing, (round(room[0] * how.scale * 1.2), round(room[1] * how.scale * 1.2)))
    _laid(whole, small, (size[0] - room[0]) + (room[0] - small.width) // 2, (room[1] - small.height) // 2)
    ink = _ink(thing, ground)
    margin = round(0.07 * min(size))
    box = (words[0] - 2 * margin, words[1] - 2 * margin)
    lines, leading = _set_in(box, how)
    top = margin + (box[1] - leading) // 2 if wide else size[1] - words[1] + margin
    draw = ImageDraw.Draw(whole)
    for text, font, height in lines:
        font.write(draw, (margin, top), text, ink)
        top += height
    return whole.convert("RGB")


def _set_in(box: tuple[int, int], how: Design) -> tuple[list[tuple[str, Any, int]], int]:
    """(line, font, pixels to the next) of title and subtitle, as large as they go into the box; and how high all is."""
    for size in range(max(12, box[1] // 3), 7, -1):
        found = []
        for text, points in ((how.title, size), (how.subtitle, max(8, round(size * 0.45)))):
            if text.strip():
                font = Lettering(text, points, how.font)
                found += [(line, font, round(points * 1.3)) for line in _broken(text, font, box[0])]
        high = sum(height for *_, height in found)
        if high <= box[1] and all(font.getlength(line) <= box[0] for line, font, _ in found):
            return found, high
    raise UsageError(f"The words do not go into {box[0]} × {box[1]} pixels.", "Shorten them, or make the cover larger.")


def _broken(text: str, font: Any, width: int) -> list[str]:
    """Lines of at most that width, broken at spaces, or anywhere among Chinese letters."""
    lines, line = [], ""
    for word in _words(text):
        if line and font.getlength(line + word.rstrip()) > width:
            lines.append(line.strip())
            line = ""
        line += word
    return [*lines, line.strip()]


def _words(text: str) -> list[str]:
    found = [""]
    for char in " ".join(text.split()):
        found[-1] += char
        if char == " " or char > "\u2e7f":
            found.append("")
    return [word for word in found if word]


def _ink(thing: Any, ground: tuple[int, int, int]) -> tuple[int, ...]:
    """The thing's own colour, darkened or lightened until it can be read on the ground."""
    pixels = np.asarray(thing.convert("RGBA"), np.float64).reshape(-1, 4)
    own = (pixels[:, :3] * pixels[:, 3:]).sum(0) / max(pixels[:, 3].sum(), 1e-9)
    end = 0.0 if _luminance(ground) > 0.18 else 255.0
    for share in np.linspace(0, 1, 21):
        ink = tuple(round(value) for value in own + (end - own) * share)
        if contrast(ink, ground) >= READABLE:
            return ink
    return (round(end),) * 3


def _fitted(thing: Any, room: tuple[int, int]) -> Any:
    from PIL import Image

    share = min(room[0] / thing.width, room[1] / thing.height)
    size = (max(1, round(thing.width * share)), max(1, round(thing.height * share)))
    return thing.resize(size, Image.Resampling.LANCZOS)


def _laid(whole: Any, small: Any, left: int, top: int) -> None:
    """Lay one over the other, as much of it as there is room for."""
    cut = (max(0, -left), max(0, -top), min(small.width, whole.width - left), min(small.height, whole.height - top))
    if cut[0] < cut[2] and cut[1] < cut[3]:
        whole.alpha_composite(small.crop(cut), (left + cut[0], top + cut[1]))


def _luminance(colour: tuple[int, ...]) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in np.array(colour[:3]) / 255
    ]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
