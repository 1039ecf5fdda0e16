"""How fast rows are read and validated, near copies removed, and a whole recipe's data prepared.

    python benchmarks/data_speed.py                 # a million rows
    python benchmarks/data_speed.py --rows 100000

Each part runs in a process of its own on one core (where the system lets a process be pinned), so that peak memory is
its own. On a busy machine look at rows per CPU second: it counts only the time that the core worked for us. Rows are
synthetic and seeded; the files are written before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

SHAPES: dict[str, Callable[[int, str, str], dict[str, object]]] = {
    "prompt/completion": lambda i, q, a: {"prompt": q, "completion": a},
    "messages": lambda i, q, a: {
        "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    },
    "text": lambda i, q, a: {"text": f"{q} {a}"},
}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--rows", type=int, default=1_000_000, help="rows of near-duplicate removal (reading: a fifth)"
    )
    options.add_argument("--part", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.part:
        print(json.dumps(PARTS[given.part.split(":")[0]](given.rows, *given.part.split(":")[1:])))
        return
    print(f"$ python {' '.join(sys.argv)}")
    print(
        f"{_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}\n"
    )
    print(f"{'part':<44}{'rows':>10}{'rows/s':>12}{'rows/CPU s':>12}{'peak MB':>10}  note")
    for part in ("nothing", *(f"read:{shape}" for shape in SHAPES), "near:drop", "prepare"):
        command = [sys.executable, __file__, "--rows", str(given.rows), "--part", part]
        done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        speeds = "".join(f"{done['rows'] / done[unit] if done['rows'] else 0:>12,.0f}" for unit in ("seconds", "cpu"))
        print(f"{done['name']:<44}{done['rows']:>10,}{speeds}{done['peak']:>10,.0f}  {done['note']}", flush=True)


def nothing(rows: int) -> dict[str, object]:
    """The imports alone: what the other parts' memory is to be compared with."""
    import numpy
    import rensa

    import genwright.verbs.prepare

    assert numpy
    assert rensa
    assert genwright.verbs.prepare
    return _result("libraries loaded", 0, (1.0, 1.0), "")


def read(rows: int, shape: str) -> dict[str, object]:
    """jsonl source → read_row → Example, one core; the best of three passes."""
    from genwright.core import Example, Row, choose
    from genwright.core.rows import read_row

    rows = max(1000, rows // 5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        chance = random.Random(0)
        with path.open("w", encoding="utf-8") as file:
            for i in range(rows):
                asked = f"What is {chance.randrange(10**6)} plus {chance.randrange(10**6)}?"
                row = SHAPES[shape](i, asked, f"It is the {i}th answer that somebody gave.")
                file.write(json.dumps(row) + "\n")
        source, best = choose("sources", {"source": "jsonl", "path": str(path)}, key="source"), (1e9, 1e9)
        for _ in repeat(None, 3):
            started, count = _clocks(), 0
            for row in source():
                assert isinstance(row, Row)
                messages, meta = read_row(row.fields)
                example = Example(messages, meta)
                count += 1
            best = min(best, _since(started))
        assert count == rows
        assert example.answer.role == "assistant"
        size = path.stat().st_size
    return _result(
        f"read and validated: {shape}", rows, best, f"{size / rows:.0f} bytes a row, {size / best[0] / 1e6:.0f} MB/s"
    )


def near(rows: int, action: str) -> dict[str, object]:
    """Near-duplicate removal at its defaults over rows of 48 words, a tenth of them an earlier one with a word changed.

    Such a copy shares 43 of 49 three-word runs: a similarity of 0.88, where the threshold is 0.8.
    """
    from genwright.core import choose

    class Report:
        dropped = 0

        def drop(self, example: object, reason: str) -> None:
            self.dropped += 1

        def note(self, text: str) -> None:
            pass

    report = Report()
    refine = choose("refiners", {"name": "near_dedupe", "action": action})
    examples = _examples(rows)
    made = time.perf_counter()
    for _ in _examples(min(rows, 20_000)):
        pass
    making = (time.perf_counter() - made) * rows / min(rows, 20_000)
    started = _clocks()
    kept = sum(1 for _ in refine(examples, report=report))
    seconds = _since(started)
    note = (
        f"{report.dropped:,} dropped of {rows // 10:,} copies planted; {making:.0f} of {seconds[0]:.0f} s make the rows"
    )
    assert kept + report.dropped == rows
    return _result("near-duplicate removal (MinHash, LSH)", rows, seconds, note)


def _examples(rows: int) -> Iterator[object]:
    from genwright.core import Example, Message, Part

    chance = random.Random(1)
    words = [f"w{i}" for i in range(50_000)]
    past: list[list[str]] = []
    for i in range(rows):
        if i % 10 == 9:
            said = list(past[chance.randrange(len(past))])
            said[chance.randrange(48)] = "changed"
        else:
            said = chance.choices(words, k=48)
            if len(past) < 1000:
                past.append(said)
            else:
                past[i % 1000] = said
        yield Example((Message("user", (Part("text", " ".join(said[:16])),)),
                       Message("assistant", (Part("text", " ".join(said[16:])),))))  # fmt: skip


def prepare(rows: int) -> dict[str, object]:
    """The whole of `genwright prepare`: read, dedupe, length, redact, near_dedupe, split, decontaminate, report."""
    from genwright.core import Recipe, Run
    from genwright.verbs.prepare import prepare as run_prepare

    rows = max(1000, rows // 20)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for example in _examples(rows):
                file.write(json.dumps(example.as_dict()) + "\n")  # type: ignore[attr-defined]
        recipe = Recipe.from_dict({
            "data": {"path": str(path)}, "refine": ["dedupe", "length", "redact", "near_dedupe", "decontaminate"],
            "task": "chat", "model": "none", "method": "full", "marks": [],
        })  # fmt: skip
        started = _clocks()
        done = run_prepare(recipe, Run.create(recipe, Path(folder) / "run"))
        seconds = _since(started)
        note = f"{len(done.train):,} to learn from, {len(done.held_out):,} held out"
    return _result("prepare with five refiners", rows, seconds, note)


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(started: tuple[float, float]) -> tuple[float, float]:
    """(wall, CPU) seconds."""
    return time.perf_counter() - started[0], time.process_time() - started[1]


def _result(name: str, rows: int, seconds: tuple[float, float], note: str) -> dict[str, object]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1024)
    return {"name": name, "rows": rows, "seconds": seconds[0], "cpu": seconds[1], "peak": peak, "note": note}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


PARTS: dict[str, Callable[..., dict[str, object]]] = {
    "nothing": nothing,
    "read": read,
    "near": near,
    "prepare": prepare,
}

if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity") and "--part" in sys.argv:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    main()
