"""The device: where the passes run, in which precision, on how many threads and how repeatably."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from genwright.core.errors import UsageError
from genwright.core.recipe import Train

# Of mallopt: the trim threshold, padding of the heap, mmap threshold, most mappings. All is kept; as in usual use.
_KEPT = ((-1, -1), (-2, 1 << 26), (-4, 0))
_USUAL = ((-1, 1 << 26), (-2, 1 << 17), (-3, 1 << 25), (-4, 65_536))


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's GPU, else the CPU. Raises UsageError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"There is no device {name!r} here: {reason}", "Set train.device to auto or cpu.") from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the machine multiplies it in hardware, else float32."""
    if name != "auto":
        return {"bfloat16": torch.bfloat16, "int8": torch.int8}.get(name, torch.float32)
    return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public name for them
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    return False


def is_slow(module: torch.nn.Module, device: torch.device) -> bool:
    """Whether weights are in bfloat16 on a machine that multiplies it in software (twenty times slower and more)."""
    return not has_fast_bfloat16(device) and any(p.dtype == torch.bfloat16 for p in module.parameters())


def passes_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """The context for a forward pass: autocast where `dtype` is not float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


@contextmanager
def as_set(settings: Train) -> Iterator[None]:
    """Threads and determinism as the recipe says, and as they were afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(settings.deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow, and no need
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def compile_module(module: torch.nn.Module, device: torch.device) -> None:
    """torch.compile in place, for rows of any length. Raises UsageError when the CPU has no compiler to do it with."""
    if device.type == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl")):
        raise UsageError("train.compile needs a C++ compiler, and none was found.", "Install g++, or set it to false.")
    module.compile(dynamic=True)


@contextmanager
def memory_kept() -> Iterator[None]:
    """Within it freed memory stays with the process, where the C library is glibc: a step takes again what the step
    before gave back, and the kernel need not clear the same pages anew (mallopt(3)). After it all goes back."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    for what, value in _KEPT:
        library.mallopt(what, value)
    try:
        yield
    finally:
        for what, value in _USUAL:
            library.mallopt(what, value)
        library.malloc_trim(ctypes.c_size_t(0))


def peak_memory(device: torch.device) -> int:
    """Bytes: the most this process has held so far (on a GPU: the most that was allocated there)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def random_state(device: torch.device) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Every generator that a pass on `device` may draw from: torch's as tensors, Python's and numpy's as plain data."""
    tensors = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        tensors["mps"] = torch.mps.get_rng_state()
    version, inner, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return tensors, {"python": [version, list(inner), gauss], "numpy": [name, [int(key) for key in keys], *rest]}


def set_random_state(tensors: dict[str, torch.Tensor], plain: dict[str, Any], device: torch.device) -> None:
    """Put every generator back to what `random_state` gave."""
    torch.set_rng_state(tensors["cpu"])
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
    elif device.type == "mps" and "mps" in tensors:
        torch.mps.set_rng_state(tensors["mps"])
    version, inner, gauss = plain["python"]
    random.setstate((version, tuple(inner), gauss))
    name, keys, *rest = plain["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Within it everything random follows from `seed`; outside nothing has been drawn."""
    before = random_state(device)
    seed_all(seed)
    try:
        yield
    finally:
        set_random_state(*before, device)
