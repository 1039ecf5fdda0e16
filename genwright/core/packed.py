"""Packed: how a model folder in CTranslate2's form is known, for all rooms that look at weights before opening them."""

from __future__ import annotations

import struct
from pathlib import Path

PACKED = "model.bin"  # its only file of weights


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a model in CTranslate2's form alone: no safetensors, and a model.bin that begins as its
    files do, with a small version and the name of a specification (no pickle begins so)."""
    path = folder / PACKED
    if not path.is_file() or any(folder.glob("*.safetensors")):
        return False
    with path.open("rb") as file:
        head = file.read(64)
    if len(head) < 8:
        return False
    version, length = struct.unpack_from("<IH", head)
    return 0 < version < 100 and head[6 : 6 + length].endswith(b"Spec\0")
