"""Graders: what answers are held against in an eval, in OpenAI's shapes. What they do is in grading.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .conversation import Seed, Strict, words
from .errors import Wrong
from .house import Caller, House
from .templates import Missing, places, steps

Template = Annotated[str, Field(max_length=1_000_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Model = Annotated[str, Field(min_length=1, max_length=500)]
Similarity = Literal["cosine", "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4",
                     "rouge_5", "rouge_l"]  # fmt: skip
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_REFUSED = {
    "python": "No code is run here, so there are no python graders; say it with string_check, text_similarity, "
              "label_model or score_model.",
    "multi": "An eval has a list of criteria, each with its own result; a `multi` is only for fine-tuning.",
}  # fmt: skip


class Said(Strict):
    """A message whose text is a template."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Template | dict[str, Any] | Annotated[list[Template | dict[str, Any]], Field(min_length=1, max_length=100)]
    type: Literal["message"] | None = None

    def text(self, param: str) -> str:
        """Raises Wrong (400) for what is no text."""
        parts = self.content if isinstance(self.content, list) else [self.content]
        return words([{"type": "text", "text": part} if isinstance(part, str) else part for part in parts], param)


class StringCheck(Strict):
    """Whether two texts are the same (`eq`), are not (`ne`), or the reference stands in the input (`like`; `ilike`
    whatever the case)."""

    type: Literal["string_check"]
    name: Name
    operation: Literal["eq", "ne", "like", "ilike"]
    input: Template
    reference: Template


class TextSimilarity(Strict):
    """How near two texts are, from 0 to 1; from `pass_threshold` on it passes."""

    type: Literal["text_similarity"]
    name: Name
    evaluation_metric: Similarity
    input: Template
    reference: Template
    pass_threshold: float


class LabelModel(Strict):
    """A model chooses one of the labels."""

    type: Literal["label_model"]
    name: Name
    model: Model
    input: list[Said] = Field(min_length=1, max_length=1000)
    labels: list[Name] = Field(min_length=1, max_length=100)
    passing_labels: list[Name] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _known(self) -> LabelModel:
        if not set(self.passing_labels) <= set(self.labels):
            raise ValueError("`passing_labels` must be among `labels`")
        return self


class JudgeSampling(Strict):
    max_completions_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: Seed | None = None
    reasoning_effort: Effort | None = None


class ScoreModel(Strict):
    """A model gives a number of `range` (0 to 1), to hundredths; from `pass_threshold` (the middle) on it passes."""

    type: Literal["score_model"]
    name: Name
    model: Model
    input: list[Said] = Field(min_length=1, max_length=1000)
    range: list[Annotated[float, Field(ge=-1e6, le=1e6)]] | None = Field(None, min_length=2, max_length=2)
    pass_threshold: float | None = None
    sampling_params: JudgeSampling | None = None

    @model_validator(mode="after")
    def _ordered(self) -> ScoreModel:
        if self.range and self.range[1] - self.range[0] < 0.01:
            raise ValueError("`range` is [lowest, highest]")
        return self


def _refuse(given: Any) -> Any:
    for number, one in enumerate(given if isinstance(given, list) else ()):
        kind = one.get("type") if isinstance(one, dict) else None
        if isinstance(kind, str) and kind in _REFUSED:
            raise Wrong(400, _REFUSED[kind], param=f"testing_criteria.{number}.type", code="unsupported_value")
    return given


Criterion = Annotated[StringCheck | TextSimilarity | LabelModel | ScoreModel, Field(discriminator="type")]
Criteria = Annotated[list[Criterion], Field(min_length=1, max_length=50), BeforeValidator(_refuse)]


# -- checks ------------------------------------------------------------------------------------------------------------


def check(criteria: list[Criterion], fields: set[str] | None, *, sampled: bool) -> None:
    """Look at every template of the criteria. `fields` are the names that an item may have, None when any may be.

    Raises Wrong (400) that names the parameter.
    """
    names = [one.name for one in criteria]
    for number, one in enumerate(criteria):
        param = f"testing_criteria.{number}"
        if one.name in names[:number]:
            raise Wrong(400, f"Two criteria are called {one.name!r}; their results could not be told apart.",
                        param=f"{param}.name", code="invalid_value")  # fmt: skip
        for place, text in texts_of(one, param):
            check_template(text, place, fields, sampled=sampled)


def check_template(text: str, param: str, fields: set[str] | None, *, sampled: bool, prompt: bool = False) -> None:
    """Raises Wrong (400) for a template that is broken or names what cannot be there. A `prompt` comes before any
    sample."""
    try:
        named = [steps(place) for place in places(text)]
    except Missing as error:
        raise Wrong(400, f"{param}: {error}", param=param, code="invalid_template") from None
    for root, *rest in named:
        why = ""
        if root not in ("item", "sample"):
            why = f"templates name {{{{item.…}}}} and {{{{sample.…}}}}, not {root[:100]!r}"
        elif root == "sample" and not sampled:
            why = "there is no sample in this eval; set include_sample_schema in its data_source_config"
            why = "what a model is asked cannot speak of its answer" if prompt else why
        elif root == "item" and rest and fields is not None and rest[0] not in fields:
            why = f"the item schema has no {rest[0][:100]!r}"
        if why:
            raise Wrong(400, f"{param}: {why}.", param=param, code="invalid_template")


def fields_of(schema: dict[str, Any]) -> set[str] | None:
    """The names that an item of this schema may have; None where the schema does not say all of them."""
    named = schema.get("properties")
    open_to_more = any(word in schema for word in ("$ref", "allOf", "anyOf", "oneOf", "if"))
    more = schema.get("additionalProperties", False)
    return set(named) if isinstance(named, dict) and not open_to_more and more is False else None


def texts_of(one: Criterion, param: str = "") -> Iterator[tuple[str, str]]:
    """(where it stands, the template) of every text of a criterion. Raises Wrong (400) for what is no text."""
    if isinstance(one, LabelModel | ScoreModel):
        for number, said in enumerate(one.input):
            yield f"{param}.input.{number}.content", said.text(f"{param}.input.{number}.content")
    else:
        yield f"{param}.input", one.input
        yield f"{param}.reference", one.reference


def check_model(house: House, caller: Caller, name: str, param: str) -> None:
    """Raises Wrong (400) for a model that this caller cannot ask."""
    try:
        house.fleet.find(name, caller)
    except Wrong as error:
        raise Wrong(400, str(error), param=param, code="model_not_found") from None
