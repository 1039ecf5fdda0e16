"""Shelves and plugins: a plugin is a module, and its name is its file name.

Each shelf is a folder. Each file on it has a docstring (its first line is its help), an optional `class Settings`
(its options) and the one public function or value that the shelf asks for. Listing a shelf imports nothing; other
distributions join through the entry-point group `genwright.<shelf>`.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo
from pydantic_core import core_schema

from .errors import UnknownPlugin


class Settings(BaseModel):
    """Options of a plugin. Unknown names are errors, so a typing slip is never silent."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _beside_recipe(path: Path, info: ValidationInfo) -> Path:
    """A relative path is looked for beside the recipe first, then in the working folder."""
    folder = (info.context or {}).get("folder")
    path = path.expanduser()
    if path.is_absolute():
        return path
    if folder and ((Path(folder) / path).exists() or not path.exists()):
        return (Path(folder) / path).resolve()
    return path.resolve()


FilePath = Annotated[Path, AfterValidator(_beside_recipe)]  # use it for every path in a plugin's Settings


@dataclass(frozen=True)
class Shelf:
    """A folder of plugins, which other distributions can add to."""

    name: str
    package: str
    gives: str  # the one public name that each file on this shelf must define

    @cached_property
    def places(self) -> dict[str, str]:
        """Plugin name -> module path, without importing any of them. A trailing underscore is dropped (`continue_`)."""
        found = {e.name: e.value for e in _entry_points().get(f"genwright.{self.name}", ())}
        folder = _spec(self.package).submodule_search_locations or []
        own = (m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_"))
        return found | {name.rstrip("_"): f"{self.package}.{name}" for name in own}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.places))

    def help(self, name: str) -> str:
        """The first line of the plugin's docstring, read without running the plugin."""
        tree = ast.parse(Path(_spec(self._place(name)).origin or "").read_text(encoding="utf-8"))
        return (ast.get_docstring(tree) or "").split("\n")[0]

    def load(self, name: str) -> ModuleType:
        return importlib.import_module(self._place(name))

    def settings(self, name: str) -> type[Settings]:
        found: type[Settings] = getattr(self.load(name), "Settings", Settings)
        return found

    def _place(self, name: str) -> str:
        if name not in self.places:
            raise UnknownPlugin(f"No {name!r} among the {self.name}. {did_you_mean(name, self)}")
        return self.places[name]


@cache
def _entry_points() -> dict[str, list[Any]]:
    """Plugins of other distributions by group, from one walk through what is installed (it takes milliseconds)."""
    from importlib import metadata

    found: dict[str, list[Any]] = {}
    for distribution in metadata.distributions():
        if "[genwright." in (distribution.read_text("entry_points.txt") or ""):
            for entry in distribution.entry_points:
                found.setdefault(entry.group, []).append(entry)
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "Did you mean …?" when something is near, else what there is."""
    known = sorted(known)
    longer = [one for one in known if len(name) > 2 and one.startswith(name)]
    near = longer or difflib.get_close_matches(name, known, n=1, cutoff=0.55)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"There are: {', '.join(known)}." if known else "There are none."


def _spec(module: str) -> Any:
    spec = util.find_spec(module)
    if spec is None:
        raise UnknownPlugin(f"There is no module {module!r}.")
    return spec


shelves: dict[str, Shelf] = {s.name: s for s in (
    Shelf("modalities", "genwright.modalities", "modality"),
    Shelf("sources", "genwright.data.sources", "read"),
    Shelf("refiners", "genwright.data.refiners", "refine"),
    Shelf("tasks", "genwright.tasks", "task"),
    Shelf("engines", "genwright.engines", "load"),
    Shelf("methods", "genwright.tuning.methods", "attach"),
    Shelf("objectives", "genwright.tuning.objectives", "loss"),
    Shelf("regularizers", "genwright.tuning.regularizers", "regularize"),
    Shelf("trackers", "genwright.tuning.trackers", "track"),
    Shelf("metrics", "genwright.judging.metrics", "score"),
    Shelf("guards", "genwright.trust.guards", "check"),
    Shelf("marks", "genwright.trust.marks", "apply"),
    Shelf("formats", "genwright.formats", "export"),
    Shelf("executors", "genwright.executors", "carry_out"),
)}  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """A plugin and its settings, as named in a recipe. Call it to use it: `chosen(x)` is `gives(x, settings)`."""

    shelf: str
    name: str
    settings: Any = field(default_factory=Settings)
    key: str = "name"
    given: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def module(self) -> ModuleType:
        return shelves[self.shelf].load(self.name)

    @property
    def thing(self) -> Any:
        return getattr(self.module, shelves[self.shelf].gives)

    def __call__(self, *args: Any, **more: Any) -> Any:
        return self.thing(*args, self.settings, **more)

    def as_dict(self) -> dict[str, Any]:
        """What a recipe would say: the name and every option that is not at its default."""
        return {self.key: self.name, **self.settings.model_dump(mode="json", exclude_unset=True)}


class PluginProblems(ValueError):
    """Several problems in the settings of one plugin: a list of (path, sentence)."""

    def __init__(self, problems: list[tuple[str, str]]):
        self.problems = problems
        super().__init__("; ".join(f"{path}: {sentence}" for path, sentence in problems))


def choose(shelf: str, given: Any, *, key: str = "name", folder: Path | None = None) -> Chosen:
    """Turn `"lora"` or `{"name": "lora", "rank": 8}` into a checked choice.

    Raises UnknownPlugin or PluginProblems (both ValueErrors, so that a recipe collects them).
    """
    if isinstance(given, Chosen):
        return given
    if not isinstance(given, (str, Mapping)):
        raise ValueError(f"must be a name or a mapping with `{key}`, not {type(given).__name__}")
    options = {key: given} if isinstance(given, str) else dict(given)
    name = options.pop(key, None)
    if not isinstance(name, str):
        raise ValueError(f"needs `{key}`. {did_you_mean('', shelves[shelf])}")
    kind = shelves[shelf].settings(name)
    try:
        settings = kind.model_validate(options, context={"folder": folder})
    except ValidationError as error:
        raise PluginProblems(sentences(error, kind)) from None
    return Chosen(shelf, name, settings, key, options)


def sentences(error: ValidationError, kind: type[BaseModel]) -> list[tuple[str, str]]:
    """A pydantic error as (path, sentence) pairs, with a "did you mean" for unknown keys."""
    problems: list[tuple[str, str]] = []
    for one in error.errors():
        path = ".".join(str(p) for p in one["loc"] if not str(p).startswith("function-"))
        cause = (one.get("ctx") or {}).get("error")
        if isinstance(cause, PluginProblems):
            problems += [(f"{path}.{p}" if p else path, s) for p, s in cause.problems]
        elif one["type"] == "extra_forbidden":
            known = _known_keys(kind, one["loc"][:-1])
            problems.append((path, f"unknown key. {did_you_mean(str(one['loc'][-1]), known)}"))
        elif isinstance(cause, ValueError):
            problems.append((path, str(cause)))
        elif one["type"] == "missing":
            problems.append((path, "is required."))
        else:
            shown = repr(one["input"])
            problems.append((path, f"{one['msg']}, not {shown[:60]}{'…' if len(shown) > 60 else ''}"))
    return problems


def _known_keys(kind: Any, path: tuple[Any, ...]) -> list[str]:
    for step in path:
        fields = getattr(kind, "model_fields", {})
        kind = fields[step].annotation if step in fields else kind  # a key of a mapping, a place in a list
        for candidate in getattr(kind, "__args__", ()):
            if hasattr(candidate, "model_fields"):
                kind = candidate
    return list(getattr(kind, "model_fields", {}))


@dataclass(frozen=True)
class Pick:
    """`method: Annotated[Chosen, Pick("methods")]` is a recipe field that holds one choice."""

    shelf: str
    key: str = "name"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        def check(given: Any, info: core_schema.ValidationInfo) -> Chosen:
            return choose(self.shelf, given, key=self.key, folder=(info.context or {}).get("folder"))

        return core_schema.with_info_plain_validator_function(
            check, serialization=core_schema.plain_serializer_function_ser_schema(Chosen.as_dict)
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """One schema for the editor, the studio's form, the flags and the reference page."""
        names = list(shelves[self.shelf])
        return {"oneOf": [{"enum": names}, *(describe(self.shelf, name, key=self.key) for name in names)]}


def describe(shelf: str, name: str, *, key: str = "name") -> dict[str, Any]:
    """The JSON schema of one plugin: its help, its name, its settings."""
    settings = shelves[shelf].settings(name).model_json_schema()
    settings = _inlined(settings, settings.get("$defs", {}))
    fields = {key: {"const": name}, **settings.get("properties", {})}
    schema = {"title": name, "description": shelves[shelf].help(name), "type": "object", "properties": fields,
              "required": [key, *settings.get("required", [])], "additionalProperties": False}  # fmt: skip
    return schema


def _inlined(schema: Any, named: dict[str, Any]) -> Any:
    """A schema without references, so that it can stand inside another one."""
    if isinstance(schema, list):
        return [_inlined(item, named) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(
            named[schema["$ref"].rsplit("/", 1)[-1]] | {k: v for k, v in schema.items() if k != "$ref"}, named
        )
    return {key: _inlined(value, named) for key, value in schema.items() if key != "$defs"}
