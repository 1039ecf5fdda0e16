"""GGUF files answer as the model that was tuned, in every architecture and quantisation that is written."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genwright.core import ModelError, Request, UsageError
from genwright.engines import gguf as engine
from genwright.formats import gguf
from genwright.nn.gguf_header import read_header
from genwright.nn.gguf_writer import requantize

from .tiny import EXAMPLES, tiny_run, tokenizer

FAMILIES = ["llama", "qwen2", "qwen3", "gemma3_text", "gpt2"]


def _export(run: Any, folder: Path, **options: Any) -> Path:
    return next(p for p in gguf.export(run, folder, gguf.Settings(**options)) if p.suffix == ".gguf")


def _open(path: Path, **options: Any) -> engine.GgufModel:
    return engine.load(path, engine.Settings(**{"runner": "llama.cpp", "context": 256, "parallel": 2, **options}))


def _answer(model: Any, messages: Any, **options: Any) -> str:
    return "".join(part.text for part in model.generate(Request(messages=messages, **options)))


def _reference(folder: Path) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


def _told(module: Any, prompt: list[int], count: int) -> str:
    import torch

    with torch.no_grad():
        told = module.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, pad_token_id=0)
    return str(tokenizer().decode(told[0, len(prompt) :], skip_special_tokens=True))


def _nll(module: Any, prompt: list[int], answer: list[int]) -> float:
    import torch

    with torch.no_grad():
        logs = module(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return -sum(float(logs[len(prompt) + i - 1, token]) for i, token in enumerate(answer))


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_exported_model_answers_and_scores_like_the_tuned_one(tmp_path: Path, kind: str) -> None:
    run = tiny_run(tmp_path, kind, teach=True)
    path, reference = _export(run, tmp_path / "out", quantization="f32"), _reference(run.model)
    model = _open(path)
    for example, likelihood in zip(EXAMPLES, model.likelihood(EXAMPLES), strict=True):
        prompt, answer = model.encode(example)
        assert _answer(model, example.prompt, max_new_tokens=40) == _told(reference, prompt, 40)
        assert likelihood.nll == pytest.approx(_nll(reference, prompt, answer), abs=2e-3, rel=5e-4)
    model.close()


def test_template_and_tokens_are_those_of_training(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    model = _open(_export(run, tmp_path / "out"))
    for example in EXAMPLES:
        asked = [m.as_dict() for m in example.prompt]
        wanted = tokenizer().apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        assert model.prompt(example.prompt).ids == wanted
    model.close()


@pytest.mark.parametrize(("quantization", "bound"), [("f16", 0.002), ("bf16", 0.02), ("q8_0", 0.03), ("q5_1", 0.2),
                                                     ("q5_0", 0.2), ("q4_1", 0.4), ("q4_0", 0.5)])  # fmt: skip
def test_quantised_files_stay_near_the_tuned_model(tmp_path: Path, quantization: str, bound: float) -> None:
    """Perplexity within `bound` (relative) and, down to 8 bits, every greedy answer the same."""
    run = tiny_run(tmp_path, teach=True)
    path, reference = _export(run, tmp_path / "out", quantization=quantization), _reference(run.model)
    model = _open(path)
    pairs = [model.encode(example) for example in EXAMPLES]
    tokens = sum(len(answer) for _, answer in pairs)
    wanted = math.exp(sum(_nll(reference, prompt, answer) for prompt, answer in pairs) / tokens)
    found = math.exp(sum(x.nll for x in model.likelihood(EXAMPLES)) / tokens)
    assert abs(found / wanted - 1) < bound
    if quantization in ("f16", "bf16", "q8_0"):
        for example, (prompt, _) in zip(EXAMPLES, pairs, strict=True):
            assert _answer(model, example.prompt, max_new_tokens=40) == _told(reference, prompt, 40)
    model.close()
    assert quantization.upper() in read_header(path).kinds


def test_a_run_with_an_adapter_is_merged_first(tmp_path: Path) -> None:
    from genwright.nn.release import Tuned

    run = tiny_run(tmp_path, adapter=True, teach=True)
    model, reference = _open(_export(run, tmp_path / "out", quantization="f32")), Tuned.of(run).open().module
    prompt, answer = model.encode(EXAMPLES[0])
    assert next(model.likelihood(EXAMPLES[:1])).nll == pytest.approx(_nll(reference, prompt, answer), rel=1e-3)
    model.close()


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "r": 8}])
def test_an_adapter_alone_equals_the_merged_model(tmp_path: Path, options: dict[str, Any]) -> None:
    run = tiny_run(tmp_path, adapter=options or True, teach=True)
    base = tiny_run(tmp_path / "plain", teach=True)
    adapter = _export(run, tmp_path / "adapter", adapter=True)
    assert read_header(adapter).is_adapter
    merged = _open(_export(run, tmp_path / "merged", quantization="f32"))
    path = _export(base, tmp_path / "base", quantization="f32")
    plain, adapted = _open(path), _open(path, adapters=[str(adapter)])
    for m, a, p in zip(*(x.likelihood(EXAMPLES) for x in (merged, adapted, plain)), strict=True):
        assert a.nll == pytest.approx(m.nll, abs=0.01)
        assert abs(a.nll - p.nll) > 1
    for model in (merged, plain, adapted):
        model.close()


def test_what_a_gguf_adapter_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="DoRA"):
        _export(tiny_run(tmp_path / "a", adapter={"use_dora": True}), tmp_path / "out", adapter=True)
    with pytest.raises(ModelError, match="needs a LoRA"):
        _export(tiny_run(tmp_path / "b"), tmp_path / "out", adapter=True)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_tokenizer_that_would_split_differently_is_refused(tmp_path: Path) -> None:
    import json

    run = tiny_run(tmp_path)
    path = run.model / "tokenizer.json"
    data = json.loads(path.read_text())
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Isolated"},
                                                                   data["pre_tokenizer"]]}  # fmt: skip
    path.write_text(json.dumps(data))
    with pytest.raises(ModelError, match="word splitter"):
        _export(run, tmp_path / "out")


def test_the_token_check_notices_a_difference_and_can_be_turned_off(tmp_path: Path, monkeypatch: Any) -> None:
    from genwright.nn import gguf_writer

    run = tiny_run(tmp_path)
    monkeypatch.setattr(gguf_writer, "_pre_tokenizer", lambda data: "qwen2")
    with pytest.raises(ModelError, match="into other tokens"):
        _export(run, tmp_path / "out")
    assert _export(run, tmp_path / "out", check_tokens=False).is_file()


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    import transformers

    run = tiny_run(tmp_path)
    shape = dict(vocab_size=416, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    made = transformers.AutoModelForCausalLM.from_config(transformers.GPTNeoXConfig(**shape))
    made.save_pretrained(run.model)
    with pytest.raises(ModelError, match="gpt_neox"):
        _export(run, tmp_path / "out")


def test_requantising_keeps_tokens_template_and_answers(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, teach=True)
    path = _export(run, tmp_path / "out", quantization="q4_1")
    again = requantize(path, tmp_path / "again.gguf")
    assert set(read_header(again).kinds) == {"F32", "Q8_0"}
    assert read_header(again).chat_template == read_header(path).chat_template
    old, new = _open(path), _open(again)
    assert new.prompt(EXAMPLES[0].prompt) == old.prompt(EXAMPLES[0].prompt)
    for a, b in zip(old.likelihood(EXAMPLES), new.likelihood(EXAMPLES), strict=True):
        assert b.nll == pytest.approx(a.nll, rel=0.1, abs=0.1)
    old.close()
    new.close()


def test_the_folder_carries_card_and_provenance(tmp_path: Path) -> None:
    import json

    run = tiny_run(tmp_path)
    path = _export(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    facts = json.loads((tmp_path / "out" / "genwright.json").read_text())
    assert "artificial intelligence" in card
    for title in ("## Licence", "## Data", "## Scores"):
        assert title in card
    assert facts["files"][path.name] in card
    assert (facts["data"], facts["recipe"]) == ("d" * 64, "e" * 64)
    assert facts["quantization"] == "q8_0"


def test_a_killed_export_leaves_nothing_half_and_a_second_one_works(tmp_path: Path) -> None:
    """kill -9 in the middle of an export over an older one: the old stays whole until the new one is."""
    run = tiny_run(tmp_path)
    out = tmp_path / "out"
    first = _export(run, out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    program = (
        "import sys, time; from pathlib import Path; from genwright.core import Run, Tell\n"
        "from genwright.formats import gguf\n"
        "class Slow(Tell):\n"
        "    def advance(self, amount=1, **facts): print('tick', flush=True); time.sleep(0.05)\n"
        "gguf.export(Run.open(sys.argv[1]), Path(sys.argv[2]), gguf.Settings(quantization='f16'), tell=Slow())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, run.folder, out], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        for _ in range(4):
            assert child.stdout.readline() == "tick\n"
        os.kill(child.pid, signal.SIGKILL)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert list(tmp_path.glob(".out.partial/*.gguf"))  # it was in the middle
    second = _export(run, out, quantization="f16")
    assert second.is_file()
    assert not first.exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 100)
    with pytest.raises(ModelError, match="not a sound GGUF file"):
        _open(path)
    with pytest.raises(UsageError, match="holds 0 GGUF files"):
        (tmp_path / "nothing").mkdir()
        _open(tmp_path / "nothing")
