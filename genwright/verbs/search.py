"""Search: try values of a recipe's keys, stop hopeless trials early, and leave the best as a recipe.

Each trial is a run of its own in `trials/NNN`. What is known lies in `study.db` (SQLite): a second call goes on to the
number of trials asked for, and a trial that was killed is taken up again in its folder, where tuning goes on from its
checkpoint. Who proposes depends on the recipe's seed and on the finished trials only, not on interruptions.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genwright.core import SILENT, GenwrightError, MissingExtra, Recipe, RecipeError, Run, Tell, UsageError, fingerprint
from genwright.core.home import locked
from genwright.core.plugin import sentences
from genwright.core.recipe import put
from genwright.core.run import write_text

_DATA_KEYS = ("data", "refine", "task")  # a change of these makes the rows other rows
_MOST_COMBINATIONS = 10_000


class Range(BaseModel):
    """Numbers from low to high: whole ones when all are written so. `log` spreads them evenly over the magnitudes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _sound(self) -> Range:
        if self.low > self.high:
            raise ValueError("low is above high")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range starts above 0")
        if self.log and self.step is not None:
            raise ValueError("a range has log or step, not both")
        return self

    @property
    def whole(self) -> bool:
        return all(isinstance(n, int) for n in (self.low, self.high, 1 if self.step is None else self.step))


Space = dict[str, Range | list[Any]]


def search(recipe: Recipe, folder: str | Path, *, tell: Tell = SILENT) -> dict[str, Any]:
    """Carry out `recipe.search` in `folder` and return {best, params, value, importances, trials, …}.

    Leaves best.yaml (a complete recipe), trials.csv, search.html (parallel coordinates, importances) and summary.json;
    the best trial's run is kept whole, of the others only figures. Raises UsageError or RecipeError when the space is
    not sound, MissingExtra without optuna, and the last trial's error when none came to an end.
    """
    optuna = _optuna()
    space = read_space(recipe)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / ".search.lock", waiting=lambda: tell.note("Another process searches in this folder.")):
        study = _open_study(optuna, recipe, place)
        _take_up_killed(optuna, study, tell)
        _ask_for_all(study, recipe, space)
        prepared = _shared_rows(recipe, space, place, tell)
        wanted = _wanted(recipe, space)
        while len(finished(study)) < wanted:
            study.sampler = _sampler(optuna, recipe, len(study.trials))
            _try(optuna, study, recipe, space, place, prepared, tell)
            _forget_worse(study, place)
        return _conclude(optuna, study, recipe, space, place)


def read_space(recipe: Recipe) -> Space:
    """The checked space. Raises RecipeError with all problems: unsound ranges, unknown keys, values out of bounds."""
    found: Space = {}
    problems: list[tuple[str, str]] = []
    for key, given in recipe.search.space.items():
        if isinstance(given, Mapping):
            try:
                found[key] = Range.model_validate(given)
            except ValidationError as error:
                problems += [
                    (".".join(filter(None, (f"search.space.{key}", p))), s) for p, s in sentences(error, Range)
                ]
        elif isinstance(given, list) and given:
            found[key] = given
        else:
            problems.append((f"search.space.{key}", "must be a list of values, or a mapping with low and high."))
    if not recipe.search.space:
        problems.append(("search.space", "is empty: name keys and what to try, e.g. {'train.learning_rate': [1e-4]}"))
    if recipe.search.sampler == "grid":
        problems += [
            (f"search.space.{k}", "a grid needs a list or a step.") for k, v in found.items() if not _values(v)
        ]
    if recipe.search.metric != "loss" and "direction" not in recipe.search.model_fields_set:
        problems.append(("search.direction", f"is needed for {recipe.search.metric}: minimize or maximize."))
    for key, choices in found.items():
        ends = choices if isinstance(choices, list) else [choices.low, choices.high]
        for value in ends:
            try:
                trial_recipe(recipe, {key: value}, "check")
            except RecipeError as error:
                problems += [(f"search.space.{key}", f"{value!r} will not do: {s} ({p})") for p, s in error.problems]
            except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
                problems.append((f"search.space.{key}", f"is no key of this recipe: {error}"))
                break
    if problems:
        raise RecipeError("The search", problems)
    return found


def trial_recipe(recipe: Recipe, params: Mapping[str, Any], name: str) -> Recipe:
    """The recipe with `params` put in. Raises RecipeError when they do not fit."""
    fields = recipe.as_dict()
    fields.pop("search", None)
    fields.setdefault("method", recipe.method.as_dict())
    if any(key.startswith("objective.") for key in params):
        fields.setdefault("objective", recipe.chosen_objective.as_dict())
    for key, value in params.items():
        put(fields, key, value)
    metric = recipe.search.metric
    if metric != "loss":
        put(fields, "metrics", [metric])
    return Recipe.from_dict(fields | {"name": name}, where=f"The trial {name}")


# -- one trial -------------------------------------------------------------------------------------------------------


class _Hopeless(Exception):
    """Raised inside tuning to end a trial that the pruner has given up."""


def _try(
    optuna: Any, study: Any, recipe: Recipe, space: Space, place: Path, prepared: Any, tell: Tell
) -> None:  # fmt: skip
    """One trial from proposal to figure; whatever a recipe can do wrong is noted on the trial, not raised."""
    trial = study.ask()
    params = {key: _suggest(trial, key, choices) for key, choices in space.items()}
    trial.set_user_attr("params", params)
    name = trial.user_attrs.get("folder") or f"{trial.number:03d}"
    trial.set_user_attr("folder", name)
    tell.note(f"Trial {len(finished(study)) + 1} of {_wanted(recipe, space)}: {_said(params)}")
    state = optuna.trial.TrialState
    try:
        made = trial_recipe(recipe, params, f"{recipe.name or 'search'}-{name}")
        value = _value(made, recipe, Run.create(made, place / "trials" / name), prepared, _watch(trial, recipe), tell)
    except _Hopeless as stop:
        tell.note(f"Stopped early: {stop}")
        study.tell(trial, state=state.PRUNED)
    except GenwrightError as error:
        trial.set_user_attr("problem", f"{error.message} {error.hint}".strip())
        tell.note(f"The trial failed: {error.message}")
        study.tell(trial, state=state.FAIL)
    else:
        study.tell(trial, value)
        tell.note(f"{recipe.search.metric} {value:.5g}; best so far {study.best_value:.5g}")


def _value(
    made: Recipe, recipe: Recipe, run: Run, prepared: Any, watch: Callable[[int, float], None], tell: Tell
) -> float:
    """Tune (and evaluate) one run: a finite figure of what is searched for. Raises UsageError when there is none."""
    from .evaluate import evaluate_run
    from .prepare import prepare
    from .tune import tune

    rows = prepared or prepare(made, run, tell=tell)
    tune(made, run, rows, tell=tell, watch=watch)
    metric = recipe.search.metric
    if metric == "loss":
        end = list(run.events("tune.end"))[-1]
        value = end["held_out_best"] if made.train.early_stopping else end["held_out_last"]
    else:
        alone = made.model_copy(update={"evaluate": made.evaluate.model_copy(update={"base": False})})
        evaluate_run(alone, run, rows, tell=tell)
        scores = json.loads(run.report_file.read_text(encoding="utf-8"))["rows"]
        value = next((row["tuned"]["value"] for row in scores if row["metric"] == metric), None)
    if value is None or not math.isfinite(value):
        raise UsageError(f"The trial has no {metric}.", "Keep some rows aside: data.held_out, or data.held_out_data.")
    return float(value)


def _watch(trial: Any, recipe: Recipe) -> Callable[[int, float], None]:
    """What the loop calls at each look at the held-out rows. Looks are counted, so that trials whose steps differ in
    size can be compared; the pruner always judges by the held-out loss."""
    sign = 1 if recipe.search.direction == "minimize" else -1
    seen = {int(k): v for k, v in trial.user_attrs.get("looks", {}).items()}
    for look, loss in seen.items():  # of the time before it was killed
        trial.report(loss, look)
    at = {step: look for look, step in enumerate(trial.user_attrs.get("steps", []))}

    def watch(step: int, loss: float) -> None:
        look = at.setdefault(step, len(at))
        if look not in seen:
            seen[look] = sign * loss
            trial.report(sign * loss, look)
            trial.set_user_attr("looks", {str(k): v for k, v in seen.items()})
            trial.set_user_attr("steps", list(at))
        if look and trial.should_prune():
            raise _Hopeless(f"held-out loss {loss:.4g} at step {step} is behind the other trials.")

    return watch


def _suggest(trial: Any, key: str, choices: Range | list[Any]) -> Any:
    if isinstance(choices, list):
        plain = all(value is None or isinstance(value, (bool, int, float, str)) for value in choices)
        if plain:
            return trial.suggest_categorical(key, choices)
        return json.loads(trial.suggest_categorical(key, [json.dumps(value) for value in choices]))
    if choices.whole:
        return trial.suggest_int(key, choices.low, choices.high, log=choices.log, step=choices.step or 1)
    return trial.suggest_float(key, choices.low, choices.high, log=choices.log, step=choices.step)


# -- the study -------------------------------------------------------------------------------------------------------


def _open_study(optuna: Any, recipe: Recipe, place: Path) -> Any:
    """The study in `place`, new or old. Raises UsageError when it is about another recipe or space."""
    search = recipe.search
    fields = recipe.as_dict() | {"name": "", "search": {"space": search.space, "metric": search.metric,
                                                        "direction": search.direction}}  # fmt: skip
    mark = fingerprint(fields)
    pruners = {
        "none": optuna.pruners.NopPruner,
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1),
    }
    study = optuna.create_study(
        study_name="search", storage=f"sqlite:///{place / 'study.db'}", load_if_exists=True,
        direction=search.direction, pruner=pruners[search.pruner](), sampler=_sampler(optuna, recipe, 0),
    )  # fmt: skip
    if study.user_attrs.get("recipe", mark) != mark:
        raise UsageError(
            f"{place} holds a search of another recipe or space.", "Choose another folder with --out, or delete it."
        )
    study.set_user_attr("recipe", mark)
    return study


def _sampler(optuna: Any, recipe: Recipe, number: int) -> Any:
    """Who proposes trial `number`. Its seed depends on nothing else, so an interruption changes no proposal."""
    seed = int(fingerprint("search", recipe.seed, number)[:8], 16)
    if recipe.search.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=5)
    if recipe.search.sampler == "cmaes":
        try:
            import cmaes  # noqa: F401
        except ImportError:
            raise MissingExtra("cmaes", "search") from None
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=seed)  # a grid is asked for value by value


def finished(study: Any) -> list[Any]:
    """The trials that count: done, stopped early or failed by themselves."""
    killed = study.user_attrs.get("killed", [])
    return [t for t in study.trials if t.state.is_finished() and t.number not in killed]


def _take_up_killed(optuna: Any, study: Any, tell: Tell) -> None:
    """A trial that still runs was killed with its process: mark it, and put it before the others again."""
    state = optuna.trial.TrialState
    for trial in study.trials:
        if trial.state == state.RUNNING:
            study.set_user_attr("killed", [*study.user_attrs.get("killed", []), trial.number])
            study.tell(trial.number, state=state.FAIL)
            kept = {key: trial.user_attrs[key] for key in ("folder", "looks", "steps") if key in trial.user_attrs}
            study.enqueue_trial(trial.params, user_attrs=kept)
            tell.note(f"Trial {trial.user_attrs.get('folder', trial.number)} was interrupted and is taken up again.")


def _ask_for_all(study: Any, recipe: Recipe, space: Space) -> None:
    """A grid: put every combination that was not tried yet into the queue, in order."""
    if recipe.search.sampler != "grid":
        return
    known = [trial.params or trial.system_attrs.get("fixed_params") for trial in study.trials]
    for values in itertools.islice(itertools.product(*(_values(v) for v in space.values())), recipe.search.trials):
        params = {key: _as_suggested(space[key], value) for key, value in zip(space, values, strict=True)}
        if params not in known:
            study.enqueue_trial(params)


def _as_suggested(choices: Range | list[Any], value: Any) -> Any:
    plain = isinstance(choices, Range) or all(isinstance(v, (bool, int, float, str, type(None))) for v in choices)
    return value if plain else json.dumps(value)


def _values(choices: Range | list[Any]) -> list[Any]:
    """All values of a list or a stepped range; none for a continuous one."""
    if isinstance(choices, list):
        return choices
    step = choices.step or (1 if choices.whole and not choices.log else None)
    if step is None:
        return []
    count = math.floor((choices.high - choices.low) / step + 1e-9) + 1
    values = [choices.low + step * i for i in range(min(count, _MOST_COMBINATIONS))]
    return values if choices.whole else [float(f"{value:.12g}") for value in values]


def _wanted(recipe: Recipe, space: Space) -> int:
    if recipe.search.sampler != "grid":
        return recipe.search.trials
    return min(recipe.search.trials, math.prod(len(_values(choices)) for choices in space.values()))


def _shared_rows(recipe: Recipe, space: Space, place: Path, tell: Tell) -> Any:
    """The rows, prepared once, when no key of the space changes them; else None."""
    from .prepare import prepare

    if any(key.split(".")[0] in (*_DATA_KEYS, "seed") for key in space):
        return None
    return prepare(recipe, Run.create(recipe, place / "rows"), tell=tell)


def _forget_worse(study: Any, place: Path) -> None:
    """Of finished trials but the best only recipe, events and report stay; of the best its model too."""
    done = [t for t in study.trials if t.state.name == "COMPLETE"]
    best = study.best_trial.user_attrs["folder"] if done else ""
    for trial in finished(study):
        name = trial.user_attrs.get("folder")
        if name:
            gone = ("checkpoints", "tokens") if name == best else ("checkpoints", "tokens", "model", "data")
            for part in gone:
                shutil.rmtree(place / "trials" / name / part, ignore_errors=True)


# -- what it came to -------------------------------------------------------------------------------------------------


def _conclude(optuna: Any, study: Any, recipe: Recipe, space: Space, place: Path) -> dict[str, Any]:
    from .search_page import page

    trials = [_row(trial) for trial in finished(study)]
    _write_table(trials, list(space), place)
    done = [t for t in trials if t["value"] is not None]
    if not done:
        why = next((t["problem"] for t in reversed(trials) if t["problem"]), "all were stopped early")
        raise UsageError(f"No trial came to an end: {why}", f"See {place / 'trials.csv'}.")
    found = study.best_trial
    params = found.user_attrs["params"]
    best = trial_recipe(recipe, params, f"{recipe.name or 'search'}-best")
    fields = {key: value for key, value in best.as_dict().items() if key != "metrics"}
    if recipe.metrics is not None:
        fields["metrics"] = recipe.as_dict()["metrics"]
    head = f"# The best of {len(trials)} trials: {recipe.search.metric} {found.value:.6g} ({_said(params)}).\n"
    write_text(place / "best.yaml", head + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))
    summary = {
        "metric": recipe.search.metric, "direction": recipe.search.direction, "value": found.value, "params": params,
        "run": str(place / "trials" / found.user_attrs["folder"]), "recipe": str(place / "best.yaml"),
        "importances": importances(optuna, study), "trials": len(trials), "finished": len(done),
        "pruned": sum(t["state"] == "pruned" for t in trials), "failed": sum(t["state"] == "failed" for t in trials),
    }  # fmt: skip
    write_text(place / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False))
    logs = [key for key, choices in space.items() if isinstance(choices, Range) and choices.log]
    write_text(place / "search.html", page(recipe.name or "Search", summary, trials, logs))
    return summary


def importances(optuna: Any, study: Any) -> dict[str, float]:
    """Share of each key in what made trials good (PED-ANOVA, Watanabe et al. 2023); empty below four finished ones."""
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if len(done) < 4 or len({trial.value for trial in done}) < 2:
        return {}
    with _hushed(optuna):
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}


def _row(trial: Any) -> dict[str, Any]:
    state = {"COMPLETE": "done", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    took = trial.duration.total_seconds() if trial.duration else None
    return {
        "trial": trial.user_attrs.get("folder", f"{trial.number:03d}"), "state": state,
        "value": trial.value if state == "done" else None,
        "params": trial.user_attrs.get("params", trial.params), "seconds": took,
        "looks": len(trial.intermediate_values), "problem": trial.user_attrs.get("problem", ""),
    }  # fmt: skip


def _write_table(trials: list[dict[str, Any]], keys: list[str], place: Path) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", "state", "value", *keys, "looks", "seconds", "problem"])
    for t in trials:
        values = [t["params"].get(key) for key in keys]
        shown = [json.dumps(v) if isinstance(v, (list, dict)) else v for v in values]
        table.writerow([t["trial"], t["state"], t["value"], *shown, t["looks"], t["seconds"], t["problem"]])
    write_text(place / "trials.csv", text.getvalue())


def _said(params: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in params.items()
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna", "search") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextmanager
def _hushed(optuna: Any) -> Any:
    """Without optuna's warnings that a figure is from few trials; the page says how many there were."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
