"""Export: a run leaves the house in the formats that others read."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from genwright.core import SILENT, Chosen, Run, Tell, UsageError, choose, fingerprint


def export_run(
    run: Run, formats: Sequence[Chosen | str], *, out: Path | None = None, tell: Tell = SILENT
) -> list[Path]:
    """Write the run's model in each format, below `run/exports/<format>` or `out/<format>`.

    A format whose model and settings have not changed since is left as it is. Raises UsageError for an untuned run and
    ModelError when a format cannot hold this model.
    """
    if not (run.model / "genwright.json").is_file():
        raise UsageError(f"{run.folder} has no tuned model yet.", f"Run `genwright tune {run.folder}` first.")
    written: list[Path] = []
    for chosen in (choose("formats", given) for given in formats):
        folder = (out or run.folder / "exports") / chosen.name
        stage = f"export {folder.resolve()}"
        wanted = fingerprint(chosen.as_dict(), (run.model / "genwright.json").read_text(encoding="utf-8"))
        if folder.is_dir() and run.is_done(stage, wanted):
            tell.note(f"{chosen.name}: nothing changed, {folder} stays.")
            written += sorted(path for path in folder.iterdir() if path.is_file())
            continue
        tell.stage(f"Export {chosen.name}")
        needed = sum(path.stat().st_size for path in run.model.rglob("*") if path.is_file())
        folder.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder.parent).free < needed:
            raise UsageError(f"{folder.parent} has not the {needed:,} bytes free that this needs.", "Free some space.")
        files = chosen(run, folder, tell=tell)
        run.log("export", format=chosen.name, files=[str(path) for path in files])
        run.mark_done(stage, wanted)
        written += files
    return written
