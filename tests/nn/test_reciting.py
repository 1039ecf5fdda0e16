"""A lyric is spoken over a tune that goes down under it, as fast and by whom it is asked for; guards read its words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genwright.core import ModelError, Part, Refused, Request, UsageError, choose, find_card, user
from genwright.media.abc import read_tune
from genwright.media.sound import open_sound
from genwright.nn import reciting, voices
from genwright.nn.voices import RATE, Speaker
from genwright.verbs.generate import generate

from .tunes import KESH, model

LYRICS = "one two three four\nfive six seven\n\neight nine ten"
SHORT = "X:1\nM:4/4\nL:1/8\nK:C\n" + "|".join(["CDEF GABc"] * 5) + "||\n"
heard = pytest.mark.skipif(not find_card("soundfont-gm").is_here, reason="needs `genwright models pull soundfont-gm`")


class Hum:
    """A network that hums 5 kHz, a twentieth of a second for each letter."""

    languages, voices = ("en", "zh"), ["anna", "ben"]

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def usual(self, language: str) -> str:
        return "anna"

    def limit(self) -> int:
        return 400

    def say(self, phonemes: str, blend: dict[str, float], speed: float, seed: int) -> np.ndarray:
        self.said.append((phonemes, *blend, round(speed, 2)))
        frames = np.arange(round(RATE / 20 * len(phonemes) / speed))
        return (0.3 * np.sin(2 * np.pi * 5_000 / RATE * frames)).astype(np.float32)


class Letters:
    def of(self, text: str, language: str) -> str:
        return text


@pytest.fixture
def hum(monkeypatch: pytest.MonkeyPatch) -> Hum:
    made = Hum()
    made.cards = []  # type: ignore[attr-defined]

    def packaged(card: str) -> Speaker:
        made.cards.append(card)  # type: ignore[attr-defined]
        return Speaker(made, Letters())  # type: ignore[arg-type]

    monkeypatch.setattr(reciting, "packaged", packaged)
    return made


def composed(out: Path | None = None, words: str = "a jig in G", **options: Any) -> list[Part]:
    asked = {"melody": KESH, "use": "vary", "keep": 1.0, "lyrics": LYRICS} | options
    return list(model(1).generate(Request(messages=(user(words),), seed=1, out=out, options=asked)))


def facts(**options: Any) -> dict[str, Any]:
    return next(part.meta for part in composed(**options) if part.text and part.meta)


def test_a_lyric_is_told_line_by_line_and_stands_in_the_notation(hum: Hum) -> None:
    parts = composed()
    assert [part.meta for part in parts[:3]] == [{"progress": k, "of": 3} for k in (1, 2, 3)]
    tune = parts[3]
    assert tune.meta
    assert [line["text"] for line in tune.meta["lines"]] == LYRICS.replace("\n\n", "\n").split("\n")
    assert "w: * one" in tune.text
    assert "eight" in tune.text
    assert read_tune(tune.text).events == read_tune(KESH).events, "the words change no note"
    assert (tune.meta["speaker"], tune.meta["times"]) == ("hibari", 1)
    assert hum.said == [(text, "anna", 1.0) for text in LYRICS.replace("\n\n", "\n").split("\n")], "each once"
    assert len(composed(n=2, use="continue")) == 3 + 1 + 3 + 1 + 1, "each tune has its own lines"


def test_options_of_a_lyric_are_kept_to(hum: Hum) -> None:
    usual = facts()
    assert facts(speaker="kokoro-82m")["speaker"] == "kokoro-82m"
    assert facts(lyrics="你好，世界")["speaker"] == "kokoro-82m"
    assert facts(voice="ben")["speaker"] == "kokoro-82m", "voices with names are its"
    assert hum.said[-1][1] == "ben"
    quick = facts(speed=2)
    assert quick["lines"][0]["end"] == pytest.approx(usual["lines"][0]["end"] - 0.45, abs=0.05)
    tight = {"lyrics": "x" * 22 + "\n" + "x" * 22 + "\n" + "x" * 44, "tempo": 165}  # a phrase is 2.2 seconds
    assert [line["speed"] for line in facts(**tight, fastest=1.0)["lines"]] == [1, 1, 1]
    assert facts(**tight, fastest=1.25)["lines"][2]["speed"] > 1
    with pytest.raises(UsageError, match="voice"):
        facts(voice="No One")


@heard
def test_the_tune_goes_down_under_the_voice(hum: Hum, tmp_path: Path) -> None:
    found = {}
    for duck in (0, 24):
        parts = composed(tmp_path / f"{duck}.wav", duck=duck, lyrics="x" * 40, melody=SHORT, tempo=120)
        sound = open_sound(tmp_path / f"{duck}.wav")
        line = next(part.meta for part in parts if part.path)["lines"][0]  # type: ignore[index]
        hop = round(sound.rate / 10)
        wave = sound.mono().samples[: len(sound.samples) // hop * hop, 0].reshape(-1, hop)
        power = np.abs(np.fft.rfft(wave, axis=1)) ** 2
        hertz = np.fft.rfftfreq(hop, 1 / sound.rate)
        voice = power[:, abs(hertz - 5_000) < 100].sum(1)
        music = power[:, hertz < 3_000].sum(1)
        during = slice(int(line["start"] * 10) + 3, int(line["end"] * 10) - 3)
        after = slice(int(line["end"] * 10) + 20, int(line["end"] * 10) + 60)
        assert voice[during].min() > 100 * voice[after].max(), "the voice is heard when its line is told to be"
        found[duck] = 10 * np.log10(music[during].mean() / music[after].mean())
    assert found[0] - found[24] == pytest.approx(24, abs=4)


def test_what_cannot_be_recited_is_told_before_anything_is_composed(hum: Hum, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="hold no words"):
        composed(lyrics=" \n[Chorus]\n--")
    with pytest.raises(UsageError, match="201 lines"):
        composed(lyrics="a\n" * 201)
    with pytest.raises(UsageError, match="4000 characters"):
        composed(lyrics="a" * 4_001)
    with pytest.raises(UsageError, match=r"no voice 'bena'.*ben"):
        composed(voice="bena")
    with pytest.raises(UsageError, match="speaker"):
        composed(speaker="somebody")
    with pytest.raises(UsageError, match="more than 900"):
        composed(lyrics="a\n" * 150, tempo=30)
    monkeypatch.undo()
    monkeypatch.setenv("GENWRIGHT_HOME", "/nowhere/at/all")
    with pytest.raises(ModelError, match=r"Hibari.*has not been fetched"):
        composed()


def test_guards_read_the_words_of_a_lyric(hum: Hum, tmp_path: Path) -> None:
    def asked(action: str) -> str:
        guard = choose("guards", {"name": "keywords", "words": ["seven"], "action": action})
        request = Request(messages=(user("a jig in G"),), seed=1, options={"lyrics": LYRICS})
        return "".join(part.text for part in generate(model(1), request, guards=[guard], ledger=tmp_path / "l.jsonl"))

    with pytest.raises(Refused):
        asked("block")
    assert not hum.said
    assert "seven" not in asked("redact")
    assert all("seven" not in said[0] for said in hum.said)


def test_an_altered_voice_does_not_speak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path))
    card = find_card("hibari")
    card.folder.mkdir(parents=True)
    (card.folder / "hibari.onnx").write_bytes(bytes(card.size))
    with pytest.raises(ModelError, match="altered"):
        voices.packaged("hibari")
