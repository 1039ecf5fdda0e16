"""What these programs share: a small tuning through the real product, on real words, in a child that can be killed."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODELS = {
    "lora": {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 256},
    "full": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 256},
}  # fmt: skip


@dataclass
class Prepared:
    train: Any
    held_out: Any


def make_recipe(method: str, seed: int, **train: Any) -> Any:
    """LoRA on a small Llama, or all weights of a small GPT-2, both random; dropout so that random numbers matter. Or
    `pictures`: a small flow_image, with changed pictures and an average of its weights."""
    from genwright.core import Recipe

    if method == "pictures":
        settings = {"rows_per_batch": 8, "tokens_per_pass": 96, "learning_rate": 2e-3, "max_steps": 80, "epochs": 1000,
                    "ema": 0.95, "checkpoint_every": 3, "evaluate_every": 20, "threads": 1, "dropout": 0.1}  # fmt: skip
        shape = {"size": 16, "patch": 4, "width": 32, "depth": 2, "heads": 2, "text_encoder": "learned", "words": 256}
        return Recipe.from_dict(
            {"name": method, "seed": seed, "data": {"source": "image_folder", "path": "pictures"}, "method": "full",
             "task": "text_to_image", "model": {"config": shape}, "objective": {"name": "flow", "augment": 0.5},
             "train": settings | train}
        )  # fmt: skip
    chosen = {"name": "lora", "rank": 8, "dropout": 0.1} if method == "lora" else method
    settings = {"tokens_per_batch": 256, "tokens_per_pass": 128, "learning_rate": 2e-3, "max_steps": 80, "epochs": 100,
                "checkpoint_every": 3, "evaluate_every": 20, "threads": 1, "weight_decay": 0.01} | train  # fmt: skip
    return Recipe.from_dict(
        {"name": method, "seed": seed, "data": {"source": "jsonl", "path": "topics.jsonl"},
         "task": {"name": "instruct", "max_length": 128}, "method": chosen, "regularizers": ["neftune"],
         "model": {"config": MODELS[method], "tokenizer": {"train": "bpe", "vocab_size": 1000}}, "train": settings}
    )  # fmt: skip


def make_rows() -> Prepared:
    """Python's own reference: a topic's name asked, its first paragraph answered."""
    from pydoc_data.topics import topics

    from genwright.core import Dataset, Example, assistant, user

    asked = [(name, text.split("\n\n")) for name, text in sorted(topics.items())]
    rows = [Example((user(f"What is {n} in Python?"), assistant(" ".join(p[1].split())[:300]))) for n, p in asked if len(p) > 1]  # fmt: skip  # noqa: E501
    return Prepared(Dataset(rows[8:]), Dataset(rows[:8]))


def make_pictures(folder: Path) -> Prepared:
    """Squares of 24 colours and places, named in words, as files in `folder`."""
    from PIL import Image

    from genwright.core import Dataset, Example, Part, assistant, user

    folder.mkdir(exist_ok=True)
    colours = {"red": (220, 30, 30), "green": (20, 160, 60), "blue": (30, 60, 210), "black": (10, 10, 10)}
    rows = []
    for colour, rgb in colours.items():
        for number in range(6):
            path, picture = folder / f"{colour}-{number}.png", Image.new("RGB", (16, 16), "white")
            picture.paste(rgb, (2 * number, 10 - 2 * number, 2 * number + 6, 16 - 2 * number))
            if not path.exists():
                picture.save(path)
            words = f"a {colour} square at place {number}"
            rows.append(Example((user(words), assistant(Part("image", path=path)))))
    return Prepared(Dataset(rows[4:]), Dataset(rows[:4]))


def of_a_run(folder: Path, seed: int, train: dict[str, Any]) -> tuple[Any, Prepared]:
    """The recipe and some rows of a prepared run, saved and looked at as often as the small ones."""
    from genwright.core import Dataset, Run

    run = Run.open(folder)
    often = {"checkpoint_every": 3, "evaluate_every": 20, "epochs": 1000, "threads": 1} | train
    recipe = run.recipe
    changed = recipe.train.model_copy(update=often)
    some = [
        Dataset(Dataset.open(run.data / f"{side}.jsonl").sample(n, 0)) for side, n in (("train", 200), ("held_out", 8))
    ]
    return recipe.model_copy(update={"seed": seed, "train": changed}), Prepared(*some)


def tune_here(folder: str, method: str, seed: int, train: dict[str, Any]) -> None:
    """The child's work: what `genwright tune` does once the data is prepared."""
    from genwright.core import GenwrightError, Run
    from genwright.verbs.tune import tune

    try:
        recipe, prepared = of_a_run(Path(method), seed, train) if Run.is_run(method) else (
            make_recipe(method, seed, **train),
            make_pictures(Path(folder).with_name("pictures")) if method == "pictures" else make_rows(),
        )  # fmt: skip
        tune(recipe, Run.create(recipe, folder), prepared)
    except GenwrightError as error:
        Path(folder, "error.txt").write_text(f"{error.message}\n{error.hint}\n")
        raise SystemExit(error.exit_code) from None


def start(work: Callable[..., None], *args: Any) -> Any:
    """Run `work` in a child forked from a server that has the heavy libraries loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "peft", "genwright.nn.loop", "genwright.nn.decoder"])
    child = context.Process(target=work, args=args)
    child.start()
    return child


def kill(child: Any) -> None:
    child.kill()  # SIGKILL
    child.join()


def polled(child: Any, *, every: float = 0.0005) -> Iterator[None]:
    """Until the child has ended."""
    while child.is_alive():
        yield
        time.sleep(every)


def step_facts(folder: Path) -> list[tuple[int, str, str]]:
    """(step, loss to the last bit, digest of the rows) of every step."""
    from genwright.core import Run

    return [(e["step"], float(e["loss"]).hex(), e["rows"]) for e in Run(folder).events("step")]


def weight_hashes(folder: Path) -> dict[str, str]:
    from genwright.nn.checkpoint import file_sha256

    return {str(p.relative_to(folder)): file_sha256(p) for p in sorted((folder / "model").rglob("*.safetensors"))}


def table(head: list[str], rows: list[list[Any]]) -> None:
    cells = [head, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)), flush=True)
