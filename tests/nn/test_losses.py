"""Losses in chunks: the same numbers and slopes as with all logits at once."""

import pytest
import torch
from torch.nn import functional as F

from genwright.nn.losses import IGNORE, kl_sum, linear_cross_entropy, linear_kl, sequence_log_probs

N, D, V = 37, 16, 53


def inputs(dtype=torch.float32, weight_grad=True):
    torch.manual_seed(0)
    hidden = torch.randn(N, D, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, D, dtype=dtype, requires_grad=weight_grad)
    bias = torch.randn(V, dtype=dtype, requires_grad=weight_grad)
    targets = torch.randint(0, V, (N,))
    targets[::5] = IGNORE
    return hidden, weight, bias, targets


def reference(hidden, weight, bias, targets, smoothing, softcap, scale):
    logits = F.linear(hidden, weight, bias).float() * scale
    logits = torch.tanh(logits / softcap) * softcap if softcap else logits
    return F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("scale", [1.0, 0.4])
@pytest.mark.parametrize("chunk", [8, 1000])
def test_loss_and_slopes_equal_the_full_computation(smoothing, softcap, scale, chunk):
    tensors = inputs()
    wanted = reference(*tensors, smoothing, softcap, scale)
    slopes = torch.autograd.grad(wanted * 0.5, tensors[:3])
    hidden, weight, bias, targets = tensors
    loss = linear_cross_entropy(
        hidden, weight, targets, bias=bias, label_smoothing=smoothing, softcap=softcap, scale=scale, chunk=chunk
    )
    found = torch.autograd.grad(loss * 0.5, tensors[:3])
    assert abs((loss - wanted).item()) / N < 1e-5
    for a, b in zip(found, slopes, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_bf16_stays_within_its_rounding():
    hidden, weight, bias, targets = inputs(torch.bfloat16)
    wanted = reference(hidden.float(), weight.float(), bias.float(), targets, 0.0, None, 1.0)
    loss = linear_cross_entropy(hidden, weight, targets, bias=bias, chunk=8)
    assert loss.dtype == torch.float32
    assert abs((loss / wanted).item() - 1) < 5e-3
    loss.backward()
    assert hidden.grad.dtype == torch.bfloat16


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, _, targets = inputs(weight_grad=False)
    linear_cross_entropy(hidden, weight, targets, chunk=8).backward()
    assert weight.grad is None
    assert hidden.grad is not None
    assert float(hidden.grad[targets == IGNORE].abs().max()) == 0


def test_nothing_supervised_is_a_loss_of_nought():
    hidden, weight, _, targets = inputs()
    loss = linear_cross_entropy(hidden, weight, torch.full_like(targets, IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert float(hidden.grad.abs().max()) == 0


def test_without_gradients_the_loss_is_the_same():
    hidden, weight, bias, targets = inputs()
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets, bias=bias)
    torch.testing.assert_close(loss, linear_cross_entropy(hidden, weight, targets, bias=bias))


def test_extreme_logits_do_not_overflow():
    hidden = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    loss = linear_cross_entropy(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(400.0)
    assert torch.isfinite(hidden.grad).all()


def test_kl_in_chunks_equals_kl_and_is_nought_for_twins():
    hidden, weight, _, _ = inputs()
    other, teacher = torch.randn(N, D), torch.randn(V, D)
    wanted = kl_sum(other @ teacher.T, hidden @ weight.T, 2.0)
    found = linear_kl(hidden, weight, other, teacher, temperature=2.0, chunk=8)
    torch.testing.assert_close(found, wanted)
    pairs = zip(
        torch.autograd.grad(found, (hidden, weight)), torch.autograd.grad(wanted, (hidden, weight)), strict=True
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert abs(float(kl_sum(other, other))) < 1e-5
    p, q = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    by_hand = (p.softmax(1) * (p.log_softmax(1) - q.log_softmax(1))).sum()
    torch.testing.assert_close(kl_sum(p, q), by_hand)


def test_sequence_log_probs_add_up_per_segment():
    hidden, weight, bias, targets = inputs()
    owners = torch.arange(N) // 10
    found = sequence_log_probs(hidden, weight, targets, owners, 5, bias=bias, chunk=8)
    each = F.log_softmax(F.linear(hidden, weight, bias), -1)
    for segment in range(5):
        mine = [each[i, targets[i]] for i in range(N) if owners[i] == segment and targets[i] != IGNORE]
        assert found[segment].item() == pytest.approx(sum(mine).item() if mine else 0.0, rel=1e-5)
    found.sum().backward()
    assert weight.grad is not None
