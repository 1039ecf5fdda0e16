"""The adapter merged into its base: one plain model, refused when its logits differ from the unmerged one's."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright import core
from genwright.core import SILENT, Dataset, ModelError, Run, Tell
from genwright.nn.release import Tuned, finish, whole_folder
from genwright.nn.text import chat_text, token_ids

LIMITS = {"float32": 1e-2, "float16": 0.25, "bfloat16": 1.0}


class Settings(core.Settings):
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="Precision of the saved weights")
    max_difference: float | None = Field(
        None,
        gt=0,
        description="Largest logit difference that is let pass; null is 0.01 (float32), 0.25 (float16), 1 (bfloat16)",
    )
    prompts: int = Field(16, ge=1, description="Held-out prompts on which merged and unmerged are compared")


def export(run: Run, folder: Path, settings: Settings, *, tell: Tell = SILENT) -> list[Path]:
    """Merge, save, load what was saved, and compare its logits with those of base plus adapter in float32.

    The largest difference is told, and written into genwright.json and the card. Raises ModelError, and leaves nothing
    behind, when it is above the limit; UsageError for methods that cannot be merged.
    """
    import torch

    tuned = Tuned.of(run)
    limit = settings.max_difference or LIMITS[settings.dtype]
    with whole_folder(folder) as partial:
        merged = tuned.merged()
        module, tokenizer = merged.module.to(getattr(torch, settings.dtype)), merged.tokenizer
        module.save_pretrained(partial, max_shard_size="4GB")
        tokenizer.save_pretrained(partial)
        saved = type(module).from_pretrained(partial, dtype=torch.float32, local_files_only=True).eval()
        del merged, module
        rows = _rows(run, tokenizer, settings.prompts)
        difference = _largest_difference(tuned.open().module, saved, rows, tell)
        said = f"Largest logit difference to the unmerged model on {len(rows)} held-out rows: {difference:.2g}"
        tell.note(f"{said} (limit {limit:g}).")
        if not difference <= limit:
            raise ModelError(
                f"The merged model answers differently. {said}; the limit is {limit:g}.",
                "Use dtype float32, or raise `max_difference` if you accept it.",
            )
        facts = {"largest_logit_difference": difference, "dtype": settings.dtype}
        finish(partial, run, format="merged", notes=[f"Merged, {settings.dtype}. {said}."], facts=facts)
        names = sorted(p.name for p in partial.iterdir())
    run.log("merged", **facts, prompts=len(rows))
    return [folder / name for name in names]


def _largest_difference(one: Any, other: Any, rows: list[list[int]], tell: Tell) -> float:
    """Row by row, so that no more than one row's logits are held."""
    import torch

    from genwright.nn.attention import bare

    largest, one = 0.0, bare(one)  # PEFT's own forward passes know words only
    tell.stage("comparing logits", len(rows))
    with torch.no_grad():
        for row in rows:
            given = _given(one.config, torch.tensor([row]))
            difference = one(**given).logits - other(**given).logits
            largest = max(largest, float(difference.abs().max()))
            tell.advance()
    return largest


def _given(config: Any, tokens: Any) -> dict[str, Any]:
    """What the forward pass is handed; a network that hears gets noise, the same for both."""
    import torch

    if not config.is_encoder_decoder:
        return {"input_ids": tokens}
    if not hasattr(config, "num_mel_bins"):
        return {"input_ids": tokens, "decoder_input_ids": tokens}
    shape = (1, config.num_mel_bins, 2 * config.max_source_positions)
    heard = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return {"input_features": heard, "decoder_input_ids": tokens[:, : config.max_target_positions]}


def _rows(run: Run, tokenizer: Any, count: int) -> list[list[int]]:
    """Held-out conversations as tokens; a fixed sentence when nothing was held out."""
    path = run.data / "held_out.jsonl"
    examples = list(islice(Dataset.open(path), count)) if path.is_file() else []
    texts = [chat_text(tokenizer, example.messages, prompt=False) for example in examples]
    return [token_ids(tokenizer, text)[:512] for text in texts or ["The sea was calm."]]
