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
