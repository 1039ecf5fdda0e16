"""Judging sound: bits beside counting and prediction, mel bands beside those of the true sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genwright.core import Example, Judged, Message, Part, UsageError, assistant, choose, find_card, user
from genwright.core.model import Likelihood
from genwright.judging import samples
from genwright.media.companding import levels_of
from genwright.media.sound import save_sound, sound_of

TIMES = np.arange(8000) / 16_000


def sound(path: Path, wave: Any) -> Part:
    return Part("audio", path=save_sound(sound_of(wave, 16_000), path))


def tone(hertz: float, seconds: float = 0.5) -> Any:
    return 0.4 * np.sin(2 * np.pi * hertz * TIMES[: round(seconds * 16_000)])


def test_linear_prediction_foretells_tones_and_counting_does_not() -> None:
    random = np.random.default_rng(0)
    train, held_out = ([levels_of(tone(h) + tone(3.1 * h)) for h in some] for some in ((200, 300, 430), (260, 377)))
    found = samples.baselines(train, held_out)
    assert found["LPC-16"] < 0.8 * found["bigram"] < 0.8 * found["unigram"] < 0.8 * 8.1
    noise = [random.integers(0, 256, 4000).astype(np.uint8) for _ in range(2)]
    assert all(bits > 7.9 for bits in samples.baselines(noise[:1], noise[1:]).values()), "noise is not foretold"


def test_bits_are_a_distribution() -> None:
    """No way of counting gives all levels together more than one."""
    train = [levels_of(tone(200))]
    for place in (50, 200):
        past = train[0][:place]
        total = sum(2 ** -_last(train, past, level) for level in range(256))
        assert total == pytest.approx(1, abs=1e-6)


def _last(train: list[np.ndarray], past: np.ndarray, level: int) -> float:
    """Bits of one more level after `past` by linear prediction."""
    whole = np.append(past, level).astype(np.uint8)
    return samples.baselines(train, [whole])["LPC-16"] * len(whole) - samples.baselines(train, [past])["LPC-16"] * len(
        past
    )


def test_rows_without_likelihood_are_refused() -> None:
    row = Example((assistant("la"),))
    with pytest.raises(UsageError, match="No held-out sound"):
        choose("metrics", "sound_bits")([Judged(row, likelihood=Likelihood(0.0, 0, 0))])


def test_mel_error_tells_near_from_far_and_stands_beside_griffin_lim(tmp_path: Path) -> None:
    true = sound(tmp_path / "true.wav", tone(440))
    answers = {"same": tone(440), "near": 0.8 * tone(440), "far": tone(1500), "short": tone(440, 0.25)}
    found = {}
    for name, wave in answers.items():
        made = Message("assistant", (sound(tmp_path / f"{name}.wav", wave),))
        found[name] = choose("metrics", "mel_error")([Judged(Example((user("la"), assistant(true))), made)])
    assert found["same"].value == pytest.approx(0, abs=1e-6)
    assert 0 < found["near"].value < min(found["far"].value, found["short"].value)
    assert not found["near"].beside
    vocoded = Judged(Example((user(true), assistant(true))), Message("assistant", (true,)))
    assert 0.1 < choose("metrics", "mel_error")([vocoded]).beside["Griffin-Lim"] < found["far"].value
    assert not choose("metrics", {"name": "mel_error", "griffin_lim": False})([vocoded]).beside
    with pytest.raises(UsageError, match="No answer is a sound"):
        choose("metrics", "mel_error")([Judged(Example((user("la"), assistant(true))))])


def test_a_vocoder_is_asked_with_the_sound_that_it_is_to_make(tmp_path: Path) -> None:
    true = sound(tmp_path / "true.wav", tone(440))
    task = choose("tasks", "vocode")
    row = task.thing.framed(Example((user("hello"), assistant(true))), task.settings)
    assert row.prompt == (user("hello", true),)
    assert task.thing.framed(Example((assistant(true),)), task.settings).prompt == (user(true),)
    assert task.thing.framed(row, task.settings) == row
    words = Example((user("hello"), assistant("hello")))
    assert task.thing.framed(words, task.settings) == words


@pytest.mark.weights
@pytest.mark.skipif(not find_card("dnsmos").is_here, reason="the card dnsmos is not here")
def test_clear_sound_is_held_better_than_noise(tmp_path: Path) -> None:
    """Not that a tone is speech: that what is added to it is heard, and that the true sounds stand beside."""
    random = np.random.default_rng(0)
    clean = tone(220) * (1 + np.sin(2 * np.pi * 3 * TIMES)) / 2
    true = sound(tmp_path / "true.wav", clean)
    noisy = sound(tmp_path / "noisy.wav", clean + random.normal(0, 0.2, len(clean)))
    row = Example((user("la"), assistant(true)))
    found = [choose("metrics", "dnsmos")([Judged(row, Message("assistant", (part,)))]) for part in (true, noisy)]
    assert found[0].value == pytest.approx(found[0].beside["true sounds"])
    assert 1 <= found[1].details["noise"] < found[0].details["noise"] - 0.3
    with pytest.raises(UsageError, match="No answer is a sound"):
        choose("metrics", "dnsmos")([Judged(row)])
