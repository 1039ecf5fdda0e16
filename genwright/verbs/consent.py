"""Consent: before a voice is learned, its owner's consent is on record, or its card says why none is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from genwright.core import Chosen, Recipe, Run, UsageError, find_card
from genwright.trust.ledger import Ledger

HOW = (
    "Ask whoever speaks, then write it down: data: {…, consent: {who: their name, when: 2026-11-30, statement: what "
    "they agreed to}}; or `file`, a signed paper or a recording, in place of the statement."
)


def consent_of(recipe: Recipe) -> dict[str, Any]:
    """What lets the voices in the recipe's data be imitated, as plain data; empty where the task imitates nobody.

    Raises UsageError when there is nothing, naming the data that lacks it.
    """
    if not recipe.task.thing.imitates:
        return {}
    if told := recipe.data.consent:
        facts = {key: value for key, value in told.model_dump(mode="json").items() if value}
        if told.file is not None:
            if not told.file.is_file():
                raise UsageError(f"There is no file {told.file}, which data.consent names.", HOW)
            facts |= {"file": told.file.name, "sha256": hashlib.sha256(told.file.read_bytes()).hexdigest()}
        return facts
    cards = {}
    for part in _parts(recipe.data.source):
        why = _said_by(part)
        if not why:
            raise UsageError(
                f"The data ({part.name}) holds voices, and nobody's consent to imitate them is on record.", HOW
            )
        cards[part.settings.card] = why
    return {"cards": cards}


def note_consent(consent: dict[str, Any], run: Run) -> None:
    """Write it into the ledger and the run's events, before anything is learned."""
    if consent:
        Ledger().append("consent", run=run.folder.name, consent=consent)
        run.log("consent", **consent)


def _parts(source: Chosen) -> Iterator[Chosen]:
    inner = getattr(source.module, "parts", None)
    for one in inner(source.settings) if inner else ():
        yield from _parts(one)
    if inner is None:
        yield source


def _said_by(source: Chosen) -> str:
    """What a card says: that of a dataset, or that of a packaged voice that speaks."""
    if hasattr(source.module, "consent"):
        return str(source.module.consent(source.settings))
    return find_card(source.settings.card).consent if source.name == "card" else ""
