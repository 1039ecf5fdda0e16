"""The style-based generator: two players in one loop, bit-equal after a kill; seeds, truncation, mixing, leading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from genwright.core import (
    Batched,
    Dataset,
    Example,
    Learner,
    ModelError,
    Part,
    Recipe,
    Request,
    Run,
    UsageError,
    choose,
    user,
)
from genwright.core.model import Unlearnable
from genwright.core.recipe import Train
from genwright.engines import style_gan
from genwright.nn.adversarial import Game, play, sliced_distance
from genwright.nn.loop import fit
from genwright.nn.style_gan import StyleGan
from genwright.nn.style_options import StyleConfig, StyleOptions

from .shapes import SIZE, rows
from .tiny import Log, digest, goes_on_bit_equal

CONFIG: dict[str, Any] = {"size": SIZE, "width": 16, "capacity": 192, "latent": 16, "mapping": 2, "noise": True,
                          "text_encoder": "learned", "words": 256}  # fmt: skip
TRAIN = Train(rows_per_batch=16, tokens_per_pass=64, learning_rate=2e-3, max_steps=6, ema=0.9, dtype="float32",
              clip=None, threads=1, checkpoint_every=2, optimizer="adam", betas=(0.0, 0.99))  # fmt: skip


def model(seed: int = 0, **changes: Any) -> StyleGan:
    return StyleGan(StyleConfig(**{**CONFIG, **changes}), seed=seed)


def teach(folder: Path, learner: StyleGan, train: list[Example], held_out: list[Example], *, objective: Any = None,
          **changes: Any) -> Log:  # fmt: skip
    log = Log(folder)
    learner.survey(train)
    learner.module.requires_grad_(True)
    fit(learner, Dataset(train), Dataset(held_out), objective=objective or choose("objectives", "adversarial"),
        settings=TRAIN.model_copy(update=changes), seed=3, folder=folder, log=log)  # fmt: skip
    return log


def ask(learner: StyleGan, words: str = "a red circle", *more: Part, out: Path | None = None, seed: int | None = 5,
        **options: Any) -> list[Part]:  # fmt: skip
    asked = Request(messages=(user(words, *more),), seed=seed, options={"snap": 0.0, **options}, out=out)
    return [part for part in learner.generate(asked) if part.path]


def pixels(part: Part) -> np.ndarray:
    return np.asarray(Image.open(part.path)).astype(int)


def same(one: Part, other: Part) -> bool:
    return bool(abs(pixels(one) - pixels(other)).max() <= 1)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> StyleGan:
    """A model that has learned a little: enough to answer differently to different questions."""
    folder = tmp_path_factory.mktemp("taught")
    learner = model()
    teach(folder / "run", learner, rows(folder / "p"), [], max_steps=60)
    return learner


def batch_of(learner: StyleGan, some: list[Example]) -> Any:
    return learner.collate([learner.encode(row) for row in some])


# -- the game --------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contracts() -> None:
    assert isinstance(model(), Learner)
    assert isinstance(model(), Batched)


def test_each_player_gets_the_gradient_of_its_own_loss_and_no_other(tmp_path: Path) -> None:
    """The one sum against two losses written out, each with the other player held still."""
    learner, some = model(), rows(tmp_path)[:6]
    net = learner.module.train()
    batch = batch_of(learner, some)
    play(learner.game(batch), penalty=2.0, penalised=1.0)[0].backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    game, every = learner.game(batch), torch.arange(6)
    true, fake = game.true.clone().requires_grad_(), game.painted.detach().requires_grad_()
    t, f = game.judge(true, every), game.judge(fake, every)
    slopes = torch.autograd.grad(t.sum() + f.sum(), [true, fake], create_graph=True)
    critic = F.softplus(f - t).sum() + sum(slope.square().sum() for slope in slopes)
    painter = F.softplus(game.judge(game.true, every) - game.judge(game.painted, every)).sum()
    for player, loss in ((net.discriminator, critic), (net.generator, painter)):
        named = dict(player.named_parameters())
        kind = "generator" if player is net.generator else "discriminator"
        wanted = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        assert any(grad.abs().max() > 0 for grad in wanted if grad is not None)
        for name, grad in zip(named, wanted, strict=True):
            expected = torch.zeros_like(named[name]) if grad is None else grad
            torch.testing.assert_close(found[f"{kind}.{name}"], expected, rtol=1e-3, atol=1e-5)


def test_the_penalty_of_a_share_is_that_of_all_on_average() -> None:
    torch.manual_seed(0)
    weight = torch.randn(12)
    true, painted = torch.randn(2, 4000, 12)
    losses = {}
    for share in (0.25, 1.0):
        game = Game(true, painted, lambda x, _: torch.tanh(x @ weight), torch.rand(4000))
        total, figures = play(game, penalty=1.0, penalised=share)
        losses[share] = float(total.detach())
        assert figures["critic"] + figures["painter"] > 1.3
    without = float(play(game, penalty=0.0, penalised=1.0)[0].detach())
    assert losses[1.0] - without > 100
    assert (losses[0.25] - without) / (losses[1.0] - without) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("per_pass", [16, 64])
def test_passes_of_any_size_make_the_same_step(per_pass: int, tmp_path: Path) -> None:
    """A slot is 64 pixels: 4 or 16 pictures a pass."""
    weights = []
    for slots in (256, per_pass):
        learner = model()
        log = teach(tmp_path / f"{slots}-{per_pass}", learner, rows(tmp_path / "p"), [], max_steps=2,
                    tokens_per_pass=slots, optimizer="sgd", momentum=0.0)  # fmt: skip
        weights.append(torch.cat([p.detach().flatten() for p in learner.module.parameters()]))
    assert [event["passes"] for event in log["step"]] == [16 * 4 // per_pass] * 2
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)


def test_a_killed_run_goes_on_bit_equal(tmp_path: Path) -> None:
    train, held_out = rows(tmp_path / "p")[:-8], rows(tmp_path / "p")[-8:]

    def taught(name: str, learner: StyleGan) -> Log:
        return teach(tmp_path / name, learner, train, held_out, tokens_per_pass=32)

    log = goes_on_bit_equal(taught, model(), model(), model(seed=9), dies_in="game")
    assert {"critic", "painter", "told_apart", "slope_true", "slope_painted"} == set(log["step"][0]["figures"])


def test_a_few_pictures_are_learned_by_heart(tmp_path: Path) -> None:
    """What is painted for their words comes near them, nearer than their mean does; both players' losses move."""
    train = rows(tmp_path / "p")[:8:2]
    objective = choose(
        "objectives", {"name": "adversarial", "augment": 0.0, "mixing": 0.0, "untold": 0.0, "penalty": 0.3}
    )
    learner = model(size=8, width=24)
    log = teach(tmp_path / "run", learner, train, train, objective=objective, max_steps=250, rows_per_batch=4,
                warmup=10, ema=0.97, checkpoint_every=250, evaluate_every=250, learning_rate=4e-3)  # fmt: skip
    true = np.stack([learner.encode(row).sequences[0]["pixels"].astype(int) for row in train])
    made = np.stack([pixels(ask(learner, row.prompt[0].text, style="filled")[0]) for row in train])
    error, of_mean = (np.square(guess - true).mean() for guess in (made, true.mean(0)))
    assert error < 0.7 * of_mean, (error, of_mean)
    looks = [event["held_out_loss"] for event in log["look"]]
    assert looks[-1] < 0.5 * looks[0]


@pytest.mark.parametrize("change", [
    {"penalty": 0.0}, {"penalty": 3.0}, {"penalised": 1.0}, {"mixing": 0.0}, {"untold": 0.7}, {"augment": 0.0},
])  # fmt: skip
def test_every_key_of_the_objective_changes_the_loss(tmp_path: Path, change: dict[str, Any], taught: StyleGan) -> None:
    batch = batch_of(taught, rows(tmp_path))
    taught.module.train()
    found = [choose("objectives", {"name": "adversarial", **options})(taught, batch) for options in ({}, change)]
    taught.module.eval()
    assert [one.weight for one in found] == [len(batch)] * 2
    assert float(found[0].total.detach()) != pytest.approx(float(found[1].total.detach()), rel=1e-5)


def test_a_look_measures_how_far_what_is_painted_lies_from_what_is_true(tmp_path: Path, taught: StyleGan) -> None:
    objective, train = choose("objectives", "adversarial"), rows(tmp_path)
    with torch.no_grad():
        losses = [objective(one, batch_of(one, train)) for one in (model(), taught)]
    assert losses[1].total < losses[0].total
    x, y = torch.rand(2, 30, 3, 16, 16)
    assert sliced_distance(x, x.flip(0)) == 0
    assert sliced_distance(x, y) < 0.6 * sliced_distance(x, 1 - y.square())


def test_an_objective_that_does_not_fit_says_so(tmp_path: Path, taught: StyleGan) -> None:
    from .shapes import model as flow

    batch = batch_of(taught, rows(tmp_path)[:2])
    with pytest.raises(UsageError, match="another objective"):
        choose("objectives", "flow")(taught, batch)
    with pytest.raises(UsageError, match="no two players"):
        choose("objectives", "adversarial")(flow(), batch)


def test_rows_without_words_teach_too(tmp_path: Path) -> None:
    learner, row = model(), rows(tmp_path)[0]
    bare = Example((user(" "), row.answer))
    encoded = learner.encode(bare)
    assert (encoded.size, encoded.weight) == (4, 1.0)
    assert not learner.collate([encoded]).pictures.captions.any()
    told = learner.module.generator.told
    blank, untold = torch.zeros(1, 3, dtype=torch.int32), torch.ones(1, 3, dtype=torch.int32)
    nothing, style = torch.zeros(1, dtype=torch.bool), torch.zeros(1, dtype=torch.long)
    assert torch.equal(told(blank, nothing, style), told(untold, ~nothing, style))
    with pytest.raises(Unlearnable, match="holds no picture"):
        learner.encode(Example((user("a hat"), user("a hat"))))


CHANGES = {"size": 32, "width": 8, "capacity": 128, "latent": 24, "mapping": 3, "noise": False,
           "text_encoder": "usem3", "words": 64}  # fmt: skip


@pytest.mark.parametrize("key", list(StyleConfig.model_fields))
def test_every_key_of_the_config_changes_the_network(key: str) -> None:
    shapes = [[(n, p.shape) for n, p in m.module.named_parameters()] for m in (model(), model(**{key: CHANGES[key]}))]
    assert shapes[0] != shapes[1]


def test_bad_configs_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="no power of two"):
        StyleConfig(size=48)
    with pytest.raises(UsageError, match="source, or a config"):
        style_gan.load(None, style_gan.Settings())
    kinds = [style_gan.load(None, style_gan.Settings(config=CONFIG, dtype=d)).dtype for d in ("float32", "bfloat16")]
    assert kinds == [torch.float32, torch.bfloat16]


# -- painting --------------------------------------------------------------------------------------------------------


def test_seeds_reproduce_bytes(taught: StyleGan, tmp_path: Path) -> None:
    first, again = (ask(taught, n=2, out=tmp_path / name) for name in ("a.png", "b.png"))
    assert [p.path.name for p in first] == ["a-1.png", "a-2.png"]
    assert [p.path.read_bytes() for p in first] == [p.path.read_bytes() for p in again]
    assert [p.meta["seed"] for p in first] == [5, 6]
    assert not same(first[0], first[1])
    assert same(ask(taught, seed=6)[0], first[1])
    unseeded = ask(taught, seed=None)[0]
    assert same(ask(taught, seed=unseeded.meta["seed"])[0], unseeded)


def test_many_are_answered_as_one_is(taught: StyleGan, tmp_path: Path) -> None:
    asked = [
        Request(messages=(user(words),), seed=seed, options={"snap": 0, **options}, out=tmp_path / f"{seed}.png")
        for words, seed, options in (
            ("a red circle", 1, {}), ("a blue bar", 2, {"n": 3, "toward_seed": 9}),
            ("", 3, {"mix_seed": 4, "mix_from": 0}),
        )
    ]  # fmt: skip
    found = dict(taught.generate_many(asked))
    assert sorted(found) == [0, 1, 2]
    for index, request in enumerate(asked):
        one = [p for p in taught.generate(request.model_copy(update={"out": None})) if p.path]
        assert len(one) == len(found[index].parts) == request.options.get("n", 1)
        assert all(same(a, b) for a, b in zip(one, found[index].parts, strict=True))


OPTIONS: dict[str, Any] = {"n": 3, "design": {"kind": "pattern", "width": 32}, "size": 40, "style": "hollow",
                           "truncation": 0.1, "mix_seed": 8, "mix_from": 4,
                           "toward": "a blue bar", "toward_seed": 77, "snap": 0.9}  # fmt: skip


@pytest.mark.parametrize("key", list(StyleOptions.model_fields))
def test_every_option_of_a_request_changes_what_comes(key: str, taught: StyleGan) -> None:
    more = {"n": 2} if key in ("toward", "toward_seed") else {"mix_seed": 8} if key == "mix_from" else {}
    before, after = (ask(taught, "a red circle", **{**more, **o}) for o in ({}, {key: OPTIONS[key]}))
    shapes = [[pixels(p).shape for p in parts] for parts in (before, after)]
    assert shapes[0] != shapes[1] or any((pixels(a) != pixels(b)).any() for a, b in zip(before, after, strict=True))


def test_without_truncation_seeds_differ_and_at_0_there_is_one_picture_for_the_words(taught: StyleGan) -> None:
    made = {t: ask(taught, n=4, truncation=t) for t in (0.0, 0.5, 1.0)}
    assert all(same(made[0.0][0], one) for one in made[0.0])
    spread = {t: np.stack([pixels(p) for p in parts]).std(0).mean() for t, parts in made.items()}
    assert spread[0.0] < spread[0.5] < spread[1.0]
    assert not same(made[0.0][0], ask(taught, "a blue bar", truncation=0.0)[0]), "other words have another mean"


def test_mixing_changes_only_the_layers_that_it_should(taught: StyleGan) -> None:
    layers = taught.config.layers
    one, other = ask(taught, seed=5)[0], ask(taught, seed=8)[0]
    assert same(ask(taught, mix_seed=8, mix_from=layers)[0], one), "no layer left to the second seed"
    assert same(ask(taught, mix_seed=8, mix_from=0)[0], other), "every layer is the second seed's"
    seen: list[list[torch.Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: seen[-1].append(out)) for layer in taught.module.generator.layers
    ]
    for options in ({}, {"mix_seed": 8, "mix_from": 3}):
        seen.append([])
        ask(taught, **options)
    for hook in hooks:
        hook.remove()
    equal = [torch.equal(a, b) for a, b in zip(*seen, strict=True)]
    assert equal == [True] * 3 + [False] * (layers - 3)


def test_pictures_lead_from_one_prompt_or_seed_to_the_other(taught: StyleGan) -> None:
    for options, end in (
        ({"toward": "a blue bar"}, ask(taught, "a blue bar")[0]), ({"toward_seed": 77}, ask(taught, seed=77)[0]),
    ):  # fmt: skip
        first, middle, last = ask(taught, n=3, **options)
        assert same(first, ask(taught)[0])
        assert same(last, end)
        assert not same(middle, first)
        assert not same(middle, last)
        assert {p.meta["seed"] for p in (first, middle, last)} == {5}


@pytest.mark.parametrize(("options", "why"), [
    ({"truncatoin": 1}, "Did you mean 'truncation'"), ({"style": "fild"}, "'filled'"), ({"n": 0}, "equal to 1"),
    ({"mix_from": 2}, "needs mix_seed"), ({"mix_seed": 1, "mix_from": 9}, "has 5 layers"), ({"truncation": -1}, "to 0"),
    ({"size": 100_000}, "4096"), ({"toward": "y" * 10_001}, "10000"),
])  # fmt: skip
def test_what_cannot_be_painted_is_said(options: dict[str, Any], why: str, taught: StyleGan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=why):
        ask(taught, **options)
    with pytest.raises(UsageError, match="not from a picture"):
        ask(taught, "x", Part("image", path=rows(tmp_path)[0].answer.parts[0].path))


def test_bfloat16_paints_nearly_the_same(taught: StyleGan) -> None:
    plain = pixels(ask(taught)[0])
    taught.dtype = torch.bfloat16
    cast = pixels(ask(taught)[0])
    taught.dtype = torch.float32
    assert 0 < abs(plain - cast).mean() < 3


# -- keeping ---------------------------------------------------------------------------------------------------------


def test_a_saved_model_paints_the_same_and_learns_on_with_or_without_its_opponent(
    taught: StyleGan, tmp_path: Path
) -> None:
    taught.save(tmp_path / "m")
    settings = style_gan.Settings(dtype="float32")
    again = style_gan.load(tmp_path / "m", settings)
    assert digest(again.module) == digest(taught.module)
    assert again.styles == taught.styles == ("filled", "hollow")
    assert not again.notes
    (tmp_path / "m" / "discriminator.safetensors").unlink()
    alone = style_gan.load(tmp_path / "m", settings, seed=4)
    assert "without its discriminator" in alone.notes[0]
    assert same(ask(alone)[0], ask(taught)[0])
    train = [Example(row.messages, {**row.meta, "style": "new"}) for row in rows(tmp_path / "p")[:4]]
    alone.survey(train)
    assert alone.styles == ("filled", "hollow", "new")
    assert torch.equal(alone.module.generator.told.styles.weight[:3], taught.module.generator.told.styles.weight)
    teach(tmp_path / "run", alone, train, [], max_steps=1)


def test_what_is_no_model_of_ours_is_said(taught: StyleGan, tmp_path: Path) -> None:
    taught.save(tmp_path / "m")
    with pytest.raises(UsageError, match="not both"):
        style_gan.load(tmp_path / "m", style_gan.Settings(config=StyleConfig()))
    config = tmp_path / "m" / "config.json"
    right = config.read_text()
    for wrong, why in (('"latent": 16', '"latent": 32'), ('"style_gan"', '"bert"'), ('"size": 16', '"size": 17')):
        config.write_text(right.replace(wrong, why))
        with pytest.raises(ModelError):
            style_gan.load(tmp_path / "m", style_gan.Settings())


def test_untuned_is_as_it_was(tmp_path: Path) -> None:
    learner, train = model(), rows(tmp_path / "p")
    learner.survey(train)
    learner.keep_base()
    before = digest(learner.module)
    teach(tmp_path / "run", learner, train, [], max_steps=1)
    assert digest(learner.module) != before
    with learner.untuned():
        assert digest(learner.module) == before


def test_an_export_holds_what_paints_and_leaves_the_opponent_with_the_run(taught: StyleGan, tmp_path: Path) -> None:
    model = {"engine": "style_gan", "config": CONFIG}
    data = {"source": "image_folder", "path": "p"}
    recipe = Recipe.from_dict({"data": data, "task": "text_to_image", "model": model, "objective": "adversarial"})
    run = Run.create(recipe, tmp_path / "run")
    taught.save(run.model)
    assert (run.model / "discriminator.safetensors").is_file()
    choose("formats", "safetensors")(run, tmp_path / "out")
    assert not (tmp_path / "out" / "discriminator.safetensors").exists()
    alone = style_gan.load(tmp_path / "out", style_gan.Settings(dtype="float32"))
    assert same(ask(alone)[0], ask(taught)[0])
