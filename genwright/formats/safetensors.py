"""The whole model in Hugging Face's layout, as full tuning left it, with its tokenizer and chat template."""

from __future__ import annotations

import shutil
from pathlib import Path

from genwright import core
from genwright.core import SILENT, Run, Tell, UsageError
from genwright.nn.release import Tuned, finish, whole_folder
from genwright.nn.weights import check_model_folder


class Settings(core.Settings):
    pass


def export(run: Run, folder: Path, settings: Settings, *, tell: Tell = SILENT) -> list[Path]:
    """Copy the weights byte for byte. Raises UsageError for a run that learned an adapter: it has no whole model."""
    tuned = Tuned.of(run)
    if tuned.adapter:
        raise UsageError(
            f"This run learned an adapter ({tuned.facts.get('method', tuned.kind)}), not a whole model.",
            "Use the format `merged` for a whole model, or `adapter` for the adapter alone.",
        )
    return _copied(run, folder, ["The weights exactly as tuning left them."], tell)


def _copied(run: Run, folder: Path, notes: list[str], tell: Tell) -> list[Path]:
    check_model_folder(run.model)
    files = [path for path in sorted(run.model.iterdir()) if path.is_file() and path.name != "README.md"]
    tell.stage("copying", len(files))
    with whole_folder(folder) as partial:
        for path in files:
            shutil.copyfile(path, partial / path.name)
            tell.advance()
        finish(partial, run, format="safetensors", notes=notes)
        names = sorted(p.name for p in partial.iterdir())
    return [folder / name for name in names]
