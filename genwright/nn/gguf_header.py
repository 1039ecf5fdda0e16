"""The head of a GGUF file: its keys, its words and which kinds of tensors it has, read without a library."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from genwright.core import ModelError

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_TOKENS, _TYPES, _MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"
_MOST_TOKENS = 4_000_000
_LONGEST = 64 << 20  # bytes of one string; chat templates are the longest that are kept
_KINDS = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K",
          12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 30: "BF16"}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """`keys` holds numbers and strings (arrays only as their length); `kinds` counts tensors by how they are stored.

    `tokens` are the words of the vocabulary as they are stored, `types` their kinds (3 is a control token),
    `merges` the pairs that a byte-level vocabulary joins.
    """

    keys: dict[str, Any]
    kinds: Counter[str]
    tokens: list[str]
    types: list[int]
    merges: list[str]

    @cached_property
    def control(self) -> dict[int, str]:
        """The special tokens by id: those that are no words."""
        return {i: token for i, (token, kind) in enumerate(zip(self.tokens, self.types, strict=False)) if kind == 3}

    @property
    def architecture(self) -> str:
        return str(self.keys.get("general.architecture", ""))

    @property
    def is_adapter(self) -> bool:
        return self.keys.get("general.type") == "adapter"

    @property
    def chat_template(self) -> str:
        return str(self.keys.get("tokenizer.chat_template", ""))


def read_header(path: Path) -> Header:
    """Raises ModelError when the file is missing, cut short or no GGUF file of version 2 or 3."""
    try:
        with path.open("rb") as file:
            return _read(file)
    except (struct.error, UnicodeDecodeError, ValueError, KeyError, OverflowError) as error:
        raise ModelError(f"{path} is not a sound GGUF file: {error}", "Fetch or export it again.") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _read(file: BinaryIO) -> Header:
    magic, version, tensors, keys = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it begins with {magic!r}, version {version}")
    if keys > 100_000 or tensors > 1_000_000:
        raise ValueError(f"it claims {keys} keys and {tensors} tensors")
    found: dict[str, Any] = {}
    words: dict[str, list[Any]] = {_TOKENS: [], _TYPES: [], _MERGES: []}
    for _ in range(keys):
        name = _string(file)
        found[name] = _value(file, _number(file, "<I"), words.get(name))
    kinds: Counter[str] = Counter()
    for _ in range(tensors):
        _string(file)
        file.seek(8 * _number(file, "<I"), 1)
        kind = _number(file, "<I")
        kinds[_KINDS.get(kind, str(kind))] += 1
        file.seek(8, 1)
    return Header(found, kinds, words[_TOKENS], words[_TYPES], words[_MERGES])


def _value(file: BinaryIO, kind: int, kept: list[Any] | None) -> Any:
    """A number, a string, or the length of an array, whose items go to `kept` where they are wanted."""
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _number(file, _NUMBERS[kind])
    inner, count = struct.unpack("<IQ", file.read(12))
    if kept is not None:
        kept += [_value(file, inner, None) for _ in range(min(count, _MOST_TOKENS))]
    elif inner == _STRING:
        for _ in range(count):
            file.seek(_number(file, "<Q"), 1)
    else:
        file.seek(count * struct.calcsize(_NUMBERS[inner]), 1)
    return int(count)


def _string(file: BinaryIO) -> str:
    length = _number(file, "<Q")
    if length > _LONGEST:
        raise ValueError(f"a string claims {length} bytes")
    data = file.read(length)
    if len(data) < length:
        raise ValueError("it is cut short")
    return data.decode("utf-8", "replace")


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]
