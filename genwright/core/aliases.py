"""Aliases: the spellings of the field's most used tools, accepted at the top of a recipe and translated once."""

from __future__ import annotations

from typing import Any

# their key -> the dotted key of a recipe. From LLaMA-Factory, axolotl, ms-swift, TRL, transformers and LitGPT.
ALIASES = {
    "base_model": "model", "model_name_or_path": "model", "model_id": "model", "pretrained_model_name_or_path": "model",
    "learning_rate": "train.learning_rate", "lr": "train.learning_rate",
    "num_train_epochs": "train.epochs", "num_epochs": "train.epochs", "epochs": "train.epochs",
    "max_steps": "train.max_steps", "weight_decay": "train.weight_decay",
    "warmup_ratio": "train.warmup", "warmup_steps": "train.warmup", "lr_scheduler_type": "train.schedule",
    "lr_scheduler": "train.schedule", "max_grad_norm": "train.clip", "gradient_clipping": "train.clip",
    "label_smoothing_factor": "train.label_smoothing", "label_smoothing": "train.label_smoothing",
    "optim": "train.optimizer", "optimizer": "train.optimizer", "torch_compile": "train.compile",
    "save_steps": "train.checkpoint_every", "eval_steps": "train.evaluate_every",
    "save_total_limit": "train.keep_checkpoints",
    "early_stopping_patience": "train.early_stopping", "per_device_train_batch_size": "train.rows_per_batch",
    "micro_batch_size": "train.rows_per_batch", "batch_size": "train.rows_per_batch",
    "cutoff_len": "task.max_length", "sequence_len": "task.max_length", "max_seq_length": "task.max_length",
    "max_length": "task.max_length", "model_max_length": "task.max_length", "max_new_tokens": "task.max_new_tokens",
    "finetuning_type": "method", "adapter": "method", "tuner_type": "method", "train_type": "method",
    "lora_rank": "method.rank", "lora_r": "method.rank", "lora_alpha": "method.alpha", "lora_dropout": "method.dropout",
    "lora_target": "method.targets", "lora_target_modules": "method.targets", "target_modules": "method.targets",
    "neftune_noise_alpha": "regularizers.neftune.alpha", "report_to": "train.trackers", "val_size": "data.held_out",
    "val_set_size": "data.held_out", "dataset": "data", "dataset_path": "data", "output_dir": "name",
    "random_seed": "seed",
    "gradient_accumulation_steps": "train.rows_per_batch",
}  # fmt: skip

_OPTIMIZERS = {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_hf": "adamw", "paged_adamw_8bit": "adamw"}
_SCHEDULES = {"constant_with_warmup": "constant", "warmup_stable_decay": "wsd"}


def apply_aliases(fields: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Translate familiar top-level keys. Returns the fields and one line for each translation.

    Raises ValueError when a familiar key and our own say different things.
    """
    fields, said = dict(fields), []
    rows = fields.get("per_device_train_batch_size", fields.get("micro_batch_size", fields.get("batch_size", 1)))
    rows_per_step = int(rows) * int(fields.get("gradient_accumulation_steps", 1))
    # Whole choices (`adapter: dora`) come before their options (`lora_rank: 8`), in whatever order they were written.
    for key in sorted((k for k in fields if k in ALIASES), key=lambda k: ("." in ALIASES[k], k != "adapter", k)):
        place, value = ALIASES[key], _translate(key, fields.pop(key), rows_per_step)
        if key == "neftune_noise_alpha":
            fields["regularizers"] = [*fields.get("regularizers", []), {"name": "neftune", "alpha": value}]
        else:
            _put(fields, key, place, value)
        said.append(f"{key} is read as {place}: {value!r}")
    return fields, said


def _translate(key: str, value: Any, rows_per_step: int) -> Any:
    if ALIASES[key] == "train.rows_per_batch":
        return rows_per_step
    if key == "optim":
        return _OPTIMIZERS.get(value, value)
    if key.startswith("lr_scheduler"):
        return _SCHEDULES.get(value, value)
    if key == "report_to":
        return [] if value in ("none", None) else [value] if isinstance(value, str) else value
    if key in ("lora_target", "lora_target_modules", "target_modules") and isinstance(value, str):
        return "all-linear" if value in ("all", "all-linear") else [name.strip() for name in value.split(",")]
    return value


def _put(fields: dict[str, Any], key: str, place: str, value: Any) -> None:
    first, _, rest = place.partition(".")
    old = fields.get(first)
    if not rest:
        if old not in (None, value):
            raise ValueError(f"`{key}` and `{first}` both say what `{first}` is; keep one.")
        fields[first] = value
        return
    if old is None or isinstance(old, str):
        key_of = {"method": "name", "data": "source", "task": "name"}.get(first, "")
        named = old or ("lora" if first == "method" else None)
        old = {key_of: named} if key_of and named else {}
    if rest in old and old[rest] != value:
        raise ValueError(f"`{key}` and `{place}` both say what `{place}` is; keep one.")
    fields[first] = {**old, rest: value}
