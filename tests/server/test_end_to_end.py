"""End to end on one machine: upload → fine-tune → chat, while the tuning process, the job and the server are killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from genwright.server.house import Options
from tests.formats.tiny import SENTENCES

from .household import client
from .works import ROWS, tiny_base, until, upload

OVER = ("succeeded", "failed", "cancelled")
TUNE = {"n_epochs": 50, "batch_size": 1, "learning_rate_multiplier": 2}
LONG = ROWS * 2  # 500 steps: some seconds, in which much can be killed
PROGRAM = "import sys; from genwright.server.serve import serve_options; from genwright.server.house import Options; " \
          "serve_options(Options.model_validate_json(sys.argv[1]))"  # fmt: skip


class Server:
    """`genwright serve` as a process that can be killed and started again on the same port and data."""

    def __init__(self, place: Path, base: Path):
        with socket.create_server(("127.0.0.1", 0)) as door:
            self.port = door.getsockname()[1]
        entry = {"source": str(base), "engine": {"runner": "llama.cpp", "context": 256, "threads": 1}}
        self.options = Options(**{"models": [entry], "data": place / "data", "port": self.port, "memory": 10**10})
        self.data = place / "data"
        self.log = place / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", PROGRAM, self.options.model_dump_json()]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers, bool)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(30)

    def checkpoint(self, job: str) -> int:
        """The step of the job's newest checkpoint."""
        found = (self.data / "tuned" / job / job / "checkpoints").glob("step-*")
        return max((int(path.name.removeprefix("step-")) for path in found if path.name[5:].isdecimal()), default=0)

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def tuning_process(self, job: str) -> int | None:
        """The process that tunes for a job, if there is one."""
        asked = ["pgrep", "-f", f"genwright.server.tuning_job tune {self.data}/tuned/{job}"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
        return int(found[0]) if found else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENWRIGHT_HOME", str(place / "home"))
        patch.setenv("OMP_NUM_THREADS", "1")
        made = Server(place, tiny_base(place / "base"))
        made.start()
        yield made
        assert made.stop() == 0


@pytest.fixture(scope="module")
def made(server: Server) -> Iterator[Any]:
    with client(f"http://127.0.0.1:{server.port}/v1", timeout=60) as one:
        yield one


def _seen(made: Any, job: str) -> Any:
    return made.fine_tuning.jobs.retrieve(job)


def _begin(made: Any, **changes: Any) -> str:
    method = {"type": "supervised", "supervised": {"hyperparameters": TUNE}}
    asked = {"model": "tiny", "training_file": upload(made, ROWS), "method": method, "seed": 5} | changes
    return str(made.fine_tuning.jobs.create(**asked).id)


def _learned(server: Server, made: Any, job: str) -> tuple[str, str]:
    """The result file, with the loss of each step, and the sha256 of the adapter."""
    ended = until(lambda: _seen(made, job), lambda seen: seen.status in OVER, 120)
    assert ended.status == "succeeded", ended.error
    adapter = next((server.data / "tuned" / job / job / "exports" / "gguf").glob("*-lora.gguf"))
    return made.files.content(ended.result_files[0]).text, hashlib.sha256(adapter.read_bytes()).hexdigest()


def _say(made: Any, model: str) -> str:
    ask: Any = {"messages": [{"role": "user", "content": SENTENCES[0]}], "max_tokens": 40, "temperature": 0}
    return str(made.chat.completions.create(model=model, **ask).choices[0].message.content)


def test_whatever_is_killed_the_same_is_learned(server: Server, made: Any) -> None:
    file = upload(made, LONG)
    disturbed = _begin(made, training_file=file, suffix="disturbed")

    # the tuning process is killed
    until(lambda: server.checkpoint(disturbed), bool)
    os.kill(until(lambda: server.tuning_process(disturbed), bool), signal.SIGKILL)
    levels = until(lambda: [e.level for e in made.fine_tuning.jobs.list_events(disturbed)], lambda seen: "warn" in seen)
    assert levels.count("warn") == 1

    # the job is paused: the process writes a checkpoint and ends, and no step is taken
    reached = server.checkpoint(disturbed)
    until(lambda: server.checkpoint(disturbed), lambda step: step > reached)
    assert made.fine_tuning.jobs.pause(disturbed).paused
    until(lambda: server.tuning_process(disturbed), lambda pid: pid is None)
    paused = until(lambda: _seen(made, disturbed), lambda seen: seen.status == "queued")
    assert paused.paused
    reached = server.checkpoint(disturbed)
    time.sleep(1.5)
    assert (server.checkpoint(disturbed), server.tuning_process(disturbed)) == (reached, None)
    assert reached < 500
    made.fine_tuning.jobs.resume(disturbed)

    # the server is killed, and its child ends too; the next server goes on
    until(lambda: server.checkpoint(disturbed), lambda step: step > reached)
    pid = server.tuning_process(disturbed)
    server.kill()
    assert server.checkpoint(disturbed) < 500
    until(lambda: server.tuning_process(disturbed), lambda now: now != pid)
    server.start()
    after_all = _learned(server, made, disturbed)
    quiet = _begin(made, training_file=file)
    assert after_all == _learned(server, made, quiet)
    assert _say(made, _seen(made, disturbed).fine_tuned_model) == _say(made, _seen(made, quiet).fine_tuned_model)
    models = {model.id: model for model in made.models.list()}
    assert models[_seen(made, quiet).fine_tuned_model].parent == "tiny"


def test_preferences_are_learned(server: Server, made: Any) -> None:
    pairs = [{"input": {"messages": row["messages"][:1]}, "preferred_output": row["messages"][1:],
              "non_preferred_output": [{"role": "assistant", "content": "No."}]} for row in ROWS]  # fmt: skip
    chosen = {"n_epochs": 6, "batch_size": 1, "learning_rate_multiplier": 20, "beta": 0.2}
    method = {"type": "dpo", "dpo": {"hyperparameters": chosen}}
    job = _begin(made, training_file=upload(made, pairs), method=method)
    table, _ = _learned(server, made, job)
    steps = [line.split(",") for line in table.splitlines()[1:]]
    assert float(steps[-1][1]) < 0.1 < float(steps[0][1])  # from log 2, where neither answer is preferred
    assert {float(step[2]) for step in steps[-5:]} == {1.0}
    ended = _seen(made, job)
    assert ended.method.dpo.hyperparameters.beta == 0.2
    assert _say(made, ended.fine_tuned_model) != "No."


def test_a_tuned_model_is_tuned_on(server: Server, made: Any) -> None:
    first = next(job for job in made.fine_tuning.jobs.list() if job.status == "succeeded")
    method = {"type": "supervised", "supervised": {"hyperparameters": TUNE | {"n_epochs": 2}}}
    job = _begin(made, model=first.fine_tuned_model, method=method)
    _learned(server, made, job)
    model = _seen(made, job).fine_tuned_model
    assert model.startswith("ft:tiny:local:")
    assert _say(made, model)
    assert {one.id: one for one in made.models.list()}[model].parent == "tiny"


def test_a_cancelled_job_leaves_nothing(server: Server, made: Any) -> None:
    job = _begin(made)
    until(lambda: server.tuning_process(job), bool)
    assert made.fine_tuning.jobs.cancel(job).status == "cancelled"
    until(lambda: server.tuning_process(job), lambda pid: pid is None)
    until(lambda: (server.data / "tuned" / job).exists(), lambda there: not there)
    assert _seen(made, job).status == "cancelled"


def test_a_batch_loses_and_repeats_nothing_when_the_server_is_killed(server: Server, made: Any) -> None:
    count = 600
    plain = {"method": "POST", "url": "/v1/chat/completions"}
    asked = [
        {"model": "tiny", "max_tokens": 5, "messages": [{"role": "user", "content": f"{i}?"}]} for i in range(count)
    ]
    lines = [{"custom_id": str(i), "body": body, **plain} for i, body in enumerate(asked)]
    file = upload(made, lines, "batch")
    batch = made.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h").id
    acknowledged = until(lambda: made.batches.retrieve(batch).request_counts.completed, lambda done: done > 5)
    server.kill()
    book = (server.data / "batches" / batch / "answered.jsonl").read_text().splitlines()
    server.start()
    ended = until(lambda: made.batches.retrieve(batch), lambda seen: seen.status == "completed", 120)
    assert ended.request_counts.to_dict() == {"total": count, "completed": count, "failed": 0}
    found = [json.loads(line) for line in made.files.content(ended.output_file_id).text.splitlines()]
    assert [one["custom_id"] for one in found] == [str(i) for i in range(count)]
    kept = {one["custom_id"]: one["id"] for one in found}
    known = [json.loads(line)["line"] for line in book if line.endswith("}")]
    assert acknowledged <= len(known) < count
    assert all(kept[line["custom_id"]] == line["id"] for line in known)  # answered before, and not again
