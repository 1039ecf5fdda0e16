"""Sound: opened within limits, resampled, written whole, drawn as a wave and as a spectrogram.

What comes from outside is looked at in this order: how many bytes, which format, what the header claims of rate,
channels and length; only then is it decoded, in blocks, and no further than is allowed: a header may lie.
"""

from __future__ import annotations

import io
import itertools
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright.core.errors import DataError, MissingExtra, UsageError
from genwright.core.run import write_bytes

from . import ffmpeg

# Suffix -> libsndfile's format and subtype for writing.
WRITES = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".mp3": ("MP3", "MPEG_LAYER_III"),
          ".ogg": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS")}  # fmt: skip
_SUFFIXES = {"WAV": ".wav", "WAVEX": ".wav", "RF64": ".wav", "FLAC": ".flac", "MP3": ".mp3", "OGG": ".ogg",
             "AIFF": ".aiff", "AU": ".au", "CAF": ".caf", "W64": ".w64", "MPEG-4": ".m4a", "WebM": ".webm",
             "AAC": ".aac"}  # fmt: skip
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_MP3_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # kbit/s of MPEG-1 and MPEG-2, layer III
_MP3_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_BLOCK = 1 << 16  # frames decoded at once
_FRAMES = 6_000  # whose bands are found at once
_AGAIN = "Get it again, or leave it out."


@dataclass(frozen=True)
class Limits:
    """What a sound from outside may be."""

    seconds: float = 600.0
    bytes: int = 128_000_000
    channels: int = 8
    rates: tuple[int, int] = (1_000, 384_000)


LIMITS = Limits()
SPEECH = Limits(seconds=4 * 3600, bytes=3_000_000_000)  # a recording that is listened to


class TooLong(DataError):
    """More bytes, seconds or channels than the limits allow."""

    status = 413


@dataclass(frozen=True)
class Sound:
    """`samples` float32 (frames, channels) from -1 to 1, `rate` in frames a second."""

    samples: Any
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def channels(self) -> int:
        return int(self.samples.shape[1])

    def mono(self) -> Sound:
        """One channel: the mean of all."""
        return self if self.channels == 1 else Sound(self.samples.mean(1, keepdims=True), self.rate)

    def at(self, rate: int) -> Sound:
        """Resampled (soxr, very high quality); the same object at its own rate."""
        if rate == self.rate or not len(self.samples):
            return self if rate == self.rate else Sound(self.samples, rate)
        return Sound(_soxr().resample(self.samples, self.rate, rate, quality="VHQ").astype("float32"), rate)


def sound_of(samples: Any, rate: int) -> Sound:
    """A sound of an array (frames,) or (frames, channels): float from -1 to 1, or 16-bit integers."""
    import numpy as np

    found = np.asarray(samples)
    if found.dtype == np.int16:
        found = found.astype(np.float32) / 32768
    found = found.astype(np.float32, copy=False)
    return Sound(found[:, None] if found.ndim == 1 else found, int(rate))


def open_sound(source: Path | bytes, *, limits: Limits = LIMITS) -> Sound:
    """A file's sound as it is. Raises TooLong, or DataError: not there, no sound that libsndfile or ffmpeg reads,
    damaged, empty, or with a rate or a number of channels that cannot be."""
    import numpy as np

    rate, blocks = _decoded(source, limits)
    return Sound(np.concatenate(list(blocks)), rate)


def open_speech(source: Path | bytes, rate: int, *, limits: Limits = SPEECH) -> Sound:
    """The mean of a file's channels at `rate`, resampled as it is decoded: hours of it take the memory of what comes
    out, 230 MB an hour at 16 kHz. Raises what `open_sound` raises."""
    import numpy as np

    given, blocks = _decoded(source, limits)
    if given == rate:
        return Sound(np.concatenate([block.mean(1, keepdims=True) for block in blocks]), rate)
    stream = _soxr().ResampleStream(given, rate, 1, dtype="float32", quality="VHQ")
    made = [stream.resample_chunk(block.mean(1, keepdims=True)) for block in blocks]
    end = stream.resample_chunk(np.zeros((0, 1), np.float32), last=True)
    return Sound(np.concatenate([*made, end]).reshape(-1, 1), rate)


def _decoded(source: Path | bytes, limits: Limits) -> tuple[int, Iterator[Any]]:
    """The rate, and the samples (frames, channels) block by block, checked as they come."""
    name = str(source) if isinstance(source, Path) else "The sound"
    file = _opened(source, name, limits)
    return file.samplerate, _blocks(file, name, limits)


def _blocks(file: Any, name: str, limits: Limits) -> Iterator[Any]:
    import numpy as np

    count = 0
    with file:
        try:
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                count += len(block)
                if count > int(limits.seconds * file.samplerate):
                    raise _too_long(name, limits)
                if not np.isfinite(block).all():
                    raise DataError(f"{name} is damaged: it holds numbers that are none.", _AGAIN)
                yield block
        except _soundfile().LibsndfileError as error:
            raise DataError(f"{name} is damaged: {error.error_string}", _AGAIN) from None
        if count < file.frames and file.format != "MP3":  # whose length is a guess
            raise DataError(f"{name} is cut off: {count:,} of {file.frames:,} frames are there.", _AGAIN)
        if not count:
            raise DataError(f"{name} holds no sound: it is 0 seconds long.", "Leave it out.")


def sound_facts(source: Path | bytes, *, limits: Limits = LIMITS) -> dict[str, Any]:
    """{"seconds", "rate", "channels", "suffix"} as the header claims, with the limits checked; nothing is decoded. What
    ffmpeg reads has 0 seconds: they are known at the end alone."""
    name = str(source) if isinstance(source, Path) else "The sound"
    with _opened(source, name, limits) as file:
        suffix = ".opus" if file.subtype == "OPUS" else _SUFFIXES.get(file.format, ".wav")
        return {"seconds": file.frames / file.samplerate, "rate": file.samplerate, "channels": file.channels,
                "suffix": suffix}  # fmt: skip


def writable(files: Sequence[Path]) -> Sequence[Path]:
    """The files. Raises UsageError where sound is not written as one's suffix says: to be known before any is made."""
    for suffix in (file.suffix.lower() for file in files):
        if suffix == ".aac":
            ffmpeg.needed()
        elif suffix not in (*WRITES, ".pcm"):
            raise UsageError(f"Sound cannot be written as {suffix or 'a file without suffix'}.",
                             f"Write one of {', '.join((*WRITES, '.aac'))}.")  # fmt: skip
    return files


def save_sound(sound: Sound, path: Path, *, piece: bool = False) -> Path:
    """Write it as the suffix says (`WRITES`), whole or not at all; a `piece` of an MP3 does not tell its
    length. Raises what `encoded` raises; OSError when the file cannot be written."""
    data = encoded(sound, path.suffix)
    data = without_length(data) if piece and path.suffix.lower() == ".mp3" else data
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    return path


def encoded(sound: Sound, suffix: str) -> bytes:
    """The bytes of a file of that kind: 16 bits (.wav, .flac), .mp3, .ogg (Vorbis), .opus, .aac, or bare little-endian
    16-bit samples (.pcm). What is louder than full scale is clipped. Opus gets the next rate that it knows.

    Raises UsageError for another suffix, and for .aac where there is no ffmpeg.
    """
    import numpy as np

    suffix = suffix.lower()
    if suffix == ".pcm":
        return (np.clip(sound.samples, -1, 1) * 32767).round().astype("<i2").tobytes()
    writable([Path(f"sound{suffix}")])
    if suffix == ".aac":
        return ffmpeg.aac(np.clip(sound.samples, -1, 1), sound.rate)
    if suffix == ".opus":
        sound = sound.at(next((rate for rate in OPUS_RATES if rate >= sound.rate), OPUS_RATES[-1]))
    kind, coding = WRITES[suffix]
    out = io.BytesIO()
    how = {"bitrate_mode": "CONSTANT", "compression_level": 0.6} if kind == "MP3" else {}  # 64 kbit/s at 24 kHz
    with _soundfile().SoundFile(out, "w", sound.rate, sound.channels, coding, format=kind, **how) as file:
        for start in range(0, len(sound.samples), _BLOCK):  # libsndfile's Vorbis overflows its stack on long writes
            file.write(np.clip(sound.samples[start : start + _BLOCK], -1, 1))
    return out.getvalue()


def without_length(data: bytes) -> bytes:
    """An MP3 file without its first frame where that only tells how long the file is (Xing, Info): several such, one
    after the other, are one file that plays to its end. Other bytes stay as they are."""
    if data[:1] != b"\xff" or not ({data.find(tag, 0, 64) > 0 for tag in (b"Xing", b"Info")} - {False}):
        return data
    version, padding = (data[1] >> 3) & 3, (data[2] >> 1) & 1
    rates, speeds = (_MP3_1, (44_100, 48_000, 32_000)) if version == 3 else (_MP3_2, (22_050, 24_000, 16_000))
    speed = speeds[(data[2] >> 2) & 3] // (2 if version == 0 else 1)
    return data[(144 if version == 3 else 72) * 1000 * rates[data[2] >> 4] // speed + padding :]


def joined(sounds: list[Sound], *, pause: float = 0.0) -> Sound:
    """Sounds of one rate and number of channels, one after the other, with `pause` seconds of silence between."""
    import numpy as np

    silence = np.zeros((round(pause * sounds[0].rate), sounds[0].channels), np.float32)
    pieces = [piece for sound in sounds for piece in (silence, sound.samples)][1:]
    return Sound(np.concatenate(pieces), sounds[0].rate)


# -- looks -------------------------------------------------------------------------------------------------------------


def peaks(sound: Sound, columns: int) -> Any:
    """(columns, 2) least and greatest sample of each column of a drawing; zeros where there is no sound."""
    import numpy as np

    wave = sound.mono().samples[:, 0]
    found = np.zeros((columns, 2), np.float32)
    if len(wave):
        edges = np.linspace(0, len(wave), columns + 1).astype(int)
        for column, (start, end) in enumerate(zip(edges, np.maximum(edges[1:], edges[:-1] + 1), strict=False)):
            piece = wave[start:end] if start < len(wave) else wave[-1:]
            found[column] = piece.min(), piece.max()
    return found


def log_mel(sound: Sound, *, bands: int = 80, window: int = 400, hop: int = 160) -> Any:
    """Log10 power in mel bands, float32 (frames, bands), floor 1e-10; Slaney's mel scale with his normalisation, a
    periodic Hann window, reflected edges, as librosa and Whisper have it."""
    import numpy as np

    wave = sound.mono().samples[:, 0]
    if len(wave) <= window // 2:
        wave = np.pad(wave, (0, window // 2 + 1 - len(wave)))
    wave = np.pad(wave, window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    filters = mel_filters(sound.rate, window, bands).T
    found = np.empty((len(frames), bands), np.float32)
    for start in range(0, len(frames), _FRAMES):
        power = np.abs(np.fft.rfft(frames[start : start + _FRAMES] * hann, axis=1)) ** 2
        found[start : start + _FRAMES] = np.log10(np.maximum(power @ filters, 1e-10))
    return found


def spectrogram(sound: Sound, columns: int) -> bytes:
    """A grey PNG, `columns` wide and 80 high: power in mel bands from 0 Hz at the foot to half the rate, white where it
    lies 80 dB below the greatest."""
    import numpy as np

    bands = log_mel(sound)
    bands = np.clip((bands - bands.max()) / 8 + 1, 0, 1)
    edges = np.linspace(0, len(bands), columns + 1).astype(int)
    picture = np.stack([bands[a : max(b, a + 1)].max(0) for a, b in itertools.pairwise(edges)], 1)[::-1]
    lines = np.concatenate([np.zeros((len(picture), 1)), 255 * (1 - picture)], 1).astype(np.uint8)
    head, body = struct.pack(">IIBBBBB", columns, len(picture), 8, 0, 0, 0, 0), zlib.compress(lines.tobytes(), 9)
    chunks = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
              for kind, data in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def mel_filters(rate: int, window: int, bands: int) -> Any:
    """(bands, window // 2 + 1) triangles of equal area, from 0 Hz to half the rate (Slaney 1998)."""
    import numpy as np

    def to_mel(hertz: Any) -> Any:
        return np.where(hertz < 1000, hertz * 3 / 200, 15 + np.log(np.maximum(hertz, 1000) / 1000) * 27 / math.log(6.4))

    def to_hertz(mel: Any) -> Any:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))

    bins = np.fft.rfftfreq(window, 1 / rate)
    edges = to_hertz(np.linspace(0, to_mel(np.float64(rate / 2)), bands + 2))
    widths = np.diff(edges)
    slopes = edges[:, None] - bins
    triangles = np.maximum(0, np.minimum(-slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]))
    return triangles * (2 / (edges[2:] - edges[:-2]))[:, None]


# -- libraries ---------------------------------------------------------------------------------------------------------


def _opened(source: Path | bytes, name: str, limits: Limits) -> Any:
    """A file of soundfile whose header keeps to the limits."""
    size = _size(source, name)
    if size > limits.bytes:
        raise TooLong(f"{name} has {size:,} bytes, more than the {limits.bytes:,} that are allowed.", "Cut it.")
    if kind := ffmpeg.kind_of(source):
        return _within(ffmpeg.Opened(source, kind, name), name, limits)
    library = _soundfile()
    try:
        file = library.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source))
    except (library.LibsndfileError, TypeError, ValueError) as error:
        said = getattr(error, "error_string", str(error)).rstrip(".")
        if "SF_INFO" in said:  # what libsndfile says of a header with a rate, or a number of channels, of 0
            said = "its header claims no samples a second, or no channels"
        raise DataError(
            f"{name} is no sound that can be read: {said}.",
            "WAV, FLAC, MP3, Ogg, Opus and AIFF are read, by ffmpeg M4A, AAC and WebM too; convert it.",
        ) from None
    return _within(file, name, limits)


def _within(file: Any, name: str, limits: Limits) -> Any:
    """The file; closed, and the error raised, where its header claims more than the limits."""
    try:
        low, high = limits.rates
        if not low <= file.samplerate <= high:
            raise DataError(f"{name} claims {file.samplerate:,} samples a second.", f"From {low:,} to {high:,} can be.")
        if file.channels > limits.channels:
            raise TooLong(f"{name} has {file.channels:,} channels, more than {limits.channels}.", "Mix it down.")
        if file.frames > limits.seconds * file.samplerate:
            raise _too_long(name, limits)
    except DataError:
        file.close()
        raise
    return file


def _size(source: Path | bytes, name: str) -> int:
    if isinstance(source, bytes):
        return len(source)
    try:
        if not source.is_file():
            raise DataError(f"There is no file {name}.", "Look at its name.")
        return source.stat().st_size
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.", "Look at its permissions.") from None


def _too_long(name: str, limits: Limits) -> TooLong:
    return TooLong(f"{name} is longer than {limits.seconds:,.0f} seconds.", "Cut it into pieces.")


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError:
        raise MissingExtra("soundfile", "audio") from None
    return soundfile


def _soxr() -> Any:
    try:
        import soxr
    except ImportError:
        raise MissingExtra("soxr", "audio") from None
    return soxr
