"""Tasks: what goes in, what comes out, how it is taught by default and how we know that it is good."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from .content import Message, Part
from .content import system as system_says
from .data import Example
from .model import Constraints
from .plugin import Chosen, Settings, choose


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
    """What goes in and out (`takes`, `gives`), and what is used when a recipe names nothing else.

    `engine` and `objective` are shelf names, `metrics` those judged by default, `guards` who looks at requests and
    answers where a recipe says nothing. A task that `imitates` learns somebody's voice or likeness: it is tuned only
    with a consent on record. `frame` turns a row's example into what the model is asked (prompt templates live there);
    `framed` is what training, evaluation and serving all use, so that they put the same question.
    """

    takes: str
    gives: str
    engine: str
    objective: str
    metrics: tuple[str, ...]
    frame: Callable[[Example, Any], Example] = no_change
    guards: tuple[Mapping[str, Any], ...] = ()
    imitates: bool = False

    @property
    def chosen_guards(self) -> list[Chosen]:
        return [choose("guards", guard) for guard in self.guards]

    def framed(self, example: Example, settings: Settings) -> Example:
        """The example as the model meets it: through the task's frame, with the system message if it has none."""
        example = self.frame(example, settings)
        system = getattr(settings, "system", "")  # pictures are asked for without one
        if not system or len(example.messages) < 2 or example.messages[0].role == "system":
            return example
        return Example((system_says(system), *example.messages), example.meta)


def templated(example: Example, template: str) -> Example:
    """The example with the words of its last question put through the template; files and the answer stay."""
    if template == "{prompt}" or len(example.messages) < 2:
        return example
    asked = example.messages[-2]
    words = template.replace("{prompt}", asked.text)
    parts = (Part(text=words), *(part for part in asked.parts if part.kind != "text"))
    return Example((*example.messages[:-2], Message(asked.role, parts), example.answer), example.meta)


def with_shots(example: Example, shots: Sequence[Example]) -> Example:
    """Show `shots` as earlier turns of the same conversation, after its system message (Brown et al. 2020)."""
    head = tuple(m for m in example.messages[:1] if m.role == "system")
    turns: list[Message] = [m for shot in shots for m in shot.messages if m.role != "system"]
    return Example((*head, *turns, *example.messages[len(head) :]), example.meta)
