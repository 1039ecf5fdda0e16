"""Models over HTTP: the list, adapters that come and go, tokens, and what operators may do; on tiny real models."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import openai
import pytest

from genwright.server.house import Options
from genwright.server.keys import Keys
from genwright.server.store import Store
from tests.formats.tiny import SENTENCES, tiny_run, tokenizer

from .crew import whole_server
from .household import client


class Place:
    """Where the models lie: a GGUF file, and LoRA adapters that were made for it, one in PEFT's layout, one in GGUF."""

    def __init__(self, folder: Path):
        from genwright.formats import gguf

        self.folder = folder
        one, two = (tiny_run(folder / name, adapter={"r": r}, teach=True) for name, r in (("one", 4), ("two", 8)))
        made = gguf.export(two, folder / "two-lora", gguf.Settings(adapter=True))
        self.adapters = [one.model, next(path for path in made if path.suffix == ".gguf")]
        base = tiny_run(folder / "base", teach=True)
        made = gguf.export(base, folder / "out", gguf.Settings(quantization="f32"))
        self.base = next(path for path in made if path.suffix == ".gguf")

    def options(self, **more: Any) -> Options:
        entry: Any = {"name": "base", "source": str(self.base),
                      "engine": {"runner": "llama.cpp", "context": 256, "parallel": 2}}  # fmt: skip
        return Options(**{"models": [entry], "data": self.folder / "data", "aliases": {"gpt-4o-mini": "base"}} | more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: Any) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENWRIGHT_HOME", str(folder / "home"))
        yield Place(folder)


@pytest.fixture(scope="module")
def served(place: Place) -> Iterator[str]:
    with whole_server(place.options()) as (address, _):
        yield address


def _call(address: str, verb: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
    """(status, JSON or text) of a request."""
    head = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address.removesuffix("/v1") + path, data, head, method=verb)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            said, status = response.read(), response.status
    except HTTPError as error:
        with error:
            said, status = error.read(), error.code
    try:
        return status, json.loads(said)
    except ValueError:
        return status, said.decode()


def _said(asking: Any, model: str, text: str = SENTENCES[0]) -> str:
    asked = [{"role": "user", "content": text}]
    found = asking.chat.completions.create(model=model, messages=asked, max_tokens=30, temperature=0)
    return str(found.choices[0].message.content)


def test_the_official_client_lists_and_retrieves(served: str) -> None:
    with client(served) as asking:
        assert [model.id for model in asking.models.list()] == ["base", "universal-sentence-encoder"]
        assert asking.models.retrieve("gpt-4o-mini").id == "base"
        assert asking.models.retrieve("base").max_model_len == 256
        with pytest.raises(openai.NotFoundError) as error:
            asking.models.retrieve("bass")
        assert error.value.code == "model_not_found"
        assert "Did you mean 'base'" in str(error.value)
        with pytest.raises(openai.PermissionDeniedError):
            asking.models.delete("base")
        assert _said(asking, "gpt-4o-mini") == SENTENCES[1][: len(_said(asking, "base"))]


def test_adapters_come_live_share_a_process_survive_a_restart_and_go(place: Place) -> None:
    """Two adapters of one base answer each in its own way, the same before and after, in one worker."""
    names = [f"ft:base:me:{number}" for number in (1, 2)]
    options = place.options(data=place.folder / "adapters-data")
    with whole_server(options) as (address, house), client(address) as asking:
        before = _said(asking, "base")
        for name, adapter in zip(names, place.adapters, strict=True):
            body = {"lora_name": name, "lora_path": str(adapter)}
            assert _call(address, "POST", "/v1/load_lora_adapter", body) == (
                200, f"Success: LoRA adapter '{name}' added successfully.",
            )  # fmt: skip
        said = [_said(asking, name) for name in names]
        assert len({before, *said}) == 3
        assert [_said(asking, name) for name in reversed(names)] == said[::-1]
        assert _said(asking, "base") == before
        worn = [seat for seat in house.fleet.seats.values() if seat.wears]
        assert [seat.link.voices for seat in worn] == [set(names)]
        listed = {model.id: model for model in asking.models.list()}
        assert [listed[name].parent for name in names] == ["base", "base"]
        assert _call(address, "POST", "/v1/load_lora_adapter", body)[0] == 400  # there already
    with whole_server(options) as (address, house), client(address) as asking:
        assert [_said(asking, name) for name in names] == said
        assert asking.models.delete(names[0]).deleted
        assert _said(asking, names[1]) == said[1]
        with pytest.raises(openai.NotFoundError):
            _said(asking, names[0])
        assert len(list((options.data / "adapters").glob("*.gguf"))) == 1
        status, told = _call(address, "POST", "/v1/unload_lora_adapter", {"lora_name": names[1]})
        assert (status, told) == (200, f"Success: LoRA adapter '{names[1]}' removed successfully.")
        assert _call(address, "POST", "/v1/unload_lora_adapter", {"lora_name": names[1]})[0] == 404
        assert not [seat for seat in house.fleet.seats.values() if seat.wears]


def test_an_adapter_that_is_none_is_refused_and_changes_nothing(place: Place, served: str, tmp_path: Path) -> None:
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "adapter_config.json").write_text("{}")
    (tmp_path / "pickled" / "adapter_model.bin").write_bytes(b"x" * 100)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    for path, sentence, wanted in (
        (tmp_path / "pickled", "pickle", 400), (tmp_path / "broken.gguf", "broken", 400),
        (tmp_path / "nothing", "no file", 400), (place.base, "is not an adapter", 503),  # found when it is loaded
    ):  # fmt: skip
        body = {"lora_name": "bad", "lora_path": str(path)}
        status, said = _call(served, "POST", "/v1/load_lora_adapter", body)
        assert (status, set(said["error"])) == (wanted, {"message", "type", "param", "code"})
        assert sentence in said["error"]["message"]
    assert _call(served, "POST", "/v1/load_lora_adapter", {"lora_name": "a b", "lora_path": "x"})[0] == 400
    listed = _call(served, "GET", "/v1/models")[1]["data"]
    assert [model["id"] for model in listed] == ["base", "universal-sentence-encoder"]


def test_tokens_go_there_and_back(served: str) -> None:
    text = "The ferry leaves at seven. 你好 <|im_end|>"
    wanted = tokenizer()(text, add_special_tokens=False).input_ids
    status, found = _call(served, "POST", "/tokenize", {"prompt": text, "return_token_strs": True,
                                                        "add_special_tokens": False})  # fmt: skip
    assert (status, found["tokens"], found["count"], found["max_model_len"]) == (200, wanted, len(wanted), 256)
    assert found["token_strs"][:2] == [tokenizer().decode([token]) for token in wanted[:2]]
    assert _call(served, "POST", "/detokenize", {"tokens": wanted, "model": "base"}) == (200, {"prompt": text})
    chat = [{"role": "user", "content": "hi"}]
    found = _call(served, "POST", "/tokenize", {"messages": chat})[1]
    rendered = tokenizer().apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert found["tokens"] == rendered
    info = _call(served, "GET", "/tokenizer_info")[1]
    assert info["chat_template"] == tokenizer().chat_template
    assert info["eos_token"] == "<|im_end|>"
    assert _call(served, "POST", "/tokenize", {"prompt": "a", "messages": chat})[0] == 400
    assert _call(served, "POST", "/tokenize", {"prompt": "a", "model": "nothing"})[0] == 404
    assert _call(served, "POST", "/detokenize", {"tokens": [-1]})[0] == 400
    assert _call(served, "POST", "/detokenize", {"tokens": [10_000_000]})[0] == 400


def test_a_prompt_beyond_the_context_is_a_400_that_says_so(served: str) -> None:
    with client(served) as asking:
        for options in ({"text": "bread " * 300}, {}):
            more = {} if options else {"max_tokens": 257}
            asked = [{"role": "user", "content": options.get("text", "hi")}]
            with pytest.raises(openai.BadRequestError) as error:
                asking.chat.completions.create(model="base", messages=asked, **more)
            assert error.value.code == "context_length_exceeded"
            assert "256" in str(error.value)
        assert _said(asking, "base")


def test_operators_load_pin_unload_and_see(served: str) -> None:
    status, found = _call(served, "POST", "/admin/load", {"model": "base"})
    assert (status, found["state"], found["models"], found["context"]) == (200, "loaded", ["base"], 256)
    assert found["bytes"] > 10_000_000
    assert _call(served, "POST", "/admin/pin", {"model": "base"})[1]["pinned"] is True
    assert _call(served, "POST", "/admin/pin", {"model": "base", "pinned": False})[1]["pinned"] is False
    assert _call(served, "POST", "/admin/reload", {"model": "base"})[1]["pid"] != found["pid"]
    assert _call(served, "POST", "/admin/unload", {"model": "base"})[1]["state"] == "unloaded"
    status, listed = _call(served, "GET", "/admin/ps")
    assert (status, [one["state"] for one in listed["data"]]) == (200, ["unloaded"])
    assert listed["budget"] > 0
    assert _call(served, "POST", "/admin/load", {"model": "nothing"})[0] == 404
    with client(served) as asking:
        assert _said(asking, "base")  # it comes back when it is asked


def _children(pid: int) -> list[int]:
    found = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for child in found.split()]


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text()


def test_worker_and_runner_live_and_die_together(served: str) -> None:
    """Whichever of the two is killed, the other goes too, and both are there again."""
    with client(served) as asking:
        said = _said(asking, "base")
        for victim in ("worker", "runner"):
            worker = _call(served, "POST", "/admin/load", {"model": "base"})[1]["pid"]
            (runner,) = _children(worker)
            os.kill(worker if victim == "worker" else runner, signal.SIGKILL)
            end = time.monotonic() + 10
            while time.monotonic() < end and not (_gone(worker) and _gone(runner)):
                time.sleep(0.02)
            assert _gone(worker)
            assert _gone(runner)
            while _call(served, "GET", "/admin/ps")[1]["data"][0]["pid"] in (None, worker):
                assert time.monotonic() < end
                time.sleep(0.02)
            assert _said(asking, "base") == said


def test_only_admins_may_touch_the_fleet(place: Place, tmp_path: Path) -> None:
    options = place.options(data=tmp_path / "data", models=[], embedder="")
    keys = Keys(Store(options.url), options.data)
    user, admin = keys.create("ann")[1], keys.create("root", roles=("user", "admin"))[1]
    body = {"model": "base", "lora_name": "x", "lora_path": "y"}
    with whole_server(options) as (address, _):
        for verb, path in (("GET", "/admin/ps"), ("POST", "/admin/load"), ("POST", "/admin/unload"),
                           ("POST", "/admin/reload"), ("POST", "/admin/pin"), ("POST", "/v1/load_lora_adapter"),
                           ("POST", "/v1/unload_lora_adapter")):  # fmt: skip
            assert _call(address, verb, path, body)[0] == 401
            assert _call(address, verb, path, body, user)[0] == 403
        assert _call(address, "GET", "/admin/ps", key=admin)[0] == 200
        assert _call(address, "GET", "/v1/models", key=user) == (200, {"object": "list", "data": []})


def test_the_command_line_sees_loads_and_unloads(served: str, capsys: Any) -> None:
    from argparse import Namespace

    from genwright.cli import fleet_commands
    from genwright.cli.render import Screen
    from genwright.core import ModelError, UsageError

    at = {"url": served.removesuffix("/v1")}
    screen = Screen(quiet=True)
    assert fleet_commands.load(Namespace(model="base", pin=True, **at), screen)["pinned"] is True
    assert fleet_commands.ps(Namespace(**at), screen)["data"][0]["state"] == "loaded"
    assert fleet_commands.unload(Namespace(model="base", **at), screen)["state"] == "unloaded"
    said = capsys.readouterr().out
    assert "base is in memory (" in said
    assert "never (pinned)" in said
    assert "LlamaCpp" in said
    with pytest.raises(UsageError, match="There is no model 'nothing' here"):
        fleet_commands.load(Namespace(model="nothing", pin=False, **at), screen)
    with pytest.raises(ModelError, match="No Genwright server answers"):
        fleet_commands.ps(Namespace(url="http://127.0.0.1:9"), screen)
