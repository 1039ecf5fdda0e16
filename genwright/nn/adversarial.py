"""Two players, one loss: painter and critic taught at once, so that any learner with both fits the one training loop.

The critic tells true pictures from painted ones in pairs (relativistic, Jolicoeur-Martineau 2019), and its slopes at
both are kept small (R1 and R2), which together converge where each alone need not (Huang et al. 2024). Both players
learn from the same pass. The critic's slope at a painted picture is needed for R2 anyway; times how much the painter's
own loss would change by the critic's answer it is, by the chain rule, exactly the gradient that the painter gets. So
the sum returned here gives every weight the gradient of its own player's loss and no other, from one backward call.

Nothing depends on which pictures stand together in a batch: passes of any size add up to the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Judge = Callable[[Tensor, Tensor], Tensor]  # (pictures, which rows of the batch they are) -> (pictures,), more is truer


@dataclass(frozen=True)
class Game:
    """`true` and `painted` (B, …), with the painter's graph behind `painted`; `luck` (B,) from 0 to 1, drawn a row."""

    true: Tensor
    painted: Tensor
    judge: Judge
    luck: Tensor


def play(game: Game, *, penalty: float, penalised: float) -> tuple[Tensor, dict[str, float]]:
    """The sum of both players' losses over the batch, and figures averaged over it.

    critic: softplus(f - t) + penalty / 2 · (|∂t/∂true|² + |∂f/∂painted|²); painter: softplus(t - f), where t and f are
    what the critic answers to the true and the painted picture of a row. Only a share `penalised` of the rows meets the
    penalty, counted so much the more: twice differentiating is dear, and its expectation is the same.
    """
    meets = game.luck < penalised if penalty else torch.zeros_like(game.luck, dtype=torch.bool)
    total, sums = game.true.new_zeros(()), torch.zeros(5)
    for rows, steep in ((meets.nonzero().squeeze(1), True), ((~meets).nonzero().squeeze(1), False)):
        if len(rows):
            losses, figures = _duel(game, rows, penalty / penalised if steep else 0.0)
            total, sums = total + losses, sums + figures
    critic, painter, told_apart, at_true, at_painted = (sums / len(game.true)).tolist()
    more = {"slope_true": at_true / penalised, "slope_painted": at_painted / penalised} if penalty else {}
    return total, {"critic": critic, "painter": painter, "told_apart": told_apart, **more}


def _duel(game: Game, rows: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Summed loss of some rows, and the sums of the figures: both losses, pairs told apart, squared slopes."""
    true, painted = game.true[rows].detach(), game.painted[rows]
    shown = painted.detach().requires_grad_()
    if penalty:
        true.requires_grad_()
        t, f = game.judge(torch.cat([true, shown]), torch.cat([rows, rows])).chunk(2)
        at_true, slope = torch.autograd.grad([t.sum(), f.sum()], [true, shown], create_graph=True)
        steep = torch.stack([_squares(at_true), _squares(slope)])
    else:
        t, f = game.judge(true, rows), game.judge(shown, rows)
        (slope,) = torch.autograd.grad(f.sum(), shown, retain_graph=True)
        steep = t.new_zeros(2, len(rows))
    critic, painter = F.softplus(f - t), F.softplus(t - f).detach()
    pull = (-torch.sigmoid(t - f).detach()).view(-1, *[1] * (painted.ndim - 1)) * slope.detach()
    led = (painted * pull).sum()
    losses = critic.sum() + 0.5 * penalty * steep.sum() + led - led.detach() + painter.sum()
    figures = [critic.sum(), painter.sum(), (t > f).float().sum(), *steep.sum(1)]
    return losses, torch.stack([one.detach().float() for one in figures]).cpu()


def _squares(slope: Tensor) -> Tensor:
    return slope.float().square().flatten(1).sum(1)


def sliced_distance(one: Tensor, other: Tensor, directions: int = 128) -> Tensor:
    """How far two sets of as many pictures (B, C, S, S) lie apart: the sliced Wasserstein distance (Rabin et al. 2011;
    over a pyramid of sides as Karras et al. 2018), the mean over random unit directions. In units of a pixel's value;
    few pictures raise it, so compare equal counts. 0 for the same set in any order."""
    found = []
    while True:
        flat = torch.stack([one.flatten(1), other.flatten(1)]).float()
        across = F.normalize(torch.randn(flat.shape[2], directions, device=flat.device), dim=0)
        first, second = (flat @ across).sort(1).values
        found.append((first - second).abs().mean())
        if one.shape[-1] <= 8:
            return torch.stack(found).mean()
        one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
