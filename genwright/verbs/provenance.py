"""Provenance: what a file itself says of where it comes from, and what the ledger knows of it.

A label can be taken out of a file, and a text that was changed has another hash: what is found here is true, but where
nothing is found, nothing is known.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from genwright.core import shelves
from genwright.trust.ledger import Ledger
from genwright.trust.signing import GENERATED as GENERATED
from genwright.trust.signing import read_signature

LARGEST = 64_000_000  # bytes that are looked through for labels
_FRONT = re.compile(r"\A---[ \t]*\n(?P<inside>(?:(?!---).*\n)*)---[ \t]*(?:\n|\Z)")
_LABEL = re.compile(rb'"AIGC"\s*:\s*(\{[^{}]{0,4000}\})|AIGC[^{]{1,8}?(\{[^{}]{0,4000}\})')
_C2PA = (b"jumdc2pa", b"c2pa.claim", b"urn:c2pa:")  # how a manifest store calls itself, in whatever kind of file


def look_up(path: Path, *, ledger: Ledger | Path | None = None) -> dict[str, Any]:
    """{"sha256", "label", "visible", "c2pa", "signature", "answers"} of a file.

    `label` is the machine-readable one (GB 45438-2025), `visible` the words that people see, `c2pa` whether the file
    carries such a manifest, `signature` what that is worth where it can be validated here ({"state": "own", …}),
    `answers` the ledger's rows of answers that had these very words or this very file, without what was asked: time,
    model, request_id, outcome, provenance.
    """
    data = path.read_bytes() if path.stat().st_size <= LARGEST else b""
    text = _text(data)
    hashes = {_sha256_of(path), *(hashlib.sha256(one.encode()).hexdigest() for one in _bodies(text))}
    book = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    answers = [_shown(row) for one in sorted(hashes) for row in book.find(one) if _is_answer(row, one)]
    return {
        "sha256": _sha256_of(path),
        "label": _label(data, text),
        "visible": next((words for words in _words() if words in text), None),
        "c2pa": any(mark in data for mark in _C2PA),
        "signature": _signature(path) if data else None,
        "answers": answers,
    }


def _signature(path: Path) -> dict[str, Any] | None:
    """The file's C2PA manifest, validated; None where there is none, and without the library."""
    if find_spec("c2pa") is None:
        return None
    found = read_signature(path)
    return asdict(found) if found.state else None


def _label(data: bytes, text: str) -> dict[str, Any] | None:
    """Out of a text's front matter, or wherever a file keeps JSON (a sidecar, XMP, a PNG's text)."""
    if match := _FRONT.match(text):
        try:
            head = yaml.safe_load(match["inside"])
        except yaml.YAMLError:
            head = None
        if isinstance(head, dict) and isinstance(head.get("AIGC"), dict):
            return dict(head["AIGC"])
    for found in _LABEL.finditer(data.replace(b"&quot;", b'"')):
        try:
            label = json.loads(found[1] or found[2])
        except ValueError:
            continue
        if isinstance(label, dict) and "Label" in label:
            return label
    return None


def _bodies(text: str) -> list[str]:
    """A text as an answer may have been before labels were put on it."""
    if not text:
        return []
    bare = _FRONT.sub("", text)
    for words in _words():
        bare = bare.replace(f"\n\n{words}\n", "").replace(f"{words}\n\n", "")
    return [bare, bare.strip(), bare.rstrip("\n")]


def _words() -> list[str]:
    """The wordings of the visible label."""
    return list(shelves["marks"].load("visible").WORDS.values())


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return ""


def _is_answer(row: dict[str, Any], sha256: str) -> bool:
    answer = row.get("answer")
    if row.get("event") not in ("answer", "mix") or not isinstance(answer, dict):
        return False
    files = answer.get("files")
    said = answer.get("sha256") == sha256 and bool(answer.get("chars"))
    return said or (isinstance(files, list) and sha256 in files)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in ("time", "model", "request_id", "outcome", "provenance")}


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
