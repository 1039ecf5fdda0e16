"""FFmpeg, where its program is on the PATH: AAC is written, and what phones and browsers record is read (MPEG-4, WebM).

It is nobody's dependency: the builds in packages hold GPL code, and a program of the machine's own is asked by pipe.
What is read comes from strangers: the file's kind is told by its first bytes and forced, so that no list of other files
or addresses is followed; nothing but this file is opened; bytes, seconds of CPU and each allocation have bounds.
"""

from __future__ import annotations

import io
import re
import shutil
import struct
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from genwright.core.errors import DataError, UsageError

INSTALL = "Install ffmpeg (apt install ffmpeg, brew install ffmpeg)"
_QUIET = ("-hide_banner", "-loglevel", "error", "-max_alloc", str(1 << 28), "-timelimit", "600")
_AU = struct.Struct(">4s5I")  # magic, where samples begin, their bytes (unknown), coding, rate, channels
_CUT = re.compile("partial file|prematurely|truncat")
_NAMES = {"mov": "MPEG-4", "matroska": "WebM", "aac": "AAC"}


def kind_of(source: Path | bytes) -> str:
    """FFmpeg's name of a file's kind, one of `_NAMES`, by its first bytes and those after an ID3 tag; empty for any
    other. AAC is ADTS frames (ISO 13818-7). Raises OSError where the file cannot be read."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        head = file.read(12)
        if head[:3] == b"ID3" and len(head) == 12:
            file.seek(10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]))
            head = file.read(2)
    if head[4:8] == b"ftyp":
        return "mov"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    return "aac" if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else ""


def needed() -> str:
    """The program's path. Raises UsageError where there is none: to be known before any sound is made."""
    if (found := shutil.which("ffmpeg")) is None:
        raise UsageError("AAC is written by ffmpeg, and none is on the PATH.", f"{INSTALL}, or ask for mp3 or opus.")
    return found


def aac(samples: Any, rate: int) -> bytes:
    """AAC-LC in ADTS frames, 64 kbit/s a channel, of float32 (frames, channels). The rate becomes the nearest that AAC
    knows. Raises UsageError where there is no ffmpeg, or it fails."""
    channels = samples.shape[1]
    given = ("-f", "f32le", "-ar", str(rate), "-ac", str(channels), "-i", "pipe:0")
    made = ("-c:a", "aac", "-b:a", f"{64 * channels}k", "-fflags", "+bitexact", "-f", "adts", "pipe:1")
    done = subprocess.run(
        [needed(), *_QUIET, *given, *made], input=samples.astype("<f4").tobytes(), capture_output=True, check=False
    )
    if done.returncode:
        raise UsageError(f"ffmpeg wrote no AAC: {_last(done.stderr)}", "Ask for mp3 or opus.")
    return done.stdout


class Opened:
    """A file read by ffmpeg, with those of soundfile's fields that are looked at. `frames` is 0: how many there are is
    known at the end alone."""

    frames = 0
    subtype = ""

    def __init__(self, source: Path | bytes, kind: str, name: str) -> None:
        """Raises DataError: no ffmpeg on the PATH, no sound in the file, or none that ffmpeg reads."""
        self.format = called = _NAMES[kind]
        if (found := shutil.which("ffmpeg")) is None:
            raise DataError(f"{name} is {called}, which ffmpeg reads, and none is on the PATH.",
                            f"{INSTALL}, or convert it to WAV, FLAC, MP3, Ogg or Opus.")  # fmt: skip
        self._name = name
        with ExitStack() as opened:
            self._errors = opened.enter_context(tempfile.TemporaryFile())
            path = source.resolve() if isinstance(source, Path) else _kept(source, opened)
            order = [found, *_QUIET, "-nostdin", "-protocol_whitelist", "file,pipe", "-f", kind, "-i", f"file:{path}",
                     "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]  # fmt: skip
            self._process = subprocess.Popen(
                order, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors
            )
            opened.callback(self._end)
            head = self._out.read(_AU.size)
            if len(head) < _AU.size:
                raise DataError(f"{name} is no {called} sound that can be read: {self._said()}.", "Convert it to WAV.")
            _, offset, _, _, self.samplerate, self.channels = _AU.unpack(head)
            self._out.read(offset - _AU.size)
            self._opened = opened.pop_all()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._opened.close()

    def read(self, frames: int, **_: Any) -> Any:
        """The next float32 (frames, channels), fewer at the end. Raises DataError for what is damaged or cut off."""
        import numpy as np

        data = self._out.read(frames * 4 * self.channels)
        if len(data) < frames * 4 * self.channels and (self._process.wait() or _CUT.search(self._said())):
            raise DataError(f"{self._name} is damaged or cut off: {self._said()}.", "Get it again, or leave it out.")
        return np.frombuffer(data, ">f4").astype(np.float32).reshape(-1, self.channels)

    @property
    def _out(self) -> IO[bytes]:
        assert self._process.stdout
        return self._process.stdout

    def _said(self) -> str:
        """The last that ffmpeg complained of, without the places in memory."""
        self._process.wait()
        self._errors.seek(0)
        return _last(self._errors.read())

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()


def _kept(data: bytes, opened: ExitStack) -> str:
    """A file of these bytes, until it is closed: MPEG-4 tells at its end where its sound lies."""
    file = opened.enter_context(tempfile.NamedTemporaryFile())  # noqa: SIM115
    file.write(data)
    file.flush()
    return file.name


def _last(said: bytes) -> str:
    lines = re.sub(r"\[[^]]*\] ?|(file:)?/\S*/", "", said.decode("utf-8", "replace")).strip().splitlines()
    return lines[-1].rstrip(". ") if lines else "it ended early"
