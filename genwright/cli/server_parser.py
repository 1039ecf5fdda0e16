"""The commands around the server: serve, and what an operator does with one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Command = Callable[..., argparse.ArgumentParser]


def server_commands(command: Command, verbs: Any) -> None:
    """Add `serve` and its companions to the parser."""
    _serve(command)


def _serve(command: Command) -> None:
    one = command("serve", "serve models by OpenAI's API, on this machine", do="server_commands:serve")
    one.add_argument("model", nargs="*", help="runs, cards, folders or GGUF files; the first answers for unnamed ones")
    one.add_argument("--config", metavar="FILE", help="models, aliases and options as YAML; flags win over it")
    one.add_argument("--host", metavar="ADDRESS", help="address (default 127.0.0.1); a public one needs keys")
    one.add_argument("--port", type=int, metavar="N", help="port (default 8484; 0 takes a free one)")
    one.add_argument("--engine", metavar="NAME", help="an engine instead of the one chosen for you")
    one.add_argument("--alias", action="append", default=[], metavar="NAME=MODEL", help="what clients may say for it")
    one.add_argument("--data", metavar="FOLDER", help="where files and the database live")
    one.add_argument("--database", metavar="URL", help="postgresql+pg8000://… instead of SQLite in the data folder")
    one.add_argument("--queue", type=int, metavar="N", help="requests that may wait (default 32)")
    one.add_argument("--memory", metavar="SIZE", help="what models may take, e.g. 12GB (default 70 %% of the machine)")
    one.add_argument("--keep-alive", type=float, metavar="S", help="seconds a model stays in memory unused")
