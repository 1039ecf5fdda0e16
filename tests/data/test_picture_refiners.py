"""Near copies of pictures stay on one side of the split or go; odd pictures go; large ones are made smaller."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genwright.core import Example, Part, Recipe, Run, assistant, choose, user
from genwright.data.near import NearVectors
from genwright.media.picture import open_picture
from genwright.verbs.prepare import prepare


@dataclass
class Report:
    dropped: list = field(default_factory=list)
    changed: list = field(default_factory=list)
    notes: list = field(default_factory=list)

    def drop(self, example, reason):
        self.dropped.append(reason)

    def change(self, example, reason):
        self.changed.append(reason)

    def note(self, text):
        self.notes.append(text)


def refine(name, examples, held_out=None, **options):
    report = Report()
    chosen = choose("refiners", {"name": name, **options})
    more = {} if held_out is None else {"held_out": held_out}
    return list(chosen.thing(iter(examples), chosen.settings, report=report, **more)), report


def scene(seed, size=64):
    """A picture of large coloured fields, different for each seed."""
    fields = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(fields).resize((size, size), Image.Resampling.NEAREST)


def noisy(image, amount=6):
    noise = np.random.default_rng(5).normal(0, amount, (*image.size[::-1], 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def example(folder, name, image, **meta):
    path = folder / "files" / "ab" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return Example((user(name), assistant(Part("image", path=path))), meta)


def groups(examples):
    return [example.meta["group"] for example in examples]


# -- near copies -------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path):
    mirrored = scene(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    made = {"one": scene(1), "other": scene(2), "copy": noisy(scene(1)), "mirrored": mirrored, "large": scene(2, 200)}
    return [example(tmp_path, name, image, group=f"concept {name}") for name, image in made.items()]


def test_near_copies_are_bound_together_beside_the_groups_they_had(rows):
    kept, report = refine("near_files", rows)
    assert groups(kept) == [
        ["concept one", "near image 0"], ["concept other", "near image 1"], ["concept copy", "near image 0"],
        ["concept mirrored", "near image 0"], ["concept large", "near image 1"],
    ]  # fmt: skip
    assert "3 rows" in report.notes[0]


def test_near_copies_can_go_instead(rows):
    kept, report = refine("near_files", rows, action="drop")
    assert [row.prompt[0].text for row in kept] == ["one", "other"]
    assert len(report.dropped) == 3


def test_the_distance_and_the_side_can_be_said(rows):
    assert len(refine("near_files", rows, action="drop", distance=1e-3)[0]) == 3  # the one with noise is another
    asked = [Example((user("x", row.answer.parts[0]), assistant("a word")), {}) for row in rows]
    assert len(refine("near_files", asked, action="drop")[0]) == 5
    assert len(refine("near_files", asked, action="drop", on="prompt")[0]) == 2


def test_rows_without_files_pass():
    row = Example((user("a"), assistant("b")), {})
    assert refine("near_files", [row, row])[0] == [row, row]
    assert refine("decontaminate_files", [row], [row])[0] == [row]


def test_near_copies_of_what_is_held_out_do_not_stay_in_training(rows, tmp_path):
    kept, report = refine("decontaminate_files", rows, [rows[0]])
    assert [row.prompt[0].text for row in kept] == ["other", "large"]
    assert len(report.dropped) == 3
    assert len(refine("decontaminate_files", rows, [])[0]) == 5
    assert len(refine("decontaminate_files", rows[2:3], [rows[0]], distance=1e-3)[0]) == 1
    asked = [Example((user("x", row.answer.parts[0]), assistant("a word")), {}) for row in rows]
    assert len(refine("decontaminate_files", asked, asked[:1])[0]) == 5
    assert len(refine("decontaminate_files", asked, asked[:1], on="prompt")[0]) == 2


def test_the_search_finds_what_comparing_all_with_all_finds():
    chance = np.random.default_rng(0)
    centres = chance.random((50, 1, 300))
    vectors = (centres[chance.integers(0, 50, 400)] + chance.normal(0, 0.03, (400, 1, 300))).astype(np.float16)
    index, found = NearVectors(0.75), []
    for start in range(0, 400, 150):
        found += index.add(vectors[start : start + 150])
    plain = vectors[:, 0].astype(np.float32)
    apart = np.square(plain[:, None] - plain[None]).sum(-1) < 0.75**2
    clusters = list(range(400))
    for row in range(400):
        near = [clusters[other] for other in range(row) if apart[row, other]]
        clusters[row] = min(near, default=row)
        assert found[row] == sorted(set(near)) or (not near and found[row] == [row])
    assert 30 < len(set(clusters)) < 200


def test_ten_thousand_pictures_take_seconds():
    vectors = np.random.default_rng(0).random((5000, 2, 768), np.float32)
    index, started = NearVectors(0.6), time.process_time()
    for start in range(0, 5000, 512):
        index.add(vectors[start : start + 512])
    assert time.process_time() - started < 8


def test_no_near_copy_of_a_held_out_picture_is_learned_from(tmp_path):
    """From end to end: concepts and near copies across concepts decide together which side a picture goes to."""
    lines = []
    for i in range(120):
        image = scene(i // 3) if i % 3 else noisy(scene(i // 3))
        image.save(tmp_path / f"{i}.png")
        lines.append({"caption": f"thing {i}", "image": f"{i}.png", "group": f"concept {i // 4}"})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = Recipe.from_dict({
        "data": {"path": str(tmp_path / "a.jsonl"), "held_out": 0.3}, "refine": ["near_files"],
        "task": "text_to_image", "model": {"engine": "flow_image"}, "method": "full", "marks": [],
    })  # fmt: skip
    done = prepare(recipe, Run.create(recipe, tmp_path / "run"))
    assert len(done.held_out) > 0

    def both(dataset):
        return {int(e.prompt[0].text.split()[1]) // 3 for e in dataset}, {e.meta["group"][0] for e in dataset}

    for learned, aside in zip(both(done.train), both(done.held_out), strict=True):
        assert not learned & aside


# -- odd pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("image", "options", "reason"), [
    (scene(1, 15), {}, "min_side"), (scene(1, 15), {"min_side": 15}, ""),
    (scene(1).resize((20, 100)), {}, "max_ratio"), (scene(1).resize((20, 100)), {"max_ratio": 5}, ""),
    (Image.new("RGB", (64, 64), "red"), {}, "keep_blank"),
    (Image.new("RGB", (64, 64), "red"), {"keep_blank": True}, ""),
])  # fmt: skip
def test_odd_pictures_go_with_the_option_to_turn(tmp_path, image, options, reason):
    kept, report = refine("pictures", [example(tmp_path, "a", image)], **options)
    assert bool(kept) == (not reason)
    assert all(reason in said for said in report.dropped)


def test_large_pictures_are_made_smaller_beside_the_others(tmp_path):
    row = example(tmp_path, "a", scene(1, 300))
    [kept], report = refine("pictures", [row], max_side=100)
    path = kept.answer.parts[0].path
    assert open_picture(path).size == (100, 100)
    assert path.parent.parent == row.answer.parts[0].path.parent.parent
    assert path.name.startswith(path.parent.name)
    assert report.changed
    assert refine("pictures", [row], max_side=300)[0] == [row]


def test_edges_are_cut_off_where_asked(tmp_path):
    [kept], _ = refine("pictures", [example(tmp_path, "a", scene(1).resize((120, 60)))], crop=True)
    assert open_picture(kept.answer.parts[0].path).size == (60, 60)
    [kept], _ = refine("pictures", [example(tmp_path, "a", scene(1).resize((120, 60)))], max_side=40)
    assert open_picture(kept.answer.parts[0].path).size == (40, 20)
    assert Path(kept.answer.parts[0].path).suffix == ".png"
