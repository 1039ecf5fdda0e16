"""Tunes in ABC: files, folders or archives of them, one row a tune, all of the unit length 1/8, spelt in one way."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from genwright.core import Bad, DataError, FilePath, Row, UsageError
from genwright.core import Settings as Base
from genwright.data.files import BROKEN, Encoding, File, find_files, read_text
from genwright.media.abc import Tune, read_tune, tunes_of
from genwright.media.score import REGIONS, RHYTHMS, abc_of, told_of, words_of_tune
from genwright.media.tune_words import facts_of, sentence_of


class Settings(Base):
    path: FilePath = Field(description="A file, a folder, a glob or an archive")
    include: tuple[str, ...] = Field(("*.abc", "*.abc.gz"), description="Files taken of a folder or archive, as globs")
    encoding: Encoding = Field("utf-8", description="Encoding of the files")
    regions: dict[str, str] = Field({}, description="Where tunes of a file are from that do not say it (O:), by globs")
    rhythms: dict[str, str] = Field(
        {}, description="What tunes of a file are that do not say it (R:), by globs: {'*airs*': air}"
    )
    licence: str = Field("", description="Licence of the set, kept with each row")
    attribution: str = Field("", description="Whom to name, kept with each row beside the tune's own transcriber (Z:)")
    commercial: bool = Field(True, description="False says that the licence of the set forbids commercial use")
    non_commercial: bool = Field(False, description="Take the set although its licence forbids commercial use")

    @field_validator("regions", "rhythms")
    @classmethod
    def _known(cls, named: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        known = REGIONS if info.field_name == "regions" else RHYTHMS
        if odd := [value for value in named.values() if value not in known]:
            raise ValueError(f"{odd[0]} is none of {', '.join(known[1:])}")
        return named


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Rows of `prompt` ("a jig in D major, 6/8, 16 bars, from Ireland, called …") and `completion` (the tune as ABC);
    `meta` has what is told of it (`tune`), its title, licence and who wrote it down. Tunes of one title share a group.

    Raises UsageError for a set that is not for commercial use unless `non_commercial` is set.
    """
    if not (settings.commercial or settings.non_commercial):
        raise UsageError(
            "The licence of these tunes forbids commercial use.",
            "Leave them out, or set non_commercial: true (of a card: {source: card, options: {non_commercial: true}}).",
        )
    for file in find_files(settings.path, settings.include):
        try:
            text = file if isinstance(file, Bad) else read_text(file, settings.encoding)
        except BROKEN as error:
            text = Bad(file.name if isinstance(file, File) else "", f"the compressed file is broken: {error}")
        if isinstance(text, Bad):
            yield text
            continue
        assert isinstance(file, File)
        usual = {"rhythm": _named(file.name, settings.rhythms), "region": _named(file.name, settings.regions)}
        for line, one in tunes_of(text):
            yield _row(f"{file.name}:{line}", one, usual, settings)


def _named(name: str, by_glob: dict[str, str]) -> str:
    return next((value for glob, value in by_glob.items() if fnmatch.fnmatchcase(name, glob)), "")


def _row(where: str, text: str, usual: dict[str, str], settings: Settings) -> Row | Bad:
    try:
        tune = read_tune(text)
        told = told_of(tune, **(usual | facts_of(tune)))
        words_of_tune(tune)
    except DataError as error:
        return Bad(where, error.message, text[:300])
    title = tune.title or "Untitled"
    plain = Tune(tune.key, tune.metre, tune.events, {"T": (title,)})
    plain = replace(
        plain, facts=plain.facts | {k: (v,) for k, v in (("R", told["rhythm"]), ("O", told["region"])) if v}
    )
    by = "; ".join(dict.fromkeys(filter(None, map(_credited, tune.facts.get("Z", ())))))
    meta: dict[str, Any] = {"tune": told, "title": title, "group": f"tune {_plain(title)}", "licence": settings.licence,
                            "attribution": "; ".join(filter(None, (settings.attribution, by)))}  # fmt: skip
    asked = f"{sentence_of(told)}, called {title}"
    return Row(where, {"prompt": asked, "completion": abc_of(plain), "meta": {k: v for k, v in meta.items() if v}})


def _credited(credit: str) -> str:
    """Who wrote a tune down, without addresses, dates and programs."""
    words = re.sub(r"[<(;*].*|\d[\d/-]*|\S*[@:]\S*", "", credit[:200].strip('" '))
    return re.sub(r"^(?:Transcribed|Contributed)?\s*by\s+|^Contributed\s+", "", words.strip(), flags=re.I).strip(" ,.")


def _plain(title: str) -> str:
    """A title without case, marks, articles and the kind of dance, which books write as they like."""
    words = "".join(letter if letter.isalnum() else " " for letter in title.casefold().replace("'", "")).split()
    kinds = {word for rhythm in RHYTHMS for word in rhythm.split()}
    return " ".join(word for word in words if word not in kinds and word not in ("the", "a", "an")) or " ".join(words)
