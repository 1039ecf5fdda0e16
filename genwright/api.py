"""The Python door: the same verbs as the command line, for programs and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .core import SILENT, Message, Recipe, Run, Tell, assistant, user
from .verbs.run import run as _run


def prepare(recipe: str | Path | Recipe, folder: str | Path | None = None, *, tell: Tell = SILENT) -> Run:
    """Read, refine and split the data of a recipe. The report stands in `run.data / "report.md"`."""
    return _run(recipe, folder, until="prepare", tell=tell)


def tune(
    recipe: str | Path | Recipe, folder: str | Path | None = None, *,
    changes: Mapping[str, Any] | None = None, tell: Tell = SILENT,
) -> Run:  # fmt: skip
    """Prepare if needed and tune. The model stands in `run.model`; a killed run goes on bit for bit where it was."""
    return _run(recipe, folder, changes=changes, until="tune", tell=tell)


def evaluate(run: str | Path | Run, *, tell: Tell = SILENT) -> dict[str, Any]:
    """Judge a run's model beside its base on the held-out rows. Returns the report (also `run.folder/report.json`)."""
    import json

    here = run if isinstance(run, Run) else Run.open(run)
    _run(here.recipe, here.folder, until="evaluate", tell=tell)
    report: dict[str, Any] = json.loads(here.report_file.read_text(encoding="utf-8"))
    return report


def search(recipe: str | Path | Recipe, folder: str | Path | None = None, *, tell: Tell = SILENT) -> dict[str, Any]:
    """Search hyper-parameters over `search.space` of the recipe; goes on where it was. Returns the summary."""
    from .verbs.search import search as _search

    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe, note=tell.note)
    return _search(recipe, Path(folder or Path("runs") / f"{recipe.name}-search"), tell=tell)


def ask(model: str | Path | Run, prompt: str, **options: Any) -> str:
    """One answer to one prompt. `options` are fields of `genwright.core.Request` (max_new_tokens, temperature …).

    Opens the model each time; for more than one question use `chat`.
    Raises Refused when a guard says no.
    """
    with_chat = chat(model)
    try:
        return with_chat(prompt, **options)
    finally:
        with_chat.close()


class Chat:
    """A conversation that remembers: call it with what you say. `on_text` hears every delta as it comes."""

    def __init__(self, answerer: Any):
        self.answerer = answerer
        self.messages: list[Message] = []

    def __call__(self, text: str, *, on_text: Callable[[str], None] | None = None, **options: Any) -> str:
        asked = [*self.messages, user(text)]
        said = []
        for part in self.answerer.ask(asked, **options):
            said.append(part.text)
            if on_text:
                on_text(part.text)
        self.messages = [*asked, assistant("".join(said))]
        return "".join(said)

    def close(self) -> None:
        self.answerer.close()


def chat(model: str | Path | Run, *, guards: tuple[str, ...] = (), engine: str | None = None) -> Chat:
    """Open a run, card, folder or GGUF file for a conversation: `say = gw.chat("runs/x"); print(say("Hello"))`."""
    from .verbs.ask import open_answerer

    return Chat(open_answerer(model, guards=guards, engine=engine))
