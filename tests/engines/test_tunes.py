"""The model that ships composes right after installation: whole bars, in the key and metre that are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from genwright.core import find_card
from genwright.judging.tunes import heard_tonic
from genwright.media.abc import read_tune
from genwright.media.score import bars_of
from genwright.verbs.compose import compose


def test_a_jig_is_a_jig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    found = compose("a jig in D major", tmp_path / "a.abc", seed=1, options={"n": 3, "bars": 16})
    tunes = [read_tune(one["abc"]) for one in found]
    assert [str(tune.key) for tune in tunes] == ["D major"] * 3
    assert [tune.metre for tune in tunes] == ["6/8"] * 3, "it is danced in no other, and none was asked for"
    assert [bars_of(tune).wrong for tune in tunes] == [0] * 3
    assert sum(heard_tonic(tune) == 2 for tune in tunes) >= 2
    assert all(16 <= bars_of(tune).all <= 19 for tune in tunes), "sixteen, and pickups"
    assert [Path(one["file"]).read_text(encoding="utf-8") for one in found] == [one["abc"] for one in found]


def test_the_card_says_what_ships() -> None:
    card = find_card("tunes")
    assert (card.engine, card.abilities, card.size < 5_000_000) == ("abc_lm", ("text_to_music",), True)
