"""Whitening by a shrunk covariance of few states in many dimensions, at all layers at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.scenarios.comparing.pair_metrics import precise

# fewer deviations than this say little of a covariance
FEWEST_DEVIATIONS = 10


@dataclass(frozen=True, eq=False)
class Whitening:
    """x -> S^-1/2 x for S = s m I + (1 - s) C, with C's eigenvectors of few states kept as a thin basis.

    basis: eigenvectors of C. inside: S^-1/2 on each of them. outside: S^-1/2 on all that is orthogonal to them.
    shrinkage: s. A layer whose states don't vary, or are not finite, gives NaN.
    """

    basis: Float[Tensor, "layer rank width"]
    inside: Float[Tensor, "layer rank"]
    outside: Float[Tensor, "layer"]
    shrinkage: Float[Tensor, "layer"]

    def __call__(self, states: Float[Tensor, "layer row width"]) -> Float[Tensor, "layer row width"]:
        """Whitened states (subtract their centre before)."""
        outside = self.outside[:, None, None]
        return outside * states + (states @ self.basis.mT * (self.inside[:, None] - outside)) @ self.basis


def whitening(states: Float[Tensor, "layer row width"], groups: Sequence[str]) -> Whitening | str:
    """Of the deviations of states from the mean of their group; or why there can't be one.

    Shrinkage: Ledoit and Wolf (2004), as scikit-learn's LedoitWolf(assume_centered=True) has it for these deviations.
    """
    names = sorted(set(groups))
    degrees = len(groups) - len(names)
    if degrees < FEWEST_DEVIATIONS:
        return (
            f"whitening needs {FEWEST_DEVIATIONS} texts more than there are labels (here {len(groups)} texts of "
            f"{len(names)} labels): give reference states more examples"
        )
    states = precise(states)
    member = torch.tensor([[group == name for name in names] for group in groups]).to(states)
    deviations = states - member @ ((member / member.sum(0)).mT @ states)
    rows = deviations.shape[1]
    bad = ~deviations.isfinite().all(-1).all(-1)
    deviations = deviations.nan_to_num(0, 0, 0)
    shrinkage, mean_variance = _ledoit_wolf(deviations)
    # the eigenvectors of the covariance from those of the small matrix of inner products
    values, vectors = torch.linalg.eigh(deviations @ deviations.mT / rows)
    kept = values > values[:, -1:] * 1e-10
    basis = torch.where(
        kept[..., None], vectors.mT @ deviations / (values * rows).clamp(min=1e-300).sqrt()[..., None], 0
    )
    floor = shrinkage * mean_variance
    outside = floor.rsqrt().masked_fill(bad | (mean_variance <= 0), float("nan"))
    inside = ((1 - shrinkage)[:, None] * values.clamp(min=0) + floor[:, None]).rsqrt()
    return Whitening(basis, inside, outside, shrinkage)


def _ledoit_wolf(deviations: Float[Tensor, "layer row width"]) -> tuple[Float[Tensor, "layer"], Float[Tensor, "layer"]]:
    """Shrinkage towards the mean variance, and that variance; from inner products of rows alone."""
    rows, width = deviations.shape[1:]
    inner = deviations @ deviations.mT
    lengths = inner.diagonal(dim1=-2, dim2=-1)
    mean_variance = lengths.sum(-1) / (rows * width)
    covariance_squared = inner.square().sum((-1, -2)) / rows**2
    spread = covariance_squared - width * mean_variance.square()
    noise = (lengths.square().sum(-1) / rows - covariance_squared) / rows
    return torch.where(spread > 0, noise / spread, 1.0).clamp(0, 1), mean_variance
