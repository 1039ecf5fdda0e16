"""The documents are true: the reference is fresh, README's commands exist, both languages tell the same."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from genwright.cli.main import build_parser
from genwright.cli.reference import reference

TOP = Path(__file__).parent.parent
READMES = [TOP / "README.md", TOP / "README.zh-CN.md"]


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.S)


def test_the_reference_is_a_fresh_copy_of_the_code():
    assert (TOP / "docs/reference.md").read_text(encoding="utf-8") == reference(), (
        "python -m genwright.cli.reference docs/reference.md"
    )


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_every_command_in_a_readme_is_one(path):
    """Each `genwright …` line parses; each `make …` target exists; each file named is there."""
    makefile = (TOP / "Makefile").read_text()
    found = 0
    for block in blocks(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["make"]:
                assert re.search(rf"^{words[1]}:", makefile, re.M), line
                found += 1
            elif words[:1] == ["genwright"]:
                build_parser().parse_args(words[1:])
                found += 1
                assert all((TOP / word).exists() for word in words if word.startswith("recipes/")), line
    assert found >= 6


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_every_python_block_of_a_readme_compiles_and_names_what_exists(path):
    import genwright as gw

    for block in blocks(path, "python"):
        compile(block, str(path), "exec")
        for name in re.findall(r"\bgw\.(\w+)", block):
            assert hasattr(gw, name), name


@pytest.mark.parametrize("path", READMES, ids=lambda p: p.name)
def test_every_recipe_block_of_a_readme_is_right(path):
    import yaml

    from genwright.core import Recipe

    for block in blocks(path, "yaml"):
        Recipe.from_dict(yaml.safe_load(block))


def test_both_languages_show_the_same_blocks():
    english, chinese = READMES
    for language in ("sh", "python", "yaml"):
        strip = [re.sub(r"#.*", "", "".join(blocks(path, language))) for path in (english, chinese)]
        assert strip[0].split() == strip[1].split(), language


@pytest.mark.parametrize(
    "path", [*READMES, *sorted((TOP / "docs").rglob("*.md")), TOP / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_links_and_named_files_exist(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).exists(), target
    for program in re.findall(r"`?(benchmarks/[\w/]+\.py)", text):
        assert (TOP / program).exists(), program


@pytest.mark.parametrize("path", sorted((TOP / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(path, tmp_path):
    done = subprocess.run([sys.executable, str(path), "--small"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
