"""Pictures by tokens through the hall: a recipe from rows to a judged model, whose report names what counting tells."""

import json

import genwright as gw
from genwright.core import Recipe
from genwright.verbs.ask import open_answerer
from tests.nn.shapes import rows
from tests.nn.test_dalle import CONFIG


def test_a_recipe_goes_from_rows_to_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    lines = [
        {"prompt": row.prompt[0].text, "image": str(row.answer.parts[0].path), "style": row.meta["style"],
         "concept": row.meta["concept"]}
        for row in rows(tmp_path / "p")
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    recipe = {
        "data": {"source": "jsonl", "path": str(tmp_path / "rows.jsonl"), "held_out": 0.2},
        "task": {"name": "text_to_image", "options": {"candidates": 2}},
        "model": {"engine": "vq_image", "config": {**CONFIG, "levels": [4, 4, 4]}},
        "method": "full",
        "train": {"rows_per_batch": 8, "tokens_per_pass": 128, "max_steps": 30, "learning_rate": 4e-3, "threads": 1,
                  "dtype": "float32"},
        "evaluate": {"max_rows": 2, "samples": 2, "bootstrap": 20},
    }  # fmt: skip
    run = gw.run(Recipe.from_dict(recipe), tmp_path / "run")
    (row,) = json.loads(run.report_file.read_text())["rows"]
    assert row["metric"] == "image_tokens", "the engine's own metric and objective"
    assert row["tuned"]["value"] < 6, "bits of one of 64"
    assert {"order 0", "order 1", "untold", "bits/dim", "PSNR", "codes"} <= set(row["tuned"]["details"])
    assert "order 1" in (run.folder / "report.md").read_text()
    assert "order 1" in (run.folder / "report.html").read_text()
    answerer = open_answerer(run)
    (part,) = (p for p in answerer.ask("a red circle", seed=1, out=tmp_path / "a.png") if p.path)
    answerer.close()
    assert part.meta["score"], "the task's own candidates"
    assert (tmp_path / "a.png").is_file()
