"""Choose one label for a text."""

from pydantic import Field

from genwright.core import Task, TaskSettings


class Settings(TaskSettings):
    labels: tuple[str, ...] = Field((), description="All labels in order; empty takes those of the training rows")


task = Task("text", "text", engine="encoder", objective="classify", metrics=("accuracy", "macro_f1", "ece"))
