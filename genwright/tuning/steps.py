"""Steps: what regularizers that add a term to the loss have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genwright.core import DataError, Dataset, Example, Loss, Unlearnable
from genwright.core.rows import read_row

if TYPE_CHECKING:
    from torch import Tensor

Step = Callable[[Any], Loss]


def added(loss: Loss, name: str, term: Tensor, strength: float) -> Loss:
    """The loss with `strength · term` for each unit of its weight; `term` is logged under `name`."""
    logs = loss.logs | {name: term.detach().item()}
    return Loss(loss.total + strength * loss.weight * term, loss.weight, logs)


def learning_parameters(module: Any) -> dict[str, Tensor]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def read_examples(path: Path) -> Dataset:
    """Rows of a JSON-lines file in any shape that training data may have.

    Raises DataError naming file and line of the first row that is none, or when there are no rows.
    """
    import json

    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Give a .jsonl file of rows.")
    found = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                messages, meta = read_row(json.loads(line))
            except (ValueError, AttributeError, TypeError) as error:
                raise DataError(f"{path}:{number} is no row: {error}", "Mend or delete the line.") from None
            found.append(Example(messages, meta))
    if not found:
        raise DataError(f"{path} has no rows.", "Give a .jsonl file of rows.")
    return Dataset(found)


def some_batches(examples: Dataset, count: int, learner: Any, context: Any) -> list[Any]:
    """Up to `count` random rows, each a batch of its own on the device; those that teach nothing are passed over.

    Raises DataError when all are.
    """
    batches = []
    for example in examples.sample(count, context.seed):
        try:
            batch = learner.collate([context.encode(example)])
        except Unlearnable:
            continue
        batches.append(batch.to(context.device) if hasattr(batch, "to") else batch)
    if not batches:
        raise DataError("None of the rows can be learned from.", "Look at the shape of the rows and at max_length.")
    return batches
