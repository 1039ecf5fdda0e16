"""Recipes: everything about a run, in one short file that a person can read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from .aliases import apply_aliases
from .errors import RecipeError
from .plugin import Chosen, FilePath, Pick, choose, did_you_mean, sentences, shelves

_STRICT = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "table", ".tsv": "table",
             ".parquet": "table", ".arrow": "table", ".txt": "text_files", ".md": "text_files", ".po": "gettext",
             ".mo": "gettext"}  # fmt: skip


class Consent(BaseModel):
    """That whoever speaks in the recordings lets their voice be imitated: by a statement, or a file that holds it."""

    model_config = _STRICT

    who: str = Field(min_length=1, description="The speaker's name")
    when: date = Field(description="The day on which they agreed")
    statement: str = Field("", description="What they agreed to, in their words")
    file: FilePath | None = Field(None, description="A signed paper or a recording that says it; its hash is kept")

    @model_validator(mode="after")
    def _says_what(self) -> Consent:
        if not self.statement.strip() and self.file is None:
            raise ValueError("needs a `statement` or a `file`: what did they agree to?")
        return self


class Data(BaseModel):
    """Where the rows come from (`source` and its options) and how many are kept aside for evaluation."""

    model_config = _STRICT

    source: Annotated[Chosen, Pick("sources", key="source")] = Field(description="A source and its options")
    held_out: float = Field(
        0.1, ge=0, lt=1, description="Share of the rows kept aside for evaluation, by hash of their group"
    )
    held_out_data: Annotated[Chosen, Pick("sources", key="source")] | None = Field(
        None, description="A source of its own for evaluation; then `held_out` is not used"
    )
    consent: Consent | None = Field(None, description="Of whoever speaks in recordings that a voice is learned from")
    limit: int | None = Field(None, ge=1, description="Read at most so many rows")
    max_bad_rate: float = Field(0.05, ge=0, le=1, description="Stop when more than this share of the rows is malformed")
    columns: dict[str, str] = Field({}, description="Rename the keys of each row: {their name: our name}")
    prompt: str = Field("", description="Template of the question, e.g. 'Summarise: {body}'; needs `completion`")
    completion: str = Field("", description="Template of the answer, e.g. '{title}'; needs `prompt`")

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any, info: ValidationInfo) -> Any:
        """`{source: jsonl, path: x, held_out: 0.1}`: our keys stay here, the others are the source's options."""
        given = _named(given)
        if not isinstance(given, Mapping):
            return given
        if isinstance(aside := _named(given.get("held_out_data")), Mapping):
            given = {**given, "held_out_data": name_source(aside)}
        ours = {k: v for k, v in given.items() if k in cls.model_fields and k != "source"}
        options = {k: v for k, v in given.items() if k not in ours}
        if isinstance(options.get("source"), Mapping):
            options = {**options.pop("source"), **options}
        options = name_source(options)
        return ours | {"source": options}


def _named(given: Any) -> Any:
    """A source that is named by a word alone: a file, or a source or card."""
    if not isinstance(given, str):
        return given
    return {"path": given} if Path(given).suffix in _SUFFIXES else {"source": given}


def name_source(options: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in `source` from a path's suffix, or from the name of a dataset's card."""
    options = dict(options)
    from .card import cards

    name = options.get("source")
    if name is None and isinstance(options.get("path"), str):
        options["source"] = _SUFFIXES.get(Path(options["path"]).suffix, "saved_dataset")
    elif isinstance(name, str) and name not in shelves["sources"].places and name in cards():
        options |= {"source": "card", "card": name}
    elif isinstance(name, str) and name.startswith("hf:"):
        options |= {"source": "hub", "dataset": name[3:]}
    return options


class Train(BaseModel):
    """How the one training loop runs. A step is one change of the weights."""

    model_config = _STRICT

    tokens_per_batch: int = Field(4096, ge=1, description="Slots (real tokens, for there is no padding) in a step")
    rows_per_batch: int | None = Field(None, ge=1, description="Rows in a step, instead of tokens_per_batch")
    tokens_per_pass: int = Field(
        4096, ge=1, description="Slots that pass through the model at once; smaller needs less memory"
    )
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate")
    epochs: float = Field(1.0, gt=0, description="Times through the data; a fraction stops midway")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps, whatever `epochs` says")
    optimizer: Literal["adamw", "adam", "sgd", "adafactor"] = Field("adamw", description="Who changes the weights")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Decay of AdamW's and Adam's running averages")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD")
    weight_decay: float = Field(
        0.0, ge=0, description="Weight decay, not on norms, biases and embeddings; decoupled, but for adam"
    )
    schedule: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"] = Field(
        "cosine", description="Shape of the learning rate"
    )
    warmup: float = Field(0.03, ge=0, description="Warm-up: a share of all steps below 1, else a number of steps")
    min_learning_rate: float = Field(0.0, ge=0, description="Floor of the schedule, as a share of the peak")
    clip: float | None = Field(1.0, gt=0, description="Largest gradient norm; null turns clipping off")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of each target spread over the vocabulary")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Set every dropout of the model to this; null leaves them"
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of an exponential moving average of the weights, saved as the model"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Precision of the passes; auto is bfloat16 where the machine has it"
    )
    compile: bool = Field(False, description="torch.compile the model (needs a C++ compiler)")
    deterministic: bool = Field(True, description="Refuse operations whose result varies from run to run")
    threads: int | None = Field(None, ge=1, description="CPU threads; null leaves torch's choice")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps …")
    evaluate_every: int | None = Field(
        None, ge=1, description="Steps between looks at the held-out loss; null is 10 looks a run"
    )
    early_stopping: int | None = Field(
        None, ge=1, description="Stop after so many looks without a better held-out loss; the best is kept"
    )
    checkpoint_every: int | None = Field(None, ge=1, description="Steps between checkpoints; null is 5 a run")
    keep_checkpoints: int = Field(2, ge=1, description="Newest checkpoints kept; each holds the best weights so far")
    max_bad_steps: int = Field(
        10, ge=1, description="Stop after so many NaN or infinite steps in a row; each is skipped"
    )
    trackers: list[Annotated[Chosen, Pick("trackers")]] = Field([], description="Where figures go besides events.jsonl")


class ModelChoice(BaseModel):
    """Which model to start from: a card's name, `hf:org/name`, a folder, a GGUF file, a run, or `config` for random
    weights. Other keys are options of the engine.
    """

    model_config = _STRICT

    source: str | None = Field(None, description="Card, hf:org/name@revision, folder, GGUF file or run")
    engine: str | None = Field(
        None, description="Name on the shelf of engines; null lets task, card and machine choose"
    )
    options: dict[str, Any] = Field({}, description="Options of the engine")

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any, info: ValidationInfo) -> Any:
        if isinstance(given, str):
            return {"source": given}
        if not isinstance(given, Mapping):
            return given
        options = {k: v for k, v in given.items() if k not in ("source", "engine", "options")}
        given = {k: v for k, v in given.items() if k not in options}
        return given | {"options": {**given.get("options", {}), **options}}


class Evaluate(BaseModel):
    """How the tuned model is judged."""

    model_config = _STRICT

    max_rows: int = Field(200, ge=1, description="Held-out rows that are answered (all are used for the loss)")
    base: bool = Field(True, description="Judge the model before tuning too, in the same table")
    shots: tuple[int, ...] = Field((), description="Repeat with so many examples in the prompt each, e.g. [0, 1, 4]")
    bootstrap: int = Field(1000, ge=0, description="Resamples for the confidence intervals; 0 leaves them out")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling")
    samples: int = Field(5, ge=0, description="Answers shown side by side")


class Search(BaseModel):
    """Hyper-parameter search by `genwright search`: keys of this recipe and the ranges to try."""

    model_config = _STRICT

    space: dict[str, Any] = Field(
        {}, description="{'train.learning_rate': {low: 1e-5, high: 1e-3, log: true}, 'method.rank': [4, 8, 16]}"
    )
    trials: int = Field(20, ge=1, description="Trials in all; a second call goes on to that number")
    metric: str = Field("loss", description="Held-out `loss`, or the name of a metric")
    direction: Literal["minimize", "maximize"] = Field("minimize", description="What is better")
    sampler: Literal["tpe", "random", "grid", "cmaes"] = Field("tpe", description="Who proposes")
    pruner: Literal["none", "median", "hyperband"] = Field("median", description="Who stops hopeless trials early")


class Release(BaseModel):
    """How the run leaves the house."""

    model_config = _STRICT

    name: str = Field("", description="Name of the model; empty is the recipe's file name")
    formats: list[Annotated[Chosen, Pick("formats")]] = Field([], description="How the model leaves, e.g. [gguf]")


class Recipe(BaseModel):
    """From data to a released model, in one file."""

    model_config = _STRICT

    name: str = Field("", description="Name of the run; empty is the file's name")
    seed: int = Field(0, ge=0, description="Of everything random")
    data: Data = Field(description="Rows and how many are held out")
    refine: list[Annotated[Chosen, Pick("refiners")]] = Field([], description="What is done to the rows, in order")
    task: Annotated[Chosen, Pick("tasks")] = Field(description="What is asked and answered")
    model: ModelChoice = Field(description="What we start from")
    method: Annotated[Chosen, Pick("methods")] = Field(
        "lora", validate_default=True, description="What is trainable; of random weights all, if nothing is said"
    )
    objective: Annotated[Chosen, Pick("objectives")] | None = Field(
        None, description="What is minimised; null is the task's own"
    )
    regularizers: list[Annotated[Chosen, Pick("regularizers")]] = Field(
        [], description="What is added to the objective"
    )
    train: Train = Field(Train(), description="The training loop")
    metrics: list[Annotated[Chosen, Pick("metrics")]] | None = Field(
        None, description="How answers are judged; null is the task's own"
    )
    evaluate: Evaluate = Field(Evaluate(), description="How the judging is done")
    search: Search = Field(Search(), description="Hyper-parameter search")
    guards: list[Annotated[Chosen, Pick("guards")]] | None = Field(
        None, description="Who looks at each request and each answer; null is the task's own, [] is nobody"
    )
    marks: list[Annotated[Chosen, Pick("marks")]] = Field(
        ["metadata"], validate_default=True, description="How what leaves is labelled"
    )
    release: Release = Field(Release(), description="Exports")
    executor: Annotated[Chosen, Pick("executors")] = Field(
        "local", validate_default=True, description="Where the tuning runs"
    )

    @model_validator(mode="before")
    @classmethod
    def _random_weights_are_all_trained(cls, fields: Any) -> Any:
        model = fields.get("model") if isinstance(fields, dict) else None
        if not isinstance(model, Mapping) or model.get("source"):
            return fields
        begins = "config" in model or "config" in (model.get("options") or {})
        return {"method": "full", **fields} if begins else fields

    @classmethod
    def load(
        cls, path: str | Path, changes: Mapping[str, Any] | None = None, *, note: Callable[[str], None] = lambda _: None
    ) -> Recipe:
        """Read a recipe, lay it over the one it `extends`, apply `changes` ({"train.epochs": 3}), check it.

        `note` hears of every familiar spelling that was translated. Raises RecipeError with all problems at once.
        """
        path = Path(path)
        fields = read_fields(path)
        fields.setdefault("name", path.stem if path.name != "recipe.yaml" else path.resolve().parent.name)
        for key, value in (changes or {}).items():
            put(fields, key, value)
        return cls.from_dict(fields, folder=path.resolve().parent, where=str(path), note=note)

    @classmethod
    def from_dict(
        cls, fields: Mapping[str, Any], *, folder: Path | None = None, where: str = "The recipe",
        note: Callable[[str], None] = lambda _: None,
    ) -> Recipe:  # fmt: skip
        """Check plain data. Raises RecipeError with all problems at once."""
        try:
            plain, said = apply_aliases(dict(fields))
        except ValueError as error:
            raise RecipeError(where, [("aliases", str(error))]) from None
        for line in said:
            note(line)
        try:
            return cls.model_validate(plain, context={"folder": folder})
        except ValidationError as error:
            raise RecipeError(where, sentences(error, cls)) from None

    def as_dict(self) -> dict[str, Any]:
        """The recipe as a person would write it: only what differs from the defaults, paths absolute."""
        fields = self.model_dump(mode="json", exclude_unset=True)
        data = fields["data"]
        fields["data"] = {**data.pop("source"), **data}
        model = fields["model"]
        fields["model"] = {**{k: v for k, v in model.items() if k != "options"}, **model.get("options", {})}
        return fields

    @property
    def task_of(self) -> Any:
        """The Task of the chosen task module."""
        return self.task.thing

    @property
    def chosen_objective(self) -> Chosen:
        """The recipe's, else that of the engine it names, else the task's."""
        return self.objective or choose("objectives", self._usual("objective"))

    @property
    def chosen_metrics(self) -> list[Chosen]:
        """The recipe's, else those of the engine it names, else the task's."""
        return self.metrics if self.metrics is not None else [choose("metrics", m) for m in self._usual("metrics")]

    def _usual(self, what: str) -> Any:
        engine = shelves["engines"].load(self.model.engine) if self.model.engine else None
        return getattr(engine, what, getattr(self.task.thing, what))


def read_fields(path: Path) -> dict[str, Any]:
    """A recipe's YAML as plain data, laid over the one that it `extends` (one level). Raises RecipeError."""
    fields = _yaml(path)
    base = fields.pop("extends", None)
    if base is None:
        return fields
    below = _yaml(path.parent / str(base))
    if "extends" in below:
        raise RecipeError(str(path), [("extends", f"{base} extends another recipe itself; one level is allowed.")])
    return _lay_over(below, fields)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.yaml")]) if path.parent.is_dir() else ""
        raise RecipeError(str(path), [("file", f"is not there. {near}".strip())]) from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), [("file", f"cannot be read: {error}")]) from None
    except yaml.YAMLError as error:
        raise RecipeError(str(path), [("file", f"is not YAML: {error}")]) from None
    if not isinstance(fields, dict):
        raise RecipeError(str(path), [("file", "is not a mapping of keys to values.")])
    return fields


def _lay_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Plain settings (train, evaluate …) are merged key by key; choices of a plugin are replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        same = isinstance(old, dict) and isinstance(value, dict) and key in ("train", "evaluate", "search", "release")
        merged[key] = {**old, **value} if same and isinstance(old, dict) else value
    return merged


def put(fields: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key: `train.epochs`, `method.rank` (a plain name becomes a mapping), `refine.0.threshold`."""
    *path, last = key.split(".")
    place: Any = fields
    for depth, step in enumerate(path):
        at: Any = int(step) if isinstance(place, list) else step
        inner = place[at] if isinstance(place, list) else place.get(at)
        place[at] = _opened(inner, step if depth == 0 else "")
        place = place[at]
    place[int(last) if isinstance(place, list) else last] = value


def _opened(value: Any, field: str) -> Any:
    """What stands at a key, as something that options can be put into: a plain name becomes a mapping."""
    if isinstance(value, list):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, str) and field == "data":
        return {"path": value} if Path(value).suffix in _SUFFIXES else {"source": value}
    if isinstance(value, str):
        return {"source" if field == "model" else "name": value}
    return {"name": "lora"} if field == "method" else {}
