"""The null of no transport: cross-fitted canonical correlations after whole documents of y have changed places.

Documents change places within their fold, and rows are paired anew by their running number in it. So every row of x
and of y is used once, every scatter of x alone or y alone is what it was, and tokens depend on others of their document
as before: only X'Y of the shuffled pairs has to be accumulated. Positions match where documents are equally long.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.moments import Moments
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.canonical import EIGENVALUE_FLOOR, CrossFit, CrossFitting

QUANTILES = (0.025, 0.05, 0.5, 0.95, 0.975)


def shuffled_rows(
    group: Int[Tensor, "row"], document: Int[Tensor, "row"], generator: torch.Generator
) -> Int[Tensor, "row"]:
    """The row of y that stands at each row of x, when documents of y change places within their group.

    Rows of a document keep their order. May be called part by part of a store: documents then change places within the
    part, which needs many documents in each part. Lies on the CPU.
    """
    group, document = group.to("cpu", torch.int64), document.cpu()
    _, number = document.unique(return_inverse=True)
    n_documents = int(number.max()) + 1 if len(number) else 0
    place = torch.randperm(n_documents, generator=generator)
    rows = torch.empty(len(group), dtype=torch.int64)
    in_order = (group * n_documents + number).argsort(stable=True)
    rows[in_order] = (group * n_documents + place[number]).argsort(stable=True)
    return rows


def shuffled_moments(
    moments: Moments,
    rows: Mapping[HookPoint, Float[Tensor, "row d"]],
    group: Int[Tensor, "row"],
    document: Int[Tensor, "row"],
    source: HookPoint,
    target: HookPoint,
    n_replicates: int,
    seed: int = 0,
) -> Iterator[Moments]:
    """Replicates of X'Y with documents of y shuffled, one at a time, from the rows that `moments` were made of.

    Raises StrataError if these are not as many rows per group as the moments hold.
    """
    counts = group.to("cpu", torch.int64).bincount(minlength=moments.n_groups)
    if not torch.equal(counts, moments.count.cpu()):
        raise StrataError("the shuffled rows must be those of the moments: give all of them, with the same groups")
    widths = {h: rows[h].shape[1] for h in (source, target)}
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_replicates):
        order = shuffled_rows(group, document, generator).to(rows[target].device)
        replicate = Moments.empty(
            [(source, target)], widths, moments.n_groups, moments.shift, moments.device, moments.precision
        )
        replicate.update({source: rows[source], target: rows[target][order]}, group)
        yield replicate


@dataclass(frozen=True)
class SizeTest:
    """A measure of the transport subspace, and what shuffled pairs give; p_value = (1 + #{null >= value}) / (1 + N)."""

    value: float
    null: Float[Tensor, "replicate"]

    @property
    def p_value(self) -> float:
        """One-sided; at least 1 / (1 + N) (Phipson and Smyth 2010)."""
        return (1 + int((self.null >= self.value).sum())) / (1 + len(self.null))

    @property
    def quantiles(self) -> dict[float, float]:
        """Of the null, by probability."""
        values = torch.quantile(self.null, torch.tensor(QUANTILES, dtype=self.null.dtype)).tolist()
        return dict(zip(QUANTILES, values, strict=True))


@dataclass(frozen=True)
class PermutationTest:
    """The size of the linear transport subspace against shuffled pairs.

    null_correlations: quantiles of the cross-fitted correlation at each place of the order, by probability.
    """

    observed: CrossFit
    explained_dimensions: SizeTest
    participation_ratio: SizeTest
    null_correlations: Mapping[float, Float[Tensor, "d"]]

    @classmethod
    def of(cls, observed: CrossFit, null: Sequence[CrossFit]) -> "PermutationTest":
        """From the cross-fit of the true pairs and those of shuffled ones. Raises StrataError without replicates."""
        if not null:
            raise StrataError("a permutation test needs at least one shuffled replicate")
        correlations = torch.stack([fit.correlations for fit in null])
        probabilities = torch.tensor(QUANTILES, dtype=correlations.dtype, device=correlations.device)
        bands = torch.quantile(correlations, probabilities, dim=0)
        explained = torch.tensor([fit.explained_dimensions for fit in null], dtype=torch.float64)
        spread = torch.tensor([fit.participation_ratio for fit in null], dtype=torch.float64)
        return cls(
            observed,
            SizeTest(observed.explained_dimensions, explained),
            SizeTest(observed.participation_ratio, spread),
            dict(zip(QUANTILES, bands, strict=True)),
        )


def permutation_test(
    moments: Moments,
    shuffled: Iterable[Moments],
    source: HookPoint,
    target: HookPoint,
    folds: Sequence[int],
    floor: float = EIGENVALUE_FLOOR,
) -> PermutationTest:
    """Cross-fit the true pairs and every shuffled replicate; 99 replicates allow p = 0.01.

    moments: of the true pairs, with (source, source), (source, target) and (target, target).
    shuffled: replicates over the same rows of x and y in the same groups, with (source, target), from
        `shuffled_moments`; `permutation_pass.py` makes those of a store.
    Raises StrataError if there are no replicates, or one has other rows.
    """
    fitting = CrossFitting(moments, source, target, folds, floor)
    observed = fitting.correlations(moments)
    null: list[CrossFit] = []
    for replicate in shuffled:
        if not torch.equal(replicate.count.cpu(), moments.count.cpu()):
            raise StrataError("shuffled moments hold other rows than the moments: accumulate both over the same rows")
        null.append(fitting.correlations(replicate))
    return PermutationTest.of(observed, null)
