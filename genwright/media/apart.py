"""Apart: pictures from strangers are decoded in a process of their own, with little memory, little time and no files.

One worker a process, started at the first picture and kept. It may open no file, take no more memory and no more CPU
seconds than `Bounds` say; what breaks it costs that picture and a new worker, never the process that asked. The limits
are those of POSIX (`setrlimit`): where there are none (Windows) pictures are decoded in the process itself, within the
limits of `media/picture.py`. A wall against code that takes the decoder over this is not: the worker may still talk to
the network, and is the same user.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from genwright.core.errors import DataError, GenwrightError, MissingExtra

from . import picture
from .picture import DRAWN, LIMITS, Limits, TooLarge, open_picture


@dataclass(frozen=True)
class Bounds:
    """What one picture may cost the worker: bytes of memory beyond those it starts with, seconds of CPU, of waiting."""

    memory: int = 1_000_000_000
    cpu: int = 20
    seconds: float = 60.0


BOUNDS = Bounds()
_STARTING = 60.0  # seconds until a worker must be ready
_HEAD = struct.Struct(">QQ")  # bytes of the JSON, bytes of what follows it


def open_given(source: Path | bytes, *, limits: Limits = LIMITS, drawn: int = DRAWN) -> Any:
    """As `media.picture.open_picture`, but apart: the same PIL image, the same errors, and DataError when the picture
    broke the worker or took too long."""
    if not _can():
        return open_picture(source, limits=limits, drawn=drawn)
    facts, pixels = _asked("open", source, limits, drawn)
    return picture._pillow().frombytes(facts["mode"], (facts["width"], facts["height"]), pixels)


def look_given(source: Path | bytes, *, limits: Limits = LIMITS, drawn: int = DRAWN) -> dict[str, Any]:
    """{"width", "height", "mode", "suffix"} of a picture that was decoded whole, apart; its pixels are not kept."""
    return _asked("look", source, limits, drawn)[0] if _can() else _looked(source, limits, drawn)


def _looked(source: Path | bytes, limits: Limits, drawn: int) -> dict[str, Any]:
    image, facts = open_picture(source, limits=limits, drawn=drawn), picture.picture_facts(source, limits=limits)
    upright = {} if facts["suffix"] == ".svg" else {"width": image.width, "height": image.height}
    return facts | upright | {"mode": image.mode}


# -- asking ------------------------------------------------------------------------------------------------------------


def _can() -> bool:
    return _has("resource")


@cache
def _has(library: str) -> bool:
    return find_spec(library) is not None


def _asked(task: str, source: Path | bytes, limits: Limits, drawn: int) -> tuple[dict[str, Any], bytes]:
    """What the worker answers: facts and pixels. Raises its errors as ours."""
    if not _has("PIL"):
        raise MissingExtra("Pillow", "image")
    name = str(source) if isinstance(source, Path) else "The picture"
    data = source if isinstance(source, bytes) else _read(source, limits)
    asked = {"task": task, "name": name, "limits": asdict(limits), "drawn": drawn}
    with _Worker.lock:
        try:
            worker: _Worker | None = _Worker.running()
        except (OSError, EOFError):  # no process could be started: better here than not at all
            worker = None
        facts, pixels = worker.ask(asked, data, name) if worker else _answer(asked, data)
    if facts.get("error") == "MissingExtra":
        raise MissingExtra("resvg-py", "image")
    if facts.get("error"):
        kind = TooLarge if facts["error"] == "TooLarge" else DataError
        raise kind(facts["message"], facts["hint"])
    return facts, pixels


def _read(path: Path, limits: Limits) -> bytes:
    """The file, unless it is larger than a picture may be: its name and size are looked at by the usual way."""
    try:
        if path.stat().st_size <= limits.bytes:
            return path.read_bytes()
    except OSError:
        pass
    picture.picture_facts(path, limits=limits)  # raises what is wrong with it
    raise AssertionError(path)


class _Worker:
    """The process, and how to talk with it. Replaced when it died, and after a fork (its pipes are the parent's)."""

    lock = threading.Lock()
    one: _Worker | None = None

    @classmethod
    def running(cls) -> _Worker:
        if cls.one is None or cls.one.owner != os.getpid() or cls.one.process.poll() is not None:
            cls.one = cls()
        return cls.one

    def __init__(self) -> None:
        self.owner = os.getpid()
        code = f"from genwright.media.apart import serve; serve({BOUNDS.memory}, {BOUNDS.cpu})"
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        atexit.register(self.close)
        try:
            self._received(time.monotonic() + _STARTING)
        except EOFError:
            self.close()
            raise

    def ask(self, asked: dict[str, Any], data: bytes, name: str) -> tuple[dict[str, Any], bytes]:
        assert self.process.stdin
        assert self.process.stdout
        end = time.monotonic() + BOUNDS.seconds
        try:
            _send(self.process.stdin, asked, data)
            facts, pixels = self._received(end)
        except (OSError, EOFError):
            late = time.monotonic() >= end
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(0 if late else 5)
            late = late or self.process.returncode == -int(signal.SIGXCPU)
            self.close()
            why = "took too long to decode" if late else "broke the process that decoded it"
            raise DataError(f"{name} {why}.", "Save it anew in a picture program, or leave it out.") from None
        return facts, pixels

    def _received(self, end: float) -> tuple[dict[str, Any], bytes]:
        """Raises EOFError when the worker ends or the time is up."""
        size, more = _HEAD.unpack(self._bytes(_HEAD.size, end))
        facts = json.loads(self._bytes(size, end))
        return facts, self._bytes(more, end)

    def _bytes(self, count: int, end: float) -> bytes:
        assert self.process.stdout
        number, found = self.process.stdout.fileno(), bytearray()
        while len(found) < count:
            ready, _, _ = select.select([number], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(number, min(count - len(found), 1 << 20)) if ready else b""
            if not piece:
                raise EOFError
            found += piece
        return bytes(found)

    def close(self) -> None:
        """End the process; in a forked child only the pipes' copies are let go."""
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was written and not read is lost
                if pipe:
                    pipe.close()
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()


def _send(pipe: IO[bytes], said: dict[str, Any], data: bytes) -> None:
    text = json.dumps(said).encode()
    pipe.write(_HEAD.pack(len(text), len(data)) + text)
    pipe.write(data)
    pipe.flush()


# -- the worker --------------------------------------------------------------------------------------------------------


def serve(memory: int, cpu: int) -> None:
    """The worker's whole life: answer one picture after the other until nobody asks any more."""
    _warm()
    _limit(memory)
    pipe, out = sys.stdin.buffer, sys.stdout.buffer
    _send(out, {}, b"")
    while head := pipe.read(_HEAD.size):
        size, more = _HEAD.unpack(head)
        asked, data = json.loads(pipe.read(size)), pipe.read(more)
        _limit_cpu(cpu)
        facts, pixels = _answer(asked, data)
        del data
        _send(out, facts, pixels)


def _answer(asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Facts and pixels, or an error as facts."""
    try:
        return _done(asked, data)
    except GenwrightError as error:
        message = error.message.replace("The picture", asked["name"], 1)
        return {"error": type(error).__name__, "message": message, "hint": error.hint}, b""
    except MemoryError:
        return {"error": "TooLarge", "message": f"{asked['name']} does not fit into memory.",
                "hint": "Make it smaller."}, b""  # fmt: skip


def _done(asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    limits, drawn = Limits(**asked["limits"]), asked["drawn"]
    if asked["task"] == "look":
        return _looked(data, limits, drawn), b""
    image = open_picture(data, limits=limits, drawn=drawn)
    return {"mode": image.mode, "width": image.width, "height": image.height}, image.tobytes()


def _warm() -> None:
    """Load all that decoding may need, for no file can be opened later."""
    import io

    import numpy
    from PIL import Image, ImageCms, MpoImagePlugin  # noqa: F401 (loaded when a JPEG turns out to hold two)

    ImageCms.createProfile("sRGB")
    for form in picture.FORMATS:
        out = io.BytesIO()
        Image.fromarray(numpy.zeros((2, 2, 3), numpy.uint8)).save(out, form)
        open_picture(out.getvalue())
    if _has("resvg_py"):
        open_picture(b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>')


def _limit(memory: int) -> None:
    import resource

    most = _address_space() + memory
    for name, count in (("RLIMIT_AS", most), ("RLIMIT_NOFILE", 3), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        _, hard = resource.getrlimit(getattr(resource, name))
        count = count if hard == resource.RLIM_INFINITY else min(count, hard)
        try:
            resource.setrlimit(getattr(resource, name), (count, count))
        except (ValueError, OSError):
            continue  # macOS knows some of them by name only


def _limit_cpu(seconds: int) -> None:
    """This much more than was used so far."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _address_space() -> int:
    """Bytes of it that this process has; an estimate where /proc does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 500_000_000
