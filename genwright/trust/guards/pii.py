"""Redact or block personal data: e-mail, phone, identity, bank and plate numbers (check digits verified)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from genwright.core import Part, Verdict
from genwright.core.pii import KINDS, find_pii
from genwright.trust.guarding import GuardSettings


class Settings(GuardSettings):
    kinds: tuple[str, ...] = Field((), description=f"What is looked for; empty is all: {', '.join(KINDS)}")
    action: Literal["redact", "block", "note"] = Field(
        "redact", description="redact replaces it, block refuses, note only writes it in the ledger"
    )
    replacement: str = Field("[{rule}]", description="What stands in place of redacted data; {rule} is its kind")

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise ValueError(f"no personal data of the kind {unknown[0]!r}; there are: {', '.join(KINDS)}")
        return kinds


def check(parts: Sequence[Part], settings: Settings) -> Verdict:
    findings = find_pii("".join(part.text for part in parts), settings.kinds or None)
    if not findings:
        return Verdict()
    action = "allow" if settings.action == "note" else settings.action
    kinds = ", ".join(sorted({finding.rule for finding in findings}))
    return Verdict(action, tuple(findings), f"personal data ({kinds})", settings.replacement)


def undecided(text: str, settings: Settings) -> int:
    """Numbers may go on over spaces, addresses up to a space; a province may begin a number plate."""
    return min(match.start() for pattern in _OPEN if (match := pattern.search(text, max(0, len(text) - _LONGEST))))


def context(settings: Settings) -> int:
    """A passport's number is known by the word before it; and a number by what stands right before it."""
    return 64


_LONGEST = 400
_QUIET = "\u00ad\u200b-\u200f\u2060-\u2064\ufeff"  # invisible characters, which the detectors pass over
_DASH = "\u2010-\u2014\u2212\uff0d\u3000\u00a0"
_OPEN = (
    re.compile(rf"[A-Za-z0-9@._%+:\-{_QUIET}{_DASH}\uff01-\uff5e]*\Z"),
    re.compile(rf"[A-Z0-9 .()+·•\-{_QUIET}{_DASH}\uff01-\uff5e]*\Z"),
    re.compile(r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][^\n]{0,12}\Z|\Z"),
)
