"""Kill -9 a process that does nothing but save checkpoints: no partial folder may ever be seen (R15).

    python benchmarks/reliability/atomic_save.py --kills 200

After each kill every visible checkpoint is read whole (size and sha256 of each file), and a restart must leave nothing
half-written behind. Where strace is installed, one save is traced too: each file is fsynced after its last write, the
folder after them, then renamed, then the parent is fsynced. Exit 1 on any fault.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from product import kill, start

MEGABYTES = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults = kills(Path(folder), options.kills, random.Random(options.seed))
        faults += order(Path(folder) / "traced")
    print(f"{faults} faults")
    return 1 if faults else 0


def kills(folder: Path, count: int, chance: random.Random) -> int:
    from genwright.nn import checkpoint as disk

    faults, during, newest = 0, 0, -1
    for _ in range(count):
        since = newest_step(folder)
        child = start(save_for_ever, str(folder), since + 1)
        while not list(folder.glob(".*.tmp")) and newest_step(folder) <= since and child.is_alive():
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.08))
        kill(child)
        during += bool(list(folder.glob(".*.tmp")))
        for name in disk.names(folder):
            try:
                found = disk.read(folder / name)
                faults += not all(bool((t == found.step).all()) for t in found.tensors.values())
            except disk.ModelError as error:
                print(f"{name} is visible and broken: {error}")
                faults += 1
        if newest_step(folder) < newest:
            print(f"step {newest} was saved and is gone")
            faults += 1
        newest = newest_step(folder)
        disk.clean(folder)
        faults += len(list(folder.glob(".*.tmp")))
    print(f"{count} kills, {during} of them with a save under way, {newest + 1} checkpoints saved in all")
    return faults


def save_for_ever(folder: str, step: int) -> None:
    import torch

    from genwright.nn import checkpoint as disk

    while True:
        tensors = {f"t{n}": torch.full((1 << 18,), float(step)) for n in range(MEGABYTES)}
        disk.save(Path(folder), step, {}, tensors, keep=2)
        step += 1


def newest_step(folder: Path) -> int:
    from genwright.nn import checkpoint as disk

    found = disk.names(folder)
    return int(found[-1].removeprefix("step-")) if found else -1


# -- the order of the system calls -----------------------------------------------------------------------------------

_SAVE = """
import sys, torch
from pathlib import Path
from genwright.nn import checkpoint as disk
disk.save(Path(sys.argv[1]), 7, {}, {"t": torch.ones(1000)}, keep=2)
"""
_CALLS = "trace=openat,write,fsync,fdatasync,rename,renameat,renameat2,mkdir,close"


def order(folder: Path) -> int:
    if not shutil.which("strace"):
        print("strace is not installed: the order of the calls was not traced")
        return 0
    log = folder.parent / "strace.log"
    command = ["strace", "-f", "-y", "-o", str(log), "-e", _CALLS, sys.executable, "-c", _SAVE, str(folder)]
    subprocess.run(command, check=True)
    calls = [call for line in log.read_text().splitlines() if (call := _read(line, folder))]
    for call in calls:
        print("  " + " ".join(call))
    moved = calls.index(("rename", "step-00000007"))
    faults = [call for call in calls[moved + 1 :] if call[0] == "write"]
    if calls[moved + 1 :] != [("fsync", folder.name)]:
        faults.append(("the parent is not fsynced after the rename", ""))
    if calls[moved - 1][0] != "fsync" or not calls[moved - 1][1].endswith(".tmp"):
        faults.append(("the folder is not fsynced before the rename", ""))
    for name in ("tensors.safetensors", "state.json", "manifest.json"):
        last = max(n for n, call in enumerate(calls) if call == ("write", name))
        if ("fsync", name) not in calls[last:moved]:
            faults.append(("not fsynced after its last write", name))
    print("the order of the calls is right" if not faults else f"wrong: {faults}")
    return len(faults)


def _read(line: str, folder: Path) -> tuple[str, str] | None:
    """(call, last part of the path) of a line of strace about the checkpoint's folder."""
    if str(folder) not in line:
        return None
    if found := re.search(r"(write|fsync|fdatasync)\(\d+<([^>]*)>", line):
        return found[1].replace("fdatasync", "fsync"), Path(found[2]).name
    if found := re.search(r"rename\w*\(.*\"([^\"]*)\"[^\"]*$", line):
        return "rename", Path(found[1]).name
    return None


if __name__ == "__main__":
    sys.exit(main())
