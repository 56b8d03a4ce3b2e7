"""How well features of an SAE are predicted, from sums over tokens: decoder projections, latents, and their firing.

The projection of a row y onto a feature is a = y . d, d the feature's decoder direction of length 1; what a prediction
of y gives is a^. Formulas: docs/methods.md, "Features through an operator". Every sum has the shape
[*replicate, feature].
"""

from dataclasses import dataclass, fields
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

# An SAE's feature fires where its activation exceeds this (as in the reference, in truth and in prediction alike).
FIRES_ABOVE = 1e-6
# Denominators at or below this are none.
SMALLEST = 1e-12
_WORST_R2 = -1e6
FEWEST_ROWS = 2

Sums = Float[Tensor, "*replicate feature"]


@dataclass(frozen=True)
class TrueProjections:
    """Sums over rows: their number, a - centre, its square, and |a|. centre: a rough mean that keeps sums precise."""

    n: Sums
    sum: Sums
    square: Sums
    absolute: Sums
    centre: Float[Tensor, " feature"]


@dataclass(frozen=True)
class PredictedProjections:
    """Sums over the same rows: a^ - centre, its square, and (a - a^)^2."""

    sum: Sums
    square: Sums
    sse: Sums

    def shifted(self, truth: TrueProjections, shift: Float[Tensor, " feature"]) -> Self:
        """The sums of predictions that are larger by a constant for each feature."""
        error = truth.sum - self.sum
        return type(self)(
            self.sum + truth.n * shift,
            (self.square + 2 * shift * self.sum + truth.n * shift.square()).clamp(min=0),
            (self.sse - 2 * shift * error + truth.n * shift.square()).clamp(min=0),
        )


@dataclass(frozen=True)
class Magnitudes:
    """Sums over the same rows: |a^|, |a - a^|, |a - a^| / |a| and ln^2(|a^| / |a|), the last two with their numbers."""

    absolute: Sums
    absolute_error: Sums
    relative_error: Sums
    n_relative: Sums
    log_square: Sums
    n_log: Sums


@dataclass(frozen=True)
class LatentSums:
    """Sums over all rows of activations z and their predictions z^: z, z^2, z^, z^2, z z^; and how often they fire."""

    n: Sums
    true: Sums
    true_square: Sums
    predicted: Sums
    predicted_square: Sums
    product: Sums
    fires: Sums
    fires_predicted: Sums
    fires_both: Sums

    def __post_init__(self) -> None:
        if len({getattr(self, field.name).shape[-1] for field in fields(self)}) != 1:
            raise ValueError("sums of unequal numbers of features")


def error_metrics(truth: TrueProjections, predicted: PredictedProjections) -> dict[str, Sums]:
    """r2_lat, mse_lat, r_pearson, calibration, rms_true, rms_pred, rms_ratio, mean_ratio; NaN below 2 rows.

    r2_lat: 1 - SSE / SST, clipped to [-1e6, 1], 0 where a does not vary. calibration: the uncentred cosine of a and a^.
    """
    n, centre = truth.n, truth.centre
    true_scatter = (truth.square - truth.sum.square() / n).clamp(min=0)
    predicted_scatter = (predicted.square - predicted.sum.square() / n).clamp(min=0)
    product = (truth.square + predicted.square - predicted.sse) / 2
    true_mean, predicted_mean = truth.sum / n + centre, predicted.sum / n + centre
    true_square = (true_scatter / n + true_mean.square()).clamp(min=0)
    predicted_square = (predicted_scatter / n + predicted_mean.square()).clamp(min=0)
    uncentred = product / n + centre * (truth.sum + predicted.sum) / n + centre.square()
    rms_true, rms_pred = true_square.sqrt(), predicted_square.sqrt()
    r2 = (1 - _ratio(predicted.sse, true_scatter, 1.0)).clamp(_WORST_R2, 1)
    found = {
        "r2_lat": r2,
        "mse_lat": predicted.sse / n,
        "r_pearson": _ratio(
            (product - truth.sum * predicted.sum / n) / n, (true_scatter / n * (predicted_scatter / n)).sqrt(), 0.0
        ).clamp(-1, 1),
        "calibration": _ratio(uncentred, rms_true * rms_pred, 0.0).clamp(-1, 1),
        "rms_true": rms_true,
        "rms_pred": rms_pred,
        "rms_ratio": _ratio(rms_pred, rms_true, 1.0),
        "mean_ratio": _ratio(predicted_mean, true_mean, 1.0),
    }
    return {name: _where_rows(values, n) for name, values in found.items()}


def magnitude_metrics(truth: TrueProjections, sizes: Magnitudes) -> dict[str, Sums]:
    """mean_abs_ratio, mad_ratio, rel_error_mean, log_mse_ratio; NaN below 2 rows.

    The last two weigh tokens with a near 0 without limit: their mean need not settle, however many tokens there are.
    """
    true_size = truth.absolute / truth.n
    found = {
        "mean_abs_ratio": _ratio(sizes.absolute / truth.n, true_size, 1.0),
        "mad_ratio": _ratio(sizes.absolute_error / truth.n, true_size, 0.0),
        "rel_error_mean": sizes.relative_error / sizes.n_relative,
        "log_mse_ratio": sizes.log_square / sizes.n_log,
    }
    return {name: _where_rows(values, truth.n) for name, values in found.items()}


def latent_metrics(sums: LatentSums) -> dict[str, Sums]:
    """latent_r2, latent_mse, precision, recall, f1, rate_predicted: NaN where nothing fires that they are a share of.

    latent_r2: 1 - sum (z - z^)^2 / sum (z - mean z)^2 over all rows, firing or not.
    """
    scatter = sums.true_square - sums.true.square() / sums.n
    return {
        "latent_r2": _fraction(scatter - latent_errors(sums), scatter.masked_fill(sums.fires == 0, 0)),
        "latent_mse": latent_errors(sums) / sums.n,
        "precision": _fraction(sums.fires_both, sums.fires_predicted),
        "recall": _fraction(sums.fires_both, sums.fires),
        "f1": _fraction(2 * sums.fires_both, sums.fires + sums.fires_predicted),
        "rate_predicted": sums.fires_predicted / sums.n,
    }


def latent_errors(sums: LatentSums) -> Sums:
    """Sum of (z - z^)^2."""
    return (sums.true_square - 2 * sums.product + sums.predicted_square).clamp(min=0)


def skill_of(errors: Sums, baseline: Sums) -> Sums:
    """1 - SSE / SSE of a baseline; NaN where the baseline makes no error."""
    return 1 - _fraction(errors, baseline)


def _ratio(above: Tensor, below: Tensor, otherwise: float) -> Tensor:
    is_none = below.abs() <= SMALLEST
    return torch.where(is_none, otherwise, above / torch.where(is_none, 1.0, below))


def _fraction(above: Tensor, below: Tensor) -> Tensor:
    return above / torch.where(below > 0, below, float("nan"))


def _where_rows(values: Tensor, n: Tensor) -> Tensor:
    return torch.where(n >= FEWEST_ROWS, values, float("nan"))
