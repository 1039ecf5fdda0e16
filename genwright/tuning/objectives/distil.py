"""Distil: learn the whole distribution of a teacher that shares the tokenizer (Hinton et al. 2015)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import Encoded, Example, FilePath, Learner, Loss, ModelError, UsageError, shelves
from genwright.core import Settings as Options


class Settings(Options):
    """Options of distillation."""

    teacher: FilePath = Field(description="Folder of the teacher: a model, or a run")
    temperature: float = Field(1.0, gt=0, description="Above 1 the teacher's unlikely words count more")
    alpha: float = Field(0.5, ge=0, le=1, description="Share of the teacher in the loss; the rest is the data's own")
    engine: str | None = Field(None, description="Engine of the teacher; null is the learner's")


def encode(learner: Learner, example: Example, settings: Settings) -> Encoded:
    """The example with its answer as targets; the teacher is asked at the same positions."""
    return learner.encode(example)


def prepare(learner: Any, settings: Settings) -> None:
    """Load the teacher onto the learner, frozen.

    Raises UsageError when it is not there or another tokenizer made its words, ModelError when it cannot compare.
    """
    teacher = _load(Path(settings.teacher), settings.engine or type(learner).__module__.rpartition(".")[2])
    if not hasattr(teacher, "logits"):
        raise ModelError("The teacher gives no logits to learn from.", "Use a model of the same kind as the learner.")
    if teacher.tokenizer.get_vocab() != learner.tokenizer.get_vocab():
        raise UsageError(
            f"The teacher in {settings.teacher} has another vocabulary than the learner.",
            "Distil between models of one family, which share a tokenizer.",
        )
    teacher.module.requires_grad_(False).eval()
    teacher.module.to(next(learner.module.parameters()).device)
    learner.teacher = teacher


def loss(learner: Any, batch: Any, settings: Settings) -> Loss:
    """α T² KL(teacher ‖ student) at temperature T + (1−α) cross-entropy, summed over the supervised tokens.

    arXiv 1503.02531. Rows of the vocabulary that only one of the two has (padding) are left out.
    """
    import torch

    from genwright.nn.losses import cross_entropy_sum, kl_sum

    targets = learner.targets(batch)
    student = learner.logits(batch)
    with torch.no_grad():
        taught = learner.teacher.logits(batch)
    width = min(student.shape[1], taught.shape[1])
    kl = kl_sum(taught[:, :width], student[:, :width], settings.temperature)
    own = cross_entropy_sum(student, targets, getattr(learner, "label_smoothing", 0.0))
    weight = float(len(targets))
    logs = {"teacher_kl": kl.detach().item() / settings.temperature**2 / max(weight, 1.0)}
    return Loss(settings.alpha * kl + (1 - settings.alpha) * own, weight, logs)


def _load(folder: Path, engine: str) -> Any:
    if not folder.is_dir():
        raise UsageError(f"There is no teacher at {folder}.", "Give the folder of a model or of a run.")
    source = folder / "model" if (folder / "model").is_dir() else folder
    return shelves["engines"].load(engine).load(source, shelves["engines"].settings(engine)())
