"""Every refiner does what its help says, and every option turns something."""

import random
import time

import numpy as np
import pytest

from genwright.core import Example, assistant, choose, shelves, system, user
from genwright.core.plugin import PluginProblems
from genwright.core.words import is_unspaced, normal, tokens
from genwright.data.near import NearIndex, shingles, signatures, similarity


class Report:
    """What prepare hands to a refiner, kept in lists."""

    def __init__(self):
        self.dropped, self.changed, self.notes = [], [], []

    def drop(self, example, reason):
        self.dropped.append((example, reason))

    def change(self, example, reason):
        self.changed.append(reason)

    def note(self, text):
        self.notes.append(text)


def pair(prompt, answer, **meta):
    return Example((user(prompt), assistant(answer)), meta)


def refine(name, examples, held_out=None, **options):
    report = Report()
    more = {} if held_out is None else {"held_out": held_out}
    chosen = choose("refiners", {"name": name, **options})
    return list(chosen.thing(iter(examples), chosen.settings, report=report, **more)), report


def answers(kept):
    return [example.answer.text for example in kept]


# -- words -----------------------------------------------------------------------------------------------------------


def test_words_of_scripts_with_and_without_spaces():
    assert tokens("It's 3 o'clock — naïve, 你好!") == ["It's", "3", "o'clock", "naïve", "你", "好"]
    assert is_unspaced("海有多深？ OK")
    assert is_unspaced("ทะเลลึกแค่ไหน")
    assert not is_unspaced("How deep is 海?")
    assert not is_unspaced("안녕하세요 반갑습니다")
    assert normal("  ＡＢｃ\n d ") == "abc d"


# -- dedupe ----------------------------------------------------------------------------------------------------------

COPIES = [
    pair("Hi", "Hello"),
    pair("Hi", "Hello"),
    pair(" hi", "ＨＥＬＬＯ"),
    pair("Hi", "Good day"),
    pair("Bye", "Hello"),
]


@pytest.mark.parametrize(("options", "left"), [
    ({}, ["Hello", "Good day", "Hello"]),
    ({"exact": True}, ["Hello", "ＨＥＬＬＯ", "Good day", "Hello"]),
    ({"on": "prompt"}, ["Hello", "Hello"]),
    ({"on": "answer"}, ["Hello", "Good day"]),
])  # fmt: skip
def test_dedupe_keeps_the_first(options, left):
    kept, report = refine("dedupe", COPIES, **options)
    assert answers(kept) == left
    assert len(report.dropped) == len(COPIES) - len(left)


def test_dedupe_knows_roles_borders():
    rows = [pair("a b", "c"), pair("a", "b c"), Example((system("a"), user("b"), assistant("c")), {})]
    assert len(refine("dedupe", rows)[0]) == 3


# -- near_dedupe -----------------------------------------------------------------------------------------------------


def sentence(chance, size=60):
    return [f"w{chance.randrange(5000)}" for _ in range(size)]


def changed(words, share, chance):
    return [w if chance.random() > share else "other" + w for w in words]


def near_rows(count=300, seed=3):
    """Rows of which every third is a near copy of the one before."""
    chance, rows, base = random.Random(seed), [], []
    for number in range(count):
        if number % 3 == 2:
            words = changed(base, 0.02, chance)
        else:
            words = base = sentence(chance)
        rows.append(pair(f"tell {number}", " ".join(words)))
    return rows


def test_near_copies_go_and_others_stay():
    rows = near_rows()
    kept, report = refine("near_dedupe", rows, threshold=0.7, on="answer")
    copies = set(answers(rows[2::3]))
    lost = {example.answer.text for example, _ in report.dropped}
    assert lost <= copies
    assert len(lost) >= 0.9 * len(copies)
    assert len(kept) + len(report.dropped) == len(rows)


def test_near_copies_can_be_kept_together_instead():
    rows = near_rows()
    kept, report = refine("near_dedupe", rows, threshold=0.7, on="answer", action="group")
    assert answers(kept) == answers(rows)
    groups = [example.meta["group"] for example in kept]
    bound = sum(groups[i] == groups[i - 1] for i in range(2, len(rows), 3))
    assert bound >= 90
    assert len(set(groups)) == len(rows) - bound
    assert f"{bound} rows" in report.notes[0]
    own = [Example(row.messages, {"group": "mine"}) for row in rows[:2]]
    assert refine("near_dedupe", own, action="group")[0][1].meta["group"] == ["mine", "near 1"]


def test_a_row_that_joins_two_clusters_names_both():
    chance = random.Random(1)
    left, right = sentence(chance), sentence(chance)
    rows = [pair("", " ".join(words)) for words in (left, right, left + right)]
    kept, _ = refine("near_dedupe", rows, threshold=0.3, on="answer", action="group")
    assert [example.meta["group"] for example in kept] == ["near 0", "near 1", ["near 0", "near 1"]]


def test_threshold_ngram_and_what_is_compared_count():
    chance = random.Random(7)
    words = sentence(chance, 200)
    rows = [pair(f"{sentence(chance)}", " ".join(w)) for w in (words, changed(words, 0.1, chance))]
    assert len(refine("near_dedupe", rows, threshold=0.4, on="answer")[0]) == 1
    assert len(refine("near_dedupe", rows, threshold=0.9, on="answer")[0]) == 2
    assert len(refine("near_dedupe", rows, threshold=0.7, ngram=1, on="answer")[0]) == 1
    assert len(refine("near_dedupe", rows, threshold=0.7, ngram=5, on="answer")[0]) == 2
    assert len(refine("near_dedupe", rows, threshold=0.4, on="prompt")[0]) == 2


def test_chinese_is_compared_by_characters():
    text = "海的最深处在马里亚纳海沟，深度约为一万一千米，那里没有阳光，水压极大，却仍然有生命存在。" * 2
    other = text.replace("极大", "很大")
    assert len(refine("near_dedupe", [pair("问", text), pair("问", other)], threshold=0.7)[0]) == 1
    assert shingles("海很深。", 3) == ["海 很 深"]
    assert shingles("海", 3) == ["海"]
    assert shingles("!?", 3) == ["!?"]


def test_signatures_estimate_jaccard_similarity():
    chance = random.Random(11)
    for share in (0.05, 0.2, 0.5):
        words = sentence(chance, 400)
        one, two = shingles(" ".join(words), 2), shingles(" ".join(changed(words, share, chance)), 2)
        true = len(set(one) & set(two)) / len(set(one) | set(two))
        signed = signatures([one, two]).astype(np.uint8)
        assert abs(float(similarity(signed[0], signed[1])) - true) < 0.15


def test_the_index_gives_the_same_clusters_in_any_batches_and_when_it_grows():
    sets = [shingles(row.answer.text, 3) for row in near_rows(6000)]
    signed = signatures(sets)

    def clusters(batch):
        index, found = NearIndex(0.7), []
        for at in range(0, len(signed), batch):
            found += index.add(signed[at : at + batch])
        return found

    whole = clusters(6000)
    assert clusters(100) == whole
    assert sum(c != [i] for i, c in enumerate(whole)) > 1800


# -- words that are not wanted -----------------------------------------------------------------------------------------


def test_rows_with_unwanted_words_go():
    rows = [pair("Woman’s hat", "A man"), pair("a MAN, two men", "x"), pair("one o’clock", "y"), pair("ein Haus", "z"),
            pair("the house on fire", "w"), pair("一个男人", "v")]  # fmt: skip
    kept, report = refine("without_words", rows, words=["man", "o’clock", "on fire", "男人"])
    assert answers(kept) == ["A man", "z"]
    assert [reason for _, reason in report.dropped] == [
        "holds 'man'",
        "holds 'o’clock'",
        "holds 'on fire'",
        "holds '男人'",
    ]
    assert answers(refine("without_words", rows[:2], words=["man"], on="answer")[0]) == ["x"]
    assert len(refine("without_words", rows)[0]) == len(rows)


# -- what is common ----------------------------------------------------------------------------------------------------


def test_only_things_that_several_made_stay():
    made = [("house", "a"), ("house", "b"), ("house", "b"), ("yurt", "a"), ("yurt", "a"), ("cat", "a"), ("cat", "b"),
            ("cat", "c")]  # fmt: skip
    rows = [pair(thing, str(place), concept=thing, style=by) for place, (thing, by) in enumerate(made)]
    kept, report = refine("common", rows, held_out=[])
    assert answers(kept) == ["5", "6", "7"]
    assert report.dropped[0][1] == "concept of fewer than 3 styles (2)"
    assert answers(refine("common", rows, held_out=[], least=2)[0]) == ["0", "1", "2", "5", "6", "7"]
    assert answers(refine("common", rows, held_out=[], what="style", by="concept")[0]) == ["0", "3", "4", "5"]
    kept, report = refine("common", [pair("q", "x", style="a")], held_out=[], least=1)
    assert (kept, report.dropped[0][1]) == ([], "has no concept")


# -- language --------------------------------------------------------------------------------------------------------

TONGUES = [
    pair("q", "The deepest part of the sea is eleven kilometres below the surface."),
    pair("q", "Die tiefste Stelle des Meeres liegt elf Kilometer unter der Oberfläche."),
    pair("q", "海洋最深处位于海面以下十一公里。"),
    pair("q", "12345"),
]


def test_language_keeps_what_is_asked_for_and_notes_it():
    kept, _ = refine("language", TONGUES)
    assert [example.meta["language"] for example in kept[:3]] == ["en", "de", "zh"]
    kept, report = refine("language", TONGUES, keep=["en", "zh"])
    assert answers(kept)[:2] == [TONGUES[0].answer.text, TONGUES[2].answer.text]
    assert report.dropped[0][1] == "in de, not in en or zh"


def test_options_of_language_count():
    kept, _ = refine("language", TONGUES, min_score=0.6)
    assert answers(kept) == answers(TONGUES[:3])
    swapped = [pair(TONGUES[1].answer.text, TONGUES[0].answer.text)]
    assert len(refine("language", swapped, keep=["de"], on="prompt")[0]) == 1
    assert len(refine("language", swapped, keep=["de"], on="answer")[0]) == 0
    mixed = [pair("q", TONGUES[0].answer.text + " " + TONGUES[1].answer.text * 5)]
    assert refine("language", mixed, characters=60)[0][0].meta["language"] == "en"
    assert refine("language", mixed, characters=2000)[0][0].meta["language"] == "de"
    assert refine("language", [pair("q", " ")])[0][0].meta["language"] == "und"


# -- length ----------------------------------------------------------------------------------------------------------

SIZES = [pair("one", "one"), pair("one two three", "one two three four"), pair("一二三四五六", "一二三四五六七八")]


@pytest.mark.parametrize(("options", "left"), [
    ({}, [0, 1, 2]),
    ({"min_answer": 2}, [1, 2]),
    ({"max_answer": 3}, [0]),
    ({"max_answer": 8}, [0, 1, 2]),
    ({"min_prompt": 2}, [1, 2]),
    ({"max_prompt": 5}, [0, 1]),
    ({"max_answer": 3, "unit": "words"}, [0, 2]),
    ({"min_answer": 4, "unit": "characters"}, [1, 2]),
])  # fmt: skip
def test_length_bounds_each_side_in_its_own_unit(options, left):
    kept, report = refine("length", SIZES, **options)
    assert kept == [SIZES[i] for i in left]
    assert all("prompt" in reason or "answer" in reason for _, reason in report.dropped)


# -- quality ---------------------------------------------------------------------------------------------------------

FINE = (
    "The sea is deepest in the Mariana Trench, where the bottom lies about eleven kilometres below the surface. "
    "It is dark there and the pressure is great, yet life has been found by those who went to look."
)


@pytest.mark.parametrize(("text", "options", "rule"), [
    ("Too short.", {"min_words": 5}, "min_words"),
    (FINE, {"max_words": 10}, "max_words"),
    ("a b c d e f g", {"min_word_length": 3}, "min_word_length"),
    ("Dampfschifffahrten und Rindfleischetikettierung", {"max_word_length": 10}, "max_word_length"),
    ("#sea #deep #dark is the sea and it is so", {"max_symbols": 0.1}, "max_symbols"),
    ("!!! ??? ,,, ok", {}, "min_letters"),
    ("THIS IS ALL SHOUTED AT YOU", {}, "max_capitals"),
    ("the line\n" * 8 + "another", {}, "max_repeated_lines"),
    ("one two three four five " * 10, {}, "max_repeated_ngrams"),
    ("buy " * 8 + "it now or go", {}, "max_top_word"),
    ("- one thing\n- other thing\n- third thing", {"max_bullets": 0.9}, "max_bullets"),
    ("And then at last he said …\nAnd then at last she said ...\nEnd", {"max_ellipses": 0.3}, "max_ellipses"),
    ("alpha beta gamma delta epsilon", {"min_stop_words": 2}, "min_stop_words"),
    ("It just breaks off in the", {"must_end": True}, "must_end"),
    ("Lorem IPSUM dolor sit amet", {"banned": ["lorem ipsum"]}, "banned"),
])  # fmt: skip
def test_each_rule_of_quality_drops_its_kind_and_names_itself(text, options, rule):
    report = refine("quality", [pair("q", text), pair("q", FINE)], **options)[1]
    reasons = {example.answer.text: reason for example, reason in report.dropped}
    assert f"({rule})" in reasons[text]
    assert FINE not in reasons or rule == "max_words"
    loosest = {
        "min_letters": 0,
        "max_capitals": 1,
        "max_repeated_lines": 1,
        "max_repeated_ngrams": 1,
        "max_top_word": 1,
    }
    assert answers(refine("quality", [pair("q", text)], **{rule: loosest[rule]} if rule in loosest else {})[0]) == [
        text
    ]


def test_quality_leaves_good_text_of_any_script_and_looks_where_it_is_told():
    good = [
        FINE,
        "海洋最深处位于海面以下十一公里，那里没有阳光，水压极大，却仍有生命。",
        "- one\n- two",
        "42 is the answer.",
    ]
    assert len(refine("quality", [pair("q", text) for text in good])[0]) == len(good)
    assert not refine("quality", [pair("THIS IS ALL SHOUTED AT YOU", FINE)], on="prompt")[0]
    assert refine("quality", [pair("q", "alpha beta")], min_stop_words=1, stop_words=["beta"])[0]


# -- redact ----------------------------------------------------------------------------------------------------------

PERSONAL = Example(
    (system("call 13812345678"), user("I am a@b.com"), assistant("身份证１１０１０１１９９００３０７８５１５。")),
    {"rejected": assistant("or x@y.org"), "note": "see c@d.net", "where": "a.jsonl:1"},
)


def test_redact_replaces_every_kind_everywhere():
    [row], report = refine("redact", [PERSONAL])
    assert [m.text for m in row.messages] == ["call [PHONE]", "I am [EMAIL]", "身份证[ID_CARD]。"]
    assert row.meta["rejected"].text == "or [EMAIL]"
    assert row.meta["note"] == "see [EMAIL]"
    assert sorted(report.changed) == ["email", "id_card", "phone"]


def test_options_of_redact_count():
    [row], _ = refine("redact", [PERSONAL], kinds=["email"], replacement="<{kind}>")
    assert [m.text for m in row.messages][:2] == ["call 13812345678", "I am <email>"]
    kept, report = refine("redact", [PERSONAL, pair("a", "b")], action="drop")
    assert kept == [pair("a", "b")]
    assert report.dropped[0][1] == "holds email"
    with pytest.raises(PluginProblems, match="no personal data of the kind 'fax'"):
        choose("refiners", {"name": "redact", "kinds": ["fax"]})


# -- decontaminate ---------------------------------------------------------------------------------------------------

HELD = [pair("What is in the sea?", "one two three four five six seven eight nine ten eleven twelve thirteen fourteen")]
SHARING = pair(
    "x", "well, ONE two three four five six seven eight nine ten eleven twelve thirteen and so on, at more length"
)
APART = pair("x", "one two three four five six seven eight nine ten eleven twelve and something else")


def test_rows_that_share_a_run_of_words_with_the_test_go():
    kept, report = refine("decontaminate", [SHARING, APART], HELD)
    assert kept == [APART]
    assert "13 words" in report.dropped[0][1]
    assert refine("decontaminate", [pair("q", "Yes.")], [pair("q", "yes")])[0] == []
    assert refine("decontaminate", [pair("q", "Yes indeed.")], [pair("q", "yes")])[0]


def test_options_of_decontaminate_count():
    assert refine("decontaminate", [APART], HELD, ngram=5)[0] == []
    assert refine("decontaminate", [SHARING], HELD, share=0.5)[0] == [SHARING]
    assert refine("decontaminate", [SHARING], HELD, on="prompt")[0] == [SHARING]
    template = [pair(f"{number}", SHARING.answer.text + f" {number}") for number in range(5)]
    kept, report = refine("decontaminate", [SHARING], template, common=4)
    assert kept == [SHARING]
    assert "more than 4 held-out rows" in report.notes[0]
    assert refine("decontaminate", [SHARING], template, common=5)[0] == []
    kept, report = refine("decontaminate", [SHARING], [])
    assert kept == [SHARING]
    assert "Nothing is held out" in report.notes[0]


def test_chinese_runs_are_runs_of_characters():
    held = [pair("问", "海洋最深处位于海面以下十一公里的地方")]
    assert refine("decontaminate", [pair("另", "据说海洋最深处位于海面以下十一公里左右")], held)[0] == []


# -- all -------------------------------------------------------------------------------------------------------------


def sees_held_out(name):
    return getattr(shelves["refiners"].load(name), "after_split", False)


@pytest.mark.parametrize("name", [n for n in shelves["refiners"] if not sees_held_out(n)])
def test_refiners_stream(name):
    """The first row leaves before the last one was asked for."""
    asked = []

    def rows():
        for number in range(5000):
            asked.append(number)
            yield pair(f"question {number}", f"{FINE} Number {number} of them all.")

    next(choose("refiners", name)(rows(), report=Report()))
    assert len(asked) < 2000


@pytest.mark.parametrize("name", list(shelves["refiners"]))
def test_a_megabyte_of_one_letter_is_no_trouble(name):
    row = pair("a" * 1_000_000 + "!", "a" * 1_000_000 + "!")
    started = time.process_time()
    refine(name, [row], [pair("q", "a")] if sees_held_out(name) else None)
    assert time.process_time() - started < 2.5
