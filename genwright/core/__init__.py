"""The floor: nouns and small protocols. No torch, no web; it imports in under 0.2 s."""

from .card import Card, CardFile, cards, find_card
from .content import Message, Part, assistant, say_as, system, user
from .data import Bad, Dataset, Example, Row
from .errors import DataError, GenwrightError, MissingExtra, ModelError, RecipeError, Refused, UnknownPlugin, UsageError
from .model import (
    Batched,
    Constraints,
    Encoded,
    Learner,
    Likelihood,
    Loss,
    Model,
    Request,
    Scorer,
    Unlearnable,
)
from .plugin import Chosen, FilePath, Pick, Settings, Shelf, choose, describe, did_you_mean, shelves
from .recipe import Recipe
from .run import Run, fingerprint, write_text
from .task import Task, TaskSettings, with_shots
from .things import SILENT, Ask, Finding, Judged, Modality, Pairs, Provenance, Score, Tell, Verdict

__all__ = [name for name in dir() if name[0].isupper()] + [
    "assistant", "cards", "choose", "describe", "did_you_mean", "find_card", "fingerprint", "say_as", "shelves",
    "system", "user", "with_shots", "write_text",
]  # fmt: skip
