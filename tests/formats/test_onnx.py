"""ONNX graphs compute what the tuned model computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genwright.core import ModelError
from genwright.formats import onnx

from .tiny import tiny_run, tokenizer

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_a_tuned_adapter_becomes_a_graph_with_the_same_logits(tmp_path: Path, monkeypatch: Any) -> None:
    import shutil

    import onnx as library
    import onnxruntime
    import torch

    from genwright.nn.release import Tuned

    run = tiny_run(tmp_path, adapter=True)
    files = onnx.export(run, tmp_path / "out", onnx.Settings(prompts=2, opset=18))
    assert {p.name for p in files} >= {"model.onnx", "tokenizer.json", "README.md", "genwright.json"}
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    module = Tuned.of(run).merged().module
    for batch, text in ((1, "The ferry"), (3, "Ask the captain before you climb the tower.")):
        tokens = torch.tensor([tokenizer()(text).input_ids] * batch)
        with torch.no_grad():
            wanted = module(input_ids=tokens).logits.numpy()
        given = {"input_ids": tokens.numpy(), "attention_mask": torch.ones_like(tokens).numpy()}
        assert abs(session.run(None, given)[0] - wanted).max() < 1e-3
    facts = json.loads((tmp_path / "out" / "genwright.json").read_text())
    assert "on 2 rows" in (tmp_path / "out" / "README.md").read_text()
    assert 0 < facts["largest_logit_difference"] < 1e-3
    assert "model.onnx" in facts["files"]
    graph = library.load(tmp_path / "out" / "model.onnx", load_external_data=False)
    assert {one.domain: one.version for one in graph.opset_import}[""] == 18
    monkeypatch.setattr(onnx, "_trace", lambda module, path, opset: shutil.copy(tmp_path / "out" / "model.onnx", path))
    with pytest.raises(ModelError, match="answers differently"):
        onnx.export(run, tmp_path / "other", onnx.Settings(max_difference=1e-12))
    assert not (tmp_path / "other").exists()
