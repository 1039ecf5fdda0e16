"""Evaluation: base and tuned on the same rows, forgetting always there, nothing silent, everything kept."""

import json
import math
import os
import sys
from types import SimpleNamespace

import pytest

from genwright.core import Dataset, Example, Part, Recipe, Run, assistant, find_card, user
from genwright.trust.ledger import Ledger
from genwright.verbs import evaluate as module
from genwright.verbs import general as general_module
from genwright.verbs.evaluate import evaluate, evaluate_run, read_samples
from genwright.verbs.general import General, general_set

sys.path.insert(0, os.path.dirname(__file__))
from ngram_model import BatchedNgramModel, NgramModel

ANIMALS = ["cat", "dog", "cow", "duck", "hen", "pig", "owl", "fox", "bee", "ant"]


def rows(verb="says", count=40):
    return [
        Example((user(f"What does animal {i} {verb}? {a}"), assistant(f"the {a} {verb} {a}{a} to all")))
        for i in range(count // 10)
        for a in ANIMALS
    ]


TRAIN, HELD_OUT = Dataset(rows()), Dataset(rows(count=20))
OTHER = [Example((user(f"capital of {c}"), assistant(f"it is the city {c}ville"))) for c in ("Ruritania", "Freedonia")]
GENERAL = General("tiny", tuple(OTHER))


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))


def recipe(**fields):
    given = {"name": "animals", "data": {"source": "jsonl", "path": "x.jsonl"}, "task": "instruct", "model": "none"}
    given |= {"metrics": ["perplexity", "chrf", "exact_match"], "evaluate": {"bootstrap": 200, "max_rows": 12}}
    return Recipe.from_dict({**given, **fields})


def base_model():
    return NgramModel(OTHER)


def tuned_model():
    return NgramModel([*OTHER, *TRAIN])


def judge(**more):
    given = {"base": base_model(), "train": TRAIN, "general": GENERAL}
    return evaluate(tuned_model(), HELD_OUT, more.pop("recipe", recipe()), **(given | more))


def test_the_tuned_model_beats_its_base_with_an_interval_that_says_so():
    report = judge()
    by = {row["metric"]: row for row in report.rows}
    assert list(by) == ["perplexity", "chrf", "exact_match", "forgetting"]
    assert by["exact_match"]["tuned"]["value"] == 1
    assert by["exact_match"]["base"]["value"] == 0
    assert by["perplexity"]["difference"]["verdict"] == "better"
    assert by["perplexity"]["difference"]["high"] < 0
    assert by["chrf"]["difference"]["p"] < 0.05
    assert "better in perplexity, chrf and exact_match" in report.sentence()
    assert report.score("chrf") > report.score("chrf", "base")


def test_forgetting_is_there_unasked_and_is_the_loss_of_the_general_rows():
    row = {r["metric"]: r for r in judge().rows}["forgetting"]
    for side, model in (("base", base_model()), ("tuned", tuned_model())):
        found = list(model.likelihood(OTHER))
        assert row[side]["value"] == pytest.approx(sum(f.nll for f in found) / sum(f.tokens for f in found))
    named = judge(recipe=recipe(metrics=["forgetting"]))
    assert [r["metric"] for r in named.rows] == ["forgetting"]


def test_perplexity_is_of_all_held_out_rows_and_answers_of_a_choice():
    report = judge()
    assert report.facts["counts"] == {"train": 40, "held_out": 20, "answered": 12, "likelihoods": 20, "general": 2}
    found = list(tuned_model().likelihood(HELD_OUT))
    assert report.score("perplexity") == pytest.approx(
        math.exp(sum(f.nll for f in found) / sum(f.tokens for f in found))
    )
    assert any("12 of 20 held-out rows" in note for note in report.facts["notes"])


def test_the_same_recipe_judges_the_same_and_another_seed_other_rows():
    assert judge().facts["rows"] == judge().facts["rows"]
    samples = [judge(recipe=recipe(seed=s, evaluate={"max_rows": 3})).facts["samples"] for s in (0, 1)]
    assert [s["row"] for s in samples[0]] != [s["row"] for s in samples[1]]


def test_batched_answers_are_put_with_their_own_questions():
    one_by_one = judge().facts["samples"]
    batched = evaluate(BatchedNgramModel([*OTHER, *TRAIN]), HELD_OUT, recipe(), base=base_model(), train=TRAIN,
                       general=GENERAL).facts["samples"]  # fmt: skip
    assert [s["tuned"] for s in batched] == [s["tuned"] for s in one_by_one]


def test_every_answer_of_an_evaluation_is_noted_in_the_ledger(tmp_path):
    judge()
    noted = [row for row in Ledger(None).rows() if row.get("purpose") == "evaluation"]
    assert len(noted) == 24
    assert {row["model"] for row in noted} == {"animals (tuned)", "animals (base)"}
    assert all(row["guards"] == [] for row in noted)


def test_few_shot_examples_stand_before_the_question_and_few_are_the_first_of_many():
    asked = module._Questions(HELD_OUT, recipe(evaluate={"shots": [0, 1, 4]}), TRAIN, GENERAL, can_tell=True)
    one, four = asked.example(3, 1), asked.example(3, 4)
    assert len(one.messages) == 2 + 2
    assert len(four.messages) == 2 + 8
    assert four.messages[:2] == one.messages[:2]
    assert four.messages[-2:] == HELD_OUT[3].messages


def test_score_against_shots_has_a_row_for_each_count():
    asked = recipe(metrics=["perplexity", "chrf", "exact_match", "length", "copy_rate"],
                   evaluate={"shots": [0, 2], "max_rows": 4, "bootstrap": 50})  # fmt: skip
    report = judge(recipe=asked)
    shots = [(row["metric"], row["shots"]) for row in report.facts["shots"]]
    assert shots == [("chrf", 0), ("chrf", 2), ("exact_match", 0), ("exact_match", 2)]
    by = {(row["metric"], row["shots"]): row["tuned"]["value"] for row in report.facts["shots"]}
    assert by["exact_match", 0] == report.score("exact_match")


def test_task_shots_are_shown_before_every_question():
    calls = []

    class Listening(NgramModel):
        def generate(self, request):
            calls.append(len(request.messages))
            return super().generate(request)

    asked = recipe(task={"name": "instruct", "shots": 2}, evaluate={"max_rows": 3})
    evaluate(Listening(TRAIN), HELD_OUT, asked, train=TRAIN, general=GENERAL)
    assert calls == [5, 5, 5]


def test_plain_text_is_cut_and_the_rest_is_what_should_come():
    story = Dataset([Example((assistant("once upon a time there was a small house in a wood"),))])
    made = module._with_question(story[0])
    assert made.prompt[0].text + made.answer.text == story[0].answer.text
    report = evaluate(NgramModel(), story, recipe(task="continue", metrics=["perplexity"]), general=GENERAL)
    assert report.facts["samples"][0]["wanted"] == made.answer.text
    report = evaluate(NgramModel(), story, recipe(task="continue", metrics=["perplexity"], evaluate={"shots": [1]}),
                      train=story, general=GENERAL)  # fmt: skip
    assert any("No examples were shown" in note for note in report.facts["notes"])


def test_evaluate_settings_reach_the_model():
    seen = []

    class Listening(NgramModel):
        def generate(self, request):
            seen.append(request)
            return super().generate(request)

    task = {"name": "instruct", "max_new_tokens": 7, "constraints": {"max_words": 5}}
    asked = recipe(task=task, evaluate={"temperature": 0.5, "top_p": 0.9, "max_rows": 2}, seed=3)
    evaluate(Listening(TRAIN), HELD_OUT, asked, general=GENERAL)
    first = seen[0]
    assert (first.max_new_tokens, first.temperature, first.top_p) == (7, 0.5, 0.9)
    assert first.constraints.max_words == 5
    assert first.seed is not None
    assert seen[0].seed != seen[1].seed


def test_a_metric_that_cannot_be_computed_is_listed_and_stops_nothing():
    report = judge(recipe=recipe(metrics=["ece", "chrf", "constraints"]))
    assert [row["metric"] for row in report.rows] == ["chrf", "forgetting"]
    missing = {one["metric"]: one["why"] for one in report.facts["not_judged"]}
    assert "probabilities" in missing["ece"]
    assert "constraints" in missing["constraints"]


def test_a_model_without_likelihoods_is_judged_by_its_answers():
    class Mute:
        def generate(self, request):
            yield Part(text="the cat says catcat to all")

    report = evaluate(Mute(), HELD_OUT, recipe(), general=GENERAL)
    assert [row["metric"] for row in report.rows] == ["chrf", "exact_match"]
    assert report.facts["not_judged"] == [{"metric": "perplexity", "why": "the tuned model cannot tell likelihoods"}]


def test_without_held_out_rows_the_report_says_so(tmp_path):
    report = evaluate(tuned_model(), Dataset(), recipe(), base=base_model(), general=GENERAL, folder=tmp_path)
    assert report.rows == []
    assert "No rows were held out" in report.facts["notes"][0]
    assert "No rows were held out" in (tmp_path / "report.html").read_text()


def test_no_bootstrap_leaves_the_intervals_out():
    row = judge(recipe=recipe(evaluate={"bootstrap": 0})).rows[0]
    assert row["tuned"]["low"] is None
    assert row["difference"]["low"] is None
    assert row["difference"]["verdict"] == ""


def test_all_that_was_said_is_kept_and_can_be_read_again(tmp_path):
    judge(folder=tmp_path)
    kept = list(read_samples(tmp_path / "samples" / "tuned.jsonl"))
    assert len(kept) == 20
    assert sum(one.answer is not None for _, one in kept) == 12
    assert all(one.likelihood for _, one in kept)
    assert kept[0][0] == HELD_OUT[0].digest()
    lines = [json.loads(line) for line in (tmp_path / "samples" / "tuned.jsonl").read_text().splitlines()]
    assert set(lines[0]) == {"row", "prompt", "wanted", "said", "nll", "tokens", "chars", "scores"}
    answered = next(line for line in lines if line["said"])
    assert set(answered["scores"]) == {"chrf", "exact_match"}
    assert len(list(read_samples(tmp_path / "samples" / "general-base.jsonl"))) == 2


def test_labels_with_probabilities_are_kept_for_calibration(tmp_path):
    class Sure:
        def generate(self, request):
            yield Part(text="yes", meta={"probs": {"yes": 0.8, "no": 0.2}})

    data = Dataset([Example((user(f"is it? {i}"), assistant("yes" if i % 5 else "no"))) for i in range(10)])
    report = evaluate(Sure(), data, recipe(task="classify", metrics=["accuracy", "macro_f1", "ece"]), folder=tmp_path)
    assert report.score("accuracy") == 0.8
    assert report.score("ece") == pytest.approx(0.0)
    again = [one.answer.parts[0].meta for _, one in read_samples(tmp_path / "samples" / "tuned.jsonl")]
    assert again[0] == {"probs": {"yes": 0.8, "no": 0.2}}


# -- a whole run -------------------------------------------------------------------------------------------------------


class Adapter(NgramModel):
    """A learner whose tuning can be put aside, as an adapter's can."""

    def __init__(self):
        super().__init__([*OTHER, *TRAIN])
        self.aside = False

    def untuned(self):
        outer, mine = self, dict(self.follow)

        class Within:
            def __enter__(self):
                outer.follow.clear()
                outer.teach(OTHER)

            def __exit__(self, *_):
                outer.follow.clear()
                outer.follow.update(mine)

        return Within()


def a_run(tmp_path, monkeypatch, **fields):
    asked = recipe(**fields)
    run = Run.create(asked, tmp_path / "runs" / "animals")
    run.model.mkdir()
    (run.model / "genwright.json").write_text('{"engine": "causal_lm"}')
    (run.model / "adapter_config.json").write_text("{}")
    opened = []
    monkeypatch.setattr("genwright.verbs.models.open_model", lambda *a, **k: opened.append(a) or Adapter())
    monkeypatch.setattr(module, "general_set", lambda *a: GENERAL)
    return asked, run, SimpleNamespace(train=TRAIN, held_out=HELD_OUT), opened


def test_a_run_with_an_adapter_is_its_own_base(tmp_path, monkeypatch):
    asked, run, prepared, opened = a_run(tmp_path, monkeypatch)
    report = evaluate_run(asked, run, prepared)
    assert len(opened) == 1
    assert report.score("exact_match") == 1
    assert report.score("exact_match", "base") == 0
    assert report.score("perplexity", "base") == pytest.approx(judge().score("perplexity", "base"))
    assert {p.name for p in run.folder.iterdir()} >= {"report.json", "report.md", "report.html", "samples"}
    assert next(iter(run.events("evaluate")))["rows"][0]["metric"] == "perplexity"


def test_a_second_evaluation_does_nothing_until_something_changed(tmp_path, monkeypatch):
    asked, run, prepared, opened = a_run(tmp_path, monkeypatch)
    first = evaluate_run(asked, run, prepared)
    assert evaluate_run(asked, run, prepared).facts == first.facts
    assert len(opened) == 1
    evaluate_run(recipe(metrics=["f1"]), run, prepared)
    assert len(opened) == 2
    (run.model / "genwright.json").write_text('{"engine": "causal_lm", "checkpoint": "other"}')
    evaluate_run(recipe(metrics=["f1"]), run, prepared)
    assert len(opened) == 3


def test_a_model_from_random_weights_has_no_base_and_the_report_says_so(tmp_path, monkeypatch):
    asked, run, prepared, _ = a_run(tmp_path, monkeypatch, model={"config": {}})
    (run.model / "adapter_config.json").unlink()
    report = evaluate_run(asked, run, prepared)
    assert not report.facts["compared"]
    assert any("random weights" in note for note in report.facts["notes"])
    assert "random weights" in (run.folder / "report.md").read_text()


def test_the_base_is_left_out_when_the_recipe_says_so(tmp_path, monkeypatch):
    asked, run, prepared, _ = a_run(tmp_path, monkeypatch, evaluate={"base": False})
    assert not evaluate_run(asked, run, prepared).facts["compared"]


# -- general text ------------------------------------------------------------------------------------------------------

CARDS = [name for names in general_module.CARDS.values() for name in names]


@pytest.mark.parametrize("name", CARDS)
def test_the_cards_of_the_general_set_are_sound(name):
    card = find_card(name)
    assert card.kind == "dataset"
    assert card.licence
    assert card.size < 5_000_000


def test_with_no_card_on_the_machine_pythons_reference_stands_in_and_the_report_says_so():
    general = general_set(HELD_OUT, recipe(), TRAIN)
    assert general.name.startswith("python-reference@")
    assert len(general.examples) == 60
    assert "genwright models pull general-prose-en" in general.notes[0]
    assert general_set(HELD_OUT, recipe(), TRAIN) == general


def put_in_store(name, text):
    card = find_card(name)
    card.folder.mkdir(parents=True)
    (card.folder / card.files[0].name).write_text(text, encoding="utf-8")


@pytest.fixture
def pulled(monkeypatch):
    """The cards as if fetched, with small files of their kinds."""
    put_in_store("general-prose-en", "<p>All <b>human</b>\n beings.</p><h1>x</h1><p>Second.</p>")
    put_in_store(
        "general-trivia-en", "conversations:\n- - Who?\n  - '1963'\n- alone\n- - What\n    is it?\n  - A duck.\n"
    )
    put_in_store("general-prose-zh", "<p>人人生而自由。</p>")
    monkeypatch.setattr("genwright.core.card.Card.is_here", property(lambda card: card.folder.is_dir()))
    monkeypatch.setattr(general_module, "sha256_of", lambda path: find_card(path.parent.name).files[0].sha256)


def test_the_general_set_follows_the_languages_of_the_data(pulled):
    english = general_set(HELD_OUT, recipe(), TRAIN)
    assert english.name.startswith("general-prose-en+general-trivia-en@")
    assert [one.answer.text for one in english.examples] == ["All human beings.", "Second.", "1963", "A duck."]
    assert english.notes == ()
    chinese = general_set(Dataset([Example((user("你好"), assistant("你好，很高兴")))]), recipe(), Dataset())
    assert chinese.examples[-1].answer.text == "人人生而自由。"


def test_general_rows_that_were_trained_on_are_left_out_and_counted(pulled):
    train = Dataset([Example((user("who?"), assistant(" 1963 ")))])
    general = general_set(HELD_OUT, recipe(), train)
    assert "1963" not in [one.answer.text for one in general.examples]
    assert "1 general rows stand in the training data" in general.notes[0]


def test_general_rows_are_framed_like_the_tasks_own(pulled):
    general = general_set(HELD_OUT, recipe(task="continue"), Dataset())
    assert all(len(one.messages) == 1 for one in general.examples)
    asked = recipe(task={"name": "instruct", "template": "Q: {prompt}"})
    assert general_set(HELD_OUT, asked, Dataset()).examples[2].prompt[0].text == "Q: Who?"


def test_an_altered_file_of_the_general_set_is_refused():
    card = find_card("general-trivia-en")
    card.folder.mkdir(parents=True)
    (card.folder / card.files[0].name).write_text("x" * card.size)
    with pytest.raises(module.GenwrightError, match="altered"):
        general_set(HELD_OUT, recipe(), TRAIN)
