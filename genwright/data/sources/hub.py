"""A dataset of the Hugging Face hub by its name: its parquet, JSON or csv files, or the hub's own parquet copy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from genwright.core import Bad, DataError, MissingExtra, Row, choose
from genwright.core import Settings as Base

_READERS = {".parquet": "table", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "table",
            ".tsv": "table", ".txt": "text_files"}  # fmt: skip
_NOT_DATA = re.compile(r"(^|/)(\.|dataset_infos?\.json|dataset_dict\.json|state\.json|README|LICENSE|config\.json)")


class Settings(Base):
    dataset: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)?(@[\w./-]+)?$", description="org/name, or org/name@revision")
    revision: str = Field("", description="Branch, tag or commit; empty is main")
    split: str = Field("train", description="Which split: files whose path names it")
    subset: str = Field("", description="Which configuration: files whose path names it")


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Fetches file by file into the hub's own cache. No code of a dataset is ever run.

    Raises MissingExtra without huggingface_hub, DataError when the hub does not answer or has no such data.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import HFValidationError, HTTPError, OfflineModeIsEnabled
    except ImportError:
        raise MissingExtra("huggingface_hub", "text") from None

    name, _, revision = settings.dataset.partition("@")
    wanted = settings.revision or revision or "main"
    try:
        for version in (wanted, "refs/convert/parquet"):  # the second is the hub's own copy, when ours is no plain data
            names = hub.HfApi().list_repo_files(name, repo_type="dataset", revision=version)
            if chosen := files_of(names, settings.split, settings.subset):
                break
        else:
            raise DataError(
                f"The dataset {name} has no files for the split {settings.split!r} that can be read.",
                "Set `split` or `subset`; datasets that need code of their own are not run.",
            )
        for one in chosen:
            path = hub.hf_hub_download(name, one, repo_type="dataset", revision=version)
            source = choose("sources", {"source": _READERS[_suffix(one)], "path": path}, key="source")
            for row in source():
                where = f"{name}/{one}:{row.where.partition(':')[2]}"
                yield Row(where, row.fields) if isinstance(row, Row) else Bad(where, row.reason, row.raw)
    except HFValidationError as error:
        raise DataError(f"{name!r} is no name of a dataset: {error}", "Names look like org/name.") from None
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"The hub did not give the dataset {name}: {said}",
            "Check the name and the connection. Offline, use a card (`genwright models list`) or a file of your own.",
        ) from None


def files_of(names: list[str], split: str, subset: str) -> list[str]:
    """The data files of a split and subset: those that name the split in their path, else all when none names any."""
    data = [n for n in names if _suffix(n) in _READERS and not _NOT_DATA.search(n)]
    if subset:
        data = [n for n in data if _names(n, subset)]
    named = [n for n in data if _names(n, split)]
    others = ("train", "test", "validation", "valid", "dev", "eval")
    if not named and split == "train" and not any(_names(n, other) for n in data for other in others):
        named = data
    first = next((s for s in _READERS if any(_suffix(n) == s for n in named)), "")
    return sorted(n for n in named if _suffix(n) == first)  # the same rows in two formats are taken once


def _names(path: str, word: str) -> bool:
    return re.search(rf"(^|[/._-]){re.escape(word)}([/._-]|$)", path) is not None


def _suffix(name: str) -> str:
    return Path(name.removesuffix(".gz")).suffix.lower()
