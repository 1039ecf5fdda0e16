"""Personal data is found where it is, numbers that only look like it stay, and no text makes the search slow."""

import itertools
import random
import time

import pytest

from genwright.core.pii import _ID_WEIGHTS, KINDS, find_pii


def spans(text, kinds=None):
    return [(f.rule, text[f.start : f.end]) for f in find_pii(text, kinds)]


FOUND = [
    ("write to ann.b+c@ex-ample.co.uk now", "email", "ann.b+c@ex-ample.co.uk"),
    ("邮箱：ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ。", "email", "ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ"),
    ("身份证11010119900307851X在", "id_card", None),
    ("身份证110101199003078515在", "id_card", "110101199003078515"),
    ("１１０１０１１９９００３０７８５１５", "id_card", "１１０１０１１９９００３０７８５１５"),
    ("110101 19900307 8515", "id_card", "110101 19900307 8515"),
    ("号130503670401001。", "id_card", "130503670401001"),
    ("代码91350100M000100Y43", "credit_code", "91350100M000100Y43"),
    ("card 4111111111111111.", "bank_card", "4111111111111111"),
    ("card 4111 1111 1111 1111 123", "bank_card", "4111 1111 1111 1111"),
    ("amex 3782-822463-10005", "bank_card", "3782-822463-10005"),
    ("卡号6222021234567890128", "bank_card", "6222021234567890128"),
    ("DE89 3704 0044 0532 0130 00 IS MINE", "iban", "DE89 3704 0044 0532 0130 00"),
    ("ES9121000418450200051332", "iban", "ES9121000418450200051332"),
    ("GB82WEST12345698765432", "iban", "GB82WEST12345698765432"),
    ("我的手机13812345678。", "phone", "13812345678"),
    ("138-1234-5678", "phone", "138-1234-5678"),
    ("1 3 8 1 2 3 4 5 6 7 8", "phone", "1 3 8 1 2 3 4 5 6 7 8"),
    ("tel +86 138 1234 5678", "phone", "+86 138 1234 5678"),
    ("138\u200b1234\u200b5678", "phone", "138\u200b1234\u200b5678"),
    ("call +44 20 7946 0958", "phone", "+44 20 7946 0958"),
    ("call (415) 555-2671", "phone", "(415) 555-2671"),
    ("电话010-62345678", "phone", "010-62345678"),
    ("ssn 123-45-6789", "ssn", "123-45-6789"),
    ("护照号 G12345678", "passport", "G12345678"),
    ("passport no. 912345678", "passport", "912345678"),
    ("车牌京A12345", "plate", "京A12345"),
    ("粤B·D12345", "plate", "粤B·D12345"),
    ("from 192.168.1.20", "ip", "192.168.1.20"),
    ("from 2001:db8::ff00:42:8329", "ip", "2001:db8::ff00:42:8329"),
]


@pytest.mark.parametrize(("text", "kind", "span"), FOUND)
def test_each_kind_is_found_and_a_wrong_check_digit_is_not(text, kind, span):
    assert spans(text, [kind]) == ([(kind, span)] if span else [])


@pytest.mark.parametrize(
    "text",
    [
        "order 202301011230456789", "110101199003078516", "4111111111111112", "1 3 5 7 9 11 13 15 17 19 21",
        "3.1415926535897931", "at 12:34:56", "v1.2.3.4.5", "127.0.0.1", "std::vector a::b",
        "DE89 3704 0044 0532 0130 01",
        "91350100M000100Y44", "2024-01-02 13:14", "ISBN 978-3-16-148410-0", "x@y", "the year 2023 and 1,234,567,890",
        "000-12-3456", "新A股上涨", "",
    ],
)  # fmt: skip
def test_numbers_that_only_look_personal_stay(text):
    assert spans(text) == []


def test_spans_never_overlap_and_come_in_order():
    text = "13812345678 110101199003078515 a@b.com 4111111111111111 192.168.1.20"
    found = find_pii(text)
    assert [f.rule for f in found] == ["phone", "id_card", "email", "bank_card", "ip"]
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


def test_kinds_narrow_the_search_and_unknown_ones_are_named():
    assert spans("a@b.com 13812345678", ["phone"]) == [("phone", "13812345678")]
    with pytest.raises(ValueError, match="fone"):
        find_pii("", ["fone"])


def test_ids_with_a_right_check_are_found_and_with_any_other_last_character_are_not():
    chance = random.Random(5)
    for _ in range(300):
        head = f"{chance.choice(['110101', '440305', '650102'])}{chance.randint(1950, 2010)}{chance.randint(1, 12):02}"
        head += f"{chance.randint(1, 28):02}{chance.randint(0, 999):03}"
        right = "10X98765432"[sum(int(d) * w for d, w in zip(head, _ID_WEIGHTS, strict=True)) % 11]
        assert spans(f"证{head}{right}", ["id_card"]) == [("id_card", head + right)]
        for wrong in set("0123456789X") - {right}:
            assert spans(f"证{head}{wrong}", ["id_card"]) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_megabyte_of_one_letter_takes_under_a_tenth_of_a_second(kind):
    text = "a" * 1_000_000 + "!"
    if hint := KINDS[kind].hint:
        text += hint  # so that the pattern really runs
    else:
        text += "1"
    started = time.process_time()
    assert find_pii(text, [kind]) == []
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("unit", ["1", "1 ", "a@", "a.", "+1", "1:", "1.", "京A1", "4111 ", "DE89 3704 ", "138 "])
def test_no_repeated_unit_makes_the_search_more_than_linear(unit):
    def seconds(size):
        started = time.process_time()
        find_pii(unit * (size // len(unit)) + "!")
        return time.process_time() - started

    seconds(1000)
    assert seconds(200_000) < 30 * max(seconds(20_000), 0.01)  # ten times as long a text
