"""Serve, from the command line: flags and a file become the server's options."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from genwright.core import MissingExtra, UsageError

from .render import Screen

_FLAGS = ("host", "port", "data", "database", "queue", "memory", "keep_alive")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def serve(args: Namespace, screen: Screen) -> dict[str, Any]:
    from pydantic import ValidationError

    try:
        from genwright.server.house import Options
    except ImportError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from None
    from genwright.server.serve import serve_options

    try:
        options = Options.model_validate(_options(args))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{where}: {first['msg']}.", f"See `genwright serve --help`; in {args.config or 'the flags'}."
        ) from None
    serve_options(options, tell=screen.tell)
    return {}


def _options(args: Namespace) -> dict[str, Any]:
    """The file's options, with the flags over them."""
    options = _from_file(Path(args.config)) if args.config else {}
    named = [{"source": source, "engine": {"engine": args.engine} if args.engine else {}} for source in args.model]
    models, aliases = options.setdefault("models", []), options.setdefault("aliases", {})
    options["models"] = [*named, *models] if isinstance(models, list) else models  # what is wrong is told by Options
    options["aliases"] = aliases | dict(map(_pair, args.alias)) if isinstance(aliases, dict) else aliases
    options |= {name: getattr(args, name) for name in _FLAGS if getattr(args, name) is not None}
    if isinstance(options.get("memory"), str):
        options["memory"] = _bytes(options["memory"])
    return options


def _from_file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Give the path of a YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}", "Mend that line.") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no options.", "Write `models: [runs/x]`.")
    return found


def _pair(text: str) -> tuple[str, str]:
    name, is_there, model = text.partition("=")
    if not name or not is_there or not model:
        raise UsageError(f"--alias {text} says nothing.", "Write --alias gpt-4o-mini=MODEL.")
    return name, model


def _bytes(text: str) -> int:
    """
    >>> _bytes("12GB"), _bytes("1.5g"), _bytes("700000000")
    (12000000000, 1500000000, 700000000)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if not found:
        raise UsageError(f"{text} is no size.", "Write --memory 12GB.")
    return int(float(found[1]) * _UNITS[found[2]])
