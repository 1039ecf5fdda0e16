"""Tokens: a dataset as the learner sees it, encoded once, kept on disk and read by memory map.

A folder holds `data.bin` (the rows' arrays one after another), `rows.bin` (a fixed record a row) and `meta.json`. It
is named by what made it: the rows, the learner's way of encoding, the objective. Rows that cannot be learned from are
counted with their reasons, never dropped in silence.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from genwright.core.data import Dataset, Example
from genwright.core.model import Encoded, Unlearnable
from genwright.core.run import fingerprint
from genwright.core.things import SILENT, Tell

from .checkpoint import write_folder

Encode = Callable[[Example], Encoded]
_INTEGERS = ("row", "size", "real", "cut", "start", "end")
_RECORD = np.dtype([*((name, "<i8") for name in _INTEGERS), ("weight", "<f8")])
_PROBES, _REASONS, _SHOWN, _TELL = 16, 50, 20, 64


@dataclass
class Counts:
    """What encoding a dataset came to."""

    rows: int = 0
    unlearnable: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    shown: list[dict[str, str]] = field(default_factory=list)  # the first unlearnable rows: where, reason
    cut_rows: int = 0
    cut_tokens: int = 0
    slots: int = 0
    weight: float = 0.0


class Tokens(Sequence[Encoded]):
    """Encoded rows on disk. `rows`, `sizes`, `real` (non-padding tokens) and `weights` have one entry a row."""

    def __init__(self, folder: Path):
        self.folder = folder
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self.schemas = [[(name, np.dtype(kind), dims) for name, kind, dims in schema] for schema in meta["schemas"]]
        self.counts = Counts(**meta["counts"])
        self._records = _map_records(folder / "rows.bin")
        self.rows, self.sizes, self.real = self._records["row"], self._records["size"], self._records["real"]
        self.weights = self._records["weight"]
        self._data = _map_bytes(folder / "data.bin")

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self._records[index]
        sequences = _unpack(bytearray(self._data[int(row["start"]) : int(row["end"])]), self.schemas)
        return Encoded(sequences, int(row["size"]), float(row["weight"]), int(row["cut"]))

    @property
    def digest(self) -> str:
        """sha256 (hex) of which rows there are and how long: what a plan of steps depends on."""
        records = np.ascontiguousarray(self._records[["row", "size", "weight"]])
        return hashlib.sha256(records.tobytes()).hexdigest()


def encode_all(dataset: Dataset, encode: Encode, folder: Path, *, key: str, tell: Tell = SILENT, title: str) -> Tokens:
    """Encode every row, or open what an earlier call with the same rows and the same encoding left in `folder`.

    `key` names all that encoding depends on; a few rows are encoded each time besides, to notice when it forgot
    something. Raises NotSaved when the disk is full.
    """
    name = fingerprint(key, dataset.fingerprint, _probe(dataset, encode))[:24]
    place = folder / name
    if not _is_whole(place):
        tell.stage(title, total=len(dataset))
        write_folder(place, lambda new: _encode_into(new, dataset, encode, tell))
    return Tokens(place)


def forget_others(folder: Path, *kept: Tokens) -> None:
    """Delete what other inputs left in `folder`."""
    names = {tokens.folder.name for tokens in kept}
    for place in folder.iterdir():
        if place.name not in names and (place.is_dir() and not place.is_symlink()):
            shutil.rmtree(place, ignore_errors=True)


def _probe(dataset: Dataset, encode: Encode) -> str:
    """sha256 (hex) of how a few rows, evenly spread, are encoded now."""
    digest, step = hashlib.sha256(), max(1, -(-len(dataset) // _PROBES))
    for index in range(0, len(dataset), step):
        schemas: list[Any] = []
        try:
            encoded = encode(dataset[index])
            digest.update(_pack(encoded, schemas) + repr((schemas, encoded.size, encoded.weight)).encode())
        except Unlearnable as reason:
            digest.update(str(reason).encode())
    return digest.hexdigest()


def _encode_into(folder: Path, dataset: Dataset, encode: Encode, tell: Tell) -> None:
    counts, reasons, schemas, place = Counts(), Counter[str](), list[Any](), 0
    with (folder / "data.bin").open("wb") as data, (folder / "rows.bin").open("wb") as records:
        for index, example in enumerate(dataset):
            try:
                encoded = encode(example)
            except Unlearnable as error:
                reason = str(error) if str(error) in reasons or len(reasons) < _REASONS else "other reasons"
                reasons[reason] += 1
                if len(counts.shown) < _SHOWN:
                    counts.shown.append({"where": str(example.meta.get("where", f"row {index}")), "reason": str(error)})
                continue
            finally:
                if index % _TELL == _TELL - 1:
                    tell.advance(_TELL)
            packed = _pack(encoded, schemas)
            data.write(packed)
            record = (index, encoded.size, _real(encoded), encoded.cut, place, place + len(packed), encoded.weight)
            records.write(struct.pack("<6qd", *record))
            place += len(packed)
            counts.rows += 1
            counts.cut_rows += encoded.cut > 0
            counts.cut_tokens += encoded.cut
            counts.slots += encoded.size
            counts.weight += encoded.weight
    counts.reasons, counts.unlearnable = dict(reasons), sum(reasons.values())
    sizes = {"data.bin": place, "rows.bin": counts.rows * _RECORD.itemsize}
    meta = {"counts": counts.__dict__, "schemas": schemas, "bytes": sizes}
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return False


def _real(encoded: Encoded) -> int:
    """Tokens that are no padding. What has no tokens (a picture) counts its slots."""
    lengths = [np.size(v) for s in encoded.sequences for k, v in s.items() if k == "tokens" or k.endswith("_tokens")]
    return sum(lengths) or encoded.size


def _pack(encoded: Encoded, schemas: list[Any]) -> bytes:
    """(number of sequences) then for each: (schema) (its arrays' shapes) (its arrays' bytes)."""
    pieces = [struct.pack("<H", len(encoded.sequences))]
    for sequence in encoded.sequences:
        arrays = {name: np.asarray(value) for name, value in sequence.items()}
        schema = [[name, array.dtype.str, array.ndim] for name, array in arrays.items()]
        if schema not in schemas:
            schemas.append(schema)
        shape = [n for array in arrays.values() for n in array.shape]
        pieces.append(struct.pack(f"<H{len(shape)}I", schemas.index(schema), *shape))
        pieces += [array.tobytes() for array in arrays.values()]
    return b"".join(pieces)


def _unpack(data: bytearray, schemas: list[Any]) -> tuple[dict[str, Any], ...]:
    """The sequences again; the arrays own writable memory."""
    (count,), at = struct.unpack_from("<H", data), 2
    sequences = []
    for _ in range(count):
        schema = schemas[struct.unpack_from("<H", data, at)[0]]
        dims = sum(d for _, _, d in schema)
        shape, at = struct.unpack_from(f"<{dims}I", data, at + 2), at + 2 + 4 * dims
        sequence = {}
        for name, dtype, d in schema:
            mine, shape = shape[:d], shape[d:]
            size = math.prod(mine)
            array = np.frombuffer(data, dtype, size, at).reshape(mine)
            sequence[name], at = (array.copy() if d else array[()]), at + size * dtype.itemsize
        sequences.append(sequence)
    return tuple(sequences)


def _map_records(path: Path) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.empty(0, dtype=_RECORD)
    return np.asarray(np.memmap(path, dtype=_RECORD, mode="r"))  # a plain view: indexing costs less


def _map_bytes(path: Path) -> Any:
    if path.stat().st_size == 0:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
