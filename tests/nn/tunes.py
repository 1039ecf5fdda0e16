"""Tunes of a few shapes in many keys, which a tiny model learns in seconds."""

from __future__ import annotations

from typing import Any

from genwright.core import Example, assistant, user
from genwright.media.abc import read_tune
from genwright.media.score import abc_of, key_of, told_of, tune_of, words_of_tune
from genwright.media.tune_words import sentence_of
from genwright.nn.abc_lm import AbcLM
from genwright.nn.abc_options import AbcConfig

KESH = """X:1
T:The Kesh
R:jig
O:Ireland
M:6/8
L:1/8
K:G
D|G3 GAB|A3 ABd|edd gdd|edB dBA|
G3 GAB|A3 ABd|edd gdB|AGF G2:|
A|B2B d2d|ege dBA|B2B dBG|ABA AGA|
BAB d2d|ege dBd|gfg aga|bgf g2:|
"""
STEPS = """X:2
T:Steps
R:reel
M:4/4
L:1/8
K:D
D2EF G2AB|cdef d4|d2cB A2GF|(3EFG (3FED D4:|
d2cB A>Bc>d|e4 z2 ^g2|f3e d3/2c/2B/4A/4G3/2|A2F2 D4||
"""
CONFIG: dict[str, Any] = {"width": 32, "depth": 2, "heads": 2, "longest": 160}


def model(seed: int = 0, **changes: Any) -> AbcLM:
    return AbcLM(AbcConfig(**{**CONFIG, **changes}), seed=seed)


def rows() -> list[Example]:
    """Both tunes in six keys."""
    found = []
    for text in (KESH, STEPS):
        tune = read_tune(text)
        told, words = told_of(tune, rhythm=tune.facts["R"][0]), words_of_tune(tune)
        for tonic in (0, 2, 4, 7, 9, 10):
            one = {**told, "tonic": tonic}
            abc = abc_of(tune_of(one, words, title=f"{tune.title} in {key_of(tonic, told['mode'])}"))
            found.append(Example((user(sentence_of(one)), assistant(abc))))
    return found
