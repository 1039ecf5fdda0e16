"""Torch files of before 2020: tensors read out of them without unpickling, so that nothing in them is ever called.

Such a file is a pickle, a program for a stack machine, and running it may run anything. Here it is only looked at:
`pickletools.genops` names its steps and carries none out; the two dozen that build plain containers are followed,
four names may stand in it and are words to us, and whatever else it asks for refuses the file. It serves the cards
whose weights come in no other form, by their sha256; a user's own .pth stays refused (`nn/weights.py`).
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core.errors import ModelError

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_LARGEST = 1_000_000_000  # bytes
_MAPPING, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_STORAGES: dict[str, np.dtype[Any]] = {"torch FloatStorage": np.dtype("<f4"), "torch LongStorage": np.dtype("<i8")}
_PLAIN = frozenset({"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"})
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclass(frozen=True)
class _Name:
    """A name that a pickle would import. Here it stays a name."""

    words: str


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Name -> array of a saved state_dict (float32 and int64 on the CPU, in torch's format of before 1.6).

    Raises ModelError for any other file: another format or kind of content, a step that is not needed for tensors,
    cut off, or sizes that do not fit each other.
    """
    if path.stat().st_size > _LARGEST:
        raise _refused(path, f"it is larger than {_LARGEST:,} bytes")
    data = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in words that are refused anyway
            tensors, keys, end = _pickles(io.BytesIO(data))
        found = _storages(data, end, keys, [tensor.storage for tensor in tensors.values()])
        return {name: _array(tensor, found[tensor.storage.key]) for name, tensor in tensors.items()}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise _refused(path, str(error) or type(error).__name__) from None


def _pickles(file: io.BytesIO) -> tuple[dict[str, _Tensor], Any, int]:
    """The tensors that the file names, its list of storages, and where their numbers begin."""
    if _followed(file) != _MAGIC or _followed(file) != _PROTOCOL:
        raise ValueError("it does not begin as such a file does")
    if _dictionary(_followed(file)).get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    tensors, keys = _dictionary(_followed(file)), _followed(file)
    if not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise ValueError("it holds more than named tensors")
    return tensors, keys, file.tell()


# -- the steps -------------------------------------------------------------------------------------------------------


def _followed(file: io.BytesIO) -> Any:
    """What the next pickle in the file would build, of plain containers, `_Name`, `_Storage` and `_Tensor`."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    given: Any
    for step, given, _ in pickletools.genops(file):
        name: str = step.name
        if name == "STOP":
            if len(stack) != 1:
                raise ValueError("its steps do not end in one thing")
            return stack[0]
        if name in _PLAIN:
            stack.append(given)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[given] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[given])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "PROTO" and given == 2 and not stack:
            continue
        else:
            _build(name, given, stack)
    raise ValueError("it is cut off")


def _build(name: str, given: Any, stack: list[Any]) -> None:
    """The steps that make something of what lies on the stack."""
    if name in ("EMPTY_DICT", "EMPTY_LIST"):
        stack.append({} if name == "EMPTY_DICT" else [])
    elif name == "TUPLE":
        some = _to_mark(stack)
        stack.append(tuple(some))
    elif name in _TUPLES:
        some = _popped(stack, _TUPLES[name])
        stack.append(tuple(some))
    elif name in ("APPEND", "APPENDS"):
        some = _popped(stack, 1) if name == "APPEND" else _to_mark(stack)
        if type(stack[-1]) is not list:
            raise ValueError("it appends to what is no list")
        stack[-1].extend(some)
    elif name in ("SETITEM", "SETITEMS"):
        some = _popped(stack, 2) if name == "SETITEM" else _to_mark(stack)
        target = _dictionary(stack[-1])
        for key, value in zip(some[::2], some[1::2], strict=True):
            if not isinstance(key, str) or key in target:
                raise ValueError("a key is no word, or stands twice")
            target[key] = value
    elif name == "GLOBAL":
        if given not in (_MAPPING, _TENSOR, *_STORAGES):
            raise ValueError(f"it names {given[:80]!r}, which no tensor needs")
        stack.append(_Name(given))
    elif name == "BINPERSID":
        stack.append(_storage(*_popped(stack, 1)[0]))
    elif name == "REDUCE":
        what, some = _popped(stack, 2)
        stack.append(_called(what, some))
    elif name == "BUILD":  # a state_dict's own attributes: versions of its layers, which change no tensor
        some = _popped(stack, 1)
        _dictionary(some[0]), _dictionary(stack[-1])
    else:
        raise ValueError(f"it holds the step {name}, which no tensor needs")


def _called(what: Any, some: Any) -> Any:
    """What the two calls that a state_dict is made of would give."""
    if what == _Name(_MAPPING) and some == ():
        return {}
    if what != _Name(_TENSOR):
        raise ValueError("it calls something")
    storage, offset, shape, strides, learns, hooks = some
    whole = isinstance(storage, _Storage) and type(shape) is type(strides) is tuple and len(shape) == len(strides)
    if not whole or type(learns) is not bool or hooks != {}:
        raise ValueError("a tensor is described wrongly")
    if not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)):
        raise ValueError("a tensor's sizes are no numbers")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.count or (math.prod(shape) and last >= storage.count):
        raise ValueError("a tensor reaches beyond its storage")
    return _Tensor(storage, offset, shape, strides)


def _storage(word: Any, kind: Any, key: Any, place: Any, count: Any, view: Any) -> _Storage:
    right = word == "storage" and isinstance(kind, _Name) and kind.words in _STORAGES and place == "cpu"
    if not right or view is not None or not isinstance(key, str) or type(count) is not int or count < 0:
        raise ValueError("a storage is described wrongly")
    return _Storage(kind.words, key, count)


def _popped(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count or any(one is _MARK for one in stack[-count:]):
        raise ValueError("a step finds too little on the stack")
    some = stack[-count:]
    del stack[-count:]
    return some


def _to_mark(stack: list[Any]) -> list[Any]:
    """All above the last mark, which goes too. Raises ValueError without one."""
    at = next((i for i in range(len(stack) - 1, -1, -1) if stack[i] is _MARK), None)
    if at is None:
        raise ValueError("a step finds no mark on the stack")
    some = stack[at + 1 :]
    del stack[at:]
    return some


def _dictionary(thing: Any) -> dict[str, Any]:
    if type(thing) is not dict:
        raise ValueError("something is no mapping where one belongs")
    return thing


# -- the numbers -----------------------------------------------------------------------------------------------------


def _storages(data: bytes, at: int, keys: Any, named: list[_Storage]) -> dict[str, np.ndarray]:
    """Key -> its numbers: for each key in order 8 bytes that count them, then the numbers, to the end of the file."""
    known = {storage.key: storage for storage in named}
    if any(known[storage.key] != storage for storage in named):
        raise ValueError("two tensors describe one storage differently")
    if type(keys) is not list or sorted(keys) != sorted(known):
        raise ValueError("its storages are not those of its tensors")
    found = {}
    for key in keys:
        storage = known[key]
        kind = _STORAGES[storage.kind]
        (count,) = struct.unpack_from("<q", data, at)
        if count != storage.count:
            raise ValueError(f"a storage holds {count:,} numbers where {storage.count:,} are promised")
        found[key] = np.frombuffer(data, kind, count, at + 8)
        at += 8 + count * kind.itemsize
    if at != len(data):
        raise ValueError(f"it goes on for {len(data) - at:,} bytes after its last number")
    return found


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """Its place in the storage was looked at in `_called`."""
    steps = [step * numbers.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps).copy()


def _refused(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is no plain file of tensors: {why}.", "Fetch it again (`genwright models pull CARD`).")
