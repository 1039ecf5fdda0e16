"""Every plugin keeps its shelf's contract. A new file is tested the moment it exists."""

import ast
import doctest
import inspect
import warnings

import pytest

from genwright.core import Settings, UnknownPlugin, choose, describe, shelves

EVERY = [(shelf, name) for shelf in shelves for name in shelves[shelf]]
POSITIONS = {  # how many things the agreed function is handed, settings included
    "sources": 1, "refiners": 2, "engines": 2, "methods": 2, "objectives": 3, "regularizers": 3, "trackers": 3,
    "metrics": 2, "guards": 2, "marks": 3, "formats": 3,
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


@pytest.mark.parametrize(("shelf", "name"), EVERY)
def test_every_option_is_read_by_its_plugin(shelf, name):
    """A setting that is validated, documented and read by nothing is a defect of the field that we do not repeat."""
    module = shelves[shelf].load(name)
    own = [k for k in shelves[shelf].settings(name).__annotations__ if "Settings" in vars(module)]
    text = "\n".join(_source(part) for part in _with_helpers(module))
    read = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
    whole = "model_dump" in read or "settings)" in text
    assert whole or not [key for key in own if key not in read and shelf != "tasks"]


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
    return inspect.getsource(module) + "\n"


def _with_helpers(module):
    """The plugin and the Genwright helpers that it hands its settings to."""
    import importlib

    yield module
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith("genwright.")
            and node.module != "genwright.core"
        ):
            yield importlib.import_module(node.module)
