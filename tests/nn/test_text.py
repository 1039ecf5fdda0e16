"""Text: the same tokens in teaching and asking, whatever the template, the tokenizer and the length."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from genwright.core import ModelError, Unlearnable, UsageError, assistant, system, user
from genwright.nn.template import PLAIN
from genwright.nn.text import (
    chat_text,
    chat_tokens,
    encoded,
    end_tokens,
    make_ready,
    open_tokenizer,
    plain_tokens,
    prompt_tokens,
    texts_of,
    windows,
)
from genwright.nn.tokenizer_training import train_tokenizer

TEXTS = ["the quick brown fox jumps over the lazy dog", "hello world, 你好 世界!", "### Question Answer user model"] * 3
TALK = (system("be kind"), user("hello"), assistant("hello world"), user("the fox?"), assistant("the lazy dog"))
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<|user|>' if m['role'] == 'user' else '<|assistant|>' }}{{ m['content'] | trim }}<|end|>\n{% endfor %}"  # noqa: E501
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINKING = (  # like Qwen 3: an old answer loses what a new one has
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' and loop.last %}think {% endif %}"
    "{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>think {% endif %}"
)
ENDLESS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"  # noqa: E501


@pytest.fixture(params=["bpe", "wordpiece", "unigram"], scope="module")
def tokenizer(request):
    return train_tokenizer(request.param, 340, TEXTS)


@pytest.fixture
def bpe():
    return train_tokenizer("bpe", 340, TEXTS)


def learned(tokenizer, tokens):
    return tokenizer.decode([i for i, keep in zip(tokens.ids, tokens.learned, strict=True) if keep])


@pytest.mark.parametrize("template", [None, PLAIN, GEMMA, THINKING, ENDLESS])
def test_what_is_taught_begins_with_what_is_asked(tokenizer, template):
    tokenizer.chat_template, old = template or tokenizer.chat_template, tokenizer.chat_template
    try:
        for talk in (TALK, TALK[1:], TALK[1:3]):
            asked = prompt_tokens(tokenizer, talk[:-1]).ids
            for supervise in ("answer", "assistant", "all"):
                tokens = chat_tokens(tokenizer, talk, supervise=supervise, max_length=500)
                assert tokens.ids[: len(asked)] == asked
                assert all(tokens.learned[len(asked) :])
                assert tokens.ids[-1] in end_tokens(tokenizer)
                if supervise == "answer":
                    assert not any(tokens.learned[: len(asked)])
                elif supervise == "all":
                    assert all(tokens.learned)
    finally:
        tokenizer.chat_template = old


@pytest.mark.parametrize(
    ("template", "end"), [(None, "<|end|>"), (PLAIN, "<|end|>"), (GEMMA, "<|end|>"), (THINKING, "<|end|>")]
)
def test_each_assistant_turn_and_its_end_are_learned_exactly(bpe, template, end):
    bpe.chat_template = template or bpe.chat_template
    tokens = chat_tokens(bpe, TALK, supervise="assistant", max_length=500)
    assert learned(bpe, tokens) == f"hello world{end}the lazy dog{end}"
    assert learned(bpe, chat_tokens(bpe, TALK, supervise="answer", max_length=500)) == f"the lazy dog{end}"


def test_a_template_without_an_end_gets_the_end_of_text(bpe):
    bpe.chat_template = ENDLESS
    assert learned(bpe, chat_tokens(bpe, TALK, supervise="answer", max_length=500)).rstrip() in (
        "the lazy dog<|end|>", "the lazy dog\n<|end|>",
    )  # fmt: skip
    assert end_tokens(bpe) == {bpe.eos_token_id}


def test_a_template_without_system_hears_it_in_the_question(bpe):
    bpe.chat_template = GEMMA
    assert chat_text(bpe, TALK[:2], prompt=True) == "<|user|>be kind\n\nhello<|end|>\n<|assistant|>"


def test_the_prompt_is_cut_and_what_opens_it_stays(bpe):
    long = (system("be kind"), user("fox " * 80 + "dog"), assistant("the lazy dog"))
    tokens = chat_tokens(bpe, long, supervise="answer", max_length=50)
    shown = bpe.decode(tokens.ids)
    assert len(tokens.ids) == 50
    assert shown.startswith("<|system|>be kind<|end|><|user|>")
    assert shown.endswith("dog<|end|><|assistant|>the lazy dog<|end|>")
    whole = len(chat_tokens(bpe, long, supervise="answer", max_length=5000).ids)
    assert tokens.cut == whole - 50
    asked = prompt_tokens(bpe, long[:-1], room=40)
    assert len(asked.ids) == 40
    assert bpe.decode(asked.ids).startswith("<|system|>be kind<|end|><|user|>")


def test_an_answer_that_fills_the_room_is_cut_last(bpe):
    talk = (user("hello hello hello"), assistant("the fox " * 50))
    tokens = chat_tokens(bpe, talk, supervise="answer", max_length=24)
    assert len(tokens.ids) == 24
    assert sum(tokens.learned) == 24 - 6
    assert tokens.cut > 0
    with pytest.raises(Unlearnable, match="max_length"):
        encoded([type(tokens)([1, 2], [True, False])])


def test_a_long_prompt_without_a_system_message_loses_its_start_only(bpe):
    ids = prompt_tokens(bpe, [user("hello " * 40), assistant("the"), user("dog?")], room=20).ids
    assert len(ids) == 20
    assert bpe.decode(ids).endswith("<|end|><|assistant|>the<|end|><|user|>dog?<|end|><|assistant|>")


def test_windows_predict_each_token_once():
    for count in (1, 2, 9, 10, 11, 20, 21, 22, 35):
        ids = list(range(count))
        pieces = windows(ids, 10)
        assert [i for piece in pieces for i in piece[1:]] == ids[1:]
        assert all(len(piece) <= 11 for piece in pieces)


def test_encoded_targets_are_the_next_tokens(bpe):
    tokens = chat_tokens(bpe, TALK, supervise="answer", max_length=500)
    row = encoded([tokens])
    (sequence,) = row.sequences
    assert sequence["tokens"].dtype == sequence["targets"].dtype == np.int32
    assert sequence["tokens"].tolist() == tokens.ids[:-1]
    assert [t for t in sequence["targets"].tolist() if t != -100] == [
        i for i, keep in zip(tokens.ids, tokens.learned, strict=True) if keep
    ]
    assert row.size == len(tokens.ids) - 1
    assert row.weight == sum(tokens.learned)


def test_any_text_survives_tokens(tokenizer):
    for text in ("hello world", "the quick brown fox, hello"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=True).replace(" ,", ",") == text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_what_was_never_seen_is_written_in_bytes(kind):
    tokenizer = train_tokenizer(kind, 340, TEXTS)
    odd = "ξένος 🦊 ẞ"
    ids = plain_tokens(tokenizer, odd)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == odd
    assert ids[-1] == tokenizer.eos_token_id


def test_the_same_texts_give_the_same_tokenizer(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    again = open_tokenizer(tmp_path)
    assert again("hello 世界 fox")["input_ids"] == tokenizer("hello 世界 fox")["input_ids"]
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.chat_template == tokenizer.chat_template
    talk = prompt_tokens(tokenizer, TALK[:-1]).ids
    assert prompt_tokens(again, TALK[:-1]).ids == talk


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_another_process_trains_the_same_tokenizer(kind):
    code = (
        "import hashlib, sys\nfrom genwright.nn.tokenizer_training import train_tokenizer\n"
        f"words = train_tokenizer({kind!r}, 400, {TEXTS!r}).backend_tokenizer.to_str()\n"
        "print(hashlib.sha256(words.encode()).hexdigest())"
    )
    here = hashlib.sha256(train_tokenizer(kind, 400, TEXTS).backend_tokenizer.to_str().encode()).hexdigest()
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == here


def test_wordpiece_says_how_large_an_alphabet_is():
    with pytest.raises(UsageError, match="different characters"):
        train_tokenizer("wordpiece", 100, ["".join(map(chr, range(0x4E00, 0x4F00)))])


def test_a_tokenizer_needs_texts_and_room():
    with pytest.raises(UsageError, match="no texts"):
        train_tokenizer("bpe", 400, [])
    with pytest.raises(UsageError, match="at least"):
        train_tokenizer("unigram", 200, TEXTS)
    assert list(texts_of([])) == []


def test_a_broken_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Nonsense"}}')
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        open_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(ModelError, match="tokenizer"):
        open_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match="cannot be read"):
        open_tokenizer(tmp_path / "nowhere")


def test_a_tokenizer_without_end_padding_or_template_is_made_ready():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "<unk>": 3}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    plain = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    ready = make_ready(plain)
    assert ready.pad_token == "</s>"
    assert chat_text(ready, [user("a")], prompt=True).startswith("<s>### Question\na")
    assert chat_text(ready, [user("a"), assistant("a")], prompt=False).endswith("### Answer\na</s>\n\n")
