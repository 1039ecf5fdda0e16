"""The learner of tunes: learns by the one loop, goes on bit-equal, writes whole bars, and the same again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genwright.core import Batched, Dataset, Example, Judged, Learner, ModelError, Request, UsageError, choose, user
from genwright.core.model import Scorer, Unlearnable
from genwright.core.recipe import Train
from genwright.engines import abc_lm
from genwright.judging.metrics import (
    bar_validity,
    copied_tunes,
    tune_adherence,
    tune_bits,
    tune_likeness,
)
from genwright.media.abc import read_tune
from genwright.media.score import END, KNOWN, WORDS, Grammar, bars_of, word_of
from genwright.nn.abc_lm import AbcLM, packed
from genwright.nn.abc_options import AbcConfig, TuneOptions
from genwright.nn.abc_writing import Wish, Written, _wishes, write
from genwright.nn.loop import fit
from genwright.nn.small_lm import end_to_end, unwrapped

from .tiny import Log, digest, goes_on_bit_equal
from .tunes import CONFIG, KESH, STEPS, model, rows

TRAIN = Train(tokens_per_batch=512, tokens_per_pass=256, learning_rate=5e-3, max_steps=6, dtype="float32", threads=1,
              checkpoint_every=2, betas=(0.9, 0.95), dropout=0.1)  # fmt: skip


def teach(folder: Path, learner: AbcLM, train: list[Example], held_out: list[Example], **changes: Any) -> Log:
    log = Log(folder)
    learner.module.requires_grad_(True)
    fit(learner, Dataset(train), Dataset(held_out), objective=choose("objectives", "sft"),
        settings=TRAIN.model_copy(update=changes), seed=3, folder=folder, log=log)  # fmt: skip
    return log


def ask(learner: Any, words: str = "a jig in G major", out: Path | None = None, seed: int | None = 5, **options: Any):
    return list(learner.generate(Request(messages=(user(words),), seed=seed, options=options, out=out)))


def texts(parts: list[Any]) -> list[str]:
    return [part.text for part in parts if part.text]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> AbcLM:
    learner = model()
    teach(tmp_path_factory.mktemp("taught"), learner, rows(), [], max_steps=60, checkpoint_every=60)
    return learner


# -- learning --------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contracts() -> None:
    for contract in (Learner, Batched, Scorer):
        assert isinstance(model(), contract)


def test_it_learns_what_counting_does_not(taught: AbcLM) -> None:
    """A smoke model beats the n-grams of a text it was not shown, told what it is."""
    pairs = [Judged(row, likelihood=likely) for row, likely in zip(rows(), taught.likelihood(rows()), strict=True)]
    score = tune_bits.score(pairs, None, train=rows()[:3], bootstrap=20)
    assert score.value < 0.7 * score.beside["order_0"]
    assert score.beside["order_1"] < score.beside["order_0"]
    bits = sum(pair.likelihood.nll for pair in pairs) / math.log(2) / sum(pair.likelihood.tokens for pair in pairs)
    assert score.value == pytest.approx(bits)


def test_a_killed_training_goes_on_bit_equal(tmp_path: Path) -> None:
    def taught(name: str, learner: AbcLM) -> Log:
        return teach(tmp_path / name, learner, rows(), rows()[:2])

    goes_on_bit_equal(taught, model(), model(), model(seed=9))


def test_half_of_the_rows_are_taught_in_other_keys() -> None:
    learner = model()
    items = [learner.encode(row) for row in rows()]
    torch.manual_seed(0)
    batches = [learner.collate(items) for _ in range(4)]
    hidden = sum(int((batch.targets == -100).sum()) for batch in batches)
    assert 10 < hidden < 38  # of 48: the tonics that are not the tunes' own
    orders = {tuple(batch.targets[:6].tolist()) for batch in batches}
    assert len(orders) > 1, "what is told comes in any order"


def test_what_cannot_be_learned_is_said() -> None:
    from genwright.core import assistant

    for answer, reason in (("no tune", "no key"), (KESH.replace("6/8", "7/8"), "metre 7/8"), (KESH * 1, "")):
        row = Example((user("a jig"), assistant(answer)))
        if reason:
            with pytest.raises(Unlearnable, match=reason):
                model().encode(row)
    with pytest.raises(Unlearnable, match="reads 40"):
        model(longest=40).encode(rows()[0])
    assert [likely.tokens for likely in model().likelihood([Example((user("x"), assistant("no tune")))])] == [0]


CHANGES = {"width": 64, "depth": 3, "heads": 4, "mlp": 1.0, "longest": 80}


@pytest.mark.parametrize("key", list(AbcConfig.model_fields))
def test_every_key_of_the_config_changes_the_network(key: str) -> None:
    one, other = model(), model(**{key: CHANGES[key]})
    shapes = [[(n, p.shape) for n, p in m.module.named_parameters()] for m in (one, other)]
    assert shapes[0] != shapes[1] or one.module.blocks[0].heads != other.module.blocks[0].heads


# -- writing ---------------------------------------------------------------------------------------------------------


def test_random_weights_write_whole_bars() -> None:
    learner = model(1)
    with torch.no_grad():
        for weight in learner.module.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    for freely in (0.0, 1.0, 4.0):
        how = TuneOptions(temperature=freely, top_p=1.0)
        for made in write(learner, [Wish(0, how, {"metre": "6/8"}, k) for k in range(4)]):
            tune = made.tune("")
            assert bars_of(tune).wrong == 0
            assert len(made.words) <= 160
            assert math.isfinite(made.logprob)
    loose = write(learner, [Wish(0, TuneOptions(whole_bars=False), {"metre": "6/8"}, k) for k in range(4)])
    assert sum(bars_of(made.tune("")).wrong for made in loose) > 0, "the mask is what keeps them whole"


def counted(made: Written) -> Grammar:
    """The grammar after all words but the end."""
    grammar = Grammar()
    for word in [*(word_of(kind, value) for kind, value in made.told.items()), *made.words[:-1]]:
        grammar.put(word)
    return grammar


@pytest.mark.parametrize("asked", [4, 12])
def test_as_many_bars_are_written_as_are_asked_for(taught: AbcLM, asked: int) -> None:
    """Whatever the weights: random ones, and taught ones whose tunes had eight. Pickups are not counted, and no tune
    ends within a first ending."""
    for learner in (model(1), taught):
        wishes = [Wish(0, TuneOptions(temperature=2.0), {"metre": "3/8", "bars": asked}, k) for k in range(12)]
        whole = [made for made in write(learner, wishes) if not made.is_cut]
        assert len(whole) >= 6
        for made in whole:
            grammar = counted(made)
            assert (grammar.bars, grammar.wrong, grammar.is_first_ending) == (asked, 0, False)
            assert made.words[-1] == END


def test_a_melody_that_is_gone_on_from_ends_with_the_bar_that_is_asked_for(taught: AbcLM) -> None:
    asked = Request(messages=(user(""),), seed=3, options={"melody": STEPS, "keep": 0.25, "bars": 8})
    (wish,) = _wishes(asked)
    assert len(wish.script.bars) == 2
    assert counted(write(taught, [wish])[0]).bars == 8


def test_unwrapped_layers_do_what_the_network_does_and_adapters_stay() -> None:
    class Louder(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * super().forward(x)

    net = model(1).module
    asked = (torch.arange(6), [torch.zeros(6, dtype=torch.long)] * len(KNOWN), torch.arange(6), None)
    attend = end_to_end([6], torch.device("cpu"))
    plain = net(*asked, attend)
    torch.testing.assert_close(unwrapped(net)(*asked, attend), plain)
    net.blocks[0].up = Louder(*reversed(net.blocks[0].up.weight.shape))
    torch.testing.assert_close(unwrapped(net)(*asked, attend), net(*asked, attend))
    assert not torch.allclose(net(*asked, attend), plain)


def test_what_is_written_is_as_likely_as_all_places_at_once_say(taught: AbcLM) -> None:
    """The cache, a word at a time, beside the whole tune in one pass under the same mask."""
    told = {"rhythm": "jig", "metre": "6/8", "mode": "major", "tonic": 7, "region": "Ireland", "bars": 16}
    for made in write(taught, [Wish(0, TuneOptions(temperature=0.7), told, k) for k in range(2)]):
        words = [word_of(kind, value) for kind, value in told.items()] + made.words[: made.chosen]
        grammar, known, masks = Grammar(asked=16), [], []
        for word in words:
            known.append(grammar.known)
            masks.append(grammar.allowed)
            grammar.put(word)
        row = {"tokens": [WORDS, *words[:-1]], "targets": words}
        row |= {name: [one[place] for one in known] for place, name in enumerate(KNOWN)}
        with taught.answering():
            logits = taught._logits(packed([row]))
        chances = logits.masked_fill(~torch.from_numpy(np.stack(masks)), -math.inf).log_softmax(-1)
        likely = chances[range(6, len(words)), words[6:]]
        if not made.is_cut:
            assert float(likely.sum()) == pytest.approx(made.logprob, abs=1e-3)


def test_seeds_reproduce_and_many_are_answered_as_one_is(taught: AbcLM) -> None:
    first = texts(ask(taught, n=3))
    assert texts(ask(taught, n=3)) == first
    assert len(set(first)) > 1
    assert texts(ask(taught, seed=6))[0].splitlines()[1:] == first[1].splitlines()[1:]
    asked = [Request(messages=(user(words),), seed=seed, options={"n": n})
             for words, seed, n in (("a jig in G", 5, 3), ("a reel in D, 4/4", 2, 1))]  # fmt: skip
    found = dict(taught.generate_many(asked))
    for index, request in enumerate(asked):
        assert texts(list(found[index].parts)) == texts(list(taught.generate(request)))


def test_what_is_asked_for_is_told(taught: AbcLM) -> None:
    (part, end) = ask(taught, "a reel in E dorian, 2/2, from Scotland, 16 bars")
    told = part.meta["told"]
    assert told == {"rhythm": "reel", "metre": "2/2", "mode": "dorian", "tonic": 4, "region": "Scotland", "bars": 16}
    assert "R:reel\nO:Scotland\nN:Generated by AI\nM:2/2\nL:1/8\nK:E dor\n" in part.text
    assert end.meta == {"finish_reason": "stop"}
    (part, _) = ask(taught, "a reel in E dorian", key="Bb", rhythm="jig")
    assert (part.meta["told"]["rhythm"], part.meta["told"]["tonic"]) == ("jig", 10), "options go before words"


def test_a_melody_is_gone_on_from_and_varied(taught: AbcLM) -> None:
    bars = [line for line in KESH.splitlines() if "|" in line]
    (part, _) = ask(taught, "", melody=KESH, keep=0.5)
    assert read_tune(part.text).events[:24] == read_tune(KESH).events[:24]
    (part, _) = ask(taught, "", melody=KESH, use="vary", keep=0.6)
    theirs, ours = read_tune(KESH), read_tune(part.text)
    assert bars_of(ours).all == bars_of(theirs).all
    assert bars_of(ours).wrong == 0
    assert ours.events != theirs.events
    assert texts(ask(taught, "", melody=KESH, use="vary", keep=1.0))[0].splitlines()[8:] == bars
    (part, _) = ask(taught, "in D major", melody=KESH, use="vary", keep=1.0)
    apart = {b.midi - a.midi for a, b in zip(theirs.notes, read_tune(part.text).notes, strict=True)}
    assert apart == {-5}, "in another key where one is asked for"


OPTIONS: dict[str, Any] = {
    "n": 2, "temperature": 0.0, "top_p": 0.05, "whole_bars": False, "key": "F", "metre": "9/8", "rhythm": "reel",
    "region": "China", "bars": 48, "melody": STEPS, "title": "A title",
}  # fmt: skip
PLAYED = {"tempo": 60, "instrument": 40, "chords": True}


@pytest.mark.parametrize("key", list(OPTIONS))
def test_every_option_of_a_request_changes_what_comes(key: str, taught: AbcLM) -> None:
    plain = {"temperature": 1.5, "top_p": 1.0}
    before, after = (texts(ask(taught, "a jig in G, 6/8", **{**plain, **more})) for more in ({}, {key: OPTIONS[key]}))
    assert before != after
    elsewhere = {"engrave", "lyrics", "speaker", "voice", "speed", "fastest", "duck"}  # test_compose, test_reciting
    assert set(OPTIONS) | set(PLAYED) | {"use", "keep"} | elsewhere == set(TuneOptions.model_fields)


@pytest.mark.parametrize("options", [
    {"n": 0}, {"n": 65}, {"temperature": -1}, {"top_p": 0}, {"key": "H"}, {"metre": "7/8"}, {"rhythm": "tango"},
    {"region": "Mars"}, {"bars": 1}, {"melody": "no tune"}, {"use": "copy"}, {"keep": 2}, {"tempo": 5},
    {"instrument": 128},
    {"steps": 3}, {"title": "x" * 200},
])  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        ask(model(), **options)


def test_what_cannot_be_composed_is_said(tmp_path: Path) -> None:
    from genwright.core import Part

    with pytest.raises(UsageError, match="no words"):
        ask(model(), "  ")
    with pytest.raises(UsageError, match="kind image"):
        list(model().generate(Request(messages=(user("a hat", Part("image", path=tmp_path / "a.png")),))))


def test_notation_is_written_where_a_file_is_named(taught: AbcLM, tmp_path: Path) -> None:
    for name, begins in (("a.abc", b"X:1"), ("a.mid", b"MThd"), ("a.musicxml", b"<?xml")):
        parts = [part for part in ask(taught, out=tmp_path / name) if part.path]
        assert [part.path.name for part in parts] == [name]
        assert parts[0].path.read_bytes().startswith(begins)


# -- judging and keeping ---------------------------------------------------------------------------------------------


def test_metrics_tell_a_copy_from_a_tune_and_a_tune_from_noise() -> None:
    from genwright.core import assistant

    train, held = rows()[:6], rows()[6:]
    noise = [assistant("X:1\nM:6/8\nL:1/8\nK:C\nC7|_d^f3|z=b9||\n") for _ in held]
    pairs = {name: [Judged(row, answer) for row, answer in zip(held, answers, strict=True)] for name, answers in (
        ("true", [row.answer for row in held]), ("copied", [row.answer for row in train]), ("noise", noise),
        ("words", [assistant("sorry")] * 6))}  # fmt: skip
    got = {name: (
        bar_validity.score(some, None, bootstrap=20).value,
        copied_tunes.score(some, copied_tunes.Settings(), train=train, bootstrap=20).value,
        tune_adherence.score(some, None, train=rows(), bootstrap=20).value,
    ) for name, some in pairs.items()}  # fmt: skip
    assert got["true"][:2] == (1.0, 0.0)
    assert got["copied"][:2] == (1.0, 1.0), "in another key it is a copy all the same"
    assert got["noise"][0] < 0.5
    assert got["words"] == (0.0, 0.0, 0.0)
    assert got["true"][2] > 0.9 > got["copied"][2]
    near, far = (tune_likeness.score(pairs[name], None) for name in ("true", "noise"))
    assert near.value == pytest.approx(0, abs=1e-9)
    assert far.value > 0.3
    with pytest.raises(UsageError, match="No answer"):
        tune_likeness.score(pairs["words"], None)
    fewer = copied_tunes.score(pairs["copied"], copied_tunes.Settings(n=60), train=train, bootstrap=20)
    assert fewer.details["runs"] < 6 * 100
    assert "n:60" in fewer.signature


def test_what_is_saved_answers_the_same_and_what_is_not_ours_is_refused(taught: AbcLM, tmp_path: Path) -> None:
    taught.save(tmp_path)
    again = abc_lm.load(tmp_path, abc_lm.Settings())
    assert digest(again.module) == digest(taught.module)
    assert texts(ask(again)) == texts(ask(taught))
    with pytest.raises(UsageError, match="not both"):
        abc_lm.load(tmp_path, abc_lm.Settings(config=AbcConfig(**CONFIG)))
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("abc_lm", "svg_lm"))
    with pytest.raises(ModelError, match="another kind"):
        abc_lm.load(tmp_path, abc_lm.Settings())
