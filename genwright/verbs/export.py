"""Export: a run leaves the house in the formats that others read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from genwright.core import SILENT, Chosen, ModelError, Run, Tell, UsageError, choose, fingerprint


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


def adapter_to_gguf(adapter: Path, base: str, path: Path) -> Path:
    """A LoRA in PEFT's layout as a GGUF adapter for the GGUF file that `base` (a card, run or file) stands for.

    A GGUF adapter is copied as it is. Raises UsageError for a base that is no GGUF file, ModelError for an adapter that
    is broken, a pickle, or more than a LoRA.
    """
    from types import SimpleNamespace

    from genwright.nn.gguf_header import read_header
    from genwright.nn.gguf_writer import FAMILIES, write_lora_gguf
    from genwright.trust.weights import check_weights, weights_in

    from .models import locate

    if adapter.is_file() or not adapter.exists():
        check_weights(adapter)
        shutil.copyfile(adapter, path)
        return path
    file = adapter / "adapter_config.json"
    if not file.is_file():
        raise ModelError(
            f"{adapter} is no adapter: it has no adapter_config.json.", "Give a PEFT folder or a GGUF file."
        )
    weights = weights_in(adapter)
    found = locate(base, may_fetch=False, exported=True)
    if found.kind != "gguf":
        raise UsageError(f"{base} is no GGUF file, and adapters are worn by those only.",
                         "Export it by the format gguf and serve that, or serve the adapter's run itself.")  # fmt: skip
    header = read_header(found.path)
    kind, keys = header.architecture, header.keys
    heads = keys.get(f"{kind}.attention.head_count", 1)
    shape = SimpleNamespace(
        model_type=next((name for name, family in FAMILIES.items() if family.arch == kind), kind),
        num_hidden_layers=keys.get(f"{kind}.block_count", 0), num_attention_heads=heads,
        num_key_value_heads=keys.get(f"{kind}.attention.head_count_kv", heads),
    )  # fmt: skip
    from safetensors.torch import load_file

    state = {name: tensor for one in weights for name, tensor in load_file(one).items()}
    return write_lora_gguf(path, state, json.loads(file.read_text(encoding="utf-8")), shape)
