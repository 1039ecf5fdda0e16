"""The house rules, checked by reading the code: who imports whom, what is light, what is forbidden."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import genwright

ROOT = Path(genwright.__file__).parent
SHELF_ROOMS = {
    "data",
    "tasks",
    "tuning",
    "engines",
    "judging",
    "formats",
    "modalities",
    "apps",
    "executors",
    "knowledge",
}
MAY_IMPORT = {
    "core": set(),
    "nn": {"core", "media"},
    "media": {"core"},
    "trust": {"core", "media"},
    "verbs": {"core", "nn", "media", "trust", "executors"},
    "server": {"core", "verbs"},
    "cli": {"core", "verbs", "trust", "server"},
    "api": {"core", "verbs"},
    "__init__": {"core", "verbs", "api"},
    "__main__": {"cli"},
} | {room: {"core", "nn", "media"} for room in SHELF_ROOMS}
HEAVY = {"torch", "transformers", "peft", "fastapi", "uvicorn", "optuna", "numpy", "pyarrow", "sacrebleu", "matplotlib"}
FILES = sorted(ROOT.rglob("*.py"))


def imports_of(path):
    """Absolute names of what a file imports, with whether it is at the top of the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ("genwright", *path.relative_to(ROOT).parts[:-1])
    lazy = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    typing_only = {
        id(n)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.unparse(test.test)
        for n in ast.walk(test)
    }
    for node in ast.walk(tree):
        at_top = id(node) not in lazy and id(node) not in typing_only
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield module, at_top
            yield from ((f"{module}.{alias.name}", at_top) for alias in node.names)


def test_rooms_import_downwards_only():
    wrong = []
    for path in FILES:
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for name, _ in imports_of(path):
            parts = name.split(".")
            if parts[0] != "genwright" or len(parts) < 2 or parts[1] == room:
                continue
            if (ROOT / parts[1]).is_dir() and parts[1] not in MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports genwright.{parts[1]}")
    assert not wrong, "\n".join(wrong)


def test_shelf_files_do_not_know_each_other():
    """A plugin may use a helper that stands above its shelf (judging/intervals.py), never a neighbour."""
    from genwright.core import shelves

    wrong = []
    for shelf in shelves.values():
        folder = ROOT.joinpath(*shelf.package.split(".")[1:])
        for path in folder.glob("*.py"):
            for name, _ in imports_of(path):
                for other in shelves.values():
                    if name.startswith(other.package + ".") and name.split(".")[-1] != path.stem:
                        wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ["core", "verbs", "cli", "trust"])
def test_the_floor_hall_and_doors_load_nothing_heavy_at_their_top(room):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / room).rglob("*.py")
        for name, at_top in imports_of(path)
        if at_top and name.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_every_plugin_loads_nothing_heavy():
    code = (
        "import sys\nfrom genwright.core import shelves\n"
        "[shelf.load(name) for shelf in shelves.values() for name in shelf]\n"
        f"print(sorted(set({sorted(HEAVY - {'numpy'})!r}) & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_importing_the_package_is_light():
    heavy = sorted(HEAVY | {"pydantic", "rich"})
    code = f"import genwright, genwright.cli.main, sys; print(sorted(set({heavy!r}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_nothing_reads_pickles_or_runs_remote_code():
    """R24, R25: no pickle, no torch.load, no yaml.load; trust_remote_code is never true."""
    wrong = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.keyword) else ""
            if text in ("torch.load", "yaml.load", "yaml.unsafe_load"):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {text}")
            unsafe = isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle")
            if unsafe and ast.unparse(node.value) != "False":
                wrong.append(f"{path.relative_to(ROOT)}:{node.value.lineno} {text}")
        for name, _ in imports_of(path):
            if name.split(".")[0] in ("pickle", "cPickle", "dill", "joblib", "cloudpickle"):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_nobody_but_a_door_catches_everything():
    wrong = []
    for path in FILES:
        if path.relative_to(ROOT).parts[0] in ("cli", "server"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                names = ast.unparse(node.type) if node.type else "everything"
                passed_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None  # only cleans up
                if names in ("everything", "Exception", "BaseException") and not passed_on:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} catches {names}")
    assert not wrong, "\n".join(wrong)


def test_every_file_says_what_it_is_for():
    silent = [
        str(path.relative_to(ROOT))
        for path in FILES
        if path.read_text(encoding="utf-8").strip()
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent, f"no docstring: {silent}"


def test_every_public_function_and_class_is_documented_or_plain():
    """Public functions of more than six lines and public classes outside shelves carry a docstring."""
    silent = []
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            long = (node.end_lineno or 0) - node.lineno > 6
            if long and not ast.get_docstring(node) and node.name != "Settings" and path.parent.name != "cli":
                silent.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not silent, "\n".join(silent)


def test_the_repository_names_no_machine_of_ours():
    top = ROOT.parent
    if not (top / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=top, capture_output=True, text=True, check=True).stdout.split("\n")
    wrong = []
    for name in listed:
        path = top / name
        if (
            path.suffix in (".py", ".md", ".yaml", ".toml", ".sh", "")
            and path.is_file()
            and path.stat().st_size < 500_000
        ):
            text = path.read_text(encoding="utf-8", errors="ignore")
            wrong += [f"{name}: {word}" for word in ("/wo" + "rk/", "../sha" + "red", "/ro" + "ot/") if word in text]
    assert not wrong, "\n".join(wrong)
