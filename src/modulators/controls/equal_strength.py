"""Controls with the strengths of a modulator: what it does beyond them is due to its vectors, or to what it reads.

With small strengths a modulator is mostly a shrink of the residual stream (spec G7, BUG H-4), so that any claim about
geometry is a difference to these.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.collect import batches_of_like_length
from src.models import LanguageModel
from src.modulators.controls.field_gates import CLOSED, ConstantGates
from src.modulators.controls.known_tokens import ConstantTarget
from src.modulators.controls.shuffled_field import ShuffledField
from src.modulators.field import FieldModulator
from src.modulators.injection import changed_inputs
from src.modulators.modulator import Modulator
from src.modulators.residual import ResidualModulator
from src.modulators.training.examples import Example, example_losses

_TOKENS_AT_ONCE = 4096


def equal_strength_controls(
    modulator: Modulator, seed: int, mean_gates: Float[Tensor, "layer expert active"] | None = None
) -> dict[str, Modulator]:
    """Untrained controls of a modulator at its own strengths, by name; none for what has no strengths of this kind.

    Of a residual modulator: zero (target 0: r' = (1 - a) r), random (each token's target is turned into a random
    direction, its length kept), shuffled (tokens' vectors permuted over the known tokens, none keeps its own), constant
    (the mean target for all). Of a field modulator: zero (gates -1: prod (1 - alpha)), shuffled (a position's gates are
    those of a random earlier one; whole passes only) and, where mean_gates is given, constant (the mean gates of each
    layer, which a text decides: `mean_gates_on`). They share no parameter with the modulator and stand on its device.
    """
    if isinstance(modulator, ResidualModulator):
        return _residual_controls(modulator, seed)
    if isinstance(modulator, FieldModulator):
        return _field_controls(modulator, seed, mean_gates)
    return {}


@torch.no_grad()
def _residual_controls(modulator: ResidualModulator, seed: int) -> dict[str, Modulator]:
    draws = torch.Generator().manual_seed(seed)
    lengths, mean = _lengths_and_mean(modulator)

    def constant(target: Tensor, train_target: bool) -> ConstantTarget:
        return ConstantTarget(
            target, modulator.known, modulator.layers, modulator.strength, modulator.match_norms, train_target
        )

    turned = copy.deepcopy(modulator)
    d_model, width = turned.projection.shape
    # an isotropic vector through orthonormal columns is a random direction of the same length
    columns = torch.linalg.qr(torch.randn(d_model, min(d_model, width), generator=draws, dtype=torch.float64)).Q
    turned.projection.zero_()
    turned.offset.zero_()
    turned.projection[:, : columns.shape[1]] = columns.to(turned.projection)
    vectors = torch.randn(turned.table.shape, generator=draws)
    vectors[:, columns.shape[1] :] = 0
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    turned.table.copy_(unit.to(turned.table) * lengths[:, None])

    permuted = copy.deepcopy(modulator)
    tokens = modulator.known.nonzero()[:, 0]
    order = tokens[torch.randperm(len(tokens), generator=draws).to(tokens.device)]
    # along one cycle through all of them, so that none keeps its own
    permuted.table[order] = modulator.table[order.roll(1)]
    return {
        "zero": constant(torch.zeros_like(mean), train_target=False),
        "random": turned,
        "shuffled": permuted,
        "constant": constant(mean, train_target=True),
    }


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


@torch.no_grad()
def mean_gates_on(
    model: LanguageModel, modulator: FieldModulator, examples: Sequence[Example], batch_size: int
) -> Float[Tensor, "layer expert active"]:
    """Mean gates over all positions of examples, padding left out, while the modulator is at work.

    Raises:
        StrataError: a pass that fails.
    """
    total = torch.zeros(len(modulator.layers), len(modulator.shape.dimensions), len(modulator.active))
    total = total.to(modulator.strength)
    lengths = np.array([len(_changed_ids(model, example)) for example in examples])
    for rows in batches_of_like_length(lengths, batch_size):
        of_batch = torch.from_numpy(lengths[rows]).to(total.device)

        def change(residual: Tensor, token_ids: Tensor, layer: int, of_batch: Tensor = of_batch) -> Tensor:
            logits = modulator.gate_logits(modulator.features(modulator.read(residual, token_ids)))
            is_text = torch.arange(residual.shape[1], device=total.device) < of_batch[:, None]
            total[modulator.layers.index(layer)] += torch.stack([it[is_text.flatten()].tanh().sum(0) for it in logits])
            return modulator(residual, token_ids, layer)

        with changed_inputs(model, modulator.layers, change):
            example_losses(model, [examples[row] for row in rows])
    return total / int(lengths.sum())


def _changed_ids(model: LanguageModel, example: Example) -> np.ndarray:
    """The tokens of the stack that is modulated."""
    target = example.target_ids
    return target if model.inner.through_decoder and target is not None else example.input_ids


def _field_controls(
    modulator: FieldModulator, seed: int, mean_gates: Float[Tensor, "layer expert active"] | None
) -> dict[str, Modulator]:
    bounds = (modulator.shape.lowest, modulator.shape.highest)

    def constant(bias: Tensor, train_bias: bool) -> ConstantGates:
        return ConstantGates(bias, modulator.active, modulator.layers, modulator.strength, bounds, train_bias)

    closed = torch.full((1, len(modulator.shape.dimensions), len(modulator.active)), CLOSED).to(modulator.strength)
    controls: dict[str, Modulator] = {
        "zero": constant(closed, train_bias=False),
        "shuffled": ShuffledField.of(modulator, seed),
    }
    if mean_gates is not None:
        nearly_one = 1 - torch.finfo(torch.float32).eps
        bias = mean_gates.to(modulator.strength).clamp(-nearly_one, nearly_one).atanh()
        controls["constant"] = constant(bias, train_bias=True)
    return controls
