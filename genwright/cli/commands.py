"""Commands: each calls a verb, shows what it gave, and returns it as plain data for `--json`."""

from __future__ import annotations

import glob
import itertools
import json
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from genwright.core import Part, Recipe, Run, UsageError, choose, did_you_mean, shelves

from .render import Screen, figure, size


def run(args: Namespace, screen: Screen) -> dict[str, Any]:
    return _run_until(args, screen, args.until)


def prepare(args: Namespace, screen: Screen) -> dict[str, Any]:
    return _run_until(args, screen, "prepare")


def tune(args: Namespace, screen: Screen) -> dict[str, Any]:
    return _run_until(args, screen, "tune")


def _run_until(args: Namespace, screen: Screen, stage: str) -> dict[str, Any]:
    from genwright.verbs.run import run as run_recipe

    recipe, folder = _recipe_of(args, screen)
    made = run_recipe(recipe, folder, until=stage, tell=screen.tell)
    facts = _facts_of(made)
    _show_run(screen, made, facts)
    return facts


def evaluate(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.run import run as run_recipe

    here = Run.open(args.run)
    recipe = Recipe.load(here.folder / "recipe.yaml", _changes(args.set), note=screen.tell.note)
    run_recipe(recipe, here.folder, until="evaluate", tell=screen.tell)
    facts = _facts_of(here)
    _show_run(screen, here, facts)
    return facts


def export(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.export import export_run

    here = Run.open(args.run)
    formats = [_plugin_option(given) for given in args.format] or here.recipe.release.formats
    if not formats:
        raise UsageError("Which format?", f"--format NAME; {did_you_mean('', shelves['formats'])}")
    files = export_run(here, formats, out=Path(args.out) if args.out else None, tell=screen.tell)
    for path in files:
        screen.say(f"{path}  {size(path.stat().st_size)}")
    return {"files": [str(path) for path in files]}


def search(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.search import search as search_recipe

    recipe, folder = _recipe_of(args, screen)
    found = search_recipe(recipe, folder or Path("runs") / f"{recipe.name}-search", tell=screen.tell)
    screen.table(("key", "best", "importance"), [
        (key, str(value), float(found.get("importances", {}).get(key, 0.0))) for key, value in found["params"].items()
    ])  # fmt: skip
    screen.say(f"best {recipe.search.metric}: {figure(found['value'])}")
    return found


def compare(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.compare import compare as compare_runs

    found = compare_runs(*(Run.open(folder) for folder in args.runs))
    screen.table(
        ("key", *args.runs), [(k, str(a), str(b)) for k, (a, b) in found["recipe"].items()], title="recipes differ in"
    )
    screen.table(("figure", *args.runs, "difference"), [
        (row["metric"], row["a"], row["b"], row["difference"]) for row in found["scores"]
    ])  # fmt: skip
    return found


def generate(args: Namespace, screen: Screen) -> dict[str, Any]:
    if args.file:
        return _generate_file(args, screen)
    if args.prompt is None:
        raise UsageError("What shall be asked?", "Give a prompt, `-` for standard input, or --file ROWS --out ANSWERS.")
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    answerer = _open(args)
    if answerer.gives != "text":
        return _generate_files(args, screen, answerer, prompt)
    said = []
    try:
        for part in answerer.ask(_asked(args, prompt), **_options(args)):
            said.append(part.text)
            if not args.out:
                screen.stream(part.text)
    finally:
        answerer.close()
    if args.out:
        path = _write_labelled("".join(said), Path(args.out), answerer)
        screen.say(f"{path}")
    else:
        screen.stream("\n")
    return {"model": answerer.name, "answer": "".join(said), "provenance": answerer.provenance.as_dict()}


def _generate_files(args: Namespace, screen: Screen, answerer: Any, prompt: str) -> dict[str, Any]:
    """Answers that are files: pictures, sound. Without --out they are named after the prompt, beside each other."""
    modality = shelves["modalities"].load(answerer.gives).modality
    out = Path(args.out) if args.out else _free_name(prompt, modality.suffix)
    files, understood = list[str](), prompt
    screen.tell.stage(f"Making {out.name}")
    try:
        for part in answerer.ask(_asked(args, prompt), **_options(args), out=out):
            if "progress" in (part.meta or {}):
                screen.tell.advance()
            elif part.path and "partial" not in (part.meta or {}):
                files.append(str(part.path))
                understood = (part.meta or {}).get("understood") or prompt
    finally:
        answerer.close()
    if understood != prompt:
        screen.tell.note(f"Understood as: {understood}")
    for file in files:
        screen.show(modality, Part(answerer.gives, path=Path(file)))
        screen.say(file)
    for mark in answerer.marks:
        if warning := getattr(mark.module, "warning", lambda _: "")(mark.settings):
            screen.tell.note(warning)
    return {"model": answerer.name, "files": files, "provenance": answerer.provenance.as_dict()}


def _free_name(prompt: str, suffix: str) -> Path:
    """A file name in the working folder that says what was asked and is not taken."""
    words = "-".join(re.findall(r"\w+", prompt.lower()))[:40].strip("-") or "answer"
    taken = {path.stem for path in Path().glob(f"{glob.escape(words)}*{suffix}")}
    names = (words if number == 1 else f"{words}-{number}" for number in itertools.count(1))
    return Path(next(n for n in names if not any(t == n or t.startswith(f"{n}-") for t in taken))).with_suffix(suffix)


def _generate_file(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.answer_file import answer_file

    if not args.out or args.prompt is not None:
        raise UsageError("--file answers rows into another file, and takes no prompt.", "Add --out answers.jsonl.")
    found = answer_file(
        args.model, Path(args.file), Path(args.out), options=_options(args), engine=args.engine, guards=args.guard,
        executor=_plugin_option(args.executor, "executors"), tell=screen.tell,
    )  # fmt: skip
    screen.say(f"{args.out}  {', '.join(f'{count:,} {name}' for name, count in found.items())}")
    return {"file": args.out} | found


def chat(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.core import Refused, assistant, system, user

    answerer = _open(args)
    history = [system(args.system)] if args.system else []
    once = args.once is not None or not sys.stdin.isatty()
    if not once:
        screen.say(f"Talking with {answerer.name}. An empty line or ctrl-D leaves.", style="dim")
    try:
        while asked := _next_line(args.once, once):
            said = []
            try:
                for part in answerer.ask([*history, user(asked)], **_options(args)):
                    said.append(part.text)
                    screen.stream(part.text)
            except Refused as refusal:
                screen.stream(f"[{refusal.message}]")
                if once:
                    raise
            screen.stream("\n")
            history += [user(asked), assistant("".join(said))]
            if once:
                break
    finally:
        answerer.close()
    return {"model": answerer.name, "messages": [message.as_dict() for message in history]}


def _next_line(once: str | None, is_once: bool) -> str:
    if once is not None:
        return once
    if is_once:
        return sys.stdin.read().strip()
    try:
        return input("\n> ").strip()
    except EOFError:
        return ""


def recipe_check(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.core import RecipeError

    results, problems = [], []
    for path in args.recipe:
        try:
            found = Recipe.load(path, _changes(args.set), note=screen.tell.note)
            results.append({"recipe": path, "ok": True, "task": found.task.name, "method": found.method.name})
            screen.say(f"{path}: fine")
        except RecipeError as error:
            problems += [(f"{path} {key}", sentence) for key, sentence in error.problems]
    if problems:
        raise RecipeError(" ".join(args.recipe), problems)
    return {"recipes": results}


def recipe_schema(args: Namespace, screen: Screen) -> dict[str, Any]:
    schema = Recipe.model_json_schema()
    if not screen.as_json:
        print(json.dumps(schema, indent=2, ensure_ascii=False))
    return schema


def recipe_explain(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.core.explain import explain

    found = explain(args.key)
    screen.say(f"{found['key']}  ({found['type']}, default {found['default']})")
    screen.say(f"  {found['help']}")
    if found["choices"]:
        screen.table(("choice", "what it is"), found["choices"].items())
    return found


def models_list(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.models import list_models

    known = list_models()
    rows = [(k.card.name, k.card.kind, size(k.card.size), "yes" if k.is_here else "no", k.card.licence,
             " ".join(k.card.languages)) for k in known]  # fmt: skip
    screen.table(("name", "kind", "size", "here", "licence", "languages"), rows)
    return {"models": [k.card.model_dump(mode="json") | {"here": k.is_here, "bytes": k.card.size} for k in known]}


def models_pull(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.models import pull

    given = Path(args.from_file) if args.from_file else None
    path = pull(args.name, accept=args.accept or _ask_licence, given=given, tell=screen.tell)
    screen.say(str(path))
    return {"name": args.name, "path": str(path)}


def _ask_licence(card: Any) -> bool:
    """Show the terms of a card that asks for it; without a terminal nobody can accept."""
    if not sys.stdin.isatty():
        return False
    print(f"{card.title}: {card.licence} {card.licence_url}\n{card.notice}", file=sys.stderr)
    return input("Do you accept these terms? [y/N] ").strip().lower() in ("y", "yes")


def models_show(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.models import show

    found = show(args.name)
    screen.table(("", ""), [(key, str(value)) for key, value in found.items() if value not in ("", (), [], {})])
    return found


def models_rm(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.models import remove

    freed = remove(args.name)
    screen.say(f"{args.name}: {size(int(freed))} freed")
    return {"name": args.name, "freed": freed}


def plugins(args: Namespace, screen: Screen) -> dict[str, Any]:
    if args.shelf and args.shelf not in shelves:
        raise UsageError(f"There is no shelf {args.shelf!r}. {did_you_mean(args.shelf, shelves)}")
    if args.name:
        from genwright.core import describe

        schema = describe(args.shelf, args.name)
        screen.say(f"{args.name}: {schema['description']}")
        options = {key: field for key, field in schema["properties"].items() if key != "name"}
        screen.table(
            ("option", "default", "meaning"),
            [(key, str(field.get("default", "")), field.get("description", "")) for key, field in options.items()],
        )
        return schema
    found = {name: {p: shelf.help(p) for p in shelf} for name, shelf in shelves.items() if args.shelf in (None, name)}
    for name, members in found.items():
        screen.table((name, ""), members.items())
        screen.say()
    return found


def ledger(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.trust.ledger import default_path, verify

    path = Path(args.file) if args.file else default_path()
    found = verify(path)
    screen.say(f"{path}: {found.sentence}")
    return {"file": str(path), "ok": found.ok, "rows": found.rows, "sentence": found.sentence,
            "exit_code": 0 if found.ok else 1}  # fmt: skip


def doctor(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.doctor import examine

    found = examine()
    screen.table(("", "found", "what it means"), [(r["what"], r["found"], r["meaning"]) for r in found["checks"]])
    return found


# -- shared -----------------------------------------------------------------------------------------------------------


def _recipe_of(args: Namespace, screen: Screen) -> tuple[Recipe, Path | None]:
    """The recipe named on the command line, with its changes; a run stands for its own recipe and folder."""
    path, folder = Path(args.recipe), Path(args.out) if args.out else None
    if Run.is_run(path):
        path, folder = path / "recipe.yaml", folder or path
    return Recipe.load(path, _changes(args.set), note=screen.tell.note), folder


def _changes(pairs: list[str]) -> dict[str, Any]:
    import yaml

    changes = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair} has no `=`.", "Write it as --set train.epochs=3.")
        changes[key.strip()] = _number(yaml.safe_load(value))
    return changes


def _number(value: Any) -> Any:
    """YAML 1.1 reads 2e-4 as words; people mean a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _plugin_option(text: str, shelf: str = "formats") -> Any:
    """`gguf:quantization=q4_0,x=1` as a choice."""
    name, _, options = text.partition(":")
    pairs = [pair for pair in options.split(",") if pair]
    return choose(shelf, {"name": name, **_changes(pairs)})


def _open(args: Namespace) -> Any:
    from genwright.verbs.ask import open_answerer

    return open_answerer(args.model, engine=args.engine, guards=args.guard, task=getattr(args, "task", None))


def _asked(args: Namespace, prompt: str) -> Any:
    from genwright.core import system, user

    files = [Part("image", path=Path(file)) for file in getattr(args, "image", [])]
    files += [Part("image", "mask", Path(args.mask))] if getattr(args, "mask", None) else []
    asked = user(prompt, *files)
    return [system(args.system), asked] if args.system else [asked]


def _options(args: Namespace) -> dict[str, Any]:
    from genwright.core import Constraints

    options: dict[str, Any] = {"temperature": args.temperature, "top_p": args.top_p, "seed": args.seed}
    if args.max_new_tokens:
        options["max_new_tokens"] = args.max_new_tokens
    if given := _changes(getattr(args, "option", [])):
        options["options"] = given
    if args.choice:
        options["constraints"] = Constraints(choice=tuple(args.choice))
    if args.json_schema:
        try:
            schema = json.loads(Path(args.json_schema).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"The schema {args.json_schema} cannot be read: {error}") from None
        options["constraints"] = Constraints(json_schema=schema)
    return options


def _write_labelled(text: str, path: Path, answerer: Any) -> Path:
    from genwright.verbs.generate import write_labelled

    written: Path = write_labelled(text, path, marks=answerer.marks, provenance=answerer.provenance)
    return written


def _facts_of(made: Run) -> dict[str, Any]:
    facts: dict[str, Any] = {"run": str(made.folder)}
    if made.report_file.is_file():
        facts["report"] = json.loads(made.report_file.read_text(encoding="utf-8"))
    return facts


def _show_run(screen: Screen, made: Run, facts: dict[str, Any]) -> None:
    report = facts.get("report")
    if report:
        from genwright.verbs.report import side_by_side, table_rows

        screen.table(*table_rows(report))
        for line in side_by_side(report):
            screen.say(line)
    screen.say(f"\nThe run is {made.folder}.")
