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

__all__ = [
    "Ask",
    "Bad",
    "Batched",
    "Card",
    "CardFile",
    "Chosen",
    "Constraints",
    "DataError",
    "Dataset",
    "Encoded",
    "Example",
    "FilePath",
    "Finding",
    "GenwrightError",
    "Judged",
    "Learner",
    "Likelihood",
    "Loss",
    "Message",
    "MissingExtra",
    "Modality",
    "Model",
    "ModelError",
    "Pairs",
    "Part",
    "Pick",
    "Provenance",
    "Recipe",
    "RecipeError",
    "Refused",
    "Request",
    "Row",
    "Run",
    "SILENT",
    "Score",
    "Scorer",
    "Settings",
    "Shelf",
    "Task",
    "TaskSettings",
    "Tell",
    "UnknownPlugin",
    "Unlearnable",
    "UsageError",
    "Verdict",
    "assistant",
    "cards",
    "choose",
    "describe",
    "did_you_mean",
    "find_card",
    "fingerprint",
    "say_as",
    "shelves",
    "system",
    "user",
    "with_shots",
    "write_text",
]
