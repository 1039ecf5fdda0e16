"""Scribe: Whisper's network as a learner, from random weights or from a checkpoint, taught by the one loop.

A sound becomes a log-mel window of the length that the network was made for; the decoder is an encoder–decoder's like
any other (nn/encoder_decoder.py): loss, sampler and likelihood are theirs. A longer sound is heard in windows, cut
where it is quietest. In training it may be told anew (nn/spec_augment.py), and CTC may help the encoder (nn/ctc.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.errors import GenwrightError, UsageError
from genwright.core.model import Encoded, Request, Unlearnable
from genwright.core.things import SILENT, Tell
from genwright.media.sound import Sound, open_sound, open_speech
from genwright.nn import sampling

from .attention import bare
from .ctc import add_head, ctc_loss, has_head, needed
from .encoder_decoder import EncoderDecoder, Group, PairedSteps, Pairs, grouped, padded
from .packing import IGNORE
from .pretrained import open_pretrained, seeded
from .spec_augment import Augment, augment
from .weights import MANIFEST, read_json
from .whisper import RATE, features_of, quiet_after
from .whisper_options import ScribeOptions

_SAID_BY_ROW = ("lang", "language")


@dataclass(frozen=True)
class Window:
    """What is heard at once: `features` (frames, bands) of the sound from `start` to `end`, in seconds."""

    features: np.ndarray
    start: float
    end: float


class Scribe(EncoderDecoder):
    """Learner, Batched and Scorer of the floor's contracts: it answers a sound with words."""

    engine, gives = "whisper", "text"
    options = ScribeOptions  # what a request may ask for

    def __init__(self, module: Any, tokenizer: Any, settings: Any):
        super().__init__(module, tokenizer, settings)
        config = bare(module).config
        self.context = self.max_length = int(config.max_target_positions)
        self.bands, self.positions = int(config.num_mel_bins), int(config.max_source_positions)
        self.known = tokenizer.get_vocab()
        special = set(tokenizer.get_added_vocab().values()) | set(tokenizer.all_special_ids)
        unnamed = range(len(tokenizer), int(config.vocab_size))  # times, in a packaged vocabulary
        self.silent = sorted({*special, *unnamed} - set(self.ends))  # tokens that are no words

    @property
    def frames(self) -> int:
        """Of ten milliseconds, that the network hears at once."""
        return 2 * self.positions

    # -- learning ------------------------------------------------------------------------------------------------------

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """{"features": float16 (frames, bands), "given", "targets"}: the last sound before the answer, and its words
        after the tokens that say what is asked; those are not learned.

        Raises Unlearnable for a row without a sound or without words, or with a longer sound than is heard at once.
        """
        path = next((p.path for m in reversed(example.prompt) for p in m.parts if p.kind == "audio" and p.path), None)
        words = example.answer.text.strip()
        if path is None or not words:
            raise Unlearnable("there are no words" if path else "there is no sound")
        try:
            sound = open_sound(path).mono().at(RATE)
        except GenwrightError as error:
            raise Unlearnable(f"the sound cannot be read: {error.message}") from None
        if len(sound.samples) > self.frames * 160:
            raise Unlearnable(f"the sound is longer than the {self.frames / 100:g} s that are heard at once")
        said = next((str(example.meta[name]) for name in _SAID_BY_ROW if example.meta.get(name)), "auto")
        begun = self._begun(said)
        ids = [*self._ids(words), self.tokenizer.eos_token_id]
        kept = ids[: self.max_length - len(begun) + 1]
        features = features_of(sound, self.bands).astype(np.float16)
        if self.settings.ctc and needed(kept[:-1]) > self._positions({"features": features}):
            raise Unlearnable("it has more tokens than the encoder has frames of it, and CTC needs one for each")
        targets = [IGNORE] * (len(begun) - 1) + kept
        sequence = {"features": features, "given": np.array([*begun, *kept[:-1]], np.int32),
                    "targets": np.array(targets, np.int32)}  # fmt: skip
        return Encoded((sequence,), self.positions + len(targets), float(len(kept)), len(ids) - len(kept))

    def loss(self, batch: Pairs, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy summed over all real targets, in training of sounds told anew; with `ctc` that share of the sum
        is the loss of CTC (Watanabe et al. 2017)."""
        how = Augment.of(self.settings)
        if self.module.training and how.any:
            told = [augment(group.source, group.seen, how) for group in batch.groups]
            groups = [replace(g, source=s, seen=seen) for g, (s, seen) in zip(batch.groups, told, strict=True)]
            batch = replace(batch, groups=tuple(groups))
        return super().loss(batch, label_smoothing=label_smoothing)

    def _group_loss(self, group: Group, read: dict[str, Tensor], label_smoothing: float) -> Tensor:
        share = self.settings.ctc
        attention = super()._group_loss(group, read, label_smoothing)
        if not share:
            return attention
        if hasattr(self.module, "disable_adapter"):
            raise UsageError("`ctc` teaches a new head, which an adapter leaves as it is.", "Use method full.")
        spoken = [row[(row != IGNORE) & (row != self.tokenizer.eos_token_id)] for row in group.targets]
        heard = ctc_loss(bare(self.module), read["encoder_hidden_states"], group.seen, spoken, self._blank)
        return (1 - share) * attention + share * heard

    @property
    def _blank(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def _group(self, rows: Sequence[dict[str, Any]]) -> Group:
        targets, _ = padded([row["targets"] for row in rows], IGNORE)
        given, _ = padded([row["given"] for row in rows], 0)
        heard = torch.stack([self._window(row["features"]) for row in rows])
        lengths = torch.tensor([self._positions(row) for row in rows])
        seen = (torch.arange(self.positions) < lengths[:, None]).long()
        return Group(*(x.to(self.device) for x in (heard, seen, given, targets)))

    def _positions(self, row: dict[str, Any]) -> int:
        return min(self.positions, -(-len(row["features"]) // 2))

    def _read(self, source: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Whisper hears silence where a window has ended: nothing is masked."""
        module = bare(self.module)
        heard = module.get_encoder()(input_features=source.to(module.get_encoder().conv1.weight.dtype))
        return {"encoder_hidden_states": heard.last_hidden_state}

    def collate(self, items: Sequence[Encoded]) -> Pairs:
        """Rows whose answers have nearly equal lengths, together."""
        rows = [sequence for item in items for sequence in item.sequences]
        groups = grouped([(self.positions, len(row["targets"])) for row in rows])
        made = [self._group([rows[i] for i in group]) for group in groups]
        return Pairs(tuple(made), tuple(i for group in groups for i in group))

    # -- answering -----------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """Words as they come, after each window its `segments`; at last `language`, `duration` (seconds) and a
        `finish_reason`. The sound is the last one of the request.

        Raises UsageError without a sound, or for a language or a translation that it does not know.
        """
        begun, windows = self._asked_of(request)
        end: dict[str, Any] = {"completion_tokens": 0, "prompt_tokens": 0}
        before = False
        for window in windows:
            text = ""
            with self.answering():
                for _, part in self._heard([request], [window], begun):
                    facts = dict(part.meta or {})
                    shown = part.text if text else part.text.lstrip()
                    if shown:
                        yield Part(text=f" {shown}" if before and not text else shown, meta=part.meta)
                        text += shown
                    elif "finish_reason" in facts:
                        made = end["completion_tokens"] + facts["completion_tokens"]
                        end |= facts | {"completion_tokens": made}
            before = before or bool(text)
            if text.strip():
                yield Part(meta={"segments": [_segment(window, text, end)]})
        yield Part(meta=end | {"language": self._language(request), "duration": windows[-1].end})

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers of many requests, windows of all of them decoded together; greedy ones are those of `generate`."""
        asked = [self._asked_of(request) for request in requests]
        flat = [(number, window) for number, (_, windows) in enumerate(asked) for window in windows]
        found: dict[int, Message] = {}
        for same in {tuple(begun) for begun, _ in asked}:
            places = [i for i, (number, _) in enumerate(flat) if tuple(asked[number][0]) == same]
            budgets = [requests[flat[i][0]].max_new_tokens for i in places]
            for rows in sampling.batches([self.positions] * len(places), budgets):
                chosen = [places[row] for row in rows]
                with self.answering():
                    parts = self._heard([requests[flat[i][0]] for i in chosen], [flat[i][1] for i in chosen], same)
                    found |= {chosen[place]: answer for place, answer in sampling.answers(parts, len(chosen))}
        for number in range(len(requests)):
            pieces = [found[i] for i, (of, _) in enumerate(flat) if of == number]
            text = " ".join(words for piece in pieces if (words := piece.text.strip()))
            yield number, Message("assistant", (Part(text=text, meta=pieces[-1].parts[-1].meta),))

    def _heard(
        self, requests: Sequence[Request], windows: Sequence[Window], begun: Sequence[int]
    ) -> Iterator[tuple[int, Part]]:
        source = torch.stack([self._window(window.features) for window in windows]).to(self.device)
        steps = PairedSteps(self.module, self._read(source, source), begun, never=self.silent)
        rows = sampling.prepare(
            requests, [[] for _ in requests], tokenizer=self.tokenizer, ends=self.ends, vocabulary=steps.head.rows,
            room=self.context - len(begun), plain=[False] * len(requests),
            facts=[{"prompt_tokens": len(begun)} for _ in requests],
        )  # fmt: skip
        yield from sampling.decode(steps, rows, self.tokenizer, self.ends)

    def _asked_of(self, request: Request) -> tuple[list[int], list[Window]]:
        how = request.options_as(ScribeOptions)
        paths = [p.path for m in request.messages for p in m.parts if p.kind == "audio" and p.path]
        if not paths:
            raise UsageError("There is nothing to listen to: the request holds no sound.", "Give it a sound.")
        sound = open_speech(paths[-1], RATE)
        return self._begun(self._language(request), how.translate), list(self._windows(sound))

    def _windows(self, sound: Sound) -> Iterator[Window]:
        """The sound in windows, each but the last cut at the quietest place of its last third."""
        wave, most, at = sound.samples, self.frames * 160, 0
        while at < len(wave):
            end = len(wave) if len(wave) - at <= most else quiet_after(wave, at + most * 2 // 3, at + most)
            yield Window(features_of(Sound(wave[at:end], RATE), self.bands), at / RATE, end / RATE)
            at = end

    # -- tokens --------------------------------------------------------------------------------------------------------

    def _language(self, request: Request) -> str:
        asked = request.options_as(ScribeOptions).language
        return str(self.settings.language if asked == "auto" else asked)

    def _begun(self, language: str, translate: bool = False) -> list[int]:
        """What the decoder begins with: of Whisper's own vocabulary also the language, the task and that no times are
        asked for. Raises UsageError for a language that it has no token of, or for a translation without one."""
        begun = [self._start()]
        if "<|transcribe|>" in self.known and any(len(token) == 6 and token[:2] == "<|" for token in self.known):
            language = self.settings.language if language == "auto" else language
            if f"<|{language}|>" not in self.known:
                raise UsageError(f"The language {language!r} is not known here.", "Name it by two letters: en, zh.")
            begun += [self.known[f"<|{language}|>"], self.known["<|translate|>" if translate else "<|transcribe|>"]]
        elif translate:
            raise UsageError("This model writes down what is said and translates nothing.", "Use whisper-base.")
        return [*begun, self.known["<|notimestamps|>"]] if "<|notimestamps|>" in self.known else begun

    def _ids(self, words: str) -> list[int]:
        """Whisper's own words begin with a space."""
        words = f" {words}" if "<|notimestamps|>" in self.known else words
        return list(self.tokenizer(words, add_special_tokens=False)["input_ids"])

    def _window(self, features: np.ndarray) -> Tensor:
        """(bands, frames) for the network, with silence after the end."""
        floor = max(-1.5, float(features.max()) - 2) if len(features) else -1.5
        padded = np.full((self.frames, self.bands), floor, np.float32)
        padded[: len(features)] = features[: self.frames]
        return torch.from_numpy(np.ascontiguousarray(padded.T))

    # -- keeping -------------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Beside the usual how many seconds are heard at once: an adapter's base may hear more."""
        more = {"ctc": True} if has_head(bare(self.module)) else {}
        return super().facts() | {"window": self.positions / 50} | more

    def save(self, folder: Path) -> None:
        """As every pretrained model; beside it how transformers' own extractor, which knows whole seconds, hears as we
        do."""
        super().save(folder)
        if self.positions % 50:
            return
        facts = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": self.bands, "n_fft": 400,
                 "sampling_rate": RATE, "hop_length": 160, "chunk_length": self.positions // 50}  # fmt: skip
        (folder / "preprocessor_config.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def open_scribe(
    source: Path | None, settings: Any, *, seed: int, texts: Iterable[str] | None, tell: Tell = SILENT
) -> Scribe:
    """A Scribe from a folder in transformers' layout (full model or adapter) or in CTranslate2's form, or with random
    weights by `settings.config`, whose `model_type` is whisper. It hears `settings.window` seconds at once, or as many
    as a run's manifest says. Raises ModelError or UsageError."""
    if settings.config:
        usual = {"model_type": "whisper", "suppress_tokens": None, "begin_suppress_tokens": None}
        config = usual | _drawn(settings.config) | settings.config
        settings = settings.model_copy(update={"config": config})
    learner: Scribe = open_pretrained(
        Scribe, source, settings, auto="AutoModelForSpeechSeq2Seq", seed=seed, texts=texts, tell=tell
    )
    manifest = source / MANIFEST if source else None
    kept = read_json(manifest) if manifest and manifest.is_file() else {}
    if settings.ctc or kept.get("ctc"):
        with seeded(seed):
            add_head(bare(learner.module), source if kept.get("ctc") else None)
    if window := settings.window or kept.get("window", 0):
        learner.positions = shorten(learner.module, window)
    return learner


def _drawn(config: dict[str, Any]) -> dict[str, float]:
    """How widely random weights are drawn. transformers' 0.02 suits a thousand numbers a token: with a hundred, what is
    heard is a tenth of the position that is added to it, and the network learns to spell and not to hear."""
    width = config.get("d_model")
    return {"init_std": round(width**-0.5, 4)} if isinstance(width, int) and width > 0 else {}


def shorten(module: Any, seconds: float) -> int:
    """Let a Whisper hear only so many seconds at once: the first of its encoder's positions, which are sines and waves
    that say only where a frame is. Returns how many are left, 50 a second. Raises UsageError beyond what it has."""
    inner = bare(module)
    encoder, positions = inner.get_encoder(), round(seconds * 50)
    has = encoder.embed_positions.num_embeddings
    if not 1 <= positions <= has:
        raise UsageError(f"`window` is {seconds:g} s, but this network hears {has / 50:g} s at once.", "Name fewer.")
    if positions < has:
        kept = encoder.embed_positions.weight[:positions].detach().clone()
        encoder.embed_positions = torch.nn.Embedding.from_pretrained(kept)
        encoder.max_source_positions = inner.config.max_source_positions = positions
    return positions


def _segment(window: Window, text: str, facts: dict[str, Any]) -> dict[str, Any]:
    """A window's words as the packaged Whisper tells of a segment; what this one does not know is neutral."""
    return {"start": round(window.start, 2), "end": round(window.end, 2), "text": text, "tokens": [],
            "temperature": 0.0, "avg_logprob": facts.get("logprob", 0.0) / max(1, facts["completion_tokens"]),
            "compression_ratio": 1.0, "no_speech_prob": 0.0}  # fmt: skip
