"""Where states go, from layer to layer and from message to message, in the plane that shows most of it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Coordinates of states on the first principal components of all of them.

    explained: share of the variance of each component; 0 where nothing varies.
    """

    coordinates: Float[Tensor, "layer row component"]
    explained: Float[Tensor, "component"]


def pca_trajectories(states: Float[Tensor, "layer row d"], n_components: int = 2) -> Trajectories:
    """PCA of all layers' rows together, about their common mean.

    The sign of a component is arbitrary: the coordinate that is largest in size is made positive. Raises StrataError
    for states that are not finite.
    """
    if not bool(states.isfinite().all()):
        raise StrataError("the states hold NaN or inf, so that they have no principal components: leave that layer out")
    flat = states.double().flatten(0, 1)
    left, values, _ = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    size = min(n_components, len(values))
    coordinates = left[:, :size] * values[:size]
    signs = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True)).sign()
    total = values.square().sum()
    explained = values[:size].square() / total if total > 0 else torch.zeros(size, dtype=torch.float64)
    coordinates = coordinates * torch.where(signs == 0, 1.0, signs)
    return Trajectories(coordinates.unflatten(0, states.shape[:2]).float(), explained.float())
