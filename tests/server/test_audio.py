"""Sound over the API: the official client speaks and listens, whole and streamed; bad input is told what it is.

The voices and the ear are the packaged ones: these tests are passed over where their cards were not fetched.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from genwright.core import find_card
from genwright.media.sound import encoded, open_sound, sound_of
from genwright.server.app import create_app
from genwright.server.desk import Desk
from genwright.server.fleet import Fleet
from genwright.server.meters import Meters

from .household import at_home, own_home, small_house
from .parlour import client

pytestmark = pytest.mark.skipif(
    not (find_card("hibari").is_here and find_card("whisper-base").is_here),
    reason="needs `genwright models pull hibari` and `genwright models pull whisper-base`",
)
FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on the PATH")
WORDS = "The quick brown fox jumps over the lazy dog."


@dataclass
class Booth:
    address: str
    key: str


@pytest.fixture(scope="module")
def booth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booth]:
    with booth_in(tmp_path_factory.mktemp("booth")) as made:
        yield made


@contextmanager
def booth_in(place: Path, **environment: str) -> Iterator[Booth]:
    with own_home(place, OMP_NUM_THREADS="1", **environment):
        models = [{"name": "voice", "source": "hibari"}, {"name": "ear", "source": "whisper-base"}]
        house = small_house(place, meters=Meters(), models=models, memory=10**10)
        house.fleet = Fleet(house.options, house.store)
        house.desk = Desk(house.options, house.fleet, house.keys, house.limits, house.meters)
        key = house.keys.create("ann", roles=("user",))[1]
        with at_home(create_app(house)) as address:
            yield Booth(address, key)


@pytest.fixture(scope="module")
def ann(booth: Booth) -> Iterator[Any]:
    """The official client, strict."""
    with client(booth.address, api_key=booth.key) as made:
        yield made


@pytest.fixture(scope="module")
def spoken(ann: Any) -> bytes:
    found: bytes = ann.audio.speech.create(
        model="voice", input=WORDS, voice="alloy", response_format="wav", extra_body={"seed": 1}
    ).content
    return found


def close(found: str, wanted: str = WORDS) -> bool:
    return found.strip().casefold().rstrip(".") == wanted.casefold().rstrip(".")


# -- speech ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mp3", "opus", pytest.param("aac", marks=FFMPEG), "flac", "wav"])
def test_words_are_said_in_every_format(ann: Any, kind: str) -> None:
    answer = ann.audio.speech.with_raw_response.create(
        model="voice", input="Hello.", voice="heart", response_format=kind
    )
    assert answer.headers["content-type"].startswith("audio/")
    assert "AIGC" in answer.headers["x-aigc"] or "Label" in answer.headers["x-aigc"]
    sound = open_sound(answer.content)
    assert 0.3 < sound.seconds < 2
    assert abs(sound.samples).max() > 0.05


def test_bare_samples_are_those_of_the_file(ann: Any, spoken: bytes) -> None:
    more: dict[str, Any] = {"model": "voice", "input": WORDS, "voice": "alloy", "extra_body": {"seed": 1}}
    bare = ann.audio.speech.create(**more, response_format="pcm").content
    samples = np.frombuffer(bare, "<i2").astype(np.float32) / 32768
    whole = open_sound(spoken).samples[:, 0]
    assert len(samples) == len(whole)
    assert abs(samples - whole).max() < 1e-3


def test_speed_is_heard(ann: Any, spoken: bytes) -> None:
    fast = ann.audio.speech.create(model="voice", input=WORDS, voice="heart", response_format="wav", speed=2).content
    assert open_sound(fast).seconds < 0.7 * open_sound(spoken).seconds


@pytest.mark.parametrize("kind", ["mp3", pytest.param("aac", marks=FFMPEG), "wav", "pcm"])
def test_speech_comes_sentence_by_sentence(ann: Any, kind: str) -> None:
    asked: dict[str, Any] = {"model": "voice", "input": "Hello there. How are you?", "voice": "heart"}
    with ann.audio.speech.with_streaming_response.create(
        **asked, response_format=kind, stream_format="audio", extra_body={"seed": 1}
    ) as answer:
        data = b"".join(answer.iter_bytes())
    whole = ann.audio.speech.create(**asked, response_format="wav", extra_body={"seed": 1}).content
    if kind == "wav":
        assert struct.unpack("<I", data[40:44])[0] > 2**31  # nobody knew how long it would be
        data = data[44:]
    if kind in ("mp3", "aac"):
        assert open_sound(data).seconds == pytest.approx(open_sound(whole).seconds, abs=0.3)
    else:
        assert len(data) == 2 * len(open_sound(whole).samples)


def test_speech_comes_as_events(booth: Booth) -> None:
    body = {"model": "voice", "input": "One. Two.", "voice": "heart", "response_format": "pcm", "stream_format": "sse"}
    head = {"Authorization": f"Bearer {booth.key}"}
    with httpx.stream("POST", f"{booth.address}/audio/speech", json=body, headers=head, timeout=60) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("event: ")]
    assert lines == ["event: speech.audio.delta"] * 2 + ["event: speech.audio.done"]


def test_voices_are_listed(ann: Any, booth: Booth, spoken: bytes) -> None:
    found = httpx.get(f"{booth.address}/audio/voices", headers={"Authorization": f"Bearer {booth.key}"}).json()
    assert {"object": "voice", "id": "heart", "model": "voice"} in found["data"]


@pytest.mark.parametrize(("more", "status", "words"), [
    ({"input": ""}, 400, "input"), ({"input": "🙂"}, 400, "nothing to say"), ({"voice": "nobody"}, 400, "no voice"),
    ({"input": "你好。"}, 400, "does not speak zh"), ({"speed": 9}, 400, "speed"),
    ({"response_format": "xyz"}, 400, "response_format"), ({"input": "x " * 10_001}, 400, "input"),
    ({"model": "ear"}, 400, "gives text"), ({"model": "none"}, 404, "none"), ({"voice": ""}, 400, "voice"),
])  # fmt: skip
def test_what_cannot_be_said_is_told(ann: Any, more: dict[str, Any], status: int, words: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ann.audio.speech.create(**{"model": "voice", "input": "Hello.", "voice": "heart"} | more)
    assert caught.value.status_code == status
    assert words in str(caught.value)


# -- listening ---------------------------------------------------------------------------------------------------------


def test_a_sound_is_written_down_in_every_form(ann: Any, spoken: bytes) -> None:
    hear = ann.audio.transcriptions.create
    file = ("a.wav", spoken)
    found = hear(model="ear", file=file)
    assert close(found.text)
    assert found.usage.type == "duration"
    assert close(hear(model="ear", file=file, response_format="text"))
    verbose = hear(model="ear", file=file, response_format="verbose_json", language="en", temperature=0)
    assert (verbose.language, verbose.segments[0].id) == ("english", 0)
    assert close(verbose.text)
    assert 0 <= verbose.segments[0].start < verbose.segments[-1].end <= verbose.duration + 0.5
    assert hear(model="ear", file=file, response_format="srt").startswith("1\n00:00:00,")
    assert hear(model="ear", file=file, response_format="vtt").startswith("WEBVTT\n\n00:00")


def test_words_have_their_times(ann: Any, spoken: bytes) -> None:
    hear = ann.audio.transcriptions.create
    asked: dict[str, Any] = {"model": "ear", "file": ("a.wav", spoken), "response_format": "verbose_json"}
    found = hear(**asked, timestamp_granularities=["word"])
    assert [one.word for one in found.words] == WORDS.rstrip(".").split()
    assert found.segments is None
    times = [time for one in found.words for time in (one.start, one.end)]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= found.duration
    both = hear(**asked, timestamp_granularities=["word", "segment"])
    assert both.segments
    assert both.words == found.words


def test_what_is_written_down_comes_as_events(ann: Any, spoken: bytes) -> None:
    events = list(ann.audio.transcriptions.create(model="ear", file=("a.wav", spoken), stream=True))
    assert [one.type for one in events][-1] == "transcript.text.done"
    assert "".join(one.delta for one in events[:-1]).strip() == events[-1].text
    assert close(events[-1].text)


@FFMPEG
def test_what_a_phone_recorded_is_heard(ann: Any, spoken: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(spoken)
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", tmp_path / "a.wav", tmp_path / "memo.m4a"], check=True)
    assert close(ann.audio.transcriptions.create(model="ear", file=tmp_path / "memo.m4a").text)


@pytest.mark.parametrize("more", [{}, {"stream_format": "audio"}, {"stream_format": "sse"}])
def test_without_ffmpeg_aac_is_refused_with_what_to_do(tmp_path: Path, more: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "voice", "input": "Hello.", "voice": "heart", "response_format": "aac"}
    with (
        booth_in(tmp_path, PATH="") as made,
        client(made.address, api_key=made.key) as ann,
        pytest.raises(openai.BadRequestError, match="apt install ffmpeg"),
    ):
        ann.audio.speech.create(**asked | more)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_a_sound_is_translated(ann: Any, spoken: bytes) -> None:
    assert close(ann.audio.translations.create(model="ear", file=("a.wav", spoken)).text)


@pytest.mark.parametrize(("file", "more", "status", "words"), [
    (b"", {}, 400, "empty"), (b"no sound at all", {}, 422, "no sound"), (b"RIFF", {}, 422, "no sound"),
    (encoded(sound_of(np.zeros(100), 8000), ".wav"), {"model": "voice"}, 400, "gives sound"),
    (encoded(sound_of(np.zeros(100), 8000), ".wav"), {"language": "xx"}, 400, "language"),
    (encoded(sound_of(np.zeros(100), 8000), ".wav"), {"response_format": "diarized_json"}, 400, "who speaks"),
    (encoded(sound_of(np.zeros(100), 8000), ".wav"), {"timestamp_granularities": ["word"]}, 400, "verbose_json"),
    (encoded(sound_of(np.zeros(100), 8000), ".wav"),
     {"timestamp_granularities": ["line"], "response_format": "verbose_json"}, 400, "neither word nor segment"),
    (encoded(sound_of(np.zeros(1000 * 14_500), 1000), ".flac"), {}, 413, "longer than 14,400"),
])  # fmt: skip
def test_what_cannot_be_heard_is_told(ann: Any, file: bytes, more: dict[str, Any], status: int, words: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ann.audio.transcriptions.create(**{"model": "ear", "file": ("a.wav", file)} | more)
    assert caught.value.status_code in (status, 400)
    assert words in str(caught.value)


def test_silence_is_no_words(ann: Any) -> None:
    silence = encoded(sound_of(np.zeros(16_000), 16_000), ".wav")
    assert ann.audio.transcriptions.create(model="ear", file=("a.wav", silence)).text == ""


def test_a_chat_with_an_ear_is_told_what_it_needs(ann: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="no sound"):
        ann.chat.completions.create(model="ear", messages=[{"role": "user", "content": "hello"}])
