"""Kill -9 a tuning again and again, and compare where it ends with one that was left alone (R14, R21).

    python benchmarks/reliability/kill_resume.py --kills 20 --method both --seed 0
    python benchmarks/reliability/kill_resume.py --kills 10 --method pictures
    python benchmarks/reliability/kill_resume.py --kills 6 --steps 40 --run runs/icons runs/own_voice

With `--run` the recipe of a prepared run is tuned on 200 of its rows, whatever its engine.

Every second kill falls at a random moment, the others while a checkpoint or the model is being written. Compared: the
loss of every step as a hex float, the digest of the rows of every step, the sha256 of the final weights. Exit 1 on any
difference.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from product import kill, polled, start, step_facts, table, tune_here, weight_hashes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills for each method")
    parser.add_argument("--method", choices=["lora", "full", "both", "pictures"], default="both")
    parser.add_argument("--run", nargs="*", help="prepared runs, in place of `--method`: of whatever engine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=80)
    options = parser.parse_args()
    methods = options.run or (["lora", "full"] if options.method == "both" else [options.method])
    mismatches = 0
    for method in methods:
        with tempfile.TemporaryDirectory() as folder:
            mismatches += compare(Path(folder), method, options)
    print(f"\n{mismatches} mismatches")
    return 1 if mismatches else 0


def compare(folder: Path, method: str, options: argparse.Namespace) -> int:
    print(f"\n{method}: {options.steps} steps, left alone, then killed {options.kills} times", flush=True)
    train = {"max_steps": options.steps}
    began = time.perf_counter()
    whole = start(tune_here, str(folder / "whole"), method, options.seed, train)
    whole.join()
    assert whole.exitcode == 0, f"the uninterrupted run failed: {whole.exitcode}"
    print(f"left alone: {time.perf_counter() - began:.1f} s")
    seconds = sum_of_step_times(folder / "whole")
    rows = [
        one_kill(folder / "killed", method, options, train, number, seconds) for number in range(1, options.kills + 1)
    ]
    table(["kill", "moment", "began at step", "killed after step", "being written"], rows)
    last = start(tune_here, str(folder / "killed"), method, options.seed, train)
    last.join()
    assert last.exitcode == 0, f"the last run failed: {last.exitcode}"

    a, b = step_facts(folder / "whole"), step_facts(folder / "killed")
    steps = sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))
    ours, theirs = weight_hashes(folder / "whole"), weight_hashes(folder / "killed")
    files = sum(ours.get(name) != theirs.get(name) for name in ours.keys() | theirs.keys())
    saving = sum(row[4] != "" for row in rows)
    print(f"{len(a)} steps compared: {steps} mismatches; {len(ours)} weight files: {files} mismatches")
    print(f"{len(rows)} kills, {saving} of them during a save; last loss {a[-1][1]} and {b[-1][1]}")
    for name in ours:
        print(f"  {name}: {ours[name][:16]} {theirs.get(name, 'absent')[:16]}")
    return steps + files


def one_kill(
    folder: Path, method: str, options: argparse.Namespace, train: dict[str, Any], number: int, seconds: float
) -> list[Any]:
    """Start it, kill it at a moment drawn from (seed, number), and say when that was."""
    chance = random.Random(f"{options.seed} {method} {number}")
    since = time.time()
    child = start(tune_here, str(folder), method, options.seed, train)
    in_save = number % 2 == 0
    wait = chance.uniform(0, 6 * seconds / options.steps)
    begun: float | None = None
    saves_to_see = chance.randint(1, 3)
    seen: set[str] = set()
    for _ in polled(child):
        if begun is None:
            begun = time.perf_counter() if has_begun(folder, since) else None
        elif in_save:
            seen |= {
                p.name for place in (folder / "checkpoints", folder) if place.is_dir() for p in place.glob(".*.tmp")
            }
            if len(seen) >= saves_to_see:
                time.sleep(chance.uniform(0, 0.01))
                break
        elif time.perf_counter() - begun >= wait:
            break
    ended = not child.is_alive()
    assert not ended or child.exitcode == 0, f"a child failed: {child.exitcode}"
    kill(child)
    writing = sorted(p.name for place in (folder / "checkpoints", folder) for p in place.glob(".*.tmp"))
    moment = "ended before" if ended else "seen writing" if in_save else f"{wait:.2f} s"
    done = step_facts(folder)
    began = began_at(folder)
    return [number, moment, began, done[-1][0] if done else 0, writing[0].split(".")[1] if writing else ""]


def has_begun(folder: Path, since: float) -> bool:
    """Whether the child started at `since` (a time of day) is at its steps."""
    from genwright.core import Run

    return any(e["event"] in ("tune.start", "tune.resume") and e["time"] > since for e in Run(folder).events())


def began_at(folder: Path) -> int:
    from genwright.core import Run

    return max((e["step"] for e in Run(folder).events("tune.resume")), default=0)


def sum_of_step_times(folder: Path) -> float:
    from genwright.core import Run

    return sum(e["seconds"] for e in Run(folder).events("step"))


if __name__ == "__main__":
    sys.exit(main())
