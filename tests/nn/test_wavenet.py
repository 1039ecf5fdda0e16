"""WaveNet: its queues draw what its convolutions say; it learns by the one loop, goes on bit-equal, sounds the same."""

from __future__ import annotations

import math
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
from genwright.core.model import Scorer, Unlearnable
from genwright.core.recipe import Train
from genwright.engines import wavenet
from genwright.media import mel, pitches
from genwright.media.companding import SILENCE, levels_of, wave_of
from genwright.media.sound import Sound, open_sound, save_sound, sound_of
from genwright.nn.loop import fit
from genwright.nn.wavenet import WaveNetLearner
from genwright.nn.wavenet_options import HOP, SoundOptions, WaveNetConfig
from genwright.nn.wavenet_rows import windows
from genwright.nn.wavenet_sampling import Queues, Wish, draw

from .tiny import Log, digest, goes_on_bit_equal

TINY: dict[str, Any] = {"channels": 12, "skip": 16, "depth": 5, "cycles": 2, "told": 8, "crop": 512}
TRAIN = Train(tokens_per_batch=1024, tokens_per_pass=512, learning_rate=5e-3, max_steps=6, dtype="float32", threads=1,
              checkpoint_every=2, dropout=0.1)  # fmt: skip
RATE = 16_000


def model(seed: int = 0, *, runner: str = "auto", **changes: Any) -> WaveNetLearner:
    return WaveNetLearner(WaveNetConfig(**{**TINY, **changes}), seed=seed, runner=runner)


def shaken(learner: WaveNetLearner, seed: int = 0) -> WaveNetLearner:
    """With weights that say something: at first all levels are equally likely."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in learner.module.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=chance))
    return learner


def buzz(notes: list[pitches.Note], rate: int = RATE, seed: int = 0) -> Sound:
    """Notes as one wave of four levels that is repeated: neither a sum of a few tones, nor told by the level before."""
    random = np.random.default_rng(seed)
    shape, pieces = random.choice([-0.5, -0.2, 0.2, 0.5], 64), []
    for sounding, seconds in notes:
        turns = np.arange(round(seconds * rate)) / rate
        wave = sum((shape[(turns * 440 * 2 ** ((p - 69) / 12) * 64).astype(int) % 64] for p in sounding), 0 * turns)
        pieces.append(wave / max(1, len(sounding)))
    return sound_of(np.concatenate(pieces), rate)


def rows(folder: Path, count: int = 6, *, seconds: float = 0.08) -> list[Example]:
    """Short tunes of two notes, asked for by their notes, by two players."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(count):
        notes: list[pitches.Note] = [((57 + number,), seconds / 2), ((60 + number % 3,), seconds / 2)]
        path = save_sound(buzz(notes), folder / f"{number}.flac")
        asked = (user(pitches.spelled(notes)), assistant(Part("audio", path=path)))
        found.append(Example(asked, {"style": ("anna", "ben")[number % 2]}))
    return found


def teach(folder: Path, learner: WaveNetLearner, train: list[Example], held_out: list[Example], **changes: Any) -> Log:
    log = Log(folder)
    learner.module.requires_grad_(True)
    fit(learner, Dataset(train), Dataset(held_out), objective=choose("objectives", "sft"),
        settings=TRAIN.model_copy(update=changes), seed=3, folder=folder, log=log)  # fmt: skip
    return log


def ask(learner: Any, *parts: Any, seed: int | None = 5, out: Path | None = None, **options: Any) -> list[Part]:
    messages = (user(*parts),) if parts else ()
    asked = Request(messages=messages, seed=seed, options={"seconds": 0.016, **options}, out=out)
    return [part for part in learner.generate(asked) if part.path]


def wave(part: Part) -> np.ndarray:
    assert part.path
    return open_sound(part.path).samples[:, 0]


# -- drawing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", ["none", "mel", "notes"])
def test_the_queues_say_what_the_convolutions_say(local: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of each sample, of two sounds together: one from silence, one that goes on from another."""
    net = shaken(model(local=local, styles=("anna", "ben"))).module
    random, told = np.random.default_rng(0), []
    before = random.integers(0, 256, 512).astype(np.uint8)
    frames = [random.random((4, net.shape.bands)).astype(np.float16) for _ in range(2)]
    wishes = [Wish(200, 1, 1.0, frames=frames[0], style=1), Wish(300, 2, 0.7, before, frames[1], style=2)]
    step = Queues.step

    def heard(queues: Queues, steering: torch.Tensor) -> torch.Tensor:
        told.append(step(queues, steering).clone())
        return told[-1]

    monkeypatch.setattr(Queues, "step", heard)
    with torch.no_grad():
        drawn = [np.concatenate(one) for one in zip(*draw(Queues(net, wishes), wishes), strict=True)]
        assert [len(one) for one in drawn] == [200, 300]
        nothing = np.zeros((2, net.shape.bands), np.float16)
        for row, (wish, levels) in enumerate(zip(wishes, drawn, strict=True)):
            past = wish.before if len(wish.before) else np.full(512, SILENCE, np.uint8)
            known = {"levels": np.concatenate([past, levels]), "style": wish.style,
                     "frames": np.concatenate([nothing, wish.frames])}  # fmt: skip
            batch = windows([known], [512 + 2 * HOP], 2 * HOP, net.shape)
            naive = net(batch.levels, batch.frames, batch.styles)[0, : len(levels)]
            cached = torch.stack([one[min(row, len(one) - 1)] for one in told])[: len(levels)]
            assert (naive - cached).abs().max() < 1e-5
            assert naive.std() > 0.05


def test_compiled_loops_say_what_torch_says() -> None:
    pytest.importorskip("numba")
    from genwright.nn.wavenet_compiled import Compiled, fraction

    above, below = fraction()
    x = np.linspace(-9, 9, 4001).astype(np.float32)
    told = x * np.polyval(above, x * x) / np.polyval(below, x * x)
    assert abs(told - np.tanh(x.astype(np.float64))).max() < 1e-6
    net = shaken(model(local="mel")).module
    wishes = [Wish(HOP, number, 1.0 - number / 2) for number in range(3)]
    with torch.no_grad():
        one, other = Queues(net, wishes), Compiled(net, wishes)
        chance = torch.rand(HOP, 3)
        levels = one.hop(chance)
        assert (levels == other.hop(chance)).float().mean() > 0.99
        assert (one.waiting - other.waiting).abs().max() < 1e-5


def test_seeds_reproduce_and_each_sound_of_a_request_has_its_own(tmp_path: Path) -> None:
    learner = shaken(model())
    first, again = (ask(learner, n=3, out=tmp_path / name) for name in ("a.flac", "b.flac"))
    assert [part.path.name for part in first if part.path] == ["a-1.flac", "a-2.flac", "a-3.flac"]
    assert all((wave(one) == wave(other)).all() for one, other in zip(first, again, strict=True))
    assert not (wave(first[0]) == wave(first[1])).all()
    assert [part.meta["seed"] for part in first if part.meta] == [5, 6, 7]
    (unseeded,) = ask(learner, seed=None)
    assert unseeded.meta
    assert (wave(ask(learner, seed=unseeded.meta["seed"])[0]) == wave(unseeded)).all()


def test_many_are_answered_as_one_is(tmp_path: Path) -> None:
    learner = shaken(model())
    asked = [Request(messages=(), seed=seed, options={"seconds": seconds, "n": n}, out=tmp_path / f"{seed}.wav")
             for seed, seconds, n in ((1, 0.02, 1), (2, 0.01, 3), (3, 0.015, 1))]  # fmt: skip
    found = dict(learner.generate_many(asked))
    assert sorted(found) == [0, 1, 2]
    for index, request in enumerate(asked):
        alone = [part for part in learner.generate(request.model_copy(update={"out": None})) if part.path]
        assert len(alone) == request.options["n"] == len(found[index].parts)
        for one, other in zip(found[index].parts, alone, strict=True):
            assert (wave(one) == wave(other)).mean() > 0.9


OPTIONS: dict[str, Any] = {"n": 3, "seconds": 0.01, "temperature": 0.0, "style": "ben"}


@pytest.mark.parametrize("key", list(SoundOptions.model_fields))
def test_every_option_of_a_request_changes_what_comes(key: str) -> None:
    learner = shaken(model(styles=("anna", "ben")))
    before, after = (ask(learner, **more) for more in ({}, {key: OPTIONS[key]}))
    assert [wave(part).tolist() for part in before] != [wave(part).tolist() for part in after]


def test_going_on_begins_where_the_sound_ends(tmp_path: Path) -> None:
    learner = shaken(model())
    given = Part("audio", path=save_sound(buzz([((57,), 0.1)]), tmp_path / "given.wav"))
    assert wave(ask(learner, given)[0]).tolist() != wave(ask(learner)[0]).tolist()


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    sound = Part("audio", path=save_sound(buzz([((57,), 0.1)]), tmp_path / "given.wav"))
    for learner, parts, options, why in (
        (model(), ["hm"], {"seconds": 121}, "seconds"), (model(), ["hm"], {"n": 0}, "n:"),
        (model(), ["hm"], {"voice": "x"}, "voice"), (model(styles=("anna",)), ["hm"], {"style": "ana"}, "Did you mean"),
        (model(local="mel"), ["hm"], {}, "was given none"), (model(local="notes"), ["la la"], {}, "is no note"),
        (model(local="notes"), ["60:0.1", sound], {}, "takes no sound"),
        (model(local="notes"), ["60:121"], {"seconds": None}, "more than 120"),
        (model(), [Part("image", path=tmp_path)], {}, "kind image"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            ask(learner, *parts, **options)


# -- learning --------------------------------------------------------------------------------------------------------


def test_it_keeps_the_contracts() -> None:
    for contract in (Learner, Batched, Scorer):
        assert isinstance(model(), contract)


def test_rows_that_teach_nothing_say_why(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    row = rows(tmp_path / "d")[0]
    for learner, example, why in (
        (model(), Example((user("la"), assistant("la"))), "holds no sound"),
        (model(), Example((assistant(Part("audio", path=tmp_path / "broken.wav")),)), "no sound that can be read"),
        (model(local="notes"), Example((user("la"), row.answer)), "is no note"),
    ):
        with pytest.raises(Unlearnable, match=why):
            learner.encode(example)
    assert [one.tokens for one in model().likelihood([Example((user("la"), assistant("la"))), row])] == [0, 1280]


def test_windows_together_are_as_one_sound_whole(tmp_path: Path) -> None:
    """Any cut of a sound costs the same: what is before a window is seen, and what is beyond counts nothing."""
    learner = shaken(model(local="mel"))
    (row,) = learner.encode(rows(tmp_path, 1, seconds=0.1)[0]).sequences
    with torch.no_grad():
        whole = learner.loss(windows([row], [7 * HOP], 7 * HOP, learner.config))
        parts = [learner.loss(windows([row], [end * HOP], HOP, learner.config)) for end in range(1, 8)]
    assert float(whole) == pytest.approx(float(sum(parts)), rel=1e-5)
    (told,) = learner.likelihood(rows(tmp_path, 1, seconds=0.1))
    assert (told.nll, told.tokens) == (pytest.approx(float(whole), rel=1e-5), 1600)


def test_a_killed_run_goes_on_bit_equal(tmp_path: Path) -> None:
    train, held_out = rows(tmp_path / "d"), rows(tmp_path / "e", 2)
    learners = [model(seed, local="notes") for seed in (0, 0, 9)]
    for learner in learners:
        learner.survey(train)

    def taught(name: str, learner: WaveNetLearner) -> Log:
        return teach(tmp_path / name, learner, train, held_out)

    goes_on_bit_equal(taught, *learners, after=12)


def test_seconds_of_learning_beat_counting_and_linear_prediction_on_sounds_it_has_not_heard(tmp_path: Path) -> None:
    """The metric's own baselines, on a call that says the same again and again, from another place in each sound."""
    call = np.random.default_rng(1).choice([-0.5, -0.2, 0.2, 0.5], 31)
    paths = [save_sound(sound_of(np.roll(np.tile(call, 20), n), RATE), tmp_path / f"{n}.flac") for n in range(24)]
    calls = [Example((assistant(Part("audio", path=path)),)) for path in paths]
    train, held_out = calls[4:], calls[:4]
    learner = model(channels=24, skip=24, depth=4)
    teach(tmp_path / "run", learner, train, [], max_steps=70, checkpoint_every=70, evaluate_every=70, dropout=0.0,
          tokens_per_batch=1024, tokens_per_pass=1024, learning_rate=1e-2)  # fmt: skip
    told = zip(held_out, learner.likelihood(held_out), strict=True)
    pairs = [Judged(row, likelihood=likelihood) for row, likelihood in told]
    score = choose("metrics", "sound_bits")(pairs, train=train, bootstrap=20)
    assert list(score.beside) == ["unigram", "bigram", "LPC-16"]
    assert score.value < 0.7 * min(score.beside.values()), score.beside
    assert score.value == pytest.approx(sum(p.likelihood.nll for p in pairs if p.likelihood) / math.log(2) / (4 * 620))
    assert (
        choose("metrics", {"name": "sound_bits", "rate": 8000, "counted": 1})(pairs, train=train).beside != score.beside
    )


CHANGES = {"rate": 8000, "channels": 16, "skip": 20, "depth": 4, "cycles": 1, "local": "notes", "told": 12,
           "crop": 256, "styles": ("anna",)}  # fmt: skip


@pytest.mark.parametrize("key", list(WaveNetConfig.model_fields))
def test_every_key_of_the_config_changes_the_network_or_its_rows(key: str, tmp_path: Path) -> None:
    one, other = model(), model(**{key: CHANGES[key]})
    shapes = [[(n, p.shape) for n, p in m.module.named_parameters()] for m in (one, other)]
    read = [m.encode(rows(tmp_path, 1)[0]) for m in (one, other)]
    sizes = [(r.size, len(r.sequences[0]["levels"])) for r in read]
    assert shapes[0] != shapes[1] or sizes[0] != sizes[1]


def test_mel_needs_its_rate() -> None:
    with pytest.raises(ValueError, match=f"rate of {mel.RATE}"):
        WaveNetConfig(local="mel", rate=8000)


# -- keeping ---------------------------------------------------------------------------------------------------------


def test_what_is_saved_answers_the_same_and_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    learner = shaken(model())
    learner.survey(rows(tmp_path / "d"))
    learner.save(tmp_path)
    again = wavenet.load(tmp_path, wavenet.Settings(runner="torch"))
    assert digest(again.module) == digest(learner.module)
    assert again.config.styles == ("anna", "ben")
    assert (wave(ask(again, style="ben")[0]) == wave(ask(learner, style="ben")[0])).all()
    assert again.options_of(rows(tmp_path / "d")[1]) == {"style": "ben"}
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace('"wavenet"', '"svg_lm"'))
    with pytest.raises(ModelError, match="another kind"):
        wavenet.load(tmp_path, wavenet.Settings())
    with pytest.raises(UsageError, match="needs a source"):
        wavenet.load(None, wavenet.Settings())


def test_runners_are_those_that_are_asked_for() -> None:
    from genwright.nn.wavenet_sounding import _queues

    config = WaveNetConfig(**TINY)
    named = {
        runner: _queues(wavenet.load(None, wavenet.Settings(config=config, runner=runner))).__name__
        for runner in ("torch", "auto")
    }
    assert named["torch"] == "Queues"
    assert named["auto"] in ("Queues", "Compiled")


# -- what it is made of ----------------------------------------------------------------------------------------------


def test_levels_lie_close_together_where_it_is_quiet() -> None:
    waves = np.linspace(-1, 1, 2001)
    back = wave_of(levels_of(waves))
    assert abs(back - waves).max() < 0.025
    assert abs(back - waves)[abs(waves) < 0.01].max() < 3e-4
    assert (levels_of(wave_of(np.arange(256))) == np.arange(256)).all()
    assert levels_of([0.0, -5.0, 5.0]).tolist() == [SILENCE, 0, 255]


def test_notes_are_frames_and_words() -> None:
    notes = pitches.notes_of("60:0.5 64+67:1 -:0.25")
    assert notes == [((60,), 0.5), ((64, 67), 1.0), ((), 0.25)]
    assert pitches.spelled(notes) == "60:0.5 64+67:1 -:0.25"
    frames = pitches.frames_of(notes, 8)
    assert frames.shape == (15, pitches.WIDTH)
    assert frames[:, 60].sum() == 4
    assert (frames[:, 64] == frames[:, 67]).all()
    assert np.flatnonzero(frames[:, pitches.PITCHES]).tolist() == [0, 4]
    assert not frames[12:].any()
    for wrong in ("", "la", "128:1", "60", "60:-1", "-:.25", "60:1e3", "60:0"):
        with pytest.raises(UsageError, match="note"):
            pitches.notes_of(wrong)
