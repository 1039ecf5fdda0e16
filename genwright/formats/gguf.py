"""One GGUF file that llama.cpp and its many users run; or, with `adapter`, a LoRA to load onto the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright import core
from genwright.core import SILENT, ModelError, Run, Tell
from genwright.nn.gguf_writer import write_gguf, write_lora_gguf
from genwright.nn.release import Tuned, finish, licence_of, model_name, whole_folder
from genwright.nn.text import end_tokens


class Settings(core.Settings):
    quantization: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = Field(
        "q8_0", description="How the matrices are stored; q8_0 keeps the answers, q4_1 halves the file again"
    )
    adapter: bool = Field(False, description="Write only the LoRA adapter, for loading onto the base's GGUF file")
    check_tokens: bool = Field(
        True, description="Load the file and refuse it unless it splits held-out text as the tuned model does"
    )


def export(run: Run, folder: Path, settings: Settings, *, tell: Tell = SILENT) -> list[Path]:
    """Write `<name>-<quantization>.gguf` (an adapter is merged first), or `<name>-lora.gguf` with `adapter`.

    Raises UsageError when there is nothing to merge, ModelError when llama.cpp would read the model differently.
    """
    tuned = Tuned.of(run)
    licence = licence_of(tuned)[0]
    stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in model_name(run))
    with whole_folder(folder) as partial:
        if settings.adapter:
            path = _write_adapter(tuned, partial / f"{stem}-lora.gguf")
            note = "A LoRA adapter in GGUF: load it with `--lora` onto a GGUF file of the same base."
        else:
            path = partial / f"{stem}-{settings.quantization}.gguf"
            merged = tuned.merged()
            module, tokenizer = merged.module, merged.tokenizer
            facts = {"name": model_name(run), "description": "Tuned with Genwright. Output is AI-generated."}
            write_gguf(path, module.state_dict(), module.config, tokenizer, quantization=settings.quantization,
                       facts=facts | ({"license": licence} if licence else {}), tell=tell,
                       eot_token_id=_end_of_turn(module, tokenizer))  # fmt: skip
            if settings.check_tokens:
                check_tokens(path, tokenizer, _texts(run))
            note = f"GGUF, {settings.quantization}; the chat template is in the file."
        finish(partial, run, format="gguf", notes=[note], facts={"quantization": settings.quantization})
        names = sorted(p.name for p in partial.iterdir())
    return [folder / name for name in names]


def _write_adapter(tuned: Tuned, path: Path) -> Path:
    from safetensors.torch import load_file

    if tuned.kind != "LORA":
        raise ModelError(f"`adapter: true` needs a LoRA; this run was tuned by {tuned.facts.get('method')}.",
                         "Leave `adapter` out for the whole model.")  # fmt: skip
    config = tuned.open().module.config
    return write_lora_gguf(path, load_file(tuned.folder / "adapter_model.safetensors"), tuned.adapter, config)


def _end_of_turn(module: Any, tokenizer: Any) -> int | None:
    """The token that ends an answer besides the tokenizer's end of sequence, when the model has one."""
    ends = end_tokens(tokenizer, getattr(module, "generation_config", None))
    return min(ends - {tokenizer.eos_token_id}, default=None)


def _texts(run: Run, count: int = 50) -> list[str]:
    """What the check splits: held-out rows where there are some, and what tokenizers differ about."""
    from itertools import islice

    from genwright.core import Dataset

    path = run.data / "held_out.jsonl"
    rows = [m.text for e in islice(Dataset.open(path), count) for m in e.messages] if path.is_file() else []
    return [
        *rows,
        "In 2024, 1234567 people's \t tabs\n\n  and   spaces; I'M don't.",
        "你好，世界 🎉 naïve café",
        "  x\r\n\r\ny ",
    ]


def check_tokens(path: Path, tokenizer: Any, texts: list[str]) -> None:
    """Raises ModelError when llama.cpp splits a text into other tokens than the model learned with."""
    from genwright.nn.llama_cpp import LlamaCpp

    with LlamaCpp(path, context=64, parallel=1) as server:
        for text in texts:
            ours, theirs = tokenizer(text, add_special_tokens=False).input_ids, server.tokenize(text, special=True)
            if ours != theirs:
                raise ModelError(
                    f"llama.cpp would split {text[:60]!r} into other tokens than the model was tuned with.",
                    "Export safetensors, or set `check_tokens: false` to export all the same.",
                )
