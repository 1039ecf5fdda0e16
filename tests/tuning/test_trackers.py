"""Trackers keep what they are told where they say, without the network, and a resumed run goes on in the same curve."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from genwright.core import MissingExtra, choose
from genwright.core.plugin import Chosen


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is not on this machine cannot be reached."""
    connect = socket.socket.connect

    def here_only(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(("127.", "::1", "localhost")):
            raise AssertionError(f"the network was used: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", here_only)


def keep(chosen: Chosen, folder: Path, steps: range, value: float = 1.0) -> None:
    tracker = chosen(folder, "my run")
    for step in steps:
        tracker.log(step, {"loss": value / step, "epoch": step / 2})
    tracker.log(steps[-1], {"held_out_loss": 0.5})
    tracker.close()


def test_tensorboard_keeps_curves_and_a_resumed_run_replaces_the_lost_steps(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    chosen = choose("trackers", {"name": "tensorboard", "folder": "tb", "flush_seconds": 1})
    keep(chosen, tmp_path, range(1, 6))
    keep(chosen, tmp_path, range(4, 8), value=2.0)  # went on from the checkpoint of step 3
    curves = EventAccumulator(str(tmp_path / "tb"))
    curves.Reload()
    found = {event.step: event.value for event in curves.Scalars("loss")}
    assert [e.step for e in curves.Scalars("loss")] == list(range(1, 8))
    assert found[3] == pytest.approx(1 / 3)
    assert found[5] == pytest.approx(2 / 5)
    assert {"epoch", "held_out_loss"} <= set(curves.Tags()["scalars"])


def test_tensorboard_flushes_as_often_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    import torch.utils.tensorboard as library

    told: list[int] = []
    writer = library.SummaryWriter
    monkeypatch.setattr(library, "SummaryWriter", lambda *a, flush_secs, **k: (told.append(flush_secs), writer(*a, **k))[1])  # fmt: skip  # noqa: E501
    keep(choose("trackers", {"name": "tensorboard", "flush_seconds": 7}), tmp_path, range(1, 3))
    assert told == [7]
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_mlflow_keeps_curves_in_the_runs_folder_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    from mlflow.tracking import MlflowClient

    folder = tmp_path / "run"
    folder.mkdir()
    chosen = choose("trackers", {"name": "mlflow", "experiment": "blurbs"})
    keep(chosen, folder, range(1, 4))
    keep(chosen, folder, range(4, 6))
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("blurbs")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.run_name for run in runs] == ["my run"]
    curve = client.get_metric_history(runs[0].info.run_id, "loss")
    assert sorted((m.step, m.value) for m in curve) == [(s, 1 / s) for s in range(1, 6)]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]  # nothing beside it
    elsewhere = tmp_path / "elsewhere.db"
    keep(choose("trackers", {"name": "mlflow", "uri": f"sqlite:///{elsewhere}"}), folder, range(1, 3))
    assert elsewhere.is_file()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_weights_and_biases_works_offline_and_keeps_its_id(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    chosen = choose("trackers", {"name": "wandb", "project": "blurbs", "tags": ["night"], "entity": "us"})
    assert chosen.settings.mode == "offline"
    keep(chosen, tmp_path, range(1, 4))
    keep(chosen, tmp_path, range(4, 6))
    files = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    name = (tmp_path / "wandb" / "id").read_text()
    assert {f.name for f in files} == {f"run-{name}.wandb"}
    content = b"".join(f.read_bytes() for f in files)
    for word in (b"blurbs", b"night", b"us", b"my run", b"held_out_loss"):
        assert word in content


def test_weights_and_biases_goes_online_only_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **options: asked.append(options))
    for mode in ("offline", "online"):
        choose("trackers", {"name": "wandb", "mode": mode})(tmp_path, "x")
    assert [(a["mode"], a["resume"]) for a in asked] == [("offline", None), ("online", "allow")]


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"),
                                              ("mlflow", "mlflow.exceptions")])  # fmt: skip
def test_what_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra) as caught:
        choose("trackers", name)(tmp_path, "x")
    assert caught.value.hint == "pip install 'genwright[trackers]'"
