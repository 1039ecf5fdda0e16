"""/v1/audio: words said aloud, and sounds written down or translated to English.

The names of OpenAI's voices stand for the model's usual one. A stream of speech comes sentence by sentence, as bytes
that a player can begin with (mp3, aac, wav, pcm) or as events. Other parameters of our own (the client's `extra_body`):
`seed`, `language`, `pause` and `normalise` of speech.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import Field, field_validator

from genwright.core import Message, Part
from genwright.core import Request as Asked
from genwright.verbs.subtitles import srt, vtt

from ..answers import Asking, limits_of, reply, streamed
from ..conversation import Seed, Strict
from ..errors import Wrong
from ..forms import read_files
from ..house import caller_of, house_of
from ..leaving import unless_gone
from ..orders import Order
from ..outbox import label_of, outbox, unplaced
from ..wire import Body, documented, event, read_body, shaped

router = APIRouter()

# OpenAI's voices: here each is the model's usual one.
USUAL_VOICES = frozenset(("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage",
                          "shimmer", "verse"))  # fmt: skip
KINDS = {"mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav",
         "pcm": "audio/pcm"}  # fmt: skip
_BY_SENTENCE = ("mp3", "aac", "wav", "pcm")  # files of which pieces make one, one after the other
_RATE = 24_000  # frames a second of what is spoken, as OpenAI's pcm has it
_TOKENS = 1_000  # that an answer is taken for until the model has counted
_PASSED_OVER = ("instructions",)
_HEARD_OVER = ("chunking_strategy", "include", "known_speaker_names", "known_speaker_references", "keywords")
_LANGUAGES = {"en": "english", "zh": "chinese", "de": "german", "fr": "french", "es": "spanish", "ja": "japanese",
              "ko": "korean", "ru": "russian", "it": "italian", "pt": "portuguese"}  # fmt: skip


class Voice(Strict):
    id: str = Field(min_length=1, max_length=200)


class SpeechRequest(Strict):
    """Words to say."""

    model: str = Field(min_length=1, max_length=500)
    input: str = Field(min_length=1, max_length=20_000)
    voice: str | Voice = Field(description="A voice of the model, or a blend: af_heart:0.7+af_bella:0.3")
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    speed: float | None = Field(None, ge=0.25, le=4)
    stream_format: Literal["sse", "audio"] | None = None
    seed: Seed | None = None
    language: Literal["auto", "en", "zh"] | None = None
    pause: float | None = Field(None, ge=0, le=5)
    normalise: bool | None = None

    @field_validator("voice")
    @classmethod
    def _named(cls, voice: str | Voice) -> str | Voice:
        if isinstance(voice, str) and not 0 < len(voice) <= 200:
            raise ValueError("must be a name of at most 200 characters")
        return voice


class NewTranslation(Body):
    """What the form says beside the sound."""

    model: str = Field(min_length=1, max_length=500)
    prompt: str | None = Field(None, max_length=2_000)
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"] | None = None
    temperature: float | None = Field(None, ge=0, le=1)


class NewTranscription(NewTranslation):
    language: str | None = Field(None, max_length=20)
    stream: bool | None = None
    timestamp_granularities: Any = None


class TranslationForm(NewTranslation):
    file: str = Field(json_schema_extra={"format": "binary"})


class TranscriptionForm(NewTranscription):
    file: str = Field(json_schema_extra={"format": "binary"})


# -- speech ------------------------------------------------------------------------------------------------------------


@router.post(
    "/v1/audio/speech",
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in KINDS.values()}}},
    openapi_extra=documented(SpeechRequest, passed_over=_PASSED_OVER, streams=True),
)
async def speak(request: Request) -> Response:
    """Say words aloud.

    With `stream_format` audio, mp3, aac, wav and pcm come sentence by sentence while the next is spoken; with sse as
    events.
    """
    asked = await read_body(request, SpeechRequest, passed_over=_PASSED_OVER)
    with ExitStack() as stack:
        folder = stack.enter_context(outbox(house_of(request).options.data))
        work = _Speech(Asking.of(request, asked.model), asked, folder)
        if asked.stream_format == "sse":
            return await streamed(request, _speech_events(work, stack.pop_all()))
        kind = KINDS[work.format]
        if work.format in _BY_SENTENCE and asked.stream_format == "audio":
            return await streamed(request, _speech_bytes(work, stack.pop_all()), kind=kind, failed=lambda error: b"")
        whole = await unless_gone(request, _whole_speech(work))
        data = await asyncio.to_thread(whole.read_bytes)
        label = label_of(whole)
        head = limits_of(request) | ({"X-AIGC": label} if label else {})
        return Response(data, media_type=kind, headers=head)


@router.get("/v1/audio/voices")
async def voices(request: Request) -> dict[str, Any]:
    """The voices of every model that speaks and is in memory; of others they are known when they are loaded."""
    fleet, caller = house_of(request).fleet, caller_of(request)
    found = [(served.id, name) for served in fleet.list(caller) for name in fleet.facts(served).get("voices") or ()]
    return {"object": "list", "data": [{"object": "voice", "id": name, "model": model} for model, name in found]}


@dataclass(frozen=True)
class _Speech:
    """What is to be said, for whom, and where its files go."""

    asking: Asking
    asked: SpeechRequest
    folder: Path

    @property
    def format(self) -> str:
        return self.asked.response_format or "mp3"

    def order(self, partial: bool) -> Order:
        return Order("audio", len(self.asked.input), _TOKENS, lambda facts: self._request(facts, partial))

    def _request(self, facts: Mapping[str, Any], partial: bool) -> Asked:
        known: Mapping[str, Any] = facts.get("options") or {}
        asked = self.asked
        voice = asked.voice.id if isinstance(asked.voice, Voice) else asked.voice
        usual = voice in USUAL_VOICES and voice not in (facts.get("voices") or ())
        wanted = {"voice": None if usual else voice, "speed": asked.speed, "language": asked.language,
                  "pause": asked.pause, "normalise": asked.normalise, "partial": partial or None}  # fmt: skip
        for name, value in wanted.items():
            if value is not None and name not in known:
                raise Wrong(400, f"{name}: {self.asking.model} does not know it.", param=name,
                            code="unsupported_parameter")  # fmt: skip
        suffix = ".pcm" if partial and self.format == "wav" else f".{self.format}"
        return Asked(
            messages=(Message("user", (Part(text=asked.input),)),),
            seed=asked.seed, out=self.folder / f"speech{suffix}",
            options={name: value for name, value in wanted.items() if value is not None},
        )  # fmt: skip

    async def parts(self, partial: bool) -> AsyncGenerator[Part]:
        asking = self.asking
        said = asking.house.desk.ask(asking.caller, asking.model, self.order(partial), deadline=asking.deadline)
        async with aclosing(unplaced(said, self.folder)) as parts:
            async for part in parts:
                yield part


async def _whole_speech(work: _Speech) -> Path:
    found: Path | None = None
    async with aclosing(work.parts(partial=False)) as parts:
        async for part in parts:
            found = part.path or found
    assert found
    return found


async def _pieces(work: _Speech, usage: dict[str, Any]) -> AsyncGenerator[bytes]:
    """The bytes of each sentence, such that all together are one file of the format."""
    first = True
    async with aclosing(work.parts(partial=True)) as parts:
        async for part in parts:
            usage |= part.meta or {}
            if part.path is None or "partial" not in (part.meta or {}):
                continue
            data = await asyncio.to_thread(part.path.read_bytes)
            yield _endless_wav() + data if first and work.format == "wav" else data
            first = False


async def _speech_bytes(work: _Speech, owned: ExitStack) -> AsyncGenerator[bytes]:
    with owned:
        async with aclosing(_pieces(work, {})) as pieces:
            async for piece in pieces:
                yield piece


async def _speech_events(work: _Speech, owned: ExitStack) -> AsyncGenerator[bytes]:
    """speech.audio.delta for each sentence (of opus and flac one, with the whole file), then speech.audio.done."""
    usage: dict[str, Any] = {}
    with owned:
        if work.format in _BY_SENTENCE:
            async with aclosing(_pieces(work, usage)) as pieces:
                async for piece in pieces:
                    yield _delta(piece)
        else:
            whole = await _whole_speech(work)
            yield _delta(await asyncio.to_thread(whole.read_bytes))
        kind = "speech.audio.done"
        given, made = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
        yield event({"type": kind, "usage": {"input_tokens": given, "output_tokens": made,
                                             "total_tokens": given + made}}, kind)  # fmt: skip


def _delta(data: bytes) -> bytes:
    kind = "speech.audio.delta"
    return event({"type": kind, "audio": base64.b64encode(data).decode("ascii")}, kind)


def _endless_wav() -> bytes:
    """The header of a WAV file whose length nobody knows yet: 16 bits, one channel."""
    most = 0xFFFFFFFF
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", most, b"WAVE", b"fmt ", 16, 1, 1, _RATE, 2 * _RATE, 2, 16,
                       b"data", most - 36)  # fmt: skip


# -- listening ---------------------------------------------------------------------------------------------------------


@router.post(
    "/v1/audio/transcriptions",
    openapi_extra=documented(TranscriptionForm, kind="multipart/form-data", passed_over=_HEARD_OVER, streams=True),
)
async def transcribe(request: Request) -> Response:
    """Write down what is said: as JSON, plain text or subtitles, with times of segments and words in verbose_json; with
    `stream` segment by segment."""
    return await _heard(request, NewTranscription, translate=False)


@router.post("/v1/audio/translations", openapi_extra=documented(TranslationForm, kind="multipart/form-data"))
async def translate(request: Request) -> Response:
    """Write down in English what is said in any language."""
    return await _heard(request, NewTranslation, translate=True)


async def _heard(request: Request, shape: type[NewTranslation], translate: bool) -> Response:
    house = house_of(request)
    with ExitStack() as stack:
        folder = stack.enter_context(outbox(house.options.data))
        async with read_files(request, {"file": 1}, largest=house.options.largest_file) as form:
            asked = shaped(form.fields, shape, passed_over=_HEARD_OVER)
            if form.draft.size == 0:
                raise Wrong(400, "The file is empty.", param="file", code="empty_file")
            form.draft.file.flush()
            sound = folder / "sound"
            await asyncio.to_thread(os.replace, form.draft.path, sound)
        work = _Hearing(Asking.of(request, asked.model), asked, sound, translate)
        work.check()
        if getattr(asked, "stream", None):
            return await streamed(request, _heard_events(work, stack.pop_all()))
        return _as_asked(request, work, *await unless_gone(request, _whole_hearing(work)))


@dataclass(frozen=True)
class _Hearing:
    asking: Asking
    asked: NewTranslation
    sound: Path
    translate: bool

    def check(self) -> None:
        """Raises Wrong (400) for what is not to be had."""
        if self.asked.response_format == "diarized_json":
            raise Wrong(400, "response_format: who speaks is not told here; ask for verbose_json.",
                        param="response_format", code="unsupported_value")  # fmt: skip
        wanted = self.granularities
        if unknown := [one for one in wanted if one not in ("word", "segment")]:
            raise Wrong(400, f"timestamp_granularities: {unknown[0]!r} is neither word nor segment.",
                        param="timestamp_granularities", code="invalid_value")  # fmt: skip
        if wanted and self.asked.response_format != "verbose_json":
            raise Wrong(400, "timestamp_granularities: times are told in verbose_json alone.",
                        param="timestamp_granularities", code="invalid_value")  # fmt: skip

    @property
    def granularities(self) -> list[str]:
        return _list(getattr(self.asked, "timestamp_granularities", None))

    def order(self) -> Order:
        return Order("text", len(self.asked.prompt or ""), _TOKENS, self._request)

    def _request(self, facts: Mapping[str, Any]) -> Asked:
        if "translate" not in (facts.get("options") or {}):
            raise Wrong(400, f"{self.asking.model} does not listen.", param="model", code="model_not_supported")
        wanted = {"language": getattr(self.asked, "language", None) or None, "prompt": self.asked.prompt or None,
                  "translate": self.translate or None, "words": "word" in self.granularities or None}  # fmt: skip
        options = {name: value for name, value in wanted.items() if value is not None}
        message = Message("user", (Part("audio", path=self.sound),))
        return Asked(messages=(message,), temperature=self.asked.temperature or 0.0, options=options)

    async def parts(self) -> AsyncGenerator[Part]:
        asking = self.asking
        said = asking.house.desk.ask(asking.caller, asking.model, self.order(), deadline=asking.deadline)
        async with aclosing(unplaced(said, self.sound.parent)) as parts:
            async for part in parts:
                yield part


async def _whole_hearing(work: _Hearing) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """The words, the segments, and what is told at the end."""
    text, segments, facts = "", list[dict[str, Any]](), dict[str, Any]()
    async with aclosing(work.parts()) as parts:
        async for part in parts:
            text += part.text
            meta = dict(part.meta or {})
            segments += meta.pop("segments", [])
            facts |= meta
    return text, segments, facts


def _as_asked(
    request: Request, work: _Hearing, text: str, segments: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> Response:
    match work.asked.response_format or "json":
        case "text":
            return PlainTextResponse(text.strip() + "\n", headers=limits_of(request))
        case "srt":
            return PlainTextResponse(srt(segments), headers=limits_of(request))
        case "vtt":
            return PlainTextResponse(vtt(segments), headers=limits_of(request))
    seconds = float(facts.get("duration", 0))
    usage = {"type": "duration", "seconds": round(seconds, 2)}
    if work.asked.response_format != "verbose_json":
        return reply(request, {"text": text.strip(), **({} if work.translate else {"usage": usage})})
    told = [{**{name: fact for name, fact in one.items() if name != "words"}, "id": number,
             "seek": int(one["start"] * 100)} for number, one in enumerate(segments)]  # fmt: skip
    language = "english" if work.translate else _LANGUAGES.get(str(facts.get("language")), str(facts.get("language")))
    body: dict[str, Any] = {
        "task": "translate" if work.translate else "transcribe", "language": language, "duration": seconds,
            "text": text.strip()}  # fmt: skip
    if "segment" in work.granularities or not work.granularities:
        body["segments"] = told
    if "word" in work.granularities:
        body["words"] = [{"word": bare, "start": word["start"], "end": word["end"]} for one in segments
                         for word in one.get("words") or () if (bare := _bare(word["word"]))]  # fmt: skip
    return reply(request, body | ({} if work.translate else {"usage": usage}))


async def _heard_events(work: _Hearing, owned: ExitStack) -> AsyncGenerator[bytes]:
    text, usage = "", dict[str, Any]()
    with owned:
        async with aclosing(work.parts()) as parts:
            async for part in parts:
                usage |= part.meta or {}
                if part.text:
                    text += part.text
                    yield event({"type": "transcript.text.delta", "delta": part.text}, "transcript.text.delta")
        given, made = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
        yield event({"type": "transcript.text.done", "text": text.strip(),
                     "usage": {"type": "tokens", "input_tokens": given, "output_tokens": made,
                               "total_tokens": given + made}}, "transcript.text.done")  # fmt: skip


def _bare(word: str) -> str:
    """A word without the punctuation around it, as OpenAI's answers have it."""
    inner = [k for k, letter in enumerate(word) if letter.isalnum()]
    return word[inner[0] : inner[-1] + 1] if inner else ""


def _list(said: Any) -> list[str]:
    """A field of a form that may have come once or several times."""
    return [str(one) for one in said] if isinstance(said, list) else [str(said)] if said else []
