"""Dimensions of the states of one site: participation ratio, the share of the mean, and massive dimensions."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import norm as normal
from torch import Tensor

from src.activations.moments import Moments
from src.activations.statistics import Statistics
from src.geometry.layers.random_basis import random_basis_share
from src.geometry.layers.texts import TextBlock, sums_by_text
from src.geometry.participation import participation_ratio, unbiased_participation_ratio
from src.hook_points import HookPoint

# an entry so many times the root mean square of its token is an outlier, in so large a share of the tokens its
# dimension is one: the criterion of Dettmers et al. (2022), with the token's own scale for their absolute 6
OUTLIER, OUTLIER_TOKENS = 6.0, 0.06
# an estimate so far beyond the number of dimensions is the noise of too few rows
_BEYOND = 1.1
# chance that any dimension of any site of a stack is called massive, were the basis random
LEVEL = 0.05
_KEY = HookPoint("resid_post", 0)


@dataclass(frozen=True, eq=False)
class DimensionStatistics:
    """What the dimensions of the counted tokens' states carry.

    participation, participation_unbiased: of the covariance; entry 0 is the value, the others leave out one group of
    documents each (there are none if the Gram matrices of groups were not kept); NaN where there are too few rows.
    mean_share: |mean|^2 / mean |x|^2. share: of each dimension in the mean squared norm. top_share: of the dimension
    with the largest, with bootstrap replicates. random_share: the share that a dimension of a random basis exceeds
    (`random_basis_share`) in LEVEL of the cases at most, all sites of the stack together. massive: dimensions beyond
    it, largest first. outlier_tokens: share of the tokens with an entry beyond OUTLIER times their root mean square;
    outlier_dimensions: those where OUTLIER_TOKENS of the tokens have one. gaussian_outlier_tokens: what independent
    Gaussian dimensions of one scale would give.
    """

    n: int
    d_model: int
    participation: Float[Tensor, "group"]
    participation_unbiased: Float[Tensor, "group"]
    mean_share: Float[Tensor, "replicate"]
    share: Float[Tensor, "d_model"]
    top_share: Float[Tensor, "replicate"]
    random_share: float
    massive: list[int]
    outlier_tokens: Float[Tensor, "replicate"]
    outlier_dimensions: list[int]
    gaussian_outlier_tokens: float

    @property
    def top_dimension(self) -> int:
        """The dimension with the largest share."""
        return int(self.share.argmax())

    @property
    def half(self) -> int:
        """How many dimensions carry half of the mean squared norm."""
        return int((self.share.sort(descending=True).values.cumsum(0) < 0.5).sum()) + 1


class DimensionSums:
    """Running moments; per group of documents if n_groups > 1."""

    def __init__(self, n_replicates: int, n_groups: int, d_model: int, device: torch.device) -> None:
        self._moments = Moments.empty([(_KEY, _KEY)], {_KEY: d_model}, n_groups, device=device)
        self._sums = torch.zeros(n_replicates, d_model, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self._sums)
        self._entries = torch.zeros(d_model, dtype=torch.int64, device=device)
        self._tokens = torch.zeros(n_replicates, 2, dtype=torch.float64, device=device)

    def add(self, rows: Float[Tensor, "counted d_model"], norms: Float[Tensor, "counted"], block: TextBlock) -> None:
        """Add the counted tokens of a block."""
        text, d_model = block.text[block.counted], rows.shape[1]
        self._moments.update({_KEY: rows}, (block.group % self._moments.n_groups)[text])
        values = rows.double()
        self._sums += block.weights @ sums_by_text(values, text, block.n_texts)
        self._squares += block.weights @ sums_by_text(values.square(), text, block.n_texts)
        is_outlier = values.abs() > OUTLIER / math.sqrt(d_model) * norms[:, None]
        self._entries += is_outlier.sum(0)
        has_one = torch.stack([torch.ones_like(norms), is_outlier.any(-1).double()], -1)
        self._tokens += block.weights @ sums_by_text(has_one, text, block.n_texts)

    def statistics(self, n_sites: int) -> DimensionStatistics:
        """What the moments say. n_sites: of the stack, whose dimensions are all tested."""
        count, with_outlier = self._tokens.unbind(-1)
        groups = [group for group in range(self._moments.n_groups) if self._moments.count[group] > 0]
        whole = self._moments.subset(groups)
        kept = [whole, *(whole - self._moments.subset([group]) for group in groups)] if len(groups) > 1 else [whole]
        kept = [part for part in kept if part.n > 1]
        ratios = torch.tensor([_participation(part) for part in kept], dtype=torch.float64).view(-1, 2)
        squares = self._squares.cpu()
        share = squares[0] / squares[0].sum()
        top = int(share.argmax())
        values = torch.linalg.eigvalsh(_second_moments(whole)).clamp(min=0)
        random_share = random_basis_share((values / values.sum()).cpu().numpy(), LEVEL / n_sites)
        by_share = share.argsort(descending=True, stable=True)
        frequent = self._entries.cpu() >= OUTLIER_TOKENS * whole.n
        d_model = len(share)
        return DimensionStatistics(
            n=whole.n,
            d_model=d_model,
            participation=ratios[:, 0],
            participation_unbiased=ratios[:, 1],
            mean_share=(self._sums.square().sum(-1) / (count * self._squares.sum(-1))).cpu(),
            share=share,
            top_share=squares[:, top] / squares.sum(-1),
            random_share=random_share,
            massive=by_share[share[by_share] > random_share].tolist(),
            outlier_tokens=(with_outlier / count).cpu(),
            outlier_dimensions=frequent.nonzero().flatten().tolist(),
            gaussian_outlier_tokens=-math.expm1(d_model * math.log1p(-2 * float(normal.sf(OUTLIER)))),
        )


def _participation(part: Statistics) -> tuple[float, float]:
    covariance = part.scatter(_KEY, _KEY) / (part.n - 1)
    trace, square = float(covariance.trace()), float(covariance.square().sum())
    unbiased = unbiased_participation_ratio(trace, square, part.n)
    impossible = unbiased > _BEYOND * len(covariance)
    return participation_ratio(trace, square), math.nan if impossible else unbiased


def _second_moments(part: Statistics) -> Float[Tensor, "d_model d_model"]:
    mean = part.mean(_KEY)
    return torch.addr(part.scatter(_KEY, _KEY) / part.n, mean, mean)
