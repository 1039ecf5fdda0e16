"""Memory: what there is on this machine, and what a process with all its children takes of it. Linux, by /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from genwright.core import Run, UsageError
from genwright.core.card import cards, find_card

_SHARE = 0.7  # of the machine's memory that models may take when nobody says more
_BESIDE = 120_000_000  # bytes that a worker takes besides its weights: the interpreter, caches, buffers
_WEIGHTS = (".gguf", ".safetensors")


def budget() -> int:
    """Bytes that models may take: a share of what the machine, or the container, has."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        said = _read(Path(place)).strip()
        if said.isdigit():
            most = min(most, int(said))
    return int(most * _SHARE)


def taken(pid: int) -> int:
    """Bytes of a process and of all that it started; pages shared by several count once (PSS)."""
    return sum(_pss(one) for one in _tree(pid))


def likely(source: str) -> int:
    """Bytes that a model will take, guessed before it is loaded: its weights, and what a process takes besides."""
    return _BESIDE + _weights(source)


def _weights(source: str) -> int:
    path = Path(source).expanduser()
    if source in cards():
        return find_card(source).size
    if Run.is_run(path):
        exported = sorted(path.glob("exports/gguf/*.gguf"))
        if exported:
            return exported[0].stat().st_size
        try:
            own = Run.open(path).recipe.model.source or ""
        except UsageError:
            own = ""
        return _weights(str(path / "model")) + (_weights(own) if own and own != source else 0)
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.suffix in _WEIGHTS)
    return path.stat().st_size if path.is_file() else 0


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for place in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(place).split():
            yield from _tree(int(child))


def _pss(pid: int) -> int:
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    pages = _read(Path(f"/proc/{pid}/statm")).split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else 0


def _read(place: Path) -> str:
    try:
        return place.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):  # it has ended, or is not ours to look at
        return ""
