"""Controls with the strengths of a modulator: what it does beyond them is due to its vectors, or to what it reads.

With small strengths a modulator is mostly a shrink of the residual stream (spec G7, BUG H-4), so that any claim about
geometry is a difference to these.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.collect import batches_of_like_length
from src.models import LanguageModel
from src.modulators.controls.field_gates import closed_gates, constant_gates
from src.modulators.controls.shuffled_field import ShuffledField
from src.modulators.controls.targets import constant_target, random_targets, shuffled_targets, zero_target
from src.modulators.field import FieldModulator
from src.modulators.injection import changed_inputs
from src.modulators.modulator import Modulator
from src.modulators.notebook.field import NotebookField
from src.modulators.residual import ResidualModulator
from src.modulators.training.examples import Example, changed_ids, example_losses


def equal_strength_controls(
    modulator: Modulator, seed: int, mean_gates: Float[Tensor, "layer expert active"] | None = None
) -> dict[str, Modulator]:
    """Untrained controls of a modulator at its own strengths, by name; none for what has no strengths of this kind.

    Of a residual modulator: zero (target 0: r' = (1 - a) r), random (each token's target is turned into a random
    direction, its length kept), shuffled (tokens' vectors permuted over the known tokens, none keeps its own), constant
    (the mean target for all). Of a field modulator: zero (gates -1: prod (1 - alpha)), shuffled (a position's gates are
    those of a random earlier one; whole passes only) and, where mean_gates is given, constant (the mean gates of each
    layer, which a text decides: `mean_gates_on`). Of the notebook's field modulator: zero, constant. They share no
    parameter with the modulator and stand on its device.
    """
    if isinstance(modulator, ResidualModulator):
        return {
            "zero": zero_target(modulator),
            "random": random_targets(modulator, seed),
            "shuffled": shuffled_targets(modulator, seed),
            "constant": constant_target(modulator),
        }
    if isinstance(modulator, FieldModulator):
        shuffled = ShuffledField.of(modulator, seed)
        controls: dict[str, Modulator] = {"zero": closed_gates(modulator), "shuffled": shuffled}
        if mean_gates is not None:
            controls["constant"] = constant_gates(modulator, mean_gates)
        return controls
    if isinstance(modulator, NotebookField):
        constant = {} if mean_gates is None else {"constant": constant_gates(modulator, mean_gates)}
        return {"zero": closed_gates(modulator), **constant}
    return {}


@torch.no_grad()
def mean_gates_on(
    model: LanguageModel, modulator: FieldModulator | NotebookField, examples: Sequence[Example], batch_size: int
) -> Float[Tensor, "layer expert active"]:
    """Mean gates over all positions of examples, padding left out, while the modulator is at work.

    Raises:
        StrataError: a pass that fails.
    """
    total = torch.zeros(len(modulator.layers), len(modulator.shape.dimensions), len(modulator.active))
    total = total.to(modulator.strength)
    lengths = np.array([len(changed_ids(model, example)) for example in examples])
    for rows in batches_of_like_length(lengths, batch_size):
        of_batch = torch.from_numpy(lengths[rows]).to(total.device)

        def change(residual: Tensor, token_ids: Tensor, layer: int, of_batch: Tensor = of_batch) -> Tensor:
            is_text = (torch.arange(residual.shape[1], device=total.device) < of_batch[:, None]).flatten()
            gates = _gates(modulator, residual, token_ids)
            total[modulator.layers.index(layer)] += torch.stack([it[is_text].sum(0) for it in gates])
            return modulator(residual, token_ids, layer)

        with changed_inputs(model, modulator.layers, change):
            example_losses(model, [examples[row] for row in rows])
    return total / int(lengths.sum())


def _gates(
    modulator: FieldModulator | NotebookField, residual: Tensor, token_ids: Tensor
) -> list[Float[Tensor, "token active"]]:
    if isinstance(modulator, NotebookField):
        return modulator.gates(residual.flatten(0, 1))
    return [it.tanh() for it in modulator.gate_logits(modulator.features(modulator.read(residual, token_ids)))]
