"""The small nouns: what a score, a verdict, a label and a modality are, and how long work tells of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .content import Message, Part
from .data import Example
from .model import Likelihood, Request


@dataclass(frozen=True)
class Judged:
    """A held-out example with what the model made of it: what no metric needs, or the model cannot tell, is None."""

    example: Example
    answer: Message | None = None
    likelihood: Likelihood | None = None
    errors: Mapping[str, float] | None = None  # what a `Measurer` says

    @property
    def said(self) -> str:
        return self.answer.text if self.answer else ""

    @property
    def wanted(self) -> str:
        return self.example.answer.text


Pairs = Sequence[Judged]


@dataclass(frozen=True)
class Score:
    """What a metric says of a whole set of answers. `each` has one value a row where that makes sense.

    `low` and `high` bound a 95 % interval (bootstrap over rows); `signature` names library, version and settings so
    that the figure can be compared; `higher_is_better` may be None for descriptive figures. `beside` are figures of
    the same kind to hold it against: a floor, a ceiling, a baseline. `sheet` are files that a report lays out to show
    what the score saw: lines of parts, each part's `text` its caption.
    """

    value: float
    each: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    signature: str = ""
    higher_is_better: bool | None = True
    unit: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, float] = field(default_factory=dict)
    sheet: tuple[tuple[Part, ...], ...] = field(default=(), repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        fields = ("value", "low", "high", "unit", "higher_is_better", "signature", "beside", "details")
        return {name: getattr(self, name) for name in fields}


@dataclass(frozen=True)
class Finding:
    """A span [start, end) of a text that a guard objects to, and the rule that it breaks."""

    rule: str
    start: int
    end: int


@dataclass(frozen=True)
class Verdict:
    """What a guard says. `action`: "allow", "redact" (replace the findings) or "block"."""

    action: str = "allow"
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    replacement: str = "[{rule}]"


@dataclass(frozen=True)
class Provenance:
    """Where an output comes from: data hash → recipe hash → checkpoint hash, and what made it when (UTC, ISO
    8601)."""

    model: str = ""
    data: str = ""
    recipe: str = ""
    checkpoint: str = ""
    request_id: str = ""
    time: str = ""
    producer: str = "genwright"

    def as_dict(self) -> dict[str, str]:
        return dict(self.__dict__)


def _nothing_to_show(parts: Sequence[Part], captions: Sequence[str], folder: Path) -> Path | None:
    return None


def _no_drawing(part: Part, environment: Mapping[str, str], width: int) -> str:
    return ""


@dataclass(frozen=True)
class Modality:
    """What the hall asks of one kind of part, so that it need not know any.

    `save(content, path)` and `read(part)`: to and from a file. `check(file)`: what is known of a file's path or bytes
    ({"suffix": ".png", "shorter side": "64–127 px", …}; figures are counted in the data report); raises DataError
    when nothing can be learned from it. `overview(parts, captions, folder)`: many parts at one look, as a file in
    `folder`, or None. `html(part)`: how a page shows it, safe to insert. `terminal(part, environment, width)`: what
    to write so that a terminal of so many columns shows it; empty where it cannot. `views(part)`: vectors (n, d) of
    what counts as the same file, itself first; near copies have a view that is nearer to the other file than `near`
    (Euclidean).
    """

    name: str
    suffix: str
    save: Callable[[Any, Path], Part]
    read: Callable[[Part], Any]
    check: Callable[[Path | bytes], dict[str, str]]
    html: Callable[[Part], str]
    overview: Callable[[Sequence[Part], Sequence[str], Path], Path | None] = _nothing_to_show
    terminal: Callable[[Part, Mapping[str, str], int], str] = _no_drawing
    views: Callable[[Part], Any] | None = None
    near: float = 0.0


Ask = Callable[[Request], Iterator[Part]]  # how an app reaches a model: the hall hands it in


class Tell:
    """How long work tells of itself. This one is silent; doors hand in one that draws."""

    def stage(self, title: str, total: float | None = None) -> None:
        """A new stage begins; `total` is how many `advance` units it will take, if known."""

    def advance(self, amount: float = 1, **facts: Any) -> None:
        """Some of the stage is done; `facts` are figures to show beside the bar."""

    def note(self, text: str) -> None:
        """A line worth reading."""


SILENT = Tell()
