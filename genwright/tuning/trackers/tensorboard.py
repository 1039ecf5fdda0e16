"""TensorBoard: curves in event files inside the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import MissingExtra
from genwright.core import Settings as Options


class Settings(Options):
    """Where the event files go and how soon."""

    folder: str = Field("tensorboard", description="Folder of the event files, inside the run's")
    flush_seconds: int = Field(30, ge=1, description="Seconds between writes to disk")


def track(run_folder: Path, name: str, settings: Settings) -> Tracker:
    """Look at them with `tensorboard --logdir RUN/tensorboard`. Raises MissingExtra when it is not installed."""
    return Tracker(run_folder / settings.folder, settings)


class Tracker:
    """Opened at the first figure: what a killed run wrote from that step on is then purged."""

    def __init__(self, folder: Path, settings: Settings):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtra("tensorboard", "trackers") from None
        self._open: Any = SummaryWriter
        self._writer: Any = None
        self._folder, self._settings = folder, settings

    def log(self, step: int, figures: dict[str, float]) -> None:
        if self._writer is None:
            self._writer = self._open(str(self._folder), purge_step=step, flush_secs=self._settings.flush_seconds)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
