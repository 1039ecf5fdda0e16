"""Encoders: packed texts are sorted as texts alone, by the same numbers as transformers' own classes."""

import pytest
import torch

from genwright.core import (
    Batched,
    Example,
    Learner,
    ModelError,
    Request,
    Scorer,
    Unlearnable,
    UsageError,
    assistant,
    user,
)
from genwright.engines import encoder

from .tiny import TEXTS

BERT = {
    "model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
MODERN = BERT | {"model_type": "modernbert", "local_attention": 8, "global_attn_every_n_layers": 2}
ROBERTA = BERT | {"model_type": "roberta"}
DISTIL = {"model_type": "distilbert", "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4,
          "max_position_embeddings": 64}  # fmt: skip
ELECTRA = BERT | {"model_type": "electra", "embedding_size": 16}
KINDS = {"bert": BERT, "modernbert": MODERN, "roberta": ROBERTA, "distilbert": DISTIL, "electra": ELECTRA}
LABELS = ("bad", "good", "neither")
ROWS = [
    Example((user("hello world"), assistant("good"))),
    Example((user("the lazy dog " * 6), assistant("bad"))),
    Example((user("what is the capital of France?"), assistant("neither"))),
    *(Example((user(f"the quick brown fox {n}"), assistant("good"))) for n in range(12)),
]


def model_of(kind="bert", seed=0, labels=LABELS, tokenizer="wordpiece", **options):
    settings = encoder.Settings(
        config=KINDS[kind], labels=labels, tokenizer={"train": tokenizer, "vocab_size": 320}, **options
    )
    return encoder.load(None, settings, seed=seed, texts=TEXTS)


def test_it_keeps_the_contracts():
    model = model_of()
    assert isinstance(model, Learner)
    assert isinstance(model, Batched)
    assert isinstance(model, Scorer)


@pytest.mark.parametrize("kind", list(KINDS))
def test_packed_texts_have_the_logits_of_transformers_alone(kind):
    model = model_of(kind)
    items = [model.encode(row) for row in ROWS]
    batch = model.collate(items)
    assert len(batch.tokens) > 64, "more tokens in a row than the model has positions"
    logits = model.logits(batch)
    own = []
    for item in items:
        tokens = torch.as_tensor(item.sequences[0]["tokens"]).long()[None]
        own.append(model.module(input_ids=tokens).logits[0])
    torch.testing.assert_close(logits, torch.stack(own), rtol=1e-4, atol=1e-5)
    wanted = torch.tensor([LABELS.index(row.answer.text) for row in ROWS])
    assert model.targets(batch).tolist() == wanted.tolist()
    loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum", label_smoothing=0.1)
    assert model.loss(batch, label_smoothing=0.1).item() == pytest.approx(loss.item(), rel=1e-5)
    each = torch.log_softmax(logits, 1).gather(1, wanted[:, None])[:, 0]
    assert model.logprobs(batch).tolist() == pytest.approx(each.tolist(), rel=1e-4)
    found = list(model.likelihood(ROWS))
    assert [-one.nll for one in found] == pytest.approx(each.tolist(), rel=1e-4)
    assert {one.tokens for one in found} == {1}


@pytest.mark.parametrize("kind", list(KINDS))
def test_masked_words_have_the_loss_of_transformers_alone(kind):
    model = model_of(kind, labels=(), head="masked_lm")
    items = [model.encode(Example((assistant(text),)), supervise="all") for text in TEXTS[:4]]
    own = 0.0
    for item in items:
        tokens, targets = (torch.as_tensor(item.sequences[0][name]).long()[None] for name in ("tokens", "targets"))
        logits = model.module(input_ids=tokens).logits[0]
        own += torch.nn.functional.cross_entropy(logits, targets[0], ignore_index=-100, reduction="sum").item()
    batch = model.collate(items)
    assert model.loss(batch).item() == pytest.approx(own, rel=1e-4)
    assert model.logits(batch).shape[0] == model.targets(batch).shape[0] == sum(item.weight for item in items)
    assert model.logprobs(batch).sum().item() == pytest.approx(-own, rel=1e-4)


@pytest.mark.parametrize("tokenizer", ["wordpiece", "bpe", "unigram"])
def test_the_frame_is_the_tokenizers_own_and_never_a_target(tokenizer):
    model = model_of(labels=(), head="masked_lm", tokenizer=tokenizer)
    ids = model.tokenizer("hello world")["input_ids"]
    sequence = model.encode(Example((assistant("hello world"),)), supervise="all").sequences[0]
    assert sequence["tokens"].tolist() == ids
    assert sequence["targets"].tolist() == [-100, *ids[1:-1], -100]


def test_long_texts_are_windows_for_masks_and_are_cut_for_labels():
    long = "the quick brown fox " * 40
    masked = model_of(labels=(), head="masked_lm").encode(Example((assistant(long),)))
    assert len(masked.sequences) > 2
    assert max(len(s["tokens"]) for s in masked.sequences) == 64
    sorted_ = model_of().encode(Example((user(long), assistant("good"))))
    assert sorted_.size == 64
    assert sorted_.cut > 50
    assert sorted_.weight == 1


def test_it_sorts_many_as_it_sorts_one():
    model = model_of(seed=4)
    requests = [Request(messages=row.prompt) for row in ROWS]
    together = dict(model.generate_many(requests))
    assert sorted(together) == list(range(len(ROWS)))
    for index, request in enumerate(requests):
        (part,) = model.generate(request)
        assert part.text == together[index].text
        assert part.text == max(part.meta["probs"], key=part.meta["probs"].get)
        assert sum(part.meta["probs"].values()) == pytest.approx(1)
        assert list(part.meta["probs"]) == list(LABELS)
        assert part.meta["probs"] == pytest.approx(together[index].parts[0].meta["probs"], rel=1e-4)


def test_it_fills_in_each_mask():
    model = model_of(labels=(), head="masked_lm")
    (part,) = model.generate(Request(messages=(user("the [MASK] brown [MASK]"),)))
    assert "[MASK]" not in part.text
    assert part.text.startswith("the ")
    assert [len(guess) for guess in part.meta["masks"]] == [5, 5]
    with pytest.raises(UsageError, match="nothing to fill in"):
        list(model.generate(Request(messages=(user("no mask here"),))))
    with pytest.raises(UsageError, match="likelihood"):
        list(model.likelihood(ROWS))
    with pytest.raises(UsageError, match="no labels"):
        model.set_labels(LABELS)


def test_labels_come_from_whoever_knows_them_and_a_trained_head_stays():
    model = model_of(labels=())
    with pytest.raises(ModelError, match="labels"):
        model.encode(ROWS[0])
    model.set_labels(["a", "b", "good"])
    weight = model.module.classifier.weight
    assert weight.shape == (3, 32)
    model.set_labels(["a", "b", "good"])
    assert model.module.classifier.weight is weight
    assert model.module.config.num_labels == 3
    assert model.encode(ROWS[0]).sequences[0]["label"] == 2
    with pytest.raises(Unlearnable, match="none of"):
        model.encode(ROWS[1])
    for wrong in (["a"], ["a", "a"]):
        with pytest.raises(UsageError, match="two or more"):
            model.set_labels(wrong)
    with pytest.raises(Unlearnable, match="no text"):
        model.encode(Example((assistant("good"),)))


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_saved_model_sorts_the_same(kind, tmp_path):
    model = model_of(kind, seed=1)
    model.save(tmp_path / "m")
    again = encoder.load(tmp_path / "m", encoder.Settings())
    assert again.labels == LABELS
    batch = model.collate([model.encode(row) for row in ROWS])
    torch.testing.assert_close(again.logits(batch), model.logits(batch))


def test_a_masked_model_is_found_again_and_can_be_taught_to_sort(tmp_path):
    model = model_of(labels=(), head="masked_lm")
    model.save(tmp_path / "m")
    assert not encoder.load(tmp_path / "m", encoder.Settings()).classifies
    one = encoder.load(tmp_path / "m", encoder.Settings(head="labels", labels=LABELS), seed=3)
    same = encoder.load(tmp_path / "m", encoder.Settings(), seed=3, labels=LABELS)
    batch = one.collate([one.encode(row) for row in ROWS])
    assert torch.equal(one.logits(batch), same.logits(batch))
    word = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(one.module.state_dict()[word], model.module.state_dict()[word])


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_adapter_brings_its_labels_and_its_head(kind, tmp_path):
    from peft import LoraConfig, get_peft_model

    from genwright.nn.pretrained import quiet

    base = model_of(kind, labels=(), head="masked_lm")
    base.save(tmp_path / "base")
    model = encoder.load(tmp_path / "base", encoder.Settings(labels=LABELS, head="labels"))
    model.base_reference = {"source": "", "path": str(tmp_path / "base"), "sha256": ""}
    targets = ["q_lin", "v_lin"] if kind == "distilbert" else "all-linear"
    with quiet():
        model.module = get_peft_model(model.module, LoraConfig(r=4, target_modules=targets, task_type="SEQ_CLS"))
    for parameter in model.module.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.module.eval()
    batch = model.collate([model.encode(row) for row in ROWS])
    tuned = model.logits(batch)
    model.save(tmp_path / "tuned")
    again = encoder.load(tmp_path / "tuned", encoder.Settings(head="labels"))
    assert again.labels == LABELS
    torch.testing.assert_close(again.logits(batch), tuned)
    again.set_labels(LABELS)
    with pytest.raises(UsageError, match="cannot be changed"):
        again.set_labels(("x", "y"))
    auto = encoder.load(tmp_path / "tuned", encoder.Settings())
    assert auto.labels == LABELS
