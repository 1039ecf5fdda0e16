"""A dataset by the name of its card: fetched once from a package registry or the hub, checked by sha256."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Bad, Card, Chosen, Row, UsageError, choose, find_card
from genwright.core import Settings as Base


class Settings(Base):
    card: str = Field(description="Name of a dataset's card, see `genwright models list`")
    options: dict[str, Any] = Field({}, description="Options of the card's source to set otherwise, e.g. {include: …}")


def resolve(settings: Settings, fetch: Callable[[Card], Path]) -> Chosen:
    """The source that the card names, with its `path` where `fetch` put the files. Raises UsageError."""
    card = find_card(settings.card)
    if card.kind != "dataset" or not card.read:
        raise UsageError(
            f"The card {card.name!r} is no dataset.", "Name a dataset's card, see `genwright models list`."
        )
    folder = fetch(card)
    path = folder / card.files[0].name if len(card.files) == 1 else folder
    given = {**card.read, **settings.options}
    return choose("sources", {**given, "path": str(folder / given["path"] if "path" in given else path)}, key="source")


def read(settings: Settings, *, fetch: Callable[[Card], Path]) -> Iterator[Row | Bad]:
    """The rows of the card's source; `fetch` brings its files (the hall hands it in)."""
    yield from resolve(settings, fetch)()
