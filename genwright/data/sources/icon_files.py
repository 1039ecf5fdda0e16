"""A set of icons as drawings (SVG), each a file whose name says what it shows, in a folder or a package (.tgz, .zip).

Icons of one head word (cat, cat-off) share a group. Whole sets that Iconify collects come by the source `icons`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field

from genwright.core import Bad, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.files import find_files, must_exist, read_text

_LARGEST = 200_000  # characters of a drawing


class Settings(Base):
    path: FilePath = Field(description="A folder of drawings, a package of them, or a folder with one package")
    include: tuple[str, ...] = Field(("*.svg",), description="Files taken, as globs: package/icons/regular/*.svg")
    style: str = Field("", description="What the set is called")
    ends: tuple[str, ...] = Field((), description="Ends of names that only say how it is drawn: -outline")
    heads: tuple[str, ...] = Field((), description="First words of names that only say what kind of icon it is")
    licence: str = Field("", description="SPDX identifier of the set's licence, kept with each row")
    attribution: str = Field("", description="Whom the licence asks to name, kept with each row")


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Rows of `image` (the SVG's bytes) and, in `meta`, `captions` and `concept` (the name's words), `style`, `group`,
    `licence` and `attribution`. Raises DataError when there is nothing of the kind."""
    path = must_exist(settings.path)
    packages = sorted((*path.glob("*.tgz"), *path.glob("*.zip"))) if path.is_dir() else []
    facts = {"style": settings.style, "licence": settings.licence, "attribution": settings.attribution}
    facts = {key: value for key, value in facts.items() if value}
    for file in find_files(packages[0] if len(packages) == 1 else path, settings.include):
        if isinstance(file, Bad):
            yield file
            continue
        name = PurePosixPath(file.name).stem
        for end in settings.ends:
            name = name.removesuffix(end)
        svg = read_text(file, limit=_LARGEST)
        if isinstance(svg, Bad):
            yield svg
            continue
        where = f"{settings.style or path.name}:{name}"
        image = {"bytes": svg.encode(), "path": f"{name}.svg"}
        yield Row(where, {"image": image, "meta": facts | _said(name, settings.heads)})


def _said(name: str, heads: tuple[str, ...]) -> dict[str, Any]:
    """What a name tells; the head word is the first one that is not in `heads`.

    >>> _said("cat-off", ())
    {'concept': 'cat off', 'group': 'icon cat', 'captions': {'en': ['cat off']}}
    """
    words = name.replace("_", "-").split("-")
    head = words[1] if len(words) > 1 and words[0] in heads else words[0]
    plain = " ".join(words)
    return {"concept": plain, "group": f"icon {head}", "captions": {"en": [plain]}}
