"""Encoder–decoders: groups of rows have the loss of rows alone; what is drawn with a cache is what is drawn without."""

import pytest
import torch

from genwright.core import Batched, Example, Learner, Request, Scorer, Unlearnable, UsageError, assistant, user
from genwright.engines import seq2seq
from genwright.nn.encoder_decoder import WASTE, grouped

from .tiny import TEXTS

MARIAN = {"model_type": "marian", "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64,
          "decoder_ffn_dim": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
          "max_position_embeddings": 64}  # fmt: skip
BART = MARIAN | {"model_type": "bart"}
T5 = {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
KINDS = {"marian": MARIAN, "bart": BART, "t5": T5}
ROWS = [
    Example((user("hello world"), assistant("你好，世界！"))),
    Example((user("what is the capital of France? " * 2), assistant("Paris"))),
    Example((user("the dog"), assistant("the quick brown fox jumps over the lazy dog"))),
    Example((user("how are you today?"), assistant("hello"))),
]


def model_of(kind, seed=0, **options):
    settings = seq2seq.Settings(config=KINDS[kind], tokenizer={"train": "bpe", "vocab_size": 320}, **options)
    return seq2seq.load(None, settings, seed=seed, texts=TEXTS)


def words(parts):
    return "".join(part.text for part in parts)


def test_it_keeps_the_contracts():
    model = model_of("marian")
    assert isinstance(model, Learner)
    assert isinstance(model, Batched)
    assert isinstance(model, Scorer)


@pytest.mark.parametrize("kind", list(KINDS))
def test_groups_have_the_loss_of_rows_alone_and_of_transformers(kind):
    model = model_of(kind)
    items = [model.encode(row) for row in ROWS]
    batch = model.collate(items)
    together = model.loss(batch).item()
    own = 0.0
    for item in items:
        row = item.sequences[0]
        source, targets = (torch.as_tensor(row[name]).long()[None] for name in ("tokens", "targets"))
        own += model.module(input_ids=source, labels=targets).loss.item() * targets.numel()
    assert together == pytest.approx(own, rel=1e-5)
    assert together == pytest.approx(sum(model.loss(model.collate([item])).item() for item in items), rel=1e-5)
    logits, targets = model.logits(batch), model.targets(batch)
    assert logits.shape == (int(sum(item.weight for item in items)), model.module.config.vocab_size)
    assert torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item() == pytest.approx(own, rel=1e-5)
    each = [-model.loss(model.collate([item])).item() for item in items]
    assert model.logprobs(batch).tolist() == pytest.approx(each, rel=1e-4)
    assert batch.weight == sum(item.weight for item in items)
    real = sum(item.size for item in items)
    assert real <= batch.slots <= real / (1 - WASTE) + 1
    assert batch.to("cpu").slots == batch.slots
    smooth = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.2).item()
    assert model.loss(batch, label_smoothing=0.2).item() == pytest.approx(smooth, rel=1e-4)


def test_padding_is_bounded():
    lengths = [(n % 17 + 1, (n * 7) % 23 + 1) for n in range(60)]
    groups = grouped(lengths)
    assert sorted(i for group in groups for i in group) == list(range(60))
    for group in groups:
        rows = [lengths[i] for i in group]
        slots = len(rows) * (max(s for s, _ in rows) + max(t for _, t in rows))
        assert sum(s + t for s, t in rows) >= (1 - WASTE) * slots
    assert len(groups) < 60


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_cached_sampler_is_the_uncached_one_alone_and_in_a_batch(kind):
    model = model_of(kind, seed=2)
    requests = [Request(messages=row.prompt, max_new_tokens=6 + 3 * n) for n, row in enumerate(ROWS)]
    together = dict(model.generate_many(requests))
    pad, start = model.tokenizer.pad_token_id, model.module.config.decoder_start_token_id
    for index, request in enumerate(requests):
        source = torch.as_tensor(model.encode(ROWS[index]).sequences[0]["tokens"]).long()[None]
        ids = [start]
        with torch.no_grad():
            for _ in range(request.max_new_tokens):
                logits = model.module(input_ids=source, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
                logits[pad] = float("-inf")
                ids.append(int(logits.argmax()))
                if ids[-1] in model.ends:
                    break
        wanted = model.tokenizer.decode([i for i in ids[1:] if i not in model.ends], skip_special_tokens=True)
        parts = list(model.generate(request))
        assert words(parts) == wanted
        assert together[index].text == wanted
        assert parts[-1].meta["prompt_tokens"] == source.shape[1]


def test_likelihood_is_the_loss_of_the_answer():
    model = model_of("t5")
    found = list(model.likelihood(ROWS))
    for one, row in zip(found, ROWS, strict=True):
        assert one.nll == pytest.approx(model.loss(model.collate([model.encode(row)])).item(), rel=1e-4)
        assert one.chars == len(row.answer.text)
    with pytest.raises(UsageError, match="Example 0"):
        list(model.likelihood([Example((user("a"), assistant("")))]))


def test_long_texts_are_cut_and_counted():
    model = model_of("marian")
    assert model.context == 64
    item = model.encode(Example((user("hello " * 200), assistant("the dog " * 100))))
    assert [len(item.sequences[0][name]) for name in ("tokens", "targets")] == [64, 64]
    assert item.sequences[0]["tokens"][-1] == model.tokenizer.eos_token_id
    assert item.cut > 200
    parts = list(model.generate(Request(messages=(user("hello " * 200),), max_new_tokens=200)))
    assert parts[-1].meta["cut"] > 100
    assert parts[-1].meta["completion_tokens"] <= 64


@pytest.mark.parametrize(("asked", "said", "reason"), [("", "a", "no text"), ("a", " ", "empty")])
def test_what_cannot_be_learned_says_why(asked, said, reason):
    with pytest.raises(Unlearnable, match=reason):
        model_of("marian").encode(Example((user(asked), assistant(said))))


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_saved_model_answers_the_same(kind, tmp_path):
    model = model_of(kind, seed=3)
    model.save(tmp_path / "m")
    again = seq2seq.load(tmp_path / "m", seq2seq.Settings())
    request = Request(messages=ROWS[0].prompt, max_new_tokens=12)
    assert words(again.generate(request)) == words(model.generate(request))
    batch = model.collate([model.encode(row) for row in ROWS])
    assert again.loss(batch).item() == pytest.approx(model.loss(batch).item(), rel=1e-6)


def test_an_adapter_is_found_again_on_its_base(tmp_path):
    from peft import LoraConfig, get_peft_model

    from genwright.nn.pretrained import quiet

    model = model_of("t5", seed=1)
    with quiet():
        config = LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_2_SEQ_LM")
        model.module = get_peft_model(model.module, config)
    for name, parameter in model.module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.module.eval()
    batch = model.collate([model.encode(row) for row in ROWS])
    tuned = model.loss(batch).item()
    with model.untuned():
        assert model.loss(batch).item() != tuned
    model.save(tmp_path / "tuned")
    again = seq2seq.load(tmp_path / "tuned", seq2seq.Settings())
    assert again.loss(batch).item() == pytest.approx(tuned, rel=1e-5)
