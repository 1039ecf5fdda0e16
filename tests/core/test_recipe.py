"""A recipe says everything about a run, and every slip in it is answered at once."""

import resource
import subprocess
import sys

import pytest
import yaml

from genwright.core import Recipe, RecipeError
from genwright.core.explain import explain
from genwright.core.recipe import put

GOOD = {"data": "rows.jsonl", "task": "instruct", "model": "smollm2-135m-instruct"}


@pytest.fixture
def write(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')

    def _write(fields, name="r.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(fields))
        return path

    return _write


def test_a_short_recipe_is_whole(write):
    recipe = Recipe.load(write(GOOD))
    assert (recipe.name, recipe.method.name, recipe.data.source.name) == ("r", "lora", "jsonl")
    assert recipe.chosen_objective.name == "sft"
    assert [m.name for m in recipe.chosen_metrics] == ["perplexity", "chrf", "rouge"]


def test_all_problems_are_reported_at_once_each_with_its_path(write):
    bad = GOOD | {"trian": {}, "train": {"epochs": -1, "learning_rat": 1}, "method": {"name": "lora", "rnk": 8},
                  "metrics": ["chrff"], "seed": "x"}  # fmt: skip
    with pytest.raises(RecipeError) as caught:
        Recipe.load(write(bad))
    found = dict(caught.value.problems)
    assert set(found) == {"trian", "train.epochs", "train.learning_rat", "method.rnk", "metrics.0", "seed"}
    assert "Did you mean 'train'" in found["trian"]
    assert "Did you mean 'learning_rate'" in found["train.learning_rat"]
    assert "Did you mean 'rank'" in found["method.rnk"]
    assert "Did you mean 'chrf'" in found["metrics.0"]


def test_what_is_written_in_a_run_reads_back_the_same(write):
    fields = GOOD | {
        "data": {"path": "rows.jsonl", "held_out": 0.2},
        "train": {"epochs": 2},
        "method": {"name": "lora", "rank": 4},
        "refine": ["dedupe"],
    }
    recipe = Recipe.load(write(fields))
    assert Recipe.from_dict(recipe.as_dict()) == recipe


def test_a_recipe_extends_another(write):
    write(GOOD | {"train": {"epochs": 5, "clip": 0.5}}, "base.yaml")
    recipe = Recipe.load(write({"extends": "base.yaml", "train": {"epochs": 2}}))
    assert (recipe.train.epochs, recipe.train.clip) == (2, 0.5)


def test_extending_is_one_level(write):
    write(GOOD, "a.yaml")
    write({"extends": "a.yaml"}, "b.yaml")
    with pytest.raises(RecipeError, match="one level"):
        Recipe.load(write({"extends": "b.yaml"}))


@pytest.mark.parametrize(("model", "method"), [
    ({"config": {"size": 8}}, "full"), ({"engine": "flow_image", "options": {"config": {"size": 8}}}, "full"),
    ({"source": "smollm2-135m-instruct", "config": {}}, "lora"), ("smollm2-135m-instruct", "lora"),
])  # fmt: skip
def test_random_weights_are_all_trained_unless_something_else_is_said(model, method):
    fields = {"data": "rows.jsonl", "task": "chat", "model": model}
    assert Recipe.from_dict(fields).method.name == method
    assert Recipe.from_dict(fields | {"method": "ia3"}).method.name == "ia3"


@pytest.mark.parametrize(
    ("text", "word"),
    [("a: [", "not YAML"), ("- a", "not a mapping"), (b"\xff\xfe\x00", "cannot be read"), (None, "is not there")],
)
def test_an_unreadable_recipe_is_one_sentence(tmp_path, text, word):
    path = tmp_path / "x.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError, match=word):
        Recipe.load(path)


def test_familiar_spellings_are_translated_and_said():
    said = []
    theirs = {
        "base_model": "smollm2-135m-instruct", "dataset": "rows.jsonl", "task": "instruct", "adapter": "dora",
        "lora_r": 4, "lora_alpha": 8, "lora_target": "all", "cutoff_len": 256, "num_train_epochs": 3,
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "lr_scheduler_type": "cosine",
        "learning_rate": 1e-4, "warmup_ratio": 0.1, "report_to": "none", "neftune_noise_alpha": 5,
    }  # fmt: skip
    recipe = Recipe.from_dict(theirs, note=said.append)
    assert (recipe.method.name, recipe.method.settings.rank) == ("dora", 4)
    assert (recipe.train.rows_per_batch, recipe.train.epochs, recipe.task.settings.max_length) == (8, 3, 256)
    assert recipe.regularizers[0].name == "neftune"
    assert len(said) == len(theirs) - 1


def test_two_spellings_that_disagree_are_a_problem():
    with pytest.raises(RecipeError, match="both say"):
        Recipe.from_dict(GOOD | {"learning_rate": 1e-4, "train": {"learning_rate": 2e-4}})


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("train.epochs", 3, lambda r: r.train.epochs),
        ("method.rank", 2, lambda r: r.method.settings.rank),
        ("data.held_out", 0.5, lambda r: r.data.held_out),
        ("refine.0.name", "dedupe", lambda r: r.refine[0].name),
    ],
)
def test_any_key_can_be_changed_from_outside(write, key, value, read):
    fields = GOOD | {"refine": ["redact"]}
    put(fields, key, value)
    assert read(Recipe.load(write(fields))) == value


def test_one_schema_describes_every_choice():
    schema = Recipe.model_json_schema()
    methods = schema["properties"]["method"]["oneOf"]
    assert {"lora", "full"} <= {m.get("title") for m in methods}
    (lora,) = [m for m in methods if m.get("title") == "lora"]
    assert lora["properties"]["rank"]["description"]


@pytest.mark.parametrize("key", ["train.epochs", "method.lora.rank", "data.jsonl.path", "evaluate.shots", "task.chat"])
def test_every_key_can_be_explained(key):
    assert explain(key)["help"]


def test_an_unknown_key_is_explained_by_its_neighbour():
    with pytest.raises(Exception, match="Did you mean 'epochs'"):
        explain("train.epoch")


def test_checking_a_recipe_is_quick(write):
    """Next to what its libraries take to load, so that the machine does not matter (0.45 s in the README)."""
    libraries = seconds_of_work("-c", "import pydantic.networks, yaml, rich.console")
    assert seconds_of_work("-m", "genwright", "recipe", "check", str(write(GOOD))) < 4 * libraries


def seconds_of_work(*words):
    """Processor seconds of Python, least of three: what a quiet machine would take, whatever else runs here."""
    times = []
    for _ in range(3):
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
    return min(times)
