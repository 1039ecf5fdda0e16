"""What is fused is what it stands for, forward and backward."""

import pytest
import torch
from torch.nn import functional as F

from genwright.nn.dit_fused import gated, looked, modulated
from genwright.nn.int8 import Int8Linear


def numbers(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(True)


def plain_modulated(h, shift, scale, dtype):
    return (F.rms_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift).to(dtype)


def plain_looked(qkv, q_weight, k_weight, heads):
    q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    q, k = (F.rms_norm(x, x.shape[-1:], eps=1e-6) * w for x, w in ((q, q_weight), (k, k_weight)))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def plain_gated(both):
    a, b = both.chunk(2, -1)
    return F.silu(a) * b


CASES = {
    "modulated": (modulated, plain_modulated, (numbers(2, 5, 8), numbers(2, 1, 8), numbers(2, 1, 8)), (torch.float64,)),
    "looked": (looked, plain_looked, (numbers(2, 5, 24), numbers(4, seed=1), numbers(4, seed=2)), (2,)),
    "gated": (gated, plain_gated, (numbers(2, 5, 12),), ()),
}


@pytest.mark.parametrize("name", list(CASES))
def test_the_value_and_every_slope_are_those_of_the_plain_operations(name):
    fused, plain, given, more = CASES[name]
    one, other = fused(*given, *more), plain(*given, *more)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
    weight = torch.randn_like(one)
    slopes = [torch.autograd.grad((found * weight).sum(), given) for found in (one, other)]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", list(CASES))
def test_numerical_slopes_agree(name):
    fused, _, given, more = CASES[name]
    assert torch.autograd.gradcheck(lambda *x: fused(*x, *more), given)


@pytest.mark.parametrize("name", list(CASES))
def test_without_gradients_the_value_is_the_same(name):
    fused, plain, given, more = CASES[name]
    given = [x.detach().float() for x in given]
    more = [torch.float32 if one is torch.float64 else one for one in more]
    expected = plain(*given, *more)
    with torch.no_grad():
        found = fused(*(x.clone() for x in given), *more)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_int8_is_nearly_the_layer_it_stands_for():
    layer = torch.nn.Linear(64, 48)
    x = numbers(2, 32, 64).detach().float()
    with torch.no_grad():
        found, expected = Int8Linear(layer)(x), layer(x)
    assert (found - expected).square().mean() < 1e-3 * expected.square().mean()


def test_bfloat16_goes_in_and_out_and_sums_stay_wide():
    h, shift, scale = (numbers(*s).detach().float() for s in ((2, 64, 32), (2, 1, 32), (2, 1, 32)))
    found = modulated(h, shift, scale, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), plain_modulated(h, shift, scale, torch.float32), rtol=0.01, atol=0.01)
    qkv, q, k = (numbers(*s).detach().float() for s in ((2, 64, 96), (8,), (8,)))
    seen = looked(qkv.bfloat16(), q, k, 4)
    assert seen.dtype == torch.bfloat16
    torch.testing.assert_close(seen.float(), plain_looked(qkv, q, k, 4), rtol=0.05, atol=0.05)
