"""Fit standardised variables, or the difference of target and source, and bring the fit back to raw activations.

Both are changes of variables of the sums, so no pass over the rows is needed: with scales s, the sums of x / s follow
from those of x; and the products of x with y - x are those with y less those with x.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from src.activations.statistics import Statistics
from src.hook_points import HookPoint
from src.transport.affine import AffineFit, bias_of, require_equal_widths
from src.transport.metrics import constant_dimensions

Target = Literal["y", "delta"]


def standardised(statistics: Statistics, scale: Mapping[HookPoint, Float[Tensor, "d"]]) -> Statistics:
    """The statistics of x / scale, for the hook points that have one, from those of x."""
    points = list(scale)

    def product(a: HookPoint, b: HookPoint) -> Tensor:
        return statistics.product(a, b) / scale[a][:, None] / scale[b]

    return Statistics(
        statistics.n,
        {h: statistics.shift[h] / scale[h] for h in points},
        {h: statistics.sums[h] / scale[h] for h in points},
        {h: statistics.square_sums[h] / scale[h].square() for h in points},
        lru_cache(maxsize=1)(product),
    )


def difference(statistics: Statistics, source: HookPoint, targets: Sequence[HookPoint]) -> Statistics:
    """The same statistics, with every target replaced by target - source.

    Takes the products (source, source) and (source, target), and (target, target) if that of the differences is asked
    for. Raises StrataError if a target has another width.
    """
    for target in targets:
        require_equal_widths(statistics, source, target, "target=delta")

    def product(a: HookPoint, b: HookPoint) -> Tensor:
        # of targets, solvers ask for the pairs (source, target) and (target, target) alone
        if b not in targets:
            return statistics.product(a, b)
        if a == source:
            return statistics.product(a, b) - statistics.product(a, source)
        cross = statistics.product(source, b)
        return statistics.product(a, b) - cross - cross.T + statistics.product(source, source)

    def less_source(values: Mapping[HookPoint, Tensor]) -> dict[HookPoint, Tensor]:
        return {h: values[h] - values[source] if h in targets else values[h] for h in (source, *targets)}

    square_sums = {source: statistics.square_sums[source]}
    for target in targets:
        cross = statistics.product(source, target).diagonal()
        total = statistics.square_sums[target] - 2 * cross + statistics.square_sums[source]
        square_sums[target] = total.clamp(min=0)
    return Statistics(
        statistics.n,
        less_source(statistics.shift),
        less_source(statistics.sums),
        square_sums,
        lru_cache(maxsize=1)(product),
    )


@dataclass(frozen=True)
class Preprocessing:
    """What is fitted in place of x and y.

    normalize: fit variables that are divided by their standard deviations over the training rows (those of a
    cross-validation split for that split), as StandardScaler does; dimensions that do not vary keep their scale.
    target: y, or "delta" for y - x, which draws the operator towards the identity instead of towards 0; moments in
    float32 lose the digits in which the squares of x and y agree.
    """

    normalize: bool = False
    target: Target = "y"

    def of(self, train: Statistics, source: HookPoint, targets: Iterable[HookPoint]) -> "Prepared":
        """The change of variables that these training rows decide.

        Raises StrataError if a difference is wanted of hook points of unequal widths.
        """
        targets = tuple(targets)
        prepared = Prepared(train, source, targets, {}, self.target == "delta")
        if not self.normalize:
            return prepared
        fitted = prepared(train)
        scale = {}
        for point in (source, *targets):
            # the rounding of a difference is that of its terms
            size = train.square_sums[point] + (train.square_sums[source] if prepared.delta else 0)
            scatter = fitted.square_scatter(point)
            scale[point] = torch.where(constant_dimensions(scatter, size), 1, (scatter / train.n).sqrt())
        return replace(prepared, scale=scale)


RAW = Preprocessing()


@dataclass(frozen=True)
class Prepared:
    """A change of variables: call it on statistics to get those of what is fitted; `restore` brings the fit back.

    train: the raw statistics that decided it. scale: per hook point; empty if nothing is scaled.
    """

    train: Statistics
    source: HookPoint
    targets: tuple[HookPoint, ...]
    scale: Mapping[HookPoint, Float[Tensor, "d"]]
    delta: bool

    def __call__(self, rows: Statistics) -> Statistics:
        """The statistics of the fitted variables over the same rows."""
        changed = difference(rows, self.source, self.targets) if self.delta else rows
        return standardised(changed, self.scale) if self.scale else changed

    def output_scale(self, target: HookPoint) -> Float[Tensor, "d_out"]:
        """Raw units per unit of the fitted target: what errors are multiplied by."""
        return self.scale[target] if self.scale else torch.ones_like(self.train.sums[target])

    def restore(self, fit: AffineFit, target: HookPoint) -> AffineFit:
        """The fit of the prepared variables as a map from raw x to raw y: diag(1/s_x) B diag(s_y), + I for delta."""
        if not self.scale and not self.delta:
            return fit
        weight = fit.weight
        if self.scale:
            weight = weight / self.scale[self.source][:, None] * self.scale[target]
        if self.delta:
            weight = weight + torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        return replace(fit, weight=weight, bias=bias_of(self.train, self.source, target, weight))
