"""XMP: the packet of metadata that PNG, JPEG, WebP and SVG carry, read and replaced without touching a pixel.

PNG: an uncompressed iTXt chunk `XML:com.adobe.xmp` (XMP specification, part 3). JPEG: an APP1 segment with Adobe's
namespace, at most 65,502 bytes of it. WebP: an `XMP ` chunk, which asks for the extended header VP8X. SVG: the packet
in a `<metadata>` element of its own, the first child of the root.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from genwright.core.errors import DataError

_PNG = b"\x89PNG\r\n\x1a\n"
_KEYWORD = b"XML:com.adobe.xmp"
_ADOBE = b"http://ns.adobe.com/xap/1.0/\0"
_MOST = 65_533 - len(_ADOBE)  # bytes of a packet that a JPEG segment holds
_XMP_FLAG = 4  # bit of VP8X


def can_hold(path: Path) -> bool:
    """Whether the file, by its first bytes, is of a kind that carries such a packet."""
    with path.open("rb") as file:
        return _kind(file.read(4096)) != ""


def read_xmp(path: Path) -> str:
    """The packet, empty when there is none. Raises DataError for a file that is broken or of another kind."""
    data = path.read_bytes()
    match _kind(data):
        case "png":
            texts = [body for name, body in _png_chunks(data, path) if name == b"iTXt"]
            found = [body for body in texts if body.startswith(_KEYWORD + b"\0")]
            packet = _png_text(found[0]) if found else b""
        case "jpeg":
            held = [body for marker, body in _jpeg_segments(data, path) if marker == 0xE1 and body.startswith(_ADOBE)]
            packet = held[0][len(_ADOBE) :] if held else b""
        case "webp":
            packet = next((body for name, body in _webp_chunks(data, path) if name == b"XMP "), b"")
        case "svg":
            text = data.decode("utf-8", "replace")
            held_in = _SVG_PACKET.search(text, _svg_inside(text, path))
            return held_in["packet"] if held_in else ""
        case _:
            raise DataError(f"{path} is no PNG, JPEG, WebP or SVG file.", "Other kinds carry their label beside them.")
    return packet.decode("utf-8", "replace")


def with_xmp(path: Path, packet: str) -> bytes:
    """The file's bytes with this packet in place of any other. Raises DataError as `read_xmp` does, or when a JPEG
    cannot hold so much."""
    data, said = path.read_bytes(), packet.encode()
    match _kind(data):
        case "png":
            return _png_with(data, said, path)
        case "jpeg":
            return _jpeg_with(data, said, path)
        case "webp":
            return _webp_with(data, said, path)
        case "svg":
            return _svg_with(data, packet, path)
    raise DataError(f"{path} is no PNG, JPEG, WebP or SVG file.", "Other kinds carry their label beside them.")


def _kind(data: bytes) -> str:
    if data.startswith(_PNG):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "svg" if _SVG_HEAD.match(data[:4096].decode("utf-8", "ignore")) else ""


def _broken(path: Path) -> DataError:
    return DataError(f"{path} is cut short or broken: its metadata cannot be read.", "Make the file again.")


# -- PNG -------------------------------------------------------------------------------------------------------------


def _png_chunks(data: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at < len(data):
        if at + 12 > len(data):
            raise _broken(path)
        length, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise _broken(path)
        yield name, data[at + 8 : at + 8 + length]
        at += 12 + length


def _png_text(body: bytes) -> bytes:
    """The text of an iTXt chunk: keyword, 0, compressed?, method, language, 0, translated keyword, 0, text."""
    rest = body[len(_KEYWORD) + 1 :]
    compressed, rest = rest[:1] == b"\1", rest[2:]
    text = rest.split(b"\0", 2)[-1]
    try:
        return zlib.decompressobj().decompress(text, 1 << 24) if compressed else text
    except zlib.error:
        return b""


def _png_with(data: bytes, said: bytes, path: Path) -> bytes:
    own = _KEYWORD + b"\0\0\0\0\0" + said
    made = [_PNG]
    for name, body in _png_chunks(data, path):
        if name == b"iTXt" and body.startswith(_KEYWORD + b"\0"):
            continue
        made.append(_png_chunk(name, body))
        if name == b"IHDR":
            made.append(_png_chunk(b"iTXt", own))
    return b"".join(made)


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


# -- JPEG ------------------------------------------------------------------------------------------------------------


def _jpeg_segments(data: bytes, path: Path) -> Iterator[tuple[int, bytes]]:
    """Segments before the scan."""
    at = 2
    while True:
        if at + 4 > len(data) or data[at] != 0xFF:
            raise _broken(path)
        marker = data[at + 1]
        if marker == 0xDA:
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2 or at + 2 + length > len(data):
            raise _broken(path)
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def _jpeg_with(data: bytes, said: bytes, path: Path) -> bytes:
    if len(said) > _MOST:
        raise DataError(f"{path}: its metadata of {len(said):,} bytes is more than a JPEG file holds.", "Write a PNG.")
    segments = list(_jpeg_segments(data, path))
    scan = 2 + sum(4 + len(body) for _, body in segments)
    kept = [(marker, body) for marker, body in segments if not (marker == 0xE1 and body.startswith(_ADOBE))]
    first = 1 if kept and kept[0][0] == 0xE0 else 0  # JFIF's own segment stays first
    kept.insert(first, (0xE1, _ADOBE + said))
    made = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in kept)
    return data[:2] + made + data[scan:]


# -- WebP ------------------------------------------------------------------------------------------------------------


def _webp_chunks(data: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    at, end = 12, min(len(data), 8 + struct.unpack_from("<I", data, 4)[0])
    while at + 8 <= end:
        name, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if at + 8 + length > len(data):
            raise _broken(path)
        yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _webp_with(data: bytes, said: bytes, path: Path) -> bytes:
    chunks = [(name, body) for name, body in _webp_chunks(data, path) if name != b"XMP "]
    if not chunks:
        raise _broken(path)
    if chunks[0][0] != b"VP8X":
        chunks.insert(0, (b"VP8X", _extended(*chunks[0], path)))
    head = chunks[0][1]
    chunks[0] = (b"VP8X", bytes([head[0] | _XMP_FLAG]) + head[1:])
    chunks.append((b"XMP ", said))
    made = b"".join(name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for name, body in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(made)) + b"WEBP" + made


def _extended(name: bytes, body: bytes, path: Path) -> bytes:
    """The VP8X header of a plain file: flags, and width and height less one in 24 bits each."""
    if name == b"VP8L" and len(body) >= 5:
        (bits,) = struct.unpack_from("<I", body, 1)
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bits >> 28 & 1
    elif name == b"VP8 " and len(body) >= 10:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
        alpha = 0
    else:
        raise _broken(path)
    return bytes([alpha << 4, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


# -- SVG -------------------------------------------------------------------------------------------------------------

_SVG_HEAD = re.compile(r"\ufeff?(?>\s|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*>)*+<svg(?=[\s/>])", re.DOTALL)
_SVG_ROOT = re.compile(r"""(?:[^<>"']|"[^"]*"|'[^']*')*>""")
_SVG_PACKET = re.compile(r"<metadata>(?P<packet><\?xpacket (?:(?!</metadata>).)*)</metadata>", re.DOTALL)


def _svg_inside(text: str, path: Path) -> int:
    """Where the content of the root begins; past a root without content."""
    head = _SVG_HEAD.match(text)
    root = _SVG_ROOT.match(text, head.end()) if head else None
    if root is None:
        raise _broken(path)
    return root.end()


def _svg_with(data: bytes, packet: str, path: Path) -> bytes:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise _broken(path) from None
    begin = _svg_inside(text, path)
    own = f"<metadata>{packet}</metadata>"
    if text[begin - 2] == "/":
        return f"{text[: begin - 2]}>{own}</svg>{text[begin:]}".encode()
    rest = _SVG_PACKET.sub("", text[begin:], count=1)
    return f"{text[:begin]}{own}{rest}".encode()
