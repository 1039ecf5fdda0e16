"""The picture learner: learns by the one loop, goes on bit-equal, paints the same bytes, keeps what must stay."""

from __future__ import annotations

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
    Learner,
    Measurer,
    Part,
    Request,
    UsageError,
    assistant,
    choose,
    user,
)
from genwright.core.model import Unlearnable
from genwright.core.recipe import Train
from genwright.engines import flow_image
from genwright.nn import painting
from genwright.nn.dit import joined, parted, patchify, unpatchify
from genwright.nn.flow import FlowImage
from genwright.nn.flow_options import FlowConfig, PictureOptions
from genwright.nn.int8 import Int8Linear
from genwright.nn.loop import fit
from genwright.nn.pixels import augmented, from_bytes, noise_of, to_bytes
from genwright.nn.told import told_of

from .shapes import CONFIG, SIZE, drawn, model, rows
from .tiny import Log, digest, goes_on_bit_equal

TRAIN = Train(rows_per_batch=16, tokens_per_pass=256, learning_rate=3e-3, max_steps=12, ema=0.9, dtype="float32",
              threads=1, checkpoint_every=4, betas=(0.9, 0.95))  # fmt: skip
UNSEEN = (("red", "bar"), ("green", "circle"), ("black", "cross"))


def teach(folder: Path, learner: FlowImage, train: list[Example], held_out: list[Example], *, objective: Any = None,
          **changes: Any) -> Log:  # fmt: skip
    log = Log(folder)
    learner.survey(train)
    learner.module.requires_grad_(True)
    fit(learner, Dataset(train), Dataset(held_out), objective=objective or choose("objectives", "flow"),
        settings=TRAIN.model_copy(update=changes), seed=3, folder=folder, log=log)  # fmt: skip
    return log


def ask(learner: Any, words: str = "a red circle", *more: Part, out: Path | None = None, seed: int = 5, **options: Any):
    asked = Request(messages=(user(words, *more),), seed=seed, options={"steps": 4, **options}, out=out)
    return [part for part in learner.generate(asked) if part.path]


def pixels(part: Part) -> np.ndarray:
    return np.asarray(Image.open(part.path))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> FlowImage:
    """A model that has learned a little: enough to answer differently to different questions."""
    folder = tmp_path_factory.mktemp("taught")
    learner = model()
    teach(folder / "run", learner, rows(folder / "p"), [], max_steps=300)
    return learner


# -- learning --------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contracts() -> None:
    assert isinstance(model(), Learner)
    assert isinstance(model(), Batched)
    assert isinstance(model(), Measurer)


def test_a_row_is_a_picture_with_all_its_captions_and_its_style(tmp_path: Path) -> None:
    learner, train = model(), rows(tmp_path)
    learner.survey(train)
    assert learner.styles == ("filled", "hollow")
    encoded = learner.encode(train[1])
    (sequence,) = encoded.sequences
    assert (encoded.size, encoded.weight) == (16, 1.0)
    assert (sequence["pixels"] == drawn("red", "circle", "hollow")).all()
    assert len(sequence["captions"]) == 3
    assert sequence["style"] == 2


def test_rows_that_teach_nothing_say_why(tmp_path: Path) -> None:
    learner, row = model(), rows(tmp_path)[0]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    wrong = {
        "holds no picture": Example((user("a hat"), assistant("a hat"))),
        "has no caption": Example((user(" "), row.answer)),
        "cannot be read": Example((user("a hat"), assistant(Part("image", path=tmp_path / "broken.png")))),
    }
    for why, example in wrong.items():
        with pytest.raises(Unlearnable, match=why):
            learner.encode(example)


def test_a_style_that_was_never_learned_is_any_style(tmp_path: Path) -> None:
    """So a model can be measured on rows of other styles; only who asks for one is told that it is not there."""
    learner, row = model(), rows(tmp_path)[0]
    assert learner.encode(row).sequences[0]["style"] == 0
    assert learner.options_of(row) == {}
    learner.survey([row])
    assert learner.encode(row).sequences[0]["style"] == 1
    assert learner.options_of(row) == {"style": "filled"}
    assert len(list(model().measure([row]))) == 1


def test_each_picture_meets_all_its_captions(tmp_path: Path) -> None:
    learner, row = model(), rows(tmp_path)[0]
    learner.survey([row])
    item = learner.encode(row)
    torch.manual_seed(0)
    met = {tuple(learner.collate([item]).captions[0].tolist()) for _ in range(40)}
    assert len(met) == 3


def test_names_are_met_more_often_than_long_lists(tmp_path: Path) -> None:
    learner, row = model(), rows(tmp_path)[0]
    lists = [f"circle in red, {word}" for word in ("round", "shape", "sign", "ball", "dot", "disc")]
    row = Example(
        row.messages, {**row.meta, "captions": {"en": [*lists, "circle"], "zh": ["红色的圆", "红色的圆, 圆形"]}}
    )
    item = learner.encode(row)
    names = {tuple(line) for line in learner.reader(["a red circle", "circle", "红色的圆"]).tolist()}
    torch.manual_seed(0)
    met = [tuple(learner.collate([item]).captions[0].tolist()) for _ in range(400)]
    width = max(map(len, names))
    share = sum(tuple(one[:width]) in names for one in met) / len(met)
    assert 0.75 < share < 0.9, "three of four, and some by chance"
    assert len(set(met)) == 10, "the lists are met too"


def test_one_batch_is_learned_by_heart(tmp_path: Path) -> None:
    train = rows(tmp_path / "p")[:4]
    learner = model()
    first = None
    for steps in (1, 250):
        teach(tmp_path / str(steps), learner, train, [], max_steps=steps, rows_per_batch=4, warmup=10, ema=None)
        measured = [sum(errors.values()) for errors in learner.measure(train)]
        first = first or measured
    assert sum(measured) < 0.1 * sum(first)


def test_a_killed_run_goes_on_bit_equal(tmp_path: Path) -> None:
    train, held_out = rows(tmp_path / "p", without=UNSEEN), rows(tmp_path / "p", without=UNSEEN, only=True)
    objective = choose("objectives", {"name": "flow", "augment": 0.5})

    def taught(name: str, learner: FlowImage) -> Log:
        return teach(tmp_path / name, learner, train, held_out, objective=objective)

    goes_on_bit_equal(taught, model(), model(), model(seed=9), resumes=4)


def test_every_look_has_the_same_noise(tmp_path: Path) -> None:
    """With a learning rate of next to nothing the held-out loss does not move, however often it is looked at."""
    train = rows(tmp_path / "p")
    log = teach(tmp_path / "run", model(), train, train[:6], learning_rate=1e-12, max_steps=6, evaluate_every=1)
    losses = [event["held_out_loss"] for event in log["look"]]
    assert len(losses) == 7
    assert losses == pytest.approx([losses[0]] * 7, rel=1e-5)


@pytest.mark.parametrize("change", [
    {"time_mean": 1.5}, {"time_spread": 0.2}, {"smallest_time": 0.6}, {"untold": 0.6}, {"augment": 0.9},
])  # fmt: skip
def test_every_key_of_the_objective_changes_the_loss(tmp_path: Path, change: dict[str, Any], taught: FlowImage) -> None:
    batch = taught.collate([taught.encode(row) for row in rows(tmp_path)])
    found = []
    for options in ({}, change):
        taught.module.train()
        torch.manual_seed(0)
        loss = choose("objectives", {"name": "flow", **options})(taught, batch)
        assert loss.weight == len(batch)
        found.append(float(loss.total.detach()))
    taught.module.eval()
    assert found[0] != pytest.approx(found[1], rel=1e-4)


CHANGES = {"size": 24, "patch": 2, "width": 64, "depth": 3, "heads": 4, "mlp": 1.0, "text_encoder": "usem3",
           "words": 64, "text_tokens": 0, "head_channels": 0, "fine_width": 16, "fine_depth": 1}  # fmt: skip


@pytest.mark.parametrize("key", list(FlowConfig.model_fields))
def test_every_key_of_the_config_changes_the_network(key: str) -> None:
    fine = {"fine_width": 16} if key == "fine_depth" else {}
    one, other = model(**fine), model(**{**fine, key: CHANGES[key]})
    shapes = [[(n, p.shape) for n, p in m.module.named_parameters()] for m in (one, other)]
    heads = [m.module.blocks[0].heads for m in (one, other)]
    assert shapes[0] != shapes[1] or heads[0] != heads[1]


def test_an_hourglass_learns_by_heart_with_a_quarter_of_the_tokens_in_its_middle(tmp_path: Path) -> None:
    learner, some = model(fine_width=16, fine_depth=1), rows(tmp_path / "p")[:4]
    seen: list[int] = []
    learner.module.blocks[0].register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
    before = mean_error(learner, some)
    teach(tmp_path / "run", learner, some, [], max_steps=150, learning_rate=5e-3)
    after = mean_error(learner, some)
    assert set(seen) == {2 + (SIZE // 4) ** 2 // 4}, "two words and four patches to a token"
    assert after < 0.3 * before
    learner.dtype, learner._cast = torch.int8, None
    with learner.answering() as module:
        assert isinstance(module.fine.before[0].qkv, Int8Linear)


def mean_error(learner: FlowImage, some: list[Example]) -> float:
    return float(np.mean([error for row in learner.measure(some) for error in row.values()]))


def test_an_hourglass_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="even count"):
        model(size=12, fine_width=16)
    with pytest.raises(ValueError, match="heads of even width"):
        model(fine_width=15)


def test_neighbours_are_joined_and_parted_again() -> None:
    h = torch.arange(16.0).view(1, 16, 1).repeat(2, 1, 3)
    assert joined(h)[0, 1, ::3].tolist() == [2, 3, 6, 7], "two by two, as they lie"
    assert torch.equal(parted(joined(h)), h)


def test_dropout_is_the_recipes(tmp_path: Path) -> None:
    train = rows(tmp_path / "p")
    with_, without = (teach(tmp_path / str(p), model(), train, [], dropout=p) for p in (0.5, 0.0))
    assert with_.losses != without.losses


def test_what_was_changed_is_told() -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 3, 16, 16) * 2 - 1
    changed, told = augmented(x, 0.5)
    same = told.eq(0).all(1)
    assert 0 < same.sum() < 32
    torch.testing.assert_close(changed[same], x[same], rtol=0, atol=1e-5)
    assert ((changed - x).flatten(1).abs().amax(1) > 1e-3).equal(~same)
    assert torch.equal(augmented(x, 0.0)[1], torch.zeros(64, 5))


def test_patches_go_there_and_back() -> None:
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(unpatchify(patchify(x, 4), 4), x)


# -- painting --------------------------------------------------------------------------------------------------------


def test_seeds_reproduce_bytes(taught: FlowImage, tmp_path: Path) -> None:
    first, again = (ask(taught, n=2, out=tmp_path / name) for name in ("a.png", "b.png"))
    assert [p.path.name for p in first] == ["a-1.png", "a-2.png"]
    assert [p.path.read_bytes() for p in first] == [p.path.read_bytes() for p in again]
    assert [p.meta["seed"] for p in first] == [5, 6]
    assert not (pixels(first[0]) == pixels(first[1])).all()
    alone = ask(taught, seed=6)[0]
    assert abs(pixels(alone).astype(int) - pixels(first[1])).max() <= 1
    unseeded = ask(taught, seed=None)[0]
    assert (pixels(ask(taught, seed=unseeded.meta["seed"])[0]) == pixels(unseeded)).all()


def test_many_are_answered_as_one_is(taught: FlowImage, tmp_path: Path) -> None:
    asked = [
        Request(messages=(user(words),), seed=seed, options={"n": n, "steps": steps}, out=tmp_path / f"{seed}.png")
        for words, seed, n, steps in (("a red circle", 1, 1, 4), ("a blue bar", 2, 3, 4), ("a cross", 3, 1, 2))
    ]
    found = dict(taught.generate_many(asked))
    assert sorted(found) == [0, 1, 2]
    for index, request in enumerate(asked):
        one = [pixels(p) for p in taught.generate(request.model_copy(update={"out": None})) if p.path]
        many = [pixels(p) for p in found[index].parts]
        assert len(one) == len(many) == request.options["n"]
        assert max(abs(a.astype(int) - b).max() for a, b in zip(one, many, strict=True)) <= 1


OPTIONS: dict[str, Any] = {"n": 3, "size": 40, "style": "hollow", "negative": "red", "steps": 9, "sampler": "euler",
                           "guidance": 6.0, "interval": (0.0, 0.3), "snap": 0.5, "strength": 0.3,
                           "expand": (2, 2, 2, 2), "toward": "a blue bar", "partial": 2, "quality": 5,
                           "upscale": "fast", "design": {"kind": "pattern", "width": 32}, "candidates": 4}  # fmt: skip


def network_without_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a card's: bilinear interpolation in ncnn's form."""
    pytest.importorskip("ncnn")
    from genwright.media.enlarge import Network
    from genwright.nn import painting
    from tests.engines.test_upscale import BILINEAR

    (folder / "network.param").write_text(BILINEAR)
    (folder / "network.ncnn").write_bytes(b"")
    monkeypatch.setattr(painting, "network_of", lambda kind: Network(folder))


@pytest.mark.parametrize("key", list(PictureOptions.model_fields))
def test_every_option_of_a_request_changes_what_comes(
    key: str, taught: FlowImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key == "upscale":
        network_without_weights(tmp_path, monkeypatch)
    given = [Part("image", path=rows(tmp_path)[0].answer.parts[0].path)] if key in ("strength", "expand") else []
    more: dict[str, Any] = {"n": 2} if key == "toward" else {}
    more |= {"out": tmp_path / "a.jpg"} if key == "quality" else {}
    before, after = (
        [pixels(part) for part in ask(taught, "a red circle", *given, **more, **o)] for o in ({}, {key: OPTIONS[key]})
    )
    shapes = [[one.shape for one in found] for found in (before, after)]
    assert shapes[0] != shapes[1] or any((a != b).any() for a, b in zip(before, after, strict=True)), key


def test_of_candidates_the_one_that_its_words_explain_best_is_kept(taught: FlowImage, tmp_path: Path) -> None:
    """Asked of four seeds, it is one of the four pictures that these seeds give."""
    (kept,) = [pixels(part) for part in ask(taught, candidates=4)]
    alone = [pixels(ask(taught, seed=5 + turn * painting._APART)[0]) for turn in range(4)]
    assert sum((kept == one).all() for one in alone) == 1
    told = list(taught.generate(Request(messages=(user("a red circle"),), options={"candidates": 2, "steps": 3})))
    assert [(p.meta["progress"], p.meta["of"]) for p in told if "progress" in p.meta] == [(k, 6) for k in range(1, 7)]


def test_the_explained_candidate_is_the_right_one(taught: FlowImage, tmp_path: Path) -> None:
    """True pictures of four things as candidates for the words of one of them."""
    some = rows(tmp_path)[::8][:4]
    made = torch.stack([from_bytes(taught.collate([taught.encode(row)]).pixels) for row in some])
    hits = 0
    for number, row in enumerate(some):
        with taught.answering() as module, torch.no_grad():
            told = told_of(taught, module, [row.prompt[0].text], [0])
            best = painting._explained(module, made, told.beside(told_of(taught, module, [""], [0])))
        hits += bool((best[0] == made[number, 0]).all())
    assert hits >= 3


def test_steps_are_told_and_unfinished_pictures_shown(taught: FlowImage, tmp_path: Path) -> None:
    asked = Request(
        messages=(user("a red circle"),), seed=1, options={"steps": 6, "partial": 2}, out=tmp_path / "a.png"
    )
    parts = list(taught.generate(asked))
    assert [p.meta["progress"] for p in parts if "progress" in p.meta] == [1, 2, 3, 4, 5, 6]
    assert [p.path.name for p in parts if p.path] == ["a.step-2.png", "a.step-4.png", "a.png"]
    assert parts[-1].meta == {"finish_reason": "stop"}


def test_closing_stops_between_steps(taught: FlowImage) -> None:
    asked, calls = Request(messages=(user("a red circle"),), options={"steps": 50}), []
    with taught.answering() as module:
        handle = module.register_forward_hook(lambda *_: calls.append(1))
    stream = taught.generate(asked)
    next(stream)
    stream.close()
    handle.remove()
    assert len(calls) == 2, "one step of Heun"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_fewer_bits_paint_nearly_the_same(taught: FlowImage, dtype: torch.dtype) -> None:
    plain = ask(taught, steps=8, guidance=1.0)[0]
    taught.dtype, taught._cast = dtype, None
    cast = ask(taught, steps=8, guidance=1.0)[0]
    with taught.answering() as module:
        assert module is not taught.module
        layer = module.blocks[0].qkv
        assert isinstance(layer, Int8Linear) if dtype == torch.int8 else layer.weight.dtype == dtype
        kept = module
    with taught.answering() as module:
        assert module is kept, "cast once for these weights"
    with torch.no_grad():
        taught.module.out.bias.add_(0)
    with taught.answering() as module:
        assert module is not kept, "weights that changed are cast anew"
    taught.dtype, taught._cast = torch.float32, None
    difference = abs(pixels(plain).astype(int) - pixels(cast))
    assert difference.mean() < 2
    assert np.percentile(difference, 99) < 12


def test_white_is_snapped() -> None:
    x = torch.full((1, 3, 1, 2), 0.96)
    x[0, 0, 0, 1] = 0.8
    assert to_bytes(x, 0.03)[0].tolist() == [[[255] * 3, [230, 250, 250]]]
    assert to_bytes(x)[0, 0, 0].tolist() == [250] * 3


# -- pictures that are given -----------------------------------------------------------------------------------------


def test_a_variation_keeps_more_the_less_it_may_change(taught: FlowImage, tmp_path: Path) -> None:
    given = rows(tmp_path)[0].answer.parts[0]
    true = pixels(given).astype(int)
    errors = [abs(pixels(ask(taught, "", given, strength=s)[0]) - true).mean() for s in (0.05, 0.6, 1.0)]
    assert errors[0] < errors[1] < errors[2]


def test_outside_the_mask_every_pixel_stays(taught: FlowImage, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    free = np.zeros((40, 50), bool)
    free[10:25, 5:30] = True
    Image.fromarray(noise).save(tmp_path / "p.png")
    Image.fromarray(np.where(free, 255, 0).astype(np.uint8)).save(tmp_path / "m.png")
    parts = (Part("image", path=tmp_path / "p.png"), Part("image", "mask", tmp_path / "m.png"))
    (made,) = ask(taught, "a red circle", *parts)
    after = pixels(made)
    assert (after[~free] == noise[~free]).all()
    assert (after[free] != noise[free]).mean() > 0.5
    with pytest.raises(UsageError, match=r"would change in a \.jpg"):
        ask(taught, "a red circle", *parts, out=tmp_path / "x.jpg")
    with pytest.raises(UsageError, match="size of its own"):
        ask(taught, "a red circle", *parts, size=64)


def test_a_mixture_leads_from_one_to_the_other(taught: FlowImage, tmp_path: Path) -> None:
    some = rows(tmp_path)
    pair = [some[0].answer.parts[0], some[-1].answer.parts[0]]
    made = [pixels(p).astype(int) for p in ask(taught, "", *pair, n=3, strength=0.05)]
    for near, far, part in ((made[0], made[-1], pair[0]), (made[-1], made[0], pair[1])):
        assert abs(near - pixels(part)).mean() < 0.5 * abs(far - pixels(part)).mean()
    assert all(abs(made[1] - end).mean() > 5 for end in (made[0], made[-1]))


@pytest.mark.parametrize(("words", "options", "why"), [
    (" ", {}, "nothing to paint"), ("x", {"stpes": 3}, "Did you mean 'steps'"), ("x", {"style": "fild"}, "'filled'"),
    ("x", {"n": 0}, "greater than or equal to 1"), ("x", {"size": 100_000}, "4096"),
    ("x", {"interval": (0.9, 0.1)}, "smaller"), ("x", {"expand": (-1, 0, 0, 0)}, "expand"),
    ("x", {"expand": (1, 0, 0, 0)}, "one picture"),
    ("x", {"negative": "y" * 10_001}, "10000"),
])  # fmt: skip
def test_what_cannot_be_painted_is_said(words: str, options: dict[str, Any], why: str, taught: FlowImage) -> None:
    with pytest.raises(UsageError, match=why):
        ask(taught, words, **options)


def test_a_long_prompt_is_read_as_far_as_it_matters(taught: FlowImage) -> None:
    assert ask(taught, "a red circle " * 800)


# -- keeping ---------------------------------------------------------------------------------------------------------


def test_a_saved_model_paints_the_same_and_learns_on(taught: FlowImage, tmp_path: Path) -> None:
    taught.save(tmp_path / "m")
    again = flow_image.load(tmp_path / "m", flow_image.Settings(dtype="float32"))
    assert again.styles == taught.styles
    assert (pixels(ask(again)[0]) == pixels(ask(taught)[0])).all()
    train = [Example(row.messages, {**row.meta, "style": "new"}) for row in rows(tmp_path / "p")[:4]]
    again.survey(train)
    assert again.styles == ("filled", "hollow", "new")
    assert torch.equal(again.module.styles.weight[:3], taught.module.styles.weight)
    teach(tmp_path / "run", again, train, [], max_steps=1)


def test_an_adapter_learns_and_is_kept_in_the_weights(taught: FlowImage, tmp_path: Path) -> None:
    taught.save(tmp_path / "m")
    learner = flow_image.load(tmp_path / "m", flow_image.Settings(dtype="float32"))
    train = rows(tmp_path / "p")
    learner.survey(train)
    choose("methods", {"name": "lora", "rank": 2})(learner, seed=0)
    names = [name for name, p in learner.module.named_parameters() if p.requires_grad]
    assert names
    assert all("lora" in name for name in names)
    fit(learner, Dataset(train), Dataset(), objective=choose("objectives", "flow"), settings=TRAIN, seed=3,
        folder=tmp_path / "run")  # fmt: skip
    learner.save(tmp_path / "tuned")
    again, few = (flow_image.load(tmp_path / "tuned", flow_image.Settings(dtype=d)) for d in ("float32", "int8"))
    one, other, before, quick = (pixels(ask(m)[0]).astype(int) for m in (learner, again, taught, few))
    assert abs(one - other).max() <= 1
    learner.dtype, learner._cast = torch.int8, None
    assert abs(quick - pixels(ask(learner)[0])).mean() < 0.5, "the adapter answers too"
    assert abs(one - before).max() > 3


def test_what_is_no_model_of_ours_is_said(taught: FlowImage, tmp_path: Path) -> None:
    from genwright.core import ModelError

    with pytest.raises(UsageError, match="source, or a config"):
        flow_image.load(None, flow_image.Settings())
    taught.save(tmp_path / "m")
    with pytest.raises(UsageError, match="not both"):
        flow_image.load(tmp_path / "m", flow_image.Settings(config=FlowConfig()))
    config = tmp_path / "m" / "config.json"
    right = config.read_text()
    for wrong, why in (('"depth": 2', '"depth": 3'), ('"flow_image"', '"bert"'), ('"patch": 4', '"patch": 5')):
        config.write_text(right.replace(wrong, why))
        with pytest.raises(ModelError):
            flow_image.load(tmp_path / "m", flow_image.Settings())
    with pytest.raises(ValueError, match="no multiple"):
        FlowConfig(size=60)
    with pytest.raises(ValueError, match="heads"):
        FlowConfig(heads=3)


def test_the_precision_of_painting_is_set() -> None:
    kinds = {
        d: flow_image.load(None, flow_image.Settings(config=CONFIG, dtype=d)).dtype
        for d in ("float32", "bfloat16", "int8")
    }
    assert kinds == {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def test_untuned_is_as_it_was(tmp_path: Path) -> None:
    learner, train = model(), rows(tmp_path / "p")
    learner.survey(train)
    learner.keep_base()
    before = digest(learner.module)
    teach(tmp_path / "run", learner, train, [], max_steps=2)
    assert digest(learner.module) != before
    with learner.untuned():
        assert digest(learner.module) == before


# -- sixty seconds ---------------------------------------------------------------------------------------------------


def test_a_minute_of_learning_beats_the_mean_and_the_nearest_picture(tmp_path: Path) -> None:
    """Pictures of combinations that were never seen: nearer to the truth than the mean of all training pictures, and
    than the training picture whose caption shares the most words."""
    train, unseen = rows(tmp_path / "p", without=UNSEEN), rows(tmp_path / "p", without=UNSEEN, only=True)
    learner = model(width=48)
    teach(tmp_path / "run", learner, train, unseen, max_steps=450, rows_per_batch=17, tokens_per_pass=1024, warmup=20,
          ema=0.99, checkpoint_every=450)  # fmt: skip
    known = {row.prompt[0].text + str(row.meta["style"]): picture_of(row) for row in train}
    mean = np.mean(list(known.values()), axis=0)
    errors = {"model": [], "mean": [], "nearest": []}
    for number, row in enumerate(unseen):
        words = set((row.prompt[0].text + str(row.meta["style"])).split())
        nearest = max(train, key=lambda one: len(words & set((one.prompt[0].text + str(one.meta["style"])).split())))
        made = ask(learner, row.prompt[0].text, style=row.meta["style"], steps=10, seed=number, guidance=2.0)
        for name, guess in (("model", pixels(made[0]) / 255), ("mean", mean), ("nearest", picture_of(nearest))):
            errors[name].append(np.square(guess - picture_of(row)).mean())
    found = {name: float(np.mean(values)) for name, values in errors.items()}
    assert found["model"] < 0.7 * min(found["mean"], found["nearest"]), found


def picture_of(row: Example) -> np.ndarray:
    return pixels(row.answer.parts[0]) / 255


def test_noise_is_the_same_on_every_device() -> None:
    assert torch.equal(noise_of(7, SIZE), noise_of(7, SIZE))
    assert not torch.equal(noise_of(7, SIZE), noise_of(8, SIZE))
