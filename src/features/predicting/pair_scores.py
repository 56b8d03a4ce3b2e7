"""The metrics of every feature of a pair of layers with their intervals, from the pair's sums, as columns of a table.

Columns of projections: `<tokens>_<metric>` of the operator, tokens one of all, active, predicted, with `_low` and
`_high`; `<tokens>_<metric>_<baseline>` of the baselines identity, identity_shift and mean; `<tokens>_skill` against the
identity, `<tokens>_skill_shift` against identity + shift. Of latents, over all tokens: `latent_r2`, `precision`,
`recall`, `f1`, `latent_skill`, ... likewise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.features.predicting.intervals import Scale, jackknife_interval, leave_one_out, median_interval
from src.features.predicting.metrics import error_metrics, latent_errors, latent_metrics, magnitude_metrics, skill_of
from src.features.predicting.pair_sums import (
    FIRES,
    FIRES_PREDICTED,
    IDENTITY,
    MEAN,
    OPERATOR,
    SHIFT,
    TOKEN_SETS,
    PairSums,
    latent_sums,
    projection_sums,
)

BASELINES = (SHIFT, IDENTITY, MEAN)
SCALES: Mapping[str, Scale] = {
    "r2_lat": "log_rest", "mse_lat": "log", "r_pearson": "fisher", "calibration": "fisher", "rms_true": "log",
    "rms_pred": "log", "rms_ratio": "log", "mean_ratio": "plain", "mean_abs_ratio": "log", "mad_ratio": "log",
    "rel_error_mean": "log", "log_mse_ratio": "log", "skill": "log_rest", "skill_shift": "log_rest",
    "latent_r2": "log_rest", "latent_mse": "log", "precision": "share", "recall": "share", "f1": "share",
    "rate_predicted": "share", "latent_skill": "log_rest", "latent_skill_shift": "log_rest", "activation_rate": "share",
}  # fmt: skip
# of which the median over features is told, too, with its interval over documents
HEADLINES = (
    *(f"{tokens}_{metric}" for tokens in TOKEN_SETS for metric in ("r2_lat", "skill", "skill_shift")),
    "latent_r2", "latent_skill", "latent_skill_shift", "precision", "recall", "f1",
)  # fmt: skip
_FEATURES_AT_ONCE = 512


@dataclass(frozen=True)
class FeatureScores:
    """How the features of one pair of layers fare.

    ids: of the features, in their SAE. columns: by name, float64, on the CPU, one number for each feature (NaN where
    there is none). medians: over the features that have a value, with the 95 % interval over documents.
    """

    ids: Int[Tensor, " feature"]
    n_rows: int
    columns: Mapping[str, Float[Tensor, " feature"]]
    medians: Mapping[str, tuple[float, float, float]]

    def __getitem__(self, column: str) -> Float[Tensor, " feature"]:
        return self.columns[column]


def score_features(ids: Int[Tensor, " feature"], sums: PairSums) -> FeatureScores:
    """All metrics; the features a chunk at a time, since each is computed once for each group of documents."""
    chunks: list[dict[str, Tensor]] = []
    headlines: list[dict[str, Tensor]] = []
    for first in range(0, len(ids), _FEATURES_AT_ONCE):
        replicates, has_data = _replicates(sums, slice(first, first + _FEATURES_AT_ONCE))
        columns: dict[str, Tensor] = {}
        for name, values in replicates.items():
            columns[name] = values[0]
            if name in has_data:
                interval = jackknife_interval(values, has_data[name], SCALES[_metric(name)])
                columns |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
        chunks.append({name: values.cpu() for name, values in columns.items()})
        headlines.append({name: replicates[name] for name in HEADLINES})
    medians = {name: median_interval(torch.cat([each[name] for each in headlines], 1)) for name in HEADLINES}
    columns = {name: torch.cat([each[name] for each in chunks]) for name in chunks[0]}
    return FeatureScores(ids.cpu(), int(sums.n_rows.sum()), columns, medians)


def _metric(column: str) -> str:
    tokens, _, metric = column.partition("_")
    return metric if tokens in TOKEN_SETS else column


def _replicates(sums: PairSums, chunk: slice) -> tuple[dict[str, Tensor], dict[str, Bool[Tensor, "group feature"]]]:
    """Each metric on all groups and without each in turn; and, of those that get an interval, who has data."""
    found: dict[str, Tensor] = {}
    has_data: dict[str, Tensor] = {}
    latents = sums.latents[..., chunk]
    rows = leave_one_out(sums.n_rows[None, :, None])[0, :, 0]
    for tokens in TOKEN_SETS:
        projections = sums.projections[tokens][..., chunk]
        there = projections[0] > 0
        summed = projection_sums(leave_one_out(projections), sums.centre[chunk], sums.shift[chunk])
        truth, predictions = summed.truth, summed.predictions
        metrics = error_metrics(truth, predictions[OPERATOR]) | magnitude_metrics(truth, summed.sizes)
        metrics["skill"] = skill_of(predictions[OPERATOR].sse, predictions[IDENTITY].sse)
        metrics["skill_shift"] = skill_of(predictions[OPERATOR].sse, predictions[SHIFT].sse)
        found |= {f"{tokens}_{name}": values for name, values in metrics.items()}
        has_data |= {f"{tokens}_{name}": there for name in metrics}
        for baseline in BASELINES:
            of_baseline = error_metrics(truth, predictions[baseline])
            del of_baseline["rms_true"]  # that of the truth, again
            found |= {f"{tokens}_{name}_{baseline}": values[:1] for name, values in of_baseline.items()}
        found[f"{tokens}_n"] = truth.n[:1]
    by_predictor = latent_sums(leave_one_out(latents), rows, sums.mean_latents[chunk])
    operator = by_predictor[OPERATOR]
    metrics = latent_metrics(operator)
    for name, baseline in (("latent_skill", IDENTITY), ("latent_skill_shift", SHIFT)):
        metrics[name] = skill_of(latent_errors(operator), latent_errors(by_predictor[baseline]))
    metrics["activation_rate"] = operator.fires / operator.n
    fires, fires_predicted = latents[FIRES] > 0, latents[FIRES_PREDICTED] > 0
    has_data |= dict.fromkeys(metrics, fires) | dict.fromkeys(("precision", "rate_predicted"), fires_predicted)
    has_data["f1"] = fires | fires_predicted
    found |= metrics
    for baseline in BASELINES:
        of_baseline = latent_metrics(by_predictor[baseline])
        found |= {f"{name}_{baseline}": values[:1] for name, values in of_baseline.items()}
    found["true_latent_mean"] = (operator.true / operator.fires)[:1]
    return found, has_data
