"""Where Genwright keeps things: XDG folders, all movable together by GENWRIGHT_HOME."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def store() -> Path:
    """What can be fetched again: `<store>/cards/<name>/` holds a card's files; the rest is made from them."""
    return _folder("XDG_CACHE_HOME", ".cache", "store")


def state() -> Path:
    """What must not be lost: the ledger and other records."""
    return _folder("XDG_STATE_HOME", ".local/state", "state")


@contextmanager
def locked(path: Path, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path`: one process and one thread at a time. `waiting` is called once if another has it.

    The operating system lets go of the lock when its holder dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        _lock(file.fileno(), waiting)
        try:
            yield
        finally:
            _unlock(file.fileno())


if sys.platform == "win32":
    import msvcrt

    def _lock(number: int, waiting: Callable[[], None]) -> None:
        told = False
        while True:
            try:
                os.lseek(number, 0, os.SEEK_SET)
                return msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
            except PermissionError:
                if not told:
                    waiting()
                    told = True
                time.sleep(0.02)

    def _unlock(number: int) -> None:
        os.lseek(number, 0, os.SEEK_SET)
        msvcrt.locking(number, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(number: int, waiting: Callable[[], None]) -> None:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(number, fcntl.LOCK_EX)

    def _unlock(number: int) -> None:
        fcntl.flock(number, fcntl.LOCK_UN)


def _folder(variable: str, default: str, part: str) -> Path:
    if home := os.environ.get("GENWRIGHT_HOME"):
        return Path(home).expanduser() / part
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / default) / "genwright" / part
