"""Files that rows name land in the run, checked, named by their content, and the run can be moved."""

import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from genwright.core import DataError, Dataset, Recipe, Run, UsageError
from genwright.verbs.prepare import prepare


def png(seed=0, size=(24, 24)):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def captioned(folder, count=20, name=lambda i: f"in/{i}.png"):
    """A JSON-lines file of `count` captions with pictures beside it."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        (folder / f"in/{i}.png").write_bytes(png(i))
        rows.append({"prompt": f"picture {i}", "image": name(i), "style": "flat"})
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def prepared(folder, run="run", refine=(), **data):
    recipe = Recipe.from_dict({
        "data": {"path": str(folder / "a.jsonl"), **data}, "refine": list(refine), "task": "text_to_image",
        "model": {"engine": "flow_image"}, "method": "full", "marks": [],
    })  # fmt: skip
    return prepare(recipe, Run.create(recipe, folder / run))


def test_a_picture_lands_once_under_the_hash_of_its_content_and_the_run_can_be_moved(tmp_path):
    captioned(tmp_path)
    (tmp_path / "in/1.png").write_bytes(png(0))
    done = prepared(tmp_path)
    assert len(done.train) + len(done.held_out) == 20
    first = done.train[0]
    assert first.answer.parts[0].path.read_bytes() == png(int(first.prompt[0].text.split()[1]))
    assert first.meta["style"] == "flat"
    files = [p for p in (tmp_path / "run/data/files").rglob("*") if p.is_file()]
    assert len(files) == 19  # two rows share one
    assert str(tmp_path) not in (tmp_path / "run/data/train.jsonl").read_text()
    shutil.rmtree(tmp_path / "in")
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    moved = Dataset.open(tmp_path / "elsewhere/data/train.jsonl")
    assert moved.fingerprint == done.train.fingerprint
    assert all(example.answer.parts[0].path.is_file() for example in moved)
    assert moved[0].digest() == first.digest()


def test_the_same_data_is_split_alike_wherever_the_run_lies(tmp_path):
    for place in ("one", "other"):
        captioned(tmp_path / place)
    done = [prepared(tmp_path / place) for place in ("one", "other")]
    assert done[0].train.fingerprint == done[1].train.fingerprint
    assert done[0].held_out.fingerprint == done[1].held_out.fingerprint


def test_a_picture_that_changes_changes_the_hash_of_the_data(tmp_path):
    captioned(tmp_path)
    before = prepared(tmp_path, "one").train.fingerprint
    for i in range(20):
        (tmp_path / f"in/{i}.png").write_bytes(png(100 + i))
    assert prepared(tmp_path, "two").train.fingerprint != before


@pytest.mark.parametrize(("spoil", "reason"), [
    (lambda path: path.write_bytes(png(3)[:-500]), "cut off"),
    (lambda path: path.write_text("no picture"), "no picture"),
    (lambda path: path.unlink(), "No such file"),
    (lambda path: (path.unlink(), path.mkdir()), "directory"),
])  # fmt: skip
def test_a_file_that_cannot_be_learned_from_costs_its_row_alone(tmp_path, spoil, reason):
    captioned(tmp_path)
    spoil(tmp_path / "in/3.png")
    done = prepared(tmp_path, max_bad_rate=0.2)
    assert len(done.train) + len(done.held_out) == 19
    [lost] = [json.loads(line) for line in (tmp_path / "run/data/rejected.jsonl").read_text().splitlines()]
    assert reason in lost["reason"]
    assert lost["where"] == "a.jsonl:4"


def test_rows_may_hold_the_bytes_themselves(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"text": f"picture {i}", "image": {"bytes": png(i), "path": f"{i}.png"}} for i in range(12)]
    rows.append({"text": "broken", "image": {"bytes": png(99)[:300], "path": None}})
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    done = prepared(tmp_path, path=str(tmp_path / "a.parquet"), max_bad_rate=0.2)
    assert sorted(len(e.answer.parts[0].path.read_bytes()) for e in [*done.train, *done.held_out]) == sorted(
        len(png(i)) for i in range(12)
    )
    [lost] = [json.loads(line) for line in (tmp_path / "run/data/rejected.jsonl").read_text().splitlines()]
    assert "bytes>" in lost["raw"]


def test_files_of_dropped_rows_do_not_stay(tmp_path):
    captioned(tmp_path)
    (tmp_path / "a.jsonl").write_text((tmp_path / "a.jsonl").read_text().replace("picture 7", "seven"))
    done = prepared(tmp_path, refine=[{"name": "length", "min_prompt": 2, "unit": "words"}])
    assert len(done.train) + len(done.held_out) == 19
    assert sum(p.is_file() for p in (tmp_path / "run/data/files").rglob("*")) == 19


def test_a_second_preparation_takes_over_the_files_of_the_first(tmp_path):
    captioned(tmp_path)
    prepared(tmp_path)
    known = {p.name: p.stat().st_ino for p in (tmp_path / "run/data/files").rglob("*.png")}
    prepared(tmp_path, held_out=0.3)
    assert {p.name: p.stat().st_ino for p in (tmp_path / "run/data/files").rglob("*.png")} == known
    assert all(os.stat(p).st_nlink == 1 for p in (tmp_path / "run/data/files").rglob("*.png"))


def test_a_picture_that_is_changed_is_prepared_anew_and_one_that_is_gone_is_not_missed(tmp_path):
    captioned(tmp_path)
    first = prepared(tmp_path).train.fingerprint
    for i in range(20):
        (tmp_path / f"in/{i}.png").write_bytes(png(100 + i))
    second = prepared(tmp_path).train.fingerprint
    assert second != first
    shutil.rmtree(tmp_path / "in")
    assert prepared(tmp_path).train.fingerprint == second


def test_columns_and_a_template_for_the_words_leave_the_picture_where_it_is(tmp_path):
    rows = captioned(tmp_path)
    lines = [json.dumps({"img": row["image"], "label": "cat"}) + "\n" for row in rows]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    done = prepared(tmp_path, columns={"img": "image"}, prompt="a photo of a {label}")
    assert done.train[0].prompt[0].text == "a photo of a cat"
    assert done.train[0].answer.parts[0].kind == "image"
    with pytest.raises(UsageError, match="need each other"):
        prepared(tmp_path, "other", columns={"img": "image"}, completion="{label}")


def list_of_held_out(folder):
    return (folder / "run/data/held_out.jsonl").read_text().splitlines()


def test_the_report_counts_and_shows_what_landed(tmp_path):
    captioned(tmp_path)
    report = prepared(tmp_path).report
    assert report["files"]["image"]["shorter side"] == {"16–31 px": 20}
    sheet = tmp_path / "run/data" / report["overviews"]["image"]
    with Image.open(sheet) as opened:
        assert opened.width > 900
    text = (tmp_path / "run/data/report.md").read_text()
    assert f"({sheet.name})" in text
    assert text.count("![image](<files/") == 20 - len(list_of_held_out(tmp_path))
    assert str(tmp_path) not in text


def test_words_alone_need_no_files(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"prompt": f"q {i}", "completion": "a b"}) + "\n" for i in range(9))
    )
    recipe = Recipe.from_dict({"data": str(tmp_path / "a.jsonl"), "task": "chat", "model": "x", "method": "full"})
    report = prepare(recipe, Run.create(recipe, tmp_path / "run")).report
    assert report["files"] == report["overviews"] == {}
    assert not (tmp_path / "run/data/files").exists()


def test_pictures_of_one_class_stand_on_both_sides_and_of_one_group_on_one(tmp_path):
    rows = captioned(tmp_path, 90)
    for group in (False, True):
        for i, row in enumerate(rows):
            row |= {"prompt": f"class {i % 3}"} | ({"group": f"g{i // 3}"} if group else {})
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = prepared(tmp_path, held_out=0.2)
        assert 5 < len(done.held_out) < 35
        assert {e.prompt[0].text for e in done.held_out} == {e.prompt[0].text for e in done.train}
        shared = {e.meta.get("group") for e in done.held_out} & {e.meta.get("group") for e in done.train}
        assert shared == (set() if group else {None})


def test_a_kind_that_nobody_knows_is_named(tmp_path):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "imgae", "path": "a.png"}]}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    with pytest.raises(DataError, match="Did you mean 'image'"):
        prepared(tmp_path)
