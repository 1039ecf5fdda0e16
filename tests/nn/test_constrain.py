"""Constraints: even a model of random numbers keeps to them, streamed or not."""

import json
import re

import jsonschema
import pytest

from genwright.core import Constraints, Request, UsageError, user
from genwright.engines import causal_lm
from genwright.nn.constrain import grammar_of, word_count

TEXTS = ['{"name": "Anna", "age": 31}', "the quick brown fox jumps over the lazy dog", "yes no maybe 你好"] * 3
CONFIG = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def model(request):
    settings = causal_lm.Settings(config=CONFIG, tokenizer={"train": request.param, "vocab_size": 340})
    return causal_lm.load(None, settings, seed=1, texts=TEXTS)


def asked(seed=None, tokens=40, **constraints):
    sampling = {"temperature": 1.0, "seed": seed} if seed is not None else {}
    return Request(messages=(user("hello"),), max_new_tokens=tokens, constraints=Constraints(**constraints), **sampling)


def answer(model, request):
    parts = list(model.generate(request))
    return "".join(part.text for part in parts), parts[-1].meta["finish_reason"]


@pytest.mark.parametrize("seed", [None, 1, 2, 3, 4])
def test_json_is_valid_whatever_the_model_thinks(model, seed):
    text, why = answer(model, asked(seed, 120, json_schema=SCHEMA))
    assert why == "stop"
    jsonschema.validate(json.loads(text), SCHEMA)
    many = dict(model.generate_many([asked(seed, 120, json_schema=SCHEMA), asked(seed, choice=("yes", "no"))]))
    assert many[0].text == text
    assert many[1].text in ("yes", "no")


def test_json_that_does_not_fit_says_so(model):
    text, why = answer(model, asked(tokens=4, json_schema=SCHEMA))
    assert why == "length"
    assert text.startswith('{"name"'[: len(text)])


@pytest.mark.parametrize("seed", [None, 5, 6])
def test_choices_and_expressions_hold(model, seed):
    choices = ("yes", "no", "may be", 'quo"te', "你好")
    text, why = answer(model, asked(seed, choice=choices))
    assert text in choices
    assert why == "stop"
    expression = r"[A-Z]{2}-\d{3}(, [a-z]+)?!"
    text, why = answer(model, asked(seed, regex=expression))
    assert re.fullmatch(expression, text) or why == "length"


@pytest.mark.parametrize("seed", [None, 7, 8])
def test_words_are_counted(model, seed):
    text, why = answer(model, asked(seed, min_words=5, max_words=6))
    assert why in ("stop", "length")
    assert word_count(text) <= 6
    assert word_count(text) >= 5 or why == "length"


def test_an_answer_may_end_only_after_enough_words():
    settings = causal_lm.Settings(config=CONFIG, tokenizer={"train": "bpe", "vocab_size": 340})
    model = causal_lm.load(None, settings, seed=1, texts=TEXTS)
    model.ends = frozenset(range(0, len(model.tokenizer), 2))  # nearly every second token would end it
    assert word_count(answer(model, asked(1, min_words=3, tokens=400))[0]) >= 3


@pytest.mark.parametrize("seed", [None, 9, 10, 11])
def test_banned_phrases_never_stand_in_the_text(model, seed):
    free, _ = answer(model, asked(seed))
    low = free.casefold()
    banned = tuple({low[3:5], low[10:13], low[0]} - {""})
    text, _ = answer(model, asked(seed, must_not_include=banned))
    assert not any(phrase in text.casefold() for phrase in banned)
    assert text != free
    both, _ = answer(model, asked(seed, 120, json_schema=SCHEMA, must_not_include=("b",)))
    assert "b" not in both.casefold()


@pytest.mark.parametrize(
    ("constraints", "reason"),
    [
        ({"choice": ("a",), "regex": "b"}, "exclude each other"),
        ({"regex": "(a"}, "cannot be enforced"),
        ({"json_schema": {"type": "no such type"}}, "cannot be enforced"),
    ],
)
def test_what_cannot_be_enforced_is_said_before_anything_is_written(model, constraints, reason):
    with pytest.raises(UsageError, match=reason):
        list(model.generate(asked(**constraints)))


def test_what_is_only_checked_is_not_decoded_towards(model):
    assert grammar_of(Constraints(must_include=("x",), max_words=3)) == ""
    assert answer(model, asked(must_include=("zzz",))) == answer(model, asked())
