"""Memory that a training keeps: large blocks come again without new pages, and go back to the system afterwards."""

import platform
import resource

import pytest
import torch

from genwright.nn.device import memory_kept

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")


def faults(times):
    """Minor page faults of writing 40 MB anew, so many times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_the_same_pages_are_used_again_and_given_back():
    with memory_kept():
        faults(10)
        kept, within = faults(20), held()
    assert held() < within - 30_000_000
    assert kept < faults(20) / 4  # else each time mapped, and cleared by the kernel


def test_what_fails_within_is_told_and_all_goes_back():
    with pytest.raises(ZeroDivisionError), memory_kept():
        faults(1)
        _ = 1 / 0
    assert faults(5) > 100
