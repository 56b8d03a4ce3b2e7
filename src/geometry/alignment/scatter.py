"""Second moments of paired rows about given centres: all that linear maps need to be fitted and compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.products import arithmetic_device
from src.geometry.alignment.rows import BLOCK


@dataclass(frozen=True, eq=False)
class Scatter:
    """Sums over pairs of (x - source_centre)'(x - source_centre) and so on, float64.

    n: pairs. source_sum, target_sum: of the centred rows, 0 where the centre is the mean.
    """

    n: int
    source_centre: Float[Tensor, "d_source"]
    target_centre: Float[Tensor, "d_target"]
    source_sum: Float[Tensor, "d_source"]
    target_sum: Float[Tensor, "d_target"]
    xx: Float[Tensor, "d_source d_source"]
    xy: Float[Tensor, "d_source d_target"]
    yy: Float[Tensor, "d_target d_target"]

    @classmethod
    def of(
        cls,
        source: Float[Tensor, "pair d_source"],
        target: Float[Tensor, "pair d_target"],
        device: torch.device | str = "cpu",
        centres: tuple[Float[Tensor, "d_source"], Float[Tensor, "d_target"]] | None = None,
    ) -> Self:
        """Add up pairs in blocks. centres: those of the pairs that a map is fitted on; None = the pairs' own means."""
        x_centre, y_centre = centres or (mean_row(source, device), mean_row(target, device))
        d_source, d_target = source.shape[1], target.shape[1]
        zeros = [x_centre.new_zeros(shape) for shape in ((d_source, d_source), (d_source, d_target))]
        xx, xy, yy = *zeros, y_centre.new_zeros((d_target, d_target))
        x_sum, y_sum = torch.zeros_like(x_centre), torch.zeros_like(y_centre)
        for x, y in zip(blocks(source, device), blocks(target, device), strict=True):
            x, y = x - x_centre, y - y_centre
            xx += x.T @ x
            xy += x.T @ y
            yy += y.T @ y
            x_sum += x.sum(0)
            y_sum += y.sum(0)
        return cls(len(source), x_centre, y_centre, x_sum, y_sum, xx, xy, yy)

    def about(self, source_centre: Float[Tensor, "d_source"], target_centre: Float[Tensor, "d_target"]) -> Self:
        """The same pairs about other centres."""
        dx, dy = source_centre - self.source_centre, target_centre - self.target_centre

        def moved(product: Tensor, sums: tuple[Tensor, Tensor], shifts: tuple[Tensor, Tensor]) -> Tensor:
            outer = torch.outer(sums[0], shifts[1]) + torch.outer(shifts[0], sums[1])
            return product - outer + self.n * torch.outer(*shifts)

        return type(self)(
            self.n,
            source_centre,
            target_centre,
            self.source_sum - self.n * dx,
            self.target_sum - self.n * dy,
            moved(self.xx, (self.source_sum, self.source_sum), (dx, dx)),
            moved(self.xy, (self.source_sum, self.target_sum), (dx, dy)),
            moved(self.yy, (self.target_sum, self.target_sum), (dy, dy)),
        )

    def without(self, source: Float[Tensor, "d_source"], target: Float[Tensor, "d_target"]) -> Self:
        """All pairs but one of them, about the mean of the rest (where these are about the mean of all)."""
        x, y = source - self.source_centre, target - self.target_centre
        rest = type(self)(
            self.n - 1,
            self.source_centre,
            self.target_centre,
            self.source_sum - x,
            self.target_sum - y,
            self.xx - torch.outer(x, x),
            self.xy - torch.outer(x, y),
            self.yy - torch.outer(y, y),
        )
        shifts = rest.source_sum / rest.n, rest.target_sum / rest.n
        return rest.about(self.source_centre + shifts[0], self.target_centre + shifts[1])

    def explained(self, weight: Float[Tensor, "d_source d_target"]) -> float:
        """R^2 of predicting the centred target as (x - centre) weight, about the target's centre (not its mean)."""
        error = self.yy.trace() - 2 * (weight * self.xy).sum() + (weight * (self.xx @ weight)).sum()
        return float(1 - error / self.yy.trace())


def blocks(rows: Float[Tensor, "row d"], device: torch.device | str) -> Iterator[Float[Tensor, "block d"]]:
    """The rows in float64 on a device, a block at a time (on the CPU for a device that has no float64)."""
    device = arithmetic_device(device)
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK].to(device).double()


def mean_row(rows: Float[Tensor, "row d"], device: torch.device | str = "cpu") -> Float[Tensor, "d"]:
    """The mean of all rows, float64."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=arithmetic_device(device))
    for block in blocks(rows, device):
        total += block.sum(0)
    return total / max(1, len(rows))
