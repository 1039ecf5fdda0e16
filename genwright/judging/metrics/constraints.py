"""Share of answers that keep the task's constraints: JSON schema, choice, regular expression, phrases, word counts."""

import json
import re
from typing import Any

from pydantic import Field

from genwright.core import Constraints, MissingExtra, Pairs, Score, UsageError
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.judging.words import units


class Settings(Base):
    constraints: Constraints | None = Field(None, description="What to check; null takes the task's own constraints")


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """The details hold the share of answers that keep each rule. Raises UsageError when there is nothing to keep."""
    wanted = settings.constraints or getattr(context.get("task"), "constraints", None) or Constraints()
    asked = wanted.model_dump(exclude_defaults=True)
    if not asked:
        raise UsageError("The task has no constraints to keep.", "Give some in task.constraints.")
    broken = [broken_rules(p.said, wanted) for p in pairs]
    kept = {rule: sum(rule not in b for b in broken) / max(1, len(broken)) for rule in asked}
    return mean_score(
        [float(not b) for b in broken], bootstrap=bootstrap, seed=seed, unit="share",
        signature=f"constraints|{'+'.join(sorted(asked))}", details={"kept": kept},
    )  # fmt: skip


def broken_rules(text: str, wanted: Constraints) -> set[str]:
    """The names of the constraints that a text breaks. Phrases are sought case-insensitively.

    >>> sorted(broken_rules("Yes, dear", Constraints(max_words=1, must_include=("yes",), choice=("no",))))
    ['choice', 'max_words']
    """
    words, low, broken = len(units(text)), text.casefold(), set()
    if wanted.min_words is not None and words < wanted.min_words:
        broken.add("min_words")
    if wanted.max_words is not None and words > wanted.max_words:
        broken.add("max_words")
    if any(phrase.casefold() not in low for phrase in wanted.must_include):
        broken.add("must_include")
    if any(phrase.casefold() in low for phrase in wanted.must_not_include):
        broken.add("must_not_include")
    if wanted.choice and text.strip() not in wanted.choice:
        broken.add("choice")
    if wanted.regex is not None and not re.fullmatch(wanted.regex, text, re.DOTALL):
        broken.add("regex")
    if wanted.json_schema is not None and not _is_valid(text, wanted.json_schema):
        broken.add("json_schema")
    return broken


def _is_valid(text: str, schema: dict[str, Any]) -> bool:
    try:
        import jsonschema
    except ImportError:
        raise MissingExtra("jsonschema", "text") from None
    try:
        return bool(jsonschema.validators.validator_for(schema)(schema).is_valid(json.loads(text)))
    except json.JSONDecodeError:
        return False
