"""Files: what a source's `path` stands for (file, folder, glob, members of an archive), opened safely and streamed.

Archives are never unpacked to disk. What comes out of them is counted while it streams: more than RATIO times its
packed size, more than MAX_BYTES in all or MAX_MEMBERS members is refused.
"""

from __future__ import annotations

import codecs
import fnmatch
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO, cast

from pydantic import AfterValidator

from genwright.core import Bad, DataError, did_you_mean

MAX_LINE = 8_000_000  # bytes of a line or row; a longer one is rejected and passed over without being held
MAX_TEXT = 64_000_000  # bytes of a file that must be read whole
MAX_MEMBERS = 10_000
MAX_BYTES = 4_000_000_000
RATIO = 100
_SMALL = 1 << 20  # below this much output a high ratio harms nobody
_CHUNK = 1 << 20
BROKEN = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
_ZIPS, _TARS = (".zip", ".whl"), (".tgz", ".tar.gz", ".tar", ".tar.bz2", ".tar.xz", ".crate")


@dataclass(frozen=True)
class File:
    """A file to read: its name (relative to what was asked for) and how to open it, unpacked if it ends in .gz."""

    name: str
    open: Callable[[], BinaryIO]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name.removesuffix(".gz")).suffix.lower()


def find_files(path: Path, include: Sequence[str] = ("*",)) -> Iterator[File | Bad]:
    """The files that `path` stands for, in order of name; `include` are globs for folders and archives.

    An archive's members that must not be read are Bad. Raises DataError when there is nothing, or too much.
    """
    if not path.exists() and any(c in str(path) for c in "*?["):
        yield from _globbed(path)
    elif must_exist(path).is_dir():
        yield from _in_folder(path, include)
    elif path.name.lower().endswith(_ZIPS):
        yield from _in_zip(path, include)
    elif path.name.lower().endswith(_TARS):
        yield from _in_tar(path, include)
    else:
        yield File(path.name, lambda: open_file(path))


def must_exist(path: Path) -> Path:
    """The path itself. Raises DataError with the nearest name when it is not there, or may not be looked at."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, names[:200]) if names else f"There is no folder {path.parent} either."
        raise DataError(f"There is no file {path}.", hint) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return path


def open_file(path: Path) -> BinaryIO:
    """Open one file, through gzip if it ends in .gz. Raises DataError when it is a folder, missing or not readable."""
    if must_exist(path).is_dir():
        raise DataError(f"{path} is a folder, not a file.", "Give a file in it, or a source that reads folders.")
    try:
        if path.suffix == ".gz":
            return _capped(gzip.open(path), path.name, max(path.stat().st_size, 1), _Budget())
        return path.open("rb", buffering=_CHUNK)
    except OSError as error:
        raise _unreadable(path, error) from None


def numbered_lines(file: BinaryIO, limit: int = MAX_LINE) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line without its newline); None for a line above `limit` bytes, which is never held whole."""
    rest, number, too_long = b"", 0, False
    while chunk := file.read1(_CHUNK):  # type: ignore[attr-defined]
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            number += 1
            yield number, None if too_long or len(line) > limit else line
            too_long = False
        if len(rest) > limit:
            rest, too_long = b"", True
    if rest or too_long:
        yield number + 1, None if too_long or len(rest) > limit else rest


def read_text(file: File, encoding: str = "utf-8", limit: int = MAX_TEXT) -> str | Bad:
    """A whole file as text with plain newlines; Bad when it is too large, broken or not in that encoding."""
    try:
        with file.open() as stream:
            raw = stream.read(limit + 1)
    except BROKEN as error:
        return Bad(file.name, f"the archive is broken: {error}")
    if len(raw) > limit:
        return Bad(file.name, f"is larger than {limit // 1_000_000} MB, too large to read whole")
    return decoded(raw, file.name, encoding)


def decoded(raw: bytes, where: str, encoding: str = "utf-8") -> str | Bad:
    """Bytes as text, without a byte order mark and with plain newlines; Bad when they are not in that encoding."""
    try:
        text = raw.decode("utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding)
    except UnicodeDecodeError as error:
        return Bad(where, f"is not {encoding} at byte {error.start}", shown(raw[error.start : error.start + 100]))
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def known_encoding(name: str) -> str:
    """The name of an encoding as Python knows it, or an empty string."""
    try:
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        return ""


def _checked_encoding(name: str) -> str:
    if not known_encoding(name):
        raise ValueError(f"there is no encoding {name!r}; try utf-8, gb18030, utf-16, latin-1 …")
    return name


Encoding = Annotated[str, AfterValidator(_checked_encoding)]  # for a source's Settings


def shown(raw: bytes | str | None, size: int = 300) -> str:
    """The first characters of something malformed, fit to be written anywhere."""
    if isinstance(raw, str):
        return raw[:size].encode("utf-8", "replace").decode()
    return (raw or b"")[: size * 4].decode("utf-8", "replace")[:size]


# -- folders, globs and archives -------------------------------------------------------------------------------------


def _in_folder(path: Path, include: Sequence[str]) -> Iterator[File]:
    found = 0
    for one in sorted(p for p in path.rglob("*") if p.is_file()):
        name = one.relative_to(path).as_posix()
        if _wanted(name, include):
            found += 1
            yield File(name, lambda one=one: open_file(one))  # type: ignore[misc]
    if not found:
        raise DataError(
            f"No file in {path} is called {' or '.join(include)}.", "Set `include` to what they are called."
        )


def _globbed(path: Path) -> Iterator[File]:
    fixed = next(p for p in path.parents if not any(c in str(p) for c in "*?["))
    found = sorted(p for p in fixed.glob(str(path.relative_to(fixed))) if p.is_file())
    if not found:
        raise DataError(f"No file matches {path}.", f"There is {fixed}." if fixed.exists() else f"No folder {fixed}.")
    for one in found:
        yield File(one.relative_to(fixed).as_posix(), lambda one=one: open_file(one))  # type: ignore[misc]


def _in_zip(path: Path, include: Sequence[str]) -> Iterator[File | Bad]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            _check_count(path, len(members))
            budget, seen = _Budget(), set[str]()
            for member in sorted(members, key=lambda m: m.filename):
                name = member.filename
                if not _wanted(name, include):
                    continue
                if name in seen or _unsafe(name) or member.flag_bits & 1 or (member.external_attr >> 28) == 0xA:
                    reason = "twice in the archive" if name in seen else "encrypted" if member.flag_bits & 1 else ""
                    yield Bad(
                        f"{path.name}:{shown(name)}", f"this member is {reason or 'a link or has an unsafe name'}"
                    )
                    continue
                seen.add(name)
                packed = max(member.compress_size, 1)
                yield File(name, lambda m=member, p=packed: _member(archive.open(m), m.filename, p, budget))  # type: ignore[misc]
    except (*BROKEN, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read as an archive: {error}", "Fetch it again.") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if not seen:
        raise DataError(f"No member of {path} is called {' or '.join(include)}.", "Set `include` to what is in it.")


def _in_tar(path: Path, include: Sequence[str]) -> Iterator[File | Bad]:
    """Members in the order of the archive: a tar can only be read from front to back."""
    found, budget, count = 0, _Budget(), 0
    try:
        with path.open("rb") as whole, tarfile.open(fileobj=whole, mode="r|*") as archive:
            for member in archive:
                count += 1
                _check_count(path, count)
                if member.isdir() or not _wanted(member.name, include):
                    continue
                if not member.isreg() or _unsafe(member.name):
                    yield Bad(f"{path.name}:{shown(member.name)}", "this member is a link or has an unsafe name")
                    continue
                found += 1
                packed = max(path.stat().st_size, 1)
                stream = cast(BinaryIO, archive.extractfile(member))
                yield File(member.name, lambda s=stream, n=member.name, p=packed: _member(s, n, p, budget))  # type: ignore[misc]
    except BROKEN as error:
        raise DataError(f"{path} cannot be read as an archive: {error}", "Fetch it again.") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if not found:
        raise DataError(f"No member of {path} is called {' or '.join(include)}.", "Set `include` to what is in it.")


def _wanted(name: str, include: Sequence[str]) -> bool:
    base = name.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(name, glob) or fnmatch.fnmatchcase(base, glob) for glob in include)


def _unsafe(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    device = re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", parts[-1]) if parts else True
    return bool(not parts or ".." in parts or parts[0] == "/" or ":" in parts[0] or "\0" in name or device)


def _check_count(path: Path, count: int) -> None:
    if count >= MAX_MEMBERS:
        raise DataError(f"{path} has {MAX_MEMBERS:,} members or more, which is refused.", "Unpack it; give the folder.")


@dataclass
class _Budget:
    """What has come out of one archive so far, in bytes."""

    spent: int = 0


@dataclass
class _Capped(io.RawIOBase):
    """A stream out of an archive that is refused when it grows beyond all reason."""

    stream: Any
    label: str
    packed: int
    budget: _Budget
    out: int = field(default=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read1(len(buffer))  # what there is, so that a broken end costs no more than itself
        buffer[: len(data)] = data
        self.out += len(data)
        self.budget.spent += len(data)
        if (self.out > _SMALL and self.out > RATIO * self.packed) or self.budget.spent > MAX_BYTES:
            raise DataError(
                f"{self.label} unpacks to more than {RATIO} times its size or more than {MAX_BYTES // 10**9} GB.",
                "It looks like an archive bomb. If you trust it, unpack it yourself and give the folder.",
            )
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


def _member(stream: Any, name: str, packed: int, budget: _Budget) -> BinaryIO:
    capped = _capped(stream, name, packed, budget)
    return _capped(gzip.GzipFile(fileobj=capped), name, packed, budget) if name.endswith(".gz") else capped


def _capped(stream: Any, label: str, packed: int, budget: _Budget) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Capped(stream, label, packed, budget), _CHUNK))


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, PermissionError):
        return DataError(f"{path} may not be read: {error.strerror}.", f"Check its rights, e.g. chmod u+r '{path}'.")
    return DataError(f"{path} cannot be read: {error.strerror or error}.", "Check the disk and the path.")
