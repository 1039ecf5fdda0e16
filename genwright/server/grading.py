"""Grading: what a criterion has to ask of a model, and what it says of an item once that is answered.

An item and its answer are names for templates: `item` as it was given; `sample` with `output_text`, `output_json` when
the answer is JSON, `output_tools`, and what the answer's body holds.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from genwright.core import Example, Judged, assistant, choose, user

from .eval_sources import CHAT
from .graders import Criterion, LabelModel, Said, ScoreModel, StringCheck, TextSimilarity
from .templates import Missing, rendered

EMBEDDINGS = "/v1/embeddings"
METRICS: dict[str, dict[str, Any]] = {
    "fuzzy_match": {"name": "fuzzy"},
    "bleu": {"name": "bleu"},
    "gleu": {"name": "gleu"},
    **{f"rouge_{n}": {"name": "rouge", "kind": f"rouge{n}"} for n in (1, 2, 3, 4, 5)},
    "rouge_l": {"name": "rouge", "kind": "rougeL"},
}  # fmt: skip  (of the shelf `metrics`, 0–100)
_LONGEST = 20_000  # characters of a text that is compared: the longest common subsequence takes the square of it


# -- asking ------------------------------------------------------------------------------------------------------------


def question(one: Criterion, names: dict[str, Any], embedder: str) -> tuple[str, dict[str, Any]] | None:
    """(path, body) of what a model has to be asked; None where none has. Raises Missing."""
    if isinstance(one, LabelModel):
        return CHAT, _judge(one.model, one.input, names, {"enum": one.labels}, {"temperature": 0},
                            f"one of {orjson.dumps(one.labels).decode()}")  # fmt: skip
    if isinstance(one, ScoreModel):
        low, high = one.range or (0.0, 1.0)
        sampling = one.sampling_params.model_dump(exclude_none=True) if one.sampling_params else {}
        if "max_completions_tokens" in sampling:
            sampling["max_completion_tokens"] = sampling.pop("max_completions_tokens")
        number = {"type": "number", "minimum": low, "maximum": high, "multipleOf": 0.01}
        return CHAT, _judge(one.model, one.input, names, number, sampling, f"a number from {low:g} to {high:g}")
    if isinstance(one, TextSimilarity) and one.evaluation_metric == "cosine":
        texts = _compared(one, names)
        if all(texts):  # nothing has no meaning
            return EMBEDDINGS, {"model": embedder, "input": texts}
    return None


def asks(one: Criterion, embedder: str) -> str:
    """The model that is asked for it; "" for none."""
    if isinstance(one, LabelModel | ScoreModel):
        return one.model
    return embedder if isinstance(one, TextSimilarity) and one.evaluation_metric == "cosine" else ""


def _judge(
    model: str, input: Sequence[Said], names: dict[str, Any], wanted: dict[str, Any], sampling: dict[str, Any],
    told: str,
) -> dict[str, Any]:  # fmt: skip
    """The judge is told the form of its answer behind its system message, and cannot but keep to it."""
    said = [{"role": one.role, "content": rendered(one.text("content"), names)} for one in input]
    form = f'Answer with JSON: {{"result": {told}}}.'
    if said[0]["role"] in ("system", "developer"):
        said[0]["content"] += f"\n\n{form}"
    else:
        said.insert(0, {"role": "system", "content": form})
    schema = {"type": "object", "properties": {"result": wanted}, "required": ["result"],
              "additionalProperties": False}  # fmt: skip
    format = {"type": "json_schema", "json_schema": {"name": "result", "schema": schema}}
    return {"model": model, "messages": said, **sampling, "response_format": format}


def _compared(one: StringCheck | TextSimilarity, names: dict[str, Any]) -> list[str]:
    texts = [rendered(one.input, names), rendered(one.reference, names)]
    if isinstance(one, TextSimilarity) and max(map(len, texts)) > _LONGEST:
        raise Missing(f"Texts of more than {_LONGEST:,} characters are not compared.")
    return texts


# -- judging -----------------------------------------------------------------------------------------------------------


def result(one: Criterion, names: dict[str, Any], answer: dict[str, Any] | None) -> dict[str, Any]:
    """What a criterion says of an item; `answer` is what came to its question ({"status", "body"}).

    What cannot be said has an `error` beside it and has not passed.
    """
    told: dict[str, Any] = {"name": one.name, "type": one.type, "sample": None}
    try:
        if answer is not None:
            told["sample"] = _shown(answer["body"])
            check_answer(answer)
        score, passed = _judged(one, names, answer["body"] if answer else {})
    except Missing as error:
        return told | {"score": 0.0, "passed": False, "error": {"code": "grader_error", "message": str(error)}}
    return told | {"score": score, "passed": passed}


def _judged(one: Criterion, names: dict[str, Any], body: dict[str, Any]) -> tuple[float, bool]:
    """(score, whether it passed). Raises Missing."""
    if isinstance(one, StringCheck):
        passed = _CHECKS[one.operation](*_compared(one, names))
        return float(passed), passed
    if isinstance(one, LabelModel):
        label = _result_in(body)
        if label not in one.labels:
            raise Missing(f"The judge gave no label, but {str(label)[:100]!r}.")
        return float(label in one.passing_labels), label in one.passing_labels
    if isinstance(one, ScoreModel):
        (low, high), score = one.range or (0.0, 1.0), _result_in(body)
        if isinstance(score, bool) or not isinstance(score, int | float) or not low <= score <= high:
            raise Missing(f"The judge gave no number from {low:g} to {high:g}, but {str(score)[:100]!r}.")
        least = (low + high) / 2 if one.pass_threshold is None else one.pass_threshold
        return float(score), score >= least
    score = body["cosine"] if body else likeness(one.evaluation_metric, *_compared(one, names))
    return score, score >= one.pass_threshold


_CHECKS: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda said, wanted: said == wanted,
    "ne": lambda said, wanted: said != wanted,
    "like": lambda said, wanted: wanted in said,
    "ilike": lambda said, wanted: wanted.casefold() in said.casefold(),
}


def likeness(metric: str, said: str, wanted: str) -> float:
    """From 0 to 1. Raises MissingExtra."""
    if metric not in METRICS:  # the cosine of nothing
        return float(said == wanted)
    pair = Judged(Example((user(""), assistant(wanted))), assistant(said))
    return min(1.0, float(choose("metrics", METRICS[metric])([pair], bootstrap=0).each[0]) / 100)


def cosine(vectors: Sequence[Sequence[float]]) -> float:
    """Of two vectors."""
    a, b = vectors
    length = math.sqrt(sum(x * x for x in a) * sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def check_answer(answer: dict[str, Any]) -> None:
    """Raises Missing for one that is an error."""
    if answer["status"] >= 400:
        raise Missing(str((answer["body"] or {}).get("error", {}).get("message") or "It could not be answered."))


def _result_in(body: dict[str, Any]) -> Any:
    text = text_of(body)
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or "result" not in found:
        raise Missing(f"The judge gave no result, but {text[:200]!r}.")
    return found["result"]


def _shown(body: Any) -> dict[str, Any] | None:
    """What a client is shown of a judge's answer."""
    if not isinstance(body, dict) or body.get("error"):
        return None
    if "cosine" in body:
        return {"model": body["model"], "usage": body["usage"]}
    return {"model": body["model"], "usage": body["usage"], "finish_reason": body["choices"][0]["finish_reason"],
            "output": [{"role": "assistant", "content": text_of(body)}]}  # fmt: skip


# -- what was answered -------------------------------------------------------------------------------------------------


def text_of(body: dict[str, Any]) -> str:
    """The text of a chat completion or a response; "" for what is neither."""
    said = [part for item in _objects(body.get("output")) for part in _objects(item.get("content"))]
    for choice in _objects(body.get("choices"))[:1]:
        message = choice.get("message")
        said.append({"text": message.get("content")} if isinstance(message, dict) else {})
    return "".join(part["text"] for part in said if isinstance(part.get("text"), str))


def sample_names(body: dict[str, Any]) -> dict[str, Any]:
    """An answer as templates name it: its own fields, and `output_text`, `output_json`, `output_tools` beside."""
    text = body["output_text"] if isinstance(body.get("output_text"), str) else text_of(body)
    names = {"output_tools": _tools(body), **body, "output_text": text}
    with contextlib.suppress(orjson.JSONDecodeError):
        names.setdefault("output_json", orjson.loads(text))
    return names


def _tools(body: dict[str, Any]) -> list[Any]:
    calls: list[Any] = [item for item in _objects(body.get("output")) if item.get("type") == "function_call"]
    for choice in _objects(body.get("choices"))[:1]:
        message = choice.get("message")
        calls += _objects(message.get("tool_calls")) if isinstance(message, dict) else []
    return calls


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
