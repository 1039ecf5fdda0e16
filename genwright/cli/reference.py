"""Reference: docs/reference.md, made from the code: commands, recipe keys, plugins with their options, Python names.

`python -m genwright.cli.reference docs/reference.md` writes it; with `--check` it only says whether it is fresh.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genwright.core import Recipe, cards, find_card, shelves
from genwright.core.explain import explain
from genwright.core.plugin import PluginProblems


def reference() -> str:
    """The whole page as Markdown."""
    return "\n".join([*_head(), *_commands(), *_keys(), *_plugins(), *_cards(), *_python()]) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("genwright.cli.reference", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(argv)
    page = reference()
    if not args.check:
        args.file.write_text(page, encoding="utf-8")
        return 0
    if args.file.is_file() and args.file.read_text(encoding="utf-8") == page:
        return 0
    print(f"{args.file} is stale: python -m genwright.cli.reference {args.file}", file=sys.stderr)
    return 1


def _head() -> Iterator[str]:
    yield "# Reference"
    yield ""
    yield "Made from the code by `python -m genwright.cli.reference docs/reference.md`; a test compares the two."
    yield "The same answers come from `genwright COMMAND --help`, `recipe explain KEY` and `genwright plugins`."


def _commands() -> Iterator[str]:
    from .main import build_parser

    yield from ("", "## Commands", "")
    yield "Every command takes `--json` (the result as one JSON object) and `--quiet` (no progress)."
    yield "Exit codes: 0 fine, 2 asked wrongly or an extra is missing, 3 data, 4 model, 5 a guard refused, 130 ctrl-C."
    for words, parser in _parsers(build_parser()):
        yield from ("", f"### genwright {words}", "", f"{parser.description}", "")
        for action in parser._actions:
            if action.dest in ("help", "json", "quiet"):
                continue
            name = ", ".join(action.option_strings) or str(action.metavar or action.dest).upper()
            choices = f" (one of {', '.join(map(str, action.choices))})" if action.choices else ""
            yield f"- `{name}`{choices}: {action.help or ''}".rstrip(": ")


def _parsers(parser: argparse.ArgumentParser, words: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    inner = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not inner:
        yield words, parser
        return
    for name, child in inner[0].choices.items():
        yield from _parsers(child, f"{words} {name}".strip())


def _keys() -> Iterator[str]:
    yield from ("", "## Recipe keys", "")
    for name in Recipe.model_fields:
        yield from _key(name)
        for inner in explain(name)["choices"]:
            if hasattr(Recipe.model_fields[name].annotation, "model_fields"):  # a group of keys, no choice of a plugin
                yield from _key(f"{name}.{inner}", indent="  ")


def _key(key: str, indent: str = "") -> Iterator[str]:
    found = explain(key)
    default = found["default"]
    shown = "" if default in (None, "", (), [], {}) else f", default `{default}`"
    yield f"{indent}- `{key}` ({found['type']}{shown}): {found['help']}"


def _plugins() -> Iterator[str]:
    yield from ("", "## Plugins", "")
    for shelf in shelves.values():
        yield from (f"### {shelf.name}", "")
        for name in shelf:
            yield f"- **{name}**: {shelf.help(name)}"
            for option, field in shelf.settings(name).model_fields.items():
                required = field.is_required()
                default = (
                    "required" if required else f"default `{_plain(field.get_default(call_default_factory=True))}`"
                )
                yield f"  - `{option}` ({default}): {field.description or ''}"
        yield ""


def _plain(value: Any) -> str:
    if hasattr(value, "model_dump"):
        return "{}"
    return str(value) if not isinstance(value, PluginProblems) else ""


def _cards() -> Iterator[str]:
    yield from ("## Cards", "", "| name | kind | size | licence | languages |", "|---|---|---|---|---|")
    for name in cards():
        card = find_card(name)
        yield f"| {name} | {card.kind} | {card.size:,} bytes | {card.licence} | {' '.join(card.languages)} |"


def _python() -> Iterator[str]:
    import genwright

    yield from ("", "## Python", "", "`import genwright as gw`")
    for name in genwright.__all__:
        thing = getattr(genwright, name)
        signature = "" if inspect.isclass(thing) else str(inspect.signature(thing)).replace("'", "")
        signature = re.sub(r" = <[^>]*>", " = …", signature)  # an object's address is nobody's default
        yield from ("", f"### gw.{name}", "", f"`{name}{signature}`" if signature else f"`{name}`", "")
        yield inspect.cleandoc(thing.__doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
