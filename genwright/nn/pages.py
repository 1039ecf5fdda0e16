"""Weights that are mapped from a file: once a copy of them is computed with, their pages need not stay in memory."""

from __future__ import annotations

import ctypes
import mmap
import sys
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

_MADV_PAGEOUT = 21  # Linux 5.4: give the pages up; whoever reads them again gets them from the file


def let_go(weights: Iterable[Tensor]) -> None:
    """Give up the pages of weights that lie in a mapped file; what lies elsewhere, and other systems, are left alone.

    Nothing is lost: clean pages are read from the file again, and pages that were written to stay.
    """
    if sys.platform != "linux":
        return
    ranges = _mapped_files()
    starts = [start for start, _ in ranges]
    for weight in weights:
        if weight.device.type != "cpu" or not weight.is_contiguous():
            continue
        first = -(-weight.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (weight.data_ptr() + weight.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        place = bisect_right(starts, first) - 1
        if first < last and place >= 0 and last <= ranges[place][1]:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_PAGEOUT)


def _mapped_files() -> list[tuple[int, int]]:
    """Where files of weights are mapped in this process: (first byte, byte after the last), in order."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, _, rest = line.partition(" ")
        if rest.endswith(".safetensors"):
            first, _, last = place.partition("-")
            found.append((int(first, 16), int(last, 16)))
    return sorted(found)
