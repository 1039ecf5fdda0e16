"""CTranslate2's model.bin: its variables as arrays, read without its library and believed no further than the file
reaches.

Little-endian throughout: the version (6), the specification's name and revision, the count of variables; of each its
name, its sides, the kind of its numbers and their bytes; then other names of the same variables. A string is its length
(two bytes, the zero at its end among them) and its bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genwright.core.errors import ModelError

VERSION = 6
REVISION = 3  # of Whisper's names
_KINDS = ("<f4", "i1", "<i2", "<i4", "<f2", "<u2")  # by their number in the file; the last is bfloat16's upper halves
_FLOAT32, _INT8, _INT16, _FLOAT16, _BFLOAT16 = 0, 1, 2, 4, 5
_MOST_VARIABLES, _MOST_SIDES = 100_000, 8


@dataclass(frozen=True)
class Variable:
    """`numbers` as they lie in the file, which is mapped and not read; `kind` is the file's number of their kind."""

    numbers: np.ndarray
    kind: int


@dataclass(frozen=True)
class PackedModel:
    """A checked model.bin: `spec` is what kind of network it holds (WhisperSpec), in which `revision` of the names."""

    path: Path
    spec: str
    revision: int
    variables: Mapping[str, Variable]

    def number(self, name: str) -> int:
        """A variable that is a single whole number. Raises ModelError when it is missing or more than that."""
        found = self._of(name)
        if found.numbers.shape or found.kind not in (_INT8, _INT16):
            raise broken(self.path, f"{name} is not a single whole number")
        return int(found.numbers)

    def weight(self, name: str) -> np.ndarray:
        """A float32 copy. Whole numbers are divided by the scale beside them: one for all, or one a row.

        Raises ModelError when it is missing, quantised otherwise than to int8 or int16, or its scale does not fit.
        """
        found = self._of(name)
        if found.kind == _BFLOAT16:
            return (found.numbers.astype(np.uint32) << 16).view(np.float32)
        plain = found.numbers.astype(np.float32)
        if found.kind in (_FLOAT32, _FLOAT16):
            return plain
        beside = self.variables.get(f"{name}_scale")
        if found.kind not in (_INT8, _INT16) or beside is None or f"{name}_zero" in self.variables:
            raise ModelError(
                f"{self.path}: {name} is quantised in a way that is not read here.",
                "Convert the model anew with --quantization float16, int8 or int16.",
            )
        scale = beside.numbers.astype(np.float32)
        if beside.kind != _FLOAT32 or scale.shape not in ((), plain.shape[:1]) or not (scale > 0).all():
            raise broken(self.path, f"the scale of {name} does not fit it")
        return plain / scale.reshape(-1, *[1] * (plain.ndim - 1)) if scale.ndim else plain / scale

    def _of(self, name: str) -> Variable:
        if name not in self.variables:
            raise broken(self.path, f"it lacks {name}")
        return self.variables[name]


def read_ctranslate2(path: Path) -> PackedModel:
    """Look at every name, side and length of the file; no number is read yet.

    Raises ModelError when it is cut short, goes on after its end, has a name twice, claims more than it holds, or is of
    another version.
    """
    try:
        return _read(path, _Bytes(np.memmap(path, np.uint8, "r")))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise broken(path, str(error)) from None


def check_whisper(packed: PackedModel) -> None:
    """Raises ModelError for a model that is no Whisper, or one of another layout."""
    if packed.spec != "WhisperSpec":
        raise ModelError(
            f"{packed.path} holds a {packed.spec!r}, which is no Whisper: no other model of CTranslate2 is read.",
            "To hear, name whisper-base or another Whisper; of a language model give the safetensors or GGUF form.",
        )
    if packed.revision != REVISION:
        raise ModelError(
            f"{packed.path} holds a Whisper in revision {packed.revision} of its layout, and {REVISION} is read.",
            "Convert it anew with a current ct2-transformers-converter.",
        )


def broken(path: Path, why: str) -> ModelError:
    """The error for a file that does not hold what it should."""
    return ModelError(
        f"{path} is not a sound model file of CTranslate2: {why}.",
        "Fetch or convert it again; it may be cut short.",
    )


def _read(path: Path, left: _Bytes) -> PackedModel:
    (version,) = left.unpack("<I")
    if version != VERSION:
        raise ValueError(f"it is of version {version}, and version {VERSION} is read")
    spec = left.string()
    revision, count = left.unpack("<II")
    if count > _MOST_VARIABLES:
        raise ValueError(f"it claims {count:,} variables")
    found: dict[str, Variable] = {}
    for _ in range(count):
        name = left.string()
        if name in found:
            raise ValueError(f"{name!r} stands in it twice")
        found[name] = _variable(name, left)
    (count,) = left.unpack("<I")
    if count > _MOST_VARIABLES:
        raise ValueError(f"it claims {count:,} other names")
    for _ in range(count):
        other, name = left.string(), left.string()
        if other in found or name not in found:
            raise ValueError(f"{other!r} cannot be another name of {name!r}")
        found[other] = found[name]
    if left.at != len(left.data):
        raise ValueError(f"it goes on for {len(left.data) - left.at:,} bytes after its end")
    return PackedModel(path, spec, revision, found)


def _variable(name: str, left: _Bytes) -> Variable:
    (sides,) = left.unpack("<B")
    if sides > _MOST_SIDES:
        raise ValueError(f"{name!r} claims {sides} sides")
    shape = left.unpack(f"<{sides}I")
    kind, size = left.unpack("<BI")
    if kind >= len(_KINDS):
        raise ValueError(f"{name!r} is of an unknown kind of number ({kind})")
    if 0 in shape or math.prod(shape) * np.dtype(_KINDS[kind]).itemsize != size:
        raise ValueError(f"{name!r} claims the sides {list(shape)} in {size:,} bytes")
    return Variable(left.take(size).view(_KINDS[kind]).reshape(shape), kind)


class _Bytes:
    """The bytes of a file, taken one after the other; none beyond its end."""

    def __init__(self, data: np.ndarray):
        self.data, self.at = data, 0

    def take(self, count: int) -> np.ndarray:
        if count > len(self.data) - self.at:
            raise ValueError(f"{count:,} bytes are promised at byte {self.at:,} and {len(self.data) - self.at:,} left")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)).tobytes())

    def string(self) -> str:
        (length,) = self.unpack("<H")
        text = self.take(length).tobytes()
        if not text.endswith(b"\0"):
            raise ValueError("a name does not end")
        return text[:-1].decode("utf-8")
