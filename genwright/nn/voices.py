"""Voices: packaged networks that say sentences, run by ONNX Runtime on a CPU.

Kokoro (82 M numbers, StyleTTS 2 of Li et al. 2023) speaks English and Chinese in many voices, Hibari (8 M, distilled
from it) English in one, some fifty times as fast. Numbers and signs become words first (`media/spoken_form.py`). Both
read phonemes in misaki's spelling: English words by Hibari's dictionary and rules, Chinese by misaki's over jieba and
pypinyin. Everything lies on the disk; nothing is fetched here.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import re
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core.card import find_card
from genwright.core.content import Part
from genwright.core.errors import DataError, MissingExtra, ModelError, UsageError
from genwright.core.model import Request
from genwright.core.plugin import did_you_mean
from genwright.media.sound import Sound, joined, save_sound, sound_of, writable
from genwright.media.spoken_form import spoken_form

from .captions import words_of
from .voice_options import SpeechOptions

RATE = 24_000
MAX_TOKENS = 510  # of Kokoro; a style is kept for each length up to it
MAX_CHARACTERS = 20_000  # of one request
_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_ENDS = re.compile(r"(?<=[。！？!?…；;])[”\"’')）】」]*\s*|(?<=[.])[”\"’')]*\s+(?=[A-Z0-9\"“‘(\u4e00-\u9fff])|\n+")
_ABBREVIATED = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|No|Inc|Ltd|Jr|Sr|e\.g|i\.e)|\b[A-Z])\.$")
_CLAUSES = re.compile(r"(?<=[,，、:：—])\s*")
_SAID = re.compile(r"[^\W_]")
_BREATH = re.compile(r"[,;:](?= )|[，、：；]|(?<= )[–—](?= )|——")
_LONG, _SHORT = 60, 12  # characters: what is cut so that its beginning is heard sooner, and the least of that beginning
_IN_SENTENCE = 0.12  # seconds of silence there, at most


@dataclass(frozen=True)
class Sentence:
    """Words that are said in one breath, and their phonemes."""

    text: str
    language: str
    phonemes: str
    goes_on: bool = False  # it is the rest of the sentence before


def sentences_of(text: str) -> list[str]:
    """Sentences in the order they stand; what holds no letter or digit (emoji, rules) is left out.

    >>> sentences_of("Dr. Smith paid $3.50. 他走了。Really?")
    ['Dr. Smith paid $3.50.', '他走了。', 'Really?']
    """
    pieces: list[str] = []
    for piece in _ENDS.split(text):
        piece = piece.strip()
        if pieces and _ABBREVIATED.search(pieces[-1]):
            pieces[-1] += f" {piece}"
        elif piece:
            pieces.append(piece)
    return [piece for piece in pieces if _SAID.search(piece)]


def breaths_of(sentence: str) -> list[str]:
    """A long sentence in two, after its first clause; another as it is.

    >>> breaths_of("When the rain stopped at last, everybody went out into the garden to look.")
    ['When the rain stopped at last,', 'everybody went out into the garden to look.']
    >>> breaths_of("Well, it is short.")
    ['Well, it is short.']
    """
    if sum(2 if _CHINESE.match(letter) else 1 for letter in sentence) <= _LONG:
        return [sentence]
    for found in _BREATH.finditer(sentence):
        if found.start() >= (_SHORT // 2 if language_of(sentence) == "zh" else _SHORT):
            return [sentence[: found.end()].strip(), sentence[found.end() :].strip()]
    return [sentence]


def foreign_word(text: str) -> str:
    """The first word (two letters or more) that is written in neither Latin letters nor Chinese characters, or "".

    >>> foreign_word("Tea, 茶, café, 5 Ω and чай.")
    'чай'
    """
    for found in _LETTERS.finditer(text):
        names = [unicodedata.name(letter, "") for letter in found[0]]
        if sum(not name.startswith(("LATIN", "CJK", "FULLWIDTH LATIN", "MODIFIER")) for name in names) >= 2:
            return found[0]
    return ""


def language_of(text: str) -> str:
    """`zh` where there is a Chinese character, else `en`."""
    return "zh" if _CHINESE.search(text) else "en"


_LETTERS = re.compile(r"[^\W\d_]{2,}")
_WORDS = re.compile(r"\b([Nn]o|[Ff]ig|[Ee]d)\.(?! ?\d)")  # that Hibari's rules take for "number", "figure", "edition"


class Phonemes:
    """Phonemes of English and Chinese words, in the alphabet that both networks know."""

    @cached_property
    def _english(self) -> Any:
        try:
            from hibari.g2p import G2P
        except ImportError:
            raise MissingExtra("hibari-tts", "speech") from None
        return G2P()

    @cached_property
    def _chinese(self) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # jieba's own string escapes
                import jieba
                from misaki.zh import ZHG2P
        except ImportError:
            raise MissingExtra("misaki, jieba, pypinyin and cn2an (Python below 3.13)", "speech") from None
        jieba.setLogLevel(logging.WARNING)
        return ZHG2P()

    @cached_property
    def alphabet(self) -> dict[str, int]:
        """Phoneme -> number. It lies beside Hibari's dictionary."""
        from importlib.resources import files

        try:
            found: dict[str, int] = json.loads((files("hibari") / "assets" / "vocab.json").read_text(encoding="utf-8"))
        except ModuleNotFoundError:
            raise MissingExtra("hibari-tts", "speech") from None
        return found

    def of(self, text: str, language: str) -> str:
        """Phonemes of one sentence. English words in a Chinese sentence are read as English."""
        text = _WORDS.sub(r"\1 .", text)
        if language == "en":
            return self._known(str(self._english(text)))
        pieces = re.findall(r"[A-Za-z][A-Za-z' -]*|[^A-Za-z]+", text)
        with contextlib.redirect_stdout(io.StringIO()):
            said = [self._english(one) if one[0].isascii() and one[0].isalpha() else self._zh(one) for one in pieces]
        return self._known(" ".join(said))

    def _zh(self, text: str) -> str:
        return str(self._chinese(text)[0]) if text.strip() else ""

    def _known(self, phonemes: str) -> str:
        return "".join(one for one in phonemes if one in self.alphabet).strip()

    def numbers(self, phonemes: str) -> list[int]:
        return [self.alphabet[one] for one in phonemes]


class Kokoro:
    """Its network and its voices; `folder` is that of the card: kokoro.onnx and voices/NAME.bin."""

    languages = ("en", "zh")

    def __init__(self, folder: Path, phonemes: Phonemes, threads: int = 0):
        self.folder, self.phonemes, self.threads = folder, phonemes, threads
        self._session: Any = _session(folder / "kokoro.onnx", threads)
        self._styles: dict[str, np.ndarray] = {}

    @property
    def voices(self) -> list[str]:
        return sorted(path.stem for path in (self.folder / "voices").glob("*.bin"))

    def usual(self, language: str) -> str:
        return "zf_xiaoyi" if language == "zh" else "af_heart"

    def limit(self) -> int:
        return MAX_TOKENS

    def say(self, phonemes: str, blend: dict[str, float], speed: float, seed: int) -> np.ndarray:
        """Samples float32 (frames,) at RATE. It draws no random numbers: `seed` changes nothing."""
        numbers = self.phonemes.numbers(phonemes)[:MAX_TOKENS]
        style = sum(share * self._style(name)[len(numbers) - 1] for name, share in blend.items())
        given = {"tokens": np.array([[0, *numbers, 0]], np.int64), "style": np.asarray(style, np.float32),
                 "speed": np.array([speed], np.float32)}  # fmt: skip
        return _trimmed(np.asarray(self._session.run(None, given)[0], np.float32).ravel())

    def _style(self, name: str) -> np.ndarray:
        if name not in self._styles:
            self._styles[name] = np.fromfile(self.folder / "voices" / f"{name}.bin", "<f4").reshape(-1, 1, 256)
        return self._styles[name]


class Hibari:
    """One English voice; `folder` holds hibari.onnx."""

    languages = ("en",)

    def __init__(self, folder: Path, phonemes: Phonemes, threads: int = 0):
        try:
            import hibari
        except ImportError:
            raise MissingExtra("hibari-tts", "speech") from None
        if not (folder / "hibari.onnx").is_file():
            raise ModelError(f"{folder} holds no hibari.onnx.", "Run `genwright models pull hibari`.")
        self.phonemes = phonemes
        self._voice: Any = hibari.Hibari(model=str(folder / "hibari.onnx"), threads=threads or 1, g2p=phonemes)

    @property
    def voices(self) -> list[str]:
        return ["heart"]

    def usual(self, language: str) -> str:
        return "heart"

    def limit(self) -> int:
        return 400

    def say(self, phonemes: str, blend: dict[str, float], speed: float, seed: int) -> np.ndarray:
        """Samples float32 (frames,) at RATE; `seed` is that of the breath in it."""
        rng = np.random.default_rng(seed)
        return _trimmed(np.asarray(self._voice.from_ids(self._voice.ids(phonemes), speed, rng), np.float32))


class Speaker:
    """A Model of the floor: it answers words with a sound."""

    engine, gives = "speech", "audio"
    options = SpeechOptions  # what a request may ask for
    goes_on = False

    def __init__(self, network: Kokoro | Hibari, phonemes: Phonemes):
        self.network, self.phonemes = network, phonemes
        self.base_reference: dict[str, str] = {}

    @property
    def voices(self) -> list[str]:
        return self.network.voices

    def generate(self, request: Request) -> Iterator[Part]:
        """The last question's words as one file, with voice, languages and seconds in `meta`; before it a part without
        file a sentence (`meta["progress"]`) and, when `partial` asks, each sentence as a file (`meta["partial"]`); at
        last a `finish_reason`. Raises UsageError for options or words that do not fit, DataError for a full disk.
        """
        how = request.options_as(SpeechOptions)
        seed = random.SystemRandom().randrange(1 << 31) if request.seed is None else request.seed
        (file,) = writable(request.files(1, ".wav"))
        text = words_of(request.messages)
        if len(text) > MAX_CHARACTERS:
            raise UsageError(
                f"The text has {len(text):,} characters, more than {MAX_CHARACTERS:,} at once.", "Send it in pieces."
            )
        text = spoken_form(text, how.language) if how.normalise else text
        total, said = len(sentences_of(text)), list[Sound]()
        voices: set[str] = set()
        languages: set[str] = set()
        for number, (sentence, sound) in enumerate(self.sounds(text, how, seed), 1):
            said.append(sound)
            voices |= self.blend_for(how, sentence.language).keys()
            languages.add(sentence.language)
            if how.partial:
                path = _written(sound, file.with_name(f"{file.stem}.part-{number}{file.suffix}"), piece=True)
                yield Part("audio", sentence.text, path, meta={"partial": number})
            yield Part("audio", meta={"progress": min(number, total), "of": total})
        whole = joined(said)
        facts = {"voices": sorted(voices), "languages": sorted(languages), "seconds": whole.seconds, "seed": seed}
        yield Part("audio", path=_written(whole, file), meta=facts)
        yield Part(meta={"finish_reason": "stop"})

    def sounds(self, text: str, how: SpeechOptions, seed: int) -> Iterator[tuple[Sentence, Sound]]:
        """The sentences of a text in its spoken form, each with its sound and the pause before it. Raises as `spoken`
        and `blend_for` do."""
        for number, sentence in enumerate(self.spoken(text, how.language, hurried=how.partial), 1):
            blend = self.blend_for(how, sentence.language)
            sound = sound_of(self.network.say(sentence.phonemes, blend, how.speed, seed + number), RATE)
            pause = min(how.pause, _IN_SENTENCE) if sentence.goes_on else how.pause
            yield sentence, sound if number == 1 else Sound(_after_pause(sound, pause), RATE)

    def spoken(self, text: str, language: str, *, hurried: bool = False) -> Iterator[Sentence]:
        """The sentences of a text, cut where the network can take no more; `hurried`, the first after its first clause.
        Raises UsageError for a language that it does not speak, letters that it cannot read, or when there is nothing
        that can be said."""
        some = False
        if word := foreign_word(text):
            raise UsageError(
                f"The text holds {word[:40]!r}; the packaged voices read Latin and Chinese letters alone.",
                "Write it so, or teach a voice of your own (recipes/audio/own_voice.yaml).",
            )
        for number, sentence in enumerate(sentences_of(text)):
            tongue = language_of(sentence) if language == "auto" else language
            if tongue not in self.network.languages:
                raise UsageError(f"This voice does not speak {tongue}: {sentence[:40]!r}.", "Use the model kokoro-82m.")
            goes_on = False
            for breath in breaths_of(sentence) if hurried and number == 0 else [sentence]:
                for piece in self._pieces(breath, tongue):
                    some = True
                    yield replace(piece, goes_on=goes_on)
                    goes_on = True
        if not some:
            raise UsageError("There is nothing to say: the text holds no words.", "Give it letters or digits.")

    def _pieces(self, sentence: str, language: str) -> Iterator[Sentence]:
        """The sentence; a longer one than the network takes in clauses, and clauses in equal pieces of words."""
        phonemes = self.phonemes.of(sentence, language)
        if not phonemes:
            return
        if len(phonemes) <= self.network.limit():
            yield Sentence(sentence, language, phonemes)
            return
        clauses = [one for one in _CLAUSES.split(sentence) if one.strip()]
        if len(clauses) == 1:
            words = sentence.split(" ") if " " in sentence.strip() else list(sentence)
            middle, join = len(words) // 2, " " if " " in sentence.strip() else ""
            clauses = [join.join(words[:middle]), join.join(words[middle:])] if middle else [sentence[:1]]
        for clause in clauses:
            yield from self._pieces(clause, language)

    def blend_for(self, options: Any, language: str) -> dict[str, float]:
        """Raises UsageError for a voice that is not here (did you mean …)."""
        blend: dict[str, float] = options.blend() or {self.network.usual(language): 1.0}
        known = self.network.voices
        for name in blend:
            if name not in known:
                raise UsageError(
                    f"There is no voice {name!r} here. {did_you_mean(name, known)}", f"Known: {', '.join(known)}."
                )
        return blend


def open_speaker(folder: Path, threads: int = 0) -> Speaker:
    """The voice in the folder of the card kokoro-82m or hibari. Raises ModelError for another, MissingExtra without the
    libraries."""
    phonemes = Phonemes()
    if (folder / "kokoro.onnx").is_file():
        return Speaker(Kokoro(folder, phonemes, threads), phonemes)
    if (folder / "hibari.onnx").is_file():
        return Speaker(Hibari(folder, phonemes, threads), phonemes)
    raise ModelError(f"{folder} holds no voice that is known.", "Name the card kokoro-82m or hibari.")


def packaged(card: str) -> Speaker:
    """The voice of the card kokoro-82m or hibari, opened once. Raises ModelError when it has not been fetched or was
    altered, MissingExtra without the libraries."""
    return _packaged(card, find_card(card).folder)


@lru_cache(maxsize=2)
def _packaged(card: str, folder: Path) -> Speaker:
    return open_speaker(find_card(card).checked_folder)


def _after_pause(sound: Sound, pause: float) -> np.ndarray:
    return np.concatenate([np.zeros((round(pause * RATE), 1), np.float32), sound.samples])


def _written(sound: Sound, path: Path, *, piece: bool = False) -> Path:
    try:
        return save_sound(sound, path, piece=piece)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.", "Choose another place.") from None


def _trimmed(wave: np.ndarray, floor: float = 0.005, keep: int = RATE // 20) -> np.ndarray:
    """Without the silence before and after, but for a twentieth of a second."""
    loud = np.flatnonzero(abs(wave) > floor)
    return wave[max(0, loud[0] - keep) : loud[-1] + keep] if len(loud) else wave[:0]


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "speech") from None
    if not path.is_file():
        raise ModelError(f"There is no file {path}.", "Run `genwright models pull kokoro-82m`.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
