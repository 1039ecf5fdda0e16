"""Prepare: every row ends up learned from, held out, or written down with its reason; and nothing is done twice."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import defaultdict

import pyarrow
import pytest
from pyarrow import parquet

from genwright.core import DataError, Recipe, RecipeError, Run, Tell, UsageError
from genwright.core.words import normal
from genwright.verbs.prepare import add_token_facts, prepare
from genwright.verbs.split import Keys, held_out_rows


def recipe(folder, refine=(), task="chat", seed=0, **data):
    data = {"path": str(folder / "a.jsonl")} | data
    return Recipe.from_dict({
        "data": data, "refine": list(refine), "task": task, "model": "x", "method": "full", "marks": [], "seed": seed,
    })  # fmt: skip


def prepared(folder, *args, tell=None, **more):
    asked = recipe(folder, *args, **more)
    run = Run.create(asked, folder / "run")
    return prepare(asked, run, tell=tell or Tell())


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows))
    return path


def rows(count=100, **more):
    return [{"prompt": f"What is {i} and {i + 1}?", "completion": f"It is {2 * i + 1}.", **more} for i in range(count)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def asked(dataset):
    return {example.prompt[0].text for example in dataset}


# -- the main path ---------------------------------------------------------------------------------------------------


def test_every_row_is_learned_held_out_rejected_or_dropped(tmp_path):
    write(tmp_path / "a.jsonl", [*rows(), "broken", {"prompt": "x", "completion": ""}, *rows(10)])
    done = prepared(tmp_path, ["dedupe"])
    report = done.report
    assert report["rows_read"] == 112
    assert len(done.train) + len(done.held_out) == 100
    assert report["train"]["rows"] == len(done.train)
    assert report["rejected"]["rows"] == 2
    assert [(r["where"], r["reason"]) for r in lines(tmp_path / "run/data/rejected.jsonl")][1] == (
        "a.jsonl:102", "the answer is empty",
    )  # fmt: skip
    assert [d["where"] for d in lines(tmp_path / "run/data/dropped.jsonl")] == [f"a.jsonl:{i}" for i in range(103, 113)]
    assert report["refiners"] == [
        {"name": "dedupe", "rows_in": 110, "rows_out": 100, "changed": {}, "notes": [],
         "dropped": {"the same row as an earlier one": 10}},
    ]  # fmt: skip
    assert {e.meta["where"] for e in [*done.train, *done.held_out]} == {f"a.jsonl:{i}" for i in range(1, 101)}
    assert sorted(p.name for p in (tmp_path / "run/data").iterdir()) == [
        "dropped.jsonl", "held_out.jsonl", "rejected.jsonl", "report.json", "report.md", "train.jsonl",
    ]  # fmt: skip


def test_the_report_says_what_a_person_wants_to_know(tmp_path):
    write(tmp_path / "a.jsonl", [*rows(), "broken"])
    report = prepared(tmp_path, ["redact", {"name": "length", "max_prompt": 100}, "language"]).report
    assert report["lengths"]["answer"]["words"] == {"mean": 3.0, "longest": 3, "histogram": [[2, 3, 100]]}
    assert sum(n for *_, n in report["lengths"]["prompt"]["characters"]["histogram"]) == 100
    assert sum(report["languages"].values()) == 100
    assert len(report["samples"]) == 20
    assert (
        report["train"]["sha256"]
        == prepared(tmp_path, ["redact", {"name": "length", "max_prompt": 100}, "language"]).train.fingerprint
    )
    text = (tmp_path / "run/data/report.md").read_text()
    for words in ("101 rows read", "is not JSON", "| length | 100 | 100 |", "█", "20 random training rows", "a.jsonl:"):
        assert words in text
    add_token_facts(Run.open(tmp_path / "run"), {"truncated": 3, "max_length": 512})
    assert "- truncated: 3" in (tmp_path / "run/data/report.md").read_text()
    assert json.loads((tmp_path / "run/data/report.json").read_text())["tokens"]["max_length"] == 512


def test_the_task_frames_rows_and_its_objections_are_written_down(tmp_path):
    write(tmp_path / "a.jsonl", rows(30))
    done = prepared(tmp_path, task={"name": "instruct", "template": "Add: {prompt}"})
    assert all(example.prompt[0].text.startswith("Add: What is") for example in done.train)


def test_refiners_work_in_the_order_of_the_recipe(tmp_path):
    write(tmp_path / "a.jsonl", [{"prompt": f"mail a{i}@b.com", "completion": "done well"} for i in range(30)])
    assert len(prepared(tmp_path, ["dedupe", "redact"]).train) > 20
    assert len(prepared(tmp_path, ["redact", "dedupe"]).train) == 1


def test_several_sources_are_one_data_set_and_each_counts_for_what_was_done_before(tmp_path):
    write(tmp_path / "b.jsonl", rows(30))
    write(tmp_path / "c.jsonl", [{"question": f"q {i}", "answer": "a b"} for i in range(10)])
    several = {
        "source": "several",
        "of": [str(tmp_path / "b.jsonl"), {"source": "jsonl", "path": str(tmp_path / "c.jsonl")}],
    }
    asked_for = Recipe.from_dict({"data": several, "task": "chat", "model": "x", "method": "full", "marks": []})
    run = Run.create(asked_for, tmp_path / "run")
    first = prepare(asked_for, run).report
    assert first["rows_read"] == 40
    assert "b.jsonl, c.jsonl" in first["source"]
    assert prepare(asked_for, run).report["fingerprint"] == first["fingerprint"]
    write(tmp_path / "c.jsonl", rows(5))
    assert prepare(Recipe.from_dict(asked_for.as_dict()), run).report["rows_read"] == 35


# -- columns, templates, limit ---------------------------------------------------------------------------------------


def test_columns_are_renamed_and_templates_filled(tmp_path):
    write(tmp_path / "a.jsonl", [{"title": f"T{i}", "body": f"B{i}", "n": i, "none": None} for i in range(10)])
    done = prepared(tmp_path, columns={"body": "prompt", "title": "completion"}, held_out=0)
    assert (done.train[3].prompt[0].text, done.train[3].answer.text) == ("B3", "T3")
    done = prepared(tmp_path, prompt="Sum up {n}: {body}{none}", completion="{title}", held_out=0)
    assert (done.train[3].prompt[0].text, done.train[3].answer.text) == ("Sum up 3: B3", "T3")
    done = prepared(tmp_path, columns={"body": "text"}, prompt="{text}", completion="{title}", held_out=0)
    assert done.train[3].prompt[0].text == "B3"


def test_a_template_reaches_nothing_but_the_row(tmp_path):
    write(tmp_path / "a.jsonl", [{"title": "T", "body": "B"}] * 3)
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, prompt="{body.__class__}", completion="{title}")
    assert "the template names {body.__class__}" in caught.value.message
    with pytest.raises(UsageError, match="need each other"):
        prepared(tmp_path, prompt="{body}")


def test_limit_stops_reading(tmp_path):
    write(tmp_path / "a.jsonl", [*rows(50), *["broken"] * 100])
    done = prepared(tmp_path, limit=40, held_out=0)
    assert (done.report["rows_read"], len(done.train), len(done.held_out)) == (40, 40, 0)


# -- the split -------------------------------------------------------------------------------------------------------


def side_of(dataset, key):
    return {key(example) for example in dataset}


def test_the_split_is_the_same_for_the_same_seed_and_another_for_another(tmp_path):
    write(tmp_path / "a.jsonl", rows(300))
    first, again, other = (asked(prepared(tmp_path, seed=seed).held_out) for seed in (0, 0, 1))
    assert first == again != other
    assert 10 <= len(first) <= 60


def test_new_rows_do_not_move_old_ones(tmp_path):
    write(tmp_path / "a.jsonl", rows(300))
    before = asked(prepared(tmp_path).held_out)
    write(tmp_path / "a.jsonl", list(reversed(rows(400))))
    assert before <= asked(prepared(tmp_path).held_out)


def test_equal_questions_never_stand_on_both_sides(tmp_path):
    write(tmp_path / "a.jsonl", [
        {"prompt": f"  What is {i // 3}? " if i % 2 else f"what IS {i // 3}?", "completion": f"Answer {i}."}
        for i in range(300)
    ])  # fmt: skip
    done = prepared(tmp_path, held_out=0.3)
    one, other = ({normal(q) for q in asked(side)} for side in (done.train, done.held_out))
    assert one
    assert other
    assert not one & other


def test_groups_and_near_copies_never_stand_on_both_sides(tmp_path):
    chance = random.Random(4)
    data = []
    for number in range(60):
        words = [f"w{chance.randrange(9999)}" for _ in range(50)]
        for copy in range(3):
            changed = [w if i != copy else "other" for i, w in enumerate(words)]
            data.append({"prompt": f"Question {number} {copy}", "completion": " ".join(changed), "number": number})
    write(tmp_path / "a.jsonl", [row | {"meta": {"number": row.pop("number")}} for row in data])
    done = prepared(
        tmp_path, [{"name": "near_dedupe", "action": "group", "threshold": 0.7, "on": "answer"}], held_out=0.3
    )
    sides = [{example.meta["number"] for example in side} for side in (done.train, done.held_out)]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    write(tmp_path / "a.jsonl", [row | {"group": i % 20} for i, row in enumerate(rows(200))])
    done = prepared(tmp_path, held_out=0.3)
    sides = [{example.meta["group"] for example in side} for side in (done.train, done.held_out)]
    assert len(sides[0]) + len(sides[1]) == 20


@pytest.mark.parametrize("seed", range(40))
def test_whatever_binds_rows_the_split_keeps_together(seed):
    chance = random.Random(seed)
    count, kinds = chance.randint(2, 60), chance.randint(2, 30)
    keys, facts = Keys(), []
    for number in range(count):
        prompt = chance.choice([0, *range(1, kinds)]) * 7919
        group = chance.choice(
            [None, None, f"g{chance.randrange(kinds)}", [f"g{chance.randrange(kinds)}", f"g{chance.randrange(kinds)}"]]
        )
        keys.add(prompt, 1_000_000 + number, group)
        facts.append((prompt, group))
    share = chance.choice([0.05, 0.3, 0.7])
    held, notes = held_out_rows(keys, share, seed)
    assert 1 <= held.sum() < count
    sides = defaultdict(set)
    for (prompt, group), side in zip(facts, held.tolist(), strict=True):
        names = group if isinstance(group, list) else [group] if group else []
        for name in names:
            sides[name].add(side)
        if prompt and sum(p == prompt for p, _ in facts) * 2 <= count:
            sides[prompt].add(side)
    if not any("bound together by groups" in note for note in notes):
        assert all(len(side) == 1 for side in sides.values())
    assert (held_out_rows(keys, share, seed)[0] == held).all()


def test_the_share_is_near_what_was_asked(tmp_path):
    keys = Keys()
    for number in range(20_000):
        keys.add(number * 11 + 1, number, None)
    for share in (0.02, 0.1, 0.5):
        assert abs(held_out_rows(keys, share, 0)[0].mean() - share) < 0.01


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_rows_still_leave_one_on_each_side(tmp_path, count):
    for seed in range(8):
        write(tmp_path / "a.jsonl", rows(count))
        done = prepared(tmp_path, seed=seed, held_out=0.05)
        assert len(done.held_out) == 1
        done = prepared(tmp_path, seed=seed, held_out=0.95)
        assert len(done.train) >= 1


def test_one_question_for_all_rows_is_an_instruction(tmp_path):
    write(tmp_path / "a.jsonl", [{"prompt": "Write a line.", "completion": f"Line {i}."} for i in range(200)])
    done = prepared(tmp_path)
    assert 5 < len(done.held_out) < 50
    assert "ask the same" in done.report["split"]["notes"][0]


def test_a_large_group_stays_in_training(tmp_path):
    write(tmp_path / "a.jsonl", [row | {"group": "big" if i < 80 else i} for i, row in enumerate(rows(200))])
    for seed in range(5):
        assert all(e.meta["group"] != "big" for e in prepared(tmp_path, seed=seed).held_out)


def test_nothing_held_out_when_none_is_wanted(tmp_path):
    write(tmp_path / "a.jsonl", rows(50))
    done = prepared(tmp_path, held_out=0)
    assert (len(done.train), len(done.held_out)) == (50, 0)


def test_held_out_data_of_its_own_and_nothing_of_it_is_learned(tmp_path):
    write(tmp_path / "a.jsonl", rows(100))
    write(tmp_path / "b.jsonl", [*rows(10), {"prompt": "Another?", "completion": "Yes, a@b.com."}])
    done = prepared(tmp_path, ["redact"], held_out_data={"source": "jsonl", "path": str(tmp_path / "b.jsonl")})
    assert (len(done.train), len(done.held_out)) == (90, 11)
    assert not asked(done.train) & asked(done.held_out)
    assert done.held_out[10].answer.text == "Yes, [EMAIL]."
    assert done.report["refiners"][-1]["rows_out"] == 90


def test_decontamination_sees_both_sides(tmp_path):
    run = "one two three four five six seven eight nine ten eleven twelve thirteen"
    write(tmp_path / "a.jsonl", [*rows(100), {"prompt": "Count.", "completion": f"So: {run}!"}])
    write(tmp_path / "b.jsonl", [{"prompt": "Please count up.", "completion": f"{run} fourteen"}])
    aside = {"source": "jsonl", "path": str(tmp_path / "b.jsonl")}
    assert len(prepared(tmp_path, held_out_data=aside).train) == 101
    done = prepared(tmp_path, ["decontaminate", "dedupe"], held_out_data=aside)
    assert len(done.train) == 100
    facts = {one["name"]: one for one in done.report["refiners"]}
    assert facts["decontaminate"]["dropped"] == {"shares a run of 13 words with a held-out row": 1}
    assert lines(tmp_path / "run/data/dropped.jsonl")[-1]["where"] == "a.jsonl:101"


# -- malformed data (R19) --------------------------------------------------------------------------------------------

JUNK = ["not json", '{"text": "half \\ud83d"}', "[1]", '{"prompt": 5, "completion": "x"}', '{"text": "a\\u0000b"}',
        '{"messages": [{"role": "user", "content": "no answer"}]}', '{"prompt": "x", "completion": "  "}',
        '{"prompt": "x", "chosen": "same", "rejected": "same"}', '{"text": "' + "x" * 9_000_000 + '"}',
        "{}"]  # fmt: skip


def test_malformed_rows_are_all_written_down_and_the_rest_is_learned(tmp_path):
    write(tmp_path / "a.jsonl", [*rows(60), *JUNK, *rows(60)[50:]])
    done = prepared(tmp_path, max_bad_rate=0.2)
    found = lines(tmp_path / "run/data/rejected.jsonl")
    assert [r["where"] for r in found if "where" in r] == [f"a.jsonl:{61 + i}" for i in range(len(JUNK))]
    assert all(r["reason"] and len(r["raw"]) <= 300 for r in found)
    assert len(done.train) + len(done.held_out) == 70


def test_a_row_that_json_cannot_hold_is_written_down(tmp_path):
    table = pyarrow.Table.from_pylist([{"prompt": f"Q{i}", "completion": "A", "id": bytes([i])} for i in range(3)])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="Type is not JSON serializable: bytes"):
        prepared(tmp_path, path=str(tmp_path / "a.parquet"))


def test_too_many_malformed_rows_stop_it_at_once_and_are_kept(tmp_path):
    write(tmp_path / "a.jsonl", [*rows(19), *JUNK[:3], *rows(10_000)])
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, max_bad_rate=0.05)
    assert "2 of 21 rows are malformed" in caught.value.message
    assert "a.jsonl:20: is not JSON" in caught.value.message
    assert "rejected.jsonl" in caught.value.hint
    assert len(lines(tmp_path / "run/data/rejected.jsonl")) == 2
    assert not (tmp_path / "run/data/train.jsonl").exists()


def test_the_rate_counts_at_the_end_of_a_small_file_too(tmp_path):
    write(tmp_path / "a.jsonl", [*rows(5), "broken"])
    with pytest.raises(DataError, match="1 of 6"):
        prepared(tmp_path)
    assert len(prepared(tmp_path, max_bad_rate=0.2).train)


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf"])
def test_empty_data_is_an_error(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"no rows in jsonl a\.jsonl"):
        prepared(tmp_path)


def test_binary_junk_is_an_error_that_names_its_first_lines(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(random.Random(0).randbytes(100_000))
    with pytest.raises(DataError, match="malformed"):
        prepared(tmp_path)
    assert lines(tmp_path / "run/data/rejected.jsonl")


def test_nothing_left_to_learn_says_who_dropped_it(tmp_path):
    write(tmp_path / "a.jsonl", rows(30))
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, [{"name": "length", "min_answer": 50}])
    assert "length dropped 30: the answer has fewer than 50 words" in caught.value.message


def test_a_missing_file_names_its_neighbour(tmp_path):
    write(tmp_path / "b.jsonl", rows(3))
    with pytest.raises(DataError) as caught:
        prepared(tmp_path)
    assert "Did you mean 'b.jsonl'" in caught.value.hint


def test_a_wrong_option_is_a_recipe_problem(tmp_path):
    with pytest.raises(RecipeError, match="treshold"):
        recipe(tmp_path, [{"name": "near_dedupe", "treshold": 0.5}])


# -- done once, whole or not at all ----------------------------------------------------------------------------------


class Listening(Tell):
    def __init__(self):
        self.stages, self.notes = [], []

    def stage(self, title, total=None):
        self.stages.append(title)

    def note(self, text):
        self.notes.append(text)


def test_a_second_run_redoes_only_what_changed(tmp_path):
    write(tmp_path / "a.jsonl", rows(50))

    def stages(**more):
        tell = Listening()
        prepared(tmp_path, tell=tell, **more)
        return tell.stages

    assert stages()
    assert not stages()
    assert stages(seed=1)
    assert stages()
    os.utime(tmp_path / "a.jsonl", (1, 1))
    assert not stages(), "a touched file has the same content"
    write(tmp_path / "a.jsonl", rows(51))
    assert stages()
    assert stages(task="instruct")
    assert stages(held_out=0.2)
    (tmp_path / "run/data/train.jsonl").unlink()
    assert stages(held_out=0.2)


def test_a_failed_preparation_leaves_the_old_data_and_no_rubbish(tmp_path):
    write(tmp_path / "a.jsonl", rows(50))
    before = prepared(tmp_path).train.fingerprint
    write(tmp_path / "a.jsonl", ["junk"] * 50)
    with pytest.raises(DataError):
        prepared(tmp_path)
    assert (tmp_path / "run/data/train.jsonl").is_file()
    write(tmp_path / "a.jsonl", rows(50))
    assert prepared(tmp_path).train.fingerprint == before
    assert sorted(p.name for p in (tmp_path / "run").iterdir() if p.name.startswith(".data")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are POSIX")
def test_a_disk_that_takes_no_more_is_said_and_leaves_nothing_half(tmp_path):
    write(tmp_path / "a.jsonl", rows(2000))
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
    ended = in_a_process(tmp_path, limit)
    assert "could not be written" in ended.stderr
    assert "File too large" in ended.stderr
    assert not (tmp_path / "run/data/train.jsonl").exists()
    assert [p.name for p in (tmp_path / "run").iterdir() if p.name.startswith(".data")] == []


def in_a_process(folder, before):
    code = (
        f"import os\nfrom genwright.verbs import prepare as module\nfrom genwright.core import Recipe, Run\n{before}"
        f"asked = Recipe.from_dict({{'data': {{'path': {str(folder / 'a.jsonl')!r}}}, 'task': 'chat', 'model': 'x',"
        " 'method': 'full', 'marks': []})\n"
        f"module.prepare(asked, Run.create(asked, {str(folder / 'run')!r}))\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_a_killed_preparation_is_done_anew(tmp_path):
    write(tmp_path / "a.jsonl", rows(200))
    assert in_a_process(tmp_path, "module._deal = lambda *_: os._exit(9)\n").returncode == 9
    assert not (tmp_path / "run/data").exists()
    done = prepared(tmp_path)
    assert len(done.train) + len(done.held_out) == 200


def test_a_card_is_fetched_and_its_licence_noted(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    data = write(tmp_path / "a.jsonl", rows(40)).read_bytes()
    card = tmp_path / "sums.yaml"
    card.write_text(json.dumps({
        "kind": "dataset", "title": "Sums", "licence": "CC0-1.0", "notice": "By nobody.",
        "files": [{"name": "sums.jsonl", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data),
                   "sources": [f"file:{tmp_path / 'a.jsonl'}"]}],
        "read": {"source": "jsonl"},
    }))  # fmt: skip
    asked_for = Recipe.from_dict({"data": {"source": "card", "card": str(card)}, "task": "chat", "model": "x",
                                  "method": "full", "marks": []})  # fmt: skip
    done = prepare(asked_for, Run.create(asked_for, tmp_path / "run"))
    assert len(done.train) + len(done.held_out) == 40
    assert done.report["cards"] == [{"name": "sums", "licence": "CC0-1.0", "notice": "By nobody."}]
