"""Pipelines of diffusers: taught by the one loop, exactly resumed, saved as plain diffusers reads them."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genwright.core import (
    Dataset,
    Example,
    Learner,
    Loss,
    Measurer,
    MissingExtra,
    ModelError,
    Part,
    Recipe,
    Request,
    Unlearnable,
    UsageError,
    assistant,
    choose,
    user,
)
from genwright.core.recipe import Train
from genwright.nn.diffusers_families import noised
from genwright.nn.loop import Context, fit
from genwright.verbs.evaluate import _Untuned
from genwright.verbs.models import locate, open_model, seal

from .shapes import rows
from .tiny import Log, digest

pytest.importorskip("diffusers")
from . import pipelines

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:__array__:DeprecationWarning")
TRAIN = Train(rows_per_batch=4, tokens_per_pass=64, learning_rate=2e-3, max_steps=6, dtype="float32", threads=1,
              checkpoint_every=1000, evaluate_every=1000, schedule="constant", warmup=0.0)  # fmt: skip
LORA = {"name": "lora", "rank": 4}
WORD = {"name": "textual_inversion", "token": "<mine>", "start": "red", "vectors": 2}
PRIOR = {"name": "prior_preservation", "prompt": "a photo of a cross", "pictures": 2, "options": {"steps": 2}}
MAKERS: dict[str, Callable[[Path], Path]] = {
    "noise": pipelines.stable_diffusion,
    "flow": pipelines.stable_diffusion_3,
    "masked": pipelines.pixart,
    "large": pipelines.stable_diffusion_xl,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for another machine fails."""

    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    place = tmp_path_factory.mktemp("pipelines")

    def find(kind: str) -> Path:
        if not (place / kind).is_dir():
            MAKERS[kind](place / kind)
        return place / kind

    return find


def opened(folder: Path, method: Any = None, **options: Any) -> Any:
    learner = open_model({"source": str(folder), **options}, purpose="tune")
    return choose("methods", method)(learner, seed=1) if method else learner


def teach(folder: Path, learner: Any, train: list[Example], *regularizers: Any,
          watch: Callable[[int, float], None] = lambda step, loss: None, **changes: Any) -> Log:  # fmt: skip
    log = Log(folder)
    fit(learner, Dataset(train), Dataset(train[:2]), objective=choose("objectives", "diffusion"), seed=3,
        regularizers=[choose("regularizers", one) for one in regularizers], watch=watch,
        settings=TRAIN.model_copy(update=changes), folder=folder, log=log)  # fmt: skip
    return log


def ask(learner: Any, out: Path, words: str = "a red circle", *more: Part, seed: int = 5, **options: Any) -> np.ndarray:
    asked = Request(messages=(user(words, *more),), seed=seed, options={"steps": 3, **options}, out=out)
    (part,) = [part for part in learner.generate(asked) if part.path]
    return np.asarray(Image.open(part.path))


def plain(
    folder: Path, change: Callable[[Any], None] = lambda pipeline: None, words: str = "a red circle"
) -> np.ndarray:
    """What diffusers itself paints."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    change(pipeline)
    more = {"use_resolution_binning": False} if "PixArt" in type(pipeline).__name__ else {}
    picture = pipeline(words, num_inference_steps=3, generator=[torch.Generator().manual_seed(5)], height=16, width=16,
                       **more).images[0]  # fmt: skip
    return np.asarray(picture)


def kept(learner: Any, folder: Path) -> Path:
    learner.save(folder)
    seal(folder)
    return folder


def changed(folder: Path, to: Path, name: str, **facts: Any) -> Path:
    shutil.copytree(folder, to)
    file = to / name
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return to


# -- learning --------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contracts(made: Any) -> None:
    learner = opened(made("noise"))
    assert isinstance(learner, Learner)
    assert isinstance(learner, Measurer)
    assert learner.size == 16


@pytest.mark.parametrize("kind", list(MAKERS))
def test_lora_alone_learns_one_batch_and_plain_diffusers_paints_it_alike(kind: str, made: Any, tmp_path: Path) -> None:
    train = rows(tmp_path / "p")[:2]
    learner = opened(made(kind), LORA)
    frozen = {name: p.clone() for name, p in learner.module.named_parameters() if "lora_" not in name}
    before = [sum(one.values()) for one in learner.measure(train)]
    teach(tmp_path / "run", learner, train, max_steps=6, learning_rate=2e-2)
    after = [sum(one.values()) for one in learner.measure(train)]
    assert sum(after) < sum(before)
    assert all(p.equal(frozen[name]) for name, p in learner.module.named_parameters() if name in frozen)

    folder = kept(learner, tmp_path / "kept")
    picture, again = ask(learner, tmp_path / "a.png"), opened(folder)
    base = _Untuned(learner)
    assert [sum(one.values()) for one in base.measure(train)] == before  # type: ignore[attr-defined]
    assert (ask(base, tmp_path / "b.png") != picture).any()
    assert base.options is learner.options
    ask(again, tmp_path / "c.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    assert again.base_reference["sha256"] == locate(str(made(kind))).sha256
    if kind == "masked":  # diffusers reads no LoRA for PixArt
        return
    wear = lambda pipeline: pipeline.load_lora_weights(folder)  # noqa: E731
    assert np.abs(plain(made(kind), wear).astype(int) - picture).max() <= 1
    assert np.abs(plain(made(kind)).astype(int) - picture).max() > 1


def test_in_full_the_whole_pipeline_is_kept(made: Any, tmp_path: Path) -> None:
    train = rows(tmp_path / "p")[:4]
    learner = opened(made("noise"), "full")
    learner.keep_base()
    before, frozen = ask(learner, tmp_path / "before.png"), digest(learner.pipeline.vae)
    start = sum(sum(one.values()) for one in learner.measure(train))
    teach(tmp_path / "run", learner, train, max_steps=4, learning_rate=5e-3)
    assert sum(sum(one.values()) for one in learner.measure(train)) < start
    folder = kept(learner, tmp_path / "kept")
    picture = ask(learner, tmp_path / "a.png")
    assert (plain(folder) == picture).all()
    assert (ask(opened(folder), tmp_path / "b.png") == picture).all()
    assert digest(learner.pipeline.vae) == frozen
    with learner.untuned():
        assert (ask(learner, tmp_path / "c.png") == before).all()
    assert "unet/" in (folder / "SHA256SUMS").read_text()


def test_new_words_are_all_that_textual_inversion_learns(made: Any, tmp_path: Path) -> None:
    train = [Example((user("a photo of <mine>"), row.answer)) for row in rows(tmp_path / "p")[:4]]
    learner = opened(made("noise"), WORD)
    assert [tuple(p.shape) for p in learner.module.parameters() if p.requires_grad] == [(2, 16)]
    before, table, unet = learner.module.rows.weight.detach().clone(), digest(learner.module.table), digest(learner.net)
    red = learner.pipeline.tokenizer("red", add_special_tokens=False)["input_ids"]
    assert before[0].equal(learner.module.table.weight[red[0]]), "it begins as `start`"
    teach(tmp_path / "run", learner, train, max_steps=4, learning_rate=0.5)
    assert not learner.module.rows.weight.isclose(before).any()
    assert (digest(learner.module.table), digest(learner.net)) == (table, unet)

    folder = kept(learner, tmp_path / "kept")
    picture = ask(learner, tmp_path / "a.png", "a photo of <mine>")
    again = opened(folder)
    assert (ask(again, tmp_path / "b.png", "a photo of <mine>") == picture).all()
    assert not again.holds_base
    wear = lambda pipeline: pipeline.load_textual_inversion(folder)  # noqa: E731
    assert (plain(made("noise"), wear, "a photo of <mine>") == picture).all()
    others = [ask(one, tmp_path / "c.png") for one in (learner, opened(made("noise")))]
    assert (others[0] == others[1]).all(), "other words stay"


def test_what_was_learned_is_built_upon(made: Any, tmp_path: Path) -> None:
    """A word goes on, a whole pipeline and an adapter keep it; beside an adapter no word is begun."""
    first = opened(made("noise"), {**WORD, "start": "", "vectors": 1})
    words = kept(first, tmp_path / "words")
    assert opened(words, WORD).module.rows.weight.equal(first.module.rows.weight)
    picture = ask(first, tmp_path / "a.png", "<mine>")
    for method in ("full", LORA):
        folder = kept(opened(words, method), tmp_path / str(len(str(method))))
        assert (ask(opened(folder), tmp_path / "b.png", "<mine>") == picture).all()
    with pytest.raises(UsageError, match="no new word"):
        opened(folder, {**WORD, "token": "<other>"})


@pytest.mark.parametrize("method", [LORA, WORD], ids=["lora", "words"])
def test_a_killed_training_goes_on_bit_equal(method: Any, made: Any, tmp_path: Path) -> None:
    train = [Example((user(f"a red <mine> {n}"), row.answer)) for n, row in enumerate(rows(tmp_path / "p")[:8])]
    often = {"max_steps": 3, "checkpoint_every": 1, "evaluate_every": 2}
    whole = opened(made("noise"), method)
    first = teach(tmp_path / "whole", whole, train, PRIOR, **often)

    class Killed(Exception):
        pass

    def die(step: int, loss: float) -> None:
        if step >= 2:
            raise Killed

    with pytest.raises(Killed):
        teach(tmp_path / "part", opened(made("noise"), method), train, PRIOR, watch=die, **often)
    again = opened(made("noise"), method)
    second = teach(tmp_path / "part", again, train, PRIOR, **often)
    assert [event["step"] for event in second["tune.resume"]] == [1]
    assert first.losses == second.losses
    assert digest(whole.module) == digest(again.module)


def test_prior_preservation_paints_a_class_once_and_teaches_as_many_of_it_as_of_rows(made: Any, tmp_path: Path) -> None:
    learner = opened(made("noise"), LORA)
    batch, objective = (
        learner.collate([learner.encode(row) for row in rows(tmp_path / "p")[:4]]),
        choose("objectives", "diffusion"),
    )
    context = Context(3, Dataset([]), objective, learner.encode, learner.device, tmp_path)
    counted: list[int] = []

    def step(some: Any) -> Loss:
        counted.append(len(some))
        return objective(learner, some)

    context.objective = lambda learner, some: step(some)  # type: ignore[assignment]

    def passed(**options: Any) -> Loss:
        torch.manual_seed(0)
        counted.clear()
        return choose("regularizers", {**PRIOR, **options})(step, learner, context=context)(batch)

    def painted() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "class_pictures").rglob("*.png")}

    alone = passed(strength=0.0)
    assert (counted, painted()) == ([4], {})
    half = passed(strength=0.5)
    assert counted == [4, 4], "rows, then class pictures"
    assert half.total.item() == pytest.approx(alone.total.item() + 0.5 * 4 * half.logs["prior"], rel=1e-5)
    assert half.weight == alone.weight
    first = painted()
    assert len(set(first.values())) == len(first) == PRIOR["pictures"]
    stamps = [path.stat().st_mtime_ns for path in first]
    assert passed(strength=0.5).total.item() == half.total.item()
    assert [path.stat().st_mtime_ns for path in first] == stamps, "painted once"
    for options in ({"prompt": "a bar"}, {"options": {"steps": 1}}):
        before = painted()
        passed(**options)
        assert not set(first.values()) & {data for path, data in painted().items() if path not in before}, options
    passed(pictures=3)
    assert len(painted()) == 3 * 2 + 1
    with pytest.raises(UsageError, match="models that paint"):
        choose("regularizers", PRIOR)(step, object(), context=context)


def test_every_option_of_the_objective_changes_the_loss(made: Any, tmp_path: Path) -> None:
    learner = opened(made("noise"), LORA)
    learner.module.train()
    items = [learner.encode(row) for row in rows(tmp_path / "p")[:4]]

    def loss(**options: Any) -> float:
        torch.manual_seed(0)
        return choose("objectives", {"name": "diffusion", **options})(learner, learner.collate(items)).total.item()

    usual = loss()
    assert usual == loss()
    assert len({usual, loss(untold=0.9), loss(time_spread=1.0), loss(time_spread=1.0, time_mean=1.0)}) == 4


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow"])
def test_noise_is_mixed_as_the_schedulers_do(kind: str) -> None:
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    x, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    u = torch.tensor([0.1, 0.5, 0.9995])
    if kind == "flow":
        flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
        z, t, target = noised(flow, x, noise, u)
        near = flow.timesteps.sub(t[1]).abs().argmin()
        assert torch.allclose(flow.scale_noise(x, flow.timesteps[near][None].repeat(3), noise)[1], z[1], atol=2e-3)
        assert torch.allclose(z - (t / 1000).view(-1, 1, 1, 1) * target, x, atol=1e-5), "the way back along the flow"
        return
    plain = DDPMScheduler(prediction_type=kind)
    z, t, target = noised(plain, x, noise, u)
    assert t.tolist() == [100, 500, 999]
    assert torch.allclose(z, plain.add_noise(x, noise, t), atol=1e-6)
    wanted = {"epsilon": noise, "sample": x, "v_prediction": plain.get_velocity(x, noise, t)}[kind]
    assert torch.allclose(target, wanted, atol=1e-6)


def test_rows_that_teach_nothing_say_why(made: Any, tmp_path: Path) -> None:
    learner, row = opened(made("noise")), rows(tmp_path)[0]
    for why, example in {
        "holds no picture": Example((user("a hat"), assistant("a hat"))),
        "has no caption": Example((user(" "), row.answer)),
    }.items():
        with pytest.raises(Unlearnable, match=why):
            learner.encode(example)
    with pytest.raises(UsageError, match="another objective"):
        choose("objectives", "flow")(learner, learner.collate([learner.encode(row)]))


def test_a_recipe_that_names_the_engine_is_taught_by_its_objective(made: Any) -> None:
    recipe = {
        "data": "emoji-noto",
        "task": "text_to_image",
        "model": {"source": str(made("noise")), "engine": "diffusers"},
    }
    assert Recipe.from_dict(recipe).chosen_objective.name == "diffusion"
    assert Recipe.from_dict(recipe | {"model": {"source": "x"}}).chosen_objective.name == "flow"


# -- painting --------------------------------------------------------------------------------------------------------


def test_the_same_request_paints_the_same_bytes_and_each_option_others(made: Any, tmp_path: Path) -> None:
    learner = opened(made("noise"))
    usual = ask(learner, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == (ask(learner, tmp_path / "b.png"), (tmp_path / "b.png").read_bytes())[1]
    assert (plain(made("noise")) == usual).all()
    for options in ({"steps": 2}, {"guidance": 1.0}, {"negative": "blue"}, {"size": 32}, {"seed": 6}, {"words": "bar"}):
        other = ask(learner, tmp_path / "c.png", **options)  # type: ignore[arg-type]
        assert other.shape != usual.shape or (other != usual).any(), options


def test_several_pictures_steps_and_leaving_early(made: Any, tmp_path: Path) -> None:
    learner = opened(made("noise"))
    asked = Request(messages=(user("a bar"),), seed=1, options={"steps": 3, "n": 5}, out=tmp_path / "many.png")
    parts = list(learner.generate(asked))
    assert len([part for part in parts if part.path]) == 5
    assert [part.meta["progress"] for part in parts if part.meta and "progress" in part.meta] == [1, 2, 3] * 2
    assert parts[-1].meta == {"finish_reason": "stop"}
    short = learner.generate(asked.model_copy(update={"out": tmp_path / "left.png"}))
    next(short)
    short.close()
    assert not list(tmp_path.glob("left*"))


def test_a_given_picture_is_varied_or_painted_over_where_it_may_be(made: Any, tmp_path: Path) -> None:
    learner = opened(made("noise"))
    Image.fromarray(np.full((24, 16, 3), (200, 30, 30), np.uint8)).save(tmp_path / "given.png")
    mask = np.zeros((24, 16, 3), np.uint8)
    mask[:8] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    given, free = Part("image", path=tmp_path / "given.png"), Part("image", text="mask", path=tmp_path / "mask.png")
    weak, strong = (ask(learner, tmp_path / "v.png", "a bar", given, strength=s, steps=4) for s in (0.3, 1.0))
    assert (weak != strong).any()
    edited = ask(learner, tmp_path / "e.png", "a bar", given, free)
    assert edited.shape == (24, 16, 3)
    assert (edited[8:] == (200, 30, 30)).all()
    assert (edited[:8] != (200, 30, 30)).any()
    grown = ask(learner, tmp_path / "g.png", "a bar", given, expand=(4, 0, 0, 0))
    assert grown.shape == (24, 20, 3)
    assert (grown[:, 4:] == (200, 30, 30)).all()


def test_what_a_pipeline_cannot_do_is_said(made: Any, tmp_path: Path) -> None:
    learner = opened(made("noise"))
    Image.new("RGB", (16, 16)).save(tmp_path / "given.png")
    given = Part("image", path=tmp_path / "given.png")
    for why, words, parts, options in (
        ("no words", " ", (), {}),
        ("starts from one picture", "x", (given, given), {}),
        ("divisible by 8", "x", (), {"size": 20}),
        ("`strength` is for a given picture", "x", (), {"strength": 0.5}),
        ("Did you mean 'steps'", "x", (), {"stepz": 1}),
    ):
        with pytest.raises(UsageError, match=why):
            ask(learner, tmp_path / "a.png", words, *parts, **options)
    with pytest.raises(UsageError, match="starts from no picture"):
        ask(opened(made("masked")), tmp_path / "a.png", "x", given)
    with pytest.raises(UsageError, match="learns no new words"):
        opened(made("flow"), WORD)
    with pytest.raises(UsageError, match="virtual tokens"):
        opened(made("noise"), "prefix")
    with pytest.raises(UsageError, match="knows already"):
        opened(made("noise"), {**WORD, "token": "red</w>"})
    with pytest.raises(UsageError, match="no tokens"):
        opened(made("noise"), {**WORD, "start": " "})


# -- safety ----------------------------------------------------------------------------------------------------------


def test_code_and_pickles_that_come_with_a_pipeline_are_not_touched(made: Any, tmp_path: Path) -> None:
    own = changed(made("noise"), tmp_path / "own", "model_index.json", unet=["evil", "Net"])
    (own / "unet" / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="'evil'"):
        opened(own)
    with pytest.raises(ModelError, match="'Mine'"):
        opened(changed(made("noise"), tmp_path / "kind", "model_index.json", _class_name="Mine"))
    with pytest.raises(ModelError, match="auto_map"):
        opened(changed(made("noise"), tmp_path / "auto", "text_encoder/config.json", auto_map={"AutoModel": "x.Y"}))
    pickled = tmp_path / "pickled"
    shutil.copytree(made("noise"), pickled)
    (pickled / "unet" / "diffusion_pytorch_model.safetensors").rename(pickled / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"model\.bin is in a format that can run code"):
        opened(pickled)
    with pytest.raises(ModelError, match="reads no words"):
        opened(changed(made("noise"), tmp_path / "wordless", "model_index.json", _class_name="DDPMPipeline"))
    cut = shutil.copytree(made("noise"), tmp_path / "cut")
    shutil.rmtree(cut / "vae")
    with pytest.raises(ModelError, match="cannot be opened"):
        opened(cut)


def test_a_base_that_was_altered_is_noticed(made: Any, tmp_path: Path) -> None:
    shutil.copytree(made("noise"), tmp_path / "base")
    folder = kept(opened(tmp_path / "base", LORA), tmp_path / "kept")
    weights = tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="sha256 differs"):
        opened(folder)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ModelError, match="is not at"):
        opened(folder)


def test_without_the_library_its_extra_is_named(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from genwright.engines import diffusers

    monkeypatch.setattr(diffusers, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="diffusers"):
        opened(made("noise"))


def test_engine_options_are_read(made: Any, tmp_path: Path) -> None:
    assert opened(made("noise"), size=32).encode(rows(tmp_path)[0]).sequences[0]["mean"].shape == (4, 16, 16)
    assert opened(made("noise"), dtype="bfloat16").net.dtype == torch.bfloat16
