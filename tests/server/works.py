"""A whole server around tiny random models, for tests of the jobs on top: tuning, batches, vector stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genwright.core import Run
from genwright.server.house import House, Options
from tests.formats.tiny import SENTENCES, tiny_run

from .household import at_home, client

ROWS = [{"messages": [{"role": "user", "content": s}, {"role": "assistant", "content": "The ferry is late."}]}
        for s in SENTENCES]  # fmt: skip


def tiny_base(folder: Path) -> Path:
    """A tiny model that has learned `SENTENCES` by heart, as a GGUF file called tiny.gguf."""
    from genwright.formats import gguf

    run: Run = tiny_run(folder, teach=True)
    made = gguf.export(run, folder / "out", gguf.Settings())
    path = next(path for path in made if path.suffix == ".gguf")
    return path.rename(path.with_name("tiny.gguf"))


def house_of(folder: Path, base: Path, **options: Any) -> House:
    """A household that serves `base`; made twice over the same folder, the second finds what the first left."""
    from genwright.server.serve import household

    entry = {"source": str(base), "engine": {"runner": "llama.cpp", "context": 256, "threads": 1}}
    return household(Options(**{"models": [entry], "data": folder / "data", "memory": 10**10} | options))


@contextmanager
def serving(house: House) -> Iterator[Any]:
    """The official client in strict mode, of the whole server."""
    from genwright.server.app import create_app

    with at_home(create_app(house)) as address, client(address, timeout=60) as made:
        yield made


def upload(made: Any, rows: Sequence[Any], purpose: str = "fine-tune") -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return str(made.files.create(file=("rows.jsonl", "\n".join(lines).encode()), purpose=purpose).id)


def until(seen: Callable[[], Any], wanted: Callable[[Any], bool], seconds: float = 60.0) -> Any:
    """What `seen` gives once it is as wanted."""
    import time

    end = time.monotonic() + seconds
    while not wanted(found := seen()):
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found
