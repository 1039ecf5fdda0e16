"""Commands that run and watch a server: each calls a verb, shows what it gave, and returns it for `--json`."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Any

from .render import Screen


def bench(args: Namespace, screen: Screen) -> dict[str, Any]:
    """URL [--model M] [--streams 8] [--seconds 30] [--max-tokens 128] [--prompt TEXT]; the key from the environment."""
    from genwright.verbs import bench as verb

    key = os.environ.get("GENWRIGHT_API_KEY") or os.environ.get("OPENAI_API_KEY") or ""
    found = verb.bench(args.url, model=args.model or "", streams=args.streams, seconds=args.seconds, key=key,
                       max_tokens=args.max_tokens, prompt=args.prompt or verb.PROMPT, tell=screen.tell)  # fmt: skip
    rows = [
        (title, *(f"{found[name][p]:,.1f}" if found[name] else "–" for p in ("p50", "p90", "p99")))
        for name, title in (("first_ms", "first token"), ("gap_ms", "between tokens"), ("whole_ms", "whole answer"))
    ]
    screen.table(("milliseconds", "p50", "p90", "p99"), rows)
    errors = ", ".join(f"{count} × {kind}" for kind, count in found["errors"].items()) or "none"
    screen.say(f"{found['tokens_per_second']:,.1f} tokens/s over {found['streams']} streams, "
               f"{found['whole_answers']:,} whole answers in {found['seconds']:g} s; errors: {errors}")  # fmt: skip
    return found


def answer_file(args: Namespace, screen: Screen) -> dict[str, Any]:
    """MODEL --file ROWS --out FILE [--executor local | ray:workers=4,address=auto], with the options of `generate`."""
    from pathlib import Path

    from genwright.core import UsageError
    from genwright.verbs import answer_file as verb

    from .commands import _options, _plugin_option

    if not args.out:
        raise UsageError("Where are the answers to go?", "--out answers.jsonl")
    found = verb.answer_file(args.model, Path(args.file), Path(args.out), options=_options(args), engine=args.engine,
                             guards=args.guard, executor=_plugin_option(args.executor, "executors"),
                             tell=screen.tell)  # fmt: skip
    screen.say(f"{args.out}: {found['answered']:,} of {found['rows']:,} rows answered, {found['refused']:,} refused, "
               f"{found['unreadable']:,} unreadable")  # fmt: skip
    return {"file": str(args.out), **found}
