"""Processes that learn letters together: what the tests of this folder start."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np

from genwright.nn.crew import Crew

DEAD = 9


def teach(rank: int, size: int, folder: Path, dies_at: int, changes: dict[str, Any]) -> None:
    """One process of a crew that learns letters; at step `dies_at` the last one dies without a word."""
    import torch
    from torch import distributed

    from genwright.nn.loop import fit
    from tests.nn.tiny import Log, Objective, Tiny, plain_loss, rows, settings

    if size > 1:
        torch.set_num_threads(1)
        place = folder / f"meeting-{dies_at}-{size}"
        distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)
    steps = 0

    def loss(learner: Any, batch: Any) -> Any:
        nonlocal steps
        steps += learner.module.training
        if rank == size - 1 and steps == dies_at:
            os._exit(DEAD)
        return plain_loss(learner, batch)

    given: dict[str, Any] = {"rows_per_batch": 2, "dropout": 0.0, "checkpoint_every": 4, **changes}
    log, learner = Log(folder / "run"), Tiny()
    outcome = fit(learner, rows(40), rows(20, seed=1), objective=Objective(loss), settings=settings(**given), seed=3,
                  folder=folder / "run", log=log, crew=Crew.found())  # fmt: skip
    weights = torch.cat([p.detach().reshape(-1) for p in learner.module.parameters()])
    np.save(folder / f"weights-{rank}.npy", weights.numpy())
    if rank == 0:
        facts = outcome.as_dict() | {"losses": [e["loss"] for e in log["step"]], "looks": len(log["look"]),
                                     "passes": [e["passes"] for e in log["step"]]}  # fmt: skip
        (folder / "facts.json").write_text(json.dumps(facts))


def crew(folder: Path, size: int, *, dies_at: int = -1, **changes: Any) -> list[int | None]:
    """The exit codes of all, in the order of rank."""
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.nn.tiny", "genwright.nn.loop"])  # torch is imported once
    members = [context.Process(target=teach, args=(rank, size, folder, dies_at, changes)) for rank in range(size)]
    for member in members:
        member.start()
    for member in members:
        member.join(120)
    return [member.exitcode for member in members]
