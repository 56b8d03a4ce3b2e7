"""How well a map does on tokens that it was not fitted on, token by token and together, with intervals."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.alignment.maps import AffineMap
from src.geometry.alignment.rows import PairedRows
from src.geometry.alignment.scatter import blocks
from src.geometry.directions import unit_rows

# spec F3
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Of each token: predicted against true row.

    cosine: of both after the training pairs' mean target is subtracted, so that a mean they share earns nothing.
    raw_cosine: of both as they are (spec F3). distance: Euclidean. error, total: squared distance of the true row from
    the prediction, and from the training pairs' mean.
    """

    cosine: Float[np.ndarray, " token"]
    raw_cosine: Float[np.ndarray, " token"]
    distance: Float[np.ndarray, " token"]
    error: Float[np.ndarray, " token"]
    total: Float[np.ndarray, " token"]

    @property
    def explained(self) -> float:
        """R^2 about the mean of the training pairs."""
        return float(1 - self.error.sum() / self.total.sum())


def centred_target(rows: Float[Tensor, "row d_target"], of: AffineMap) -> Float[Tensor, "row d_target"]:
    """True rows less the training pairs' mean, float64."""
    parts = [block - of.target_centre for block in blocks(rows, of.weight.device)]
    return torch.cat(parts) if parts else of.weight.new_zeros((0, of.weight.shape[1]))


def score_tokens(
    predicted: Float[Tensor, "token d_target"],
    true: Float[Tensor, "token d_target"],
    centre: Float[Tensor, "d_target"],
) -> TokenScores:
    """Scores of centred predictions against centred true rows; a cosine with a vector of length 0 is 0."""
    error = (predicted - true).square().sum(1)
    found = (
        cosines(predicted, true),
        cosines(predicted + centre, true + centre),
        error.sqrt(),
        error,
        true.square().sum(1),
    )
    return TokenScores(*(values.cpu().numpy() for values in found))


def cosines(a: Float[Tensor, "row d"], b: Float[Tensor, "row d"]) -> Float[Tensor, "row"]:
    """Of row i of both; 0 where one has no length."""
    return (unit_rows(a) * unit_rows(b)).sum(1)


def summary(values: Float[np.ndarray, " token"]) -> dict[str, float]:
    """Mean, standard deviation, least, greatest value and percentiles (spec F3)."""
    found = {"mean": float(values.mean()), "sd": float(values.std()), "min": float(values.min())}
    percentiles = np.percentile(values, PERCENTILES)
    named = {f"p{p}": float(value) for p, value in zip(PERCENTILES, percentiles, strict=True)}
    return {**found, "max": float(values.max()), **named}


class UnitBootstrap:
    """Intervals of ratios of sums over tokens: whole units (tokens, or documents) are drawn anew, maps stay fitted."""

    def __init__(self, unit: Int[np.ndarray, " token"], draws: int, seed: int) -> None:
        self._of_token = np.unique(unit, return_inverse=True)[1]
        self.n_units = int(self._of_token.max()) + 1 if len(unit) else 0
        random = np.random.default_rng([seed, 1])
        # counts of n_units draws with replacement; entry 0 is what was seen
        drawn = random.multinomial(self.n_units, np.full(self.n_units, 1 / max(1, self.n_units)), size=draws)
        self._weights = np.concatenate([np.ones((1, self.n_units)), drawn]) if self.n_units else np.ones((1, 0))

    def ratio(self, above: Float[np.ndarray, " token"], below: Float[np.ndarray, " token"]) -> Interval:
        """Sum of one quantity over the sum of another."""
        sums = [np.bincount(self._of_token, values, self.n_units) for values in (above, below)]
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = (self._weights @ sums[0]) / (self._weights @ sums[1])
        again = drawn[1:][np.isfinite(drawn[1:])]
        low, high = np.percentile(again, _INTERVAL) if len(again) else (np.nan, np.nan)
        return Interval(float(drawn[0]), float(low), float(high))

    def mean(self, values: Float[np.ndarray, " token"]) -> Interval:
        """The mean over tokens."""
        return self.ratio(values, np.ones(len(values)))


def score_intervals(scores: TokenScores, bootstrap: UnitBootstrap) -> dict[str, Interval]:
    """The scores of a map over all tokens: cosine, raw_cosine, distance, explained (R^2)."""
    unexplained = bootstrap.ratio(scores.error, scores.total)
    return {
        "cosine": bootstrap.mean(scores.cosine),
        "raw_cosine": bootstrap.mean(scores.raw_cosine),
        "distance": bootstrap.mean(scores.distance),
        "explained": Interval(1 - unexplained.value, 1 - unexplained.high, 1 - unexplained.low),
    }


def residual_spectrum(
    predicted: Float[Tensor, "token d"], true: Float[Tensor, "token d"]
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Eigenvalues of the second moment of what a map leaves, and of the target itself, as shares of its variance.

    Descending (spec F8). The first sum to 1 - R^2, the second to 1.
    """
    total = true.square().sum()
    found = []
    for rows in (true - predicted, true):
        values = torch.linalg.eigvalsh(rows.T @ rows).flip(0).clamp(min=0) / total
        found.append(values.cpu().numpy())
    return found[0], found[1]


def held_out(rows: PairedRows, of: AffineMap) -> tuple[Float[Tensor, "row d"], Float[Tensor, "row d"]]:
    """Predictions and true rows, both less the training pairs' mean."""
    return of.centred(rows.source), centred_target(rows.target, of)
