"""Every shipped recipe is right, says what it is, and is carried out for two steps on its real data and weights."""

import json
import os
import re
from pathlib import Path

import pytest

import genwright as gw
from genwright.core import Recipe
from genwright.verbs import general

FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))
SMALL = {
    "data.limit": 300, "train.max_steps": 2, "train.tokens_per_batch": 256, "train.tokens_per_pass": 256,
    "evaluate.max_rows": 2, "evaluate.bootstrap": 20, "task.max_new_tokens": 8, "train.checkpoint_every": 2,
    "data.held_out": 0.03,
}  # fmt: skip


def test_all_recipes_are_counted():
    assert len(RECIPES) >= 7


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_says_what_it_needs_and_what_to_expect(path):
    head = re.match(r"(?:#.*\n)+", path.read_text())
    assert head, "it begins with a comment"
    assert "core" in head[0]
    assert "xpected" in head[0]
    Recipe.load(path)


@pytest.mark.weights
@pytest.mark.skipif("GENWRIGHT_TEST_WEIGHTS" not in os.environ, reason="`make test` fetches weights and data")
@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_is_carried_out(path, tmp_path, monkeypatch):
    monkeypatch.setattr(general, "_PARAGRAPHS", 6)  # of general text: all of it takes minutes without bfloat16
    # The big model's likelihoods take a minute: once is enough.
    recipe = Recipe.load(path)
    small = _small(recipe) | _first_stage(recipe, tmp_path)
    source = str(small.get("model.source", recipe.model.source or ""))
    if "/" in source and not Path(source).exists():
        pytest.skip(f"whoever uses it brings {source}")
    whole = not recipe.model.source or recipe.method.name == "none" or path.stem == "aws_assistant"
    run = gw.run(path, tmp_path / "run", changes=small, until="export" if whole else "tune")
    wanted = [] if recipe.method.name == "none" else [1, 2]
    assert [event["step"] for event in run.events("step")] == wanted
    judged = recipe.metrics is None or bool(recipe.metrics)
    assert not whole or bool(json.loads(run.report_file.read_text())["rows"]) == judged
    assert (run.model / "genwright.json").is_file() == bool(wanted)
    assert (run.data / "report.md").is_file()


def _small(recipe):
    odd = () if hasattr(recipe.task.settings, "max_new_tokens") else ("task.max_new_tokens",)
    more = {"data.limit": 1500} if any(one.name == "common" for one in recipe.refine) else {}  # rows of three sets
    return {key: value for key, value in SMALL.items() if key not in odd} | more


def _first_stage(recipe, tmp_path):
    """For a recipe that goes on from another's run (`model: runs/NAME`): that run in small, as a change of it."""
    source = Path(recipe.model.source or "")
    if source.parts[:1] != ("runs",):
        return {}
    (before,) = (path for path in RECIPES if path.stem == source.name)
    first = gw.run(before, tmp_path / source.name, changes=_small(recipe), until="tune")
    return {"model.source": str(first.folder)}
