"""kill -9 of a server in the middle of speech and of a picture: nothing half is taken for whole, and a restart answers.

    python benchmarks/reliability/killed_media.py --rounds 3

Each round starts `genwright serve` with Hibari and a small picture model of random weights, asks for something long,
kills the server at a moment drawn by lot while it works, and looks: the client saw an error, not an end; no worker
lives on; the ledger reads as it was written; every stored file has the hash that is its name. Then the same data folder
is served again, and what is asked with a seed has the samples or pixels that it had before anybody was killed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.server.studio import painter

LONG = " ".join(f"This is sentence number {n}, and it takes its time." for n in range(1, 120))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, broken = random.Random(args.seed), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run, env = painter(folder / "run"), home(folder)
        with served(folder, run, env) as (address, _):
            before = {kind: whole(address, kind) for kind in ("speech", "picture")}
        for number in range(args.rounds):
            for kind in ("speech", "picture"):
                with served(folder, run, env) as (address, server):
                    whole(address, kind)  # the model is loaded
                    workers = children(server.pid)
                    came = killed(address, kind, server, rng.uniform(0.05, 1.0))
                time.sleep(1.0)
                found = {
                    "the client saw an error": came.startswith("error"),
                    "no worker lives on": not any(alive(one) for one in workers),
                    "the ledger is whole": ledger_is_whole(env),
                    "stored files are whole": blobs_are_whole(folder / "data"),
                }
                with served(folder, run, env) as (address, _):
                    found["a restart gives the same"] = whole(address, kind) == before[kind]
                    found["no file is listed"] = httpx.get(f"{address}/files", timeout=60).json()["data"] == []
                wrong = [what for what, kept in found.items() if not kept]
                broken += bool(wrong)
                print(
                    f"{'BROKEN' if wrong else 'kept  '} {kind} {number + 1}: {came}; {', '.join(wrong) or 'all'}",
                    flush=True,
                )
    return int(broken > 0)


def home(folder: Path) -> dict[str, str]:
    """The environment of a server with a ledger of its own and the weights that are here."""
    from genwright.core.home import store

    (folder / "home").mkdir()
    (folder / "home" / "store").symlink_to(store())
    return dict(os.environ) | {"GENWRIGHT_HOME": str(folder / "home")}


@contextmanager
def served(folder: Path, run: Path, env: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [
        sys.executable,
        "-m",
        "genwright",
        "serve",
        "hibari",
        str(run),
        "--port",
        "0",
        "--data",
        str(folder / "data"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as server:
        try:
            assert server.stdout
            for line in server.stdout:
                if found := re.search(r"http://[\d.]+:\d+/v1", line):
                    yield found[0], server
                    break
            else:
                raise SystemExit("The server did not start.")
        finally:
            server.terminate()


def request_of(address: str, kind: str, *, long: bool) -> dict[str, Any]:
    if kind == "speech":
        body = {"model": "hibari", "voice": "heart", "input": LONG if long else "Hello again.", "seed": 1,
                "response_format": "pcm", "stream_format": "audio" if long else None}  # fmt: skip
        return {"method": "POST", "url": f"{address}/audio/speech", "json": body}
    body = {
        "model": painter_name(address),
        "prompt": "a red hat",
        "seed": 1,
        "n": 10 if long else 1,
        "steps": 200 if long else 2,
    }
    return {"method": "POST", "url": f"{address}/images/generations", "json": body}


def painter_name(address: str) -> str:
    models = httpx.get(f"{address}/models", timeout=60).json()["data"]
    return next(str(one["id"]) for one in models if one["id"] != "hibari")


def whole(address: str, kind: str) -> str:
    """What a short request gives, as a hash: of its samples or pixels, for each file has a label of its own."""
    answer = httpx.request(**request_of(address, kind, long=False), timeout=600)
    answer.raise_for_status()
    if kind == "speech":
        return hashlib.sha256(answer.content).hexdigest()
    from genwright.media.picture import open_picture

    picture = open_picture(base64.b64decode(answer.json()["data"][0]["b64_json"]))
    return hashlib.sha256(picture.tobytes()).hexdigest()


def killed(address: str, kind: str, server: subprocess.Popen[str], seconds: float) -> str:
    """What the client sees of a server that is killed so many seconds after it began to answer."""
    kill = threading.Timer(seconds, lambda: os.kill(server.pid, signal.SIGKILL))
    size = 0
    try:
        kill.start()
        with httpx.stream(**request_of(address, kind, long=True), timeout=600) as answer:
            for piece in answer.iter_bytes():
                size += len(piece)
    except httpx.HTTPError as error:
        return f"error {type(error).__name__} after {size:,} bytes"
    finally:
        kill.cancel()
    return f"an end after {size:,} bytes (it was done before it was killed: ask for more)"


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ledger_is_whole(env: dict[str, str]) -> bool:
    from genwright.trust.ledger import verify

    return verify(Path(env["GENWRIGHT_HOME"]) / "state" / "ledger.jsonl").ok


def blobs_are_whole(data: Path) -> bool:
    files = [path for path in (data / "blobs").rglob("*") if re.fullmatch("[0-9a-f]{64}", path.name)]
    return all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in files)


if __name__ == "__main__":
    sys.exit(main())
