"""Fuzz: schemathesis on our own document, and what came of it in figures (R42)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from served import Server
from things import one_of_each

HERE = Path(__file__).parent
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "response_headers_conformance", "negative_data_rejection", "unsupported_method", "known_shape")  # fmt: skip
_NO_ANSWER = 60.0  # seconds after which a request counts as hanging


@dataclass(frozen=True)
class Report:
    """`statuses` of all answers; `shapes` is how many good ones were held against a client's own types."""

    cases: int
    statuses: Counter[int]
    operations: int
    answered: int
    shapes: int
    failures: str

    def __str__(self) -> str:
        shown = ", ".join(f"{status}: {count:,}" for status, count in sorted(self.statuses.items()))
        return (f"{self.cases:,} cases over {self.operations} operations ({shown}); 200 came from {self.answered} of "
                f"them; {self.shapes:,} answers were held against the clients' own types")  # fmt: skip


def fuzz(server: Server, folder: Path, *, each: int, seed: int, phases: Sequence[str] = ("fuzzing",)) -> Report:
    """`each` cases for every operation, the same ones for the same seed; `coverage` adds all boundary values."""
    document = httpx.get(f"{server.address}/openapi.json").json()
    made = [one_of_each(server, "ops", set(document["paths"]))]
    pool = {kind: [things[kind] for things in made] for kind in made[0]}
    (folder / "pool.json").write_text(json.dumps(pool), encoding="utf-8")
    notes = folder / "notes.jsonl"
    environment = dict(os.environ) | {
        "SCHEMATHESIS_HOOKS": "fuzz_hooks", "PYTHONPATH": str(HERE), "FUZZ_POOL": str(folder / "pool.json"),
        "FUZZ_NOTES": str(notes), "COLUMNS": "200",
    }  # fmt: skip
    done = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"{server.address}/openapi.json", "--no-color",
         "--header", f"Authorization: Bearer {server.keys['ops']}", "--checks", ",".join(CHECKS), "--phases",
         ",".join(phases), "--max-examples", str(each), "--seed", str(seed), "--generation-database", "none",
         "--no-shrink", "--continue-on-failure", "--request-timeout", str(_NO_ANSWER), "--suppress-health-check", "all",
         "--warnings", "off"],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    return Report(
        cases=len(lines), statuses=Counter(line[2] for line in lines),
        operations=len({(line[0], line[1]) for line in lines}),
        answered=len({(line[0], line[1]) for line in lines if line[2] == 200}),
        shapes=sum(line[3] for line in lines), failures="" if done.returncode == 0 else done.stdout + done.stderr,
    )  # fmt: skip
