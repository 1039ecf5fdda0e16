"""Several sources, one after another: cards, files and folders as one data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

from genwright.core import Bad, Card, Chosen, Row, choose
from genwright.core import Settings as Base
from genwright.core.recipe import name_source


def _checked(one: str | dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """A source as a recipe would name it: a card's name, a file, or a source with its options."""
    given = {"path" if Path(one).suffix else "source": one} if isinstance(one, str) else one
    return choose("sources", name_source(given), key="source", folder=(info.context or {}).get("folder")).as_dict()


class Settings(Base):
    of: tuple[Annotated[str | dict[str, Any], AfterValidator(_checked)], ...] = Field(
        min_length=1, description="Names of cards, paths, or sources with their options: [emoji-noto, {source: …}]"
    )


def parts(settings: Settings) -> list[Chosen]:
    """The sources, in order."""
    return [choose("sources", one, key="source") for one in settings.of]


def resolve(settings: Settings, fetch: Callable[[Card], Path]) -> Chosen:
    """The same with every card in place of its name. Raises UsageError for one that is no dataset."""
    found = [
        one.module.resolve(one.settings, fetch) if hasattr(one.module, "resolve") else one for one in parts(settings)
    ]
    return choose("sources", {"source": "several", "of": [one.as_dict() for one in found]}, key="source")


def read(settings: Settings) -> Iterator[Row | Bad]:
    for one in parts(settings):
        yield from one()
