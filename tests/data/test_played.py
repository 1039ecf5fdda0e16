"""Tunes as sound: what is played is what the words beside it say."""

from __future__ import annotations

import numpy as np
import pytest

from genwright.core import Bad, ModelError, Row, UsageError, choose, find_card
from genwright.media.pitches import notes_of
from genwright.media.sound import open_sound

SOUNDFONT = pytest.mark.skipif(
    not find_card("soundfont-gm").is_here, reason="needs `genwright models pull soundfont-gm`"
)
ABC = "X:1\nT:Two\nR:reel\nM:4/4\nL:1/8\nK:C\n|:A4 a4|z4 A4:|\n\nX:2\nT:Other\nR:jig\nM:6/8\nL:1/8\nK:G\nG3 B3|d6|\n"


@pytest.fixture
def tunes(tmp_path):
    (tmp_path / "some.abc").write_text(ABC)
    return tmp_path


def rows_of(tunes, **options):
    return list(choose("sources", {"source": "played", "path": str(tunes), **options}, key="source")())


def loudest(samples, rate):
    """Hertz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


@SOUNDFONT
@pytest.mark.weights
def test_what_is_heard_are_the_notes_that_are_told(tunes):
    pytest.importorskip("midirenderer")
    found = {row.fields["meta"]["title"]: row for row in rows_of(tunes)}
    assert all(isinstance(row, Row) for row in found.values())
    words = notes_of(found["Two"].fields["text"])
    assert [pitches for pitches, _ in words] == [(69,), (81,), (), (69,), (69,), (81,), ()], (
        "six seconds, the repeat played"
    )
    sound = open_sound(found["Two"].fields["audio"])
    assert (sound.rate, sound.samples.shape[1]) == (16_000, 1)
    assert sound.seconds == pytest.approx(sum(seconds for _, seconds in words) + 0.25, abs=0.01)
    quarter = round(words[0][1] / 2 * sound.rate)
    for place, wanted in ((0, 440), (2, 880)):
        heard = loudest(sound.samples[place * quarter : (place + 2) * quarter, 0], sound.rate)
        assert heard / wanted == pytest.approx(round(heard / wanted), abs=0.03), "the note or an overtone"


@SOUNDFONT
@pytest.mark.weights
def test_every_option_changes_what_is_played(tunes):
    pytest.importorskip("midirenderer")
    whole = rows_of(tunes)
    short = rows_of(tunes, seconds=1)
    assert all(open_sound(row.fields["audio"]).seconds <= 1.26 for row in short)
    assert {row.fields["meta"]["style"] for row in rows_of(tunes, instruments=[0, 40])} == {
        "instrument 0",
        "instrument 40",
    }
    assert len(rows_of(tunes, count=1)) == 1
    assert open_sound(rows_of(tunes, rate=8_000)[0].fields["audio"]).rate == 8_000
    orders = {tuple(row.fields["meta"]["title"] for row in rows_of(tunes, seed=seed, seconds=1)) for seed in range(5)}
    assert len(orders) == 2
    assert [row.fields for row in whole] == [row.fields for row in rows_of(tunes)]


def test_what_is_no_tune_is_told_and_not_played(tmp_path):
    (tmp_path / "bad.abc").write_text("X:1\nT:None\nK:C\n")
    assert all(isinstance(row, Bad) for row in rows_of(tmp_path))


def test_without_a_soundfont_it_says_what_to_fetch(tunes, tmp_path, monkeypatch):
    pytest.importorskip("midirenderer")
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    with pytest.raises(ModelError, match="has not been fetched"):
        rows_of(tunes)


def test_a_card_that_holds_no_tunes_is_refused():
    chosen = choose("sources", {"source": "played", "card": "hibari"}, key="source")
    with pytest.raises(UsageError, match="no dataset"):
        chosen.module.resolve(chosen.settings, lambda card: card.folder)
