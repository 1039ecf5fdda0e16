"""The adapter alone, in PEFT's layout: small, and loaded onto the base model that it was learned on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pydantic import Field

from genwright import core
from genwright.core import SILENT, Run, Tell, UsageError
from genwright.nn.release import Tuned, finish, whole_folder
from genwright.nn.weights import check_model_folder


class Settings(core.Settings):
    base: str = Field(
        "", description="What adapter_config.json names as base_model_name_or_path; empty is the base's source"
    )


def export(run: Run, folder: Path, settings: Settings, *, tell: Tell = SILENT) -> list[Path]:
    """Copy the adapter, its config and the tokenizer. Raises UsageError for a fully tuned model."""
    tuned = Tuned.of(run)
    if not tuned.adapter:
        raise UsageError("This run was tuned in full and has no adapter.", "Use the format `safetensors`.")
    check_model_folder(run.model)
    base = settings.base or str((tuned.facts.get("base") or {}).get("source") or "")
    files = [path for path in sorted(run.model.iterdir()) if path.is_file() and path.name != "README.md"]
    tell.stage("copying", len(files))
    with whole_folder(folder) as partial:
        for path in files:
            shutil.copyfile(path, partial / path.name)
            tell.advance()
        library = "diffusers" if tuned.facts.get("engine") == "diffusers" else "PEFT"
        config = dict(tuned.adapter) | {"base_model_name_or_path": base}
        (partial / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        finish(
            partial,
            run,
            format="adapter",
            notes=[f"A {tuned.kind} adapter; load it with {library} onto {base or 'its base'}."],
        )
        names = sorted(p.name for p in partial.iterdir())
    return [folder / name for name in names]
