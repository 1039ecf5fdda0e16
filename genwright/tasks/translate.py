"""Turn a text into another: another language, shorter, plainer (encoder-decoder)."""

from genwright.core import Task, TaskSettings


class Settings(TaskSettings):
    pass


task = Task("text", "text", engine="seq2seq", objective="seq2seq", metrics=("chrf", "bleu"))
