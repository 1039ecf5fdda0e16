"""Ask: a model opened for answering, with the guards, marks and provenance that belong to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
    Request,
    Run,
    UsageError,
    choose,
    shelves,
    user,
    with_shots,
)
from genwright.core.errors import ModelError
from genwright.core.recipe import ModelChoice


@dataclass
class Answerer:
    """A model that answers through guards, marks and the ledger; it has no other way out."""

    model: Model
    name: str
    guards: Sequence[Chosen] = ()
    marks: Sequence[Chosen] = ()
    provenance: Provenance = field(default_factory=Provenance)
    max_new_tokens: int | None = None  # None: to the end of the context, as servers of models do
    constraints: Constraints = field(default_factory=Constraints)
    template: Any = None  # the task's frame: how a question is put to this model
    options: Mapping[str, Any] = field(default_factory=dict)  # the task's, for requests that name none
    run: Run | None = None  # what it was made from, whose events tell of each answer

    def ask(self, messages: str | Sequence[Message], **options: Any) -> Iterator[Part]:
        """Stream the answer to a prompt or to a conversation, as text deltas.

        `options` are fields of Request. Raises Refused when a guard says no, ModelError when the model cannot answer.
        """
        from .generate import generate

        asked = (user(messages),) if isinstance(messages, str) else tuple(messages)
        options = self.usual() | options
        options["options"] = {**self.options, **options.get("options", {})}
        request = Request(messages=self._framed(asked), **options)
        yield from generate(self.model, request, guards=self.guards, marks=self.marks, provenance=self.provenance,
                            model_name=self.name, run=self.run)  # fmt: skip

    def usual(self) -> dict[str, Any]:
        """The fields of a Request for which the caller says nothing."""
        most = self.max_new_tokens or self.context
        return {"constraints": self.constraints} | ({"max_new_tokens": most} if most else {})

    @property
    def gives(self) -> str:
        """The modality of its answers."""
        return str(getattr(self.model, "gives", "text"))

    def _framed(self, asked: tuple[Message, ...]) -> tuple[Message, ...]:
        from genwright.core import Example, assistant

        framed = self.template(Example((*asked, assistant("")))) if self.template else None
        # Plain continuation has no question: the text so far is the beginning of the answer.
        return (framed.prompt or framed.messages) if framed else asked

    def tokens(self, asked: str | Sequence[Message], *, special: bool = False) -> list[int]:
        """A text as tokens (`special`: begun and ended as the model likes it), or what it sees of a conversation.

        Raises UsageError for a model elsewhere.
        """
        from genwright.nn.text import prompt_tokens

        if isinstance(asked, str):
            return list(self.tokenizer(asked, add_special_tokens=special)["input_ids"])
        return prompt_tokens(self.tokenizer, self._framed(tuple(asked))).ids

    def words(self, tokens: Sequence[int]) -> str:
        """Tokens as the text that they stand for, special ones too. Raises UsageError for one that there is not."""
        size = len(self.tokenizer) if hasattr(self.tokenizer, "__len__") else self.tokenizer.vocab_size
        if odd := [token for token in tokens if not 0 <= token < size]:
            raise UsageError(f"There is no token {odd[0]}: {self.name} has {size}.")
        text: str = self.tokenizer.decode(list(tokens))
        return text

    @property
    def template_text(self) -> str:
        """The chat template by which conversations become tokens."""
        from genwright.nn.text import template_of

        return template_of(self.tokenizer)

    @property
    def context(self) -> int | None:
        """Tokens of a prompt with its answer; None where only somebody else knows."""
        found = getattr(self.model, "context", None) or getattr(getattr(self.model, "runner", None), "context", None)
        return int(found) if found else None

    @property
    def tokenizer(self) -> Any:
        """What splits texts. Raises UsageError for a model elsewhere, which keeps it to itself."""
        found = getattr(self.model, "tokenizer", None)
        if found is None:
            raise UsageError(f"The tokenizer of {self.name} is not on this machine.", "Ask where the model runs.")
        return found

    def close(self) -> None:
        close = getattr(self.model, "close", None)
        if close:
            close()


def open_answerer(
    ref: str | Path | Run, *, engine: str | Mapping[str, Any] | None = None, guards: Sequence[Chosen | str] = (),
    task: str | Mapping[str, Any] | None = None, seed: int = 0,
) -> Answerer:  # fmt: skip
    """Open a run, card, folder, GGUF file or `hf:org/name` for answering.

    A run brings its own guards, marks, system message, template and constraints; `guards` are added to them. Without
    a run the guards are those of the task, or of a task that gives what the model gives.
    `engine` is a name, or a name with options as in a recipe's `model`: {"engine": "gguf", "context": 2048}; without
    the name they are options of the engine that is chosen. `task` is another than the run's own, or what a folder or
    card is to do. Raises UsageError for an unknown name or option and
    ModelError when the weights cannot be loaded.
    """
    from .models import is_remote, locate, open_model

    name = str(ref.folder if isinstance(ref, Run) else ref)
    options = {"engine": engine} if isinstance(engine, str) else dict(engine or {})
    added = [choose("guards", guard) for guard in guards]
    if Run.is_run(name) and (run := Run.open(name)).recipe.method.name == "none":  # a model as it is, perhaps elsewhere
        own = run.recipe.model
        changed = {"source": own.source, "engine": own.engine, **own.options, **options}
        return answerer_of(run, open_model(changed, task=run.recipe.task, purpose="answer", seed=seed), added)
    choice = ModelChoice.model_validate({"source": name, **options})
    named = choose("tasks", task) if task else None
    if not Run.is_run(name):
        located = None if is_remote(choice) else locate(name)
        model = open_model(choice, task=named, purpose="answer", seed=seed)
        made = _written_beside(located.path) if located else {}
        facts = Provenance(
            model=name, data=str(made.get("data", "")), recipe=str(made.get("recipe", "")),
            checkpoint=located.sha256 if located else "",
        )  # fmt: skip
        settings = made.get("task_settings") if not named or named.name == made.get("task") else None
        usual = settings.get("options", {}) if isinstance(settings, dict) else {}
        if not isinstance(usual, dict):
            raise ModelError(f"The options in genwright.json beside {name} are no mapping.", "Restore the file.")
        marks = [choose("marks", "metadata")]
        return Answerer(model, name, [*_usual_guards(model, named), *added], marks, facts, options=usual)
    run = Run.open(name)
    return answerer_of(run, open_model(choice, task=run.recipe.task, purpose="answer", seed=seed), added, named)


def _written_beside(folder: Path) -> dict[str, Any]:
    """What a training of ours wrote beside its weights; empty for others' models."""
    path = folder / "genwright.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}", "Restore the file.") from None
    return found if isinstance(found, dict) else {}


def _usual_guards(model: Model, task: Chosen | None) -> list[Chosen]:
    """Those of the task, or of one that gives what the model gives, so that a bare picture model is not unguarded."""
    gives = getattr(model, "gives", "text")
    tasks = (
        [task.thing]
        if task
        else []
        if gives == "text"
        else [shelves["tasks"].load(name).task for name in shelves["tasks"]]
    )
    own: list[Chosen] = next((one.chosen_guards for one in tasks if one.gives == gives), [])
    return own


def answerer_of(run: Run, model: Model, added: Sequence[Chosen] = (), task: Chosen | None = None) -> Answerer:
    """An open model that answers as the run's: with its guards, marks, template (or another task's) and constraints."""
    recipe = run.recipe
    chosen = task or recipe.task
    settings, task_of = chosen.settings, chosen.thing
    count = getattr(settings, "shots", 0)
    shots = Dataset.open(run.data / "train.jsonl").sample(count, recipe.seed) if count else []
    return Answerer(
        model,
        recipe.release.name or recipe.name,
        [*(task_of.chosen_guards if recipe.guards is None else recipe.guards), *added],
        recipe.marks,
        provenance_of(run),
        getattr(settings, "max_new_tokens", None),
        getattr(settings, "constraints", Constraints()),
        lambda example: with_shots(task_of.framed(example, settings), shots),
        getattr(settings, "options", {}),
        run,
    )


def provenance_of(run: Run) -> Provenance:
    """Data hash → recipe hash → checkpoint hash, as written beside the weights."""
    facts = _written_beside(run.model)
    return Provenance(
        model=run.recipe.release.name or run.recipe.name,
        data=str(facts.get("data", "")),
        recipe=str(facts.get("recipe", "")),
        checkpoint=str(facts.get("checkpoint", "")),
    )
