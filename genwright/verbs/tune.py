"""Tune: teach a model what the recipe says, and leave it in the run's `model` folder whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genwright.core import SILENT, Dataset, Learner, Recipe, Run, Tell, UsageError, fingerprint

from .consent import consent_of, note_consent

if TYPE_CHECKING:
    from genwright.nn.crew import Crew

_ANSWERING = {"max_new_tokens", "constraints", "shots", "options"}  # task settings that training does not read
_TOKENIZER_ROWS = 200_000  # enough words to make a tokenizer from, and no more than memory holds


class Prepared(Protocol):
    """What tuning needs of verbs/prepare's result."""

    @property
    def train(self) -> Dataset: ...
    @property
    def held_out(self) -> Dataset: ...


def tune(
    recipe: Recipe,
    run: Run,
    prepared: Prepared,
    *,
    tell: Tell = SILENT,
    watch: Callable[[int, float], None] = lambda step, loss: None,
) -> Run:
    """Open the model, attach the method, train, save: here, or wherever the recipe's executor has it done. Does
    nothing when nothing has changed since it was last done.

    A killed call goes on bit-equal from its newest whole checkpoint when data, model, method and settings are the
    same; else the old checkpoints are set aside. `watch(step, held-out loss)` may raise to end it.

    Raises ModelError, DataError, UsageError or NotSaved, each saying what to do next; KeyboardInterrupt after Ctrl-C,
    once a checkpoint is written.
    """
    from genwright.nn.loop import what_matters

    from .models import locate

    consent = consent_of(recipe)

    base = locate(recipe.model.source, tell=tell).sha256 if recipe.model.source else ""
    encoding = fingerprint(base, recipe.model.model_dump(mode="json"), _task(recipe))
    inputs = fingerprint(encoding, recipe.method.name, recipe.method.settings.model_dump(mode="json"))
    wrapped = [chosen.as_dict() for chosen in recipe.regularizers]
    stage = fingerprint(inputs, recipe.chosen_objective.as_dict(), wrapped, what_matters(recipe.train), recipe.seed,
                        prepared.train.fingerprint, prepared.held_out.fingerprint)  # fmt: skip
    if run.is_done("tune", stage) and (run.model / "genwright.json").is_file():
        tell.note("Tuning: nothing has changed, the model stays.")
        return run

    note_consent(consent, run)
    teach = partial(_teach, recipe, run, prepared, inputs=inputs, encoding=encoding)
    recipe.executor(teach, run, tell=tell, watch=watch)
    run.mark_done("tune", stage)
    return run


def _teach(
    recipe: Recipe, run: Run, prepared: Prepared, *, inputs: str, encoding: str, crew: Crew, tell: Tell,
    watch: Callable[[int, float], None],
) -> None:  # fmt: skip
    """The tuning itself, in one process or in each of a crew."""
    from genwright.nn.loop import fit

    from .models import bring, open_model

    tell.stage("Opening the model")
    texts = None if recipe.model.source else _texts(prepared.train)
    learner = _learner(
        open_model(recipe.model, task=recipe.task, purpose="tune", seed=recipe.seed, texts=texts, tell=tell), recipe
    )
    bring(getattr(learner, "cards", ()), tell)
    _fit_to_task(learner, recipe, prepared.train)
    learner = recipe.method(learner, seed=recipe.seed)
    if crew.is_first:
        for note in getattr(learner, "notes", ()):
            tell.note(note)
            run.log("note", text=note)
    fit(
        learner, _mixed(recipe, prepared.train), prepared.held_out, objective=recipe.chosen_objective,
        regularizers=recipe.regularizers, settings=recipe.train, seed=recipe.seed, folder=run.folder, log=run.log,
        tell=tell, inputs=inputs, encoding=encoding, watch=watch, crew=crew,
    )  # fmt: skip
    if crew.is_first:
        tell.stage("Saving the model")
        _save(learner, recipe, run, prepared)


def _learner(model: Any, recipe: Recipe) -> Learner:
    if not isinstance(model, Learner):
        raise UsageError(
            f"The engine of {recipe.model.source or 'this model'} answers, but cannot be taught.",
            "Name safetensors weights, a GGUF file's card, or another `model.engine`.",
        )
    return model


def _fit_to_task(learner: Any, recipe: Recipe, train: Dataset) -> None:
    """Tell the learner what only the task and its rows know: the longest row, the labels, whatever it looks for."""
    settings = recipe.task.settings
    if hasattr(learner, "survey"):
        learner.survey(train)
    if hasattr(learner, "set_max_length") and hasattr(settings, "max_length"):
        learner.set_max_length(settings.max_length)
    if hasattr(settings, "labels") and hasattr(learner, "set_labels"):
        learner.set_labels(list(settings.labels) or sorted({example.answer.text for example in train}))


def _mixed(recipe: Recipe, train: Dataset) -> Dataset:
    """The training rows after the regularizers that change them (replay)."""
    for chosen in recipe.regularizers:
        if mix := getattr(chosen.module, "mix", None):
            train = mix(train, chosen.settings, seed=recipe.seed)
    return train


def _texts(train: Dataset) -> list[str]:
    return [message.text for example in islice(train, _TOKENIZER_ROWS) for message in example.messages if message.text]


def _task(recipe: Recipe) -> dict[str, Any]:
    return {"name": recipe.task.name, **recipe.task.settings.model_dump(mode="json", exclude=_ANSWERING)}


def _save(learner: Any, recipe: Recipe, run: Run, prepared: Prepared) -> None:
    """Weights, tokenizer and `genwright.json`, which says where they come from and how to load them."""
    from genwright.nn.checkpoint import write_folder

    from .models import seal

    hashes: dict[str, str] = {}

    def fill(place: Path) -> None:
        learner.save(place)
        hashes.update(seal(place))
        facts = {
            "engine": getattr(learner, "engine", "") or recipe.model.engine,
            "method": recipe.method.name,
            "method_settings": recipe.method.settings.model_dump(mode="json"),
            "task": recipe.task.name,
            "task_settings": recipe.task.settings.model_dump(mode="json"),
            "objective": recipe.chosen_objective.as_dict(),
            "data": fingerprint(prepared.train.fingerprint, prepared.held_out.fingerprint),
            "recipe": fingerprint(recipe.as_dict()),
            "checkpoint": _together(hashes),
            "weights": hashes,
            "seed": recipe.seed,
        }
        if consent := consent_of(recipe):
            facts["consent"] = consent
        facts["base"] = getattr(learner, "base_reference", {})  # saving may have put the base beside it
        manifest = place / "genwright.json"
        known = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
        manifest.write_text(json.dumps(known | facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    weights = [p for p in learner.module.parameters() if p.requires_grad]
    write_folder(run.model, fill, needed=sum(p.numel() * p.element_size() for p in weights))
    run.log("model", path="model", checkpoint=_together(hashes))


def _together(hashes: dict[str, str]) -> str:
    """The sha256 of the weights file, or that of the list of several (as verbs/models counts it)."""
    digests = [hashes[name] for name in sorted(hashes)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
