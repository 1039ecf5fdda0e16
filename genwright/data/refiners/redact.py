"""Replace personal data (e-mail, phone, identity and bank numbers …) by its kind, or drop the row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from genwright.core import Example, Message, Part
from genwright.core import Settings as Base
from genwright.core.pii import KINDS, find_pii


class Settings(Base):
    kinds: tuple[str, ...] = Field(tuple(KINDS), description=f"What is looked for: {', '.join(KINDS)}")
    action: Literal["replace", "drop"] = Field("replace", description="Replace the span, or drop the row")
    replacement: str = Field("[{KIND}]", description="What stands instead; {KIND} and {kind} are the kind's name")

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        find_pii("", kinds)
        return kinds


def refine(examples: Iterator[Example], settings: Settings, *, report: Any) -> Iterator[Example]:
    """Looks at every message, at `rejected` and at the words in `meta`. See core/pii.py for what counts."""
    for example in examples:
        found: set[str] = set()
        messages = tuple(_clean(message, settings, found) for message in example.messages)
        meta = {name: _clean_meta(name, value, settings, found) for name, value in example.meta.items()}
        if not found:
            yield example
        elif settings.action == "drop":
            report.drop(example, f"holds {min(found)}")
        else:
            for kind in sorted(found):
                report.change(example, kind)
            yield Example(messages, meta)


def _clean_meta(name: str, value: Any, settings: Settings, found: set[str]) -> Any:
    if isinstance(value, Message):
        return _clean(value, settings, found)
    if isinstance(value, str) and name not in ("where", "group"):
        return _clean_part(Part("text", value), settings.kinds, settings.replacement, found).text
    return value


def _clean(message: Message, settings: Settings, found: set[str]) -> Message:
    parts = tuple(_clean_part(part, settings.kinds, settings.replacement, found) for part in message.parts)
    return Message(message.role, parts)


def _clean_part(part: Part, kinds: Sequence[str], replacement: str, found: set[str]) -> Part:
    findings = find_pii(part.text, kinds) if part.text else []
    if not findings:
        return part
    pieces, at = [], 0
    for finding in findings:
        found.add(finding.rule)
        said = replacement.replace("{KIND}", finding.rule.upper()).replace("{kind}", finding.rule)
        pieces += [part.text[at : finding.start], said]
        at = finding.end
    return Part(part.kind, "".join(pieces) + part.text[at:], part.path, part.meta)
