"""Write on: plain text, no roles, every token is learned."""

from genwright.core import Example, Message, Task, TaskSettings


class Settings(TaskSettings):
    pass


def frame(example: Example, settings: Settings) -> Example:
    """Join whatever roles a row has into one text."""
    if len(example.messages) == 1:
        return example
    return Example((Message("assistant", tuple(p for m in example.messages for p in m.parts)),), example.meta)


task = Task("text", "text", engine="causal_lm", objective="pretrain", metrics=("perplexity",), frame=frame)
