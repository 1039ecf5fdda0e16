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
    "save_steps": "train.checkpoint_every", "eval_steps": "train.evaluate_every", "save_total_limit": "train.keep_checkpoints",
    "early_stopping_patience": "train.early_stopping", "per_device_train_batch_size": "train.rows_per_batch",
    "micro_batch_size": "train.rows_per_batch", "batch_size": "train.rows_per_batch",
    "cutoff_len": "task.max_length", "sequence_len": "task.max_length", "max_seq_length": "task.max_length",
    "max_length": "task.max_length", "model_max_length": "task.max_length", "max_new_tokens": "task.max_new_tokens",
    "finetuning_type": "method", "adapter": "method", "tuner_type": "method", "train_type": "method",
    "lora_rank": "method.rank", "lora_r": "method.rank", "lora_alpha": "method.alpha", "lora_dropout": "method.dropout",
    "lora_target": "method.targets", "lora_target_modules": "method.targets", "target_modules": "method.targets",
    "neftune_noise_alpha": "regularizers.neftune.alpha", "report_to": "train.trackers", "val_size": "data.held_out",
    "val_set_size": "data.held_out", "dataset": "data", "dataset_path": "data", "output_dir": "name", "random_seed": "seed",
    "gradient_accumulation_steps": "train.rows_per_batch",
}  # fmt: skip

_OPTIMIZERS = {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_hf": "adamw", "paged_adamw_8bit": "adamw"}
_SCHEDULES = {"constant_with_warmup": "constant", "warmup_stable_decay": "wsd"}


def apply_aliases(fields: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Translate familiar top-level keys. Returns the fields and one line for each translation."""
    fields, said = dict(fields), []
    batch = fields.get("per_device_train_batch_size", fields.get("micro_batch_size", fields.get("batch_size")))
    for key in [k for k in fields if k in ALIASES]:
        value, place = fields.pop(key), ALIASES[key]
        if key == "gradient_accumulation_steps":
            value = int(value) * int(batch or 1)
        elif key == "optim":
            value = _OPTIMIZERS.get(value, value)
        elif key.startswith("lr_scheduler"):
            value = _SCHEDULES.get(value, value)
        elif key == "report_to":
            value = [] if value in ("none", None) else [value] if isinstance(value, str) else value
        elif key in ("lora_target", "lora_target_modules", "target_modules") and isinstance(value, str):
            value = value if value in ("all", "all-linear") else [name.strip() for name in value.split(",")]
        if key == "neftune_noise_alpha":
            fields["regularizers"] = [*fields.get("regularizers", []), {"name": "neftune", "alpha": value}]
        else:
            _put(fields, place, value)
        said.append(f"{key} is read as {place}: {value!r}")
    return fields, said


def _put(fields: dict[str, Any], place: str, value: Any) -> None:
    first, _, rest = place.partition(".")
    if not rest:
        fields.setdefault(first, value)
        return
    old = fields.get(first)
    if old is None or isinstance(old, str):
        default = {"method": {"name": old or "lora"}, "data": {"source": old}, "task": {"name": old}}.get(first, {})
        old = default if first != "task" or isinstance(old, str) else {}
    fields[first] = {**old, rest: value}
