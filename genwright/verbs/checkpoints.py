"""Checkpoints: an adapter as it was at an earlier step, as a run of its own, so that it can be exported and asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from genwright.core import Run, UsageError


def checkpoint_steps(run: Run) -> list[int]:
    """Steps of the run's checkpoints that are on disk, oldest first."""
    from genwright.nn.checkpoint import names

    return [int(name.removeprefix("step-")) for name in names(run.checkpoints)]


def checkpoint_run(run: Run, step: int, folder: Path) -> Run:
    """A run in `folder` whose model is the adapter of `run` as it was at `step`; tokenizer and facts are the same.

    Raises UsageError for a run without adapter, ModelError when the checkpoint is broken.
    """
    from genwright.nn.checkpoint import read, write_folder, write_safetensors

    from .models import seal

    if not (run.model / "adapter_config.json").is_file():
        raise UsageError(f"{run.folder} has no adapter.", "Only adapters can be taken out of a checkpoint.")
    weights = read(run.checkpoints / f"step-{step:08d}").part("weights")
    made = Run.create(run.recipe, folder)

    def fill(place: Path) -> None:
        for path in run.model.iterdir():
            if path.is_file() and path.suffix != ".safetensors":
                shutil.copyfile(path, place / path.name)
        adapter = {name.replace(".default.", "."): tensor for name, tensor in weights.items()}
        write_safetensors(place / "adapter_model.safetensors", adapter)
        hashes = seal(place)
        facts = json.loads((place / "genwright.json").read_text(encoding="utf-8"))
        facts |= {"checkpoint": hashes["adapter_model.safetensors"], "weights": hashes, "step": step}
        (place / "genwright.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    write_folder(made.model, fill)
    return made
