"""No regular expression of the data shelves takes more than a tenth of a second for a megabyte of anything (R39)."""

import importlib
import pkgutil
import re
import time

import pytest

import genwright.data
from genwright.core import pii, words

MODULES = [pii, words, *(
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(genwright.data.__path__, "genwright.data.")
    if not found.ispkg
)]  # fmt: skip
PATTERNS = {
    f"{module.__name__}.{name}": value
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, re.Pattern)
} | {f"pii {name}": kind.pattern for name, kind in pii.KINDS.items()}
TEXTS = {
    "letters": "a" * 1_000_000 + "!", "digits": "1" * 1_000_000 + "!", "spaces": " " * 1_000_000 + "!",
    "quoted": '"' + "a" * 1_000_000, "escaped": '"' + "\\" * 1_000_000, "han": "海" * 1_000_000 + "!",
    "closing": "}" * 1_000_000 + "!", "opening": 'msgid "' * 140_000,
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_a_megabyte_of_anything_is_searched_quickly(name):
    pattern = PATTERNS[name]
    if isinstance(pattern.pattern, bytes):
        texts = {label: text.encode() for label, text in TEXTS.items()}
    else:
        texts = TEXTS
    for label, text in texts.items():
        best = min(_seconds(pattern, text) for _ in range(2))
        assert best < (0.1 if label == "letters" else 0.5), f"{label}: {best:.3f} s"


def _seconds(pattern, text):
    started = time.process_time()
    pattern.match(text)
    pattern.search(text)
    return time.process_time() - started


def test_there_are_patterns_to_test():
    assert len(PATTERNS) > 15
