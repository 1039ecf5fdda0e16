"""/v1/moderations: what this server's guards find in a text, in OpenAI's shape.

Guards here are rules: they find something or nothing, so a score is 1 or 0. A category of OpenAI's that no guard here
judges is false, scores 0, and its `category_applied_input_types` is empty: it was not looked for. What the guards do
find stands beside those under its own name, as in "pii/email"; a finding whose rule is called as one of OpenAI's
categories (a list of words in `hate.txt`, say) counts as that category.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from genwright.core import Chosen, Part, choose

from ..answers import reply
from ..conversation import Strict
from ..errors import Wrong
from ..house import house_of
from ..leaving import unless_gone
from ..wire import documented, new_id, read_body

router = APIRouter()

CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
_OPENAI = ("omni-moderation-latest", "omni-moderation-2024-09-26", "text-moderation-latest", "text-moderation-stable")


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ModerationRequest(Strict):
    """One text, several, or one in parts (of text)."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=2048)] | Annotated[
        list[TextPart], Field(min_length=1, max_length=2048)]  # fmt: skip
    model: str | None = None


@router.post("/v1/moderations", openapi_extra=documented(ModerationRequest))
async def create(request: Request) -> Response:
    """What the guards find in texts."""
    asked = await read_body(request, ModerationRequest)
    guards = [choose("guards", said) for said in house_of(request).options.moderators]
    name = "guards:" + "+".join(guard.name for guard in guards)
    if asked.model is not None and asked.model not in (*_OPENAI, name):
        raise Wrong(404, f"There is no moderation model {asked.model[:200]!r}; there is {name!r}.", param="model",
                    code="model_not_found")  # fmt: skip
    results = await unless_gone(request, asyncio.to_thread(lambda: [judged(text, guards) for text in _texts(asked)]))
    return reply(request, {"id": new_id("modr-"), "model": name, "results": results})


def judged(text: str, guards: Sequence[Chosen]) -> dict[str, Any]:
    """OpenAI's result for one text. Raises what a guard raises when it cannot judge."""
    found = {finding for guard in guards for finding in _found(guard, text)}
    looked = {name for guard in guards for name in (guard.name, *_rules(guard))} | found
    categories = [*CATEGORIES, *sorted(looked - set(CATEGORIES))]
    return {
        "flagged": bool(found),
        "categories": {name: name in found for name in categories},
        "category_scores": {name: float(name in found) for name in categories},
        "category_applied_input_types": {name: ["text"] if name in looked else [] for name in categories},
    }


def _found(guard: Chosen, text: str) -> set[str]:
    rules = {finding.rule for finding in guard.thing([Part(text=text)], guard.settings).findings}
    return ({guard.name} if rules else set()) | {_category(guard, rule) for rule in rules}


def _rules(guard: Chosen) -> list[str]:
    """What a guard that names its kinds looks for."""
    kinds: Any = getattr(guard.settings, "kinds", None) or getattr(guard.module, "KINDS", ())
    return [_category(guard, kind) for kind in kinds]


def _category(guard: Chosen, rule: str) -> str:
    return rule if rule in CATEGORIES else f"{guard.name}/{rule}"


def _texts(asked: ModerationRequest) -> list[str]:
    if isinstance(asked.input, str):
        return [asked.input]
    if isinstance(asked.input[0], TextPart):
        return ["\n".join(part.text for part in asked.input)]
    return list(asked.input)
