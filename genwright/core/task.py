"""Tasks: what goes in, what comes out, how it is taught by default and how we know that it is good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from .content import Message
from .data import Example
from .model import Constraints
from .plugin import Settings


class TaskSettings(Settings):
    """Options that every text task shares."""

    max_length: int = Field(
        1024, ge=8, description="Tokens of a whole conversation; the prompt is cut first, from its start"
    )
    max_new_tokens: int = Field(256, ge=1, description="Tokens of an answer")
    system: str = Field("", description="System message put before every conversation that has none")
    shots: int = Field(0, ge=0, description="Examples from the training data shown before each question (few-shot)")
    constraints: Constraints = Field(Constraints(), description="What every answer must keep to")


def no_change(example: Example, settings: TaskSettings) -> Example:
    return example


@dataclass(frozen=True)
class Task:
    """`frame` turns a row's example into what the model is asked (prompt templates live there).

    `engine` and `objective` are the shelf names used when a recipe names none; `metrics` are judged by default.
    """

    takes: str
    gives: str
    engine: str
    objective: str
    metrics: tuple[str, ...]
    frame: Callable[[Example, Any], Example] = no_change


def with_shots(example: Example, shots: Sequence[Example]) -> Example:
    """Show `shots` as earlier turns of the same conversation, after its system message (Brown et al. 2020)."""
    head = tuple(m for m in example.messages[:1] if m.role == "system")
    turns: list[Message] = [m for shot in shots for m in shot.messages if m.role != "system"]
    return Example((*head, *turns, *example.messages[len(head) :]), example.meta)
