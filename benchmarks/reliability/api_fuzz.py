"""Fuzz the HTTP API by its own document with schemathesis (R42).

    .venv-clients/bin/python benchmarks/reliability/api_fuzz.py --cases 2000 --seed 0

Runs in the environment of other people's clients, which `make clients` sets up. A real server with a small model is
begun; the cases go to its documented paths with an administrator's key, most of them with models and ids that there
are, good and bad on purpose, then every boundary value of every parameter. Counted: answers above 499, answers that
are not as the document says, good answers that the official clients' own types do not take, requests without an answer
within a minute. Exit 1 on any of them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "clients"))

import httpx
from fuzz import fuzz
from served import served


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="random cases at least; boundary values come on top")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as server:
        paths = httpx.get(f"{server.address}/openapi.json").json()["paths"]
        each = 2 * options.cases // sum(map(len, paths.values()))  # those that say nothing have few cases to try
        for phase in ("fuzzing", "coverage"):
            began, place = time.perf_counter(), Path(folder) / phase
            place.mkdir()
            report = fuzz(server, place, each=each, seed=options.seed, phases=[phase])
            print(f"{phase}: {report}; {time.perf_counter() - began:.0f} s", flush=True)
            if report.failures:
                print(report.failures)
                return 1
            if phase == "fuzzing" and report.cases < options.cases:
                print(f"fewer cases than {options.cases:,}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
