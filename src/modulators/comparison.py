"""Losses of trained runs against the frozen model's and against each other's, paired by document and by training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import t as student_t
from torch import Tensor

from src.multiple_tests import holm


@dataclass(frozen=True)
class MeanLoss:
    """Nats per predicted token, or a difference of two, with its 95 % interval and p of being 0.

    of_documents, of_trainings: standard errors, of which the interval is made: documents are drawn anew, trainings too
    where there are several. low, high and p are NaN where there is one document.
    """

    value: float
    low: float
    high: float
    p: float
    of_documents: float
    of_trainings: float | None


@dataclass(frozen=True)
class ComparedRun:
    """One kind of run, over all of its trainings.

    nll: its loss. less_frozen: less the frozen model's. modulator_less: the modulator's loss less its, None for the
    modulator itself; adjusted: p of that for the family of controls (Holm). each: loss less the frozen model's of each
    training.
    """

    name: str
    n_trained: int
    nll: MeanLoss
    less_frozen: MeanLoss
    modulator_less: MeanLoss | None
    adjusted: float | None
    each: Sequence[float]


@dataclass(frozen=True)
class Comparison:
    """runs: the modulator first, then its controls."""

    frozen: MeanLoss
    runs: Sequence[ComparedRun]
    n_documents: int
    n_tokens: int
    n_trainings: int

    @property
    def modulator(self) -> ComparedRun:
        """The run that the others are controls of."""
        return self.runs[0]

    @property
    def controls(self) -> Sequence[ComparedRun]:
        """All others."""
        return self.runs[1:]


def compare_losses(
    frozen: Float[Tensor, " document"],
    runs: Mapping[str, Float[Tensor, "training document"]],
    n_trained: Mapping[str, int],
    n_tokens: Float[Tensor, " document"],
) -> Comparison:
    """Compare runs, of which the first is the modulator.

    Args:
        frozen: sums of -log P over each document's predicted tokens, of the frozen model.
        runs: the same of each training of each run, by name; training i of all runs has the same seed.
        n_trained: how many numbers each trains.
        n_tokens: predicted tokens of each document.
    """
    (main, modulator), *others = runs.items()
    differences = {name: mean_loss_of(modulator - losses, n_tokens) for name, losses in others}
    adjusted = holm(np.array([difference.p for difference in differences.values()]))
    of_control = dict(zip(differences, adjusted.tolist(), strict=True))
    compared = [
        ComparedRun(
            name,
            n_trained[name],
            mean_loss_of(losses, n_tokens),
            mean_loss_of(losses - frozen, n_tokens),
            differences.get(name),
            of_control.get(name),
            ((losses - frozen).sum(1) / n_tokens.sum()).tolist(),
        )
        for name, losses in runs.items()
    ]
    size = {"n_documents": len(n_tokens), "n_tokens": int(n_tokens.sum()), "n_trainings": len(runs[main])}
    return Comparison(mean_loss_of(frozen[None], n_tokens), compared, **size)


def mean_loss_of(sums: Float[Tensor, "training document"], n_tokens: Float[Tensor, " document"]) -> MeanLoss:
    """Mean over trainings of the ratio of sums over documents, with an interval over both.

    The variance over documents is the jackknife's of a ratio (Cochran 1977, *Sampling Techniques*, 6.17) of the mean
    over trainings, the variance over trainings that of the mean of their ratios. Both are added: what documents and
    trainings do together is counted in each, so the sum errs on the wide side, as the bootstrap of crossed factors does
    (Owen 2007, *Annals of Applied Statistics* 1). The quantile is Student's, with Satterthwaite's degrees of freedom:
    with two or three trainings a bootstrap would be far too sure. Documents of unequal length count as the
    (sum n)^2 / sum n^2 of equal ones that weigh as evenly (Kish 1965): leaving out a long one moves the ratio more.
    """
    n_trainings, n_documents = sums.shape
    total = n_tokens.sum()
    ratios = sums.sum(1) / total
    value = float(ratios.mean())
    if n_documents < 2:
        nan = float("nan")
        return MeanLoss(value, nan, nan, nan, nan, None)
    deviation = sums.mean(0) - value * n_tokens
    # what leaving out each document moves the ratio by
    moved = deviation / (total - n_tokens)
    by_document = float(moved.square().sum() * (n_documents - 1) / n_documents)
    of_documents = max(1.0, float(total**2 / n_tokens.square().sum()) - 1)
    by_training = float(ratios.var()) / n_trainings if n_trainings > 1 else 0.0
    error = (by_document + by_training) ** 0.5
    of_trainings = by_training**0.5 if n_trainings > 1 else None
    if error == 0:
        return MeanLoss(value, value, value, 1.0 if value == 0 else 0.0, 0.0, of_trainings)
    squares = by_document**2 / of_documents + (by_training**2 / (n_trainings - 1) if n_trainings > 1 else 0.0)
    degrees = (by_document + by_training) ** 2 / squares
    half = float(student_t.ppf(0.975, degrees)) * error
    p = 2 * float(student_t.sf(abs(value) / error, degrees))
    return MeanLoss(value, value - half, value + half, p, by_document**0.5, of_trainings)


def by_group(values: Float[Tensor, "*run example"], groups: Int[Tensor, " example"]) -> Float[Tensor, "*run document"]:
    """Sums over the examples of each group, in the order of the groups' numbers."""
    found, place = torch.unique(groups, return_inverse=True)
    return values.new_zeros(*values.shape[:-1], len(found)).index_add(-1, place, values)
