"""Whisper as a learner: it hears as transformers' own does, learns what tones mean, and goes on bit-equal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
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
    Scorer,
    Unlearnable,
    UsageError,
    assistant,
    choose,
    find_card,
    user,
)  # fmt: skip
from genwright.engines import whisper
from genwright.media.sound import save_sound, sound_of
from genwright.nn.whisper import features_of
from genwright.verbs.tune import tune

TONES = {"low": 300, "mid": 900, "high": 2500}
CONFIG = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
          "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_source_positions": 50,
          "max_target_positions": 24}  # fmt: skip
TOKENIZER = {"train": "bpe", "vocab_size": 280}
HIBARI = find_card("hibari")
SAID = ["low mid", "mid high", "high low", "high high mid", "low", "mid mid low"]


def wave_of(words: str) -> np.ndarray:
    t = np.arange(3200) / 16_000
    return np.concatenate([0.3 * np.sin(2 * np.pi * TONES[word] * t) * np.hanning(3200) for word in words.split()])


def row(folder: Path, words: str, **meta: Any) -> Example:
    path = folder / f"{words.replace(' ', '-')}.wav"
    if not path.is_file():
        save_sound(sound_of(wave_of(words), 16_000), path)
    return Example((user(Part("audio", path=path)), assistant(words)), meta)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tones")
    return [row(folder, words) for words in SAID]


def model_of(seed: int = 0, config: dict[str, Any] = CONFIG, **options: Any) -> Any:
    settings = whisper.Settings(config=config, tokenizer=TOKENIZER, **options)
    return whisper.load(None, settings, seed=seed, texts=SAID)


def asked(one: Example, **more: Any) -> Request:
    return Request(messages=one.prompt, max_new_tokens=12, **more)


def test_it_keeps_the_contracts():
    model = model_of()
    for contract in (Learner, Batched, Scorer):
        assert isinstance(model, contract)


@pytest.mark.parametrize("bands", [80, 128])
def test_it_hears_as_transformers_own_extractor(bands):
    from transformers import WhisperFeatureExtractor

    wave = wave_of("low high mid")
    theirs = WhisperFeatureExtractor(feature_size=bands, chunk_length=1)(wave, sampling_rate=16_000).input_features[0]
    ours = features_of(sound_of(wave, 16_000), bands)
    assert ours.shape == (62, bands)
    assert np.abs(ours - theirs.T[:62]).max() < 1e-4
    model = model_of(config=CONFIG | {"num_mel_bins": bands})
    assert np.abs(model._window(ours).numpy() - theirs).max() < 1e-4


def test_the_loss_is_that_of_transformers(rows):
    model = model_of()
    items = [model.encode(one) for one in rows]
    own = 0.0
    for item in items:
        found = item.sequences[0]
        heard = model._window(found["features"])[None]
        given, targets = (torch.as_tensor(found[name]).long()[None] for name in ("given", "targets"))
        own += model.module(input_features=heard, decoder_input_ids=given, labels=targets).loss.item() * item.weight
    batch = model.collate(items)
    assert model.loss(batch).item() == pytest.approx(own, rel=1e-5)
    assert batch.weight == sum(item.weight for item in items)
    told = list(model.likelihood(rows))
    assert sum(one.nll for one in told) == pytest.approx(own, rel=1e-4)


def test_the_cached_sampler_is_the_uncached_one_alone_and_in_a_batch(rows):
    model = model_of(seed=3)
    together = dict(model.generate_many([asked(one) for one in rows]))
    for number, one in enumerate(rows):
        heard = model._window(model.encode(one).sequences[0]["features"].astype(np.float32))[None]
        ids = [model._start()]
        with torch.no_grad():
            for _ in range(12):
                logits = model.module(input_features=heard, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
                logits[model.silent] = float("-inf")
                ids.append(int(logits.argmax()))
                if ids[-1] in model.ends:
                    break
        wanted = model.tokenizer.decode([i for i in ids[1:] if i not in model.ends]).strip()
        assert "".join(part.text for part in model.generate(asked(one))).strip() == wanted
        assert together[number].text == wanted


def test_the_same_seed_draws_the_same_words(rows):
    model = model_of()
    said = ["".join(p.text for p in model.generate(asked(rows[0], temperature=1.0, seed=s))) for s in (1, 1, 2)]
    assert said[0] == said[1] != said[2]


def test_it_learns_one_batch_by_heart(rows):
    torch.manual_seed(0)
    model = model_of()
    batch = model.collate([model.encode(one) for one in rows])
    optimizer = torch.optim.AdamW(model.module.parameters(), 5e-3)
    for _ in range(120):
        loss = model.loss(batch) / batch.weight
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    said = dict(model.generate_many([asked(one) for one in rows]))
    assert [said[n].text for n in range(len(rows))] == SAID


def test_a_long_sound_is_heard_window_by_window_cut_where_it_is_quiet(tmp_path):
    model = model_of()
    wave = np.concatenate([wave_of("low mid high low"), np.zeros(1600), wave_of("mid mid high low low mid")])
    save_sound(sound_of(wave, 16_000), tmp_path / "long.wav")
    request = Request(messages=(user(Part("audio", path=tmp_path / "long.wav")),), max_new_tokens=5)
    parts = list(model.generate(request))
    segments = [one for part in parts for one in (part.meta or {}).get("segments", ())]
    assert [one["start"] for one in segments] == pytest.approx([0, *[one["end"] for one in segments[:-1]]])
    assert 0.8 <= segments[0]["end"] <= 0.9
    assert segments[-1]["end"] == pytest.approx(len(wave) / 16_000, abs=0.01)
    assert all(one["end"] - one["start"] <= 1 for one in segments)
    assert parts[-1].meta["duration"] == pytest.approx(len(wave) / 16_000)
    assert parts[-1].meta["language"] == "en"
    together = next(answer for _, answer in model.generate_many([request]))
    assert together.text.split() == "".join(part.text for part in parts).split()


@pytest.mark.parametrize(
    ("option", "most"),
    [("hide_frames", 30), ("hide_bands", 30), ("tempo", 0.2), ("throat", 0.2), ("loudness", 1), ("late", 30)],
)
def test_what_is_changed_in_training_is_heard_as_it_is_in_looks(rows, option, most):
    model = model_of(**{option: most})
    items = [model.encode(one) for one in rows]
    plain = model.loss(model.collate(items)).item()
    model.module.train()
    torch.manual_seed(1)
    hidden = model.loss(model.collate(items)).item()
    torch.manual_seed(1)
    again = model.loss(model.collate(items)).item()
    model.module.eval()
    assert hidden == again != plain
    assert model.loss(model.collate(items)).item() == plain


def test_ctc_takes_its_share_of_the_loss_and_leaves_the_rest_of_the_model_alone(rows, tmp_path):
    plain, model = model_of(), model_of(ctc=0.25)
    batch = model.collate([model.encode(one) for one in rows])
    attention = plain.loss(plain.collate([plain.encode(one) for one in rows])).item()
    heard = 0.0
    for one in rows:
        with torch.no_grad():
            item = model.encode(one).sequences[0]
            states = model.module.get_encoder()(input_features=model._window(item["features"])[None]).last_hidden_state
            frames = -(-len(item["features"]) // 2)
            spelled = model.module.ctc_head(states[0, :frames]).log_softmax(-1)
        words = torch.as_tensor(item["targets"][:-1]).long()
        heard += torch.nn.functional.ctc_loss(spelled, words, [frames], [len(words)], reduction="sum", blank=0).item()
    assert model.tokenizer.pad_token_id == 0
    assert model.loss(batch).item() == pytest.approx(0.75 * attention + 0.25 * heard, rel=1e-4)
    for name, tensor in plain.module.state_dict().items():
        assert tensor.equal(model.module.state_dict()[name])
    model.save(tmp_path)
    again = whisper.load(tmp_path, whisper.Settings(ctc=0.25))
    assert again.module.ctc_head.weight.equal(model.module.ctc_head.weight)
    assert again.loss(again.collate([again.encode(one) for one in rows])).item() == model.loss(batch).item()


def test_what_ctc_cannot_teach_says_why(rows):
    model = model_of(ctc=0.5)
    crowded = Example((rows[0].messages[0], assistant("llllllllllllllllllll")))
    with pytest.raises(Unlearnable, match="one for each"):
        model.encode(crowded)
    choose("methods", "lora")(model)
    with pytest.raises(UsageError, match="an adapter leaves as it is"):
        model.loss(model.collate([model.encode(rows[0])]))


def test_random_weights_are_drawn_by_the_width():
    for width in (32, 64):
        weight = model_of(config=CONFIG | {"d_model": width}).module.model.encoder.conv1.weight
        assert weight.std().item() == pytest.approx(width**-0.5, rel=0.1)
    asked_for = model_of(config=CONFIG | {"init_std": 0.02}).module.model.encoder.conv1.weight
    assert asked_for.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_vocabulary_of_languages_is_asked_in_whispers_way(rows, tmp_path):
    model = model_of()
    own = ("<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>")
    model.tokenizer.add_special_tokens({"additional_special_tokens": list(own)})
    model.module.resize_token_embeddings(len(model.tokenizer))
    model.module.config.decoder_start_token_id = model.tokenizer.convert_tokens_to_ids(own[0])
    model.save(tmp_path)
    again = whisper.load(tmp_path, whisper.Settings())

    def begun(item: Any) -> list[str]:
        ids = item.sequences[0]["given"][: int((item.sequences[0]["targets"] == -100).sum()) + 1]
        return list(again.tokenizer.convert_ids_to_tokens(ids.tolist()))

    asks = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    assert begun(again.encode(rows[0])) == asks
    assert begun(again.encode(Example(rows[0].messages, {"lang": "zh"})))[1] == "<|zh|>"
    chinese = whisper.load(tmp_path, whisper.Settings(language="zh"))
    assert begun(chinese.encode(rows[0]))[1] == "<|zh|>"
    assert again.loss(again.collate([again.encode(rows[0])])).item() > 0
    list(again.generate(asked(rows[0], options={"language": "zh", "translate": True})))
    with pytest.raises(UsageError, match="'fr' is not known"):
        list(again.generate(asked(rows[0], options={"language": "fr"})))


def test_a_saved_model_hears_the_same_here_and_in_transformers(rows, tmp_path):
    from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq

    model = model_of(seed=5)
    model.save(tmp_path)
    again = whisper.load(tmp_path, whisper.Settings())
    said = [[a.text for _, a in one.generate_many([asked(row) for row in rows])] for one in (model, again)]
    assert said[0] == said[1]
    theirs = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path)
    heard = AutoFeatureExtractor.from_pretrained(tmp_path)(wave_of(SAID[0]), sampling_rate=16_000, return_tensors="pt")
    item = model.encode(rows[0])
    given, targets = (torch.as_tensor(item.sequences[0][name]).long()[None] for name in ("given", "targets"))
    loss = theirs(input_features=heard.input_features, decoder_input_ids=given, labels=targets).loss.item()
    assert loss * item.weight == pytest.approx(again.loss(again.collate([item])).item(), rel=1e-3)


# -- by the one loop -------------------------------------------------------------------------------------------------


@dataclass
class Prepared:
    train: Dataset
    held_out: Dataset


LORA = {"name": "lora", "rank": 4, "dropout": 0.1}
TOLD_ANEW = {"ctc": 0.3, "tempo": 0.1, "throat": 0.1, "loudness": 1, "late": 20}


@pytest.mark.parametrize(
    ("method", "more"), [("full", {}), (LORA, {}), ("full", TOLD_ANEW)], ids=["full", "lora", "ctc"]
)
def test_a_killed_training_ends_in_the_same_model(rows, tmp_path, method, more):
    class Killed(BaseException):
        pass

    def die(step: int, loss: float) -> None:
        if step == 3:
            raise Killed

    made = Recipe.from_dict({
        "name": "tones", "data": {"source": "jsonl", "path": "tones.jsonl"}, "task": "transcribe", "method": method,
        "model": {"config": CONFIG | {"dropout": 0.1}, "tokenizer": TOKENIZER, "hide_frames": 10, "hide_bands": 8}
        | more,
        "train": {"rows_per_batch": 3, "tokens_per_pass": 120, "learning_rate": 5e-3, "max_steps": 5, "epochs": 9,
                  "checkpoint_every": 2, "evaluate_every": 3, "threads": 1},
    })  # fmt: skip
    assert made.chosen_objective.name == "seq2seq"
    assert [metric.name for metric in made.chosen_metrics] == ["wer", "cer"]
    data = Prepared(Dataset(rows[:4]), Dataset(rows[4:]))

    def weights(run: Run) -> dict[str, str]:
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(run.model.rglob("*.safetensors"))}

    whole = tune(made, Run.create(made, tmp_path / "whole"), data)
    killed = Run.create(made, tmp_path / "killed")
    with pytest.raises(Killed):
        tune(made, killed, data, watch=die)
    again = tune(made, killed, data)
    assert [e["step"] for e in again.events("tune.resume")] == [2]
    assert [float(e["loss"]).hex() for e in again.events("step")] == [
        float(e["loss"]).hex() for e in whole.events("step")
    ]
    assert weights(again) == weights(whole)
    assert json.loads((again.model / "genwright.json").read_text())["engine"] == "whisper"
    opened = whisper.load(again.model, whisper.Settings())
    assert opened.loss(opened.collate([opened.encode(rows[0])])).item() > 0


@pytest.mark.skipif(not HIBARI.is_here, reason="needs `genwright models pull hibari`")
@pytest.mark.weights
def test_seconds_of_learning_hear_digits_where_counting_can_only_guess(tmp_path):
    """A voice says ten digits, eight times at some speed for learning and twice at others, with a little noise."""
    said: list[Example] = []
    for seed in range(10):
        voice = {"source": "spoken", "phrases": ["{zero|one|two|three|four|five|six|seven|eight|nine}"], "count": 10,
                 "seed": seed, "slow": 0.8, "fast": 1.25, "rate": 8000, "noise": 0.003,
                 "path": str(HIBARI.folder)}  # fmt: skip
        for one in choose("sources", voice, key="source")():
            path = tmp_path / f"{len(said)}.flac"
            path.write_bytes(one.fields["audio"])
            said.append(Example((user(Part("audio", path=path)), assistant(one.fields["text"]))))
    made = Recipe.from_dict({
        "name": "digits", "data": {"source": "jsonl", "path": "digits.jsonl"}, "task": "transcribe",
        "model": {"config": CONFIG | {"d_model": 64, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256},
                  "tokenizer": TOKENIZER},
        "train": {"rows_per_batch": 16, "tokens_per_pass": 4096, "learning_rate": 3e-3, "warmup": 20,
                  "schedule": "cosine", "max_steps": 220, "epochs": 99, "evaluate_every": 220, "threads": 1},
    })  # fmt: skip
    run = tune(made, Run.create(made, tmp_path / "run"), Prepared(Dataset(said[:80]), Dataset(said[80:])))
    told = dict(whisper.load(run.model, whisper.Settings()).generate_many([asked(one) for one in said[80:]]))
    wer = choose("metrics", "wer")
    heard = wer([Judged(one, answer=told[number]) for number, one in enumerate(said[80:])])
    guessed = wer([Judged(one, answer=assistant("one")) for one in said[80:]])
    assert guessed.value == 0.9
    assert heard.value <= 0.3


# -- what it refuses -------------------------------------------------------------------------------------------------


def test_what_cannot_be_learned_says_why(rows, tmp_path):
    model = model_of()
    with pytest.raises(Unlearnable, match="no sound"):
        model.encode(Example((user("words"), assistant("words"))))
    with pytest.raises(Unlearnable, match="no words"):
        model.encode(Example((rows[0].messages[0], assistant(" "))))
    with pytest.raises(Unlearnable, match="longer than the 1 s"):
        model.encode(row(tmp_path, "low low low low low low"))
    (tmp_path / "odd.wav").write_bytes(b"nothing")
    with pytest.raises(Unlearnable, match="cannot be read"):
        model.encode(Example((user(Part("audio", path=tmp_path / "odd.wav")), assistant("low"))))


def test_what_cannot_be_asked_says_why(rows):
    model = model_of()
    with pytest.raises(UsageError, match="holds no sound"):
        list(model.generate(Request(messages=(user("words"),))))
    with pytest.raises(UsageError, match="translates nothing"):
        list(model.generate(asked(rows[0], options={"translate": True})))
    with pytest.raises(UsageError, match="options"):
        list(model.generate(asked(rows[0], options={"gate": 1})))


def test_what_is_no_speech_model_says_so(tmp_path):
    with pytest.raises(UsageError, match="no speech model to begin with"):
        whisper.load(None, whisper.Settings())
    with pytest.raises(ModelError, match=r"holds no model\.bin"):
        whisper.load(tmp_path, whisper.Settings())
    with pytest.raises(UsageError, match="either a source or a config"):
        (tmp_path / "model.safetensors").touch()
        whisper.load(tmp_path, whisper.Settings(config=CONFIG))
