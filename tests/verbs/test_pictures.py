"""Pictures go the whole way: the same verbs, the same command line, labels inside, guards before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import genwright as gw
from genwright.cli.main import main
from genwright.core import Dataset, Part, Recipe, Refused, Run, UsageError, user
from genwright.core.card import find_card
from genwright.media.picture import open_picture
from genwright.media.xmp import read_xmp
from genwright.trust.ledger import Ledger, default_path
from genwright.verbs.ask import open_answerer
from genwright.verbs.export import export_run
from genwright.verbs.provenance import look_up
from tests.nn.shapes import CONFIG, rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch = pytest.MonkeyPatch()
    patch.setenv("GENWRIGHT_HOME", str(tmp_path_factory.mktemp("home")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, home: None) -> Run:
    """A recipe from rows to a judged model."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = [
        {"prompt": row.prompt[0].text, "image": str(row.answer.parts[0].path), "style": row.meta["style"],
         "concept": row.meta["concept"], "captions": row.meta["captions"]}
        for row in rows(folder / "p")
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    recipe = {
        "data": {"source": "jsonl", "path": str(folder / "rows.jsonl"), "held_out": 0.2},
        "task": {"name": "text_to_image", "options": {"steps": 3, "style": "filled"}},
        "model": {"config": {**CONFIG}},
        "method": "full",
        "train": {"rows_per_batch": 8, "tokens_per_pass": 128, "max_steps": 12, "learning_rate": 2e-3, "ema": 0.9,
                  "threads": 1, "dtype": "float32"},
        "evaluate": {"max_rows": 3, "samples": 2, "bootstrap": 50},
        "guards": [{"name": "keywords", "words": ["gunpowder"]}],
        "release": {"name": "shapes"},
    }  # fmt: skip
    return gw.run(Recipe.from_dict(recipe), folder / "run")


def ask(run: Run | Path, words: str, *more: Part, **options: Any) -> list[Part]:
    answerer = open_answerer(run)
    try:
        return [part for part in answerer.ask([user(words, *more)], **options) if part.path]
    finally:
        answerer.close()


def test_the_run_is_judged_by_what_it_cannot_know(run: Run) -> None:
    report = json.loads(run.report_file.read_text())
    (row,) = report["rows"]
    assert row["metric"] == "denoising"
    assert set(row["tuned"]["details"]) == {"t=0.2", "t=0.5", "t=0.8", "rows", "training_rows"}
    assert row["tuned"]["details"]["rows"] == report["counts"]["held_out"] > 3
    assert row["tuned"]["details"]["training_rows"] == report["counts"]["held_out"]
    assert row["tuned"]["beside"]["training rows"] != row["tuned"]["value"]
    looks = [event["held_out_loss"] for event in run.events("look")]
    assert looks[-1] < looks[0]


def test_samples_are_files_in_the_run_and_pictures_in_the_report(run: Run) -> None:
    made = sorted((run.folder / "samples" / "tuned").glob("0*.png"))
    assert 2 <= len(made) <= 3
    assert all(open_picture(path).size == (16, 16) for path in made)
    assert (run.folder / "samples" / "tuned" / "pictures.png").is_file()
    sample = json.loads(run.report_file.read_text())["samples"][0]
    assert sample["files"]["tuned"][0]["path"].startswith("samples/tuned/")
    page = (run.folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 * 2 + 2 * 3, "wanted and tuned; wanted and two languages"


def test_the_same_is_asked_in_two_languages_with_one_seed(run: Run, tmp_path: Path) -> None:
    (sheet,) = json.loads(run.report_file.read_text())["sheets"]
    assert sheet["name"] == "languages"
    held_out = Dataset.open(run.data / "held_out.jsonl")
    for line in sheet["lines"]:
        wanted, english, chinese = line
        row = int(Path(english["path"]).stem.split("-")[0])
        assert wanted["path"].startswith("data/files/")
        assert english["text"] == f"en: {held_out[row].meta['captions']['en'][0]}"
        assert chinese["text"] == f"zh: {held_out[row].meta['captions']['zh'][0]}"
        options = {"style": held_out[row].meta["style"]}
        (again,) = ask(run, chinese["text"][4:], seed=row, options=options, out=tmp_path / f"{row}.png")
        one, other = (np.asarray(open_picture(p)).astype(int) for p in (run.folder / chinese["path"], again.path))
        assert abs(one - other).max() <= 2


def test_another_metric_is_judged_later_without_training_again(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`--set metrics=[…]` of `genwright evaluate`; what a metric saw stands in the page and beside it as a file."""
    before = (run.model / "model.safetensors").stat().st_mtime_ns
    steps = len(list(run.events("step")))
    (tmp_path / "network").write_bytes(b"of features")
    (tmp_path / "looker.yaml").write_text(
        "kind: model\ntitle: Looker\nlicence: MIT\nfiles:\n  - name: network.onnx\n    size: 11\n"
        f"    sha256: {hashlib.sha256(b'of features').hexdigest()}\n    sources: ['file:{tmp_path / 'network'}']\n"
    )
    metrics = f"[denoising,{{name: copied_pictures, shown: 2}},{{name: fid, inception: {tmp_path / 'looker.yaml'}}}]"
    assert main(["evaluate", str(run.folder), "--set", f"metrics={metrics}"]) == 0
    assert find_card(str(tmp_path / "looker.yaml")).is_here, "the card that a metric names is fetched"
    report = json.loads(run.report_file.read_text())
    assert [row["metric"] for row in report["rows"]] == ["denoising", "copied_pictures"]
    (missing,) = report["not_judged"]
    assert missing["metric"] == "fid"
    assert "3 answers with a picture" in missing["why"]
    assert (run.model / "model.safetensors").stat().st_mtime_ns == before
    assert len(list(run.events("step"))) == steps
    sheet = report["sheets"][1]
    assert sheet["name"] == "copied_pictures"
    assert len(sheet["lines"]) == 2
    for made, nearest in sheet["lines"]:
        assert made["path"].startswith("samples/tuned/")
        assert nearest["text"].startswith("nearest training picture")
    assert (run.folder / "samples" / "tuned" / "copied_pictures" / "pictures.png").is_file()
    page = (run.folder / "report.html").read_text()
    assert "What copied_pictures saw" in page
    assert "nearest training picture" in page
    assert "beside it" in page
    assert "held-out pictures" in capsys.readouterr().out


def test_held_out_rows_are_asked_for_in_their_own_style(run: Run, tmp_path: Path) -> None:
    held_out = Dataset.open(run.data / "held_out.jsonl")
    for path in sorted((run.folder / "samples" / "tuned").glob("0*.png")):
        row = held_out[int(path.stem)]
        options = {"style": row.meta["style"]}
        (again,) = ask(run, row.prompt[0].text, seed=int(path.stem), options=options, out=tmp_path / path.name)
        one, other = (np.asarray(open_picture(p)).astype(int) for p in (path, again.path))
        assert abs(one - other).max() <= 2


def test_an_answer_is_a_file_with_its_label_inside(run: Run, tmp_path: Path) -> None:
    (part,) = ask(run, "a red circle", seed=1, out=tmp_path / "a.png")
    packet = read_xmp(tmp_path / "a.png")
    facts = json.loads(packet.split("<genwright:provenance>")[1].split("</")[0])
    manifest = json.loads((run.model / "genwright.json").read_text())
    assert (facts["model"], facts["checkpoint"]) == ("shapes", manifest["checkpoint"])
    assert '"Label":"1"' in packet
    assert (tmp_path / "a.png.genwright.json").is_file()
    found = look_up(tmp_path / "a.png")
    assert found["label"]["Label"] == "1"
    assert found["answers"][0]["provenance"] == facts
    assert part.meta is not None
    assert part.meta["style"] == "filled", "the task's own option"
    assert list(run.events("answer"))


def test_the_same_seed_gives_the_same_pixels_through_the_hall(run: Run, tmp_path: Path) -> None:
    first, again = (ask(run, "a red circle", seed=1, out=tmp_path / f"{n}.png")[0] for n in "ab")
    assert (np.asarray(open_picture(first.path)) == np.asarray(open_picture(again.path))).all()


def test_guards_see_the_prompt(run: Run) -> None:
    with pytest.raises(Refused):
        ask(run, "a barrel of gunpowder")
    last = list(Ledger(default_path()).find("refused"))
    assert last
    with pytest.raises(Refused):
        ask(run, "a red circle", options={"n": 2, "toward": "gunpowder"})
    assert ask(run, "a red circle", options={"negative": "gunpowder"}), "it is what the picture should be unlike"


def test_a_picture_model_refuses_sexual_prompts_unless_its_recipe_says_otherwise(run: Run, tmp_path: Path) -> None:
    """The recipe here names guards of its own; a bare folder, and a recipe that says nothing, have the task's."""
    from genwright.verbs.ask import answerer_of

    with pytest.raises(Refused, match="words of the list sexual"):
        ask(run.model, "a naked woman")
    silent = {key: value for key, value in run.recipe.as_dict().items() if key != "guards"}
    for guards, count in ((None, 1), ([], 0)):
        recipe = Recipe.from_dict(silent | ({} if guards is None else {"guards": guards}))
        made = Run.create(recipe, tmp_path / str(count))
        assert len(answerer_of(made, None).guards) == count  # type: ignore[arg-type]


def test_what_a_text_model_knows_no_option_of_is_said(run: Run) -> None:
    with pytest.raises(UsageError, match="Did you mean 'steps'"):
        ask(run, "a red circle", options={"stepps": 2})


def test_a_run_and_its_export_are_models(run: Run, tmp_path: Path) -> None:
    export_run(run, [{"name": "safetensors", "dtype": "bfloat16"}], out=tmp_path)  # type: ignore[list-item]
    folder = tmp_path / "safetensors"
    weights = (folder / "model.safetensors").stat().st_size
    assert weights < 0.6 * (run.model / "model.safetensors").stat().st_size
    card = (folder / "README.md").read_text()
    assert "MB." in card
    assert "random weights" in card
    (part,) = ask(folder, "a red circle", seed=1, options={"steps": 3, "style": "filled"})
    (whole,) = ask(run, "a red circle", seed=1)
    difference = np.abs(np.asarray(open_picture(part.path)).astype(int) - np.asarray(open_picture(whole.path)))
    assert difference.mean() < 4


def test_a_run_is_a_start_for_the_next(run: Run, tmp_path: Path) -> None:
    recipe = run.recipe.as_dict()
    recipe["model"], recipe["train"]["max_steps"] = {"source": str(run.folder)}, 2
    again = gw.run(Recipe.from_dict(recipe), tmp_path / "again")
    report = json.loads(again.report_file.read_text())
    assert report["compared"]
    assert report["rows"][0]["base"]["value"] == pytest.approx(
        json.loads(run.report_file.read_text())["rows"][0]["tuned"]["value"], rel=0.02
    )


def test_the_command_line_writes_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["generate", str(run.folder), "A red circle!", "--seed", "1", "--option", "steps=2", "--quiet"]
    assert main(asked) == 0
    assert main(asked) == 0
    assert main([*asked, "--task", "text_to_image", "-o", "out/x.png", "--option", "n=2"]) == 0
    names = ["a-red-circle.png", "a-red-circle-2.png", "out/x-1.png", "out/x-2.png"]
    assert all((tmp_path / name).is_file() for name in names)
    assert capsys.readouterr().out.split() == names
    Image.new("L", (16, 16), 255).save("mask.png")
    edited = ["--image", "out/x-1.png", "--mask", "mask.png", "--task", "image_to_image", "-o", "e.png", "--json"]
    assert main([*asked, *edited]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == ["e.png"]
    assert main([*asked, "--option", "steps=x"]) == 2
    assert "steps" in capsys.readouterr().err


def test_options_are_refused_by_a_model_that_knows_none(home: None) -> None:
    from genwright.core import Request
    from genwright.verbs.generate import generate

    class Says:
        def generate(self, request: Any) -> Any:
            yield Part(text="yes")

    asked = Request(messages=(user("a hat"),), options={"n": 2})
    with pytest.raises(UsageError, match="knows no options, and was given n"):
        list(generate(Says(), asked))


def test_a_picture_that_a_guard_stops_does_not_stay(run: Run, tmp_path: Path) -> None:
    """An answer's file is judged before it leaves; here by a guard that finds fault with every answer."""
    from genwright.core import Chosen, Request, Verdict
    from genwright.verbs.generate import generate

    class Strict(Chosen):
        @property
        def thing(self) -> Any:
            return lambda parts, settings: Verdict("block") if any(part.path for part in parts) else Verdict()

    answerer = open_answerer(run)
    asked = Request(messages=(user("a red circle"),), options={"steps": 2}, out=tmp_path / "a.png")
    with pytest.raises(Refused):
        list(generate(answerer.model, asked, guards=[Strict("guards", "keywords")]))
    assert not (tmp_path / "a.png").exists()


def test_a_painted_picture_is_made_larger_by_a_network(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ncnn")
    from genwright.core import ModelError
    from genwright.media.enlarge import Network
    from genwright.nn import painting
    from tests.engines.test_upscale import BILINEAR

    with pytest.raises(ModelError, match="has not been fetched"):
        ask(run, "a red circle", options={"upscale": "fast"})
    (tmp_path / "network.param").write_text(BILINEAR)
    (tmp_path / "network.ncnn").write_bytes(b"")
    monkeypatch.setattr(painting, "network_of", lambda kind: Network(tmp_path))
    for size, wanted in ((None, 64), (40, 40)):
        (part,) = ask(run, "a red circle", options={"upscale": "fast", "size": size}, seed=1, out=tmp_path / "a.png")
        assert open_picture(part.path).size == (wanted, wanted)
    mask = tmp_path / "mask.png"
    half = Image.new("L", (40, 40), 0)
    half.paste(255, (0, 0, 20, 40))
    half.save(mask)
    given = (Part("image", path=tmp_path / "a.png"), Part("image", "mask", mask))
    with pytest.raises(UsageError, match="made into another"):
        ask(run, "a red circle", *given, options={"upscale": "fast"})
