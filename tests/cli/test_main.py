"""The command line: quick, clear, and speaking JSON when asked."""

import json
import resource
import subprocess
import sys

import pytest

from genwright.cli.main import build_parser, main


def commands():
    """Every command with its subcommands, as argument lists."""
    (verbs,) = [a for a in build_parser()._actions if hasattr(a, "choices") and isinstance(a.choices, dict)]
    for name, parser in verbs.choices.items():
        inner = [a for a in parser._actions if hasattr(a, "choices") and isinstance(a.choices, dict)]
        yield from ([name, sub] for sub in inner[0].choices) if inner else [[name]]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_has_help_and_json(words, capsys):
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "--json" in out


def test_help_is_quick():
    times = []  # processor seconds: what a quiet machine would take, whatever else runs here
    for _ in range(3):
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "genwright", "--help"], check=True, capture_output=True)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
    assert min(times) < 0.3


def test_an_error_is_a_sentence_a_hint_and_a_code(capsys, tmp_path):
    assert main(["run", str(tmp_path / "no.yaml")]) == 2
    err = capsys.readouterr().err
    assert "no.yaml" in err
    assert "→" in err


def test_an_error_is_json_when_asked(capsys, tmp_path):
    assert main(["recipe", "check", "--json", str(tmp_path / "no.yaml")]) == 2
    assert json.loads(capsys.readouterr().out)["error"] == "RecipeError"


@pytest.mark.parametrize(
    "words",
    [["plugins"], ["plugins", "metrics"], ["plugins", "methods", "lora"], ["models", "list"], ["doctor"],
     ["recipe", "schema"], ["recipe", "explain", "train.epochs"]],
    ids=" ".join,
)  # fmt: skip
def test_looking_around_works_and_speaks_json(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out.strip()
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_colours_are_left_out_where_they_are_not_wanted(tmp_path):
    import os

    env = os.environ | {"NO_COLOR": "1", "TERM": "xterm-256color"}
    out = subprocess.run([sys.executable, "-m", "genwright", "plugins"], capture_output=True, env=env).stdout
    assert b"\x1b[3" not in out


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m genwright plugins | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
