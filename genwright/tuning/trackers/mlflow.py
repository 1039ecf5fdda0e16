"""MLflow: curves in its own store, inside the run's folder or on a tracking server."""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import MissingExtra, UsageError
from genwright.core import Settings as Options

_STORE = "mlflow.db"


class Settings(Options):
    """Which store and which experiment."""

    uri: str = Field("", description="Tracking URI, e.g. http://host:5000; empty is the file RUN/mlflow.db")
    experiment: str = Field("genwright", description="Experiment's name")


def track(run_folder: Path, name: str, settings: Settings) -> Tracker:
    """Look at them with `mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db`.

    Raises MissingExtra when it is not installed, UsageError when the store does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would report its use over the network
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise MissingExtra("mlflow-skinny", "trackers") from None
    with _quiet():
        try:
            client = MlflowClient(settings.uri or f"sqlite:///{(run_folder / _STORE).resolve()}")
            return Tracker(client, _run_id(client, run_folder, name, settings))
        except ImportError as error:
            raise MissingExtra(error.name or "sqlalchemy", "trackers") from None
        except (MlflowException, OSError) as error:
            raise UsageError(f"MLflow cannot start: {error}", "Check the tracker's uri.") from None


class Tracker:
    """One run of MLflow; a resumed training goes on in the same."""

    def __init__(self, client: Any, run_id: str):
        self._client, self.run_id = client, run_id

    def log(self, step: int, figures: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        kept = [Metric(name, float(value), now, step) for name, value in figures.items() if math.isfinite(value)]
        self._client.log_batch(self.run_id, metrics=kept)

    def close(self) -> None:
        self._client.set_terminated(self.run_id)


def _run_id(client: Any, run_folder: Path, name: str, settings: Settings) -> str:
    """The run that an earlier sitting began in the same store, or a new one."""
    found = client.get_experiment_by_name(settings.experiment)
    artifacts = None if settings.uri else (run_folder / "mlflow").resolve().as_uri()
    experiment = found.experiment_id if found else client.create_experiment(settings.experiment, artifacts)
    place = str(run_folder.resolve())
    earlier = client.search_runs([experiment], f"tags.genwright_folder = '{place}'", max_results=1)
    if earlier:
        run_id: str = earlier[0].info.run_id
        client.update_run(run_id, status="RUNNING")
        return run_id
    run_id = client.create_run(experiment, run_name=name, tags={"genwright_folder": place}).info.run_id
    return run_id


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of the database library on its own past."""
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="mlflow|sqlalchemy|alembic")
        warnings.filterwarnings("ignore", ".*``noload`` loader strategy.*")
        yield
