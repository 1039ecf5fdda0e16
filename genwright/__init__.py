"""Genwright: from your data to a deployed, safe generative product, on one machine.

    import genwright as gw

    run = gw.run("recipes/text/shell_assistant.yaml")          # prepare → tune → evaluate → export
    print(gw.ask(run, "List the buckets of my account"))       # guarded, labelled, logged

Everything is also a command: `genwright --help`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import ask, chat, evaluate, prepare, search, tune
    from .core import GenwrightError, Recipe, Run
    from .verbs.compare import compare
    from .verbs.compose import compose
    from .verbs.run import run

_PLACES = {
    "Recipe": "core", "Run": "core", "GenwrightError": "core", "run": "verbs.run", "compare": "verbs.compare",
    "compose": "verbs.compose",
    "prepare": "api", "tune": "api", "evaluate": "api", "search": "api", "ask": "api", "chat": "api",
}  # fmt: skip

__all__ = [
    "GenwrightError", "Recipe", "Run", "ask", "chat", "compare", "compose", "evaluate", "prepare", "run", "search",
    "tune",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Names are fetched when first used, so that `import genwright` costs nothing."""
    if name in _PLACES:
        return getattr(import_module(f"genwright.{_PLACES[name]}"), name)
    raise AttributeError(f"genwright has no {name!r}; it has {', '.join(__all__)}.")
