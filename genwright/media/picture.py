"""Pictures: opened within limits, made from SVG, written whole, laid out on a sheet.

What comes from outside is looked at in this order: how many bytes, which format, how many pixels the header claims, how
many frames; only then is it decoded. Pillow itself would decode 144 million pixels of an 18 KB file.
"""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from genwright.core.errors import DataError, MissingExtra
from genwright.core.run import write_bytes

FORMATS = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tiff"}
XMP = "XML:com.adobe.xmp"  # the key of an XMP packet in `save_picture`'s metadata, as PNG spells it
THUMBNAIL = 16
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, OverflowError,
           AttributeError, struct.error, zlib.error)  # fmt: skip
# What Pillow's readers raise at bytes that lie; each was seen with a damaged file.


DRAWN = (
    128  # pixels of the side of a drawing (SVG) where a picture is asked for; four times as many take thrice as long
)


@dataclass(frozen=True)
class Limits:
    """What a picture from outside may be. `first_frame`: of a moving picture the first frame is taken, not refused.
    `drawings`: whether SVG is read too."""

    pixels: int = 24_000_000
    bytes: int = 32_000_000
    first_frame: bool = False
    drawings: bool = True


LIMITS = Limits()


class TooLarge(DataError):
    """More bytes or pixels than the limits allow."""

    status = 413


def open_picture(source: Path | bytes, *, limits: Limits = LIMITS, drawn: int = DRAWN) -> Any:
    """A PIL image in RGB, or RGBA where it is transparent anywhere; upright, in sRGB, 8 bits a channel.

    16-bit greys are scaled, CMYK and other colour spaces converted by their profile where they have one. An SVG is
    `drawn` so many pixels square. Raises TooLarge, or DataError: not there, no picture, cut off, moving, samples
    without a known range.
    """
    name = str(source) if isinstance(source, Path) else "The picture"
    if is_drawing(source, limits):
        image = rasterise(read_svg(source), drawn)
        return image.convert("RGB") if image.getchannel("A").getextrema() == (255, 255) else image
    image, data = _opened(source, name, limits)
    try:
        with data, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which is not kept
            return _plain(image, name)
    except _BROKEN as error:
        said = str(error) or type(error).__name__
        raise DataError(f"{name} is damaged or cut off: {said}.", "Get it again, or leave it out.") from None
    except MemoryError:
        raise TooLarge(f"{name} does not fit into memory.", "Make it smaller.") from None


def picture_facts(source: Path | bytes, *, limits: Limits = LIMITS) -> dict[str, Any]:
    """{"width", "height", "suffix"} from the header alone, with the limits checked; nothing is decoded."""
    if is_drawing(source, limits):
        return {"width": DRAWN, "height": DRAWN, "suffix": ".svg"}
    image, data = _opened(source, str(source) if isinstance(source, Path) else "The picture", limits)
    with data:
        return {"width": image.width, "height": image.height, "suffix": FORMATS.get(image.format, ".jpg")}


def rgb(image: Any, background: str | tuple[int, int, int] = "white") -> Any:
    """The picture without transparency: laid on the background."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    ground = _pillow().new("RGB", image.size, background)
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def as_array(source: Path | bytes, size: int, *, fit: Literal["pad", "crop"] = "pad", limits: Limits = LIMITS) -> Any:
    """A picture as a network sees it: uint8 (size, size, 3).

    What is not square lies in the middle of a white square (`pad`) or loses its edges (`crop`). Raises what
    `open_picture` raises.
    """
    import numpy as np

    return np.asarray(squared(rgb(open_picture(source, limits=limits)), size, fit=fit))


def squared(image: Any, size: int, *, fit: Literal["pad", "crop"] = "pad") -> Any:
    """An RGB picture of size × size pixels, made smaller without aliasing (Lanczos)."""
    lanczos = _pillow().Resampling.LANCZOS
    if image.size == (size, size):
        return image
    width, height = image.size
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return image.resize((size, size), lanczos, box=(left, top, left + side, top + side), reducing_gap=3.0)
    scale = size / max(width, height)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = image.resize(small, lanczos, reducing_gap=3.0)
    if small == (size, size):
        return image
    ground = _pillow().new("RGB", (size, size), "white")
    ground.paste(image, ((size - small[0]) // 2, (size - small[1]) // 2))
    return ground


def thumbnail(image: Any) -> Any:
    """Mean colours of 16 × 16 fields, float32 (16, 16, 3) from 0 to 1, on white: near copies lie near each other.

    Pictures whose thumbnails differ by less than 0.6 (Euclidean) look the same to a person; a copy with noise of 6/255
    differs by about 0.1.
    """
    import numpy as np

    small = rgb(image).resize((THUMBNAIL, THUMBNAIL), _pillow().Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def save_picture(picture: Any, path: Path, *, metadata: Mapping[str, str] | None = None, quality: int = 90) -> Path:
    """Write a PIL image or an array uint8 (height, width, 3 or 4) as the suffix says; a reader never sees half a file.

    `metadata` are words by keyword: PNG text chunks (iTXt); JSON in the EXIF field UserComment of JPEG and WebP. The
    key `XMP` is the XMP packet in all three. `quality` is of JPEG and WebP. The same pixels give the same bytes.
    Raises DataError for a suffix that is not .png, .jpg, .jpeg or .webp; OSError when it cannot be written.
    """
    data = encoded(picture, path.suffix, metadata=metadata or {}, quality=quality)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    return path


def encoded(picture: Any, suffix: str, *, metadata: Mapping[str, str] = {}, quality: int = 90) -> bytes:
    """The bytes of the file that `save_picture` writes."""
    image = picture if hasattr(picture, "save") else _pillow().fromarray(picture)
    out, suffix = io.BytesIO(), suffix.lower()
    words = {key: value for key, value in metadata.items() if key != XMP}
    if suffix == ".png":
        image.save(out, "PNG", pnginfo=_chunks(metadata), compress_level=6)
    elif suffix in (".jpg", ".jpeg", ".webp"):
        more: dict[str, Any] = {"exif": _exif(words)} if words else {}
        more |= {"xmp": metadata[XMP].encode()} if XMP in metadata else {}
        if suffix == ".webp":
            image.save(out, "WEBP", quality=quality, method=4, **more)
        else:
            rgb(image).save(out, "JPEG", quality=quality, subsampling=0, **more)
    else:
        raise DataError(
            f"Pictures are not written as {suffix or 'files without a suffix'}.", "Use .png, .jpg or .webp."
        )
    return out.getvalue()


def contact_sheet(
    pictures: Sequence[Any], captions: Sequence[str], path: Path, *, side: int = 96, columns: int = 10
) -> Path:
    """Write a sheet of small pictures, row by row, each with its caption below. `pictures` are images, paths or None
    (an empty field)."""
    from PIL import ImageDraw

    from .design import Lettering

    columns = max(1, min(columns, len(pictures)))
    rows = -(-len(pictures) // columns)
    gap, line = max(4, side // 12), 14
    cell = (side + gap, side + gap + 2 * line)
    sheet = _pillow().new("RGB", (columns * cell[0] + gap, max(1, rows) * cell[1] + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = gap + number % columns * cell[0], gap + number // columns * cell[1]
        if picture is not None:
            image = picture if hasattr(picture, "save") else open_picture(picture)
            sheet.paste(squared(rgb(image), side), (left, top))
        font = Lettering(caption, 11, boxes=True)
        for at, words in enumerate(_wrapped(caption, font, side, 2)):
            font.write(draw, (left, top + side + 2 + at * line), words, "#333")
    return save_picture(sheet, path)


# -- SVG ---------------------------------------------------------------------------------------------------------------

_SVG_BYTES = 2_000_000
_SVG_STARTS = (b"<svg", b"<?xml", b"<!--", b"<!DOCTYPE svg")
_SVG_ELEMENTS = 200_000  # drawn, counting what <use> repeats
_SVG_DEPTH = 100
_URL = re.compile(r"url\(\s*['\"]?#([^)'\"\s]+)")
_SVG_NAME = "http://www.w3.org/2000/svg"


def rasterise(svg: str, size: int) -> Any:
    """A PIL image in RGBA, size × size: the drawing in the middle, as large as it fits, the rest transparent.

    Nothing outside the text is read: no file, no address, no font of this machine (words in it are not drawn, so that
    every machine draws the same). Raises DataError for what is no SVG, TooLarge for one that grows without bound.
    """
    try:
        import resvg_py
    except ImportError:
        raise MissingExtra("resvg-py", "image") from None
    from base64 import b64encode

    svg_root(svg)
    inside = b64encode(svg.encode()).decode()  # a drawing within a drawing may read nothing from outside
    frame = (
        f'<svg xmlns="{_SVG_NAME}" width="{size}" height="{size}"><image width="{size}" height="{size}" '
        f'href="data:image/svg+xml;base64,{inside}"/></svg>'
    )
    try:
        drawn = resvg_py.svg_to_bytes(svg_string=frame, skip_system_fonts=True)
    except BaseException as error:
        if type(error).__name__ in ("ValueError", "PanicException"):  # a panic of the library is no Exception
            raise DataError(f"The SVG cannot be drawn: {error}.", "Save it anew in a drawing program.") from None
        raise
    return _pillow().open(io.BytesIO(drawn)).convert("RGBA")


def is_drawing(source: Path | bytes, limits: Limits = LIMITS) -> bool:
    """Whether these are the first bytes of an SVG (or of some other XML), and such are read at all."""
    if isinstance(source, Path):
        try:
            with source.open("rb") as file:
                source = file.read(64)
        except OSError:
            return False
    return limits.drawings and source[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_SVG_STARTS)


def read_svg(source: Path | bytes) -> str:
    """The text of an SVG. Raises TooLarge, or DataError for what is not UTF-8 or cannot be read."""
    try:
        if isinstance(source, bytes):
            data = source
        else:
            with source.open("rb") as file:
                data = file.read(_SVG_BYTES + 1)
        if len(data) > _SVG_BYTES:
            raise TooLarge(f"The SVG has more than {_SVG_BYTES:,} bytes.", "Simplify it.")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("The SVG is no UTF-8 text.", "Save it anew in a drawing program.") from None
    except OSError as error:
        raise DataError(f"{source!s} cannot be read: {error.strerror}.", "Look at its permissions.") from None


def svg_root(svg: str) -> Any:
    """The root element of an SVG that is sound and of bounded size. Raises what `rasterise` raises."""
    if len(svg) > _SVG_BYTES:
        raise TooLarge(f"The SVG has {len(svg):,} characters; {_SVG_BYTES:,} are read.", "Simplify it.")
    if re.search(r"<!ENTITY", svg, re.I):
        raise DataError("The SVG declares entities, which are not read.", "Save it as plain SVG.")
    try:
        root = ElementTree.fromstring(svg)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"It is no SVG: {error}.", "Open it in a drawing program and save it anew.") from None
    if root.tag not in (f"{{{_SVG_NAME}}}svg", "svg"):
        raise DataError("It is no SVG: its root element is another.", "Look at what the file holds.")
    if _drawn(root) > _SVG_ELEMENTS:
        raise TooLarge("The SVG repeats itself into too many elements.", "Simplify it.")
    return root


def _drawn(root: Any) -> int:
    """How many elements are drawn when all that names another (<use>, mask, pattern …) stands for it: these multiply.

    What a style sheet names counts at every element, whatever its selectors say. Gradients draw nothing themselves.
    """
    named = {one.get("id"): one for one in root.iter() if one.get("id") and not str(one.tag).endswith("Gradient")}
    styled = [name for one in root.iter() if str(one.tag).endswith("style") for name in _URL.findall(one.text or "")]
    known: dict[Any, int] = {}

    def count(element: Any, depth: int) -> int:
        if depth > _SVG_DEPTH:
            return _SVG_ELEMENTS + 1
        if element not in known:
            known[element] = 0  # what names itself is not drawn
            inside = [*element, *(named[name] for name in (*_names(element), *styled) if name in named)]
            known[element] = min(_SVG_ELEMENTS + 1, 1 + sum(count(one, depth + 1) for one in inside))
        return known[element]

    return count(root, 0)


def _names(element: Any) -> list[str]:
    """The ids that an element's attributes point at: href="#id", fill="url(#id)", style="mask: url(#id)"."""
    links = [value[1:] for key, value in element.items() if key.endswith("href") and value.startswith("#")]
    return links + [name for value in element.attrib.values() if "#" in value for name in _URL.findall(value)]


# -- opening -----------------------------------------------------------------------------------------------------------


def _opened(source: Path | bytes, name: str, limits: Limits) -> tuple[Any, Any]:
    """The picture with only its header read, and the stream it comes from. Checks all that a header can tell."""
    image_module = _pillow()
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if size > limits.bytes:
            raise TooLarge(f"{name} has {size:,} bytes; {limits.bytes:,} are read.", "Make it smaller.")
        data = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.", "Look at its name and permissions.") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what we refuse, and of odd metadata
            image = image_module.open(data, formats=list(FORMATS))
            moving = (
                bool(getattr(image, "is_animated", False)) and image.format != "MPO"
            )  # MPO: a photo and its preview
    except image_module.DecompressionBombError:
        data.close()
        raise TooLarge(f"{name} has far more than {limits.pixels:,} pixels.", "Make it smaller.") from None
    except _BROKEN as error:
        data.close()
        known = ", ".join(form.lower() for form in FORMATS)
        why = "" if type(error).__name__ == "UnidentifiedImageError" else f" ({error})"
        raise DataError(f"{name} is no picture that is read here{why}.", f"Formats: {known}.") from None
    if image.width * image.height > limits.pixels:
        data.close()
        shown = f"{image.width:,} × {image.height:,}"
        raise TooLarge(f"{name} has {shown} pixels; {limits.pixels:,} are read.", "Make it smaller.")
    if moving and not limits.first_frame:
        data.close()
        raise DataError(f"{name} is a moving picture.", "Save one of its frames as a picture of its own.")
    return image, data


def _plain(image: Any, name: str) -> Any:
    """Decoded, upright, sRGB, 8 bits, RGB or RGBA."""
    from PIL import ImageOps

    image.load()
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        image = _from_16_bits(image)
    elif image.mode in ("I", "F"):
        raise DataError(f"{name} has 32-bit samples, whose range is not known.", "Save it with 8 or 16 bits.")
    image = ImageOps.exif_transpose(image)
    clear = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
        image = _in_srgb(image, profile)
    image = image.convert("RGBA" if clear else "RGB")
    if clear and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    image.info = {}
    return image


def _from_16_bits(image: Any) -> Any:
    """Greys from 0 to 65535 as 0 to 255; Pillow's own conversion cuts off at 255."""
    import numpy as np

    wide = np.asarray(image).astype(np.uint32)
    grey = _pillow().fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    grey.info = image.info
    return grey


def _in_srgb(image: Any, profile: bytes) -> Any:
    """Colours converted from the picture's own profile; a profile that cannot be used is passed over."""
    from PIL import ImageCms

    mode = image.mode if image.mode in ("RGB", "RGBA") else "RGB"
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted: Any = ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError):
        return image
    converted.info = {key: value for key, value in image.info.items() if key != "icc_profile"}
    return converted


# -- writing -----------------------------------------------------------------------------------------------------------


def _chunks(metadata: Mapping[str, str]) -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in metadata.items():
        info.add_itxt(key, value)
    return info


def _exif(words: Mapping[str, str]) -> bytes:
    """UserComment (0x9286): 8 bytes that name the encoding, then the words (EXIF 2.3)."""
    exif = _pillow().Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + json.dumps(dict(words)).encode()
    found: bytes = exif.tobytes()
    return found


def _wrapped(text: str, font: Any, width: int, lines: int) -> list[str]:
    """At most so many lines of at most that width, the last one cut."""
    found: list[str] = []
    at = 0
    while at < len(text) and len(found) < lines:
        end = at + 1
        while end < len(text) and font.getlength(text[at : end + 1]) <= width:
            end += 1
        space = text.rfind(" ", at, end + 1)
        end = space if end < len(text) and space > at and len(found) < lines - 1 else end
        found.append(text[at:end].strip())
        at = end
    return found


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("Pillow", "image") from None
    return Image
