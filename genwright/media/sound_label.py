"""A label inside a sound file: a chunk of WAV, an ID3 frame of MP3 and AAC, a Vorbis comment of FLAC, Ogg and Opus.

Samples stay as they are to the last bit. Each file holds one label at most: another takes the place of the first.
Places and payloads as GB 45438-2025, annex E, has them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from genwright.core.errors import DataError

NAME = "AIGC"
_CHUNK = NAME.encode()
_COMMENT = f"{NAME}=".encode()


def can_carry(path: Path) -> bool:
    """Whether the file is of a kind that holds a label, by its first bytes."""
    try:
        with path.open("rb") as file:
            return bool(_kind(file.read(64)))
    except OSError:
        return False


def read_label(path: Path) -> str:
    """The label's JSON; empty where there is none. Raises DataError for a file of another kind, or a broken one."""
    data = path.read_bytes()
    try:
        return _READ[_known(data, path)](data).decode("utf-8", "replace")
    except (struct.error, IndexError, ValueError):
        raise _broken(path) from None


def with_label(path: Path, label: str) -> bytes:
    """The file's bytes with this label in place of any other. Raises DataError as `read_label` does, and when an Ogg
    file has no room for it."""
    data = path.read_bytes()
    try:
        return _WRITE[_known(data, path)](data, label.encode("utf-8"))
    except (struct.error, IndexError, ValueError):
        raise _broken(path) from None


def _kind(head: bytes) -> str:
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"OggS":
        return "ogg"
    is_frame = len(head) > 1 and head[0] == 0xFF and (head[1] & 0xE6 == 0xE2 or head[1] & 0xF6 == 0xF0)  # MP3, AAC
    return "mp3" if head[:3] == b"ID3" or is_frame else ""


def _known(data: bytes, path: Path) -> str:
    kind = _kind(data[:64])
    if not kind:
        raise DataError(
            f"{path} is no WAV, MP3, AAC, FLAC, Ogg or Opus file.", "Other kinds carry their label beside them."
        )
    return kind


def _broken(path: Path) -> DataError:
    return DataError(f"{path} is cut short or broken: its metadata cannot be read.", "Make the file again.")


# -- WAV ---------------------------------------------------------------------------------------------------------------


def _wav_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        yield name, data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _wav_read(data: bytes) -> bytes:
    return next((body.rstrip(b"\0") for name, body in _wav_chunks(data) if name == _CHUNK), b"")


def _wav_write(data: bytes, label: bytes) -> bytes:
    label += b" " * (len(label) % 2)  # JSON may end in a space; so no reader meets a zero
    chunks = [*((name, body) for name, body in _wav_chunks(data) if name != _CHUNK), (_CHUNK, label)]
    made = b"".join(name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for name, body in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(made)) + b"WAVE" + made


# -- MP3 and AAC (ID3v2.4) ---------------------------------------------------------------------------------------------


def _synchsafe(number: int) -> bytes:
    return bytes((number >> shift) & 0x7F for shift in (21, 14, 7, 0))


def _number(four: bytes) -> int:
    return four[0] << 21 | four[1] << 14 | four[2] << 7 | four[3]


def _mp3_parts(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Frames (head without its size, body) of the tag, and the sound. Tags of versions other than 2.3 and 2.4 go."""
    if data[:3] != b"ID3":
        return [], data
    end = 10 + _number(data[6:10])
    if end > len(data):
        raise ValueError("the tag is longer than the file")
    frames, at = list[tuple[bytes, bytes]](), 10
    while data[3] in (3, 4) and at + 10 <= end and data[at]:
        size = _number(data[at + 4 : at + 8]) if data[3] == 4 else int.from_bytes(data[at + 4 : at + 8], "big")
        frames.append((data[at : at + 4], data[at + 10 : at + 10 + size]))
        at += 10 + size
    return frames, data[end:]


def _is_ours(name: bytes, body: bytes) -> bool:
    return name == b"TXXX" and body[1:].startswith(_CHUNK + b"\0")


def _mp3_read(data: bytes) -> bytes:
    frames, _ = _mp3_parts(data)
    return next((body[len(_CHUNK) + 2 :].rstrip(b"\0") for name, body in frames if _is_ours(name, body)), b"")


def _mp3_write(data: bytes, label: bytes) -> bytes:
    frames, sound = _mp3_parts(data)
    frames = [frame for frame in frames if not _is_ours(*frame)]
    frames.append((b"TXXX", b"\3" + _CHUNK + b"\0" + label))
    made = b"".join(name + _synchsafe(len(body)) + b"\0\0" + body for name, body in frames)
    return b"ID3\4\0\0" + _synchsafe(len(made)) + made + sound


# -- Vorbis comments: FLAC and Ogg -------------------------------------------------------------------------------------


def _comments(body: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Vendor, comments, and what stands after them."""
    at, found = 0, list[bytes]()

    def text() -> bytes:
        nonlocal at
        (size,) = struct.unpack_from("<I", body, at)
        if at + 4 + size > len(body):
            raise ValueError("a comment is longer than its packet")
        piece = body[at + 4 : at + 4 + size]
        at += 4 + size
        return piece

    vendor = text()
    (count,) = struct.unpack_from("<I", body, at)
    at += 4
    for _ in range(min(count, len(body))):
        found.append(text())
    return vendor, found, body[at:]


def _comment_of(body: bytes) -> bytes:
    _, found, _ = _comments(body)
    return next((one[len(_COMMENT) :] for one in found if one.upper().startswith(_COMMENT)), b"")


def _with_comment(body: bytes, label: bytes) -> bytes:
    vendor, found, rest = _comments(body)
    kept = [*(one for one in found if not one.upper().startswith(_COMMENT)), _COMMENT + label]
    texts = b"".join(struct.pack("<I", len(one)) + one for one in kept)
    return struct.pack("<I", len(vendor)) + vendor + struct.pack("<I", len(kept)) + texts + rest


def _flac_blocks(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    blocks, at, last = list[tuple[int, bytes]](), 4, False
    while not last:
        last, kind, size = bool(data[at] & 0x80), data[at] & 0x7F, int.from_bytes(data[at + 1 : at + 4], "big")
        blocks.append((kind, data[at + 4 : at + 4 + size]))
        at += 4 + size
    return blocks, data[at:]


def _flac_read(data: bytes) -> bytes:
    return next((_comment_of(body) for kind, body in _flac_blocks(data)[0] if kind == 4), b"")


def _flac_write(data: bytes, label: bytes) -> bytes:
    blocks, sound = _flac_blocks(data)
    if not any(kind == 4 for kind, _ in blocks):
        blocks.insert(1, (4, struct.pack("<II", 0, 0)))
    blocks = [(kind, _with_comment(body, label) if kind == 4 else body) for kind, body in blocks]
    made = b""
    for number, (kind, body) in enumerate(blocks, 1):
        made += bytes([kind | (0x80 if number == len(blocks) else 0)]) + len(body).to_bytes(3, "big") + body
    return b"fLaC" + made + sound


_MAGICS = (b"\x03vorbis", b"OpusTags")  # how the packet of comments begins


def _ogg_page(data: bytes) -> tuple[int, int, bytes, list[bytes]]:
    """Start and end of the page on which the comments begin, its head, and its pieces of packets."""
    at = 0
    while data[at : at + 4] == b"OggS":
        table = data[at + 27 : at + 27 + data[at + 26]]
        body = at + 27 + len(table)
        if data[body : body + 8].startswith(_MAGICS):
            pieces, start, size = list[bytes](), body, 0
            for segment in table:
                size += segment
                if segment < 255:
                    pieces.append(data[start : start + size])
                    start, size = start + size, 0
            if not pieces:
                raise ValueError("the comments fill more than a page")
            return at, body + sum(table), data[at : at + 26], [*pieces, data[start : start + size]]
        at = body + sum(table)
    raise ValueError("there are no comments")


def _magic(packet: bytes) -> int:
    return next(len(magic) for magic in _MAGICS if packet.startswith(magic))


def _ogg_read(data: bytes) -> bytes:
    packet = _ogg_page(data)[3][0]
    return _comment_of(packet[_magic(packet) :])


def _ogg_write(data: bytes, label: bytes) -> bytes:
    start, end, head, (packet, *others, rest) = _ogg_page(data)
    size = _magic(packet)
    packets = [packet[:size] + _with_comment(packet[size:], label), *others]
    table = b"".join(b"\xff" * (len(one) // 255) + bytes([len(one) % 255]) for one in packets) + b"\xff" * (
        len(rest) // 255
    )
    if len(table) > 255:
        raise DataError("There is no room for a label on the page of comments.", "Write another kind of file.")
    page = head[:22] + b"\0\0\0\0" + bytes([len(table)]) + table + b"".join(packets) + rest
    return data[:start] + page[:22] + struct.pack("<I", _crc(page)) + page[26:] + data[end:]


def _crc(page: bytes) -> int:
    """Ogg's own: 0x04c11db7 from the top bit, beginning with zero."""
    found = 0
    for byte in page:
        found ^= byte << 24
        for _ in range(8):
            found = (found << 1 ^ 0x04C11DB7 if found & 0x80000000 else found << 1) & 0xFFFFFFFF
    return found


_READ: dict[str, Callable[[bytes], bytes]] = {"wav": _wav_read, "mp3": _mp3_read, "flac": _flac_read, "ogg": _ogg_read}
_WRITE: dict[str, Callable[[bytes, bytes], bytes]] = {
    "wav": _wav_write, "mp3": _mp3_write, "flac": _flac_write, "ogg": _ogg_write,
}  # fmt: skip
