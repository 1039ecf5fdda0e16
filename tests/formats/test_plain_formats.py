"""Formats in Hugging Face's layout: safetensors, adapter, merged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genwright.core import ModelError, Run, Tell, UsageError
from genwright.formats import adapter, merged, safetensors
from genwright.nn.pretrained import quiet
from genwright.nn.weights import check_model_folder, sha256_of

from .tiny import EXAMPLES, SENTENCES, tiny_run, tokenizer


def _logits(module: Any) -> Any:
    import torch

    with torch.no_grad():
        return module(torch.tensor([tokenizer()(SENTENCES[0]).input_ids])).logits


def _open(folder: Path) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


def test_safetensors_are_the_tuned_weights_byte_for_byte(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    files = safetensors.export(run, tmp_path / "out", safetensors.Settings())
    assert {p.name for p in files} >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "README.md",
        "genwright.json",
    }
    assert sha256_of(tmp_path / "out" / "model.safetensors") == sha256_of(run.model / "model.safetensors")
    check_model_folder(tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "genwright.json").read_text())
    assert facts["files"]["model.safetensors"] == sha256_of(tmp_path / "out" / "model.safetensors")
    assert facts["ai_generated"] is True


def test_the_template_travels(tmp_path: Path) -> None:
    import transformers

    run = tiny_run(tmp_path)
    safetensors.export(run, tmp_path / "out", safetensors.Settings())
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    asked = [m.as_dict() for m in EXAMPLES[0].messages]
    assert found.apply_chat_template(asked, return_dict=False) == tokenizer().apply_chat_template(
        asked, return_dict=False
    )


def test_each_format_says_which_other_one_fits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="learned an adapter") as error:
        safetensors.export(tiny_run(tmp_path / "a", adapter=True), tmp_path / "out", safetensors.Settings())
    assert "merged" in error.value.hint
    with pytest.raises(UsageError, match="has no adapter"):
        adapter.export(tiny_run(tmp_path / "b"), tmp_path / "out", adapter.Settings())
    run = Run.open(tmp_path / "b" / "run")
    (run.model / "genwright.json").unlink()
    with pytest.raises(UsageError, match="no tuned model yet"):
        merged.export(run, tmp_path / "out", merged.Settings())
    assert not (tmp_path / "out").exists()


def test_an_adapter_loads_with_peft_and_names_its_base(tmp_path: Path) -> None:
    import peft
    import torch

    run = tiny_run(tmp_path, adapter=True)
    adapter.export(run, tmp_path / "out", adapter.Settings())
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-base"
    base = _open(tmp_path / "base")
    plain = _logits(base)
    with quiet():
        adapted = peft.PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
    assert not torch.allclose(_logits(adapted), plain, atol=0.1)
    adapter.export(run, tmp_path / "out", adapter.Settings(base="org/name"))
    assert "org/name" in (tmp_path / "out" / "adapter_config.json").read_text()


class _Notes(Tell):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_merged_answers_like_base_with_adapter_and_says_how_near(tmp_path: Path) -> None:
    from genwright.nn.release import Tuned

    run, tell = tiny_run(tmp_path, adapter=True), _Notes()
    merged.export(run, tmp_path / "out", merged.Settings(), tell=tell)
    difference = float((_logits(Tuned.of(run).open().module) - _logits(_open(tmp_path / "out"))).abs().max())
    facts = json.loads((tmp_path / "out" / "genwright.json").read_text())
    assert difference < 1e-3
    assert 0 < facts["largest_logit_difference"] < 1e-3
    assert "Largest logit difference" in tell.notes[-1]
    assert "Largest logit difference" in (tmp_path / "out" / "README.md").read_text()
    assert next(run.events("merged"))["largest_logit_difference"] == facts["largest_logit_difference"]


def test_a_merge_that_differs_too_much_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, adapter=True)
    with pytest.raises(ModelError, match="answers differently"):
        merged.export(run, tmp_path / "out", merged.Settings(dtype="bfloat16", max_difference=1e-4))
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_half_precision_is_bounded_more_widely_and_prompts_are_counted(tmp_path: Path) -> None:
    import torch

    run, tell = tiny_run(tmp_path, adapter=True), _Notes()
    merged.export(run, tmp_path / "out", merged.Settings(dtype="bfloat16", prompts=2, max_difference=2.0), tell=tell)
    assert "on 2 held-out rows" in tell.notes[-1]
    assert _open(tmp_path / "out").dtype == torch.bfloat16


def test_virtual_tokens_cannot_be_merged(tmp_path: Path) -> None:
    import peft

    run = tiny_run(tmp_path)
    base = _open(tmp_path / "base")
    with quiet():
        prefixed = peft.get_peft_model(base, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
        (run.model / "model.safetensors").unlink()
        (run.model / "config.json").unlink()
        prefixed.save_pretrained(run.model)
    with pytest.raises(UsageError, match="cannot be merged"):
        merged.export(run, tmp_path / "out", merged.Settings())


def test_exports_killed_at_any_moment_leave_nothing_half(tmp_path: Path) -> None:
    """kill -9 after each copied file: the folder is absent or whole, and the next export sweeps up."""
    run, out = tiny_run(tmp_path), tmp_path / "out"
    program = (
        "import sys, time; from pathlib import Path; from genwright.core import Run, Tell\n"
        "from genwright.formats import safetensors\n"
        "class Slow(Tell):\n"
        "    def advance(self, amount=1, **facts): print('tick', flush=True); time.sleep(0.1)\n"
        "safetensors.export(Run.open(sys.argv[1]), Path(sys.argv[2]), safetensors.Settings(), tell=Slow())\n"
    )
    for ticks in (1, 3, 5):
        with subprocess.Popen(
            [sys.executable, "-c", program, run.folder, out], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout
            for _ in range(ticks):
                assert child.stdout.readline() == "tick\n"
            os.kill(child.pid, signal.SIGKILL)
        assert not out.exists()
        assert (tmp_path / ".out.partial").is_dir()
    safetensors.export(run, out, safetensors.Settings())
    check_model_folder(out)
    assert not list(tmp_path.glob(".out*"))


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    from genwright.nn.release import whole_folder

    old = tmp_path / ".out.old"
    old.mkdir()
    (old / "weights").write_text("precious")
    with pytest.raises(ValueError, match="stop"), whole_folder(tmp_path / "out"):
        raise ValueError("stop")
    assert (tmp_path / "out" / "weights").read_text() == "precious"


def test_the_card_shows_scores_licence_and_data(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    facts = json.loads((run.model / "genwright.json").read_text())
    facts["base"]["source"] = "smollm2-135m-instruct"
    (run.model / "genwright.json").write_text(json.dumps(facts))
    row = {"metric": "chrf", "base": {"value": 30.5, "low": 29.0, "high": 32.0}, "tuned": {"value": 44.25},
           "difference": {"value": 13.75, "low": 10.0, "high": 17.0}}  # fmt: skip
    run.report_file.write_text(json.dumps({"rows": [row]}))
    (run.data / "report.json").write_text(
        json.dumps(
            {
                "rows_read": 1200,
                "train": {"rows": 1000, "sha256": "a" * 64},
                "held_out": {"rows": 100, "sha256": "b" * 64},
                "refiners": [{"name": "dedupe", "rows_in": 1200, "rows_out": 1100}],
            }
        )
    )
    safetensors.export(run, tmp_path / "out", safetensors.Settings())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| chrf | 30.500 (29.000 … 32.000) | 44.250 | 13.750 (10.000 … 17.000) |" in card
    for line in ("1,200 rows read", f"trained on 1,000 rows, sha256 `{'a' * 64}`", "refined by dedupe: 1,200 → 1,100"):
        assert line in card
    assert "license: apache-2.0" in card
