"""The packaged Whisper, in CTranslate2's form, becomes a network that is taught: the same numbers, the same words."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genwright.core import (
    Dataset,
    Example,
    ModelError,
    Part,
    Recipe,
    Request,
    Run,
    UsageError,
    assistant,
    find_card,
    user,
)  # fmt: skip
from genwright.engines import whisper
from genwright.formats import merged
from genwright.media.sound import open_sound, save_sound, sound_of
from genwright.nn.ctranslate2_file import read_ctranslate2
from genwright.nn.whisper import RATE, Listener, features_of
from genwright.nn.whisper_learner import Scribe
from genwright.verbs.evaluate import evaluate_run
from genwright.verbs.models import open_model
from genwright.verbs.tune import tune

CONFIG = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
          "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 48, "max_source_positions": 50,
          "max_target_positions": 24}  # fmt: skip
SAID = ["low mid", "mid high", "high low", "low"]
TONES = {"low": 300, "mid": 900, "high": 2500}
SPECIAL = ("<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>",
           "<|nospeech|>", "<|notimestamps|>")  # fmt: skip
KINDS = {"float32": 0, "int8": 1, "int16": 2, "float16": 4, "bfloat16": 5}
FLAGS = {"decoder/activation": 3, "decoder/alibi": 0, "decoder/pre_norm": 1, "decoder/scale_embeddings": 0,
         "decoder/start_from_zero_embedding": 0}  # fmt: skip
NUMBERS = {"encoder/num_heads": 2, "decoder/num_heads": 2, "decoder/alignment_heads": 1, "decoder/alignment_layer": -1}
BLOCK = {"self_attn_layer_norm": "self_attention/layer_norm", "self_attn.out_proj": "self_attention/linear_1",
         "encoder_attn_layer_norm": "attention/layer_norm", "encoder_attn.q_proj": "attention/linear_0",
         "encoder_attn.out_proj": "attention/linear_2", "final_layer_norm": "ffn/layer_norm", "fc1": "ffn/linear_0",
         "fc2": "ffn/linear_1"}  # fmt: skip


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def entry(name: str, array: np.ndarray, kind: int) -> bytes:
    head = struct.pack(f"<B{array.ndim}IBI", array.ndim, *array.shape, kind, array.nbytes)
    return string(name) + head + array.tobytes()


def stored(name: str, weight: np.ndarray, kind: str) -> list[bytes]:
    """A weight as CTranslate2 stores it: what is quantised has its scale beside it."""
    if kind in ("int8", "int16") and name.endswith("weight"):
        if kind == "int16":
            scale = np.float32(2**10 / np.abs(weight).max())
            return [entry(f"{name}_scale", np.array(scale), 0), entry(name, np.rint(weight * scale).astype("<i2"), 2)]
        most = np.abs(weight).reshape(len(weight), -1).max(1)
        scale = (127 / np.where(most == 0, 127, most)).astype("<f4")
        rows = np.rint(weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype("i1")
        return [entry(f"{name}_scale", scale, 0), entry(name, rows, 1)]
    if kind == "float16":
        return [entry(name, weight.astype("<f2"), 4)]
    if kind == "bfloat16":
        return [entry(name, (weight.view("<u4") >> 16).astype("<u2"), 5)]
    return [entry(name, weight, 0)]


def weights_of(module: Any) -> dict[str, np.ndarray]:
    """Of transformers' Whisper by CTranslate2's names: queries, keys and values in one matrix."""
    found = {}
    state = {name: tensor.float().numpy() for name, tensor in module.state_dict().items()}
    for side, layers in (("encoder", CONFIG["encoder_layers"]), ("decoder", CONFIG["decoder_layers"])):
        found[f"{side}/position_encodings/encodings"] = state[f"model.{side}.embed_positions.weight"]
        norms = {f"model.{side}.layer_norm": f"{side}/layer_norm"}
        for n in range(layers):
            here, there = f"model.{side}.layers.{n}", f"{side}/layer_{n}"
            norms |= {f"{here}.{ours}": f"{there}/{theirs}" for ours, theirs in BLOCK.items() if "norm" in ours}
            for ours, theirs in BLOCK.items():
                if "norm" not in ours and f"{here}.{ours}.weight" in state:
                    found |= {f"{there}/{theirs}/{end}": state[f"{here}.{ours}.{end}"] for end in ("weight", "bias")}
            for ours, theirs, parts in (
                ("self_attn", "self_attention/linear_0", "qkv"),
                ("encoder_attn", "attention/linear_1", "kv"),
            ):
                if f"{here}.{ours}.v_proj.weight" in state:
                    joined = [state[f"{here}.{ours}.{part}_proj.weight"] for part in parts]
                    biases = [state.get(f"{here}.{ours}.{part}_proj.bias", np.zeros(32, "<f4")) for part in parts]
                    found |= {
                        f"{there}/{theirs}/weight": np.concatenate(joined),
                        f"{there}/{theirs}/bias": np.concatenate(biases),
                    }
        for ours, theirs in norms.items():
            if f"{ours}.weight" in state:
                found |= {f"{theirs}/gamma": state[f"{ours}.weight"], f"{theirs}/beta": state[f"{ours}.bias"]}
    for name in ("conv1", "conv2"):
        found |= {f"encoder/{name}/{end}": state[f"model.encoder.{name}.{end}"] for end in ("weight", "bias")}
    return found | {"decoder/embeddings/weight": state["model.decoder.embed_tokens.weight"]}


def packed_bytes(
    module: Any, kind: str = "float32", *, spec: str = "WhisperSpec", revision: int = 3, version: int = 6
) -> bytes:
    entries = [entry(name, np.array(value, "i1"), 1) for name, value in FLAGS.items()]
    entries += [entry(name, np.array(value, "<i2"), 2) for name, value in NUMBERS.items()]
    entries += [piece for name, weight in weights_of(module).items() for piece in stored(name, weight, kind)]
    head = struct.pack("<I", version) + string(spec) + struct.pack("<II", revision, len(entries))
    other = string("decoder/projection/weight") + string("decoder/embeddings/weight")
    return head + b"".join(entries) + struct.pack("<I", 1) + other


@pytest.fixture(scope="module")
def original(tmp_path_factory: Any) -> Any:
    """A tiny Whisper of transformers, with a vocabulary of languages and tasks and ten times."""
    model = whisper.load(
        None, whisper.Settings(config=CONFIG, tokenizer={"train": "bpe", "vocab_size": 280}), seed=4, texts=SAID
    )
    model.tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    model.module.resize_token_embeddings(len(model.tokenizer) + 10)
    model.module.config.decoder_start_token_id = model.tokenizer.convert_tokens_to_ids(SPECIAL[0])
    folder = tmp_path_factory.mktemp("original")
    model.save(folder)
    return whisper.load(folder, whisper.Settings())


@pytest.fixture(scope="module")
def pack(original: Any, tmp_path_factory: Any) -> Callable[..., Path]:
    """A folder as faster-whisper's converter leaves it."""

    def made(kind: str = "float32", **how: Any) -> Path:
        folder = tmp_path_factory.mktemp("packed")
        (folder / "model.bin").write_bytes(packed_bytes(original.module, kind, **how))
        original.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        known = original.tokenizer.get_vocab()
        words = sorted(known, key=known.__getitem__) + [f"<|{n / 50:.2f}|>" for n in range(10)]
        (folder / "vocabulary.json").write_text(json.dumps(words))
        facts = {"lang_ids": [known["<|en|>"], known["<|zh|>"]], "suppress_ids": [5, 6], "suppress_ids_begin": [7],
                 "alignment_heads": [[0, 1]]}  # fmt: skip
        (folder / "config.json").write_text(json.dumps(facts))
        return folder

    return made


def taught(folder: Path, **options: Any) -> Any:
    return whisper.load(folder, whisper.Settings(**options), purpose="tune")


def row(folder: Path, words: str) -> Example:
    t = np.arange(3200) / RATE
    path = folder / f"{words.replace(' ', '-')}.wav"
    wave = np.concatenate([0.3 * np.sin(2 * np.pi * TONES[w] * t) * np.hanning(3200) for w in words.split()])
    save_sound(sound_of(wave, RATE), path)
    return Example((user(Part("audio", path=path)), assistant(words)), {})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: Any) -> list[Example]:
    folder = tmp_path_factory.mktemp("tones")
    return [row(folder, words) for words in SAID]


# -- the same network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "near"), [
    ("float32", 0), ("float16", 1e-3), ("bfloat16", 1e-2), ("int16", 2e-3), ("int8", 1e-2),
])  # fmt: skip
def test_the_same_numbers_come_back(original, pack, rows, kind, near):
    ours = taught(pack(kind))
    wanted, found = original.module.state_dict(), ours.module.state_dict()
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        assert (found[name] - tensor).abs().max() <= near * tensor.abs().max(), name
    assert ours.module.proj_out.weight is ours.module.model.decoder.embed_tokens.weight
    assert not ours.module.model.encoder.embed_positions.weight.requires_grad
    losses = [m.loss(m.collate([m.encode(one) for one in rows])).item() for m in (original, ours)]
    assert losses[1] == pytest.approx(losses[0], rel=max(near, 1e-6))


def test_the_runtime_hears_the_same_in_these_bytes(pack, rows):
    ctranslate2 = pytest.importorskip("ctranslate2")
    folder = pack()
    runtime = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=1)
    ours = taught(folder)
    heard = ours._window(features_of(open_sound(rows[0].prompt[0].parts[0].path)))[None]
    theirs = np.array(runtime.encode(ctranslate2.StorageView.from_array(heard.numpy())))
    with torch.no_grad():
        assert np.abs(ours.module.get_encoder()(heard).last_hidden_state.numpy() - theirs).max() < 1e-4


def test_languages_tasks_and_words_that_are_no_speech_are_told_to_transformers(pack):
    ours = taught(pack())
    known, told = ours.tokenizer.get_vocab(), ours.module.generation_config
    assert told.lang_to_id == {"<|en|>": known["<|en|>"], "<|zh|>": known["<|zh|>"]}
    assert told.task_to_id == {"transcribe": known["<|transcribe|>"], "translate": known["<|translate|>"]}
    assert (told.suppress_tokens, told.begin_suppress_tokens, told.alignment_heads) == ([5, 6], [7], [[0, 1]])
    assert told.no_timestamps_token_id == known["<|notimestamps|>"]
    assert set(range(len(known), len(known) + 10)) <= set(ours.silent)  # times are no words


def test_it_is_quick_to_answer_and_open_to_tuning(pack):
    folder = str(pack())
    assert isinstance(open_model(folder), Listener)
    ours = open_model({"source": folder}, purpose="tune")
    assert isinstance(ours, Scribe)
    assert ours.base_reference["path"] == folder
    assert len(ours.base_reference["sha256"]) == 64


# -- windows ---------------------------------------------------------------------------------------------------------


def test_a_shorter_window_hears_the_same_beginning(pack, rows, tmp_path):
    folder = pack()
    whole, half = taught(folder), taught(folder, window=0.5)
    assert (half.frames, whole.frames) == (50, 100)
    assert torch.equal(
        half.module.model.encoder.embed_positions.weight, whole.module.model.encoder.embed_positions.weight[:25]
    )
    assert half.loss(half.collate([half.encode(rows[0])])).item() > 0
    half.save(tmp_path)
    again = whisper.load(tmp_path, whisper.Settings())
    assert again.frames == 50
    with pytest.raises(UsageError, match="hears 1 s at once"):
        taught(folder, window=2)


# -- tuning ----------------------------------------------------------------------------------------------------------


@dataclass
class Prepared:
    train: Dataset
    held_out: Dataset


@pytest.mark.parametrize("method", ["full", {"name": "lora", "rank": 4, "targets": ["encoder_attn.q_proj", "fc1"]}],
                         ids=["full", "lora"])  # fmt: skip
def test_what_it_is_taught_is_kept_judged_opened_and_merged(pack, rows, tmp_path, method):
    folder = pack("float16")
    made = Recipe.from_dict({
        "name": "tones", "data": {"source": "jsonl", "path": "tones.jsonl"}, "task": "transcribe", "method": method,
        "model": {"source": str(folder), "window": 0.8},
        "train": {"rows_per_batch": 2, "learning_rate": 5e-3, "max_steps": 6, "epochs": 9, "threads": 1},
        "evaluate": {"samples": 0},
    })  # fmt: skip
    data = Prepared(Dataset(rows[:3]), Dataset(rows[3:]))
    run = tune(made, Run.create(made, tmp_path / "run"), data)
    report = evaluate_run(made, run, data)
    losses = next(r for r in report.brief() if r["metric"] in ("nll", "perplexity", "loss") or r["metric"] == "wer")
    assert losses["base"] is not None
    opened = open_model(str(run.folder))
    assert isinstance(opened, Scribe)
    assert opened.frames == 80
    plain = taught(folder, window=0.8)
    asked = Request(messages=rows[0].prompt, max_new_tokens=8)
    (said,) = (answer.text for _, answer in opened.generate_many([asked]))
    assert said == "".join(part.text for part in opened.generate(asked)).strip()
    batch = [opened.encode(one) for one in rows[:3]]
    assert opened.loss(opened.collate(batch)).item() < plain.loss(plain.collate(batch)).item()
    if method == "full":
        return
    with opened.untuned():
        assert opened.loss(opened.collate(batch)).item() == pytest.approx(
            plain.loss(plain.collate(batch)).item(), rel=1e-5
        )
    merged.export(run, tmp_path / "whole", merged.Settings())
    alone = whisper.load(tmp_path / "whole", whisper.Settings())
    assert alone.frames == 80
    assert alone.loss(alone.collate(batch)).item() == pytest.approx(opened.loss(opened.collate(batch)).item(), rel=1e-4)
    changed = bytearray((folder / "model.bin").read_bytes())
    changed[-200] ^= 1
    (folder / "model.bin").write_bytes(changed)
    with pytest.raises(ModelError, match="sha256 differs"):
        open_model(str(run.folder))


# -- what it refuses -------------------------------------------------------------------------------------------------


def at(name: str, offset: int, form: str, value: int) -> Callable[[bytes], bytes]:
    """The bytes with a number written over, so far after a variable's name."""

    def changed(data: bytes) -> bytes:
        place = data.index(string(name)) + len(string(name)) + offset
        return data[:place] + struct.pack(form, value) + data[place + struct.calcsize(form) :]

    return changed


WORDS = "decoder/embeddings/weight"
BROKEN = {
    "empty": (lambda data: b"", "cannot mmap an empty file|promised"),
    "cut in a weight": (lambda data: data[: len(data) // 2], "are promised at byte"),
    "cut in the names": (lambda data: data[:-3], "are promised at byte"),
    "longer": (lambda data: data + b"more", "goes on for 4 bytes"),
    "a pickle": (lambda data: b"\x80\x02}q\x00." + data, "of version"),
    "an older version": (lambda data: struct.pack("<I", 4) + data[4:], "version 4"),
    "count": (at("WhisperSpec", 4, "<I", 2**32 - 1), "4,294,967,295 variables"),
    "sides": (at(WORDS, 0, "<B", 200), "200 sides"),
    "huge sides": (at(WORDS, 1, "<I", 2**32 - 1), "claims the sides"),
    "no side": (at(WORDS, 1, "<I", 0), "claims the sides"),
    "huge bytes": (at(WORDS, 10, "<I", 2**32 - 1), "claims the sides"),
    "kind": (at(WORDS, 9, "<B", 77), "unknown kind"),
    "twice": (lambda data: data.replace(string("encoder/conv1/bias"), string("encoder/conv2/bias")), "twice"),
    "no name": (lambda data: data.replace(b"conv1/bias\0", b"conv1/biasx"), "a name does not end"),
    "no letters": (lambda data: data.replace(b"conv1/bias\0", b"conv1/\xff\xff\xff\xff\0"), "utf-8|decode"),
    "another name of nothing": (lambda data: data[:-4] + b"xxx\0", "cannot be another name"),
    "lacks": (lambda data: data.replace(b"conv1/bias\0", b"conv1/bios\0"), "lacks encoder/conv1/bias"),
    "heads": (at("encoder/num_heads", 6, "<h", 5), "not a sound model"),
    "no heads": (at("encoder/num_heads", 6, "<h", 0), "not a sound model"),
    "activation": (at("decoder/activation", 6, "<b", 0), "not built as Whisper's"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_or_lying_file_is_told(pack, how):
    change, words = BROKEN[how]
    folder = pack()
    data = (folder / "model.bin").read_bytes()
    assert change(data) != data
    (folder / "model.bin").write_bytes(change(data))
    with pytest.raises(ModelError, match=words):
        if how == "empty" or how == "a pickle":
            read_ctranslate2(folder / "model.bin")
        taught(folder)


def test_a_scale_that_lies_and_numbers_of_another_kind_are_told(pack):
    folder = pack("int8")
    data = (folder / "model.bin").read_bytes()
    scale = string("encoder/layer_0/ffn/linear_0/weight_scale")
    place = data.index(scale) + len(scale) + 10
    (folder / "model.bin").write_bytes(data[:place] + struct.pack("<f", -1) + data[place + 4 :])
    with pytest.raises(ModelError, match="scale of encoder/layer_0/ffn/linear_0/weight does not fit"):
        taught(folder)
    (folder / "model.bin").write_bytes(data.replace(scale, scale.replace(b"scale", b"zzzzz")))
    with pytest.raises(ModelError, match="quantised in a way"):
        taught(folder)


def test_what_is_no_whisper_says_what_to_do(pack, tmp_path):
    other = pack(spec="TransformerSpec")
    for purpose in ("tune", "answer"):
        with pytest.raises(ModelError, match="'TransformerSpec', which is no Whisper") as caught:
            whisper.load(other, whisper.Settings(), purpose=purpose)
        assert "whisper-base" in caught.value.hint
    with pytest.raises(ModelError, match="revision 1"):
        taught(pack(revision=1))
    with pytest.raises(ModelError, match="only a Whisper can be taught"):
        open_model({"source": str(pack()), "engine": "causal_lm"}, purpose="tune")
    foreign = pack()
    words = json.loads((foreign / "tokenizer.json").read_text().replace("<|startoftranscript|>", "<|begin|>"))
    (foreign / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ModelError, match="not Whisper's"):
        taught(foreign)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.bin").write_bytes(b"\x80\x02}q\x00." * 20)
    with pytest.raises(ModelError, match="pickle"):
        open_model(str(tmp_path), purpose="tune")


# -- the packaged one itself -----------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.skipif(
    not (find_card("whisper-base").is_here and find_card("hibari").is_here),
    reason="needs `genwright models pull whisper-base` and `hibari`",
)
def test_the_packaged_whisper_says_the_same_when_it_can_be_taught(tmp_path):
    import ctranslate2

    say = open_model("hibari")
    request = Request(messages=(user("The quick brown fox jumps over the lazy dog."),), seed=1, out=tmp_path / "a.wav")
    sound = next(part for part in say.generate(request) if part.path)
    asked = Request(messages=(user(sound),), seed=1, max_new_tokens=40, options={"language": "en"})
    runtime, ours = open_model("whisper-base"), open_model("whisper-base", purpose="tune")
    assert isinstance(runtime, Listener)
    words = ["".join(part.text for part in model.generate(asked)).strip() for model in (runtime, ours)]
    assert words[0] == words[1] == "The quick brown fox jumps over the lazy dog."
    exact = ctranslate2.models.Whisper(str(find_card("whisper-base").folder), compute_type="float32", intra_threads=1)
    heard = ours._window(features_of(open_sound(sound.path).mono().at(RATE)))[None]
    theirs = np.array(exact.encode(ctranslate2.StorageView.from_array(heard.numpy())))
    with torch.no_grad():
        assert np.abs(ours.module.get_encoder()(heard).last_hidden_state.numpy() - theirs).max() < 1e-2
