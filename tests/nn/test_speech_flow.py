"""A voice that is taught: it finds which sound is which letter, says words it never heard, and goes on bit-equal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import combinations
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
    Recipe,
    Request,
    Run,
    Unlearnable,
    UsageError,
    assistant,
    choose,
    user,
)  # fmt: skip
from genwright.engines import speech_flow
from genwright.judging.metrics.mel_distance import cepstra, distance
from genwright.media.mel import mel_of
from genwright.media.sound import open_sound, save_sound, sound_of
from genwright.nn.speech_flow import SpeechFlow
from genwright.nn.speech_flow_options import VoiceConfig, VoiceOptions
from genwright.nn.speech_net import aligned, owners_of
from genwright.verbs.tune import tune

LETTERS = {"a": (300, 0.12), "b": (900, 0.2), "c": (2500, 0.16)}
CONFIG = {"width": 32, "reading": 1, "speaking": 2, "kernel": 3, "reads": "bytes"}
SAID = ["abc", "cab", "bca", "aab", "ccb", "acb"]
OWN = {"who": "Jane Roe", "when": "2026-11-30", "statement": "My voice may be learned from these recordings."}


def wave_of(words: str, higher: float = 1.0) -> np.ndarray:
    pieces = []
    for letter in words:
        hertz, seconds = LETTERS[letter]
        t = np.arange(int(16_000 * seconds)) / 16_000
        pieces.append(0.3 * np.sin(2 * np.pi * hertz * higher * t))
    return np.concatenate(pieces)


def row(folder: Path, words: str, voice: str = "", higher: float = 1.0) -> Example:
    path = folder / f"{words}{voice}.wav"
    if not path.is_file():
        save_sound(sound_of(wave_of(words, higher), 16_000), path)
    return Example((user(words), assistant(Part("audio", path=path))), {"style": voice} if voice else {})


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("letters")
    return [row(folder, words) for words in SAID]


def model_of(seed: int = 0, **changes: Any) -> SpeechFlow:
    return speech_flow.load(None, speech_flow.Settings(config=CONFIG | changes), seed=seed)


def taught(rows: list[Example], steps: int, model: SpeechFlow | None = None) -> SpeechFlow:
    torch.manual_seed(0)
    model = model or model_of()
    model.survey(rows)
    batch = model.collate([model.encode(one) for one in rows])
    optimizer = torch.optim.AdamW(model.module.parameters(), 4e-3)
    model.module.train()
    for _ in range(steps):
        (model.loss(batch) / batch.weight).backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.module.eval()
    return model


@pytest.fixture(scope="module")
def learned(rows):
    return taught(rows, 150)


def say(model: SpeechFlow, words: str, out: Path, **options: Any) -> list[Part]:
    return list(model.generate(Request(messages=(user(words),), seed=1, out=out, options=options)))


# -- the network -----------------------------------------------------------------------------------------------------


def test_the_path_is_the_best_of_all_paths():
    torch.manual_seed(0)
    expected, mels = torch.randn(3, 4, 80), torch.randn(3, 9, 80)
    tokens, frames = torch.tensor([4, 3, 1]), torch.tensor([9, 7, 2])
    found = aligned(expected, tokens, mels, frames)
    assert found.sum(1).tolist() == frames.tolist()
    for at in range(3):
        n, t = int(tokens[at]), int(frames[at])
        assert found[at, n:].sum() == 0
        assert (found[at, :n] >= 1).all()

        def cost(cuts: tuple[int, ...], at: int = at, n: int = n, t: int = t) -> float:
            owner = np.repeat(np.arange(n), np.diff([0, *cuts, t]))
            off = owner / n - np.arange(t) / t
            apart = (expected[at, owner] - mels[at, :t]).square().sum(1).numpy()
            return float((0.5 * apart + 200 * off**2).sum())

        best = min(combinations(range(1, t), n - 1), key=cost)
        assert tuple(found[at, :n].cumsum(0)[:-1].tolist()) == best


def test_frames_belong_to_their_tokens():
    owners = owners_of(torch.tensor([[2, 1, 3], [1, 1, 0]]), 6)
    assert owners.tolist() == [[0, 0, 1, 2, 2, 2], [0, 1, 2, 2, 2, 2]]


@torch.no_grad()
def test_a_row_has_the_same_loss_beside_longer_ones(rows):
    model = model_of()
    items = [model.encode(one) for one in rows[:3]]
    torch.manual_seed(0)
    group = model.collate(items)
    assert group.weight == sum(len(item.sequences[0]["mel"]) for item in items)
    expected, _, durations = (sum(parts) for parts in zip(*[model._losses(one) for one in group.groups], strict=True))
    alone = [model._losses(model.collate([item]).groups[0]) for item in items]
    assert float(expected) == pytest.approx(sum(float(one[0]) for one in alone), rel=1e-4)
    assert float(durations) == pytest.approx(sum(float(one[2]) for one in alone), rel=1e-4)
    logs: dict[str, float] = {}
    total = model.loss(group, logs=logs)
    assert float(total) / group.weight == pytest.approx(sum(logs.values()), rel=1e-4)


# -- learning and speaking -------------------------------------------------------------------------------------------


def test_it_keeps_the_contracts():
    for contract in (Learner, Batched):
        assert isinstance(model_of(), contract)


def test_it_learns_how_long_each_letter_lasts_and_how_it_sounds(learned, tmp_path):
    parts = say(learned, "bac", tmp_path / "new.wav", temperature=0)  # an order that it never heard
    assert parts[-1].meta == {"finish_reason": "stop"}
    sound = open_sound(tmp_path / "new.wav")
    assert sound.rate == 24_000
    assert sound.seconds == pytest.approx(0.48, abs=0.06)
    (frames,) = learned.mels(learned._lines(Request(messages=(user("bac"),), seed=1)), VoiceOptions(temperature=0))
    true = mel_of(sound_of(wave_of("bac"), 16_000))
    for middle in (0.1, 0.26, 0.4):  # of b, a and c
        at = round(middle * len(true) / 0.48)
        loudest = frames[round(at * len(frames) / len(true))].argmax()
        assert abs(int(loudest) - int(true[at].argmax())) <= 1


def test_options_are_heard(learned, tmp_path):
    def saying(**options: Any) -> Any:
        say(learned, "abc", tmp_path / "said.wav", **options)
        return open_sound(tmp_path / "said.wav")

    usual = saying()
    assert np.array_equal(usual.samples, saying().samples)
    assert saying(speed=2.0).seconds == pytest.approx(usual.seconds / 2, abs=0.05)
    assert not np.array_equal(usual.samples, saying(steps=1).samples)
    assert not np.array_equal(usual.samples, saying(temperature=0).samples)
    short, long = (say(learned, "abc. Abc.", tmp_path / "two.wav", pause=pause) for pause in (0.0, 0.5))
    assert long[-2].meta["seconds"] - short[-2].meta["seconds"] == pytest.approx(0.5, abs=0.01)
    pieces = [p for p in say(learned, "abc. Abc.", tmp_path / "p.wav", partial=True) if "partial" in (p.meta or {})]
    assert [p.meta["partial"] for p in pieces] == [1, 2]
    assert all(p.path.is_file() for p in pieces)
    with pytest.raises(UsageError, match="language"):
        saying(language="fr")


def test_many_are_said_as_each_alone(learned, tmp_path):
    asked = [Request(messages=(user(words),), seed=5, out=tmp_path / f"{words}.wav") for words in ("abc", "ccaab", "b")]
    many = dict(learned.generate_many(asked))
    how = VoiceOptions()
    lines = [learned._lines(one)[0] for one in asked]
    for at, (mel, line) in enumerate(zip(learned.mels(lines, how), lines, strict=True)):
        (alone,) = learned.mels([line], how)
        assert np.abs(mel - alone).max() < 1e-4
        assert many[at].parts[0].path.is_file()


def test_voices_are_told_apart(tmp_path):
    pair = [
        row(tmp_path, words, voice, higher) for words in SAID[:4] for voice, higher in (("high", 1.5), ("low", 1.0))
    ]
    model = taught(pair, 120)
    assert model.voices == ("high", "low")
    assert model.options_of(pair[0]) == {"voice": "high"}
    assert model.options_of(Example(pair[0].messages, {"style": "other"})) == {}
    mels = []
    for voice in model.voices:
        say(model, "bbb", tmp_path / "said.wav", voice=voice, temperature=0)
        mels.append(mel_of(open_sound(tmp_path / "said.wav"))[5:-5].mean(0))
    assert mels[0].argmax() > mels[1].argmax()
    with pytest.raises(UsageError, match="Did you mean 'high'"):
        say(model, "bbb", tmp_path / "x.wav", voice="hihg")
    model.save(tmp_path / "m")
    again = speech_flow.load(tmp_path / "m", speech_flow.Settings())
    assert again.voices == ("high", "low")
    assert again.encode(pair[0]).sequences[0]["voice"] == 1
    line = model._lines(Request(messages=(user("abc"),), seed=1, options={"voice": "low"}))
    assert np.array_equal(model.mels(line, VoiceOptions())[0], again.mels(line, VoiceOptions())[0])


def test_phonemes_of_both_languages_are_read(rows):
    pytest.importorskip("hibari")
    model = model_of(reads="phonemes")
    english, chinese = model._tokens("hello world", "en"), model._tokens("你好", "zh")
    assert len(english) > 8
    assert len(chinese) > 4
    assert english[0] == chinese[0] == 1
    assert max(*english, *chinese) < 259


def test_the_metric_knows_near_from_far(rows, tmp_path):
    answers = [assistant(Part("audio", path=one.answer.parts[0].path)) for one in rows]
    metric = choose("metrics", "mel_distance")
    same = metric([Judged(one, answer) for one, answer in zip(rows, answers, strict=True)])
    other = metric([Judged(one, answer) for one, answer in zip(rows, answers[1:] + answers[:1], strict=True)])
    assert same.value == pytest.approx(0, abs=1e-3)
    assert other.value > 3
    assert same.beside["recordings of other words"] > 3
    slow = np.repeat(cepstra(rows[0].answer.parts[0].path), 2, axis=0)
    assert distance(slow, slow[::2]) == pytest.approx(0, abs=1e-3)
    with pytest.raises(UsageError, match="both sounds"):
        metric([Judged(rows[0], assistant("words"))])


# -- by the one loop -------------------------------------------------------------------------------------------------


@dataclass
class Prepared:
    train: Dataset
    held_out: Dataset


def recipe(**changes: Any) -> Recipe:
    return Recipe.from_dict({
        "name": "letters", "data": {"source": "jsonl", "path": "letters.jsonl", "consent": OWN}, "method": "full",
        "task": "text_to_speech", "model": {"engine": "speech_flow", "config": CONFIG},
        "train": {"rows_per_batch": 3, "tokens_per_pass": 80, "learning_rate": 4e-3, "max_steps": 5, "epochs": 9,
                  "checkpoint_every": 2, "evaluate_every": 3, "threads": 1},
    } | changes)  # fmt: skip


@pytest.mark.parametrize("method", ["full", {"name": "lora", "rank": 4, "dropout": 0.1}], ids=["full", "lora"])
def test_a_killed_training_ends_in_the_same_model(rows, tmp_path, method):
    class Killed(BaseException):
        pass

    def die(step: int, loss: float) -> None:
        if step == 3:
            raise Killed

    made, data = recipe(method=method), Prepared(Dataset(rows[:4]), Dataset(rows[4:]))
    assert made.chosen_objective.name == "speech"
    whole = tune(made, Run.create(made, tmp_path / "whole"), data)
    killed = Run.create(made, tmp_path / "killed")
    with pytest.raises(Killed):
        tune(made, killed, data, watch=die)
    again = tune(made, killed, data)
    assert [e["step"] for e in again.events("tune.resume")] == [2]
    losses = [[(float(e["loss"]).hex(), *e["figures"]) for e in run.events("step")] for run in (whole, again)]
    assert losses[0] == losses[1]
    assert losses[0][0][1:] == ("expected", "flow", "durations")
    weights = [hashlib.sha256((run.model / "model.safetensors").read_bytes()).hexdigest() for run in (whole, again)]
    assert weights[0] == weights[1]


# -- consent ---------------------------------------------------------------------------------------------------------


def test_no_voice_is_learned_without_a_consent(rows, tmp_path):
    made = recipe(data={"source": "jsonl", "path": "letters.jsonl"})
    with pytest.raises(UsageError, match="nobody's consent") as told:
        tune(made, Run.create(made, tmp_path), Prepared(Dataset(rows[:4]), Dataset()))
    assert "data: {…, consent: {who:" in str(told.value.hint)
    assert not (tmp_path / "model").exists()


def test_a_consent_is_kept_with_the_model_and_in_the_ledger(rows, tmp_path, monkeypatch):
    from genwright.core.home import state
    from genwright.trust.ledger import Ledger

    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    state().mkdir(parents=True, exist_ok=True)
    (tmp_path / "signed.txt").write_text("Yes. Jane Roe")
    data = {"source": "jsonl", "path": "letters.jsonl", "consent": {k: v for k, v in OWN.items() if k != "statement"}}
    made = recipe(data={**data, "consent": data["consent"] | {"file": str(tmp_path / "signed.txt")}})
    run = tune(made, Run.create(made, tmp_path / "run"), Prepared(Dataset(rows[:4]), Dataset()))
    kept = json.loads((run.model / "genwright.json").read_text())["consent"]
    assert kept["who"] == "Jane Roe"
    assert kept["sha256"] == hashlib.sha256(b"Yes. Jane Roe").hexdigest()
    assert [one["consent"] for one in Ledger().rows() if one["event"] == "consent"] == [kept]
    assert [event["who"] for event in run.events("consent")] == ["Jane Roe"]
    from genwright.nn.release import Tuned, _consent_lines

    assert "Jane Roe" in _consent_lines(Tuned.of(run))[0]


def test_packaged_voices_say_why_they_need_none_and_recorded_people_do_not():
    from genwright.verbs.consent import consent_of

    spoken = {"source": "spoken", "phrases": ["hello"]}
    assert "synthetic" in consent_of(recipe(data=spoken))["cards"]["hibari"]
    mixed = {"source": "several", "of": [spoken, {"source": "card", "card": "speech-prompts-en"}]}
    with pytest.raises(UsageError, match="nobody's consent"):
        consent_of(recipe(data=mixed))
    with pytest.raises(UsageError, match="There is no file"):
        consent_of(recipe(data={**spoken, "consent": {"who": "A", "when": "2026-01-01", "file": "nothing.pdf"}}))
    with pytest.raises(Exception, match="what did they agree to"):
        recipe(data={**spoken, "consent": {"who": "A", "when": "2026-01-01"}})


# -- what it refuses -------------------------------------------------------------------------------------------------


def test_what_cannot_be_learned_says_why(rows, tmp_path):
    model = model_of()
    for asked, said, why in [
        (user("abc"), assistant("words"), "no recording"),
        (user(" "), rows[0].answer, "no words"),
        (user("abc" * 40), rows[0].answer, "too few"),
    ]:
        with pytest.raises(Unlearnable, match=why):
            model.encode(Example((asked, said)))
    save_sound(sound_of(np.zeros(33 * 16_000), 16_000), tmp_path / "long.wav")
    with pytest.raises(Unlearnable, match="cut it at its sentences"):
        model.encode(Example((user("abc"), assistant(Part("audio", path=tmp_path / "long.wav")))))


def test_what_cannot_be_said_says_why(tmp_path):
    model = model_of()
    for words, why in [("🙂", "nothing to say"), ("a" * 20_001, "more than 20,000")]:
        with pytest.raises(UsageError, match=why):
            say(model, words, tmp_path / "x.wav")
    with pytest.raises(UsageError, match="needs a source, or a config"):
        speech_flow.load(None, speech_flow.Settings())
    with pytest.raises(ModelError):
        speech_flow.load(tmp_path, speech_flow.Settings())
    assert VoiceConfig().reads == "phonemes"


def test_numbers_are_said_as_words_unless_they_are_left_to_the_voice(tmp_path):
    model = model_of()

    def tokens(words: str, **options: Any) -> list[int]:
        return model._lines(Request(messages=(user(words),), options=options))[0].tokens.tolist()

    assert tokens("5 stars") == tokens("five stars") != tokens("5 stars", normalise=False)
    path = tmp_path / "five.wav"
    save_sound(sound_of(wave_of("abc" * 3), 16_000), path)
    row = Example((user("5"), assistant(Part("audio", path=path))))
    assert model.encode(row).sequences[0]["tokens"].tolist() == tokens("five")
