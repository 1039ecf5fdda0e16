"""Let the n-th system call of a save fail, for every n: never a corrupt state (R18), and broken files are named (R16).

    python benchmarks/reliability/failing_disk.py

strace injects the faults into a child that saves one checkpoint over another: `write`, `fsync`, `rename`, `mkdir` and
`openat` with EIO, ENOSPC and EROFS, n = 1, 2, … until a save comes through untouched. Then each file of the newest
checkpoint is cut short, has a bit flipped, or is deleted. Exit 1 on any fault.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from product import start, table

CALLS = {"write": ("EIO", "ENOSPC"), "fsync": ("EIO", "ENOSPC"), "rename": ("EIO", "EROFS"), "mkdir": ("ENOSPC",)}


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        faults = failing_calls(Path(folder)) if shutil.which("strace") else 0
        faults += broken_files(Path(folder) / "broken")
    print(f"{faults} faults")
    return 1 if faults else 0


def failing_calls(folder: Path) -> int:
    faults, rows = 0, []
    for call, errors in CALLS.items():
        for error in errors:
            number, ended = 0, ""
            while ended != "saved":
                number += 1
                place = folder / f"{call}-{error}-{number}"
                ended, problem = one(place, call, error, number)
                faults += bool(problem)
                if problem:
                    print(f"{call} {number} {error}: {problem}")
                if number > 60:
                    raise SystemExit("a save never came through")
            rows.append([call, error, number - 1])
    table(["call", "error", "faults injected"], rows)
    return faults


def one(folder: Path, call: str, error: str, number: int) -> tuple[str, str]:
    """Inject one fault. Returns how the child ended ("saved" or the error's name) and what is wrong afterwards."""
    from genwright.nn import checkpoint as disk

    save(folder, 10)
    child = start(save_when_told, str(folder))
    while not (folder / "ready").exists():
        time.sleep(0.002)
    rule = f"inject={call}:error={error}:when={number}"
    tracer = subprocess.Popen(
        ["strace", "-q", "-p", str(child.pid), "-e", f"trace={call}", "-e", rule, "-o", str(folder / "trace")]
    )
    while "TracerPid:\t0" in Path(f"/proc/{child.pid}/status").read_text():
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGUSR1)
    child.join()
    tracer.wait()
    injected = "(INJECTED)" in (folder / "trace").read_text()
    for left in ("ready", "trace"):
        (folder / left).unlink()
    disk.clean(folder)
    skipped: list[str] = []
    found = disk.newest(folder, lambda name, why: skipped.append(f"{name}: {why}"))
    problem = ""
    if skipped or found is None:
        problem = f"broken: {skipped}"
    elif list(folder.glob(".*.tmp")):
        problem = "something is left behind"
    elif not injected and found.step != 20:
        problem = "nothing failed, and yet it was not saved"
    elif not all(bool((tensor == found.step).all()) for tensor in found.tensors.values()):
        problem = "the tensors are not those of the step"
    return "saved" if not injected else error, problem


def save(folder: Path, step: int) -> None:
    import torch

    from genwright.nn import checkpoint as disk

    disk.save(folder, step, {}, {name: torch.full((100, 100), float(step)) for name in "ab"}, keep=1)


def save_when_told(folder: str) -> None:
    from genwright.nn import checkpoint as disk

    told = []
    signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    Path(folder, "ready").touch()
    signal.sigwait({signal.SIGUSR1})
    try:
        save(Path(folder), 20)
    except disk.NotSaved:
        os._exit(75)
    os._exit(0)


def broken_files(folder: Path) -> int:
    from genwright.nn import checkpoint as disk

    def cut(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)

    faults, rows = 0, []
    for harm in (cut, flip, Path.unlink):
        for name in (disk.TENSORS, disk.STATE, disk.MANIFEST):
            place = folder / f"{harm.__name__}-{name}"
            save(place, 10)
            shutil.copytree(place / "step-00000010", place / "step-00000020")
            harm(place / "step-00000020" / name)
            said: dict[str, Any] = {}
            found = disk.newest(place, said.__setitem__)
            right = found is not None and found.step == 10 and "step-00000020" in said
            faults += not right
            rows.append([harm.__name__, name, said.get("step-00000020", "NOT NOTICED")])
            harm(place / "step-00000010" / name)
            try:
                disk.newest(place, said.__setitem__)
                print("all are broken, and it would have begun anew")
                faults += 1
            except disk.ModelError:
                pass
    table(["harm", "file", "reason given"], rows)
    return faults


if __name__ == "__main__":
    sys.exit(main())
