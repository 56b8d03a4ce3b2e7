"""95 % intervals from moments alone: the delete-a-group jackknife over groups of documents.

The groups are random and of like size, so leaving out each in turn shows how much a score depends on which documents
were drawn (Kott 2001, "The delete-a-group jackknife"): with G groups, var = (G - 1) / G sum_g (t_(g) - t)^2, and the
interval is t -+ sqrt(var) times the 97.5 % quantile of Student's t with G - 1 degrees of freedom.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import t as student_t
from torch import Tensor

from src.activations.moments import Moments
from src.hook_points import HookPoint
from src.transport.bootstrap import Estimate
from src.transport.closed_form import identity_errors, squared_errors
from src.transport.metrics import r2_per_dimension, r2_variance_weighted


@dataclass(frozen=True)
class JackknifeScore:
    """Scores on all rows (entry 0), and on the rows without each of the groups; float64, on the CPU.

    r2_uniform: mean over dimensions; r2_variance_weighted; mse: per entry.
    """

    r2_uniform: Float[Tensor, "replicate"]
    r2_variance_weighted: Float[Tensor, "replicate"]
    mse: Float[Tensor, "replicate"]


def jackknife_estimate(replicates: Float[Tensor, "replicate"]) -> Estimate:
    """The value (entry 0) and its 95 % interval from the values without each group."""
    value, n_groups = float(replicates[0]), len(replicates) - 1
    if n_groups < 2:
        return Estimate(value, math.nan, math.nan)
    variance = float((replicates[1:] - replicates[0]).square().sum()) * (n_groups - 1) / n_groups
    half = float(student_t.ppf(0.975, n_groups - 1)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half)


class GroupJackknife:
    """Scores affine maps on the rows of some groups of moments, and on those rows without each group in turn."""

    def __init__(self, moments: Moments, groups: Sequence[int]) -> None:
        """Raises StrataError if a group has no rows."""
        self._parts = [moments.subset([group]) for group in groups]
        total = moments.subset(groups)
        self._rests = [total, *(total - part for part in self._parts)]
        self._n = torch.tensor([rest.n for rest in self._rests], dtype=torch.float64, device=moments.device)

    def score_affine(
        self,
        source: HookPoint,
        target: HookPoint,
        weight: Float[Tensor, "d_in d_out"],
        bias: Float[Tensor, " d_out"],
    ) -> JackknifeScore:
        """Score y = x W + b; needs the pairs (source, source) and (source, target)."""
        return self._score(target, [squared_errors(part, source, target, weight, bias) for part in self._parts])

    def score_identity(
        self, source: HookPoint, target: HookPoint, *, shifted_by: Float[Tensor, " d_model"]
    ) -> JackknifeScore:
        """Score y = x + shift (zeros: the identity)."""
        return self._score(
            target, [identity_errors(part, source, target, shifted_by=shifted_by) for part in self._parts]
        )

    def _score(self, target: HookPoint, errors: list[Float[Tensor, " d_out"]]) -> JackknifeScore:
        by_part = torch.stack(errors)
        whole = by_part.sum(0)
        # the others are added up, not subtracted from the whole: of a group far off, only rounding would be left
        others = [torch.cat([by_part[:g], by_part[g + 1 :]]).sum(0) for g in range(len(errors))]
        sse = torch.stack([whole, *others])
        sst = torch.stack([rest.square_scatter(target) for rest in self._rests])
        square_sum = torch.stack([rest.square_sums[target] for rest in self._rests])
        return JackknifeScore(
            r2_uniform=r2_per_dimension(sse, sst, square_sum).mean(-1).cpu(),
            r2_variance_weighted=r2_variance_weighted(sse, sst, square_sum).cpu(),
            mse=(sse.mean(-1) / self._n).cpu(),
        )
