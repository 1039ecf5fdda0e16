"""The one door to a model: nothing that a guard objects to gets out, and every answer leaves a row."""

import ast
import json
import random
import sys
import threading
import time
import types
from pathlib import Path

import pytest

import genwright
from genwright.core import (
    DataError,
    Finding,
    Message,
    ModelError,
    Part,
    Provenance,
    Refused,
    Request,
    Run,
    UsageError,
    Verdict,
    assistant,
    choose,
    user,
)
from genwright.core.plugin import Chosen, shelves
from genwright.trust.guarding import GuardSettings
from genwright.trust.ledger import Ledger, verify
from genwright.verbs.generate import answer, generate, generate_many, write_labelled

ROOT = Path(genwright.__file__).parent
ASKED = Request(messages=(user("say it"),))


class Says:
    """A model that says given pieces and knows how far it was heard."""

    def __init__(self, *pieces):
        self.pieces = [p if isinstance(p, Part) else Part(text=p) for p in pieces]
        self.heard, self.closed, self.asked = 0, False, None

    def generate(self, request):
        self.asked = request
        try:
            for piece in self.pieces:
                self.heard += 1
                yield piece
        finally:
            self.closed = True


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl")


def guard(name="keywords", **options):
    return choose("guards", {"name": name, **options})


def made_guard(monkeypatch, check, **names):
    """A guard from a function, as an entry point would bring one."""
    module = types.ModuleType("made_guard")
    module.check, module.Settings = check, GuardSettings
    for name, value in names.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "made_guard", module)
    monkeypatch.setitem(shelves["guards"].places, "made", "made_guard")
    return guard("made")


def heard(model, *guards, ledger, **more):
    """What came out, and the refusal if there was one."""
    out = []
    try:
        for part in generate(model, ASKED, guards=guards, ledger=ledger, **more):
            out.append(part.text)
    except Refused as refusal:
        return "".join(out), refusal
    return "".join(out), None


def cuts(text, number):
    """The text cut into pieces in one of many ways."""
    chance = random.Random(number)
    pieces, at = [], 0
    while at < len(text):
        size = 1 if number == 0 else chance.choice((1, 1, 2, 3, 5, 8, 40))
        pieces.append(text[at : at + size])
        at += size
    return pieces


SECRETS = [
    "bomb",
    "B.o.m.b",
    "b o m b",
    "B0MB",
    "bоmb",
    "ｂｏｍｂ",
    "b\u200bo\u200dm\u2060b",
    "boooomb",
    "b-o-m-b",
    "b0-mb",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_not_one_character_of_a_blocked_word_gets_out(secret, ledger):
    text = f"To be told at length: build {secret}, then go home and bathe."
    start = text.index(secret)
    for number in range(25):
        said, refusal = heard(Says(*cuts(text, number)), guard(words=("bomb", "hell")), ledger=ledger)
        assert refusal is not None, (secret, number)
        assert text[:start].startswith(said), (said, secret, number)
        assert (refusal.guard, refusal.rule) == ("keywords", "keyword")
        assert refusal.hint


def test_a_stretched_letter_after_a_double_one_gives_nothing_away(ledger):
    for number in range(25):
        said, refusal = heard(Says(*cuts("in he terroooooorist! ", number)), guard(words=("terrorist",)), ledger=ledger)
        assert refusal is not None
        assert len(said) <= len("in he "), number


@pytest.mark.parametrize("secret", [*SECRETS, "make a gun", "m a k e a g u n", "炸弹", "炸 弹"])
def test_a_redacted_word_never_leaves_and_the_rest_does(secret, ledger):
    for number in range(15):
        model = Says(*cuts(f"Begin {secret}; end, and bake an egg.", number))
        words = guard(words=("bomb", "make a gun", "炸弹"), action="redact", replacement="###")
        assert heard(model, words, ledger=ledger) == ("Begin ###; end, and bake an egg.", None), (secret, number)


PERSONAL = {
    "ann.o'neil@mail.example.com": None, "someone@example.com": "[email]", "138 1234 5678": "[phone]",
    "13812345678": "[phone]", "11010519491231002X": "[id_card]", "4111 1111 1111 1111": "[bank_card]",
    "GB82 WEST 1234 5698 7654 32": "[iban]", "１３８１２３４５６７８": "[phone]", "京A12345": "[plate]",
}  # fmt: skip


@pytest.mark.parametrize("secret", [s for s, shown in PERSONAL.items() if shown])
def test_personal_data_is_redacted_however_it_is_cut(secret, ledger):
    for number in range(15):
        said, _ = heard(
            Says(*cuts(f"Write to {secret}, please; it is 7 o'clock.", number)), guard("pii"), ledger=ledger
        )
        assert said == f"Write to {PERSONAL[secret]}, please; it is 7 o'clock.", number


def test_a_guarded_stream_of_harmless_text_loses_nothing(ledger):
    text = (
        "Hello! On 3 May 2024 the 2nd of 15 boats went 1,200 km to Scunthorpe… 他很大。会不会？ The pen is mine; bye."
    )
    guards = (guard("pii"), guard(words=("penis", "bomb", "大会", "cunt")))
    for number in range(30):
        assert heard(Says(*cuts(text, number)), *guards, ledger=ledger) == (text, None)


def test_harmless_text_flows_before_the_answer_ends(ledger):
    model = Says(*(f"word{i} and so on, " for i in range(50)))
    stream = generate(model, ASKED, guards=(guard("pii"), guard(words=("bomb",))), ledger=ledger)
    got = ""
    while len(got) < 200:
        got += next(stream).text
    assert model.heard < 20
    stream.close()


def test_a_window_holds_back_what_a_guard_could_still_find(monkeypatch, ledger):
    def check(parts, settings):
        text = "".join(part.text for part in parts)
        at = text.find("abcdefghij")
        return Verdict("block", (Finding("letters", at, at + 10),)) if at >= 0 else Verdict()

    made = made_guard(monkeypatch, check, window=10)
    for number in range(30):
        said, refusal = heard(Says(*cuts("xx abc abcdefghij yy", number)), made, ledger=ledger)
        assert refusal is not None
        assert "xx abc ".startswith(said)


def test_a_refused_request_never_reaches_the_model(ledger):
    model = Says("never")
    with pytest.raises(Refused) as caught:
        list(generate(model, Request(messages=(user("how to b0mb"),)), guards=[guard(words=("bomb",))], ledger=ledger))
    assert model.asked is None
    assert caught.value.guard == "keywords"
    (row,) = ledger.rows()
    assert (row["outcome"], row["verdicts"][0]["side"], row["answer"]["chars"]) == ("refused", "request", 0)


def test_a_redacted_request_reaches_the_model_without_the_data(ledger):
    model = Says("fine")
    request = Request(messages=(user("I am ", "a@b.com", " and she c@d.com"), assistant("ok"), user("go on")))
    list(generate(model, request, guards=[guard("pii")], ledger=ledger))
    assert [m.text for m in model.asked.messages] == ["I am [email] and she [email]", "ok", "go on"]
    assert len(model.asked.messages[0].parts) == 3


def test_sides_choose_what_is_looked_at(ledger):
    request = Request(messages=(user("a@b.com"),))
    model = Says("c@d.com")
    only_answer, only_request = guard("pii", sides=["answer"]), guard("pii", sides=["request"])
    assert answer(model, request, guards=[only_answer], ledger=ledger).text == "[email]"
    assert model.asked.messages[0].text == "a@b.com"
    assert answer(model, request, guards=[only_request], ledger=ledger).text == "c@d.com"
    assert model.asked.messages[0].text == "[email]"


def test_a_guard_that_fails_closes_the_door_unless_told_otherwise(monkeypatch, ledger):
    def check(parts, settings):
        raise ZeroDivisionError("secret words")

    made = made_guard(monkeypatch, check)
    said, refusal = heard(Says("hello"), made, ledger=ledger)
    assert (said, refusal.guard, refusal.rule) == ("", "made", "error")
    assert "secret" not in str(refusal)
    lax = Chosen("guards", "made", GuardSettings(on_error="allow"))
    assert heard(Says("hello"), lax, ledger=ledger) == ("hello", None)
    assert [row["outcome"] for row in ledger.rows()] == ["refused", "complete"]
    assert all(row["verdicts"][0]["rules"] == ["error"] for row in ledger.rows())


def test_a_guard_that_takes_too_long_closes_the_door(monkeypatch, ledger):
    done = threading.Event()
    made_guard(monkeypatch, lambda parts, settings: done.wait(20))
    for on_error, expected in (("block", ""), ("allow", "hello")):
        slow = Chosen("guards", "made", GuardSettings(timeout=0.05, on_error=on_error))
        begun = time.monotonic()
        said, refusal = heard(Says("hello"), slow, ledger=ledger)
        assert time.monotonic() - begun < 10
        assert (said, bool(refusal)) == (expected, on_error == "block")
    done.set()


def test_a_list_of_words_that_is_gone_is_said_plainly_and_nothing_gets_out(tmp_path, ledger):
    model = Says("hello")
    with pytest.raises(DataError, match=r"gone\.txt"):
        list(generate(model, ASKED, guards=[guard(files=[str(tmp_path / "gone.txt")])], ledger=ledger))
    assert model.asked is None
    assert [row["outcome"] for row in ledger.rows()] == ["failed"]


@pytest.mark.parametrize(
    "verdict", [None, "block", Verdict("redact"), Verdict("stop"), Verdict("redact", (Finding("x", 0, 99),))]
)
def test_a_verdict_that_makes_no_sense_closes_the_door(monkeypatch, ledger, verdict):
    _, refusal = heard(Says("hello"), made_guard(monkeypatch, lambda parts, settings: verdict), ledger=ledger)
    assert refusal.rule == "error"


def test_closing_early_stops_the_model_and_still_writes_a_row(ledger):
    model = Says("one ", "two ", "three ")
    stream = generate(model, ASKED, ledger=ledger)
    assert next(stream).text == "one "
    stream.close()
    assert (model.heard, model.closed) == (1, True)
    (row,) = ledger.rows()
    assert (row["outcome"], row["answer"]["chars"]) == ("cancelled", 4)


def test_a_model_that_fails_leaves_a_row_too(ledger):
    class Fails:
        def generate(self, request):
            yield Part(text="so ")
            raise ModelError("out of memory")

    with pytest.raises(ModelError):
        list(generate(Fails(), ASKED, ledger=ledger))
    (row,) = ledger.rows()
    assert (row["outcome"], row["error"]) == ("failed", "ModelError")


def test_a_row_holds_hashes_and_lengths_and_no_words(ledger):
    request = Request(messages=(user("my number is 13812345678, sk-CANARY-1"),))
    facts = Provenance(data="d" * 64, recipe="r" * 64, checkpoint="c" * 64)
    guards = [guard("pii"), guard(words=("zebra",), action="note")]
    list(
        generate(
            Says("a zebra, CANARY-2, x@y.org"), request, guards=guards, provenance=facts, ledger=ledger, model_name="m"
        )
    )
    raw = ledger.path.read_text()
    assert not any(secret in raw for secret in ("CANARY", "13812345678", "x@y.org", "zebra"))
    (row,) = ledger.rows()
    assert row["provenance"]["data"] == "d" * 64
    assert row["provenance"]["time"].endswith("Z")
    assert row["request_id"].startswith("gw-")
    assert (row["model"], row["outcome"], row["guards"]) == ("m", "complete", ["pii", "keywords"])
    assert [(v["guard"], v["side"], v["action"]) for v in row["verdicts"]] == [
        ("pii", "request", "redact"), ("keywords", "answer", "allow"), ("pii", "answer", "redact"),
    ]  # fmt: skip
    assert verify(ledger.path).ok


def test_the_model_is_not_asked_when_the_ledger_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    model = Says("hello")
    with pytest.raises(genwright.core.GenwrightError, match="ledger"):
        list(generate(model, ASKED, ledger=tmp_path / "file" / "ledger.jsonl"))
    assert model.asked is None


def test_meta_travels_with_and_without_guards(ledger):
    pieces = [Part(text="hel", meta={"n": 1}), Part(text="lo"), Part(meta={"finish_reason": "stop"})]
    for guards in ([], [guard("pii")]):
        message = answer(Says(*pieces), ASKED, guards=guards, ledger=ledger)
        assert (message.text, message.parts[0].meta) == ("hello", {"n": 1, "finish_reason": "stop"})


def test_files_pass_the_guards_whole(monkeypatch, ledger, tmp_path):
    def check(parts, settings):
        return Verdict("block", reason="unsafe") if any(part.kind == "image" for part in parts) else Verdict()

    model = Says("look: ", Part(kind="image", path=tmp_path / "x.png"))
    assert heard(model, ledger=ledger)[1] is None
    said, refusal = heard(model, made_guard(monkeypatch, check), ledger=ledger)
    assert said == "look: "
    assert "unsafe" in refusal.message


def test_many_answers_each_leave_a_row_in_batches_and_one_by_one(ledger):
    class Many(Says):
        def generate_many(self, requests):
            for number in reversed(range(len(requests))):
                yield number, Message("assistant", (Part(text=f"answer {number}"),))

    requests = [Request(messages=(user(f"q{i}"),)) for i in range(3)]
    got = dict(generate_many(Many("x"), requests, ledger=ledger, model_name="m"))
    assert {i: m.text for i, m in got.items()} == {0: "answer 0", 1: "answer 1", 2: "answer 2"}
    assert [row["purpose"] for row in ledger.rows()] == ["evaluation"] * 3
    assert dict(generate_many(Says("x"), requests, ledger=ledger))[2].text == "x"
    refused = dict(generate_many(Many("b0mb"), requests, guards=[guard(words=("bomb",))], ledger=ledger))
    assert refused[0].parts[0].meta == {"refused": "keywords", "rule": "keyword"}
    assert len(list(ledger.rows())) == 9


def test_a_file_that_leaves_carries_its_labels(tmp_path):
    marks = [choose("marks", "metadata"), choose("marks", "visible")]
    path = write_labelled("Answer.", tmp_path / "deep" / "a.md", marks=marks, provenance=Provenance(data="d" * 64))
    text = path.read_text()
    assert text.count("AIGC:") == 1
    assert "generated by AI" in text
    facts = json.loads((tmp_path / "deep" / "a.md.genwright.json").read_text())
    import hashlib

    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["provenance"]["data"] == "d" * 64
    assert list(facts["AIGC"]) == ["Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator",
                                   "PropagateID", "ReservedCode2"]  # fmt: skip


def test_a_file_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_labelled("text", tmp_path / "file" / "a.txt")


def test_the_visible_mark_can_stand_in_a_stream(ledger):
    mark = choose("marks", {"name": "visible", "in_stream": True, "language": "zh"})
    assert heard(Says("好。"), ledger=ledger, marks=[mark])[0] == "好。\n\n（本内容由AI生成）"
    assert heard(Says("好。"), ledger=ledger, marks=[choose("marks", "visible")])[0] == "好。"


def test_the_end_of_an_answer_waits_for_its_row_and_its_words_do_not(ledger):
    facts = {"finish_reason": "stop", "completion_tokens": 2}
    for pieces in (["hel", "lo", Part(meta=facts)], ["hel", Part(text="lo", meta=facts | {"probs": {"a": 1.0}})]):
        for guards in ([], [guard("pii")]):
            before = len(list(ledger.rows()))
            said = ""
            for part in generate(Says(*pieces), ASKED, guards=guards, ledger=ledger):
                ended = bool(part.meta) and "finish_reason" in part.meta
                assert len(list(ledger.rows())) == before + ended, part
                said += part.text
            assert ended
            assert part.meta == facts
            assert (part.text, said) == ("", "hello")


def test_a_mark_behind_the_answer_comes_before_its_end(ledger):
    mark = choose("marks", {"name": "visible", "in_stream": True, "language": "zh"})
    *_, last = generate(Says("好。", Part(meta={"finish_reason": "stop"})), ASKED, marks=[mark], ledger=ledger)
    assert last.meta == {"finish_reason": "stop"}


def figures_of(text):
    return [{"token": c, "bytes": list(c.encode()), "logprob": -1.0, "top": []} for c in text]


def heard_figures(text, number, *guards, ledger):
    """What came out, and the tokens (one a character) whose log-probabilities came with it."""
    pieces = [Part(text=piece, meta={"logprobs": figures_of(piece)}) for piece in cuts(text, number)]
    out, told = "", ""
    try:
        for part in generate(Says(*pieces, Part(meta={"finish_reason": "stop"})), ASKED, guards=guards, ledger=ledger):
            out += part.text
            told += "".join(entry["token"] for entry in (part.meta or {}).get("logprobs", []))
            assert out.startswith(told) or "[" in out, "figures never leave before their words"
    except Refused:
        pass
    return out, told


def test_log_probabilities_leave_with_their_words_whole_and_once(ledger):
    text = "Hello! On 3 May 2024 the 2nd of 15 boats went 1,200 km to Scunthorpe, and he said bye."
    guards = (guard("pii"), guard(words=("bomb", "penis")))
    for number in range(30):
        assert heard_figures(text, number, *guards, ledger=ledger) == (text, text), number
        assert heard_figures(text, number, ledger=ledger) == (text, text), number
    message = answer(Says(Part(text="a", meta={"logprobs": figures_of("a")}), "b",
                          Part(text="c", meta={"logprobs": figures_of("c")})), ASKED, ledger=ledger)  # fmt: skip
    assert [entry["token"] for entry in message.parts[0].meta["logprobs"]] == ["a", "c"]


@pytest.mark.parametrize("action", ["block", "redact"])
def test_no_log_probability_of_words_that_a_guard_took_leaves(action, ledger):
    for secret in ("BOMB", "B-O-M-B", "someone@example.com"):
        made = guard("pii", action=action) if "@" in secret else guard(words=("bomb",), action=action)
        for number in range(25):
            out, told = heard_figures(f"1234567 {secret} 89, 4321 (12) 3456", number, made, ledger=ledger)
            assert not set(told) & set("BOMsexampl@"), (told, number)
            assert "BOM" not in out


def test_an_answer_leaves_a_line_in_the_events_of_its_run(tmp_path, ledger):
    run = Run(tmp_path)
    facts = Provenance(data="d" * 64, recipe="r" * 64, checkpoint="c" * 64)
    list(generate(Says("CANARY"), ASKED, provenance=facts, ledger=ledger, run=run))
    with pytest.raises(Refused):
        list(generate(Says("bomb"), ASKED, guards=[guard(words=("bomb",))], ledger=ledger, run=run))
    first, second = run.events("answer")
    (row, _) = ledger.rows()
    assert first["request_id"] == row["request_id"]
    assert first["provenance"] == row["provenance"]
    assert (first["request"], first["answer"]) == (row["request"]["sha256"], row["answer"]["sha256"])
    assert (first["outcome"], second["outcome"]) == ("complete", "refused")
    assert "CANARY" not in (tmp_path / "events.jsonl").read_text()
    gone = Run(tmp_path / "gone")  # as on a disk that cannot be written
    assert "".join(part.text for part in generate(Says("fine"), ASKED, ledger=ledger, run=gone)) == "fine"


def test_no_other_door_asks_a_model():
    """Only verbs/generate.py may call a model's generate or generate_many, and a model that stands around another."""
    found = []
    for room in ("verbs", "server", "cli", "apps", "trust", "judging"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if path == ROOT / "verbs" / "generate.py":
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            around = {id(node) for model in ast.walk(tree) if isinstance(model, ast.ClassDef)
                      for method in model.body if isinstance(method, ast.FunctionDef) and method.name == "generate"
                      for node in ast.walk(method)}  # fmt: skip
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Call)
                    and id(node) not in around
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in ("generate", "generate_many")
                ):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}")
    assert not found, found


def test_words_in_options_pass_the_guards_too(ledger):
    class Paints(Says):
        options = object

    asked = Request(messages=(user("a cat"),), options={"toward": "a secret place", "n": 2, "style": ""})
    with pytest.raises(Refused, match="keywords"):
        list(generate(Paints("x"), asked, guards=[guard(words=["secret"])], ledger=ledger))
    model = Paints("x")
    list(generate(model, asked, guards=[guard(words=["secret"], action="redact")], ledger=ledger))
    assert model.asked.options == {"toward": "a […] place", "n": 2, "style": ""}
