"""The targets of a residual modulator with something taken from them, at the same strengths."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from src.modulators.controls.known_tokens import ConstantTarget
from src.modulators.residual import ResidualModulator

_TOKENS_AT_ONCE = 4096
# so that no control draws the numbers that its modulator has drawn from the same seed
_SALT = 0x5EED_0000


def zero_target(modulator: ResidualModulator) -> ConstantTarget:
    """Target 0: known tokens are shrunk, r' = (1 - a) r. Strengths alone can be trained."""
    return _constant(modulator, torch.zeros_like(modulator.projection[:, 0]), train_target=False)


def constant_target(modulator: ResidualModulator) -> ConstantTarget:
    """The mean target of the known tokens for all of them; it can be trained."""
    return _constant(modulator, _lengths_and_mean(modulator)[1], train_target=True)


@torch.no_grad()
def random_targets(modulator: ResidualModulator, seed: int) -> ResidualModulator:
    """Each token's target is turned into a random direction, its length kept.

    An isotropic vector through orthogonal columns: directions in a random subspace as wide as the modulator's own.
    Numbers in G are as large as the modulator's, and P makes up for it: one learning rate means the same for both.
    """
    draws = torch.Generator().manual_seed(seed + _SALT)
    turned = copy.deepcopy(modulator)
    d_model, width = turned.projection.shape
    columns = torch.linalg.qr(torch.randn(d_model, min(d_model, width), generator=draws, dtype=torch.float64)).Q
    turned.projection.zero_()
    turned.projection[:, : columns.shape[1]] = columns.to(turned.projection)
    turned.offset.zero_()
    vectors = torch.randn(turned.table.shape, generator=draws)
    vectors[:, columns.shape[1] :] = 0
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    table = unit.to(turned.table) * _lengths_and_mean(modulator)[0][:, None]
    size = modulator.table[modulator.known].norm() / table[turned.known].norm()
    if bool(size > 0) and bool(size.isfinite()):
        table *= size
        turned.projection.div_(size)
    turned.table.copy_(table)
    return turned


@torch.no_grad()
def shuffled_targets(modulator: ResidualModulator, seed: int) -> ResidualModulator:
    """Tokens' vectors permuted over the known tokens, along one cycle through all of them: none keeps its own."""
    draws = torch.Generator().manual_seed(seed + _SALT)
    permuted = copy.deepcopy(modulator)
    tokens = modulator.known.nonzero()[:, 0]
    order = tokens[torch.randperm(len(tokens), generator=draws).to(tokens.device)]
    permuted.table[order] = modulator.table[order.roll(1)]
    return permuted


def _constant(modulator: ResidualModulator, target: Tensor, train_target: bool) -> ConstantTarget:
    known, layers, strength = modulator.known, modulator.layers, modulator.strength
    return ConstantTarget(target, known, layers, strength, modulator.match_norms, train_target)


@torch.no_grad()
def _lengths_and_mean(modulator: ResidualModulator) -> tuple[Float[Tensor, " d_vocab"], Float[Tensor, " d_model"]]:
    """The length of each token's target, and the mean target of the known tokens as it is mixed in."""
    lengths, total = [], torch.zeros(len(modulator.projection), dtype=torch.float64)
    for tokens in torch.arange(len(modulator.table), device=modulator.table.device).split(_TOKENS_AT_ONCE):
        targets = modulator.target(tokens)
        length = targets.norm(dim=1)
        lengths.append(length)
        if modulator.match_norms:
            targets = targets / length[:, None].clamp_min(torch.finfo(targets.dtype).tiny)
        total += targets[modulator.known[tokens]].cpu().double().sum(0)
    mean = total / modulator.known.sum().clamp_min(1).cpu()
    return torch.cat(lengths), mean.to(modulator.projection)
