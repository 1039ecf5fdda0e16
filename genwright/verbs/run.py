"""Run: a whole recipe, prepare → tune → evaluate → export, doing anew only what changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genwright.core import SILENT, Recipe, Run, Tell

STAGES = ("prepare", "tune", "evaluate", "export")


def run(
    recipe: Recipe | str | Path,
    folder: str | Path | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    until: str = "export",
    tell: Tell = SILENT,
) -> Run:
    """Carry out a recipe (or a recipe file) and leave everything in `folder` (default `runs/<name>`).

    `changes` sets dotted keys, as `{"train.epochs": 3}`. `until` names the last stage wanted, one of STAGES. A second
    call redoes only the stages whose inputs changed, and goes on where a killed one was.
    Raises whatever the stages raise: RecipeError, DataError, ModelError …
    """
    from .evaluate import evaluate_run
    from .export import export_run
    from .prepare import prepare
    from .tune import tune

    if not isinstance(recipe, Recipe):
        recipe = Recipe.load(recipe, changes, note=tell.note)
    here = Run.create(recipe, folder or Path("runs") / (recipe.name or "run"))
    wanted = STAGES[: STAGES.index(until) + 1]
    prepared = prepare(recipe, here, tell=tell)
    if "tune" in wanted and is_tuned(recipe):
        tune(recipe, here, prepared, tell=tell)
    if "evaluate" in wanted:
        evaluate_run(recipe, here, prepared, tell=tell)
    if "export" in wanted and recipe.release.formats and is_tuned(recipe):
        export_run(here, recipe.release.formats, tell=tell)
    return here


def is_tuned(recipe: Recipe) -> bool:
    """Whether the recipe has a tuning stage; `method: none` judges and serves a model as it is."""
    return recipe.method.name != "none"
