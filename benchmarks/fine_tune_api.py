"""Upload, fine-tune, chat: the whole way through OpenAI's API on this machine, supervised and by preferences.

    python benchmarks/fine_tune_api.py [--rows 240] [--pairs 60] [--asked 24] [--json FILE]

A server with SmolLM2-135M answers questions about the AWS command line before and after it has learned from worked
examples of other commands: first from answers (supervised), then from pairs of the right command and its own wrong one
(dpo). chrF compares its commands with those that people wrote; `aws …` is the share that are a command at all. Every
step goes through the official client. Goal: all of it in less than five minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai

from genwright.core import Dataset, Judged, Recipe, assistant, choose
from genwright.verbs.run import run

SYSTEM = "You write AWS CLI commands. Answer with the command alone."
MODEL = "smollm2-135m-instruct"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=240, help="examples to learn from")
    parser.add_argument("--pairs", type=int, default=60, help="pairs of a better and a worse answer")
    parser.add_argument("--asked", type=int, default=24, help="held-out questions")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        train, held_out = examples(Path(place) / "rows", args.rows + args.pairs, args.asked)
        began = time.perf_counter()
        with Server(Path(place)) as client:
            result = whole_way(client, train[: args.rows], train[args.rows :], held_out)
            result["seconds"] = round(time.perf_counter() - began, 1)
    print(f"all of it: {result['seconds']:.0f} s, load average at the end {os.getloadavg()[0]:.1f}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))


def whole_way(client: Any, rows: Sequence[Any], pairs: Sequence[Any], held_out: Sequence[Any]) -> dict[str, Any]:
    """Ask, tune, ask, tune, ask."""
    result = {"base": judged(client, MODEL, held_out)}
    teach = [{"messages": [*asked(row), row.answer.as_dict()]} for row in rows]
    check = [{"messages": [*asked(row), row.answer.as_dict()]} for row in held_out]
    first = tuned(client, "supervised", MODEL, teach, check)
    result["supervised"] = judged(client, first.fine_tuned_model, held_out) | facts(first)
    own = answers(client, first.fine_tuned_model, pairs)
    prefer = [
        {"input": {"messages": asked(row)}, "preferred_output": [row.answer.as_dict()],
         "non_preferred_output": [assistant(said).as_dict()]}
        for row, said in zip(pairs, own, strict=True) if said.strip() and said != row.answer.text
    ]  # fmt: skip
    second = tuned(client, "dpo", first.fine_tuned_model, prefer, None)
    result["dpo"] = judged(client, second.fine_tuned_model, held_out) | facts(second) | {"pairs": len(prefer)}
    for name, row in result.items():
        print(f"{name:12} " + "  ".join(f"{key} {value}" for key, value in row.items()))
    return result


def tuned(client: Any, kind: str, model: str, rows: list[Any], check: list[Any] | None) -> Any:
    """A job that has succeeded."""

    def upload(lines: list[Any]) -> str:
        data = "\n".join(map(json.dumps, lines)).encode()
        return str(client.files.create(file=("rows.jsonl", data), purpose="fine-tune").id)

    chosen = {"n_epochs": 1} | ({"beta": 0.1} if kind == "dpo" else {})
    job = client.fine_tuning.jobs.create(
        model=model, training_file=upload(rows), validation_file=upload(check) if check else None, suffix=kind, seed=0,
        method={"type": kind, kind: {"hyperparameters": chosen}},
    )  # fmt: skip
    shown = ""
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        job = client.fine_tuning.jobs.retrieve(job.id)
        newest = client.fine_tuning.jobs.list_events(job.id, limit=1).data
        if newest and newest[0].message != shown:
            shown = newest[0].message
            print(f"  {shown}", flush=True)
    if job.status != "succeeded":
        raise SystemExit(f"The job {job.status}: {job.error}")
    return job


def facts(job: Any) -> dict[str, Any]:
    return {"seconds": job.finished_at - job.created_at, "trained_tokens": job.trained_tokens,
            **job.hyperparameters.to_dict()}  # fmt: skip


def judged(client: Any, model: str, rows: Sequence[Any]) -> dict[str, Any]:
    """chrF of the model's commands, with its 95 % interval, and how many are commands."""
    said = answers(client, model, rows)
    score = choose("metrics", "chrf")([Judged(row, assistant(text)) for row, text in zip(rows, said, strict=True)])
    commands = sum(text.strip().startswith("aws ") for text in said) / len(said)
    return {"chrF": f"{score.value:.1f} ({score.low:.1f} … {score.high:.1f})", "aws …": f"{commands:.0%}"}


def answers(client: Any, model: str, rows: Sequence[Any]) -> list[str]:
    """What a model says to each row's question, at temperature 0."""

    def ask(row: Any) -> str:
        said = client.chat.completions.create(model=model, messages=asked(row), temperature=0, max_tokens=48)
        return str(said.choices[0].message.content)

    with ThreadPoolExecutor(4) as four:
        return list(four.map(ask, rows))


def asked(row: Any) -> list[dict[str, Any]]:
    return [message.as_dict() for message in row.prompt]


def examples(folder: Path, count: int, held_out: int) -> tuple[list[Any], list[Any]]:
    """Worked examples of the AWS command line; the held-out ones are of other commands."""
    recipe = Recipe.from_dict({
        "name": "aws", "data": {"source": "aws-cli-examples", "held_out": 0.03}, "model": MODEL,
        "refine": ["dedupe", {"name": "length", "max_prompt": 60, "max_answer": 30}],
        "task": {"name": "instruct", "system": SYSTEM},
    })  # fmt: skip
    made = run(recipe, folder, until="prepare")
    sides = (Dataset.open(made.data / f"{side}.jsonl") for side in ("train", "held_out"))
    train, aside = (side.sample(most, 0) for side, most in zip(sides, (count, held_out), strict=True))
    return train, aside


class Server:
    """`genwright serve` in a process of its own; entered, it is the official client to it."""

    def __init__(self, place: Path):
        with socket.create_server(("127.0.0.1", 0)) as door:
            port = door.getsockname()[1]
        config = place / "serve.json"
        config.write_text(json.dumps({"models": [MODEL], "port": port, "data": str(place / "data")}))
        code = "import sys; from genwright.server.house import Options; from genwright.server.serve import " \
               "serve_options; serve_options(Options.model_validate_json(open(sys.argv[1]).read()))"  # fmt: skip
        self.process = subprocess.Popen([sys.executable, "-c", code, str(config)], stderr=subprocess.DEVNULL)
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=300,
                                    max_retries=0, _strict_response_validation=True)  # fmt: skip

    def __enter__(self) -> Any:
        while True:
            try:
                self.client.models.list()
                return self.client
            except openai.APIConnectionError:
                if self.process.poll() is not None:
                    raise SystemExit("The server did not start.") from None
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(60)


if __name__ == "__main__":
    main()
