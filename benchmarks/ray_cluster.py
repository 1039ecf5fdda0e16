"""Ray on a cluster of several nodes (processes here), one of which is killed in the middle of each job.

    python benchmarks/ray_cluster.py [tune] [rows] [serve] [--nodes 3] [--out FOLDER]

Each job must end with nothing lost: the tuning with the losses of one process over the same global batches, the rows
with the same file, the requests with answers. Prints one JSON object a job; the exit code says whether all held.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from genwright.core import Recipe, Run, Tell, choose  # noqa: E402
from genwright.verbs.answer_file import answer_file  # noqa: E402
from genwright.verbs.run import run as carry_out  # noqa: E402
from tests.formats.tiny import SENTENCES, model, tiny_run, tokenizer  # noqa: E402

WORDS = ["sea", "ferry", "island", "bread", "coat", "bird", "rock", "tower", "captain", "morning", "dusk", "water"]


@contextmanager
def cluster(nodes: int) -> Iterator[list[Any]]:
    """A head that works nothing and so many nodes of one CPU, each a raylet with workers of its own."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        workers = [made.add_node(num_cpus=1) for _ in range(nodes)]
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        made.wait_for_nodes()
        yield [lambda node=node: made.remove_node(node, allow_graceful=False) for node in workers]
    finally:
        ray.shutdown()
        made.shutdown()


# -- tuning -----------------------------------------------------------------------------------------------------------


def tune(place: Path, nodes: int) -> dict[str, Any]:
    """The losses of every step on the cluster, a node killed at a third, beside those of one process."""
    rows, base = place / "rows.jsonl", place / "base"
    draw = random.Random(0)
    some = lambda: " ".join(draw.choices(WORDS, k=7))  # noqa: E731
    rows.write_text("".join(json.dumps({"prompt": some(), "completion": some()}) + "\n" for _ in range(1200)))
    model().save_pretrained(base)
    tokenizer().save_pretrained(base)

    def recipe(executor: Any) -> Recipe:
        train = {"rows_per_batch": 24, "learning_rate": 1e-3, "epochs": 4, "checkpoint_every": 15, "dtype": "float32"}
        return Recipe.from_dict({"name": "t", "data": str(rows), "task": "chat", "model": str(base), "method": "full",
                                 "train": train, "executor": executor})  # fmt: skip

    began = time.time()
    alone = carry_out(recipe("local"), place / "alone", until="tune")
    seconds_alone = time.time() - began
    with cluster(nodes) as kill:
        killer = Killer(kill[0], at=70)
        began = time.time()
        together = carry_out(recipe({"name": "ray", "workers": nodes}), place / "together", until="tune", tell=killer)
        seconds = time.time() - began
    one, many = _losses(alone), _losses(together)
    resumed = [event["step"] for event in together.events("tune.resume")]
    apart = max(abs(a - b) / abs(a) for a, b in zip(one, many, strict=True))
    held = [list(run.events("tune.end"))[-1]["held_out_last"] for run in (alone, together)]
    return {"job": "tune", "nodes": nodes, "steps": len(one), "killed_at_step": killer.killed_at,
            "went_on_from": resumed, "largest_relative_difference_of_a_loss": apart, "held_out_loss": held,
            "seconds_alone": seconds_alone, "seconds": seconds,
            "held": bool(killer.killed_at and resumed and apart < 1e-4)}  # fmt: skip


class Killer(Tell):
    """Kills a node once so many steps have been told."""

    def __init__(self, kill: Any, at: int):
        self.kill, self.at, self.seen, self.killed_at = kill, at, 0, 0

    def stage(self, title: str, total: float | None = None) -> None:
        self.seen = 0

    def advance(self, amount: float = 1, **facts: Any) -> None:
        self.seen += int(amount)
        if "loss" in facts and self.seen >= self.at and not self.killed_at:
            self.killed_at = self.seen
            self.kill()


def _losses(run: Run) -> list[float]:
    found = {event["step"]: event["loss"] for event in run.events("step")}
    assert sorted(found) == list(range(1, len(found) + 1))
    return [found[step] for step in sorted(found)]


# -- rows -------------------------------------------------------------------------------------------------------------


def answer_rows(place: Path, nodes: int) -> dict[str, Any]:
    """The same file from one process and from the cluster, a node killed when a third is answered."""
    run, rows = tiny_run(place / "taught", teach=True), place / "questions.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n} {SENTENCES[n % 4]}"}) + "\n" for n in range(1500)))
    ask: dict[str, Any] = {"options": {"max_new_tokens": 12}}
    began = time.time()
    answer_file(run.folder, rows, place / "alone.jsonl", **ask)
    seconds_alone = time.time() - began
    with cluster(nodes) as kill:
        killer = RowKiller(kill[0], at=500)
        began = time.time()
        found = answer_file(
            run.folder, rows, place / "together.jsonl", executor={"name": "ray", "workers": nodes}, tell=killer, **ask
        )
        seconds = time.time() - began
    same = (place / "alone.jsonl").read_bytes() == (place / "together.jsonl").read_bytes()
    return {"job": "rows", "nodes": nodes, **found, "killed_at_row": killer.killed_at, "same_file": same,
            "seconds_alone": seconds_alone, "seconds": seconds, "held": same and killer.killed_at > 0}  # fmt: skip


class RowKiller(Killer):
    def advance(self, amount: float = 1, **facts: Any) -> None:
        super().advance(amount, loss=0.0)


# -- replicas ---------------------------------------------------------------------------------------------------------


def serve(place: Path, nodes: int) -> dict[str, Any]:
    """Requests at all times while the node of one replica is killed; clients try again as OpenAI's do."""
    import openai

    from genwright.formats import gguf
    from genwright.server.app import create_app
    from genwright.server.house import Entry, Options
    from genwright.server.serve import household

    run = tiny_run(place / "served", teach=True)
    file = next(p for p in gguf.export(run, place / "gguf", gguf.Settings()) if p.suffix == ".gguf")
    options = Options(models=[Entry(source=str(file), name="tiny")], data=place / "data", drain=5)
    household(options).store.close()
    replicas = nodes - 1  # one node is free for the one that has to move
    chosen = choose("executors", {"name": "ray", "workers": replicas})

    def app() -> Any:
        return create_app(household(options))

    tallies: list[tuple[float, float, bool]] = []  # when it began, how long it took, whether it was answered rightly
    over = threading.Event()

    def ask(number: int) -> None:
        client = openai.OpenAI(base_url="http://127.0.0.1:8599/v1", api_key="none", max_retries=5)
        while not over.is_set():
            began = time.time()
            try:
                said: Any = client.chat.completions.create(
                    model="tiny", messages=[{"role": "user", "content": SENTENCES[0]}], max_tokens=40
                )
                good = said.choices[0].message.content == SENTENCES[1]
            except openai.OpenAIError:
                good = False
            tallies.append((began, time.time() - began, good))
            time.sleep(0.05)

    with cluster(nodes) as kill, chosen.module.replicas(app, chosen.settings, host="127.0.0.1", port=8599, drain=5):
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        _until(lambda: len(tallies) >= 60)
        nodes_with = _nodes_of_replicas()
        killed = time.time()
        victim = next(k for k in kill if _node_id(k) in nodes_with)
        victim()
        _until(lambda: len(_nodes_of_replicas() - {_node_id(victim)}) >= replicas)
        back = time.time() - killed
        count = len(tallies)
        _until(lambda: len(tallies) >= count + 60)
        over.set()
        for thread in threads:
            thread.join()
    before = [took for began, took, _ in tallies if began < killed - 1]
    around = [took for began, took, _ in tallies if killed - 1 <= began < killed + back]
    wrong = sum(not good for *_, good in tallies)
    return {"job": "serve", "nodes": nodes, "replicas": replicas, "requests": len(tallies), "not_answered": wrong,
            "seconds_until_all_replicas_were_back": back, "median_ms_before": 1000 * statistics.median(before),
            "longest_s_around_the_kill": max(around, default=0.0), "held": wrong == 0}  # fmt: skip


def _nodes_of_replicas() -> set[str]:
    from ray._private import state  # the public way needs the dashboard

    alive = [actor for actor in state.actors().values() if actor["State"] == "ALIVE"]
    return {actor["Address"]["NodeID"] for actor in alive if "ServeReplica" in actor["ActorClassName"]}


def _node_id(kill: Any) -> str:
    node: str = kill.__defaults__[0].node_id
    return node


def _until(true: Any, seconds: float = 180) -> None:
    end = time.time() + seconds
    while not true():
        if time.time() > end:
            raise TimeoutError
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("jobs", nargs="*", default=["tune", "rows", "serve"])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep what is written here")
    args = parser.parse_args()
    place = args.out or Path(tempfile.mkdtemp(prefix="ray-cluster-"))
    place.mkdir(parents=True, exist_ok=True)
    os.environ["GENWRIGHT_HOME"] = str(place / "home")
    held = True
    for job in args.jobs:
        found = {"tune": tune, "rows": answer_rows, "serve": serve}[job](place, args.nodes)
        print(json.dumps(found), flush=True)
        held = held and found["held"]
    if not args.out:
        shutil.rmtree(place, ignore_errors=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
