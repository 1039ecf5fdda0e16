"""An ONNX graph from tokens to logits, for any batch and length, checked against torch by onnxruntime.

It holds no cache of keys and values, so it is for classifying and scoring; to generate quickly, export gguf.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from genwright import core
from genwright.core import SILENT, Dataset, MissingExtra, ModelError, Run, Tell, UsageError
from genwright.nn.release import Tuned, finish, whole_folder
from genwright.nn.text import chat_text, token_ids


class Settings(core.Settings):
    max_difference: float = Field(1e-3, gt=0, description="Largest logit difference to torch that is let pass")
    prompts: int = Field(8, ge=1, description="Held-out rows on which the two are compared")
    opset: int = Field(20, ge=18, le=23, description="Version of ONNX's operators")


def export(run: Run, folder: Path, settings: Settings, *, tell: Tell = SILENT) -> list[Path]:
    """Write the tokenizer and `model.onnx`: inputs `input_ids` and `attention_mask` (batch, length), output `logits`.

    An adapter is merged first. Raises MissingExtra without onnx, onnxscript and onnxruntime, and ModelError when
    onnxruntime's logits differ from torch's by more than the bound; then nothing is left behind.
    """
    _need_libraries()
    tuned = Tuned.of(run)
    learner = tuned.merged()
    if learner.module.config.is_encoder_decoder:
        raise UsageError("This format holds models with one input; this one is an encoder-decoder.", "Use `merged`.")
    with whole_folder(folder) as partial:
        tell.stage("tracing the model")
        _trace(learner.module, partial / "model.onnx", settings.opset)
        learner.module.config.save_pretrained(partial)
        learner.tokenizer.save_pretrained(partial)
        rows = _rows(run, learner.tokenizer, settings.prompts)
        difference = _largest_difference(learner.module, partial / "model.onnx", rows, tell)
        said = f"Largest logit difference to torch on {len(rows)} rows: {difference:.2g}"
        tell.note(f"{said} (limit {settings.max_difference:g}).")
        if not difference <= settings.max_difference:
            raise ModelError(f"onnxruntime answers differently. {said}.", "Raise `max_difference` if you accept it.")
        facts = {"largest_logit_difference": difference, "opset": settings.opset}
        notes = [f"ONNX, opset {settings.opset}, float32, without a cache. {said}."]
        finish(partial, run, format="onnx", notes=notes, facts=facts)
        names = sorted(p.name for p in partial.iterdir())
    return [folder / name for name in names]


def _need_libraries() -> None:
    import importlib.util

    for name in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(name, "onnx")


def _trace(module: Any, path: Path, opset: int) -> None:
    """torch.export, then ONNX; batch and length stay free."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            more = {"use_cache": False} if getattr(module.config, "use_cache", None) is not None else {}
            return self.module(input_ids=input_ids, attention_mask=attention_mask, **more).logits

    module.config._attn_implementation = "sdpa"  # the packed attention of training takes one row at a time
    tokens = torch.ones(2, 12, dtype=torch.int64)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with _silence(), torch.no_grad():
        made = torch.onnx.export(
            Logits().eval(), (tokens, torch.ones_like(tokens)), dynamo=True, opset_version=opset, verbose=False,
            input_names=["input_ids", "attention_mask"], output_names=["logits"],
            dynamic_shapes={"input_ids": free, "attention_mask": free},
        )  # fmt: skip
    assert made is not None
    made.save(path)


def _rows(run: Run, tokenizer: Any, count: int) -> list[list[int]]:
    """Held-out conversations as tokens; a fixed sentence when nothing was held out."""
    path = run.data / "held_out.jsonl"
    examples = list(islice(Dataset.open(path), count)) if path.is_file() else []
    texts = [chat_text(tokenizer, example.messages, prompt=False) for example in examples]
    return [token_ids(tokenizer, text)[:256] for text in texts or ["The sea was calm."]]


def _largest_difference(module: Any, path: Path, rows: list[list[int]], tell: Tell) -> float:
    import numpy as np
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    tell.stage("comparing logits", len(rows))
    for row in rows:
        tokens = torch.tensor([row, row])  # a batch of two, the second one padded at its end
        mask = torch.ones_like(tokens)
        mask[1, len(row) // 2 + 1 :] = 0
        with torch.no_grad():
            wanted = module(input_ids=tokens, attention_mask=mask).logits.numpy()
        found = session.run(None, {"input_ids": tokens.numpy(), "attention_mask": mask.numpy()})[0]
        real = mask.numpy().astype(bool) if wanted.ndim == 3 else np.ones(len(wanted), dtype=bool)
        largest = max(largest, float(np.abs(wanted - found)[real].max()))
        tell.advance()
    return largest


@contextmanager
def _silence() -> Iterator[None]:
    """Without the exporter's notes on operators of vision models, and its own deprecations."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
