"""Arrow: rows of parquet, feather and arrow files, in batches, by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genwright.core import Bad, DataError, MissingExtra, Row

from .files import File

_BATCH = 1024


def parquet_rows(file: File, names: Mapping[str, Sequence[str]] | None = None) -> Iterator[Row | Bad]:
    """Rows of a parquet file; `names` are the words of integer label columns. Raises DataError when it is none."""
    pa = _pyarrow()
    from pyarrow import parquet

    with file.open() as stream:
        try:
            table = parquet.ParquetFile(stream)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{file.name} is no parquet file: {error}", "Fetch or save it again.") from None
        yield from _batches(table.iter_batches(_BATCH), file.name, names or {})


def arrow_rows(file: File, names: Mapping[str, Sequence[str]] | None = None) -> Iterator[Row | Bad]:
    """Rows of an arrow file (stream or file form, so feather too). Raises DataError when it is neither."""
    pa = _pyarrow()
    from pyarrow import ipc

    with file.open() as stream:
        head = stream.peek(6)[:6]  # type: ignore[attr-defined]
        try:
            if head == b"ARROW1":
                table = ipc.open_file(stream)
                batches = (table.get_batch(i) for i in range(table.num_record_batches))
            else:
                batches = ipc.open_stream(stream)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{file.name} is no arrow file: {error}", "Fetch or save it again.") from None
        yield from _batches(batches, file.name, names or {})


def _batches(batches: Any, name: str, names: Mapping[str, Sequence[str]]) -> Iterator[Row | Bad]:
    pa, number = _pyarrow(), 0
    try:
        for batch in batches:
            for piece in (batch.slice(at, _BATCH) for at in range(0, batch.num_rows, _BATCH)):
                for fields in piece.to_pylist():
                    number += 1
                    for key, words in names.items():
                        if isinstance(fields.get(key), int) and 0 <= fields[key] < len(words):
                            fields[key] = words[fields[key]]
                    yield Row(f"{name}:row {number}", fields)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        yield Bad(f"{name}:row {number + 1}", f"the file is broken here: {error}")


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingExtra("pyarrow", "text") from None
    return pyarrow
