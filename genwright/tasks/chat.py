"""Answer the last message of a conversation."""

from genwright.core import Task, TaskSettings


class Settings(TaskSettings):
    pass


task = Task(takes="text", gives="text", engine="causal_lm", objective="sft", metrics=("perplexity", "chrf", "rouge"))
