"""House: what the real server needs to be asked by strangers: a model taught its lessons, one that paints, keys, a
configuration.

    .venv/bin/python tests/clients/house.py FOLDER LESSONS

Runs in the product's own environment; LESSONS are lines of {"body", "answer"} as lessons.py makes them. Writes
FOLDER/serve.yaml for `genwright serve --config`, and FOLDER/keys.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

OWNERS = {"alice": ("user",), "bob": ("user",), "ops": ("user", "admin")}
GENWRIGHT = str(Path(sys.executable).with_name("genwright"))


def main(folder: Path, lessons: Path) -> None:
    source = str(taught(folder, lessons))
    models = [{"name": name, "source": source} for name in ("apprentice", "journeyman")]
    models.append({"name": "painter", "source": str(painter(folder / "painter"))})
    options = {"models": models, "aliases": {"gpt-4o-mini": "apprentice"}, "data": str(folder / "data"), "port": 0}
    (folder / "serve.yaml").write_text(json.dumps(options), encoding="utf-8")  # JSON is YAML
    (folder / "keys.json").write_text(json.dumps(keys(folder / "data")), encoding="utf-8")


def taught(folder: Path, lessons: Path) -> Path:
    """A GGUF file of a small model that has learned the lessons by heart, as a user would have it learn."""
    from genwright.server.conversation import conversation
    from genwright.server.routes.chat import ChatRequest

    rows = []
    for line in lessons.read_text(encoding="utf-8").splitlines():
        lesson = json.loads(line)
        asked = ChatRequest.model_validate(lesson["body"])
        messages = [message.as_dict() for message in conversation(asked.messages, asked.tools_told())]
        rows.append({"messages": [*messages, {"role": "assistant", "content": lesson["answer"]}]})
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    recipe = {
        "name": "apprentice", "data": {"source": "jsonl", "path": str(folder / "rows.jsonl"), "held_out": 0},
        "task": {"name": "chat", "max_length": 1024}, "method": "full",
        "model": {
            "engine": "causal_lm", "tokenizer": {"train": "bpe", "vocab_size": 1200},
            "config": {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                       "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 2048},
        },
        "train": {"rows_per_batch": 4, "epochs": 80, "learning_rate": 4e-3, "dtype": "float32",
                  "checkpoint_every": 1000},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    run = folder / "run"
    told("tune", folder / "recipe.yaml", "--out", run, "--quiet")
    told("export", run, "--format", "gguf", "--out", folder / "gguf", "--quiet")
    return next((folder / "gguf").rglob("*.gguf"))


def painter(folder: Path) -> Path:
    """A run of a tiny picture model with random weights: what it paints is noise, and quickly there."""
    from genwright.core import Recipe, Run
    from genwright.nn.flow import FlowImage
    from genwright.nn.flow_options import FlowConfig

    shape = {"size": 16, "patch": 8, "width": 32, "depth": 1, "heads": 2, "text_encoder": "learned", "words": 256}
    recipe = Recipe.from_dict({
        "name": "painter", "data": {"source": "image_folder", "path": str(folder)}, "method": "full",
        "task": {"name": "text_to_image", "options": {"steps": 2}}, "model": {"config": shape},
    })  # fmt: skip
    run = Run.create(recipe, folder)
    FlowImage(FlowConfig.model_validate(shape)).save(run.model)
    return run.folder


def told(*arguments: str | Path) -> None:
    subprocess.run([GENWRIGHT, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def keys(data: Path) -> dict[str, str]:
    from genwright.server.house import Options
    from genwright.server.keys import Keys
    from genwright.server.store import Store

    data.mkdir()
    store = Store(Options(data=data).url)
    made = {owner: Keys(store, data).create(owner, roles=roles)[1] for owner, roles in OWNERS.items()}
    store.close()
    return made


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
