"""Fill the disk under a tuning: a clear error, nothing lost, and it goes on once there is room (R17).

    python benchmarks/reliability/disk_full.py

Runs in a 64 MB tmpfs of its own (Linux, `unshare`; no rights needed where user namespaces are allowed). A file takes
the room away until a checkpoint does not fit; it is then removed and the same call repeated. The end is compared with a
run that always had room. Exit 1 on any fault.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from product import polled, start, step_facts, tune_here, weight_hashes

TRAIN = {"max_steps": 30, "checkpoint_every": 5}


def main() -> int:
    if os.environ.get("GENWRIGHT_IN_TMPFS") is None:
        return outside()
    folder = Path(os.environ["GENWRIGHT_IN_TMPFS"])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    return inside(folder)


def outside() -> int:
    if not shutil.which("unshare"):
        print("unshare is not installed: nothing was tried")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, __file__]
        return subprocess.run(command, env={**os.environ, "GENWRIGHT_IN_TMPFS": folder}).returncode


def inside(folder: Path) -> int:
    from genwright.nn import checkpoint as disk

    faults = []
    with tempfile.TemporaryDirectory(dir=folder.parent) as roomy:
        whole = start(tune_here, str(Path(roomy) / "whole"), "full", 0, TRAIN)
        run, ballast = folder / "run", folder / "ballast"
        child = start(tune_here, str(run), "full", 0, TRAIN)
        for _ in polled(child):
            if disk.names(run / "checkpoints"):
                fill(ballast, leave=100_000)
                break
        began = time.perf_counter()
        child.join()
        whole.join()
        told = (run / "error.txt").read_text() if (run / "error.txt").exists() else ""
        print(f"exit {child.exitcode} after {time.perf_counter() - began:.1f} s: {told.strip()}")
        kept = disk.newest(run / "checkpoints", lambda name, why: faults.append(f"{name}: {why}"))
        print(
            f"kept: {kept.name if kept else 'nothing'}; beside it: {[p.name for p in (run / 'checkpoints').iterdir()]}"
        )
        faults += [] if child.exitcode == 75 else ["the exit code is not 75"]
        faults += [] if "The disk is full" in told and "MB are free" in told else ["the error does not say enough"]
        faults += [] if kept else ["no checkpoint is whole"]
        ballast.unlink()
        again = start(tune_here, str(run), "full", 0, TRAIN)
        again.join()
        faults += [] if again.exitcode == 0 else ["it does not go on"]
        faults += [f"left behind: {p}" for p in run.rglob(".*.tmp")]
        same = step_facts(run) == step_facts(Path(roomy) / "whole")
        faults += [] if same else ["the losses differ"]
        faults += [] if weight_hashes(run) == weight_hashes(Path(roomy) / "whole") else ["the weights differ"]
    for fault in faults:
        print(f"fault: {fault}")
    print(f"{len(faults)} faults")
    return 1 if faults else 0


def fill(path: Path, *, leave: int) -> None:
    """Take all the room but `leave` bytes."""
    take = shutil.disk_usage(path.parent).free - leave
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, take)


if __name__ == "__main__":
    sys.exit(main())
