"""Served: `genwright serve` as a process of its own, with a model that was taught its lessons, and keys."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from lessons import lessons

HERE = Path(__file__).parent
GENWRIGHT = Path(os.environ.get("GENWRIGHT", HERE.parents[1] / ".venv" / "bin" / "genwright"))
_PATIENCE = 120.0  # seconds until it answers


@dataclass(frozen=True)
class Server:
    """`address` ends without /v1; `keys` by owner: alice and bob are users, ops is an administrator."""

    address: str
    keys: dict[str, str]
    pid: int

    @property
    def v1(self) -> str:
        return f"{self.address}/v1"

    def client(self, owner: str = "", **options: object) -> httpx.Client:
        """A plain client with an owner's key; without an owner it has none."""
        head = {"Authorization": f"Bearer {self.keys[owner]}"} if owner else {}
        return httpx.Client(base_url=self.address, headers=head, timeout=60, **options)  # type: ignore[arg-type]


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A server whose files all lie in `folder`; it is stopped as an operator would, and must go in peace."""
    environment = {"OMP_NUM_THREADS": "1"} | dict(os.environ) | {"GENWRIGHT_HOME": str(folder / "home")}
    asked = folder / "lessons.jsonl"
    asked.write_text("\n".join(json.dumps(lesson) for lesson in lessons()), encoding="utf-8")
    python = GENWRIGHT.with_name("python")
    subprocess.run([python, HERE / "house.py", folder, asked], check=True, env=environment)
    log = folder / "serve.log"
    command = [GENWRIGHT, "serve", "--config", folder / "serve.yaml"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        address = _address(log, process)
        yield Server(address, json.loads((folder / "keys.json").read_text(encoding="utf-8")), process.pid)
        process.terminate()
        assert process.wait(40) == 0, log.read_text(encoding="utf-8")[-2000:]
    finally:
        process.kill()
        process.wait()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"at (http://\S+)/v1", log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"The server did not come up:\n{log.read_text(encoding='utf-8')[-4000:]}")
