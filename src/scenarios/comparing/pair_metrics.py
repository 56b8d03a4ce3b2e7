"""Metrics of two states by Activation Lab's definitions: cosine, mean absolute difference, overlap."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from src.errors import StrataError

METRICS = ("cosine", "mae", "overlap")
_COSINE_EPSILON = 1e-8
_TOP_SHARE = 100
_DIGITS = 4
# of one source over layers, in the order and with the names of Activation Lab's CSVs
SUMMARY_COLUMNS = (
    "mean_cosine", "std_cosine", "median_cosine", "min_cosine", "most_divergent_layer",
    "mean_MAE", "std_MAE", "median_MAE", "max_MAE_layer",
    "mean_overlap", "std_overlap", "median_overlap", "min_overlap", "min_overlap_layer",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class PairMetrics:
    """Metrics of pairs of states at each layer; NaN where a state holds a number that is not finite.

    layers: layer indices, one for each entry of the first axis.
    cosine: a.b / (|a||b| + 1e-8), so 0 for a zero vector.
    mae: mean over dimensions of |a - b|.
    overlap: Jaccard index of the two sets of k dimensions that are largest in size, k = max(1, width // 100).
    """

    layers: tuple[int, ...]
    cosine: Float[Tensor, "layer *item"]
    mae: Float[Tensor, "layer *item"]
    overlap: Float[Tensor, "layer *item"]

    def map(self, change: Callable[[Tensor], Tensor]) -> "PairMetrics":
        """The same change of each metric's array; the layers must stay as they are."""
        return PairMetrics(self.layers, change(self.cosine), change(self.mae), change(self.overlap))

    def over_layers(self) -> dict[str, Float[Tensor, "*item"]]:
        """Mean of each metric over the layers that have a value."""
        return {name: getattr(self, name).nanmean(0) for name in METRICS}

    def summary(self) -> dict[str, float | int | None]:
        """SUMMARY_COLUMNS of one pair of states: over layers that have a value, to 4 decimals (std: ddof 0).

        NaN, and None for a layer, where no layer has a value.
        """
        values = {}
        for name, column in (("cosine", "cosine"), ("mae", "MAE"), ("overlap", "overlap")):
            array = getattr(self, name)
            values |= {
                f"mean_{column}": _rounded(array.nanmean()),
                f"std_{column}": _rounded((array - array.nanmean()).square().nanmean().sqrt()),
                f"median_{column}": _rounded(array[~array.isnan()].quantile(0.5) if not array.isnan().all() else None),
            }
        for name, column in (("cosine", "cosine"), ("overlap", "overlap")):
            values[f"min_{column}"] = _rounded(_filled(getattr(self, name), float("inf")).min())
        values |= {
            "most_divergent_layer": self._layer(-self.cosine),
            "max_MAE_layer": self._layer(self.mae),
            "min_overlap_layer": self._layer(-self.overlap),
        }
        return {column: values[column] for column in SUMMARY_COLUMNS}

    def _layer(self, array: Float[Tensor, "layer"]) -> int | None:
        return None if array.isnan().all() else self.layers[int(_filled(array, -float("inf")).argmax())]


def pairwise_metrics(
    layers: tuple[int, ...],
    first: Float[Tensor, "layer first width"],
    second: Float[Tensor, "layer second width"],
) -> PairMetrics:
    """Every state of `first` against every one of `second`: arrays [layer, first, second].

    Source: Activation Lab's compare_runs (specification 3.1). Raises StrataError if the shapes don't fit.
    """
    if first.shape[0] != second.shape[0] or first.shape[-1] != second.shape[-1] or len(layers) != len(first):
        raise StrataError(
            f"states of {first.shape[0]} layers and width {first.shape[-1]} can't be compared with states of "
            f"{second.shape[0]} layers and width {second.shape[-1]}: compare runs of one model and the same layers"
        )
    first, second = precise(first), precise(second)
    defined = _finite(first)[:, :, None] & _finite(second)[:, None, :]
    first, second = first.nan_to_num(0, 0, 0), second.nan_to_num(0, 0, 0)
    width = first.shape[-1]
    sizes = first.norm(dim=-1)[:, :, None] * second.norm(dim=-1)[:, None, :]
    top = max(1, width // _TOP_SHARE)
    shared = _largest(first, top) @ _largest(second, top).mT
    metrics = PairMetrics(
        layers,
        cosine=first @ second.mT / (sizes + _COSINE_EPSILON),
        mae=torch.cdist(first, second, p=1) / width,
        overlap=shared / (2 * top - shared),
    )
    return metrics.map(lambda array: torch.where(defined, array, float("nan")).float())


def pair_metrics(
    layers: tuple[int, ...], first: Float[Tensor, "layer width"], second: Float[Tensor, "layer width"]
) -> PairMetrics:
    """One state against another at every layer: arrays [layer]. Raises StrataError if the shapes don't fit."""
    return pairwise_metrics(layers, first[:, None], second[:, None]).map(lambda array: array[:, 0, 0])


def precise(array: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """In float64; in float32 on devices that have no float64."""
    return array.float() if array.device.type == "mps" else array.double()


def _largest(states: Float[Tensor, "layer row width"], top: int) -> Float[Tensor, "layer row width"]:
    """1 at the dimensions of the largest size; of equal ones the last count, as in NumPy's stable argsort."""
    order = states.abs().sort(dim=-1, stable=True).indices
    return torch.zeros_like(states).scatter_(-1, order[..., -top:], 1)


def _finite(states: Float[Tensor, "layer row width"]) -> Bool[Tensor, "layer row"]:
    return states.isfinite().all(-1)


def _filled(array: Tensor, value: float) -> Tensor:
    return torch.where(array.isnan(), value, array)


def _rounded(value: Tensor | None) -> float:
    number = float("nan") if value is None else float(value)
    return round(number, _DIGITS) if number not in (float("inf"), -float("inf")) else float("nan")
