"""Compare: two runs side by side: what differs in their recipes, their scores, their losses, their time and size.

Scores are computed anew from the answers that both runs kept, on the rows that both answered, so that the difference
can be drawn in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from genwright.core import Chosen, Dataset, GenwrightError, Judged, Run, choose

from .evaluate import ANSWERS, difference_of, needs_of, read_samples
from .page import loss_curves
from .report import Report

_OWN = ("name", "release")  # keys of a recipe that say nothing of how the model was made


def compare(a: Run, b: Run) -> dict[str, Any]:
    """Plain data: `recipe` {key: (a, b)}, `scores` (b less a), `loss`, `seconds`, `bytes` as (a, b), and `notes`.

    Raises RecipeError when a run's recipe can no longer be read.
    """
    notes: list[str] = []
    return {
        "runs": (str(a.folder), str(b.folder)),
        "recipe": recipe_differences(a, b),
        "scores": _scores(a, b, notes),
        "loss": _last_losses(a, b),
        "seconds": (_seconds(a), _seconds(b)),
        "bytes": (_size(a.model), _size(b.model)),
        "notes": notes,
    }


# -- recipes ---------------------------------------------------------------------------------------------------------


def recipe_differences(a: Run, b: Run) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, defaults included; None where a recipe has no such key."""
    left, right = (dict(_flat(run.recipe)) for run in (a, b))
    keys = [key for key in dict.fromkeys([*left, *right]) if key.split(".")[0] not in _OWN]
    return {key: (left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its dotted key. Choices show all their options, lists of choices go by name."""
    inside: Mapping[str, Any]
    if isinstance(value, Chosen):
        yield path or value.key, value.name
        inside = {key: getattr(value.settings, key) for key in type(value.settings).model_fields}
    elif isinstance(value, BaseModel):
        inside = {key: getattr(value, key) for key in type(value).model_fields}
    elif isinstance(value, Mapping):
        inside = value
    elif isinstance(value, (list, tuple)) and any(isinstance(one, Chosen) for one in value):
        inside = {one.name: one for one in value}
    else:
        yield path, list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        return
    for key, one in inside.items():
        yield from _flat(one, f"{path}.{key}" if path else key)


# -- scores ----------------------------------------------------------------------------------------------------------


def _scores(a: Run, b: Run, notes: list[str]) -> list[dict[str, Any]]:
    left, right = _kept(a), _kept(b)
    for run, kept in ((a, left), (b, right)):
        if not kept or not run.report_file.is_file():
            kept.clear()
            notes.append(f"{run.folder} has no kept answers: run `genwright evaluate {run.folder}`.")
    if not left or not right:
        return []
    both = [key for key in left if key in right]
    if not both:
        notes.append("The runs were judged on different rows, so their scores cannot be compared.")
        return []
    if len(both) < max(len(left), len(right)):
        notes.append(f"{len(both):,} rows are common to both ({len(left):,} and {len(right):,}); scores are of these.")
    rows = []
    for metric in _common_metrics(a, b, notes):
        try:
            row = _compared(metric, a, b, [left[key] for key in both], [right[key] for key in both])
        except GenwrightError as error:
            notes.append(f"{metric.name} was not compared: {error.message}")
            continue
        rows += [row] if row else []
    return rows


def _kept(run: Run) -> dict[str, Judged]:
    return dict(read_samples(run.folder / "samples" / "tuned.jsonl"))


def _common_metrics(a: Run, b: Run, notes: list[str]) -> list[Chosen]:
    """Metrics of both runs with equal settings; forgetting is always one."""
    left, right = ({m.name: m for m in run.recipe.chosen_metrics} for run in (a, b))
    common = []
    for name, metric in left.items():
        if name in right and metric.settings == right[name].settings:
            common.append(metric)
        elif name in right:
            notes.append(f"{name} was set differently in the two runs and is not compared.")
    return common if any(m.name == "forgetting" for m in common) else [*common, choose("metrics", "forgetting")]


def _compared(metric: Chosen, a: Run, b: Run, left: list[Judged], right: list[Judged]) -> dict[str, Any] | None:
    needs, how = needs_of(metric), a.recipe.evaluate.bootstrap
    answered = [i for i in range(len(left)) if left[i].answer and right[i].answer]
    if ANSWERS & needs:
        left, right = [left[i] for i in answered], [right[i] for i in answered]
    general = [[one for _, one in read_samples(run.folder / "samples" / "general-tuned.jsonl")] for run in (a, b)]
    if not left or ("general" in needs and _digests(general[0]) != _digests(general[1])):
        return None
    before, after = (
        metric(
            pairs, task=run.recipe.task.settings, train=_train(run), general=rows,
            general_name=Report.load(run.report_file).facts["data"]["general"], bootstrap=how, seed=0,
        )
        for run, pairs, rows in zip((a, b), (left, right), general, strict=True)
    )  # fmt: skip
    found = difference_of(before, after, bootstrap=how, seed=0)
    return {
        "metric": metric.name, "a": before.value, "b": after.value, "difference": found["value"], "low": found["low"],
        "high": found["high"], "p": found["p"], "verdict": found["verdict"], "signature": after.signature,
        "rows": len(general[0]) if "general" in needs else len(left),
    }  # fmt: skip


def _digests(judged: Sequence[Judged]) -> list[str]:
    return [one.example.digest() for one in judged]


def _train(run: Run) -> Dataset:
    path = run.data / "train.jsonl"
    return Dataset.open(path) if path.is_file() else Dataset()


# -- losses, time, size ----------------------------------------------------------------------------------------------


def _last_losses(a: Run, b: Run) -> dict[str, tuple[float | None, float | None]]:
    """Training loss (mean of the last twentieth of the steps) and held-out loss (the last and the best look)."""
    found = []
    for run in (a, b):
        curves = loss_curves(list(run.events()))
        steps, looks = ([loss for _, loss in curves[name]] for name in ("training", "held out"))
        last = steps[-max(1, len(steps) // 20) :]
        found.append((sum(last) / len(last) if last else None, looks[-1] if looks else None, min(looks, default=None)))
    names = ("training", "held out, last", "held out, best")
    return {name: (found[0][i], found[1][i]) for i, name in enumerate(names)}


def _seconds(run: Run) -> float:
    """Time spent in training steps; a step done again after a kill counts once."""
    return round(sum({e["step"]: float(e.get("seconds") or 0) for e in run.events("step")}.values()), 1)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
