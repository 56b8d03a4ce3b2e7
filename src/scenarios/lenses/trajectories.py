"""Single neurons, or dimensions of any source, over the steps of a generation and over messages."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError


def trajectories(
    states: Float[Tensor, "layer row width"],
    layers: Sequence[int],
    neurons: Sequence[tuple[int, int]],
    source: str,
) -> Float[Tensor, "neuron row"]:
    """The values of chosen (layer, neuron) at every row; NaN and inf stay what they are.

    Raises StrataError for a layer that was not captured, or a neuron beyond the source's width.
    """
    places = {layer: place for place, layer in enumerate(layers)}
    width = states.shape[-1]
    for layer, neuron in neurons:
        if layer not in places:
            there = ", ".join(map(str, layers))
            raise StrataError(f"neurons: layer {layer} was not captured (there are {there})")
        if not 0 <= neuron < width:
            raise StrataError(f"neurons: {source} of layer {layer} has 0..{width - 1}, not {neuron}")
    return torch.stack([states[places[layer], :, neuron] for layer, neuron in neurons])


def liveliest(states: Float[Tensor, "layer row width"], layers: Sequence[int], count: int) -> list[tuple[int, int]]:
    """The (layer, neuron) of the largest standard deviation over rows, largest first; those that hold NaN come last.

    They are chosen by what is then shown of them, so that they vary says nothing.
    """
    spread = states.float().std(dim=1, correction=0)
    order = spread.nan_to_num(nan=-1.0, posinf=-1.0).flatten().argsort(descending=True, stable=True)
    width = states.shape[-1]
    return [(layers[place // width], place % width) for place in order[:count].tolist()]
