"""Every plugin keeps its shelf's contract. A new file is tested the moment it exists."""

import ast
import doctest
import importlib
import inspect
import warnings

import pytest

from genwright.core import Settings, UnknownPlugin, choose, describe, shelves

EVERY = [(shelf, name) for shelf in shelves for name in shelves[shelf]]
POSITIONS = {  # how many things the agreed function is handed, settings included
    "sources": 1, "refiners": 2, "engines": 2, "methods": 2, "objectives": 3, "regularizers": 3, "trackers": 3,
    "metrics": 2, "guards": 2, "marks": 3, "formats": 3, "executors": 3,
}  # fmt: skip


@pytest.mark.parametrize(("shelf", "name"), EVERY)
def test_plugin_keeps_the_contract(shelf, name):
    module = shelves[shelf].load(name)
    assert shelves[shelf].help(name).endswith("."), "the docstring's first line is the help and ends with a full stop"
    assert hasattr(module, shelves[shelf].gives), f"a file on {shelf} gives `{shelves[shelf].gives}`"
    settings = shelves[shelf].settings(name)
    assert issubclass(settings, Settings)
    undocumented = [key for key, field in settings.model_fields.items() if not field.description]
    assert not undocumented, f"options without a description: {undocumented}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(("shelf", "name"), [(s, n) for s, n in EVERY if s in POSITIONS])
def test_the_agreed_function_takes_what_its_shelf_hands_it(shelf, name):
    signature = inspect.signature(getattr(shelves[shelf].load(name), shelves[shelf].gives))
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(positional) == POSITIONS[shelf]


@pytest.mark.parametrize(("shelf", "name"), [(s, n) for s, n in EVERY if s != "tasks"])
def test_every_option_is_read_by_its_plugin(shelf, name):
    """A setting that is validated, documented and read by nothing is a defect of the field that we do not repeat.

    Options of tasks are read by verbs and engines; tests/test_recipes.py turns them.
    """
    module = shelves[shelf].load(name)
    own = [key for key in shelves[shelf].settings(name).__annotations__ if "Settings" in vars(module)]
    trees = [ast.parse(_source(part)) for part in _with_helpers(module, set())]
    read = {node.attr for tree in trees for node in ast.walk(tree) if _is_a_setting(node)}
    handed_on = "settings.model_dump()" in _source(module)  # whole, to a library that knows the names
    assert handed_on or not [key for key in own if key not in read]


@pytest.mark.parametrize(("shelf", "name"), EVERY)
def test_a_slip_in_an_option_is_an_error(shelf, name):
    required = {key: field for key, field in shelves[shelf].settings(name).model_fields.items() if field.is_required()}
    if required:
        pytest.skip("needs options of its own")
    with pytest.raises(ValueError, match="unknown key"):
        choose(shelf, {"name": name, "no_such_option": 1})
    assert describe(shelf, name)["properties"]["name"] == {"const": name}


def test_there_are_plugins_on_every_shelf_of_text():
    counts = {shelf: len(list(shelves[shelf])) for shelf in shelves}
    assert all(counts[s] for s in shelves), counts
    assert sum(counts.values()) >= 85


@pytest.mark.parametrize("shelf", list(shelves))
def test_a_slip_in_a_name_is_answered_with_a_suggestion(shelf):
    name = max(shelves[shelf], key=len)
    with pytest.raises(UnknownPlugin, match=f"Did you mean '{name}'"):
        shelves[shelf].load(name + "x")


def _source(module):
    try:
        return inspect.getsource(module)
    except OSError:  # an empty file
        return ""


def _is_a_setting(node):
    return isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("settings")


def _with_helpers(module, seen):
    """The plugin and the Genwright helpers that it imports, and theirs."""
    seen.add(module.__name__)
    yield module
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.ImportFrom):
            base = _absolute(node, module)
            for name in (base, *(f"{base}.{one.name}" for one in node.names)):
                helper = _imported(name)
                if helper and helper.__name__ not in seen:
                    yield from _with_helpers(helper, seen)


def _absolute(node, module):
    above = module.__name__.split(".")[: -node.level] if node.level else []
    return ".".join([*above, *([node.module] if node.module else [])])


def _imported(name):
    if not name.startswith("genwright.") or name.startswith("genwright.core"):
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:  # a function or class, not a module
        return None
