"""Sampling: what is streamed is what is said; the settings do what they say."""

import collections

import pytest
import torch

from genwright.core import Constraints, Request, UsageError, user
from genwright.engines import causal_lm
from genwright.nn import sampling
from genwright.nn.sampling import Text, batches, draw

TEXTS = ["the quick brown fox jumps over the lazy dog", "hello world 你好 🦊"] * 3
CONFIG = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def model(request):
    settings = causal_lm.Settings(config=CONFIG, tokenizer={"train": request.param, "vocab_size": 340})
    return causal_lm.load(None, settings, seed=2, texts=TEXTS)


def asked(**options):
    return Request(messages=(user("hello world"),), **({"max_new_tokens": 20} | options))


def said(model, **options):
    return "".join(part.text for part in model.generate(asked(**options)))


def rows_of(model, request):
    """The row behind an answer, and the meta of its last part."""
    prompt = model._prompt(request).ids
    (row,) = sampling.prepare(
        [request], [prompt], tokenizer=model.tokenizer, ends=model.ends, vocabulary=model.module.config.vocab_size,
        room=model.context, plain=[False], facts=[{}],
    )  # fmt: skip
    steps = sampling.CausalSteps(model.module, [prompt])
    return row, list(sampling.decode(steps, [row], model.tokenizer, model.ends))[-1][1].meta


def streamed(tokenizer, ids, stop=(), context=()):
    text = Text(tokenizer, context, stop)
    deltas = []
    for token in ids:
        deltas.append(text.add(token))
        if text.stopped:
            break
    return [*deltas, text.rest()]


def test_deltas_join_to_the_text_and_never_split_a_character(model):
    words = "hello 你好 🦊🦊 ẞ the fox"
    ids = model.tokenizer(words, add_special_tokens=False)["input_ids"]
    deltas = streamed(model.tokenizer, ids)
    assert "".join(deltas) == model.tokenizer.decode(ids)
    assert not any("\ufffd" in delta for delta in deltas)
    assert sum(bool(delta) for delta in deltas) > 5


def test_half_a_character_at_the_end_is_shown_as_such(model):
    ids = model.tokenizer("the ẞ", add_special_tokens=False)["input_ids"][:-1]
    deltas = streamed(model.tokenizer, ids)
    assert "".join(deltas) == model.tokenizer.decode(ids)
    assert deltas[-1].endswith("\ufffd")


@pytest.mark.parametrize(
    ("stop", "left"),
    [(("fox",), "the quick brown "), (("own f", "zzz"), "the quick br"), (("the",), ""), (("q",), "the ")],
)
def test_no_part_of_a_stop_string_is_shown(model, stop, left):
    ids = model.tokenizer("the quick brown fox jumps", add_special_tokens=False)["input_ids"]
    deltas = streamed(model.tokenizer, ids, stop)
    assert "".join(deltas) == left
    for length in range(len(deltas)):
        assert left.startswith("".join(deltas[:length]))


def test_the_beginning_of_a_stop_string_that_is_none_is_shown_after_all(model):
    ids = model.tokenizer("the quick brown fox jumps", add_special_tokens=False)["input_ids"]
    assert "".join(streamed(model.tokenizer, ids, ("foxes", "jumps over"))) == "the quick brown fox jumps"


def test_words_go_on_behind_a_text_with_their_space(model):
    whole = model.tokenizer("hello world", add_special_tokens=False)["input_ids"]
    first = len(model.tokenizer("hello", add_special_tokens=False)["input_ids"])
    assert "".join(streamed(model.tokenizer, whole[first:], context=whole[:first])) == " world"


def test_stop_strings_end_an_answer(model):
    free = said(model)
    stop = free[4:6]
    parts = list(model.generate(asked(stop=(stop,))))
    assert "".join(p.text for p in parts) == free[: free.index(stop)]
    assert parts[-1].meta["finish_reason"] == "stop"


def test_a_seed_repeats_an_answer_and_heat_varies_it(model):
    once = said(model, temperature=1.0, seed=1)
    assert said(model, temperature=1.0, seed=1) == once
    assert said(model, temperature=1.0, seed=2) != once
    assert said(model, temperature=1.0) != said(model, temperature=1.0)
    assert said(model) == said(model, seed=5)
    before = torch.random.get_rng_state()
    said(model, temperature=1.0)
    assert torch.equal(torch.random.get_rng_state(), before), "training draws its own numbers"


def test_top_k_and_top_p_and_heat_bound_what_is_drawn():
    logits = torch.tensor([3.0, 2.0, 1.0, 0.0, -1.0])
    random = torch.Generator().manual_seed(0)

    def drawn(**options):
        return collections.Counter(draw(logits, asked(**options), random) for _ in range(4000))

    free = drawn(temperature=1.0)
    chances = torch.softmax(logits, 0)
    assert set(free) == {0, 1, 2, 3, 4}
    assert free[0] / 4000 == pytest.approx(chances[0].item(), abs=0.04)
    assert set(drawn(temperature=1.0, top_k=2)) == {0, 1}
    assert set(drawn(temperature=1.0, top_p=0.7)) == {0, 1}
    assert set(drawn(temperature=1.0, top_p=0.5)) == {0}
    assert set(drawn(temperature=0.05)) == {0}
    assert drawn(temperature=3.0)[4] > free[4]
    assert set(drawn(temperature=0.0)) == {0}


def test_a_repetition_penalty_varies_the_words(model):
    def variety(penalty):
        row = rows_of(model, asked(max_new_tokens=60, repetition_penalty=penalty))[0]
        return len(set(row.ids)) / len(row.ids)

    assert variety(5.0) > variety(1.0)


def test_the_log_probability_is_that_of_the_drawn_tokens(model):
    for options in ({}, {"temperature": 0.7, "seed": 3}):
        row, meta = rows_of(model, asked(max_new_tokens=6, **options))
        assert meta["finish_reason"] == "length"
        logits = model.module(input_ids=torch.tensor([row.prompt + row.ids])).logits[0, len(row.prompt) - 1 : -1]
        wanted = torch.log_softmax(logits, 1).gather(1, torch.tensor(row.ids)[:, None]).sum().item()
        assert meta["logprob"] == pytest.approx(wanted, rel=1e-4)


def test_batches_hold_neighbours_in_length_within_bounds():
    lengths = [(n * 37) % 400 + 1 for n in range(70)]
    made = batches(lengths, [100] * 70)
    assert sorted(i for batch in made for i in batch) == list(range(70))
    assert max(len(batch) for batch in made) == sampling.ROWS
    order = [lengths[i] for batch in made for i in batch]
    assert order == sorted(order)
    wide = batches([30_000, 10, 30_000], [100] * 3)
    assert wide == [[1], [0], [2]]


def test_a_reader_that_goes_away_ends_the_work(model):
    parts = model.generate(asked(max_new_tokens=100))
    next(parts)
    parts.close()
    assert not model.module.training
    model.module.train()
    try:
        parts = model.generate(asked(max_new_tokens=3))
        next(parts)
        assert not model.module.training
        list(parts)
        assert model.module.training
    finally:
        model.module.eval()


# -- penalties, biases, log-probabilities ---------------------------------------------------------------------------


def test_presence_and_frequency_penalties_count_what_was_said_but_not_the_prompt(model):
    """By hand, token by token: OpenAI's formula."""
    for options in ({"frequency_penalty": 1.5}, {"presence_penalty": 2.0}, {"presence_penalty": -1.0},
                    {"frequency_penalty": 0.7, "presence_penalty": 0.5}):  # fmt: skip
        row, _ = rows_of(model, asked(max_new_tokens=12, **options))
        for place, token in enumerate(row.ids):
            ids = torch.tensor([row.prompt + row.ids[:place]])
            logits = model.module(input_ids=ids).logits[0, -1].detach()
            for said, count in collections.Counter(row.ids[:place]).items():
                logits[said] -= options.get("presence_penalty", 0) + count * options.get("frequency_penalty", 0)
            assert logits[token] == pytest.approx(logits.max().item(), abs=1e-4)
    plain = rows_of(model, asked(max_new_tokens=40))[0].ids
    varied = rows_of(model, asked(max_new_tokens=40, frequency_penalty=2.0))[0].ids
    assert len(set(varied)) > len(set(plain))


def test_a_bias_forces_and_bans_tokens(model):
    free = rows_of(model, asked())[0].ids
    assert free[0] not in rows_of(model, asked(logit_bias={free[0]: -100.0}))[0].ids
    other = next(token for token in range(200, 300) if token not in model.ends and token != free[0])
    assert set(rows_of(model, asked(logit_bias={other: 100.0}))[0].ids) == {other}
    with pytest.raises(UsageError, match="There is no token 999999"):
        said(model, logit_bias={999999: 1.0})


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "seed": 3}, {"frequency_penalty": 1.0},
                                     {"constraints": Constraints(regex="[a-z 你好🦊]{16}")}])  # fmt: skip
def test_log_probabilities_are_the_models_own_and_belong_to_the_text(model, options):
    parts = list(model.generate(asked(logprobs=3, max_new_tokens=16, **options)))
    entries = [entry for part in parts for entry in (part.meta or {}).get("logprobs", [])]
    row, meta = rows_of(model, asked(max_new_tokens=16, **options))
    assert len(entries) == meta["completion_tokens"]
    logits = model.module(input_ids=torch.tensor([row.prompt + row.ids])).logits[0, len(row.prompt) - 1 : -1]
    chances = torch.log_softmax(logits, 1)
    assert [e["logprob"] for e in entries] == pytest.approx([chances[i, t].item() for i, t in enumerate(row.ids)],
                                                            abs=1e-3)  # fmt: skip
    for entry, wanted in zip(entries, chances, strict=True):
        assert [one["logprob"] for one in entry["top"]] == pytest.approx(wanted.topk(3).values.tolist(), abs=1e-3)
        assert bytes(entry["bytes"]).decode("utf-8", "replace") == entry["token"]
    for part in parts:
        told = b"".join(bytes(entry["bytes"]) for entry in (part.meta or {}).get("logprobs", []))
        if "\ufffd" not in part.text:  # broken characters are shown in more than one way
            assert told.decode().strip() == part.text.strip()


def test_the_answer_of_a_batch_has_all_its_figures(model):
    wanted = asked(logprobs=0)
    ((_, message),) = model.generate_many([wanted])
    streamed = [entry for part in model.generate(wanted) for entry in (part.meta or {}).get("logprobs", [])]
    assert message.parts[0].meta["logprobs"] == streamed
    assert all(entry["top"] == [] for entry in streamed)
    assert all("logprobs" not in (part.meta or {}) for part in model.generate(asked()))


def test_a_stop_word_takes_its_figures_with_it(model):
    free = said(model)
    stop = free[4:6]
    parts = list(model.generate(asked(stop=(stop,), logprobs=1)))
    entries = [entry for part in parts for entry in (part.meta or {}).get("logprobs", [])]
    text = "".join(part.text for part in parts)
    assert text == free[: free.index(stop)]
    told = b"".join(bytes(entry["bytes"]) for entry in entries[:-1]).decode().lstrip()
    assert text.startswith(told)  # but for the last token, whose end may belong to the stop word


def test_a_given_text_is_scored_token_by_token(model):
    text = "hello 你好 🦊 fox"
    entries = model.token_scores(text, 2)
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode().strip() == text
    assert entries[0]["logprob"] is None
    ids = model.tokenizer(text)["input_ids"]
    ids = ids[:-1] if ids[-1] in model.ends else ids
    chances = torch.log_softmax(model.module(input_ids=torch.tensor([ids])).logits[0], 1)
    wanted = [chances[place, token].item() for place, token in enumerate(ids[1:])][len(ids) - len(entries) :]
    assert [entry["logprob"] for entry in entries[1:]] == pytest.approx(wanted, abs=1e-3)
    assert all(len(entry["top"]) == 2 for entry in entries[1:])
    assert model.token_scores("", 2) == []
    with pytest.raises(UsageError, match="the model reads"):
        model.token_scores("fox " * 500)
