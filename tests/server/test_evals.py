"""/v1/evals through the official client in strict mode: criteria, runs, what came of each item, and wrong requests."""

from __future__ import annotations

import doctest
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from genwright.server import templates
from genwright.server.item_schemas import checker
from genwright.server.routes import eval_runs, evals, files
from genwright.server.templates import Missing, places, rendered
from tests.formats.tiny import SENTENCES

from .crew import running_server
from .household import app_of, at_home, small_house
from .household import client as keyed
from .parlour import Parlour, Script, client, upstream
from .works import until, upload

OVER = ("completed", "failed", "canceled")
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}, "a": {"type": "string"}}, "required": ["q"]}
CUSTOM = {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True}
EQUAL = {"type": "string_check", "name": "equal", "operation": "eq", "input": "{{sample.output_text}}",
         "reference": "{{item.a}}"}  # fmt: skip
ASKED = {"type": "template", "template": [{"role": "user", "content": "{{ item.q }}"}]}


def rows(*items: dict[str, Any], samples: list[str] | None = None) -> dict[str, Any]:
    said = [{"sample": {"output_text": one}} for one in samples] if samples else [{}] * len(items)
    return {"type": "file_content", "content": [{"item": item, **more} for item, more in zip(items, said, strict=True)]}


def judged(made: Any, criteria: list[Any], source: dict[str, Any], config: Any = CUSTOM, **more: Any) -> Any:
    """A run at its end."""
    eval = made.evals.create(data_source_config=config, testing_criteria=criteria, name="look")
    run = made.evals.runs.create(eval.id, data_source=source, **more)
    assert run.status in ("queued", "in_progress", "completed")
    return until(lambda: made.evals.runs.retrieve(run.id, eval_id=eval.id), lambda seen: seen.status in OVER)


def items_of(made: Any, run: Any, **more: Any) -> list[Any]:
    return list(made.evals.runs.output_items.list(run.id, eval_id=run.eval_id, **more))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: Any) -> Iterator[Any]:
    """A server without models: what is there already is judged."""
    house = small_house(tmp_path_factory.mktemp("evals"))
    with at_home(app_of(house, evals, eval_runs, files)) as address, client(address) as made:
        yield made
    house.store.close()


# -- templates and schemas --------------------------------------------------------------------------------------------


def test_a_template_only_names_places() -> None:
    assert doctest.testmod(templates).failed == 0
    names = {"item": {"a": "x", "many": [{"b": 1}], "{{": "y"}, "sample": {"output_json": {"n": None}}}
    assert rendered("{{item.a}}{{ item.many[0].b }}{{item.many}} {not} }}", names) == 'x1[{"b":1}] {not} }}'
    assert rendered("{{sample.output_json.n}}", names) == "null"
    for wrong in ("{{item.b}}", "{{item.a.b}}", "{{item.many.1}}", "{{item.__class__}}", "{{item.a|upper}}", "{{1+1}}"):
        with pytest.raises(Missing):
            rendered(wrong, names)
    with pytest.raises(Missing, match="longer than"):
        rendered("{{item.a}}" * 1000, {"item": {"a": "x" * 2000}})
    for broken in ("{{item.a", "{{ {item.a} }}", "{{}}", "{{item..a}}"):
        with pytest.raises(Missing):
            list(places(broken))


def test_what_an_item_writes_is_not_a_template_itself() -> None:
    assert rendered("{{item.a}}", {"item": {"a": "{{item.b}}", "b": "secret"}}) == "{{item.b}}"


def test_no_schema_takes_for_ever_or_fetches_anything() -> None:
    from genwright.server.errors import Wrong

    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    with pytest.raises(Wrong, match="nested too deep"):
        checker({"$ref": "#/$defs/d0", "$defs": doubling | {"d40": {"type": "object"}}}, "schema")
    for schema, said in (({"pattern": "(a+)+$"}, "regular expression"), ({"$ref": "http://127.0.0.1/x"}, "fetched"),
                         ({"$ref": "#/nowhere"}, "leads nowhere"), ({"type": "wibble"}, "no JSON schema")):  # fmt: skip
        with pytest.raises(Wrong, match=said):
            checker(schema, "schema")
    check = checker({"properties": {"pattern": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}}, "schema")
    assert check({"pattern": 1}) == ""
    assert "pattern: 'x' is not of type 'integer'" in check({"pattern": "x"})


# -- evals ------------------------------------------------------------------------------------------------------------


def test_an_eval_is_made_shown_changed_listed_and_forgotten(plain: Any) -> None:
    eval = plain.evals.create(name="one", data_source_config=CUSTOM, testing_criteria=[EQUAL], metadata={"a": "b"})
    assert set(eval.data_source_config.schema_["properties"]) == {"item", "sample"}
    assert eval.testing_criteria[0].operation == "eq"
    assert plain.evals.retrieve(eval.id).to_dict() == eval.to_dict()
    logs = {"type": "logs", "metadata": {"x": "y"}}
    other = plain.evals.create(data_source_config=logs, testing_criteria=[EQUAL | {"reference": "{{item.id}}"}])
    assert other.data_source_config.metadata == {"x": "y"}
    changed = plain.evals.update(eval.id, name="two")
    assert (changed.name, changed.metadata) == ("two", {"a": "b"})
    ids = [one.id for one in plain.evals.list(limit=1)]
    assert ids.index(eval.id) < ids.index(other.id)
    assert [one.id for one in plain.evals.list(order_by="updated_at", order="desc")][:2] != []
    assert plain.evals.delete(eval.id).deleted
    with pytest.raises(openai.NotFoundError):
        plain.evals.retrieve(eval.id)


@pytest.mark.parametrize(("changes", "param", "said"), [
    ({"type": "python", "source": "def grade(): ..."}, "testing_criteria.0.type", "No code is run here"),
    ({"type": "multi"}, "testing_criteria.0.type", "only for fine-tuning"),
    ({"type": "wibble"}, "testing_criteria.0", "string_check"),
    ({"operation": "regex"}, "testing_criteria.0.operation", "ilike"),
    ({"input": "{{item.q"}, "testing_criteria.0.input", "not closed"),
    ({"input": "{{item.nothing}}"}, "testing_criteria.0.input", "no 'nothing'"),
    ({"input": "{{env.HOME}}"}, "testing_criteria.0.input", "not 'env'"),
    ({"frobnicate": 1}, "testing_criteria.0.frobnicate", "not supported"),
])  # fmt: skip
def test_a_wrong_criterion_is_told_what_is_wrong(plain: Any, changes: Any, param: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as error:
        plain.evals.create(data_source_config=CUSTOM, testing_criteria=[EQUAL | changes])
    assert error.value.param == param


def test_a_criterion_may_only_speak_of_answers_where_there_are_any(plain: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="include_sample_schema"):
        plain.evals.create(data_source_config={"type": "custom", "item_schema": SCHEMA}, testing_criteria=[EQUAL])
    with pytest.raises(openai.BadRequestError, match="could not be told apart"):
        plain.evals.create(data_source_config=CUSTOM, testing_criteria=[EQUAL, EQUAL])
    with pytest.raises(openai.BadRequestError, match="no JSON schema"):
        plain.evals.create(data_source_config=CUSTOM | {"item_schema": {"type": 5}}, testing_criteria=[EQUAL])


def test_what_cannot_be_compared_by_here_is_a_clear_error(parlour: Parlour, talk: Any) -> None:
    meteor = {"type": "text_similarity", "name": "m", "evaluation_metric": "meteor", "input": "{{item.q}}",
              "reference": "a", "pass_threshold": 0.5}  # fmt: skip
    judge = {"type": "label_model", "name": "j", "model": "nobody", "input": [{"role": "user", "content": "x"}],
             "labels": ["a"], "passing_labels": ["a"]}  # fmt: skip
    picture = judge | {"model": "tiny", "input": [{"role": "user", "content": [{"type": "input_image"}]}]}
    for criterion, param in ((meteor, "evaluation_metric"), (judge, "model"), (picture, "input.0.content"),
                             (judge | {"passing_labels": ["b"]}, "")):  # fmt: skip
        with pytest.raises(openai.BadRequestError) as error:
            talk.evals.create(data_source_config=CUSTOM, testing_criteria=[criterion])
        assert error.value.param == f"testing_criteria.0.{param}".rstrip(".")


# -- runs over what is there ------------------------------------------------------------------------------------------


def test_strings_are_compared_in_four_ways(plain: Any) -> None:
    ways = [EQUAL | {"name": way, "operation": way} for way in ("eq", "ne", "like", "ilike")]
    source = {"type": "jsonl", "source": rows(*[{"q": "?", "a": "Cat"}] * 3, samples=["Cat", "a Cat", "a cat"])}
    run = judged(plain, ways, source, metadata={"why": "look"})
    assert (run.status, run.metadata, run.model, run.error.message) == ("completed", {"why": "look"}, "", "")
    assert run.result_counts.to_dict() == {"passed": 0, "failed": 3, "errored": 0, "total": 3}
    assert [(one.testing_criteria, one.passed) for one in run.per_testing_criteria_results] == [
        ("eq", 1), ("ne", 2), ("like", 2), ("ilike", 3)]  # fmt: skip
    items = items_of(plain, run, limit=2)
    assert [[result.passed for result in item.results] for item in items] == [
        [True, False, True, True], [False, True, True, True], [False, True, False, True]]  # fmt: skip
    assert [item.datasource_item_id for item in items] == [0, 1, 2]
    assert items[0].sample.output[0].content == "Cat"
    one = plain.evals.runs.output_items.retrieve(items[1].id, eval_id=run.eval_id, run_id=run.id)
    assert one.to_dict() == items[1].to_dict()
    assert len(items_of(plain, run, status="fail")) == 3
    assert items_of(plain, run, status="pass") == []


def test_how_like_two_texts_are(plain: Any) -> None:
    said, wanted = "the cat is on the mat", "the cat sat on the mat"
    names = ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"]
    criteria = [{"type": "text_similarity", "name": name, "evaluation_metric": name, "input": "{{item.q}}",
                 "reference": "{{item.a}}", "pass_threshold": 0.5} for name in names]  # fmt: skip
    run = judged(plain, criteria, {"type": "jsonl", "source": rows({"q": said, "a": wanted})})
    scores = {result.name: result.score for result in items_of(plain, run)[0].results}
    # 21 and 22 characters with 20 in common; 9 of 18 n-grams (1 to 4) shared; n-grams of 6 words
    by_hand = {"fuzzy_match": 2 * 20 / 43, "gleu": 9 / 18, "rouge_1": 5 / 6, "rouge_2": 3 / 5, "rouge_3": 1 / 4,
               "rouge_4": 0, "rouge_5": 0, "rouge_l": 5 / 6}  # fmt: skip
    assert {name: scores[name] for name in by_hand} == pytest.approx(by_hand)
    assert 0 < scores["bleu"] < 0.5


def test_comparing_texts_brings_no_torch_into_the_server() -> None:
    code = (
        "import sys\nfrom genwright.server.grading import METRICS, likeness\n"
        "assert [likeness(name, 'a b c d e', 'a b c d e') for name in METRICS] == [1.0] * len(METRICS)\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_an_item_that_lacks_what_a_criterion_reads_is_an_error_of_its_own(plain: Any) -> None:
    source = {"type": "jsonl", "source": rows({"q": "1", "a": "x"}, {"q": "2"}, samples=["x", "x"])}
    run = judged(plain, [EQUAL], source)
    assert run.result_counts.to_dict() == {"passed": 1, "failed": 0, "errored": 1, "total": 2}
    wrong = items_of(plain, run)[1]
    assert (wrong.status, wrong.results[0].passed) == ("error", False)
    assert "'item.a'" in wrong.results[0].error["message"]  # type: ignore[index]


def test_answers_as_json_and_as_whole_bodies_can_be_named(plain: Any) -> None:
    body = {"model": "m", "choices": [{"message": {"content": '{"n": [4]}'}, "finish_reason": "stop"}]}
    check = EQUAL | {"input": "{{sample.output_json.n[0]}} {{sample.model}}", "reference": "4 m"}
    source = {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {"q": ""}, "sample": body}]}}
    run = judged(plain, [check], source)
    assert run.result_counts.passed == 1
    assert items_of(plain, run)[0].sample.finish_reason == "stop"


def test_a_broken_file_fails_the_run_with_line_numbers(plain: Any) -> None:
    lines = [{"item": {"q": "a"}}, "{", "", [], {"item": 5}, {"item": {"q": 5}}, {"item": {}}]
    file = upload(plain, [line if isinstance(line, str) else json.dumps(line) for line in lines], "user_data")
    check = EQUAL | {"input": "{{item.q}}", "reference": "a"}
    source = {"type": "jsonl", "source": {"type": "file_id", "id": file}}
    with pytest.raises(openai.BadRequestError, match="not for 'evals'"):
        judged(plain, [check], source)
    lenient = plain.with_options()
    lenient._strict_response_validation = False  # the client sends the purpose `evals` and has no type to read it
    source["source"]["id"] = upload(lenient, lines, "evals")  # type: ignore[index]
    run = judged(plain, [check], source)
    assert (run.status, run.error.code) == ("failed", "invalid_json_line")
    assert [f"Line {number}: " in run.error.message for number in range(1, 9)] == [
        False, True, False, True, True, True, True, False]  # fmt: skip
    deep = '{"item": {"q": "a", "b": ' + "[" * 500 + "]" * 500 + "}}"
    source["source"]["id"] = upload(lenient, [deep, {"item": {"q": "a" * 1_000_000}}], "evals")  # type: ignore[index]
    told = judged(plain, [check], source).error.message
    assert "Line 1: The line cannot be used: it is nested deeper" in told
    assert "Line 2: The line is longer than" in told
    source["source"]["id"] = upload(lenient, [{"item": {"q": "a"}}, {"item": {"q": "b"}}], "evals")  # type: ignore[index]
    assert judged(plain, [check], source).result_counts.passed == 1
    assert "Line 1: There is no `sample`" in judged(plain, [EQUAL], source).error.message


@pytest.mark.parametrize(("source", "param"), [
    ({"type": "jsonl", "source": {"type": "file_id", "id": "file-nothing"}}, "data_source.source.id"),
    ({"type": "jsonl", "source": {"type": "file_content", "content": []}}, "data_source.source.content"),
    ({"type": "wibble", "source": rows({"q": "a"})}, "data_source"),
    ({"type": "completions", "source": rows({"q": "a"}), "model": "nobody"}, "data_source.model"),
    ({"type": "completions", "source": rows({"q": "a"}), "model": "tiny"}, "data_source.input_messages"),
    ({"type": "completions", "source": rows({"q": "a"}), "input_messages": ASKED}, "data_source.model"),
    ({"type": "completions", "source": rows({"q": "a"}), "model": "tiny", "input_messages": {
        "type": "template", "template": [{"role": "user", "content": "{{item.x}}"}]}},
     "data_source.input_messages.template.0.content"),
    ({"type": "completions", "source": rows({"q": "a"}), "model": "tiny", "input_messages": ASKED,
      "sampling_params": {"temperature": 9}}, "data_source.sampling_params.temperature"),
])  # fmt: skip
def test_a_wrong_run_is_told_what_is_wrong(talk: Any, source: Any, param: str) -> None:
    eval = talk.evals.create(data_source_config=CUSTOM, testing_criteria=[EQUAL])
    with pytest.raises(openai.BadRequestError) as error:
        talk.evals.runs.create(eval.id, data_source=source)
    assert error.value.param == param


def test_runs_are_listed_deleted_and_belong_to_their_eval(plain: Any) -> None:
    source = {"type": "jsonl", "source": rows({"q": "1", "a": "x"}, samples=["x"])}
    run = judged(plain, [EQUAL], source)
    other = plain.evals.create(data_source_config=CUSTOM, testing_criteria=[EQUAL])
    again = plain.evals.runs.create(run.eval_id, data_source=source, extra_headers={"Idempotency-Key": "k"})
    assert (
        plain.evals.runs.create(run.eval_id, data_source=source, extra_headers={"Idempotency-Key": "k"}).id == again.id
    )
    assert [one.id for one in plain.evals.runs.list(run.eval_id, limit=1)] == [run.id, again.id]
    assert list(plain.evals.runs.list(other.id)) == list(plain.evals.runs.list(run.eval_id, status="failed")) == []
    until(lambda: plain.evals.runs.retrieve(again.id, eval_id=run.eval_id), lambda seen: seen.status == "completed")
    with pytest.raises(openai.NotFoundError):
        plain.evals.runs.retrieve(run.id, eval_id=other.id)
    with pytest.raises(openai.BadRequestError, match="completed already"):
        plain.evals.runs.cancel(run.id, eval_id=run.eval_id)
    item = items_of(plain, run)[0].id
    assert plain.evals.runs.delete(run.id, eval_id=run.eval_id).deleted
    with pytest.raises(openai.NotFoundError):
        plain.evals.runs.output_items.retrieve(item, eval_id=run.eval_id, run_id=run.id)
    assert plain.evals.delete(run.eval_id).deleted
    with pytest.raises(openai.NotFoundError):
        plain.evals.runs.retrieve(again.id, eval_id=run.eval_id)


def test_what_is_somebody_elses_is_not_there(tmp_path: Path) -> None:
    house = small_house(tmp_path)
    keys = [house.keys.create(name)[1] for name in ("ann", "bob")]
    with at_home(app_of(house, evals, eval_runs)) as address:
        ann, bob = (keyed(address, key) for key in keys)
        run = judged(ann, [EQUAL], {"type": "jsonl", "source": rows({"q": "1", "a": "x"}, samples=["x"])})
        item = items_of(ann, run)[0].id
        for ask in (
            lambda: bob.evals.retrieve(run.eval_id), lambda: bob.evals.update(run.eval_id, name="mine"),
            lambda: bob.evals.delete(run.eval_id), lambda: bob.evals.runs.list(run.eval_id),
            lambda: bob.evals.runs.create(run.eval_id, data_source={"type": "jsonl", "source": rows({"q": "1"})}),
            lambda: bob.evals.runs.retrieve(run.id, eval_id=run.eval_id),
            lambda: bob.evals.runs.cancel(run.id, eval_id=run.eval_id),
            lambda: bob.evals.runs.delete(run.id, eval_id=run.eval_id),
            lambda: bob.evals.runs.output_items.list(run.id, eval_id=run.eval_id),
            lambda: bob.evals.runs.output_items.retrieve(item, eval_id=run.eval_id, run_id=run.id),
        ):  # fmt: skip
            with pytest.raises(openai.NotFoundError):
                ask()
        assert list(bob.evals.list()) == []
        assert items_of(ann, run)[0].status == "pass"
    house.store.close()


# -- runs that ask models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["completions", "responses"])
def test_a_model_is_asked_and_judged_item_by_item(talk: Any, kind: str) -> None:
    said = [talk.chat.completions.create(model="tiny", messages=[{"role": "user", "content": text}], max_tokens=40,
                                         temperature=0).choices[0].message.content for text in SENTENCES]  # fmt: skip
    items = [{"q": text, "a": answer} for text, answer in zip(SENTENCES, said, strict=True)]
    source = {"type": kind, "source": rows(*items, {"q": "?", "a": "not this"}), "model": "tiny",
              "input_messages": ASKED,
              "sampling_params": {"max_completion_tokens": 40, "temperature": 0, "seed": 1}}  # fmt: skip
    run = judged(talk, [EQUAL], source)
    assert (run.status, run.model, run.error.message) == ("completed", "tiny", "")
    assert run.result_counts.to_dict() == {"passed": 5, "failed": 1, "errored": 0, "total": 6}
    assert [(one.run_model_name, one.invocation_count) for one in run.per_model_usage] == [("tiny", 6)]
    shown = items_of(talk, run)
    assert run.per_model_usage[0].total_tokens == sum(item.sample.usage.total_tokens for item in shown)
    assert [item.sample.output[0].content for item in shown[:5]] == said
    first = shown[0].sample
    assert (first.input[0].content, first.seed, first.max_completion_tokens) == (SENTENCES[0], 1, 40)
    assert first.finish_reason == "stop"


def test_a_model_that_judges_cannot_but_answer_in_form(talk: Any) -> None:
    judge = {"model": "tiny", "input": [{"role": "user", "content": "{{item.q}}"}]}
    criteria = [
        {"type": "label_model", "name": "label", "labels": ["good", "bad"], "passing_labels": ["good", "bad"], **judge},
        {"type": "score_model", "name": "score", "range": [1, 5], "pass_threshold": 1, **judge,
         "sampling_params": {"max_completions_tokens": 20, "temperature": 1, "seed": 3}},
        {"type": "text_similarity", "name": "near", "evaluation_metric": "cosine", "input": "{{item.q}}",
         "reference": "{{item.a}}", "pass_threshold": 0.9},
    ]  # fmt: skip
    source = rows({"q": "a cat", "a": "a cat"}, {"q": "a cat", "a": "the tax of Denmark"}, {"q": "", "a": "x"})
    run = judged(talk, criteria, {"type": "jsonl", "source": source})
    assert run.result_counts.errored == 0, items_of(talk, run)
    for item in items_of(talk, run):
        label, score, _ = item.results
        assert label.score == 1.0
        assert 1 <= score.score <= 5
        assert json.loads(label.sample["output"][0]["content"])["result"] in ("good", "bad")  # type: ignore[index]
    assert [item.results[2].passed for item in items_of(talk, run)] == [True, False, False]
    counts = {one.run_model_name: one.invocation_count for one in run.per_model_usage}
    assert counts == {"tiny": 6, "universal-sentence-encoder": 2}


@pytest.mark.parametrize(("said", "score", "passed"), [
    ('{"result": 0.7}', 0.7, True), ('{"result": 0.2}', 0.2, False), ('{"result": 7}', 0, None), ("Well.", 0, None),
])  # fmt: skip
def test_what_a_judge_says_is_the_score(parlour: Parlour, talk: Any, said: str, score: float, passed: Any) -> None:
    parlour.script.says(said)
    question = {"role": "user", "content": [{"type": "input_text", "text": "{{item.q}}"}]}
    criterion = {"type": "score_model", "name": "s", "model": "says",
                 "input": [{"role": "system", "content": "Judge."}, question]}  # fmt: skip
    run = judged(talk, [criterion], {"type": "jsonl", "source": rows({"q": "how?"})})
    found = items_of(talk, run)[0]
    assert (found.results[0].score, found.results[0].passed) == (score, bool(passed))
    assert found.status == {True: "pass", False: "fail", None: "error"}[passed]
    assert parlour.script.seen == [
        ("system", 'Judge.\n\nAnswer with JSON: {"result": a number from 0 to 1}.'), ("user", "how?")]  # fmt: skip


def test_an_item_that_a_model_does_not_answer_is_an_error_of_its_own(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("forbidden")
    source = {"type": "completions", "model": "guarded", "input_messages": ASKED, "source": rows({"q": "1", "a": "x"})}
    run = judged(talk, [EQUAL], source)
    assert (run.status, run.result_counts.errored) == ("completed", 1)
    item = items_of(talk, run)[0]
    assert (item.status, item.results, item.sample.error.code) == ("error", [], "sample_error")


def test_kept_answers_are_judged_as_they_are_or_asked_anew(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("A cat.")
    said: Any = [{"role": "user", "content": "What is it?"}]
    kept = {"store": True, "metadata": {"eval": "this"}}
    chat = talk.chat.completions.create(model="says", messages=said, **kept).id
    talk.chat.completions.create(model="says", messages=said, store=True)
    response = talk.responses.create(model="says", input="What is it?", instructions="Say.", **kept).id
    check = {"type": "string_check", "name": "c", "operation": "eq", "input": "{{item.id}}: {{sample.output_text}}",
             "reference": ""}  # fmt: skip
    config = {"type": "logs", "metadata": {"eval": "this"}}
    for kind, of, id in (("completions", "stored_completions", chat), ("responses", "responses", response)):
        run = judged(talk, [check | {"reference": f"{id}: A cat."}], {"type": kind, "source": {"type": of}}, config)
        assert run.result_counts.to_dict() == {"passed": 1, "failed": 0, "errored": 0, "total": 1}, items_of(talk, run)
        parlour.script.says("A dog.")
        anew = {"type": kind, "source": {"type": of, "model": "says"}, "model": "says",
                "input_messages": {"type": "item_reference", "item_reference": "item.input"}}  # fmt: skip
        run = judged(talk, [check | {"reference": f"{id}: A dog."}], anew, config)
        assert run.result_counts.passed == 1, items_of(talk, run)
        assert parlour.script.seen[-1] == ("user", "What is it?")
    none = judged(
        talk, [check], {"type": "completions", "source": {"type": "stored_completions", "model": "x"}}, config
    )
    assert (none.status, none.error.code) == ("failed", "no_items")
    with pytest.raises(openai.BadRequestError, match="kept answers"):
        judged(talk, [check], {"type": "jsonl", "source": rows({"q": "1"})}, config)


def test_a_cancelled_run_keeps_what_was_judged(parlour: Parlour, talk: Any) -> None:
    parlour.script.says("x", pause=0.05)
    source = {"type": "completions", "model": "says", "input_messages": ASKED,
              "source": rows(*[{"q": str(n), "a": "x"} for n in range(1000)])}  # fmt: skip
    eval = talk.evals.create(data_source_config=CUSTOM, testing_criteria=[EQUAL])
    run = talk.evals.runs.create(eval.id, data_source=source)
    until(lambda: len(parlour.script.asked), lambda asked: asked > 20)
    assert talk.evals.runs.cancel(run.id, eval_id=eval.id).status == "canceled"
    until(lambda: parlour.house.options.data / "evals" / run.id, lambda folder: not folder.exists())
    ended = talk.evals.runs.retrieve(run.id, eval_id=eval.id)
    assert ended.status == "canceled"
    assert 0 < ended.result_counts.passed == len(items_of(talk, ended)) < 1000
    asked = len(parlour.script.asked)
    gone = talk.evals.runs.create(eval.id, data_source=source)
    until(lambda: len(parlour.script.asked), lambda now: now > asked)
    assert talk.evals.delete(eval.id).deleted
    until(lambda: parlour.house.options.data / "evals" / gone.id, lambda folder: not folder.exists())


def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    script, count = Script(), 80
    script.says("x", pause=0.02)
    with at_home(upstream(script)) as far:
        engine = {"parallel": 4, "retries": 0, "failures": 0}
        options = {"models": [{"name": "says", "base_url": far, "engine": engine}]}
        judge = {"type": "label_model", "name": "j", "model": "says", "labels": ["x"], "passing_labels": ["x"],
                 "input": [{"role": "user", "content": "judge {{item.q}}"}]}  # fmt: skip
        source = {"type": "completions", "model": "says", "input_messages": ASKED,
                  "source": rows(*[{"q": str(n), "a": "x"} for n in range(count)])}  # fmt: skip
        with running_server(tmp_path, options) as first, client(first.address) as made:
            eval = made.evals.create(data_source_config=CUSTOM, testing_criteria=[EQUAL, judge])
            run = made.evals.runs.create(eval.id, data_source=source)
            until(lambda: len(script.asked), lambda asked: asked > 64 + 64 + 8)
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
        before = len(script.asked)
        with running_server(tmp_path, options) as second, client(second.address) as made:
            ended = until(lambda: made.evals.runs.retrieve(run.id, eval_id=eval.id), lambda seen: seen.status in OVER)
            items = items_of(made, ended, limit=100)
    assert ended.status == "completed"
    assert [item.datasource_item_id for item in items] == list(range(count))
    assert ended.result_counts.to_dict() == {
        "passed": 0,
        "failed": 0,
        "errored": count,
        "total": count,
    }  # "x" is no JSON
    assert ended.per_testing_criteria_results[0].passed == count
    asked = [one["messages"][-1]["content"] for one in script.asked]
    assert set(asked) == {str(n) for n in range(count)} | {f"judge {n}" for n in range(count)}
    twice = {text for text in asked if asked.count(text) > 1}
    assert len(twice) <= engine["parallel"], twice  # those that were on their way when it was killed
    assert twice <= set(asked[before - 2 * engine["parallel"] : before])
