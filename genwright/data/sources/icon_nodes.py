"""A set of icons as drawings (SVG), from the list of shapes that Tabler's and Lucide's packages hold, with their tags.

The list says of each icon which SVG elements it is made of: {"cat": [["path", {"d": "M4 …"}], …]}; the tags are a list
of words by name, or facts of which `tags` is one. Icons of one head word (cat, cat-off) share a group in all sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import orjson
from pydantic import Field

from genwright.core import Bad, DataError, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.files import must_exist
from genwright.data.icon_names import named

_LARGEST = 50_000_000  # bytes of one JSON file; Tabler's has 2.4 MB
_HEAD = ('<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24" fill="none" '
         'stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">')  # fmt: skip


class Settings(Base):
    path: FilePath = Field(description="A folder with nodes.json and, for captions beside the names, tags.json")
    style: str = Field("", description="What the set is called")
    heads: tuple[str, ...] = Field(
        ("brand",),
        description="First words of names that say only what kind of icon it is: the second is the head word",
    )
    licence: str = Field("", description="SPDX identifier of the set's licence, kept with each row")
    attribution: str = Field("", description="Whom the licence asks to name, kept with each row")


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Rows of `image` (the SVG's bytes) and, in `meta`, `captions` (the name; the name and its tags), `concept`,
    `tags`, `style`, `group`, `licence` and `attribution`. Raises DataError when there is no such list."""
    folder = must_exist(settings.path)
    folder = folder if folder.is_dir() else folder.parent
    facts = {"style": settings.style, "licence": settings.licence, "attribution": settings.attribution}
    facts = {key: value for key, value in facts.items() if value}
    tags = _json(folder / "tags.json") if (folder / "tags.json").is_file() else {}
    for name, shapes in _json(folder / "nodes.json").items():
        where = f"{settings.style or folder.name}:{name}"
        try:
            svg = "".join([_HEAD, *(_element(*shape) for shape in shapes), "</svg>\n"])
        except (TypeError, ValueError, AttributeError):
            yield Bad(where, "it is no list of shapes, each with a name and attributes", str(shapes)[:300])
            continue
        image = {"bytes": svg.encode(), "path": f"{name}.svg"}
        yield Row(where, {"image": image, "meta": facts | named(name, tags.get(name), settings.heads)})


def _element(name: str, attributes: dict[str, Any]) -> str:
    """One shape. `key`, which a library of web pages wants, is left out."""
    if not all(word.isascii() and word.replace("-", "").isalnum() for word in (name, *attributes)):
        raise ValueError(name)
    told = "".join(f" {key}={quoteattr(str(value))}" for key, value in attributes.items() if key != "key")
    return f"<{name}{told}/>"


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        found = orjson.loads(raw) if len(raw) <= _LARGEST else None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Name a folder with nodes.json.") from None
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}", "Fetch it again.") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} is no list of icons by name.", "Look at what the file holds.")
    return found
