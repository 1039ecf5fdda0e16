"""The whole model in Hugging Face's layout, as full tuning left it, with its tokenizer and chat template."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from pydantic import Field

from genwright import core
from genwright.core import SILENT, Run, Tell, UsageError
from genwright.nn.release import Tuned, finish, whole_folder
from genwright.nn.weights import check_model_folder, parameters_in, sha256_of, weight_files


class Settings(core.Settings):
    dtype: Literal["kept", "bfloat16"] = Field(
        "kept", description="Precision of the weights: as tuning left them, or bfloat16 at half the size of float32"
    )


def export(run: Run, folder: Path, settings: Settings, *, tell: Tell = SILENT) -> list[Path]:
    """Copy the weights byte for byte, or rounded to bfloat16; files that are only for learning on stay behind.

    Raises UsageError for a run that learned an adapter: it has no whole model."""
    tuned = Tuned.of(run)
    if tuned.adapter:
        raise UsageError(
            f"This run learned an adapter ({tuned.facts.get('method', tuned.kind)}), not a whole model.",
            "Use the format `merged` for a whole model, or `adapter` for the adapter alone.",
        )
    check_model_folder(run.model)
    left = {"README.md", *tuned.facts.get("only_to_learn", ())}
    files = [path for path in sorted(run.model.rglob("*")) if path.is_file() and path.name not in left]
    tell.stage("copying", len(files))
    with whole_folder(folder) as partial:
        for path in files:
            to = partial / path.relative_to(run.model)
            to.parent.mkdir(exist_ok=True)
            if settings.dtype == "bfloat16" and path.suffix == ".safetensors":
                _round(path, to)
            else:
                shutil.copyfile(path, to)
            tell.advance()
        weights = weight_files(partial)
        sums = "".join(f"{sha256_of(path)}  {path.relative_to(partial).as_posix()}\n" for path in weights)
        (partial / "SHA256SUMS").write_text(sums, encoding="utf-8")
        exact = "The weights exactly as tuning left them"
        size = sum(path.stat().st_size for path in weights) / 1e6
        notes = [f"{exact if settings.dtype == 'kept' else 'The weights in bfloat16'}: "
                 f"{parameters_in(weights) / 1e6:.1f} million numbers, {size:.1f} MB."]  # fmt: skip
        finish(partial, run, format="safetensors", notes=notes)
        names = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
    return [folder / name for name in names]


def _round(path: Path, to: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from genwright.nn.checkpoint import write_safetensors

    found = load_file(path)
    write_safetensors(to, {n: t.to(torch.bfloat16) if t.dtype == torch.float32 else t for n, t in found.items()})
