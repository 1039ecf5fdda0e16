"""Regularizers: what each adds is what its paper says, zero strength adds nothing, a resumed run goes on the same."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from genwright.core import DataError, Dataset, Example, Loss, ModelError, UsageError, assistant, choose
from genwright.core.plugin import shelves

from .tiny import TinyLearner, batch_of, engine_learner, llama, rows

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
ALL = {"neftune": "alpha", "fgm": "strength", "pgd": "strength", "r_drop": "alpha", "kl_to_base": "strength",
       "l2_sp": "strength", "ewc": "strength"}  # fmt: skip


@dataclass
class Context:
    """What the loop tells a regularizer."""

    learner: Any
    train: Dataset = field(default_factory=lambda: Dataset(rows(6)))
    seed: int = 0
    device: str = "cpu"
    step_number: int = 0
    objective: Any = field(default_factory=lambda: choose("objectives", "sft"))

    def encode(self, example):
        own = getattr(self.objective.module, "encode", None)
        return own(self.learner, example, self.objective.settings) if own else self.learner.encode(example)


def make(dropout=0.2, method=None, seed=0, moved=True):
    """A learner away from its start, in training."""
    learner = TinyLearner(llama(attention_dropout=dropout))
    if method:
        choose("methods", method)(learner)
    if moved:
        torch.manual_seed(seed + 1)
        with torch.no_grad():
            for p in learner.module.parameters():
                if p.requires_grad:
                    p += 0.03 * torch.randn_like(p)
    learner.module.train()
    return learner


def wrap(name, learner, **options):
    context = Context(learner)
    chosen = choose("regularizers", {"name": name, **options})
    return chosen(lambda batch: context.objective(learner, batch), learner, context=context)


def grads(learner, loss):
    learner.module.zero_grad()
    loss.total.backward()
    return {n: p.grad.clone() for n, p in learner.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("method", [None, "lora", "prompt"])
def test_zero_strength_changes_nothing_and_more_changes_the_gradient(name, method):
    def one(**options):
        learner = make(method=method)
        step = wrap(name, learner, **options)
        step(batch_of(learner))  # a first step, from which the weights then move
        with torch.no_grad():
            for p in learner.module.parameters():
                if p.requires_grad:
                    p += 0.01
        torch.manual_seed(3)
        loss = step(batch_of(learner))
        return loss, grads(learner, loss)

    torch.manual_seed(3)
    zero, quiet = one(**{ALL[name]: 0})
    some, loud = one()
    learner = make(method=method)
    with torch.no_grad():
        for p in learner.module.parameters():
            if p.requires_grad:
                p += 0.01
    torch.manual_seed(3)
    plain = choose("objectives", "sft")(learner, batch_of(learner))
    assert torch.equal(zero.total, plain.total)
    assert zero.weight == some.weight == plain.weight
    assert any(not torch.allclose(quiet[n], loud[n], atol=1e-5) for n in loud)
    assert all(torch.isfinite(g).all() for g in loud.values())


@pytest.mark.parametrize("name", ["fgm", "pgd", "l2_sp", "ewc", "kl_to_base"])
def test_one_pass_or_three_the_sums_agree(name):
    learner = make(dropout=0.0)
    step = wrap(name, learner)
    step(batch_of(learner))
    with torch.no_grad():
        for p in learner.module.parameters():
            p += 0.01
    whole = step(batch_of(learner, rows(6)))
    parts = [step(batch_of(learner, rows(6)[i : i + 2])) for i in (0, 2, 4)]
    assert whole.total.item() == pytest.approx(sum(p.total.item() for p in parts), rel=1e-4)
    assert whole.weight == sum(p.weight for p in parts)


def test_neftune_adds_noise_of_its_size_to_each_sequence():
    learner = make(dropout=0.0)
    seen = {}
    from genwright.nn.packing import pack

    batch = pack([{"tokens": [5] * n, "targets": [6] * n} for n in (400, 100)])
    for alpha in (5.0, 10.0):
        step = wrap("neftune", learner, alpha=alpha)
        handle = learner.module.model.layers[0].register_forward_pre_hook(lambda m, args: seen.update(rows=args[0]))
        step(batch)
        handle.remove()
        noise = seen["rows"][0] - learner.embeddings()(batch.tokens)
        for part, length in zip(noise.split(batch.lengths), batch.lengths, strict=True):
            bound = alpha / (length * 32) ** 0.5
            assert part.abs().max() <= bound + 1e-6
            assert part.abs().max() > 0.95 * bound
            assert part.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_the_fast_gradient_is_a_push_of_its_length_up_the_slope_of_each_sequence():
    learner = make(dropout=0.0)
    batch = batch_of(learner, rows(4))
    from genwright.nn.attention import lm_loss, packed_hidden

    embeds = learner.embeddings()(batch.tokens).detach().requires_grad_()
    clean = lm_loss(learner.module, packed_hidden(learner.module, batch, inputs_embeds=embeds), batch.targets)
    (slope,) = torch.autograd.grad(clean, embeds)
    push = torch.cat([0.7 * g / g.norm() for g in slope.split(batch.lengths)])
    pushed = lm_loss(learner.module, packed_hidden(learner.module, batch, inputs_embeds=embeds + push), batch.targets)
    loss = wrap("fgm", learner, epsilon=0.7, strength=0.5)(batch)
    assert pushed > clean
    assert loss.total.item() == pytest.approx((clean + 0.5 * pushed).item(), rel=1e-4)
    assert loss.logs["adversarial_loss"] == pytest.approx(pushed.item() / batch.weight, rel=1e-4)


def test_more_steps_find_worse_places_within_the_same_distance():
    learner = make(dropout=0.0)
    batch = batch_of(learner)
    found = [
        wrap("pgd", learner, steps=s, step_size=z)(batch).logs["adversarial_loss"] for s, z in ((1, 0.3), (4, 0.3))
    ]
    fgm = wrap("fgm", learner)(batch).logs["adversarial_loss"]
    one = wrap("pgd", learner, steps=1, step_size=1.0)(batch).logs["adversarial_loss"]
    assert found[0] < found[1]
    assert one == pytest.approx(fgm, rel=1e-5)
    far = wrap("pgd", learner, steps=30, step_size=5.0, epsilon=1e-3)(batch).logs["adversarial_loss"]
    clean = choose("objectives", "sft")(learner, batch)
    assert far == pytest.approx(clean.total.item() / clean.weight, abs=0.02)


def test_pushes_lower_the_robust_loss():
    """Training on pushed embeddings does what it is for."""

    def robust(name):
        learner = TinyLearner(llama())
        learner.module.train()
        step = wrap(name, learner) if name else lambda b: choose("objectives", "sft")(learner, b)
        optimizer = torch.optim.AdamW(learner.module.parameters(), lr=0.003)
        for _ in range(15):
            loss = step(batch_of(learner))
            optimizer.zero_grad()
            (loss.total / loss.weight).backward()
            optimizer.step()
        return wrap("pgd", learner, steps=3)(batch_of(learner)).logs["adversarial_loss"]

    assert robust("fgm") < robust(None)


def test_a_model_without_a_visible_look_up_is_refused():
    learner = make()
    learner.embeddings = lambda: torch.nn.Embedding(3, 3)
    with pytest.raises(ModelError, match="does not look up"):
        wrap("neftune", learner)(batch_of(learner))


def test_r_drop_adds_the_disagreement_of_two_passes():
    learner = make()
    batch = batch_of(learner)
    torch.manual_seed(5)
    plain = choose("objectives", "sft")(learner, batch).total
    one, two = learner.logits(batch).log_softmax(-1), learner.logits(batch).log_softmax(-1)
    apart = (one.exp() * (one - two) + two.exp() * (two - one)).sum() / 2
    torch.manual_seed(5)
    loss = wrap("r_drop", learner, alpha=3.0)(batch)
    assert apart > 0
    assert loss.total.item() == pytest.approx((plain + 3 * apart).item(), rel=1e-4)


def test_r_drop_says_that_it_needs_dropout():
    with pytest.raises(UsageError, match="needs dropout"):
        wrap("r_drop", make(dropout=0.0))


@pytest.mark.parametrize("method", ["lora", "full", "prefix"])
def test_kl_to_base_is_the_divergence_from_before_tuning(method):
    learner = make(dropout=0.0, method=method)
    batch = batch_of(learner)
    base = TinyLearner()
    p, q = learner.logits(batch).log_softmax(-1), base.logits(batch).log_softmax(-1)
    expected = (p.exp() * (p - q)).sum()
    plain = choose("objectives", "sft")(learner, batch)
    loss = wrap("kl_to_base", learner, strength=0.5)(batch)
    assert loss.total.item() == pytest.approx((plain.total + 0.5 * expected).item(), rel=1e-4)
    assert loss.logs["kl_to_base"] == pytest.approx(expected.item() / plain.weight, rel=1e-3)


def test_kl_to_base_keeps_the_model_nearer():
    def drift(strength):
        learner = choose("methods", "lora")(TinyLearner(llama()))
        learner.module.train()
        step = wrap("kl_to_base", learner, strength=strength)
        optimizer = torch.optim.AdamW([p for p in learner.module.parameters() if p.requires_grad], lr=0.02)
        for _ in range(15):
            loss = step(batch_of(learner))
            optimizer.zero_grad()
            (loss.total / loss.weight).backward()
            optimizer.step()
        return wrap("kl_to_base", learner, strength=1.0)(batch_of(learner)).logs["kl_to_base"]

    assert drift(2.0) < 0.7 * drift(1e-9)


def test_l2_sp_pulls_back_to_the_start():
    learner = make(dropout=0.0)
    step = wrap("l2_sp", learner, strength=2.0)
    first = step(batch_of(learner))
    assert first.logs["l2_sp"] == 0
    before = grads(learner, first)
    with torch.no_grad():
        learner.module.lm_head.weight += 0.1
    loss = step(batch_of(learner))
    plain = choose("objectives", "sft")(learner, batch_of(learner))
    assert loss.logs["l2_sp"] == pytest.approx(0.01 * learner.module.lm_head.weight.numel() / 2, rel=1e-4)
    pull = grads(learner, loss)["lm_head.weight"] - grads(learner, plain)["lm_head.weight"]
    assert torch.allclose(pull, torch.full_like(pull, 2.0 * 0.1 * plain.weight), rtol=1e-3)
    assert before


def test_ewc_weighs_the_pull_by_the_mean_of_squared_gradients():
    learner = make(dropout=0.0, moved=False)
    step = wrap("ewc", learner, strength=2.0, rows=4)
    step(batch_of(learner))
    squares = {n: torch.zeros_like(p) for n, p in learner.module.named_parameters()}
    for example in Dataset(rows(6)).sample(4, 0):
        batch = batch_of(learner, [example])
        loss = choose("objectives", "sft")(learner, batch)
        learner.module.zero_grad()
        (loss.total / loss.weight).backward()
        for n, p in learner.module.named_parameters():
            squares[n] += p.grad**2
    mean = torch.cat([s.flatten() for s in squares.values()]).mean()
    learner.module.zero_grad()
    with torch.no_grad():
        learner.module.lm_head.weight += 0.1
    plain = choose("objectives", "sft")(learner, batch_of(learner))
    added = (step(batch_of(learner)).total - plain.total) / plain.weight
    expected = 2.0 / 2 * (squares["lm_head.weight"] / mean * 0.01).sum()
    assert added.item() == pytest.approx(expected.item(), rel=1e-3)


def test_ewc_reads_the_older_rows_it_is_given(tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_text(
        '{"prompt": "the big red fish", "completion": "sat on mat"}\n\n{"instruction": "a", "output": "dog"}\n'
    )
    learner = make(dropout=0.0)
    one, two = wrap("ewc", learner, data=str(path)), wrap("ewc", learner)
    one(batch_of(learner)), two(batch_of(learner))
    assert any(not torch.equal(one.state()[k], two.state()[k]) for k in one.state() if k.startswith("fisher"))
    path.write_text('{"prompt": "the"}\n')
    with pytest.raises(DataError, match=r"old.jsonl:1"):
        wrap("ewc", learner, data=str(path))(batch_of(learner))
    with pytest.raises(DataError, match="no file"):
        wrap("ewc", learner, data=str(tmp_path / "none.jsonl"))(batch_of(learner))


@pytest.mark.parametrize("name", ["l2_sp", "ewc"])
def test_a_restored_regularizer_goes_on_bit_equal(name):
    learner = make(dropout=0.0)
    step = wrap(name, learner)
    step(batch_of(learner))
    kept = {n: t.clone() for n, t in step.state().items()}
    with torch.no_grad():
        for p in learner.module.parameters():
            p += 0.01
    again = wrap(name, learner)
    again.restore(kept)
    assert torch.equal(step(batch_of(learner)).total, again(batch_of(learner)).total)
    fresh = wrap(name, learner)
    assert not torch.equal(step(batch_of(learner)).total, fresh(batch_of(learner)).total)


def test_all_of_them_together_take_a_step():
    learner = make(method="lora")
    context = Context(learner)

    def step(batch):
        return context.objective(learner, batch)

    for name in ALL:
        step = choose("regularizers", name)(step, learner, context=context)
    torch.manual_seed(1)
    one = step(batch_of(learner))
    assert isinstance(one, Loss)
    assert {"adversarial_loss", "disagreement", "kl_to_base", "l2_sp", "ewc"} <= set(one.logs)
    assert all(torch.isfinite(g).all() for g in grads(learner, one).values())


@pytest.mark.parametrize(("engine", "objective"), [("encoder", "classify"), ("seq2seq", "seq2seq"), ("seq2seq", "dpo")])
def test_they_work_with_every_engine(engine, objective):
    learner, examples = engine_and_rows(engine, objective)
    context = Context(learner, train=Dataset(examples), objective=choose("objectives", objective))
    for prepare in filter(None, [getattr(context.objective.module, "prepare", None)]):
        prepare(learner, context.objective.settings)
    learner.module.train()
    batch = learner.collate([context.encode(e) for e in examples])
    plain = context.objective(learner, batch)

    def step(batch):
        return context.objective(learner, batch)

    for name in ALL:
        step = choose("regularizers", name)(step, learner, context=context)
    loss = step(batch)
    assert loss.weight == plain.weight == (8 if objective != "seq2seq" else batch.weight)
    assert set(loss.logs) >= {"adversarial_loss", "disagreement", "kl_to_base", "l2_sp", "ewc"}
    assert all(torch.isfinite(g).all() for g in grads(learner, loss).values())


def engine_and_rows(engine, objective):
    config = dict(model_type="bert", hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    if engine == "seq2seq":
        config = dict(model_type="marian", d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                      decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, dropout=0.1)  # fmt: skip
    learner = engine_learner(engine, **config)
    if engine == "encoder":
        learner.set_labels(["no", "yes"])
        return learner, [Example((e.messages[0], assistant(("no", "yes")[i % 2]))) for i, e in enumerate(rows())]
    worse = [e.answer for e in rows(seed=4)]
    return learner, [Example(e.messages, {"rejected": w}) for e, w in zip(rows(), worse, strict=True)]


def test_neftune_with_dpo_leaves_the_reference_alone():
    learner = make(method="lora", dropout=0.0, moved=False)
    dpo = choose("objectives", "dpo")
    pairs = [Example(e.messages, {"rejected": assistant("the dog")}) for e in rows(4)]
    batch = learner.collate([dpo.module.encode(learner, e, dpo.settings) for e in pairs])
    with torch.no_grad():
        clean = learner.logprobs(batch)
    noisy = choose("regularizers", "neftune")(lambda b: dpo(learner, b), learner, context=Context(learner))
    seen = []
    real = learner.logprobs
    learner.logprobs = lambda b: seen.append(real(b)) or seen[-1]
    noisy(batch)
    assert not torch.allclose(seen[1], clean, atol=1e-3)
    assert torch.allclose(seen[0], clean, atol=1e-4)


# -- replay -----------------------------------------------------------------------------------------------------------


def old(tmp_path, count=10):
    path = tmp_path / "old.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"old {n}", "completion": "yes"}) + "\n" for n in range(count)))
    return str(path)


def test_replay_mixes_older_rows_by_ratio(tmp_path):
    train, mix = Dataset(rows(20)), shelves["regularizers"].load("replay").mix

    def mixed(seed=0, **options):
        return mix(
            train, choose("regularizers", {"name": "replay", "data": old(tmp_path), **options}).settings, seed=seed
        )

    one = mixed(ratio=0.25)
    assert len(one) == 25
    assert list(one)[:20] == list(train)
    assert all(e.messages[0].text.startswith("old") for e in list(one)[20:])
    assert one[24] == list(one)[24] == one[20:][4]
    assert len({e.digest() for e in list(one)[20:]}) == 5
    assert one.fingerprint == mixed(ratio=0.25).fingerprint != train.fingerprint
    assert one.fingerprint != mixed(seed=1, ratio=0.25).fingerprint
    assert len(mixed(ratio=9.0)) == 30
    assert mixed(ratio=0.0) is train
    assert sorted(one.order(0, 0)) == list(range(25))


def test_replay_leaves_the_step_alone(tmp_path):
    step = lambda batch: None  # noqa: E731
    assert choose("regularizers", {"name": "replay", "data": old(tmp_path)})(step, None, context=None) is step


# -- through the loop -------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def fitted(folder, stop_at=None):
    """A few steps with every regularizer through the one loop; the trained weights and the losses of all steps."""
    from genwright.core.recipe import Train
    from genwright.nn.loop import fit

    learner = choose("methods", {"name": "lora", "dropout": 0.1, "rank": 4})(engine_learner())
    settings = Train(
        tokens_per_batch=64, tokens_per_pass=32, epochs=1, learning_rate=5e-3, checkpoint_every=1, evaluate_every=1,
        threads=1, dtype="float32",
    )  # fmt: skip

    def watch(step, loss):
        if step == stop_at:
            raise Stop

    said = []
    chosen = [choose("regularizers", {"name": n, "rows": 2} if n == "ewc" else n) for n in ALL]
    fit(
        learner, Dataset(rows(12)), Dataset(rows(4, seed=1)), objective=choose("objectives", "sft"),
        regularizers=chosen, settings=settings, seed=3, folder=folder, watch=watch,
        log=lambda event, **facts: said.append((event, facts)),
    )  # fmt: skip
    losses = {f["step"]: f["loss"].hex() for event, f in said if event == "step"}
    return {n: p.detach().clone() for n, p in learner.trainable().items()}, losses


def test_a_stopped_training_with_all_of_them_ends_bit_equal(tmp_path):
    whole, losses = fitted(tmp_path / "whole")
    with pytest.raises(Stop):
        fitted(tmp_path / "parts", stop_at=3)
    parts, later = fitted(tmp_path / "parts")
    assert min(later) > 1
    assert later == {step: loss for step, loss in losses.items() if step in later}
    assert all(torch.equal(whole[n], parts[n]) for n in whole)
