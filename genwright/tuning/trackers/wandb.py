"""Weights & Biases: curves kept in the run's folder, sent only when asked to."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import MissingExtra, UsageError
from genwright.core import Settings as Options


class Settings(Options):
    """Which project, and whether anything leaves this machine."""

    project: str = Field("genwright", description="Project's name")
    entity: str | None = Field(None, description="Team or user; null is the account's default")
    mode: Literal["offline", "online"] = Field(
        "offline", description="offline keeps all in RUN/wandb (send it later with `wandb sync`); online sends at once"
    )
    tags: tuple[str, ...] = Field((), description="Tags of the run")


def track(run_folder: Path, name: str, settings: Settings) -> Tracker:
    """Raises MissingExtra when it is not installed, UsageError when it cannot start (not logged in, no network)."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own faults would be reported over the network
    try:
        import wandb
    except ImportError:
        raise MissingExtra("wandb", "trackers") from None
    try:
        run = wandb.init(
            project=settings.project, entity=settings.entity, name=name, id=_id(run_folder), dir=str(run_folder),
            mode=settings.mode, tags=list(settings.tags) or None,
            resume="allow" if settings.mode == "online" else None, settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
    except (wandb.Error, OSError) as error:
        raise UsageError(
            f"Weights & Biases cannot start: {error}", "Run `wandb login`, or set the tracker's mode to offline."
        ) from None
    return Tracker(run)


class Tracker:
    """One sitting; offline, each sitting has a folder of its own under the same id."""

    def __init__(self, run: Any):
        self._run = run

    def log(self, step: int, figures: dict[str, float]) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()


def _id(run_folder: Path) -> str:
    """One id for all sittings of a run, so that a resumed one goes on in the same curves."""
    place = run_folder / "wandb" / "id"
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(secrets.token_hex(4))
    return place.read_text().strip()
