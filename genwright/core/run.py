"""Runs: a folder on disk, and the only thing that the rooms hand to each other."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .errors import UsageError
from .recipe import Recipe


class Run:
    """What a recipe became: `recipe.yaml` (asked) · `data/` (prepared) · `events.jsonl` (happened) · `checkpoints/` ·
    `model/` (learned) · `report.json` (worth) · `samples/` · `exports/`. A finished run is a model."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @classmethod
    def create(cls, recipe: Recipe, folder: str | Path) -> Run:
        """A new run, or the one that is there already: then the recipe is written anew and stages decide what to redo.

        Raises UsageError when the folder holds something that is not a run.
        """
        run = cls(folder)
        if run.folder.exists() and not run.folder.is_dir():
            raise UsageError(f"{run.folder} is a file, not a folder.", "Choose another folder with --out.")
        if run.folder.exists() and any(run.folder.iterdir()) and not (run.folder / "recipe.yaml").exists():
            raise UsageError(f"{run.folder} is not empty and is no run.", "Choose another folder with --out.")
        run.folder.mkdir(parents=True, exist_ok=True)
        write_text(run.folder / "recipe.yaml", yaml.safe_dump(recipe.as_dict(), sort_keys=False, allow_unicode=True))
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        run = cls(folder)
        if not (run.folder / "recipe.yaml").is_file():
            raise UsageError(
                f"{run.folder} is no run: it has no recipe.yaml.", "Runs are made by `genwright run RECIPE`."
            )
        return run

    @staticmethod
    def is_run(folder: str | Path) -> bool:
        return (Path(folder) / "recipe.yaml").is_file()

    @property
    def recipe(self) -> Recipe:
        return Recipe.load(self.folder / "recipe.yaml")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def report_file(self) -> Path:
        return self.folder / "report.json"

    def log(self, event: str, **facts: Any) -> None:
        """Append a line to events.jsonl; one write call, so a kill leaves at most the last line torn."""
        line = json.dumps({"time": time.time(), "event": event, **facts}, ensure_ascii=False)
        with (self.folder / "events.jsonl").open("ab") as file:
            file.write(line.encode("utf-8", "replace") + b"\n")

    def events(self, event: str = "") -> Iterator[dict[str, Any]]:
        """The events so far, in order; a torn line is passed over."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            for line in file:
                try:
                    fact = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if not event or fact.get("event") == event:
                    yield fact

    # -- stages: what changed since it was last done? ---------------------------------------------------------------

    def is_done(self, stage: str, fingerprint: str) -> bool:
        return self._stages().get(stage) == fingerprint

    def mark_done(self, stage: str, fingerprint: str) -> None:
        write_text(self.folder / "stages.json", json.dumps(self._stages() | {stage: fingerprint}, indent=2))

    def stage_fingerprint(self, stage: str) -> str:
        """The inputs' fingerprint with which a stage was last finished, or an empty string."""
        return self._stages().get(stage, "")

    def _stages(self) -> dict[str, str]:
        path = self.folder / "stages.json"
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return found


def fingerprint(*things: Any) -> str:
    """sha256 (hex) of plain data, independent of key order."""
    return hashlib.sha256(json.dumps(things, sort_keys=True, default=str).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file at once: a reader or a kill sees the old content or the new, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
