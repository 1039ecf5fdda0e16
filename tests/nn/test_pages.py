"""Pages of mapped weights: given up, and there again when they are read."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from genwright.nn.pages import let_go

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its own account of memory")


def _from_files():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
    return int(line.split()[1]) * 1024


@linux
def test_mapped_pages_leave_memory_and_come_back_unchanged(tmp_path):
    size = 4_000_000
    save_file({"a": torch.arange(size, dtype=torch.float32)}, tmp_path / "model.safetensors")
    weight = load_file(tmp_path / "model.safetensors")["a"]
    total = weight.double().sum()
    before = _from_files()
    let_go([weight])
    assert before - _from_files() > 0.9 * weight.nbytes
    assert weight.double().sum() == total


@linux
def test_what_was_written_to_stays(tmp_path):
    save_file({"a": torch.zeros(1_000_000)}, tmp_path / "model.safetensors")
    weight = load_file(tmp_path / "model.safetensors")["a"]
    weight += 1
    let_go([weight, torch.ones(10)])
    assert weight.sum() == len(weight)
