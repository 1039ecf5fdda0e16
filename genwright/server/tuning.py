"""Tuning: what a fine-tuning job asks for, as one of our recipes, and what came of it, as OpenAI's result file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from .training_rows import Kind
from .wire import Body

Auto = Literal["auto"]

# What a multiplier of 1 means. LoRA learns with ten times the rate of full tuning; preferences want a gentler one (with
# 1e-4 doubled, 60 pairs took SmolLM2-135M from chrF 30.0 to 24.0).
LEARNING_RATES: dict[Kind, float] = {"supervised": 5e-4, "dpo": 2e-5}
MAX_LENGTH = 4096  # tokens of a conversation; longer prompts are cut from their start
CHECKPOINTS, KEPT = 20, 3  # checkpoints written in a job, and how many of the newest stay
LOOKS, ROWS_A_LOOK = 10, 64  # most looks at the validation file, and rows to learn between two, else they cost most
SMALL = 1_000_000_000  # bytes of weights; smaller models learn faster at twice the rate (SmolLM2-135M: 1.85 for 1.94)
CSV_COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


class Hyperparameters(Body):
    """`auto`, or a number that is kept to. A batch is a count of examples."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = "auto"


class DpoHyperparameters(Hyperparameters):
    beta: Auto | Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] = "auto"


def resolved(asked: Mapping[str, Any], rows: int, size: int) -> dict[str, Any]:
    """The numbers that `auto` stands for with so many rows, and weights of `size` bytes.

    Three epochs, more when there are few rows and fewer when there are very many; batches of a fiftieth of the rows,
    from 1 to 16; a multiplier of 2 for models under a gigabyte, else 1; a beta of 0.1.
    """
    epochs = min(25, math.ceil(100 / rows)) if rows * 3 < 100 else max(1, 25_000 // rows) if rows * 3 > 25_000 else 3
    usual = {"n_epochs": epochs, "batch_size": min(16, max(1, rows // 50)), "beta": 0.1,
             "learning_rate_multiplier": 2.0 if size < SMALL else 1.0}  # fmt: skip
    return {name: usual[name] if value == "auto" else value for name, value in asked.items()}


def recipe_of(
    *, name: str, source: str, kind: Kind, folder: Path, rows: int, weighted: bool, validated: bool,
    chosen: Mapping[str, Any], seed: int, trackers: list[dict[str, Any]], formats: list[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """A recipe over `folder/training.rows.jsonl` (and validation) that tunes `source` by LoRA."""
    steps = chosen["n_epochs"] * math.ceil(rows / chosen["batch_size"])
    data: dict[str, Any] = {"source": "jsonl", "path": str(folder / "training.rows.jsonl"), "held_out": 0.0}
    if validated:
        data["held_out_data"] = {"source": "jsonl", "path": str(folder / "validation.rows.jsonl")}
    objective: dict[str, Any] = {"name": "sft", "supervise": "answer" if weighted else "assistant"}
    if kind == "dpo":
        objective = {"name": "dpo", "beta": chosen["beta"]}
    return {
        "name": name,
        "seed": seed,
        "data": data,
        "task": {"name": "chat", "max_length": MAX_LENGTH},
        "model": source,
        "method": {"name": "lora", "rank": 16},
        "objective": objective,
        "train": {
            "rows_per_batch": chosen["batch_size"],
            "epochs": chosen["n_epochs"],
            "learning_rate": LEARNING_RATES[kind] * chosen["learning_rate_multiplier"],
            "evaluate_every": math.ceil(steps / min(LOOKS, max(1, rows * chosen["n_epochs"] // ROWS_A_LOOK))),
            "checkpoint_every": max(1, math.ceil(steps / CHECKPOINTS)),
            "keep_checkpoints": KEPT,
            "trackers": trackers,
        },
        "release": {"name": name, "formats": formats},
    }


def result_csv(events: Iterable[Mapping[str, Any]]) -> str:
    """OpenAI's result file from a run's events: a line a step; what was not measured is empty.

    `train_accuracy` is the share of pairs that dpo gets right; supervised tuning measures none.
    """
    steps: dict[int, dict[str, Any]] = {}
    for event in events:
        if event["event"] == "step":
            accuracy = (event.get("figures") or {}).get("accuracy", "")
            steps[event["step"]] = {"train_loss": event["loss"], "train_accuracy": accuracy}
        elif event["event"] == "look" and event["step"] in steps:
            steps[event["step"]]["valid_loss"] = event["held_out_loss"]
    text = io.StringIO()
    table = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows({"step": step, **steps[step]} for step in sorted(steps))
    return text.getvalue()
