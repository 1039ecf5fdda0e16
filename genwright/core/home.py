"""Where Genwright keeps things: XDG folders, all movable together by GENWRIGHT_HOME."""

from __future__ import annotations

import os
from pathlib import Path


def store() -> Path:
    """Weights and packages by sha256 (`<store>/blobs/<sha256>`) and what was unpacked or converted from them."""
    return _folder("XDG_CACHE_HOME", ".cache", "store")


def state() -> Path:
    """What must not be lost: the ledger and other records."""
    return _folder("XDG_STATE_HOME", ".local/state", "state")


def _folder(variable: str, default: str, part: str) -> Path:
    if home := os.environ.get("GENWRIGHT_HOME"):
        return Path(home).expanduser() / part
    base = os.environ.get(variable)
    return (Path(base) if base else Path.home() / default) / "genwright" / part
