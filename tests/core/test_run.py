"""A run is a folder; what it says of itself survives a kill."""

import pytest

from genwright.core import Dataset, Example, Recipe, Run, UsageError, assistant, fingerprint, user, write_text

RECIPE = Recipe.from_dict({"name": "run", "data": "rows.jsonl", "task": "instruct", "model": "m"})


def test_events_are_kept_in_order_and_a_torn_line_is_passed_over(tmp_path):
    run = Run.create(RECIPE, tmp_path / "run")
    run.log("step", loss=1.0)
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "st')
    assert [e["loss"] for e in run.events("step")] == [1.0]


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="is no run"):
        Run.create(RECIPE, tmp_path)
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        Run.open(tmp_path)


def test_a_stage_is_done_only_for_the_same_inputs(tmp_path):
    run = Run.create(RECIPE, tmp_path / "run")
    run.mark_done("tune", "abc")
    assert run.is_done("tune", "abc")
    assert not run.is_done("tune", "abd")
    assert Run.open(run.folder).recipe == RECIPE


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})


def test_replacing_a_file_leaves_no_half(tmp_path):
    path = tmp_path / "x.json"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_dataset_on_disk_equals_the_one_in_memory(tmp_path):
    rows = [Example((user(f"q{n}"), assistant("答" * n)), {"group": str(n)}) for n in range(20)]
    memory = Dataset(rows)
    disk = Dataset.open(memory.save(tmp_path / "rows.jsonl"))
    assert list(disk) == rows
    assert [disk[i] for i in (3, 19, -1)] == [rows[3], rows[19], rows[19]]
    assert disk.fingerprint == memory.fingerprint
    assert disk.sample(5, seed=1) == memory.sample(5, seed=1)


def test_order_is_a_pure_function_of_seed_and_epoch():
    data = Dataset([Example((assistant(str(n)),)) for n in range(50)])
    assert data.order(1, 0) == data.order(1, 0)
    assert sorted(data.order(1, 0)) == list(range(50))
    assert len({tuple(data.order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
