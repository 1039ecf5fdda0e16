"""Nothing is trained: the model is judged and served as it is, with the task's prompt, shots, guards and marks."""

from typing import Any

from genwright.core import Settings, UsageError


def attach(learner: Any, settings: Settings, *, seed: int = 0) -> Any:
    """Raises UsageError: a run with this method has no tuning stage, so nobody should attach it."""
    raise UsageError("With `method: none` there is nothing to tune.", "Run `genwright run` or `genwright evaluate`.")
