"""Texts as they are read aloud: tables of what is written and what is said, and what must stay as it is."""

import doctest
import random
import re
import time
from pathlib import Path

import pytest

from genwright.media import spoken_chinese, spoken_english, spoken_form
from genwright.media.spoken_form import spoken_form as spoken


def table(name):
    lines = (Path(__file__).parent / f"spoken_{name}.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(one.strip() for one in line.split("|")) for line in lines if line and not line.startswith("#")]


ENGLISH, CHINESE = table("english"), table("chinese")


def test_the_tables_are_long_enough():
    assert min(len(set(ENGLISH)), len(set(CHINESE))) >= 150


@pytest.mark.parametrize(("text", "said"), ENGLISH)
def test_english_is_said_as_the_table_has_it(text, said):
    assert " ".join(spoken(text).split()) == said


@pytest.mark.parametrize(("text", "said"), CHINESE)
def test_chinese_is_said_as_the_table_has_it(text, said):
    assert spoken(text, "auto" if re.search("[\u3400-\u9fff]", text) else "zh") == said


@pytest.mark.parametrize("said", sorted({said for _, said in ENGLISH + CHINESE}))
def test_what_is_words_is_not_changed_again(said):
    assert spoken(said) == said


def test_the_examples_in_the_docstrings_hold():
    for module in (spoken_form, spoken_english, spoken_chinese):
        assert doctest.testmod(module).failed == 0


def test_every_number_is_said_as_others_say_it():
    cn2an = pytest.importorskip("cn2an")
    rng = random.Random(0)
    for _ in range(2000):
        number = rng.randrange(10 ** rng.randrange(1, 12))
        said = spoken_chinese.cardinal(number).replace("两", "二")
        assert said in (cn2an.an2cn(number), cn2an.an2cn(number).removeprefix("一"))


def test_no_digit_is_left_and_nothing_fails_whatever_stands_around_it():
    rng = random.Random(1)
    odd = ["www.", "https://", "@a.com", "℃", "½", "No. "]
    signs = [*"0123456789.,:/-+%$€¥°' ()=x~#@&年月日个万第点kmgTBst\n", *odd]
    for _ in range(1500):
        text = "".join(rng.choices(signs, k=rng.randrange(1, 25)))
        for language in ("en", "zh", "auto"):
            assert not re.search("[0-9]", spoken(text, language)), text


@pytest.mark.parametrize(
    "odd", ["1", "1,", "1.", "1-", "1/", "½", "a@", "a.", "$1 ", "(1", "中1", "电话1", "I a1 ", "1万", "-"]
)
def test_the_time_grows_with_the_length_and_no_faster(odd):
    def seconds(size, language):
        began = time.process_time()
        spoken(odd * (size // len(odd)), language)
        return time.process_time() - began

    for language in ("en", "zh"):
        seconds(100, language)
        assert seconds(8_000, language) < 10 * max(0.01, min(seconds(2_000, language) for _ in range(2)))
