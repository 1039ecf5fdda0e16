"""Ask: a model opened for answering, with the guards, marks and provenance that belong to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genwright.core import (
    Chosen,
    Constraints,
    Dataset,
    Message,
    Model,
    Part,
    Provenance,
    Recipe,
    Request,
    Run,
    choose,
    user,
    with_shots,
)


@dataclass
class Answerer:
    """A model that answers through guards, marks and the ledger; it has no other way out."""

    model: Model
    name: str
    guards: Sequence[Chosen] = ()
    marks: Sequence[Chosen] = ()
    provenance: Provenance = field(default_factory=Provenance)
    max_new_tokens: int = 256
    constraints: Constraints = field(default_factory=Constraints)
    template: Any = None  # the task's frame: how a question is put to this model

    def ask(self, messages: str | Sequence[Message], **options: Any) -> Iterator[Part]:
        """Stream the answer to a prompt or to a conversation, as text deltas.

        `options` are fields of Request. Raises Refused when a guard says no, ModelError when the model cannot answer.
        """
        from .generate import generate

        asked = (user(messages),) if isinstance(messages, str) else tuple(messages)
        options = {"max_new_tokens": self.max_new_tokens, "constraints": self.constraints} | options
        request = Request(messages=self._framed(asked), **options)
        yield from generate(self.model, request, guards=self.guards, marks=self.marks,
                            provenance=self.provenance, model_name=self.name)  # fmt: skip

    def _framed(self, asked: tuple[Message, ...]) -> tuple[Message, ...]:
        from genwright.core import Example, assistant

        framed = self.template(Example((*asked, assistant("")))) if self.template else None
        # Plain continuation has no question: the text so far is the beginning of the answer.
        return (framed.prompt or framed.messages) if framed else asked

    def close(self) -> None:
        close = getattr(self.model, "close", None)
        if close:
            close()


def open_answerer(
    ref: str | Path | Run, *, engine: str | None = None, guards: Sequence[Chosen | str] = (), seed: int = 0
) -> Answerer:
    """Open a run, card, folder, GGUF file or `hf:org/name` for answering.

    A run brings its own guards, marks, system message, template and constraints; `guards` are added to them.
    Raises UsageError for an unknown name and ModelError when the weights cannot be loaded.
    """
    from .models import locate, open_model

    name = str(ref.folder if isinstance(ref, Run) else ref)
    added = [choose("guards", guard) for guard in guards]
    if Run.is_run(name) and (run := Run.open(name)).recipe.method.name == "none":  # a model as it is, perhaps elsewhere
        model = open_model(run.recipe.model, task=run.recipe.task, purpose="answer", seed=seed)
        return _from_run(run, run.recipe, model, added)
    located = locate(name)
    choice: Any = {"source": name, "engine": engine} if engine else name
    if located.kind != "run":
        model = open_model(choice, purpose="answer", seed=seed)
        facts = Provenance(model=name, checkpoint=located.sha256)
        return Answerer(model, name, added, [choose("marks", "metadata")], facts)
    run = Run.open(name)
    return _from_run(run, run.recipe, open_model(choice, task=run.recipe.task, purpose="answer", seed=seed), added)


def _from_run(run: Run, recipe: Recipe, model: Model, added: Sequence[Chosen]) -> Answerer:
    settings, task = recipe.task.settings, recipe.task.thing
    shots = Dataset.open(run.data / "train.jsonl").sample(settings.shots, recipe.seed) if settings.shots else []
    return Answerer(
        model,
        recipe.release.name or recipe.name,
        [*recipe.guards, *added],
        recipe.marks,
        provenance_of(run),
        settings.max_new_tokens,
        settings.constraints,
        lambda example: with_shots(task.framed(example, settings), shots),
    )


def provenance_of(run: Run) -> Provenance:
    """Data hash → recipe hash → checkpoint hash, as written beside the weights."""
    path = run.model / "genwright.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return Provenance(
        model=run.recipe.release.name or run.recipe.name,
        data=str(facts.get("data", "")),
        recipe=str(facts.get("recipe", "")),
        checkpoint=str(facts.get("checkpoint", "")),
    )
