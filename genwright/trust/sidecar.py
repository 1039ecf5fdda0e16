"""The sidecar: the file beside a file, `<file>.genwright.json`, with its hash, its label and where it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genwright.core.run import write_text


def sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".genwright.json")


def write_sidecar(path: Path, facts: Mapping[str, Any]) -> None:
    """Write `facts` with the name and the hash of the file as it lies there."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    whole = {"file": path.name, "sha256": digest, **facts}
    write_text(sidecar(path), json.dumps(whole, indent=2, ensure_ascii=False) + "\n")


def renew_sidecar(path: Path) -> None:
    """The hash anew, after another label went into the file; nothing when there is no sidecar."""
    if sidecar(path).is_file():
        facts = json.loads(sidecar(path).read_text(encoding="utf-8"))
        write_sidecar(path, {name: fact for name, fact in facts.items() if name not in ("file", "sha256")})
