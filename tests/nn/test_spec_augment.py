"""Sounds told anew: as another tempo, throat or loudness would have made them, and the same from the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from genwright.media.sound import sound_of
from genwright.nn import spec_augment
from genwright.nn.spec_augment import Augment, augment
from genwright.nn.whisper import features_of

ALL = Augment(frames=9, bands=9, tempo=0.2, throat=0.2, loud=1, late=20)


def window(hertz: float, level: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Half a second of a tone in a window of one second, as (1, 80, 100), and where it sounds, (1, 50)."""
    wave = level * np.sin(2 * np.pi * hertz * np.arange(8000) / 16_000) * np.hanning(8000)
    features = features_of(sound_of(wave, 16_000))
    padded = np.full((100, 80), features.min(), np.float32)
    padded[: len(features)] = features
    return torch.from_numpy(padded.T[None].copy()), (torch.arange(50) < 26)[None].long()


def drawn(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Let every draw between 0 and 1 be `share`."""
    monkeypatch.setattr(spec_augment.torch, "rand", lambda *shape: torch.full(shape, share))


@pytest.mark.parametrize(("hertz", "higher"), [(600, 690), (2000, 2300)])
def test_a_shorter_throat_is_heard_higher(monkeypatch, hertz, higher):
    drawn(monkeypatch, 1.0)
    made, _ = augment(*window(hertz), Augment(throat=0.15))
    wanted, _ = window(higher)
    assert abs(int(made[0, :, 25].argmax()) - int(wanted[0, :, 25].argmax())) <= 1
    assert int(wanted[0, :, 25].argmax()) - int(window(hertz)[0][0, :, 25].argmax()) >= 2


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_is_said_faster_ends_sooner_and_loses_nothing(monkeypatch, share):
    drawn(monkeypatch, share)
    source, seen = window(900)
    made, ends = augment(source, seen, Augment(tempo=0.25))
    tempo = 1.25 if share else 0.75
    assert int(ends.sum()) == pytest.approx(26 / tempo, abs=1)
    assert int(made[0].max(0).values.argmax()) == pytest.approx(25 / tempo, abs=1)
    assert made.max().item() == pytest.approx(source.max().item(), abs=0.05)


def test_what_is_slower_still_fits_its_window(monkeypatch):
    drawn(monkeypatch, 0.0)
    source, _ = window(900)
    made, ends = augment(source, torch.ones(1, 50).long(), Augment(tempo=0.4))
    assert int(ends.sum()) == 50
    assert (made - source).abs().max() < 1e-3


def test_what_begins_late_is_the_same_later(monkeypatch):
    drawn(monkeypatch, 1.0)
    source, seen = window(900)
    made, ends = augment(source, seen, Augment(late=20))
    assert int(ends.sum()) == 36
    assert (made[..., 20:72] - source[..., :52]).abs().max() < 1e-3
    assert int(augment(source, seen, Augment(late=99))[1].sum()) == 50


def test_a_louder_sound_is_that_of_a_nearer_mouth(monkeypatch):
    monkeypatch.setattr(spec_augment.torch, "rand", lambda *s: torch.tensor([1.0, 0.5]).view(2, 1, 1, 1).expand(*s))
    made, _ = augment(*window(900, 0.1), Augment(loud=1))
    assert (made - window(900, 0.1 * 10**0.5)[0]).abs().max() < 1e-3


def test_the_same_seed_tells_it_in_the_same_way_and_the_rows_stay():
    source, seen = (x.repeat(3, *[1] * (x.dim() - 1)) for x in window(900))
    before = source.clone()
    told = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        told.append(augment(source, seen, ALL)[0])
    assert told[0].equal(told[1])
    assert not told[0].equal(told[2])
    assert not told[0][0].equal(told[0][1])
    assert source.equal(before)
    for name in ("frames", "bands", "tempo", "throat", "loud", "late"):
        changed, _ = augment(source, seen, replace(Augment(), **{name: getattr(ALL, name)}))
        assert not changed.equal(source), name
