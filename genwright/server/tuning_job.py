"""The process that tunes: `python -m genwright.server.tuning_job check|tune FOLDER`, a child of the server.

The server never loads torch; this does. It reads what the job's folder says, leaves what came of it there, and says on
standard output, a JSON object a line, what a person may want to hear. It ends when its standard input does, for then
the server is gone: whoever starts it again goes on from the newest checkpoint.

check   plan.json, training.jsonl, validation.jsonl → training.rows.jsonl, validation.rows.jsonl, checked.json
tune    recipe.json → a run, named as the folder, and result.json
either  failed.json when it cannot be done; interrupted (SIGINT) it writes a checkpoint and exits with 130
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from genwright.core import GenwrightError, Recipe, Run, Tell, UsageError
from genwright.core.errors import DataError, ModelError
from genwright.core.run import write_text

FAILED = 3  # exit code: failed.json says why, and trying again would not help


def main(work: str, folder: Path) -> int:
    """Do it, and say by the exit code how it ended: 0, FAILED, 130 when interrupted."""
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    os.nice(5)  # whoever chats goes first
    try:
        {"check": check, "tune": tune}[work](folder, _Said())
    except GenwrightError as error:
        code = "invalid_training_file" if isinstance(error, DataError) else type(error).__name__
        said = f"{error.message} {error.hint}".strip().replace(f"{folder}/", "")  # paths are no client's business
        _write(folder / "failed.json", {"code": code, "message": said})
        return FAILED
    except KeyboardInterrupt:
        return 130
    return 0


def check(folder: Path, tell: Tell) -> None:
    """Every line of the uploaded files, the rows that they teach, and what kind of thing the base is."""
    from genwright.verbs.models import locate

    from .training_rows import check_rows

    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for part in ("training", "validation"):
        if (folder / f"{part}.jsonl").is_file():
            checked = check_rows(folder / f"{part}.jsonl", folder / f"{part}.rows.jsonl", plan["kind"])
            problem = "" if checked.rows else checked.sentence(f"{part} file")
            found[part] = {"rows": checked.rows, "weighted": checked.weighted, "problem": problem}
    if not any(part["problem"] for part in found.values()):
        base = locate(plan["model"], tell=tell)
        weights = [base.path] if base.path.is_file() else [*base.path.glob("*.safetensors")]
        named = plan["model"] if base.card or not Path(plan["model"]).exists() else str(Path(plan["model"]).resolve())
        found |= {"base": base.kind, "source": named, "size": sum(path.stat().st_size for path in weights)}
    _write(folder / "checked.json", found)


def tune(folder: Path, tell: Tell) -> None:
    """Carry out the recipe, and leave its model in the form in which it can be served."""
    from genwright.verbs.run import run as carry_out

    recipe = Recipe.from_dict(json.loads((folder / "recipe.json").read_text(encoding="utf-8")))
    run = carry_out(recipe, folder / folder.name, until="prepare", tell=tell)
    _tell_of_rows(run, tell)
    carry_out(recipe, run.folder, until="tune", tell=tell)
    end = [event for event in run.events("tune.end")][-1]
    served = _export(run, tell)
    earlier = _earlier(run, folder, end["steps"], tell) if served["kind"] == "adapter" else []
    facts = json.loads((run.model / "genwright.json").read_text(encoding="utf-8"))
    _write(folder / "result.json", {
        **served, "checkpoints": earlier, "trained_tokens": end["real"], "steps": end["steps"],
        "speed": end["speed"], "seconds": end["seconds"], "provenance": {k: facts[k] for k in
                                                                        ("data", "recipe", "checkpoint")},
    })  # fmt: skip


def _tell_of_rows(run: Run, tell: Tell) -> None:
    report = json.loads((run.data / "report.json").read_text(encoding="utf-8"))
    for step in report["refiners"]:
        if lost := step["rows_in"] - step["rows_out"]:
            tell.note(f"{lost} training rows stand in the validation file too, and are not learned.")


def _export(run: Run, tell: Tell) -> dict[str, Any]:
    """The recipe's format; a model that GGUF cannot hold is served from the run's own folder."""
    from genwright.verbs.export import export_run

    formats = run.recipe.release.formats
    try:
        files = export_run(run, formats, tell=tell)
    except (ModelError, UsageError) as error:
        tell.note(f"The model is served as it was tuned, not as GGUF: {error.message}")
        return {"kind": "run", "path": ""}
    path = next(file for file in files if file.suffix == ".gguf")
    return {"kind": "adapter" if formats[0].settings.adapter else "gguf", "path": str(path)}


def _earlier(run: Run, folder: Path, last: int, tell: Tell) -> list[dict[str, Any]]:
    """Adapters as they were at the checkpoints before the last."""
    from genwright.verbs.checkpoints import checkpoint_run, checkpoint_steps
    from genwright.verbs.export import export_run

    made = []
    for step in checkpoint_steps(run):
        if step < last:
            then = checkpoint_run(run, step, folder / "steps" / str(step))
            files = export_run(then, run.recipe.release.formats, tell=tell)
            path = next(file for file in files if file.suffix == ".gguf")
            made.append({"step": step, "path": str(path), "run": str(then.folder)})
    return made


class _Said(Tell):
    """Tells the server, a line each."""

    def note(self, text: str) -> None:
        if not text.startswith("Data is as it was"):  # it was prepared a moment ago
            print(json.dumps({"note": text}), flush=True)


def _end_with_the_server() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def _write(path: Path, facts: dict[str, Any]) -> None:
    write_text(path, json.dumps(facts, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
