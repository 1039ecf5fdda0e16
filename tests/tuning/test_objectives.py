"""Objectives: each loss is the formula of its paper, computed here from plain logits."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genwright.core import Example, Unlearnable, UsageError, assistant, choose, shelves, user
from genwright.core.plugin import PluginProblems

from .tiny import TinyLearner, batch_of, engine_learner, llama, rows, tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def objective(name, **options):
    return choose("objectives", {"name": name, **options})


def encoded(chosen, learner, examples):
    encode = getattr(chosen.module, "encode", None)
    return [encode(learner, e, chosen.settings) if encode else learner.encode(e) for e in examples]


def plain_logprobs(module, sequence):
    """Log-probabilities of the supervised tokens of one sequence, by the model's own forward, nothing packed."""
    targets = torch.tensor(np.asarray(sequence["targets"]), dtype=torch.long)
    logits = module(input_ids=torch.tensor(np.asarray(sequence["tokens"]), dtype=torch.long)[None]).logits[0]
    keep = targets != -100
    return torch.log_softmax(logits[keep].float(), -1).gather(1, targets[keep][:, None])[:, 0]


def pairs(count=5):
    worse = [e.answer for e in rows(count, seed=9)]
    return [Example(e.messages, {"rejected": w}) for e, w in zip(rows(count), worse, strict=True)]


@pytest.fixture
def learner():
    """A full learner that has moved away from its start."""
    learner = TinyLearner()
    with torch.no_grad():
        for p in learner.module.parameters():
            p += 0.05 * torch.randn_like(p)
    return learner


def before(learner):
    start = llama()
    start.load_state_dict(learner.start)
    return start.eval()


# -- likelihood -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sft", "pretrain", "seq2seq"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_likelihoods_are_sums_over_the_supervised_tokens(learner, name, smoothing):
    chosen = objective(name)
    items = encoded(chosen, learner, rows(4))
    learner.label_smoothing = smoothing
    loss = chosen(learner, learner.collate(items))
    expected = 0
    for item in items:
        (sequence,) = item.sequences
        targets = torch.tensor(sequence["targets"], dtype=torch.long)
        logits = learner.module(input_ids=torch.tensor(sequence["tokens"], dtype=torch.long)[None]).logits[0]
        expected += F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss.weight == sum(item.weight for item in items)


def test_supervise_chooses_what_is_learned(learner):
    talk = Example((user("the cat"), assistant("sat"), user("a dog"), assistant("ran fast")))
    weights = {s: encoded(objective("sft", supervise=s), learner, [talk])[0].weight for s in ("answer", "assistant")}
    assert weights["answer"] < weights["assistant"] < encoded(objective("pretrain"), learner, [talk])[0].weight


# -- preferences ------------------------------------------------------------------------------------------------------


def scores(learner, items, average):
    """(better, worse) log-probabilities now and before tuning, one pair at a time."""
    found = []
    for module in (learner.module, before(learner)):
        reduce = torch.mean if average else torch.sum
        found.append(
            torch.stack([torch.stack([reduce(plain_logprobs(module, s)) for s in i.sequences]) for i in items])
        )
    return found


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        ({}, lambda h: -F.logsigmoid(0.1 * h)),
        ({"beta": 0.5}, lambda h: -F.logsigmoid(0.5 * h)),
        ({"label_smoothing": 0.1}, lambda h: -0.9 * F.logsigmoid(0.1 * h) - 0.1 * F.logsigmoid(-0.1 * h)),
        ({"average_log_prob": True}, lambda h: -F.logsigmoid(0.1 * h)),
        ({"loss_type": "ipo"}, lambda h: (h - 5) ** 2),
        ({"loss_type": "ipo", "average_log_prob": False}, lambda h: (h - 5) ** 2),
    ],
)
def test_dpo_follows_its_formula(learner, options, formula):
    chosen = objective("dpo", **options)
    items = encoded(chosen, learner, pairs())
    loss = chosen(learner, learner.collate(items))
    average = options.get("average_log_prob", "loss_type" in options)
    now, start = scores(learner, items, average)
    h = (now - start)[:, 0] - (now - start)[:, 1]
    assert loss.total.item() == pytest.approx(formula(h).sum().item(), rel=1e-3)
    assert loss.weight == 5
    assert [i.weight for i in items] == [1.0] * 5
    assert loss.logs["accuracy"] == pytest.approx((h > 0).float().mean().item())
    beta = options.get("beta", 0.1)
    assert loss.logs["margin"] == pytest.approx(beta * h.mean().item(), abs=1e-4)
    assert loss.logs["reward_chosen"] - loss.logs["reward_rejected"] == pytest.approx(loss.logs["margin"], abs=1e-4)


def test_dpo_at_the_start_is_log_two_whatever_the_method():
    for name in ("lora", "prefix", "full"):
        learner = choose("methods", name)(TinyLearner())
        chosen = objective("dpo")
        loss = chosen(learner, learner.collate(encoded(chosen, learner, pairs())))
        assert loss.total.item() / loss.weight == pytest.approx(math.log(2), abs=1e-4 if name != "prefix" else 0.5)


@pytest.mark.parametrize("name", ["dpo", "orpo", "simpo"])
def test_preferences_are_learned(name):
    learner = choose("methods", "lora")(TinyLearner(), seed=1)
    chosen = objective(name)
    batch = learner.collate(encoded(chosen, learner, pairs()))
    optimizer = torch.optim.AdamW([p for p in learner.module.parameters() if p.requires_grad], lr=0.01)
    for _ in range(20):
        loss = chosen(learner, batch)
        optimizer.zero_grad()
        (loss.total / loss.weight).backward()
        optimizer.step()
    assert loss.logs["accuracy"] == 1.0


def test_orpo_follows_its_formula(learner):
    for strength in (0.1, 0.7):
        chosen = objective("orpo", strength=strength)
        items = encoded(chosen, learner, pairs())
        now, _ = scores(learner, items, average=True)
        p = now.exp()
        odds = torch.log(p / (1 - p))
        expected = (-now[:, 0] - strength * F.logsigmoid(odds[:, 0] - odds[:, 1])).sum()
        assert chosen(learner, learner.collate(items)).total.item() == pytest.approx(expected.item(), rel=1e-4)


def test_simpo_follows_its_formula(learner):
    for beta, gamma in ((2.0, 1.0), (1.0, 0.3)):
        chosen = objective("simpo", beta=beta, gamma=gamma)
        items = encoded(chosen, learner, pairs())
        now, _ = scores(learner, items, average=True)
        expected = -F.logsigmoid(beta * (now[:, 0] - now[:, 1]) - gamma).sum()
        assert chosen(learner, learner.collate(items)).total.item() == pytest.approx(expected.item(), rel=1e-4)


def test_rows_without_a_preference_are_unlearnable(learner):
    with pytest.raises(Unlearnable, match="no rejected answer"):
        encoded(objective("dpo"), learner, rows(1))
    same = Example(rows(1)[0].messages, {"rejected": rows(1)[0].answer})
    with pytest.raises(Unlearnable, match="are the same"):
        encoded(objective("dpo"), learner, [same])


def test_the_reference_has_no_dropout_and_modes_are_left_as_found(learner):
    from genwright.tuning.preferences import reference

    learner.module.train()
    learner.module.model.layers[0].eval()
    with reference(learner):
        assert not any(m.training for m in learner.module.modules())
        assert not torch.is_grad_enabled()
    assert learner.module.training
    assert not learner.module.model.layers[0].training


def test_preferences_of_an_encoder_decoder_are_counted_in_the_order_of_the_rows():
    from genwright.tuning.preferences import answer_lengths

    config = dict(model_type="marian", d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
                  decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48)  # fmt: skip
    learner = engine_learner("seq2seq", **config)
    chosen = objective("simpo")
    items = encoded(chosen, learner, pairs())
    batch = learner.collate(items)
    counts = [len(s["targets"]) for item in items for s in item.sequences]
    assert answer_lengths(batch).tolist() == counts
    loss = chosen(learner, batch)
    alone = [chosen(learner, learner.collate([item])).total.item() for item in items]
    assert loss.total.item() == pytest.approx(sum(alone), rel=1e-4)


# -- labels -----------------------------------------------------------------------------------------------------------


def test_classify_weighs_labels_and_counts_rows():
    config = dict(model_type="bert", hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    learner = engine_learner("encoder", **config)
    learner.set_labels(["no", "maybe", "yes"])
    examples = [Example((e.messages[0], assistant(("no", "yes")[i % 3 > 0]))) for i, e in enumerate(rows())]
    batch = learner.collate([learner.encode(e) for e in examples])
    logits, targets = learner.logits(batch), learner.targets(batch)
    for options, weights in (({}, None), ({"label_weights": {"yes": 3.0}}, torch.tensor([1.0, 1.0, 3.0]))):
        chosen = objective("classify", **options)
        chosen.module.prepare(learner, chosen.settings)
        for smoothing in (0.0, 0.1):
            learner.label_smoothing = smoothing
            loss = chosen(learner, batch)
            expected = F.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=smoothing)
            assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
            assert loss.weight == 8
            assert loss.logs["accuracy"] == (logits.argmax(1) == targets).float().mean().item()
    with pytest.raises(UsageError, match="no label here"):
        wrong = objective("classify", label_weights={"yse": 2.0})
        wrong.module.prepare(learner, wrong.settings)


# -- masking ----------------------------------------------------------------------------------------------------------


def bert():
    import transformers as tf

    torch.manual_seed(0)
    words = tokenizer()
    config = tf.BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    return TinyLearner(tf.BertForMaskedLM(config), words)


def test_masking_hides_the_shares_it_is_told():
    learner = bert()
    many = batch_of(learner, rows(600), supervise="all")
    masked_lm = shelves["objectives"].load("masked_lm")
    special = torch.isin(many.tokens, torch.tensor(learner.tokenizer.all_special_ids))
    for options in ({}, {"share": 0.4, "masked": 0.5, "random": 0.5}, {"masked": 0.0, "random": 0.0}):
        settings = masked_lm.Settings(**options)
        hidden = masked_lm.hide(many, learner.tokenizer, settings, fixed=True)
        chosen = hidden.targets != -100
        assert not (chosen & special).any()
        assert torch.equal(hidden.targets[chosen], many.tokens[chosen])
        assert torch.equal(hidden.tokens[~chosen], many.tokens[~chosen])
        assert chosen[~special].float().mean() == pytest.approx(settings.share, abs=0.02)
        is_mask = hidden.tokens[chosen] == learner.tokenizer.mask_token_id
        assert is_mask.float().mean() == pytest.approx(settings.masked, abs=0.05)
        other = (hidden.tokens[chosen] != many.tokens[chosen]) & ~is_mask
        assert other.float().mean() == pytest.approx(settings.random, abs=0.05)


def test_masked_lm_is_the_cross_entropy_at_the_hidden_tokens():
    learner, chosen = bert(), objective("masked_lm")
    items = encoded(chosen, learner, rows(6))
    batch = learner.collate(items)
    loss = chosen(learner, batch)
    hidden = chosen.module.hide(batch, learner.tokenizer, chosen.settings, fixed=True)
    expected = sum(
        F.cross_entropy(learner.module(input_ids=t[None]).logits[0], y, reduction="sum")
        for t, y in zip(hidden.tokens.split(batch.lengths), hidden.targets.split(batch.lengths), strict=True)
        if (y != -100).any()
    )
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss.weight == (hidden.targets != -100).sum()
    special = torch.isin(batch.tokens, torch.tensor(learner.tokenizer.all_special_ids))
    assert sum(i.weight for i in items) == pytest.approx(0.15 * (~special).sum().item())


def test_masks_are_drawn_anew_in_training_from_the_global_seed_only():
    learner, chosen = bert(), objective("masked_lm")
    batch = learner.collate(encoded(chosen, learner, rows(6)))
    with torch.no_grad():
        assert chosen(learner, batch).total.item() == chosen(learner, batch).total.item()
        learner.module.train()
        torch.manual_seed(1)
        one, two = (chosen.module.hide(batch, learner.tokenizer, chosen.settings, fixed=False) for _ in "ab")
        torch.manual_seed(1)
        three = chosen.module.hide(batch, learner.tokenizer, chosen.settings, fixed=False)
    assert not torch.equal(one.targets, two.targets)
    assert torch.equal(one.targets, three.targets)


def test_masking_refuses_what_cannot_be():
    with pytest.raises(PluginProblems, match="may not exceed 1"):
        objective("masked_lm", masked=0.9, random=0.2)
    learner = bert()
    learner.tokenizer.mask_token = None
    with pytest.raises(UsageError, match="no mask token"):
        objective("masked_lm").module.prepare(learner, None)


# -- distillation -----------------------------------------------------------------------------------------------------


class Teacher:
    """An engine on no shelf: a folder's tiny model."""

    Settings = shelves["engines"].settings
    made = None

    @staticmethod
    def load(source, settings, seed=0):
        assert source.is_dir()
        return Teacher.made


@pytest.fixture
def teacher(monkeypatch, tmp_path):
    """A second tiny learner, found by name as an engine would be."""
    shelf = type(shelves["engines"])
    real_load, real_settings = shelf.load, shelf.settings
    monkeypatch.setattr(shelf, "load", lambda self, name: Teacher if name == "tiny_teacher" else real_load(self, name))
    monkeypatch.setattr(
        shelf, "settings", lambda self, name: dict if name == "tiny_teacher" else real_settings(self, name)
    )
    Teacher.made = TinyLearner(llama(seed=7, hidden_size=64))
    return tmp_path


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 1.0), (2.0, 1.0), (1.0, 0.0), (3.0, 0.3)])
def test_distillation_follows_its_formula(learner, teacher, temperature, alpha):
    chosen = objective("distil", teacher=str(teacher), temperature=temperature, alpha=alpha, engine="tiny_teacher")
    chosen.module.prepare(learner, chosen.settings)
    items = encoded(chosen, learner, rows(4))
    loss = chosen(learner, learner.collate(items))
    expected = 0
    for (sequence,) in (i.sequences for i in items):
        ids, targets = (torch.tensor(sequence[k], dtype=torch.long) for k in ("tokens", "targets"))
        keep = targets != -100
        s, t = (m(input_ids=ids[None]).logits[0][keep] for m in (learner.module, Teacher.made.module))
        p, q = torch.softmax(t / temperature, -1), torch.softmax(s / temperature, -1)
        expected += alpha * temperature**2 * (p * (p.log() - q.log())).sum()
        expected += (1 - alpha) * F.cross_entropy(s, targets[keep], reduction="sum")
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-3)
    assert not any(p.requires_grad for p in Teacher.made.module.parameters())


def test_a_teacher_must_be_there_and_speak_the_same_words(learner, teacher):
    with pytest.raises(UsageError, match="no teacher"):
        chosen = objective("distil", teacher=str(teacher / "nowhere"), engine="tiny_teacher")
        chosen.module.prepare(learner, chosen.settings)
    Teacher.made.tokenizer.add_tokens(["zebra"])
    with pytest.raises(UsageError, match="another vocabulary"):
        chosen = objective("distil", teacher=str(teacher), engine="tiny_teacher")
        chosen.module.prepare(learner, chosen.settings)


def test_one_pass_or_two_the_sums_agree(learner):
    """What accumulation relies on: a loss over a batch is the sum of the losses over its parts."""
    for name in ("sft", "pretrain", "dpo", "orpo", "simpo"):
        chosen = objective(name)
        items = encoded(chosen, learner, pairs(6))
        whole = chosen(learner, learner.collate(items))
        parts = [chosen(learner, learner.collate(items[i : i + 2])) for i in (0, 2, 4)]
        assert whole.total.item() == pytest.approx(sum(p.total.item() for p in parts), rel=1e-4)
        assert whole.weight == sum(p.weight for p in parts)
