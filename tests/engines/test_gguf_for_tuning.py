"""GGUF files for tuning: restored to the weights, the tokens and the answers of the model that was written."""

import struct

import pytest
import torch

from genwright.core import ModelError, Request, Tell, home, user
from genwright.engines import causal_lm
from genwright.nn.gguf_weights import converted, read_gguf
from genwright.nn.gguf_writer import write_gguf

from .tiny import CHAT, DECODERS, TEXTS

GEMMA = {"sliding_window": 8, "num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]}


class Notes(Tell):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def write(path, kind, quantization="f32", **change):
    config = DECODERS[kind] | {"hidden_size": 64} | (GEMMA if kind == "gemma3" else {}) | change
    if kind == "gpt2":
        config = DECODERS[kind] | {"n_embd": 64}
    settings = causal_lm.Settings(config=config, tokenizer={"train": "bpe", "vocab_size": 320})
    model = causal_lm.load(None, settings, seed=1, texts=TEXTS)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    write_gguf(path, model.module.state_dict(), model.module.config, model.tokenizer, quantization=quantization,
               facts={"name": "tiny"})  # fmt: skip
    return model


@pytest.fixture(autouse=True)
def _own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("kind", list(DECODERS))
def test_what_was_written_is_what_is_read(kind, tmp_path):
    model = write(tmp_path / "m.gguf", kind)
    again = causal_lm.load(tmp_path / "m.gguf", causal_lm.Settings())
    mine, theirs = model.module.state_dict(), again.module.state_dict()
    assert mine.keys() == theirs.keys()
    assert max((mine[name] - theirs[name]).abs().max().item() for name in mine) < 1e-6
    batch = model.collate([model.encode(CHAT)])
    assert again.encode(CHAT).sequences[0]["tokens"].tolist() == model.encode(CHAT).sequences[0]["tokens"].tolist()
    assert again.loss(batch).item() == pytest.approx(model.loss(batch).item(), rel=1e-5)
    request = Request(messages=(user("hello"),), max_new_tokens=8)
    assert [p.text for p in again.generate(request)] == [p.text for p in model.generate(request)]


def test_quantised_weights_come_back_as_near_as_they_were_stored(tmp_path):
    model = write(tmp_path / "m.gguf", "llama", "q8_0")
    again = causal_lm.load(tmp_path / "m.gguf", causal_lm.Settings())
    mine, theirs = (m.module.state_dict()["model.layers.1.mlp.up_proj.weight"] for m in (model, again))
    assert 0 < (mine - theirs).abs().max() < mine.abs().max() / 100


def test_it_is_converted_once(tmp_path):
    write(tmp_path / "m.gguf", "llama")
    notes = Notes()
    folder = converted(tmp_path / "m.gguf", tell=notes)
    assert folder.parent == home.store() / "converted"
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert converted(tmp_path / "m.gguf", tell=notes) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert len(notes.notes) == 1
    assert not list(folder.parent.glob(".*"))


def test_a_conversion_that_fails_leaves_nothing(tmp_path, monkeypatch):
    write(tmp_path / "m.gguf", "llama")

    def full(*args, **kwargs):
        raise ModelError("no")

    monkeypatch.setattr("genwright.nn.gguf_weights._write_safetensors", full)
    with pytest.raises(ModelError, match="no"):
        converted(tmp_path / "m.gguf")
    assert not list((home.store() / "converted").iterdir())


def test_a_file_that_lies_is_refused_before_anything_is_read(tmp_path):
    write(tmp_path / "m.gguf", "llama")
    whole = (tmp_path / "m.gguf").read_bytes()
    name = b"blk.0.attn_q.weight"
    place = whole.index(name) + len(name) + 4
    for number, bad in enumerate(
        [
            whole[: len(whole) // 2],
            whole[:20],
            b"GGML" + whole[4:],
            whole[:8] + struct.pack("<Q", 1 << 60) + whole[16:],
            whole[:place] + struct.pack("<Q", 1 << 50) + whole[place + 8 :],
            whole[: place + 20] + struct.pack("<Q", 1 << 40) + whole[place + 28 :],
            whole.replace(b"blk.1.attn_q.weight", name),
        ]
    ):
        path = tmp_path / f"bad{number}.gguf"
        path.write_bytes(bad)
        with pytest.raises(ModelError, match="not a sound GGUF file"):
            read_gguf(path)


def test_an_unknown_tensor_is_named(tmp_path):
    write(tmp_path / "m.gguf", "llama")
    odd = (tmp_path / "m.gguf").read_bytes().replace(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight")
    (tmp_path / "odd.gguf").write_bytes(odd)
    with pytest.raises(ModelError, match="attn_x"):
        converted(tmp_path / "odd.gguf")
