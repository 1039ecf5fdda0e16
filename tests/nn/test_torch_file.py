"""Torch files are read without unpickling: the same numbers, and nothing that lies in them is run."""

import collections
import io
import pickle
import struct

import numpy as np
import pytest
import torch

from genwright.core import ModelError
from genwright.nn.torch_file import read_torch_file


def saved(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def state():
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    return collections.OrderedDict(
        weight=base, turned=torch.randn(3, 5).t(), part=base[1:3, ::2], scalar=torch.tensor(7), empty=torch.zeros(0, 3)
    )


def test_the_numbers_are_those_that_were_saved(state, tmp_path):
    found = read_torch_file(saved(state, tmp_path / "a.pth"))
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.numpy().dtype
        assert np.array_equal(found[name], tensor.numpy())
        assert found[name].flags.owndata


def test_a_file_of_one_tensor_is_read_too(tmp_path):
    assert read_torch_file(saved({"a": torch.ones(2)}, tmp_path / "a.pth"))["a"].tolist() == [1, 1]


def test_a_file_that_would_run_something_is_refused_and_runs_nothing(state, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for number, trap in enumerate([Trap(), {"weight": Trap()}, collections.OrderedDict(a=torch.zeros(1), b=Trap())]):
        with pytest.raises(ModelError, match="no tensor needs"):
            read_torch_file(saved(trap, tmp_path / f"{number}.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([torch.zeros(1)], "no mapping"),
        ({"a": 1}, "more than named tensors"),
        ({1: torch.zeros(1)}, "no word"),
        ({"a": torch.zeros(1, dtype=torch.float64)}, "DoubleStorage"),
        (torch.nn.Linear(1, 1), "names"),
    ],
)
def test_what_is_no_plain_state_is_refused(content, why, tmp_path):
    with pytest.raises(ModelError, match=why):
        read_torch_file(saved(content, tmp_path / "a.pth"))


def test_other_formats_are_refused(state, tmp_path):
    torch.save(state, tmp_path / "zip.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "nothing.pth").write_bytes(b"")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}))
    for name in ("zip", "text", "nothing", "plain"):
        with pytest.raises(ModelError, match="no plain file of tensors"):
            read_torch_file(tmp_path / f"{name}.pth")


def test_a_file_cut_off_anywhere_or_longer_is_refused(state, tmp_path):
    whole = saved(state, tmp_path / "a.pth").read_bytes()
    broken = tmp_path / "b.pth"
    for length in range(0, len(whole), 13):
        broken.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="no plain file of tensors"):
            read_torch_file(broken)
    broken.write_bytes(whole + b"\0")
    with pytest.raises(ModelError, match="goes on for 1 bytes"):
        read_torch_file(broken)


def test_a_changed_byte_is_refused_or_stays_plain_numbers(state, tmp_path):
    """Whatever stands in it, nothing but a ModelError comes out, and no array that the file has no room for."""
    whole = saved(state, tmp_path / "a.pth").read_bytes()
    broken, refused, random = tmp_path / "b.pth", 0, np.random.default_rng(0)
    for at in random.integers(0, len(whole), 400):
        changed = bytearray(whole)
        changed[at] = random.integers(256)
        broken.write_bytes(changed)
        try:
            assert sum(array.nbytes for array in read_torch_file(broken).values()) <= 2 * len(whole)
        except ModelError:
            refused += 1
    assert refused > 100


def test_sizes_that_lie_are_refused(tmp_path):
    def claims(shape, strides, offset=0, count=4, held=4):
        """A file of one tensor, its pickles written by hand."""

        class Storage:
            def __init__(self):
                self.id = ("storage", torch.FloatStorage, "0", "cpu", count, None)

        class Tensor:
            def __reduce__(self):
                hooks = collections.OrderedDict()
                return (torch._utils._rebuild_tensor_v2, (storage, offset, shape, strides, False, hooks))

        class Pickler(pickle.Pickler):
            def persistent_id(self, thing):
                return thing.id if isinstance(thing, Storage) else None

        storage, out = Storage(), io.BytesIO()
        for plain in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(plain, out, 2)
        Pickler(out, 2).dump({"a": Tensor()})
        pickle.dump(["0"], out, 2)
        (tmp_path / "a.pth").write_bytes(out.getvalue() + struct.pack("<q", held) + bytes(4 * held))
        return tmp_path / "a.pth"

    assert read_torch_file(claims((2, 2), (2, 1)))["a"].shape == (2, 2)
    for lie in (((5,), (1,)), ((2, 2), (3, 1)), ((2,), (1,), 3), ((2, 2), (1,)), ((1 << 40,), (0,)), ((-1,), (1,))):
        with pytest.raises(ModelError, match="tensor"):
            read_torch_file(claims(*lie))
    with pytest.raises(ModelError, match="are promised"):
        read_torch_file(claims((2, 2), (2, 1), held=5))
    with pytest.raises(ModelError, match="no plain file"):
        read_torch_file(claims((2, 2), (2, 1), count=1 << 60, held=1 << 10))
