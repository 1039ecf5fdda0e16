"""/v1/fine_tuning/jobs through the official client: what is asked, what is refused, what is learned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from genwright.core import Recipe
from genwright.server.training_rows import check_rows
from genwright.server.tuning import CSV_COLUMNS, recipe_of, resolved, result_csv
from genwright.server.tuning_work import Tail, Tuning
from tests.formats.tiny import SENTENCES

from .works import ROWS, house_of, serving, tiny_base, until, upload

OVER = ("succeeded", "failed", "cancelled")


def _said(role: str, text: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **more}


U, A = _said("user", "Is it late?"), _said("assistant", "Yes.")
PAIR = {"input": {"messages": [U]}, "preferred_output": [A], "non_preferred_output": [_said("assistant", "No.")]}


# -- rows ------------------------------------------------------------------------------------------------------------


def _checked(folder: Path, rows: list[Any], kind: Any = "supervised") -> tuple[Any, list[dict[str, Any]]]:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "training.jsonl").write_text("\n".join(lines))
    found = check_rows(folder / "training.jsonl", folder / "rows.jsonl", kind)
    made = folder / "rows.jsonl"
    return found, [json.loads(line) for line in made.read_text().splitlines()] if made.exists() else []


def test_openais_rows_are_taught_as_they_are(tmp_path: Path) -> None:
    talk = [_said("system", "Be brief."), U, A, U, _said("assistant", "Still.")]
    found, rows = _checked(tmp_path, [{"messages": talk}, {"prompt": "Is it late?", "completion": "Yes."}])
    assert (found.lines, found.rows, found.bad, found.weighted) == (2, 2, 0, False)
    assert [row["messages"] for row in rows] == [talk, [U, A]]


def test_a_turn_of_weight_0_is_read_and_not_learned(tmp_path: Path) -> None:
    talk = [U, _said("assistant", "Wrong.", weight=0), U, A, U, _said("assistant", "Still.", weight=1)]
    found, rows = _checked(tmp_path, [{"messages": talk}])
    assert found.weighted
    assert [[m["content"] for m in row["messages"]][1:] for row in rows] == [
        ["Wrong.", "Is it late?", "Yes."], ["Wrong.", "Is it late?", "Yes.", "Is it late?", "Still."],
    ]  # fmt: skip


def test_preferences_keep_the_worse_answer_aside(tmp_path: Path) -> None:
    _, rows = _checked(tmp_path, [PAIR], "dpo")
    assert rows == [{"messages": [U, A], "meta": {"rejected": _said("assistant", "No.")}}]


@pytest.mark.parametrize(("row", "kind", "problem"), [
    ("{", "supervised", "is not JSON"),
    ("[1]", "supervised", "is a list"),
    ('{"a":' * 2000, "supervised", "depth"),
    ({"messages": [U]}, "supervised", "no turn of the assistant"),
    ({"messages": [U, A, U]}, "supervised", "by the user"),
    ({"messages": [U, _said("assistant", " ")]}, "supervised", "is empty"),
    ({"messages": [U, _said("assistant", "a", weight=2)]}, "supervised", "0 or 1"),
    ({"messages": [U, _said("assistant", "a", weight=0)]}, "supervised", "all weights are 0"),
    ({"messages": [_said("user", [{"type": "image", "path": "/etc/passwd"}]), A]}, "supervised", "only text"),
    ({"messages": [U, _said("assistant", None, tool_calls=[{}])]}, "supervised", "`tool_calls`"),
    ({"messages": [U, A], "tools": [{}]}, "supervised", "`tools`"),
    ({"x": 1}, "supervised", "unknown row shape"),
    (PAIR, "supervised", "use the method dpo"),
    ({"messages": [U, A]}, "dpo", "dpo needs"),
    ({**PAIR, "non_preferred_output": [A]}, "dpo", "are the same"),
    ({**PAIR, "preferred_output": [A, A]}, "dpo", "one message each"),
    ({**PAIR, "input": {}}, "dpo", "`input` with `messages`"),
])  # fmt: skip
def test_a_malformed_line_is_named(tmp_path: Path, row: Any, kind: str, problem: str) -> None:
    good = PAIR if kind == "dpo" else ROWS[0]
    found, rows = _checked(tmp_path, [good, row, good], kind)
    assert (found.lines, found.bad, rows) == (3, 1, [])
    assert found.problems[0].startswith("line 2: ")
    assert problem in found.problems[0]


def test_ten_problems_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    found, _ = _checked(tmp_path, ["{"] * 25)
    assert found.sentence("training file").startswith("The training file has 25 malformed of 25 lines. line 1: ")
    assert found.sentence("training file").endswith("and 15 more.")


# -- recipes ---------------------------------------------------------------------------------------------------------


def _recipe(folder: Path, kind: Any = "supervised", **chosen: Any) -> Recipe:
    numbers = {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 1.0, "beta": 0.1} | chosen
    return Recipe.from_dict(recipe_of(
        name="ft:a:b::c", source="smollm2-135m-instruct", kind=kind, folder=folder, rows=10, weighted=False,
        validated=True, chosen=numbers, seed=7, trackers=[], formats=[{"name": "gguf", "adapter": True}],
    ))  # fmt: skip


def test_every_hyperparameter_turns_something(tmp_path: Path) -> None:
    plain = _recipe(tmp_path)
    assert _recipe(tmp_path, n_epochs=5).train.epochs == 5 != plain.train.epochs
    assert _recipe(tmp_path, batch_size=4).train.rows_per_batch == 4 != plain.train.rows_per_batch
    twice = _recipe(tmp_path, learning_rate_multiplier=2.0)
    assert twice.train.learning_rate == 2 * plain.train.learning_rate
    assert _recipe(tmp_path, "dpo", beta=0.3).chosen_objective.settings.beta == 0.3
    assert (plain.seed, plain.objective and plain.objective.name) == (7, "sft")


def test_auto_depends_on_the_rows() -> None:
    auto = dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier", "beta"), "auto")
    found = [resolved(auto, rows, 1) for rows in (1, 10, 100, 1000, 100_000)]
    assert [one["n_epochs"] for one in found] == [25, 10, 3, 3, 1]
    assert [one["batch_size"] for one in found] == [1, 1, 2, 16, 16]
    assert resolved({"n_epochs": 2, "batch_size": "auto"}, 100, 1) == {"n_epochs": 2, "batch_size": 2}
    rates = [resolved(auto, 100, size)["learning_rate_multiplier"] for size in (10**8, 10**10)]
    assert rates == [2.0, 1.0]


def test_the_result_file_has_openais_columns() -> None:
    events = [
        {"event": "look", "step": 0, "held_out_loss": 9.0},
        {"event": "step", "step": 1, "loss": 2.5, "figures": {"accuracy": 0.5}},
        {"event": "look", "step": 1, "held_out_loss": 3.0},
        {"event": "step", "step": 2, "loss": 2.0},
    ]
    assert result_csv(events) == f"{','.join(CSV_COLUMNS)}\n1,2.5,0.5,3.0,\n2,2.0,,,\n"


def test_a_tail_reads_whole_lines_once_and_starts_again_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    path.write_text('{"a": 1}\n{"a"')
    assert tail.read() == [{"a": 1}]
    with path.open("a") as file:
        file.write(': 2}\ntorn{\n{"a": 3}\n')
    assert tail.read() == [{"a": 2}, {"a": 3}]
    path.with_suffix(".new").write_text('{"a": 4}\n')
    path.with_suffix(".new").replace(path)
    assert tail.read() == [{"a": 4}]


def test_a_start_that_is_read_before_the_first_step_is_not_forgotten(tmp_path: Path) -> None:
    class Jobs:
        """Remembers, as the table does."""

        async def remember(self, job: Any, place: dict[str, Any]) -> None:
            job.place = dict(place)

        async def event(self, job: str, message: str, *more: Any) -> None:
            notes.append(message)

    notes: list[str] = []
    job: Any = SimpleNamespace(id="ftjob-1", payload={}, place={"phase": "running"})
    tuning = Tuning(job, SimpleNamespace(options=SimpleNamespace(data=tmp_path), jobs=Jobs()))  # type: ignore[arg-type]
    tuning.run.mkdir(parents=True)
    events = tuning.run / "events.jsonl"
    events.write_text('{"event": "tune.start", "steps": 4}\n')
    asyncio.run(tuning._look())
    with events.open("a") as file:
        file.write('{"event": "step", "step": 1, "loss": 2.0, "seconds": 0.5}\n')
    asyncio.run(tuning._look())
    assert (job.place["steps"], job.place["step"]) == (4, 1)
    assert notes == ["Step 1/4: training loss=2.0000"]


# -- the server ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Iterator[Any]:
    """A client of a server with one tiny model."""
    place = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENWRIGHT_HOME", str(place / "home"))
        with serving(house_of(place, tiny_base(place / "base"))) as client:
            yield client


@pytest.fixture(scope="module")
def job(made: Any) -> Any:
    """A job that has succeeded."""
    asked = made.fine_tuning.jobs.create(
        model="tiny", training_file=upload(made, ROWS), validation_file=upload(made, ROWS[:1]), suffix="late", seed=3,
        metadata={"topic": "ferries"}, method={"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": 20, "batch_size": 1, "learning_rate_multiplier": 8}}},
    )  # fmt: skip
    assert (asked.status, asked.fine_tuned_model, asked.trained_tokens) == ("validating_files", None, None)
    return until(lambda: made.fine_tuning.jobs.retrieve(asked.id), lambda seen: seen.status in OVER)


def test_an_uploaded_file_becomes_a_model_that_answers(made: Any, job: Any) -> None:
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model == f"ft:tiny:local:late:{job.id[-8:]}"
    assert job.hyperparameters.to_dict() == {"n_epochs": 20, "batch_size": 1, "learning_rate_multiplier": 8.0}
    assert job.finished_at >= job.created_at
    ask: Any = {"messages": [_said("user", SENTENCES[0])], "max_tokens": 40}
    tuned = made.chat.completions.create(model=job.fine_tuned_model, **ask).choices[0].message.content
    base = made.chat.completions.create(model="tiny", **ask).choices[0].message.content
    assert (tuned, base) == ("The ferry is late.", SENTENCES[1])


def test_the_result_file_tells_every_step(made: Any, job: Any) -> None:
    lines = made.files.content(job.result_files[0]).text.splitlines()
    assert lines[0] == ",".join(CSV_COLUMNS)
    steps = [line.split(",") for line in lines[1:]]
    assert [int(step[0]) for step in steps] == list(range(1, 81))  # 4 rows one by one, 20 times
    assert float(steps[-1][1]) < float(steps[0][1])
    assert steps[-1][3]  # the validation loss at the end
    assert made.files.retrieve(job.result_files[0]).purpose == "fine-tune-results"


def test_trained_tokens_are_those_that_passed_through(made: Any, job: Any) -> None:
    """Each of four rows 20 times: all of its tokens, questions and template included."""
    from tests.formats.tiny import tokenizer

    rows = [tokenizer().apply_chat_template(row["messages"], return_dict=False) for row in ROWS[1:]]
    newline = len(tokenizer()("\n").input_ids)  # what the template says after the answer is not taught
    assert job.trained_tokens == 20 * sum(len(row) - newline - 1 for row in rows)  # the last token is only foretold


def test_events_are_paged_and_measured(made: Any, job: Any) -> None:
    seen = list(made.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [seen[0].message, seen[-1].message[:24]] == [
        "The job has successfully completed",
        "Validating training file",
    ]
    assert len({event.id for event in seen}) == len(seen) > 4
    measured = [event for event in seen if event.type == "metrics"]
    assert measured[0].data["step"] == measured[0].data["total_steps"] == 80
    assert any("1 training rows stand in the validation file too" in event.message for event in seen)
    with pytest.raises(openai.BadRequestError):
        made.fine_tuning.jobs.list_events(job.id, after="ftevent-other-1")


def test_events_can_be_followed_from_anywhere(made: Any, job: Any) -> None:
    def followed(**asked: str) -> list[str]:
        path = f"{made.base_url}fine_tuning/jobs/{job.id}/events"
        answer = httpx.get(path, params={"stream": "true", **asked}, headers={"authorization": "Bearer none"})
        return [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]

    whole = followed()
    assert whole[-1] == "[DONE]"
    assert len(whole) > 5
    assert followed(after=json.loads(whole[1])["id"]) == whole[2:]


def test_checkpoints_are_models_too(made: Any, job: Any) -> None:
    found = list(made.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [one.step_number for one in found] == [80, 75, 70]
    assert found[0].fine_tuned_model_checkpoint == job.fine_tuned_model
    assert found[0].metrics.train_loss
    ask: Any = {"messages": [_said("user", SENTENCES[0])], "max_tokens": 40}
    earlier = made.chat.completions.create(model=found[-1].fine_tuned_model_checkpoint, **ask)
    assert earlier.choices[0].message.content == "The ferry is late."


def test_jobs_are_listed_also_by_metadata(made: Any, job: Any) -> None:
    assert job.id in [one.id for one in made.fine_tuning.jobs.list(limit=1)]
    assert [one.id for one in made.fine_tuning.jobs.list(metadata={"topic": "ferries"})] == [job.id]
    assert list(made.fine_tuning.jobs.list(metadata={"topic": "trains"})) == []
    assert job.id not in [one.id for one in made.fine_tuning.jobs.list(extra_query={"metadata": "null"})]


def test_a_job_that_is_over_cannot_be_stopped(made: Any, job: Any) -> None:
    for verb in ("cancel", "pause", "resume"):
        with pytest.raises(openai.BadRequestError, match="succeeded"):
            getattr(made.fine_tuning.jobs, verb)(job.id)


def test_a_broken_file_fails_the_job_with_line_numbers(made: Any) -> None:
    file = upload(made, [ROWS[0], "{broken", {"messages": [U]}])
    asked = made.fine_tuning.jobs.create(model="tiny", training_file=file)
    failed = until(lambda: made.fine_tuning.jobs.retrieve(asked.id), lambda seen: seen.status in OVER)
    assert (failed.status, failed.error.code, failed.error.param) == (
        "failed",
        "invalid_training_file",
        "training_file",
    )
    assert "2 malformed of 3 lines" in failed.error.message
    assert "line 2: is not JSON" in failed.error.message
    assert "line 3: there is no turn of the assistant" in failed.error.message
    asked = made.fine_tuning.jobs.create(model="tiny", training_file=upload(made, ROWS), validation_file=file)
    failed = until(lambda: made.fine_tuning.jobs.retrieve(asked.id), lambda seen: seen.status in OVER)
    assert (failed.error.code, failed.error.param) == ("invalid_validation_file", "validation_file")


@pytest.mark.parametrize(("changes", "param"), [
    ({"model": "nobody"}, "model"),
    ({"training_file": "file-nothing"}, "training_file"),
    ({"validation_file": "file-nothing"}, "validation_file"),
    ({"suffix": "a b"}, "suffix"),
    ({"suffix": "x" * 65}, "suffix"),
    ({"seed": -1}, "seed"),
    ({"metadata": {"a": 5}}, "metadata.a"),
    ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
    ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
    ({"hyperparameters": {"batch_size": 1000}}, "hyperparameters.batch_size"),
    ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier"),
    ({"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta"),
    ({"method": {"type": "reinforcement"}}, "method.type"),
    ({"method": {"type": "dpo"}, "hyperparameters": {}}, "hyperparameters"),
    ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised"),
    ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 5}}}}, "method.dpo.hyperparameters.beta"),
    ({"integrations": [{"type": "mlflow"}]}, "integrations.0.type"),
    ({"frobnicate": 1}, "frobnicate"),
])  # fmt: skip
def test_wrong_requests_are_told_what_is_wrong(made: Any, changes: dict[str, Any], param: str) -> None:
    asked = {"model": "tiny", "training_file": upload(made, ROWS)} | changes
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as error:
        made.post("/fine_tuning/jobs", body=asked, cast_to=object)
    assert error.value.param == param


def test_a_file_for_something_else_is_refused(made: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="uploaded for 'batch'"):
        made.fine_tuning.jobs.create(model="tiny", training_file=upload(made, ROWS, "batch"))


def test_the_same_key_gives_the_same_job(made: Any) -> None:
    ask = {"model": "tiny", "training_file": upload(made, ["{"])}
    head = {"Idempotency-Key": "once"}
    first = made.fine_tuning.jobs.create(**ask, extra_headers=head)
    again = made.fine_tuning.jobs.create(**ask, extra_headers=head)
    assert first.id == again.id
    assert first.seed == again.seed
    with pytest.raises(openai.ConflictError):
        made.fine_tuning.jobs.create(**ask | {"model": ""} | {"model": "tiny"}, suffix="other", extra_headers=head)


def test_unknown_jobs_are_404(made: Any) -> None:
    for ask in (made.fine_tuning.jobs.retrieve, made.fine_tuning.jobs.cancel, made.fine_tuning.jobs.pause,
                made.fine_tuning.jobs.resume, made.fine_tuning.jobs.list_events):  # fmt: skip
        with pytest.raises(openai.NotFoundError):
            ask("ftjob-nothing")
