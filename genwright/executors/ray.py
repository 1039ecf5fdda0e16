"""Ray: many processes on one machine or many, which go on when one of them or its machine dies.

A tuning is a crew (nn/crew.py) that Ray Train starts, and starts again with whoever is left: the newest checkpoint is
in the run's folder, and a crew of any size comes to the same losses. So the folder must be one that every machine
sees (NFS, say), as must the model's files. Ray's own checkpoints, loops and trackers are not used.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import GenwrightError, MissingExtra, ModelError, Run, Tell, UsageError, write_text
from genwright.core import Settings as _Settings

_MANY = 10_000  # requests of one replica: its own queue says when there are too many
_LOOK = 0.3  # seconds between two looks at what has happened
_PASSED_ON = ("GENWRIGHT_", "HF_", "OMP_", "TOKENIZERS_", "TRANSFORMERS_")  # of the environment


class Settings(_Settings):
    workers: int = Field(2, ge=1, description="How many processes share each step; the result does not depend on it")
    at_least: int = Field(1, ge=1, description="Go on with so few when machines are lost; wait when there are fewer")
    address: str = Field("", description="A running cluster (host:6379, or auto); empty starts one on this machine")
    cpus: float = Field(1, gt=0, description="CPUs that each worker takes")
    gpus: float = Field(0, ge=0, description="GPUs that each worker takes")
    failures: int = Field(10, ge=0, description="How often workers may be lost before the job is given up")


def carry_out(
    work: Callable[..., None], run: Run, settings: Settings, *, tell: Tell, watch: Callable[[int, float], None]
) -> None:
    """Call `work(crew=…, tell=…, watch=…)` in every worker, until all of one crew have come to its end.

    Raises what `work` raises when that is a GenwrightError, UsageError when the cluster cannot be had, ModelError when
    workers were lost more often than `failures`.
    """
    # A machine that has just died still counts as free for some seconds: do not wait a whole minute for it.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
    with _cluster(settings):
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer

        job = _Job(run.folder.resolve() / f".job-{uuid.uuid4().hex[:8]}")
        need = {"CPU": settings.cpus} | ({"GPU": settings.gpus} if settings.gpus else {})
        crew: Any = (min(settings.at_least, settings.workers), settings.workers)
        trainer = TorchTrainer(
            _member, train_loop_config={"work": work, "job": job, "place": os.getcwd()}, torch_config=TorchConfig(),
            scaling_config=ScalingConfig(num_workers=crew, resources_per_worker=need, use_gpu=settings.gpus > 0),
            run_config=RunConfig(name=job.folder.name, storage_path=str(job.folder),
                                 failure_config=FailureConfig(max_failures=settings.failures)),
        )  # fmt: skip
        try:
            _follow(trainer.fit, job, run, tell, watch)
        except TrainingFailedError as error:
            raise ModelError(
                f"The workers were lost too often: {str(error).strip().splitlines()[-1]}",
                "Nothing is lost: the same command goes on from the newest checkpoint.",
            ) from error
        finally:
            shutil.rmtree(job.folder, ignore_errors=True)


def _member(config: dict[str, Any]) -> None:
    """One of the crew, in a process of Ray's. An error of ours ends the job; anything else has it tried again."""
    from genwright.nn.crew import Crew

    job: _Job = config["job"]
    if job.problem():
        return
    if os.path.isdir(config["place"]):
        os.chdir(config["place"])  # relative paths mean what they mean at home
    try:
        config["work"](crew=Crew.found(), tell=_Obeys(job), watch=lambda step, loss: None)
    except GenwrightError as error:
        job.end(error.as_dict())
        raise


@dataclass(frozen=True)
class _Job:
    """A folder that all workers see, where somebody may note why the job must end."""

    folder: Path

    def end(self, problem: dict[str, Any]) -> None:
        if not self.problem():
            self.folder.mkdir(exist_ok=True)
            write_text(self.folder / "problem.json", json.dumps(problem))

    def problem(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.folder / "problem.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found


class _Obeys(Tell):
    """Tells nobody (the run's events are followed instead), and leaves after the step in which the job was ended."""

    def __init__(self, job: _Job):
        self.job = job

    def advance(self, amount: float = 1, **facts: Any) -> None:
        if self.job.problem():
            raise UsageError("This job was ended.")


def _follow(
    fit: Callable[[], Any], job: _Job, run: Run, tell: Tell, watch: Callable[[int, float], None]
) -> None:  # fmt: skip
    """Wait for `fit` and tell what the run's events say meanwhile. Raises what it raises, or what a worker noted."""
    tell.stage("Waiting for workers")
    since = max((event["time"] for event in run.events()), default=0.0)
    with ThreadPoolExecutor(1) as pool:
        fitting = pool.submit(fit)
        try:
            for event in _events_until(fitting, run.folder / "events.jsonl", since):
                _tell(event, tell, watch)
        finally:  # the pruner or ctrl-C
            if not fitting.done():
                job.end({})
    if problem := job.problem():
        raise _as_error(problem)
    fitting.result()


def _events_until(done: Future[Any], path: Path, since: float) -> Iterator[dict[str, Any]]:
    """The events after `since`, as they are written. The file is replaced whenever workers begin: what has been told,
    by its time, is passed over."""
    inode, offset, last_look = 0, 0, False
    while not last_look:
        last_look = done.done()
        if path.exists():
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_ino != inode:
                    inode, offset = os.fstat(file.fileno()).st_ino, 0
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    offset += len(line)
                    event = json.loads(line)
                    if event["time"] > since:
                        since = event["time"]
                        yield event
        if not last_look:
            wait((done,), timeout=_LOOK)


def _tell(event: dict[str, Any], tell: Tell, watch: Callable[[int, float], None]) -> None:
    match event["event"]:
        case "tune.start":
            tell.stage("Tuning", total=event["steps"])
        case "tune.resume":
            tell.note(f"A crew goes on from step {event['step']}.")
        case "step":
            facts = {"loss": event["loss"], "learning_rate": event["learning_rate"]}
            tell.advance(1, tokens_per_second=event["real_per_second"], **facts)
        case "look":
            tell.advance(0, held_out_loss=event["held_out_loss"])
            watch(event["step"], event["held_out_loss"])
        case "early stop":
            tell.note(f"Stopped at step {event['step']}; the best was step {event['best_step']}.")


def _as_error(problem: dict[str, Any]) -> GenwrightError:
    """The error of a worker again, in its class, so that exit code and HTTP status are right."""
    kinds, place = {}, [GenwrightError]
    while place:
        kind = place.pop()
        kinds[kind.__name__] = kind
        place += kind.__subclasses__()
    error = Exception.__new__(kinds.get(str(problem.get("error")), GenwrightError))
    GenwrightError.__init__(error, str(problem.get("message", "")), str(problem.get("hint", "")))
    return error


# -- many rows --------------------------------------------------------------------------------------------------------


def spread(open_worker: Callable[[], Callable[[Any], Any]], parts: Sequence[Any], settings: Settings) -> Iterator[Any]:
    """What workers make of the parts, in whatever order they are ready: Ray Data deals them out, and again when a
    worker or its machine is lost. Each calls `open_worker` once. A part and what is made of it are plain data."""
    with _cluster(settings):
        from ray import data

        data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        place = os.getcwd()

        class Worker:
            def __init__(self) -> None:
                if os.path.isdir(place):
                    os.chdir(place)
                self.work = open_worker()

            def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
                return {"made": [json.dumps(self.work(json.loads(part))) for part in batch["part"]]}

        rows = data.from_items([{"part": json.dumps(part)} for part in parts], override_num_blocks=len(parts))
        made = rows.map_batches(
            Worker, batch_size=1, num_cpus=settings.cpus, num_gpus=settings.gpus or None,
            compute=data.ActorPoolStrategy(min_size=1, max_size=settings.workers),
        )  # fmt: skip
        for row in made.iter_rows():
            yield json.loads(row["made"])


# -- replicas of a server ----------------------------------------------------------------------------------------------


@contextmanager
def replicas(build: Callable[[], Any], settings: Settings, *, host: str, port: int, drain: float) -> Iterator[None]:
    """Within it `workers` copies of the ASGI app that `build` makes answer behind one address, by Ray Serve.

    Each copy is a whole server; what they share lies in the database and the data folder that `build` knows. One that
    dies is made anew, elsewhere if need be; `drain` is the seconds that answers under way get. Raises ModelError when
    they do not come up.
    """
    with _cluster(settings):
        from ray import serve
        from ray.serve.config import ProxyLocation

        logging.getLogger("ray.serve").setLevel(logging.ERROR)

        deployment: Any = serve.deployment(
            serve.ingress(lambda: build())(), name="genwright", num_replicas=settings.workers,
            max_ongoing_requests=_MANY, graceful_shutdown_timeout_s=drain, health_check_period_s=2,
            ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        )  # fmt: skip
        serve.start(proxy_location=ProxyLocation.HeadOnly, http_options={"host": host, "port": port})
        try:
            _run(serve, deployment)
            yield
        finally:
            serve.shutdown()


def _run(serve: Any, deployment: Any) -> None:
    try:
        serve.run(deployment.bind(), name="genwright", route_prefix="/")
    except RuntimeError as error:
        said = str(error).strip().splitlines()
        raise ModelError(
            f"The replicas do not come up: {said[-1]}", "Serve the same options without Ray first."
        ) from None


# -- the cluster ------------------------------------------------------------------------------------------------------


@contextmanager
def _cluster(settings: Settings) -> Iterator[None]:
    """Be connected within: to the one that this process already uses, to the one named, or to one of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it tells nobody of us
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "ray") from None
    if ray.is_initialized():
        yield
        return
    environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    options: dict[str, Any] = {"address": settings.address}
    if not settings.address:
        most = max(os.cpu_count() or 1, math.ceil(settings.workers * settings.cpus))
        options = {"address": "local", "num_cpus": most, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": environment}, **options)
    except ConnectionError as error:
        raise UsageError(f"There is no Ray cluster at {settings.address}: {error}",
                         "Start one with `ray start --head`, or leave executor.address empty.") from None  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()
