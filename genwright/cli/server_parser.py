"""The commands around the server: serve, and what an operator does with one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Command = Callable[..., argparse.ArgumentParser]


def server_commands(command: Command, verbs: Any) -> None:
    """Add `serve` and its companions to the parser."""
    _serve(command)
    _keys(command, verbs)
    _jobs(command, verbs)
    for name, text in (
        ("backup", "a consistent copy of the server's state and files in one file, also while it runs"),
        ("restore", "bring the state and files of a backup back into an empty data folder"),
    ):
        one = _stateful(command(name, text, do=f"state_commands:{name}"))
        one.add_argument("file", help="the backup")
    for name, text in (
        ("ps", "what a running server keeps in memory"),
        ("load", "bring a model into a running server's memory"),
        ("unload", "put a model out of a running server's memory"),
    ):
        one = command(name, text, do=f"fleet_commands:{name}")
        if name != "ps":
            one.add_argument("model", help="its name in `models list` of the server")
        if name == "load":
            one.add_argument("--pin", action="store_true", help="and keep it there")
        one.add_argument("--url", default="http://127.0.0.1:8484", help="the server (default http://127.0.0.1:8484)")
    one = command("bench", "what a server that speaks OpenAI's API can bear, measured", do="operation_commands:bench")
    one.add_argument("url", help="where it answers, e.g. http://127.0.0.1:8484/v1 (key: GENWRIGHT_API_KEY)")
    one.add_argument("--model", metavar="NAME", help="the model to ask (default: the first)")
    one.add_argument("--streams", type=int, default=8, metavar="N", help="answers at once (default 8)")
    one.add_argument("--seconds", type=float, default=30, metavar="S", help="how long (default 30)")
    one.add_argument("--max-tokens", type=int, default=128, metavar="N", help="longest answer (default 128)")
    one.add_argument("--prompt", metavar="TEXT", help="what to ask instead of the built-in text")


def _stateful(one: argparse.ArgumentParser) -> argparse.ArgumentParser:
    one.add_argument("--config", metavar="FILE", help="the file that `serve --config` takes")
    one.add_argument("--data", metavar="FOLDER", help="the server's data folder")
    one.add_argument("--database", metavar="URL", help="the server's database, when it is not in that folder")
    return one


def _keys(command: Command, verbs: Any) -> None:
    keys = verbs.add_parser("keys", help="who may use the server, and how much", description="API keys.")
    parts = keys.add_subparsers(required=True, metavar="COMMAND")
    one = _stateful(command("create", "a new key, shown once", into=parts, do="state_commands:keys_create"))
    one.add_argument("owner", nargs="?", default="local", help="whose things it sees (default local)")
    one.add_argument("--name", default="", help="what it is for")
    one.add_argument("--admin", action="store_true", help="it may also change what is served")
    one.add_argument("--metrics", action="store_true", help="it may read /metrics and nothing else, for a scraper")
    one.add_argument("--requests-per-minute", type=int, metavar="N")
    one.add_argument("--tokens-per-minute", type=int, metavar="N")
    one.add_argument("--tokens-per-day", type=int, metavar="N")
    one.add_argument("--expires-in", metavar="TIME", help="90d, 12h, 30m; never when not told")
    _stateful(command("list", "every key, and what it used today", into=parts, do="state_commands:keys_list"))
    one = _stateful(command("revoke", "it opens nothing any more", into=parts, do="state_commands:keys_revoke"))
    one.add_argument("id", help="the key's id, as `keys list` shows it")


def _jobs(command: Command, verbs: Any) -> None:
    jobs = verbs.add_parser("jobs", help="the server's durable work: fine-tuning, batches", description="Jobs.")
    parts = jobs.add_subparsers(required=True, metavar="COMMAND")
    one = _stateful(command("list", "the newest jobs", into=parts, do="state_commands:jobs_list"))
    for name in ("kind", "owner", "state"):
        one.add_argument(f"--{name}", metavar=name.upper())
    one.add_argument("--limit", type=int, default=20, metavar="N", help="how many (default 20)")
    one = _stateful(command("show", "one job and its last events", into=parts, do="state_commands:jobs_show"))
    one.add_argument("id")
    one.add_argument("--events", type=int, default=20, metavar="N", help="how many events (default 20)")
    for name, text in (("cancel", "end a job"), ("pause", "stop it for now"), ("resume", "go on with a paused one")):
        one = _stateful(command(name, text, into=parts, do=f"state_commands:jobs_{name}"))
        one.add_argument("id")


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
