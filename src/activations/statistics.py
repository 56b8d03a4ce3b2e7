"""What is read from sums over rows: means, and scatters about any mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.hook_points import HookPoint


@dataclass(frozen=True)
class Statistics:
    """Sums over the rows of a set of groups, from which centred moments are read.

    `total - part` are the statistics of the rows of total that are not in part (which must be a subset of it).
    """

    n: int
    shift: Mapping[HookPoint, Float[Tensor, "d"]]
    sums: Mapping[HookPoint, Float[Tensor, "d"]]
    square_sums: Mapping[HookPoint, Float[Tensor, "d"]]
    product: Callable[[HookPoint, HookPoint], Tensor]
    """(a, b) -> sum of (x_a - shift_a)(x_b - shift_b)', [d_a, d_b]; not to be written to."""

    def __sub__(self, part: "Statistics") -> "Statistics":
        return Statistics(
            self.n - part.n,
            self.shift,
            {h: total - part.sums[h] for h, total in self.sums.items()},
            {h: total - part.square_sums[h] for h, total in self.square_sums.items()},
            lambda a, b: self.product(a, b) - part.product(a, b),
        )

    def mean(self, hook_point: HookPoint) -> Float[Tensor, "d"]:
        """Mean of the rows, float64."""
        return self.shift[hook_point] + self.shifted_mean(hook_point)

    def shifted_mean(self, hook_point: HookPoint) -> Float[Tensor, "d"]:
        """Mean of the rows less the shift."""
        return self.sums[hook_point] / self.n

    def scatter(self, a: HookPoint, b: HookPoint, about: "Statistics | None" = None) -> Float[Tensor, "d_a d_b"]:
        """Sum over rows of (x_a - m_a)(x_b - m_b)', m the own means or those of `about`; divide by n for covariance."""
        mean_a, mean_b = self.shifted_mean(a), self.shifted_mean(b)
        scatter = torch.addr(self.product(a, b), mean_a, mean_b, alpha=-self.n)
        if about is not None:
            scatter.addr_(mean_a - about.shifted_mean(a), mean_b - about.shifted_mean(b), alpha=self.n)
        return scatter

    def square_scatter(self, hook_point: HookPoint, about: "Statistics | None" = None) -> Float[Tensor, "d"]:
        """Sum over rows of (x - m)^2 per dimension, m the own mean or that of `about`; never negative."""
        mean = self.shifted_mean(hook_point)
        scatter = (self.square_sums[hook_point] - self.n * mean.square()).clamp_(min=0)
        return scatter if about is None else scatter + self.n * (mean - about.shifted_mean(hook_point)).square()
