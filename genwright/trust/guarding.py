"""Guarding: the options that every guard shares, and what a guard is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from genwright.core import Settings


class GuardSettings(Settings):
    """A guard is a module with `check(parts, settings) -> Verdict`, whose findings are spans of the parts' joined text.

    In a stream it sees what is held back of the answer and 400 characters before it. Optional names say more:
    `window` (int), the longest span that it can find, or `undecided(text, settings) -> int`, the index from which on
    the text may still become part of a finding; and `context(settings) -> int`, how many characters before a span it
    needs. A guard with neither `window` nor `undecided` judges only what has already come.
    """

    sides: tuple[Literal["request", "answer"], ...] = Field(
        ("request", "answer"), min_length=1, description="What is looked at: the request, the answer or both"
    )
    on_error: Literal["block", "allow"] = Field(
        "block", description="When the guard itself fails or takes too long: block (safe), or allow and note it"
    )
    timeout: float = Field(5.0, gt=0, description="Seconds for one look")
