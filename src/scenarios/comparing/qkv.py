"""Activation Lab's metrics of queries, keys and values side by side (specification 3.3)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.scenarios.comparing.pair_metrics import pairwise_metrics, precise
from src.scenarios.comparing.to_references import all_labels, label_means, label_weights, reference_rows
from src.scenarios.states import QKV_SOURCES, References, Run

_EPSILON = 1e-8


@dataclass(frozen=True, eq=False)
class QkvMetrics:
    """Of vectors a and b, which are the query, key and value of a token, one after the other.

    average: mean over dimensions of (a + b) / 2.
    nas: cosine of a and b, times the share of dimensions where their signs are equal.
    sfa: sum of (a + b) / 2 over dimensions where signs are equal, divided by their number + 1e-8.
    """

    layers: tuple[int, ...]
    average: Float[Tensor, "layer first second"]
    nas: Float[Tensor, "layer first second"]
    sfa: Float[Tensor, "layer first second"]


def qkv_metrics(
    layers: tuple[int, ...],
    first: Float[Tensor, "layer first width"],
    second: Float[Tensor, "layer second width"],
) -> QkvMetrics:
    """Every vector of `first` against every one of `second`. NaN where a vector is not finite."""
    cosine = pairwise_metrics(layers, first, second).cosine
    width = first.shape[-1]
    # sums over dimensions where both are positive, negative or 0: no array [first, second, width] is ever made
    signs = [(first.sign() == sign, second.sign() == sign) for sign in (-1, 0, 1)]
    signs = [(precise(one), precise(other)) for one, other in signs]
    equal = torch.stack([one @ other.mT for one, other in signs]).sum(0)
    clean, other_clean = precise(first).nan_to_num(0, 0, 0), precise(second).nan_to_num(0, 0, 0)
    total = torch.stack([(clean * one) @ other.mT + one @ (other_clean * other).mT for one, other in signs]).sum(0)
    average = (clean.mean(-1)[:, :, None] + other_clean.mean(-1)[:, None, :]) / 2
    nan = cosine.isnan()
    return QkvMetrics(
        layers,
        average=average.float().masked_fill(nan, float("nan")),
        nas=cosine * (equal / width).float(),
        sfa=(total / 2 / (equal + _EPSILON)).float().masked_fill(nan, float("nan")),
    )


def qkv_with_references(run: Run, references: References, position: str) -> QkvMetrics:
    """Messages of a run against labels ([layer, message, label], labels as `all_labels`): against their mean vectors.

    Raises StrataError if q, k and v were not captured at that position.
    """
    states = torch.cat([run.snapshots(source, position) for source in QKV_SOURCES], -1)
    rows = reference_rows(references, position)
    texts = torch.cat([rows.get(source) for source in QKV_SOURCES], -1)
    weights = label_weights(references, all_labels(references))
    return qkv_metrics(run.layers, states, label_means(texts, weights))
