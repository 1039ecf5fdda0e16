"""Whisper: speech becomes words with times, in 99 languages (Radford et al. 2022), run by CTranslate2 on a CPU.

Thirty seconds at a time, each window beginning where the last whole segment ended. An answer that repeats itself or of
which the network is unsure is asked again at a higher temperature, as in the paper. Whisper invents words for noise and
silence, so a voice-activity detector (Silero) listens first: what lies outside of speech is neither heard nor kept.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core.content import Part, user
from genwright.core.errors import MissingExtra, ModelError, UsageError
from genwright.core.model import Request
from genwright.core.packed import PACKED
from genwright.core.plugin import did_you_mean
from genwright.media.sound import Sound, log_mel, open_speech

from .ctranslate2_file import check_whisper, read_ctranslate2
from .weights import card_folder
from .whisper_options import ListenOptions

RATE = 16_000
WINDOW = 3_000  # frames of ten milliseconds
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_MOST_REPEATED, _LEAST_LIKELY, _SILENT = 2.4, -1.0, 0.6  # the paper's thresholds
_PROMPT_TOKENS = 223
_UNSPACED = frozenset(("zh", "ja", "yue", "th", "lo", "my", "km"))  # languages written without spaces between words


@dataclass(frozen=True)
class Word:
    """A word (in Chinese, a character) with its punctuation, its times in seconds and its mean probability a token."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class Segment:
    """What was said from `start` to `end` (seconds), with its mean log-probability a token, how much it repeats itself
    (bytes over compressed bytes) and how likely there was no speech."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] = ()


class Listener:
    """A Model of the floor: it answers a sound with words. `folder` is that of a card: model.bin in CTranslate2's form,
    tokenizer.json, config.json, silero_vad.onnx."""

    engine, gives = "whisper", "text"
    options = ListenOptions  # what a request may ask for
    goes_on = False

    def __init__(self, folder: Path, threads: int = 0):
        try:
            import ctranslate2
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingExtra("ctranslate2", "speech") from None
        if not (folder / "model.bin").is_file():
            raise ModelError(f"{folder} holds no model.bin.", "Run `genwright models pull whisper-base`.")
        check_whisper(read_ctranslate2(folder / PACKED))
        self.folder, self._library = folder, ctranslate2
        self._network: Any = ctranslate2.models.Whisper(
            str(folder), device="cpu", compute_type="int8", intra_threads=threads
        )
        self._words: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.base_reference: dict[str, str] = {}

    def words_of(self, sound: Part, *, language: str = "auto", seed: int = 0) -> str:
        """All that is said in a sound, for those who judge: no answer to anybody, so neither guarded nor labelled."""
        asked = Request(messages=(user(sound),), seed=seed, options={"language": language})
        return "".join(part.text for part in self.generate(asked)).strip()

    # -- the story ---------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """Words, segment by segment, each with its `segments` in `meta`; at last `language`, `duration` (seconds) and a
        `finish_reason`. The sound is the last one of the request.

        Raises UsageError without a sound, or for a language that it does not know; DataError for a damaged sound.
        """
        how = request.options_as(ListenOptions)
        sound = self._sound(request)
        seed = random.SystemRandom().randrange(1 << 31) if request.seed is None else request.seed
        self._library.set_random_seed(seed)
        speech = self.speech(sound, how.gate)
        features = features_of(sound)[: max(1, len(sound.samples) // 160)]
        language = self._language(features, how, speech)
        first = True
        for segment in self._segments(features, language, how, request.temperature) if speech else ():
            if not _overlaps(segment, speech):
                continue
            text = self._script(segment.text, language, how.script)
            shown = text.lstrip() if first else text
            first = False
            facts = asdict(segment) | {"text": text, "words": self._in_script(segment.words, language, how.script)}
            if not how.words:
                del facts["words"]
            yield Part(text=shown, meta={"segments": [facts]})
        yield Part(meta={"finish_reason": "stop", "language": language, "duration": sound.seconds})

    def _sound(self, request: Request) -> Sound:
        paths = [p.path for m in request.messages for p in m.parts if p.kind == "audio" and p.path]
        if not paths:
            raise UsageError("There is nothing to listen to: the request holds no sound.", "Give it a sound.")
        return open_speech(paths[-1], RATE)

    def _segments(self, features: np.ndarray, language: str, how: ListenOptions, warm: float) -> Iterator[Segment]:
        """Window after window. `features` (frames, 80)."""
        at, before = 0, self._ids(" " + how.prompt.strip()) if how.prompt.strip() else []
        while at < len(features):
            span = min(WINDOW, len(features) - at)
            heard = self._network.encode(_window(features[at : at + WINDOW]))
            tokens, facts = self._decoded(heard, language, how, before, warm)
            if tokens is None:
                at += span
                continue
            pieces, went = self._pieces(tokens, span)
            timed = self._timed(heard, language, how, pieces, span, at / 100) if how.words else [()] * len(pieces)
            for (start, end, words), times in zip(pieces, timed, strict=True):
                text = self._words.decode(words)
                if text.strip():
                    times_of = (round(at / 100 + start, 2), round(at / 100 + end, 2))
                    yield Segment(*times_of, text, tuple(words), **facts, words=times)
                    before = (before + words)[-_PROMPT_TOKENS:] if facts["temperature"] < 0.5 else []
            at += went

    def _decoded(
        self, heard: Any, language: str, how: ListenOptions, before: list[int], warm: float
    ) -> tuple[list[int] | None, dict[str, float]]:
        """The tokens of a window as it was encoded (None: nobody speaks), and how good they are."""
        prompt = [*([self._id("<|startofprev|>"), *before] if before else []), *self._start(language, how)]
        temperatures = [t for t in TEMPERATURES if t >= warm] or [warm]
        for temperature in temperatures:
            beams = {"beam_size": how.beams} if not temperature else {"beam_size": 1, "num_hypotheses": 3}
            (found,) = self._network.generate(
                heard, [prompt], **beams, sampling_topk=0 if temperature else 1,
                sampling_temperature=temperature or 1.0, max_length=448, return_scores=True,
                return_no_speech_prob=True, suppress_blank=True,
                max_initial_timestamp_index=50, repetition_penalty=1.0,
            )  # fmt: skip
            tokens = list(found.sequences_ids[0])
            words = [token for token in tokens if token < self._first_special]
            text = self._words.decode(words).encode()
            facts = {"temperature": temperature, "avg_logprob": float(found.scores[0]),
                     "compression_ratio": len(text) / len(zlib.compress(text)) if text else 0.0,
                     "no_speech_prob": float(found.no_speech_prob)}  # fmt: skip
            if facts["no_speech_prob"] > _SILENT and facts["avg_logprob"] < _LEAST_LIKELY:
                return None, facts
            if facts["compression_ratio"] <= _MOST_REPEATED and facts["avg_logprob"] >= _LEAST_LIKELY:
                break
        return tokens, facts

    def _pieces(self, tokens: list[int], span: int) -> tuple[list[tuple[float, float, list[int]]], int]:
        """(start, end, words) of a window, and the frames that it goes on: to the end of its last whole segment when
        another had begun, else all `span`."""
        pieces: list[tuple[float, float, list[int]]] = []
        start, words = 0.0, list[int]()
        opened = False
        for token in tokens:
            if token >= self._zero:
                at = (token - self._zero) * 0.02
                if words:
                    pieces.append((start, at, words))
                start, words, opened = at, [], not words
            elif token < self._first_special:
                words.append(token)
        if words and not pieces:
            pieces.append((start, span / 100, words))
        elif pieces and (words or (opened and tokens[-1] >= self._zero)):
            went = round(pieces[-1][1] * 100)
            if 0 < went < span:
                return pieces, went
            pieces += [(start, span / 100, words)] if words else []
        return pieces, span

    def _start(self, language: str, how: ListenOptions) -> list[int]:
        """What every answer begins with."""
        task = "<|translate|>" if how.translate else "<|transcribe|>"
        more = [self._id(f"<|{language}|>"), self._id(task)] if self._network.is_multilingual else []
        return [self._id("<|startoftranscript|>"), *more]

    # -- words -------------------------------------------------------------------------------------------------------

    def _timed(
        self, heard: Any, language: str, how: ListenOptions, pieces: list[Any], span: int, offset: float
    ) -> list[tuple[Word, ...]]:
        """The words of each piece with their times: where the attention of some heads moves on from token to token
        (dynamic time warping, as in Whisper's own code). A word stays within its piece."""
        tokens = [token for _, _, words in pieces for token in words]
        if not tokens:
            return [()] * len(pieces)
        (found,) = self._network.align(heard, self._start(language, how), [tokens], [span])
        path = np.array(found.alignments)  # (steps, 2): token, and a fiftieth of a second
        moves = np.append(True, np.diff(path[:, 0]) > 0)
        begins = path[moves, 1] / 50  # of each token, and of what comes after the last
        begins = np.append(begins, [span / 100] * max(0, len(tokens) + 1 - len(begins)))
        at, made = 0, list[tuple[Word, ...]]()
        for start, end, words in pieces:
            timed = list[Word]()
            for text, count in self._spelled(words, "en" if how.translate else language):
                chances = found.text_token_probs[at : at + count]
                first, last = (round(min(max(float(begins[k]), start), end) + offset, 2) for k in (at, at + count))
                timed.append(Word(text, first, last, round(float(np.mean(chances)), 3)))
                at += count
            made.append(tuple(timed))
        return made

    def _spelled(self, tokens: list[int], language: str) -> Iterator[tuple[str, int]]:
        """(word, how many tokens) in order: characters where no spaces stand between words, else what spaces part;
        punctuation goes with the word before it."""
        text, count = "", 0
        for piece, size in self._characters(tokens):
            new = language in _UNSPACED or piece.startswith(" ") or text.endswith(" ")
            if text.strip() and new and any(letter.isalnum() for letter in piece):
                yield text, count
                text, count = "", 0
            text, count = text + piece, count + size
        if text:
            yield text, count

    def _characters(self, tokens: list[int]) -> Iterator[tuple[str, int]]:
        """The fewest tokens that hold whole characters, for one may lie in several."""
        held = list[int]()
        for token in tokens:
            held.append(token)
            text = self._words.decode(held)
            if "\ufffd" not in text or len(held) > 4:
                yield text, len(held)
                held = []
        if held:
            yield self._words.decode(held), len(held)

    def _in_script(self, words: tuple[Word, ...], language: str, script: str) -> list[dict[str, Any]]:
        """Words in the script that is asked for, looked at together: a character depends on its neighbours."""
        whole = "".join(one.word for one in words)
        said = self._script(whole, language, script)
        at, made = 0, list[dict[str, Any]]()
        for one in words:
            piece = (
                said[at : at + len(one.word)] if len(said) == len(whole) else self._script(one.word, language, script)
            )
            at += len(one.word)
            made.append(asdict(one) | {"word": piece.strip()})
        return made

    # -- language ----------------------------------------------------------------------------------------------------

    def _language(self, features: np.ndarray, how: ListenOptions, speech: list[tuple[float, float]]) -> str:
        """The language named, or that of the first window in which somebody speaks."""
        if how.language != "auto":
            if self._words.token_to_id(f"<|{how.language}|>") is None:
                known = [token[2:-2] for token in self._words.get_vocab() if 6 <= len(token) <= 7 and token[:2] == "<|"]
                raise UsageError(f"The language {how.language!r} is not known. {did_you_mean(how.language, known)}")
            return how.language
        if not self._network.is_multilingual or not speech:
            return "en"
        at = int(speech[0][0] * 100)
        return str(self._network.detect_language(_window(features[at : at + WINDOW]))[0][0][0][2:-2])

    def _script(self, text: str, language: str, script: str) -> str:
        if language != "zh" or script == "as_heard":
            return text
        try:
            import opencc
        except ImportError:
            raise MissingExtra("opencc", "speech") from None
        return str(opencc.OpenCC("t2s" if script == "simplified" else "s2t").convert(text))

    # -- is anybody speaking? ----------------------------------------------------------------------------------------

    def speech(self, sound: Sound, gate: float) -> list[tuple[float, float]]:
        """Spans (start, end) in seconds where somebody speaks; all of it with a gate of 0. Gaps below half a second are
        bridged, a quarter of a second is added on both sides."""
        if gate == 0:
            return [(0.0, sound.seconds)]
        chances = self._chances(sound.samples[:, 0])
        spans: list[tuple[float, float]] = []
        for number in np.flatnonzero(chances >= gate):
            start, end = number * 0.032 - 0.25, (number + 1) * 0.032 + 0.25
            if spans and start <= spans[-1][1] + 0.5:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((max(0.0, start), end))
        return [(start, end) for start, end in spans if end - start > 0.6]

    def _chances(self, wave: np.ndarray) -> np.ndarray:
        """How likely each 512 samples (32 ms) hold speech, by Silero's network: it is told the 64 samples before."""
        chunks = np.pad(wave, (64, -len(wave) % 512)).astype(np.float32)
        state, found = np.zeros((2, 1, 128), np.float32), []
        for at in range(0, len(chunks) - 64, 512):
            given = {"input": chunks[None, at : at + 576], "state": state, "sr": np.array(RATE, np.int64)}
            chance, state = self._detector.run(None, given)
            found.append(float(chance[0, 0]))
        return np.array(found)

    @cached_property
    def _detector(self) -> Any:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtra("onnxruntime", "speech") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = self.folder / "silero_vad.onnx"
        if not path.is_file():  # a Whisper of one's own has none beside it
            path = card_folder("whisper-base") / path.name
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    # -- tokens ------------------------------------------------------------------------------------------------------

    def _ids(self, text: str) -> list[int]:
        return list(self._words.encode(text, add_special_tokens=False).ids)[-_PROMPT_TOKENS:]

    def _id(self, token: str) -> int:
        return int(self._words.token_to_id(token))

    @cached_property
    def _first_special(self) -> int:
        return self._id("<|endoftext|>")

    @cached_property
    def _zero(self) -> int:
        return self._id("<|notimestamps|>") + 1


def features_of(sound: Sound, bands: int = 80) -> np.ndarray:
    """(frames, bands) log mel power of a sound at RATE as Whisper was taught: within 8 powers of ten of the greatest,
    around zero, a frame each ten milliseconds, and two that see its end; silence follows."""
    after = Sound(np.pad(sound.samples, ((0, 520), (0, 0))), sound.rate)
    power = log_mel(after, bands=bands)[: len(sound.samples) // 160 + 2]
    found: np.ndarray = (np.maximum(power, power.max() - 8) + 4) / 4
    return found


def quiet_after(wave: np.ndarray, start: int, end: int) -> int:
    """The middle of the quietest fiftieth of a second of a sound between two of its samples, to cut it there."""
    step = RATE // 50
    pieces = wave[start : start + (end - start) // step * step].reshape(-1, step)
    return start + int((pieces**2).sum(1).argmin()) * step + step // 2


def _window(features: np.ndarray) -> Any:
    """(1, 80, 3000) for the network, with silence after the end."""
    import ctranslate2

    padded = np.full((WINDOW, features.shape[1]), -1.5 if not len(features) else features.min(), np.float32)
    padded[: len(features)] = features
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(padded.T[None]))


def _overlaps(segment: Segment, speech: list[tuple[float, float]]) -> bool:
    return any(segment.start < end and start < segment.end for start, end in speech)
