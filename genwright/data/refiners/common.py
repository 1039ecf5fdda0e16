"""Keep rows of what is common: a thing that several styles, speakers or authors have, each in a way of its own.

A model that has seen a thing once can only repeat it; of what many have drawn, said or written differently it can learn
what they share. Only rows that are learned from are looked at: what is held out stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from genwright.core import Example
from genwright.core import Settings as Base

after_split = True


class Settings(Base):
    what: str = Field("concept", description="Key of `meta` that names the thing")
    by: str = Field("style", description="Key of `meta` that names who made it")
    least: int = Field(3, ge=1, description="Makers that a thing must have")


def refine(examples: Iterator[Example], settings: Settings, *, report: Any, **context: Any) -> Iterator[Example]:
    """All rows are held before the first is given; a row without a thing is dropped."""
    rows = list(examples)
    makers: dict[str, set[str]] = {}
    for row in rows:
        makers.setdefault(str(row.meta.get(settings.what)), set()).add(str(row.meta.get(settings.by)))
    for row in rows:
        thing = row.meta.get(settings.what)
        if thing is None:
            report.drop(row, f"has no {settings.what}")
        elif (count := len(makers[str(thing)])) < settings.least:
            report.drop(row, f"{settings.what} of fewer than {settings.least} {settings.by}s ({count})")
        else:
            yield row
