"""Weights from strangers: every lie in a header is found before anything is allocated or run."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genwright.core import ModelError
from genwright.nn.weights import (
    check_model_folder,
    check_safetensors,
    parameters_in,
    read_json,
    sha256_of,
    weight_files,
    weights_digest,
)


def sound(path, **tensors):
    save_file(tensors or {"a": np.ones((2, 3), np.float32), "b": np.arange(4, dtype=np.int64)}, path)
    return path


def written(path, header, body=b"\0" * 24, *, length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + body)
    return path


def entry(shape=(2, 3), dtype="F32", offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_sound_file_is_read(tmp_path):
    path = sound(tmp_path / "m.safetensors")
    assert set(check_safetensors(path)) == set(load_file(path)) == {"a", "b"}
    assert parameters_in([path]) == 10
    assert check_safetensors(written(tmp_path / "x.safetensors", {"a": entry()}))
    assert check_safetensors(written(tmp_path / "y.safetensors", {"a": entry((0, 4), offsets=(0, 0))}, b""))


@pytest.mark.parametrize(
    ("header", "options", "reason"),
    [
        ({"a": entry()}, {"length": 2**63}, "header claims"),
        ({"a": entry()}, {"length": 10**6}, "header claims"),
        (b"\xff\xfe{", {}, "cannot be read"),
        (b"[" * 100_000, {}, "cannot be read"),
        (b"[1]", {}, "not a table"),
        (b'{"a": 1, "a": 2}', {}, "twice"),
        (('{"a":' + json.dumps(entry()) + ',"a":' + json.dumps(entry()) + "}").encode(), {}, "twice"),
        ({"a": entry(dtype="PICKLE")}, {}, "dtype"),
        ({"a": entry(dtype=None)}, {}, "dtype"),
        ({"a": entry(dtype="F16")}, {}, "claims the shape"),
        ({"a": entry((2, 4))}, {}, "claims the shape"),
        ({"a": entry((2**40, 2**40))}, {}, "claims the shape"),
        ({"a": entry((-2, -3))}, {}, "no shape"),
        ({"a": entry((2.0, 3))}, {}, "no shape"),
        ({"a": entry((True, 6))}, {}, "no shape"),
        ({"a": entry(offsets=(0,))}, {}, "no offsets"),
        ({"a": entry(), "b": entry((1, 3), offsets=(12, 24))}, {}, "overlaps"),
        ({"a": entry((1, 3), offsets=(0, 12)), "b": entry((1, 2), offsets=(16, 24))}, {}, "hole"),
        ({"a": entry()}, {"body": b"\0" * 23}, "promises"),
        ({"a": entry()}, {"body": b"\0" * 25}, "promises"),
        ({"a": entry(offsets=(2**62, 2**62 + 24))}, {}, "hole"),
        ({"a": entry(offsets=(24, 0))}, {}, "claims the shape"),
    ],
)
def test_every_lie_is_named_with_the_file(tmp_path, header, options, reason):
    path = written(tmp_path / "bad.safetensors", header, **options)
    with pytest.raises(ModelError, match=reason) as error:
        check_safetensors(path)
    assert "bad.safetensors" in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("keep", [0, 5, 8, 40, -1])
def test_a_file_that_was_cut_short_is_refused(tmp_path, keep):
    path = sound(tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"m\.safetensors"):
        check_safetensors(path)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
def test_pickles_are_never_opened(tmp_path, suffix):
    canary = tmp_path / "canary"
    (tmp_path / "config.json").write_text("{}")
    evil = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    (tmp_path / f"pytorch_model{suffix}").write_bytes(evil)
    with pytest.raises(ModelError, match="run code") as error:
        check_model_folder(tmp_path)
    assert "safe_serialization" in error.value.hint
    assert not canary.exists()


def test_code_of_its_own_is_refused_wherever_it_stands(tmp_path):
    sound(tmp_path / "model.safetensors")
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / name).write_text(json.dumps({"text_config": [{"auto_map": {"AutoModel": "evil.Model"}}]}))
        with pytest.raises(ModelError, match="auto_map"):
            check_model_folder(tmp_path)
        (tmp_path / name).write_text("{}")
    assert check_model_folder(tmp_path) == {}


def test_an_index_stays_in_its_folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    index = tmp_path / "model.safetensors.index.json"
    sound(tmp_path / "a.safetensors")
    for name, reason in (("../evil.safetensors", "not a file of this"), ("evil.bin", "not a file of this"),
                         ("gone.safetensors", "lacks")):  # fmt: skip
        index.write_text(json.dumps({"weight_map": {"x": name}}))
        with pytest.raises(ModelError, match=reason):
            check_model_folder(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    assert weight_files(tmp_path) == [tmp_path / "a.safetensors"]
    index.write_text("{}")
    with pytest.raises(ModelError, match="weight_map"):
        weight_files(tmp_path)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ModelError, match="no model folder"):
        check_model_folder(tmp_path / "gone")
    with pytest.raises(ModelError, match=r"lacks config\.json"):
        check_model_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="not a JSON object"):
        read_json(tmp_path / "config.json")
    with pytest.raises(ModelError, match="too large"):
        read_json(tmp_path / "config.json", largest=1)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no weights"):
        check_model_folder(tmp_path)


def test_one_flipped_byte_changes_the_digest(tmp_path):
    path = sound(tmp_path / "model.safetensors")
    before = weights_digest(tmp_path)
    assert before == weights_digest(path) == sha256_of(path)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert weights_digest(tmp_path) != before
    sound(tmp_path / "other.safetensors")
    assert weights_digest(tmp_path) not in (before, sha256_of(path))
