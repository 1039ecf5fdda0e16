"""SpeechFlow: a learner of a voice from recordings and their words; what it says comes out of a vocoder.

A row is words and a recording of them; whose voice it is is the row's style. Taught by the one loop: the times and the
noise of a pass are drawn from torch's generator, so that a killed training goes on bit-equal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.errors import DataError, GenwrightError, UsageError
from genwright.core.model import Encoded, Request, Unlearnable
from genwright.core.plugin import did_you_mean
from genwright.media.mel import BANDS, FLOOR, mel_of, vocode
from genwright.media.sound import Sound, joined, open_sound, save_sound, writable
from genwright.media.spoken_form import spoken_form

from . import diffusion
from .captions import words_of
from .encoder_decoder import grouped, padded
from .keeping import Keeping
from .picture_rows import new_styles
from .speech_flow_options import VoiceConfig, VoiceOptions
from .speech_net import SpeechNet, aligned, owners_of, stretched, with_voices
from .voices import MAX_CHARACTERS, Phonemes, language_of, sentences_of

RATE = 24_000  # samples a second of what is said, as all our voices have it
_MEAN, _SPREAD = -5.5, 2.5  # of a mel of speech
_START, _END, _FIRST = 1, 2, 3  # tokens; 0 is none
_LONGEST = 2_000  # frames of a recording that is learned from: half a minute
_AT_ONCE = 16  # sentences that are said together
_ALPHABET = 256  # room for bytes, or for phonemes, of which there are 178


@dataclass(frozen=True)
class Group:
    """Recordings of nearly equal lengths: `tokens` (B, N), `mels` (B, T, BANDS) padded on the right, how many of both
    each has, and whose voice it is (B,), 0 for nobody's."""

    tokens: Tensor
    token_counts: Tensor
    mels: Tensor
    frame_counts: Tensor
    voices: Tensor


@dataclass(frozen=True)
class Recordings:
    """A batch: groups of rows."""

    groups: tuple[Group, ...]

    @property
    def weight(self) -> int:
        return sum(int(group.frame_counts.sum()) for group in self.groups)

    @property
    def slots(self) -> int:
        """Tokens and frames that pass through the network, padding counted."""
        return sum(group.tokens.numel() + group.mels[..., 0].numel() for group in self.groups)

    def to(self, device: torch.device | str) -> Recordings:
        moved = [Group(*(getattr(g, name).to(device) for name in Group.__dataclass_fields__)) for g in self.groups]
        return Recordings(tuple(moved))


@dataclass(frozen=True)
class Line:
    """A sentence to say: its tokens, whose voice, how fast, and the seed of its noise."""

    text: str
    tokens: np.ndarray
    voice: int
    speed: float
    seed: int


class SpeechFlow(Keeping):
    """Learner and Batched of the floor's contracts."""

    engine, gives = "speech_flow", "audio"
    options = VoiceOptions  # what a request may ask for
    goes_on = False  # it writes no text

    def __init__(self, config: VoiceConfig, voices: Sequence[str] = (), *, seed: int = 0):
        super().__init__()
        self.config, self.voices, self._phonemes = config, tuple(voices), Phonemes()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: Any = SpeechNet(config, _FIRST + _ALPHABET, len(self.voices)).eval()

    def facts(self) -> dict[str, Any]:
        """The voices, in the order of their numbers from 1."""
        return {"voices": list(self.voices)}

    # -- learning ----------------------------------------------------------------------------------------------------

    def survey(self, examples: Iterable[Example]) -> None:
        """Learn of the voices that the training rows name; those that are known keep their place."""
        if new := new_styles(examples, self.voices):
            self.module.voices = with_voices(self.module.voices, len(new))
            self.voices = (*self.voices, *new)

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """{"tokens", "mel" float16 (frames, BANDS), "voice"}; the weight is the frames. There is one answer, so
        `supervise` changes nothing.

        Raises Unlearnable with the reason: no recording, no words, too long, or too fast for its words.
        """
        path = next((p.path for p in example.answer.parts if p.kind == "audio" and p.path), None)
        if path is None:
            raise Unlearnable("the answer holds no recording")
        words = spoken_form(words_of(example.prompt))
        try:
            mel = mel_of(open_sound(path))
            tokens = self._tokens(words, language_of(words)) if words.strip() else np.zeros(2, np.int32)
        except GenwrightError as error:
            raise Unlearnable(error.message.rstrip(".")) from None
        if len(tokens) <= 2:
            raise Unlearnable("there are no words that can be said")
        if len(mel) > _LONGEST:
            raise Unlearnable(f"the recording is longer than {_LONGEST * 256 // 16_000} s; cut it at its sentences")
        if len(mel) < len(tokens):
            raise Unlearnable(f"{len(mel)} frames of sound are too few for {len(tokens)} sounds of speech")
        voice = str(example.meta.get("style") or "")
        number = 1 + self.voices.index(voice) if voice in self.voices else 0
        sequence = {"tokens": tokens, "mel": mel.astype(np.float16), "voice": np.int64(number)}
        return Encoded((sequence,), len(tokens) + len(mel), float(len(mel)))

    def collate(self, items: Sequence[Encoded]) -> Recordings:
        """Rows in groups of nearly equal lengths."""
        rows = [item.sequences[0] for item in items]
        groups = grouped([(len(row["tokens"]), len(row["mel"])) for row in rows])
        return Recordings(tuple(_group([rows[i] for i in group]) for group in groups))

    def loss(self, batch: Recordings, *, label_smoothing: float = 0.0, logs: dict[str, float] | None = None) -> Tensor:
        """Summed over frames: how far off the tokens' expectation and the flow's velocity are (a mean over bands), and
        over tokens: how far off the logarithm of their duration is. `logs` is told each of them, a frame."""
        parts = torch.stack([torch.stack(self._losses(group)) for group in batch.groups]).sum(0)
        if logs is not None:
            names = ("expected", "flow", "durations")
            logs |= {name: float(part) / batch.weight for name, part in zip(names, parts.detach(), strict=True)}
        return parts.sum()

    def _losses(self, group: Group) -> tuple[Tensor, Tensor, Tensor]:
        x = (group.mels - _MEAN) / _SPREAD
        there = (torch.arange(x.shape[1], device=x.device) < group.frame_counts[:, None]).float()
        read = self.module.read(group.tokens, group.voices)
        frames = aligned(read.expected, group.token_counts, x, group.frame_counts)
        owners = owners_of(frames, x.shape[1])
        expected = ((stretched(read.expected, owners) - x).square().mean(2) * there).sum()
        t = diffusion.logit_normal(len(x), 0.4, 1.0, x.device)
        z = diffusion.mix(x, torch.randn_like(x), t)
        error = (self.module.speak(z, t, read, owners, there) - x).square().mean(2) * there
        flow = (error.sum(1) / t.clamp_min(0.1).square()).sum()
        wanted = frames.clamp_min(1).float().log()
        durations = ((read.lasts - wanted).square() * read.there).sum()
        return expected, flow, durations

    # -- speaking ----------------------------------------------------------------------------------------------------

    def options_of(self, example: Example) -> dict[str, str]:
        """The options of a request that a row names: its voice, where it is one of those that were learned."""
        voice = str(example.meta.get("style") or "")
        return {"voice": voice} if voice in self.voices else {}

    def generate(self, request: Request) -> Iterator[Part]:
        """The last question's words as one file, with voice, seconds and seed in `meta`; before it a part without file
        a sentence (`meta["progress"]`) and, when `partial` asks, each sentence as a file (`meta["partial"]`); at last
        a `finish_reason`. Raises UsageError for options or words that do not fit, DataError for a full disk."""
        how, (file,) = request.options_as(VoiceOptions), writable(request.files(1, ".wav"))
        lines, said = self._lines(request), list[Sound]()
        for number, line in enumerate(lines, 1):
            said += self._said([line], how)
            if how.partial:
                before = [] if number == 1 else [Sound(np.zeros((round(how.pause * RATE), 1), np.float32), RATE)]
                place = file.with_name(f"{file.stem}.part-{number}{file.suffix}")
                path = _written(joined([*before, said[-1]]), place, piece=True)
                yield Part("audio", line.text, path, meta={"partial": number})
            yield Part("audio", meta={"progress": number, "of": len(lines)})
        yield self._whole(said, lines, how, _written(joined(said, pause=how.pause), file))
        yield Part(meta={"finish_reason": "stop"})

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers of many requests, their sentences said together."""
        asked = [self._lines(request) for request in requests]
        for same, places in _alike([request.options_as(VoiceOptions) for request in requests]):
            flat = [(place, line) for place in places for line in asked[place]]
            said: dict[int, list[Sound]] = {place: [] for place in places}
            for at in range(0, len(flat), _AT_ONCE):
                some = flat[at : at + _AT_ONCE]
                for (place, _), sound in zip(some, self._said([line for _, line in some], same), strict=True):
                    said[place].append(sound)
            for place in places:
                (file,) = requests[place].files(1, ".wav")
                path = _written(joined(said[place], pause=same.pause), file)
                yield place, Message("assistant", (self._whole(said[place], asked[place], same, path),))

    def _whole(self, said: Sequence[Sound], lines: Sequence[Line], how: VoiceOptions, path: Any) -> Part:
        seconds = sum(one.seconds for one in said) + how.pause * (len(said) - 1)
        facts = {"voices": [how.voice] if how.voice else [], "seconds": seconds, "seed": lines[0].seed}
        return Part("audio", path=path, meta=facts)

    def _lines(self, request: Request) -> list[Line]:
        how, text = request.options_as(VoiceOptions), words_of(request.messages)
        if len(text) > MAX_CHARACTERS:
            raise UsageError(
                f"The text has {len(text):,} characters, more than {MAX_CHARACTERS:,} at once.", "Send it in pieces."
            )
        text = spoken_form(text, how.language) if how.normalise else text
        if how.voice is not None and how.voice not in self.voices:
            raise UsageError(
                f"There is no voice {how.voice!r} here. {did_you_mean(how.voice, self.voices)}",
                f"Known: {', '.join(self.voices) or 'none by name'}.",
            )
        seed = random.SystemRandom().randrange(1 << 31) if request.seed is None else request.seed
        number = 1 + self.voices.index(how.voice) if how.voice else 0
        read = [
            (one, self._tokens(one, language_of(one) if how.language == "auto" else how.language))
            for one in sentences_of(text)
        ]
        lines = [Line(one, ids, number, how.speed, seed + at) for at, (one, ids) in enumerate(read) if len(ids) > 2]
        if not lines:
            raise UsageError("There is nothing to say: the text holds no words.", "Give it letters or digits.")
        return lines

    def _said(self, lines: Sequence[Line], how: VoiceOptions) -> list[Sound]:
        return [vocode(mel, seed=line.seed).at(RATE) for line, mel in zip(lines, self.mels(lines, how), strict=True)]

    def mels(self, lines: Sequence[Line], how: VoiceOptions) -> list[np.ndarray]:
        """The spectrograms (frames, BANDS) of sentences that are said together; each is that of it alone."""
        tokens, there = padded([line.tokens for line in lines], 0)
        with self.answering() as module:
            read = module.read(tokens.to(self.device), torch.tensor([line.voice for line in lines], device=self.device))
            speed = torch.tensor([line.speed for line in lines], device=self.device)[:, None]
            frames = (read.lasts.exp() / speed).round().clamp(1, 200).long() * there.to(self.device)
            counts = frames.sum(1)
            owners = owners_of(frames, int(counts.max()))
            real = (torch.arange(owners.shape[1], device=self.device) < counts[:, None]).float()
            z = torch.zeros(*owners.shape, BANDS)
            for row, line in enumerate(lines):
                generator = torch.Generator().manual_seed(line.seed % (1 << 63))
                z[row, : counts[row]] = torch.randn(int(counts[row]), BANDS, generator=generator) * how.temperature
            steps = diffusion.walk(self._predictor(module, read, owners, real), z.to(self.device),
                                   diffusion.times(how.steps), method="euler")  # fmt: skip
            *_, (_, x) = steps
        found = (x.float().cpu() * _SPREAD + _MEAN).clamp_min(FLOOR).numpy()
        return [np.pad(mel[:count], ((0, max(0, 2 - count)), (0, 0)), mode="edge")
                for mel, count in zip(found, counts.tolist(), strict=True)]  # fmt: skip

    def _predictor(self, module: Any, read: Any, owners: Tensor, real: Tensor) -> Callable[[Tensor, float], Tensor]:
        def predict(z: Tensor, t: float) -> Tensor:
            found: Tensor = module.speak(z, z.new_full((len(z),), t), read, owners, real)
            return found

        return predict

    def _tokens(self, words: str, language: str) -> np.ndarray:
        """The start, a number a phoneme (or byte), the end."""
        if self.config.reads == "bytes":
            ids = list(" ".join(words.split()).encode())
        else:
            ids = self._phonemes.numbers(self._phonemes.of(words, language))
        return np.array([_START, *(_FIRST + one for one in ids), _END], np.int32)


def _group(rows: Sequence[dict[str, Any]]) -> Group:
    tokens, _ = padded([row["tokens"] for row in rows], 0)
    mels = torch.full((len(rows), max(len(row["mel"]) for row in rows), BANDS), FLOOR)
    for place, row in enumerate(rows):
        mels[place, : len(row["mel"])] = torch.from_numpy(row["mel"].astype(np.float32))
    counts = [torch.tensor([len(row[name]) for row in rows]) for name in ("tokens", "mel")]
    return Group(tokens, counts[0], mels, counts[1], torch.tensor([int(row["voice"]) for row in rows]))


def _alike(asked: Sequence[VoiceOptions]) -> Iterator[tuple[VoiceOptions, list[int]]]:
    """Requests that can be answered together: those of the same options."""
    seen: dict[str, tuple[VoiceOptions, list[int]]] = {}
    for place, how in enumerate(asked):
        seen.setdefault(how.model_dump_json(), (how, []))[1].append(place)
    yield from seen.values()


def _written(sound: Sound, path: Any, *, piece: bool = False) -> Any:
    try:
        return save_sound(sound, path, piece=piece)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.", "Choose another place.") from None
