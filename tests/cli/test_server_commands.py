"""Flags and a file become the server's options; slips are told with the place."""

import pytest

from genwright.cli.main import build_parser, main
from genwright.cli.server_commands import _options
from genwright.server.house import Options


def _read(*argv):
    return Options.model_validate(_options(build_parser().parse_args(["serve", *argv])))


def test_flags_win_over_the_file(tmp_path):
    config = tmp_path / "serve.yaml"
    config.write_text(
        "models: [runs/a, {name: far, base_url: 'http://127.0.0.1:1/v1', source: big}]\nport: 9000\nqueue: 5\n"
    )
    options = _read("runs/b", "--config", str(config), "--port", "0", "--alias", "gpt=runs/b", "--memory", "2GB")
    assert [entry.source for entry in options.models] == ["runs/b", "runs/a", "big"]
    assert (options.port, options.queue, options.memory) == (0, 5, 2_000_000_000)
    assert options.aliases == {"gpt": "runs/b"}


@pytest.mark.parametrize(
    ("text", "said"),
    [("prot: 1", "prot"), ("models: 3", "models"), ("- a", "no options"), ("{", "not YAML"), ("port: 70000", "port")],
)
def test_a_slip_in_the_file_is_told(tmp_path, capsys, text, said):
    config = tmp_path / "serve.yaml"
    config.write_text(text)
    assert main(["serve", "--config", str(config)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--memory", "much"], ["--alias", "gpt"], ["--config", "/no/such/file.yaml"]])
def test_a_slip_in_a_flag_is_told(argv, capsys):
    assert main(["serve", *argv]) == 2
    assert "→" in capsys.readouterr().err
