"""Evaluate: the tuned model beside the one it came from, on the same held-out rows, with intervals.

Base and tuned answer the same random choice of held-out rows and tell the likelihood of all of them; every metric
judges both; differences are drawn in pairs. Forgetting on a fixed general set is always in the table for models that
can tell likelihoods. Only words and sums are kept: a model's logits never leave it.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from genwright.core import (
    SILENT,
    Chosen,
    Constraints,
    Dataset,
    Example,
    GenwrightError,
    Judged,
    Likelihood,
    Measurer,
    Message,
    Model,
    Part,
    Recipe,
    Request,
    Run,
    Score,
    Tell,
    UsageError,
    choose,
    fingerprint,
    shelves,
    user,
    with_shots,
    write_text,
)
from genwright.core.content import files_below

from .general import General, general_set
from .generate import generate_many
from .report import Report, write_report

ANSWERS = frozenset({"answers"})
_AT_ONCE = 64  # rows handed to a model together: enough to pack well, few enough to see it move
_LEARNED = 256  # training rows whose errors stand beside those of the held-out ones


@dataclass
class Side:
    """What one model made of the questions: base or tuned."""

    answered: list[Judged] = field(default_factory=list)
    likely: list[Judged] = field(default_factory=list)  # all held-out rows with their likelihoods
    general: list[Judged] = field(default_factory=list)
    learned: list[Judged] = field(default_factory=list)  # training rows with their errors
    tongues: dict[int, dict[str, Judged]] = field(default_factory=dict)  # row -> language -> its answer
    shots: dict[int, list[Judged]] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    shot_scores: dict[tuple[str, int], Score] = field(default_factory=dict)
    seconds: float = 0.0


def evaluate(
    model: Model,
    held_out: Dataset,
    recipe: Recipe,
    *,
    base: Model | None = None,
    train: Dataset | None = None,
    general: General | None = None,
    folder: Path | None = None,
    tell: Tell = SILENT,
) -> Report:
    """Judge `model` (and `base`) on `held_out` with the recipe's metrics; write report and samples below `folder`.

    `train` is for few-shot examples and the copy rate; `general` is the fixed set for forgetting (without one, what
    this machine has for the data's language). The cards that a metric looks with are fetched. A metric that cannot be
    computed is listed with its reason and stops nothing. Without held-out rows the report says that nothing can be
    judged.
    """
    train = train if train is not None else Dataset()
    general = general or general_set(held_out, recipe, train)
    if not _is_able(model, "goes_on"):  # labels and translations have no general text to forget
        general = replace(general, examples=())
    asked = _Questions(
        held_out, recipe, train, general, can_tell=_can_tell(model), can_answer=_is_able(model, "answers")
    )
    sides: dict[str, Side] = {}
    if len(held_out):
        from .models import bring

        for metric in asked.metrics:
            wanted = getattr(metric.module, "cards", ())
            bring(wanted(metric.settings) if callable(wanted) else wanted, tell)
        for name, judge in (("tuned", model), ("base", base)):
            if judge is not None:
                sides[name] = _put_to(judge, asked, name, tell, folder)
        if folder and _gives_files(model):
            sides["tuned"].tongues = _in_other_tongues(model, asked, tell, folder)
    missing = _score(sides, asked, tell)
    report = _report(sides, asked, missing, folder or Path(), compared=base is not None)
    if folder is not None:
        _keep_samples(folder, sides, asked)
        write_report(report, folder)
    return report


def evaluate_run(recipe: Recipe, run: Run, prepared: Any, *, tell: Tell = SILENT) -> Report:
    """Judge a run's model beside its base; done anew only when model, data or judging changed.

    `prepared` has `train` and `held_out`. Raises ModelError when a model cannot be opened.
    """
    from .models import open_model

    general = general_set(prepared.held_out, recipe, prepared.train)
    inputs = _inputs(recipe, run, prepared, general)
    if run.is_done("evaluate", inputs) and run.report_file.is_file():
        tell.note("Evaluation: nothing changed, the report stays.")
        return Report.load(run.report_file)
    tell.stage("Opening the model")
    if recipe.method.name == "none":
        tuned = open_model(recipe.model, task=recipe.task, purpose="answer", seed=recipe.seed, tell=tell)
        base, why_not = None, "The model is judged as it is; nothing was tuned."
    else:
        tuned = open_model(str(run.folder), task=recipe.task, purpose="tune", seed=recipe.seed)
        base, why_not = _base_of(tuned, recipe, run, tell)
    report = evaluate(
        tuned, prepared.held_out, recipe, base=base, train=prepared.train, general=general, folder=run.folder, tell=tell
    )
    if why_not:
        report.facts["notes"].append(why_not)
        write_report(report, run.folder)
    for opened in (tuned, base):
        getattr(opened, "close", lambda: None)()
    run.log("evaluate", rows=[{k: row[k] for k in ("metric", "base", "tuned")} for row in report.brief()])
    run.mark_done("evaluate", inputs)
    return report


def _inputs(recipe: Recipe, run: Run, prepared: Any, general: General) -> str:
    made = run.model / "genwright.json"
    chosen = [metric.as_dict() for metric in recipe.chosen_metrics]
    weights = made.read_text(encoding="utf-8") if made.is_file() else json.dumps(recipe.as_dict()["model"])
    data = (prepared.held_out.fingerprint, prepared.train.fingerprint, general.name)
    return fingerprint(
        weights, recipe.task.as_dict(), chosen, recipe.seed, recipe.evaluate.model_dump(mode="json"), data
    )


# -- the base --------------------------------------------------------------------------------------------------------


def _base_of(tuned: Model, recipe: Recipe, run: Run, tell: Tell) -> tuple[Model | None, str]:
    """The model before tuning, or why there is none: the same weights with the adapter off, else loaded anew."""
    if not recipe.evaluate.base:
        return None, ""
    adapted = (run.model / "adapter_config.json").is_file() and getattr(tuned, "holds_base", True)
    if adapted and hasattr(tuned, "untuned"):
        return _Untuned(tuned), ""
    if recipe.model.source is None:
        return None, "The model began with random weights, so there is no base to judge beside it."
    from .models import open_model

    tell.stage("Opening the base model")
    base = open_model(recipe.model, task=recipe.task, purpose="tune", seed=recipe.seed, tell=tell)
    settings, labels = recipe.task.settings, getattr(tuned, "labels", None)
    if hasattr(base, "set_max_length") and hasattr(settings, "max_length"):
        base.set_max_length(settings.max_length)
    if hasattr(base, "set_labels") and labels:
        base.set_labels(list(labels))
    return base, ""


class _Untuned:
    """A learner as it was before tuning: whatever is asked of it is answered with the adapters off."""

    def __init__(self, learner: Any):
        self._learner = learner
        for ability in ("generate_many", "likelihood", "measure"):
            if hasattr(learner, ability):
                setattr(self, ability, partial(self._within, getattr(learner, ability)))
        if hasattr(learner, "options"):
            self.options = learner.options

    def generate(self, request: Request) -> Iterator[Part]:
        yield from self._within(self._learner.generate, request)

    def _within(self, work: Callable[..., Iterator[Any]], *given: Any) -> Iterator[Any]:
        with self._learner.untuned():
            yield from work(*given)


# -- questions and answers -------------------------------------------------------------------------------------------


class _Questions:
    """What is asked: the same rows, shots and seeds for every model."""

    def __init__(
        self,
        held_out: Dataset,
        recipe: Recipe,
        train: Dataset,
        general: General,
        *,
        can_tell: bool,
        can_answer: bool = True,
    ):
        self.held_out, self.recipe, self.train, self.general = held_out, recipe, train, general
        self.settings: Any = recipe.task.settings
        self.metrics = _with_forgetting(recipe.chosen_metrics, general) if can_tell else list(recipe.chosen_metrics)
        wanted = recipe.evaluate.max_rows if any(ANSWERS & needs_of(m) for m in self.metrics) else 0
        wanted = max(wanted, min(recipe.evaluate.samples, recipe.evaluate.max_rows)) if can_answer else 0
        pick = random.Random(f"evaluate {recipe.seed}")
        self.rows = sorted(pick.sample(range(len(held_out)), min(wanted, len(held_out))))
        self.shots = getattr(self.settings, "shots", 0) if self.can_show else 0

    @property
    def can_show(self) -> bool:
        """Whether rows have questions, so that examples can be shown before them, and there are examples to show."""
        takes = hasattr(self.settings, "shots")  # what is asked for a picture shows no others
        return takes and bool(len(self.train)) and bool(len(self.held_out)) and len(self.held_out[0].messages) > 1

    @property
    def shown(self) -> list[int]:
        """Places in `rows` of those that the report shows."""
        pick = random.Random(f"samples {self.recipe.seed}")
        return sorted(pick.sample(range(len(self.rows)), min(self.recipe.evaluate.samples, len(self.rows))))

    @property
    def shot_counts(self) -> list[int]:
        return sorted(set(self.recipe.evaluate.shots)) if self.can_show else []

    def example(self, row: int, shots: int) -> Example:
        """The held-out row with `shots` training examples before it: few are the first of many."""
        example = self.held_out[row]
        if not shots:
            return example
        most = max([shots, self.shots, *self.shot_counts])
        pick = random.Random(f"shots {self.recipe.seed} {row}")
        shown = pick.sample(range(len(self.train)), min(most, len(self.train)))[:shots]
        return with_shots(example, [self.train[i] for i in shown])

    def request(self, example: Example, row: int, files: Path | None, options: dict[str, Any]) -> Request:
        """What is asked; `files` is where an answer goes that is no text, `options` what the row itself asks for."""
        how = self.recipe.evaluate
        return Request(
            messages=example.prompt,
            max_new_tokens=getattr(self.settings, "max_new_tokens", 256),
            temperature=how.temperature,
            top_p=how.top_p,
            seed=self.recipe.seed * 1_000_003 + row,
            constraints=getattr(self.settings, "constraints", Constraints()),
            options={**getattr(self.settings, "options", {}), **options},
            out=files / f"{row:05d}" if files else None,
        )


def _with_forgetting(metrics: Sequence[Chosen], general: General) -> list[Chosen]:
    """Forgetting is judged whether it is named or not."""
    named = any(metric.name == "forgetting" for metric in metrics)
    return [*metrics] if named or not general.examples else [*metrics, choose("metrics", "forgetting")]


def needs_of(metric: Chosen) -> frozenset[str]:
    """What a metric must be handed: a subset of answers, likelihood, train, general."""
    needs: frozenset[str] = getattr(metric.module, "needs", ANSWERS)
    return needs


def _put_to(model: Model, asked: _Questions, name: str, tell: Tell, folder: Path | None) -> Side:
    side, began = Side(), time.perf_counter()
    if _can_tell(model):
        tell.stage(f"Likelihood of the held-out rows ({name})", len(asked.held_out) + len(asked.general.examples))
        rows: Sequence[Example] = asked.held_out
        if asked.shots:
            rows = [asked.example(row, asked.shots) for row in range(len(asked.held_out))]
        with _as_trained(model, asked.recipe):
            side.likely = _likelihoods(model, rows, tell)
            side.general = _likelihoods(model, asked.general.examples, tell)
    elif isinstance(model, Measurer) and any("errors" in needs_of(metric) for metric in asked.metrics):
        if study := getattr(model, "study", None):  # it tells how far counting the training rows comes, too
            study(asked.train)
        tell.stage(f"Errors on the held-out rows ({name})", len(asked.held_out))
        side.likely = _errors(model, asked.held_out, tell)
        with suppress(UsageError):  # a training row that the model passed over
            side.learned = _errors(
                model, asked.train.sample(min(_LEARNED, len(asked.held_out)), asked.recipe.seed), SILENT
            )
    side.answered = _answers(model, asked, asked.shots, name, tell, folder)
    if side.likely:
        side.answered = [
            replace(one, likelihood=side.likely[row].likelihood, errors=side.likely[row].errors)
            for row, one in zip(asked.rows, side.answered, strict=True)
        ]
    for shots in asked.shot_counts:
        same = shots == asked.shots
        side.shots[shots] = side.answered if same else _answers(model, asked, shots, name, tell, None)
    side.seconds = time.perf_counter() - began
    return side


def _as_trained(model: Any, recipe: Recipe) -> AbstractContextManager[Any]:
    """Likelihoods in the precision of the training passes, as the looks during training were: comparable, and
    quick."""
    module = getattr(getattr(model, "_learner", model), "module", None)
    if module is None:
        return nullcontext()
    from genwright.nn import device as machine

    place = next(module.parameters()).device
    return machine.passes_in(machine.choose_dtype(recipe.train.dtype, place), place)


def _can_tell(model: Model) -> bool:
    """Whether the model can say how likely a reference is."""
    return callable(getattr(model, "likelihood", None)) and _is_able(model, "tells")


def _is_able(model: Any, what: str) -> bool:
    """`answers`, `tells` (how likely any answer is), `goes_on` (with plain text): engines that cannot say so."""
    return bool(getattr(getattr(model, "_learner", model), what, True))


def _likelihoods(model: Any, examples: Sequence[Example], tell: Tell) -> list[Judged]:
    judged = []
    for start in range(0, len(examples), _AT_ONCE):
        some = examples[start : start + _AT_ONCE]
        for example, likelihood in zip(some, model.likelihood(some), strict=True):
            judged.append(Judged(example, likelihood=likelihood))
        tell.advance(len(some))
    return judged


def _errors(model: Measurer, examples: Sequence[Example], tell: Tell) -> list[Judged]:
    judged = []
    for start in range(0, len(examples), _AT_ONCE):
        some = examples[start : start + _AT_ONCE]
        for example, errors in zip(some, model.measure(some), strict=True):
            judged.append(Judged(example, errors=errors))
        tell.advance(len(some))
    return judged


def _answers(
    model: Model, asked: _Questions, shots: int, side: str, tell: Tell, folder: Path | None
) -> list[Judged]:  # fmt: skip
    """The chosen rows with the model's answers. Unguarded (and so noted in the ledger): the bare model is measured.

    Answers that are files are kept below `folder`."""
    name = f"{asked.recipe.name or asked.recipe.model.source or 'model'} ({side})"
    examples = [_with_question(asked.example(row, shots)) for row in asked.rows]
    files = folder / "samples" / side if folder and _gives_files(model) else None
    own: Callable[[Example], dict[str, Any]] = getattr(getattr(model, "_learner", model), "options_of", lambda _: {})
    rows = zip(examples, asked.rows, strict=True)
    requests = [asked.request(example, row, files, own(example)) for example, row in rows]
    tell.stage(f"Answers{f' with {shots} examples shown' if shots else ''} ({side})", len(requests))
    answers: list[Message | None] = [None] * len(requests)
    for number, message in generate_many(model, requests, guards=(), model_name=name, purpose="evaluation"):
        answers[number] = message
        tell.advance()
    return [Judged(example, answer) for example, answer in zip(examples, answers, strict=True)]


def _in_other_tongues(model: Model, asked: _Questions, tell: Tell, folder: Path) -> dict[int, dict[str, Judged]]:
    """The rows of the report that have captions in several languages, asked in each with the row's own seed."""
    own: Callable[[Example], dict[str, Any]] = getattr(getattr(model, "_learner", model), "options_of", lambda _: {})
    place, requests, keys = folder / "samples" / "tuned" / "languages", [], []
    for row in (asked.rows[place] for place in asked.shown):
        example = asked.held_out[row]
        captions = example.meta.get("captions") or {}
        for language, texts in captions.items() if len(captions) > 1 else ():
            told = Example((user(texts[0]), example.answer), example.meta)
            request = asked.request(told, row, place, own(example))
            keys.append((row, language, told))
            requests.append(request.model_copy(update={"out": place / f"{row:05d}-{language}"}))
    tell.stage("Answers in several languages", len(requests))
    found: dict[int, dict[str, Judged]] = {}
    name = f"{asked.recipe.name or asked.recipe.model.source or 'model'} (tuned)"
    for number, message in generate_many(model, requests, guards=(), model_name=name, purpose="evaluation"):
        row, language, told = keys[number]
        found.setdefault(row, {})[language] = Judged(told, message)
        tell.advance()
    return found


def _gives_files(model: Any) -> bool:
    return getattr(getattr(model, "_learner", model), "gives", "text") != "text"


def _with_question(example: Example) -> Example:
    """A row of plain text has no question: its first third is given, and the rest is what should come."""
    if example.prompt:
        return example
    text = example.answer.text
    cut = max(1, len(text) // 3)
    space = text.find(" ", cut)
    cut = space if 0 < space < 2 * cut else cut
    return Example(
        (Message("assistant", (Part(text=text[:cut]),)), Message("assistant", (Part(text=text[cut:]),))), example.meta
    )


# -- judging ---------------------------------------------------------------------------------------------------------


def _score(sides: dict[str, Side], asked: _Questions, tell: Tell) -> list[dict[str, str]]:
    """Fill in the scores of both sides. Returns the metrics that could not be computed, with the reason."""
    missing: dict[str, str] = {}
    tell.stage("Judging", len(asked.metrics) * len(sides))
    for metric in asked.metrics:
        needs = needs_of(metric)
        for name, side in sides.items():
            pairs = side.answered if ANSWERS & needs else side.likely or side.answered
            if needs & {"likelihood", "general"} and not side.likely:
                missing[metric.name] = f"the {name} model cannot tell likelihoods"
                continue
            try:
                side.scores[metric.name] = metric(pairs, **_context(asked, side))
                better = side.scores[metric.name].higher_is_better
                for shots, judged in side.shots.items() if needs == ANSWERS and better is not None else ():
                    side.shot_scores[metric.name, shots] = metric(judged, **_context(asked, side))
            except GenwrightError as error:
                missing[metric.name] = f"{error.message} {error.hint}".strip()
            tell.advance()
    return [{"metric": name, "why": why} for name, why in missing.items()]


def _context(asked: _Questions, side: Side) -> dict[str, Any]:
    return {"task": asked.settings, "train": asked.train, "held_out": asked.held_out, "general": side.general,
            "learned": side.learned, "general_name": asked.general.name, "bootstrap": asked.recipe.evaluate.bootstrap,
            "seed": asked.recipe.seed}  # fmt: skip


def _difference(base: Score | None, tuned: Score | None, asked: _Questions) -> dict[str, Any] | None:
    if base is None or tuned is None:
        return None
    how = {"bootstrap": asked.recipe.evaluate.bootstrap, "seed": asked.recipe.seed}
    return difference_of(base, tuned, **how)


def difference_of(base: Score, tuned: Score, *, bootstrap: int, seed: int) -> dict[str, Any]:
    """Tuned less base as plain data, with a verdict: better, worse, "no clear difference" or only "changed"."""
    minus = getattr(tuned, "minus", None)
    if minus is None:  # a metric of another distribution that keeps no rows
        found: dict[str, Any] = {"value": tuned.value - base.value, "low": None, "high": None, "p": None}
        clear = False
    else:
        difference = minus(base, bootstrap=bootstrap, seed=seed)
        found, clear = difference.as_dict(), difference.is_clear
    if found["low"] is None:
        verdict = ""
    elif not clear:
        verdict = "no clear difference"
    elif tuned.higher_is_better is None:
        verdict = "changed"
    else:
        verdict = "better" if (found["value"] > 0) == tuned.higher_is_better else "worse"
    return {k: _finite(v) for k, v in found.items()} | {"verdict": verdict}


# -- the report ------------------------------------------------------------------------------------------------------


def _report(
    sides: dict[str, Side], asked: _Questions, missing: list[dict[str, str]], folder: Path, *, compared: bool
) -> Report:  # fmt: skip
    base, tuned = sides.get("base", Side()), sides.get("tuned", Side())
    recipe = asked.recipe
    rows = [
        {"metric": metric.name, "base": _plain(base.scores.get(metric.name)),
         "tuned": _plain(tuned.scores.get(metric.name)),
         "difference": _difference(base.scores.get(metric.name), tuned.scores.get(metric.name), asked)}
        for metric in asked.metrics if metric.name in tuned.scores
    ]  # fmt: skip
    curve = [
        {"metric": name, "shots": shots, "base": _plain(base.shot_scores.get((name, shots))), "tuned": _plain(score),
         "difference": _difference(base.shot_scores.get((name, shots)), score, asked)}
        for (name, shots), score in tuned.shot_scores.items()
    ]  # fmt: skip
    return Report(
        {
            "version": 1, "name": recipe.name, "task": recipe.task.name, "model": recipe.model.source,
            "method": recipe.method.name, "seed": recipe.seed, "compared": compared, "rows": rows, "shots": curve,
            "not_judged": missing, "loss": _losses(base, tuned, asked),
            "samples": _side_by_side(base, tuned, asked, folder), "sheets": _sheets(tuned, asked, folder),
            "notes": _notes(asked, tuned),
            "counts": {"train": len(asked.train), "held_out": len(asked.held_out), "answered": len(tuned.answered),
                       "likelihoods": len(tuned.likely), "general": len(asked.general.examples)},
            "data": {"train": asked.train.fingerprint, "held_out": asked.held_out.fingerprint,
                     "general": asked.general.name},
            "settings": recipe.evaluate.model_dump(mode="json") | {"task_shots": asked.shots},
            "seconds": {name: round(side.seconds, 1) for name, side in sides.items()},
        }
    )  # fmt: skip


def _losses(base: Side, tuned: Side, asked: _Questions) -> dict[str, Any] | None:
    """Nats per token on the held-out rows: in the unit of forgetting, so that gain can be held against it."""
    if not any(one.likelihood and one.likelihood.tokens for one in tuned.likely):
        return None
    metric, more = choose("metrics", "forgetting"), _context(asked, tuned) | {"general_name": "held-out"}
    before, after = (metric(s.likely, **(more | {"general": s.likely})) if s.likely else None for s in (base, tuned))
    return {"base": _plain(before), "tuned": _plain(after), "difference": _difference(before, after, asked)}


def _notes(asked: _Questions, tuned: Side) -> list[str]:
    notes = list(asked.general.notes)
    if not len(asked.held_out):
        return ["No rows were held out, so nothing can be judged: set data.held_out, or data.held_out_data."]
    if asked.rows and len(asked.rows) < len(asked.held_out):
        notes.append(
            f"{len(asked.rows):,} of {len(asked.held_out):,} held-out rows, chosen at random, were answered; "
            "evaluate.max_rows says how many. Likelihoods are of all of them."
        )
    if (asked.recipe.evaluate.shots or getattr(asked.settings, "shots", False)) and not asked.can_show:
        notes.append("No examples were shown before the questions: the rows have none, or there are no training rows.")
    cut = sum(1 for one in tuned.likely if one.likelihood and not one.likelihood.tokens)
    if cut:
        notes.append(f"{cut:,} held-out answers had no token left after cutting and have no likelihood.")
    return notes


def _side_by_side(base: Side, tuned: Side, asked: _Questions, folder: Path) -> list[dict[str, Any]]:
    return [
        {
            "row": asked.rows[i], "prompt": _words(tuned.answered[i].example.prompt),
            "wanted": _said(tuned.answered[i].example.answer), "tuned": _said(tuned.answered[i].answer),
            "base": _said(base.answered[i].answer) if base.answered else None,
            "scores": {"tuned": _row_scores(tuned, i), "base": _row_scores(base, i)},
            **_files_of(
                folder, wanted=tuned.answered[i].example.answer, tuned=tuned.answered[i].answer,
                base=base.answered[i].answer if base.answered else None,
            ),
        }
        for i in (asked.shown if tuned.answered else ())
    ]  # fmt: skip


def _sheets(tuned: Side, asked: _Questions, folder: Path) -> list[dict[str, Any]]:
    """Files laid out for a person: the same things asked in several languages, then what metrics saw. `lines` of
    parts."""
    sheets = []
    if tuned.tongues:
        lines = [
            (*(replace(part, text="held-out") for part in asked.held_out[row].answer.parts if part.path),
             *(replace(part, text=f"{language}: {judged.example.prompt[-1].text}")
               for language, judged in answers.items() for part in (judged.answer.parts if judged.answer else ())))
            for row, answers in sorted(tuned.tongues.items())
        ]  # fmt: skip
        sheets.append(("languages", "Asked in several languages, with the same seed", lines))
    for name, score in tuned.scores.items():
        if score.sheet:
            sheets.append((name, f"What {name} saw", list(score.sheet)))
    named = files_below(folder)
    return [
        {
            "name": name,
            "title": title,
            "lines": [Message("assistant", line).as_dict(named)["content"] for line in lines],
        }
        for name, title, lines in sheets
    ]


def _words(messages: Sequence[Message]) -> str:
    """A prompt as a person reads it: roles are named only in longer conversations."""
    if len(messages) == 1:
        return messages[0].text
    return "\n".join(f"{message.role}: {message.text}" for message in messages)


def _said(message: Message | None) -> str:
    """The words of an answer, or the names of its files."""
    return "" if message is None else message.text or " ".join(str(part.path) for part in message.parts if part.path)


def _files_of(folder: Path, **messages: Message | None) -> dict[str, Any]:
    """{"files": {name: [part, …]}} of those messages that hold files, named from the run's folder."""
    named = files_below(folder)
    found = {
        name: [one for one, part in zip(message.as_dict(named)["content"], message.parts, strict=True) if part.path]
        for name, message in messages.items()
        if message and message.has_files
    }
    return {"files": found} if found else {}


def _row_scores(side: Side, row: int) -> dict[str, float]:
    found = {}
    for name, score in side.scores.items():
        if len(score.each) == len(side.answered) and row < len(score.each) and math.isfinite(score.each[row]):
            found[name] = round(score.each[row], 6)
    return found


def _plain(score: Score | None) -> dict[str, Any] | None:
    if score is None:
        return None
    return {k: _finite(v) for k, v in score.as_dict().items()}


def _finite(value: Any) -> Any:
    """Figures that JSON can hold: no NaN, no infinity, no numpy."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    return float(value) if math.isfinite(value) else None


# -- what is kept of every row ---------------------------------------------------------------------------------------


def _keep_samples(folder: Path, sides: dict[str, Side], asked: _Questions) -> None:
    """samples/base.jsonl and tuned.jsonl: every held-out row with what was said and how likely the reference was."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    for name, side in sides.items():
        number = {row: i for i, row in enumerate(asked.rows)}
        lines = (
            _sample(
                row, side.answered[number[row]] if row in number else side.likely[row],
                _row_scores(side, number[row]) if row in number else {},
            )
            for row in (range(len(asked.held_out)) if side.likely else asked.rows)
        )  # fmt: skip
        write_text(folder / "samples" / f"{name}.jsonl", "".join(lines))
        _overview(_captioned(side.answered), folder / "samples" / name)
        for metric, score in side.scores.items():
            _overview([part for line in score.sheet for part in line], folder / "samples" / name / metric)
        general = (_sample(row, judged, {}) for row, judged in enumerate(side.general))
        write_text(folder / "samples" / f"general-{name}.jsonl", "".join(general))


def _captioned(answered: Sequence[Judged]) -> list[Part]:
    """The files of the answers, each with what was asked."""
    return [
        replace(part, text=judged.example.prompt[-1].text if judged.example.prompt else "")
        for judged in answered for part in (judged.answer.parts if judged.answer else ()) if part.path
    ]  # fmt: skip


def _overview(parts: Sequence[Part], place: Path) -> None:
    """All files of a kind at one look, each with its text, where the modality has a way to show them so."""
    for kind in dict.fromkeys(part.kind for part in parts):
        some = [part for part in parts if part.kind == kind]
        place.mkdir(parents=True, exist_ok=True)
        shelves["modalities"].load(kind).modality.overview(some, [part.text for part in some], place)


def _sample(row: int, judged: Judged, scores: dict[str, float]) -> str:
    likelihood = judged.likelihood
    facts: dict[str, Any] = {
        "row": row, "prompt": [message.as_dict() for message in judged.example.prompt],
        "wanted": _said(judged.example.answer), "said": _said(judged.answer) if judged.answer else None,
        "nll": likelihood.nll if likelihood else None,
        "tokens": likelihood.tokens if likelihood else None, "chars": likelihood.chars if likelihood else None,
        "scores": scores,
    }  # fmt: skip
    parts = judged.answer.parts if judged.answer else ()
    probs = next((part.meta["probs"] for part in parts if part.meta and "probs" in part.meta), None)
    more = {"probs": probs, "errors": dict(judged.errors or {})}
    return json.dumps(facts | {name: value for name, value in more.items() if value}, ensure_ascii=False) + "\n"


def read_samples(path: Path) -> Iterator[tuple[str, Judged]]:
    """The kept rows, each with a key that is equal for equal questions with equal references."""
    from genwright.core import assistant
    from genwright.core.rows import example_messages

    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            facts = json.loads(line)
            head = example_messages(facts["prompt"]) if facts["prompt"] else ()
            example = Example((*head, assistant(facts["wanted"])))
            answer = None
            if facts["said"] is not None:
                meta = {"probs": facts["probs"]} if facts.get("probs") else None
                answer = Message("assistant", (Part(text=facts["said"], meta=meta),))
            known = facts["nll"] is not None
            likelihood = Likelihood(facts["nll"], facts["tokens"], facts["chars"]) if known else None
            yield example.digest(), Judged(example, answer, likelihood)
