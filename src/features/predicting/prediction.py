"""Stream held-out rows past linear predictions of an SAE's layer, and sum up how its features fare.

With D the unit decoder directions, two products tell the projections of all features, A = Y D' and A^ = (X B + b) D'; a
third, X D', tells those of the baselines; and SAELens' encode tells the activations of each.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.passes import Rows
from src.activations.products import Precision, arithmetic_device, exact_products
from src.errors import StrataError
from src.features.predicting.intervals import N_GROUPS
from src.features.predicting.pair_sums import IDENTITY, N_SUMS, OPERATOR, SHIFT, Block, PairSums
from src.features.sae import Sae
from src.hook_points import HookPoint

KeyT = TypeVar("KeyT", bound=Hashable)

# For the sums of the pairs that share a pass over the rows; more pairs take more passes.
MEMORY_BYTES = 2 * 2**30
# Numbers of one array [row, feature of the SAE]: 512 rows of 16,384 features on a CPU, more on a GPU.
_CPU_NUMBERS, _GPU_NUMBERS = 2**23, 2**27
_MOST_ROWS = 4096
_FEATURES_AT_ONCE = 1024


@dataclass(frozen=True)
class LinearPrediction:
    """target = source @ weight + bias, with the means of the training rows at both ends, for the baselines."""

    source: HookPoint
    target: HookPoint
    weight: Float[Tensor, "d_in d_out"]
    bias: Float[Tensor, " d_out"]
    source_mean: Float[Tensor, " d_in"]
    target_mean: Float[Tensor, " d_out"]


@dataclass(frozen=True, eq=False)
class ChosenFeatures:
    """Some features of an SAE. Raises StrataError for one that it does not have, for repeated ones, and for none."""

    sae: Sae
    ids: Int[Tensor, " feature"]

    def __post_init__(self) -> None:
        if not len(self.ids) or self.ids.min() < 0 or self.ids.max() >= self.sae.n_features:
            raise StrataError(
                f"features {_shown(self.ids)} of SAE {self.sae.source}: it has features 0 to {self.sae.n_features - 1}"
            )
        if len(self.ids.unique()) < len(self.ids):
            raise StrataError(f"features of SAE {self.sae.source} are named twice: {_shown(self.ids)}")

    @cached_property
    def _places(self) -> Int[Tensor, " feature"]:
        return self.ids.to(self.sae.decoder.device)

    @property
    def _are_all(self) -> bool:
        return torch.equal(self.ids, torch.arange(self.sae.n_features))

    def directions(self, features: slice, like: Tensor) -> Float[Tensor, "feature d_model"]:
        """Decoder directions of length 1 of a part of them; kept whole they would be as large as the SAE once more."""
        rows = self.sae.decoder[self._places[features]].to(like.device).to(like.dtype)
        return rows / (rows.norm(dim=1, keepdim=True) + 1e-12)

    def encode(self, rows: Float[Tensor, "row d_model"], device: torch.device) -> Float[Tensor, "row feature"]:
        """Their activations, on a device."""
        decoder = self.sae.decoder
        latents = self.sae.encode(rows.to(decoder.dtype).to(decoder.device))
        return (latents if self._are_all else latents[:, self._places]).to(device)


def _shown(ids: Tensor) -> str:
    words = ", ".join(map(str, ids[:8].tolist()))
    return f"{words}, ..." if len(ids) > 8 else words or "(none)"


def prediction_blocks(keys: Sequence[KeyT], n_features: int, memory: int = MEMORY_BYTES) -> list[list[KeyT]]:
    """Cut predictions of one target into blocks whose sums fit a budget in bytes; a block holds one at least."""
    at_once = max(1, memory // (8 * N_SUMS * N_GROUPS * n_features))
    return [list(keys[first : first + at_once]) for first in range(0, len(keys), at_once)]


def sum_features(
    chosen: ChosenFeatures,
    predictions: Mapping[KeyT, LinearPrediction],
    batches: Iterable[Rows],
    device: torch.device,
    precision: Precision,
    advance: Callable[[int], None],
) -> dict[KeyT, PairSums]:
    """The sums of every prediction of one target over the counted rows, in one pass.

    advance: is told the number of counted rows done, times the number of predictions.
    Memory, whatever the number of rows and documents: `PairSums` of each prediction, and about ten arrays of a block of
    rows by the SAE's features. precision: of the products of projections; sums are float64.

    Raises StrataError if no row is counted, or a prediction or a row is NaN or infinite.
    """
    with exact_products():
        return _Pass(chosen, predictions, arithmetic_device(device), precision).run(batches, advance)


class _Pass:
    """One pass over the rows."""

    def __init__(
        self,
        chosen: ChosenFeatures,
        predictions: Mapping[KeyT, LinearPrediction],
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.chosen, self.device, self.dtype = chosen, device, getattr(torch, precision)
        self.target = next(iter(predictions.values())).target
        self.maps = {
            key: (each.source, self._own(each.weight), self._own(each.bias)) for key, each in predictions.items()
        }
        self.shifts = {key: self._own(each.target_mean - each.source_mean) for key, each in predictions.items()}
        numbers = _CPU_NUMBERS if device.type == "cpu" else _GPU_NUMBERS
        self.n_rows = min(max(numbers // chosen.sae.n_features, 64), _MOST_ROWS)
        starts = range(0, len(chosen.ids), _FEATURES_AT_ONCE)
        self.chunks = [slice(first, min(first + _FEATURES_AT_ONCE, len(chosen.ids))) for first in starts]
        self.sums = {key: self._empty_sums(each) for key, each in predictions.items()}

    def _own(self, values: Tensor) -> Tensor:
        return values.to(self.device, self.dtype)

    def _empty_sums(self, prediction: LinearPrediction) -> PairSums:
        mean = prediction.target_mean.to(self.device, torch.float64)
        shift = mean - prediction.source_mean.to(mean)
        projected = torch.cat(
            [self.chosen.directions(chunk, mean) @ torch.stack([mean, shift], 1) for chunk in self.chunks]
        )
        return PairSums(projected[:, 0], projected[:, 1], self.chosen.encode(mean[None], self.device)[0])

    def run(self, batches: Iterable[Rows], advance: Callable[[int], None]) -> dict:
        for rows in batches:
            index = rows.is_counted.nonzero()[:, 0]
            group = rows.document[index] % N_GROUPS
            for block, of_block in zip(index.split(self.n_rows), group.split(self.n_rows), strict=True):
                if len(block):
                    self._add({point: self._own(x[block]) for point, x in rows.activations.items()}, of_block)
            advance(len(index) * len(self.sums))
            del rows  # before the next part is read
        for sums in self.sums.values():
            if not sums.n_rows.sum():
                raise StrataError("no rows to evaluate: the held-out split is empty")
            if not all(total.isfinite().all() for total in sums.projections.values()):
                raise StrataError("NaN or inf among predictions or truth: check the operator and the activations")
        return self.sums

    def _add(self, x: Mapping[HookPoint, Float[Tensor, "row d"]], group: Int[Tensor, " row"]) -> None:
        chosen, group, target = self.chosen, group.to(self.device), x[self.target]
        true_latents = chosen.encode(target, self.device)
        true = torch.cat([target @ chosen.directions(chunk, target).T for chunk in self.chunks], 1).double()
        for key, (source, weight, bias) in self.maps.items():
            predicted = torch.addmm(bias, x[source], weight)
            shifted = x[source] + self.shifts[key]
            rows = {OPERATOR: predicted, SHIFT: shifted, IDENTITY: x[source]}
            latents = {name: chosen.encode(each, self.device) for name, each in rows.items()}
            sums = self.sums[key]
            sums.count(group)
            for chunk in self.chunks:
                directions = chosen.directions(chunk, target).T
                block = Block(
                    group,
                    true[:, chunk],
                    (predicted @ directions).double(),
                    (shifted @ directions).double(),
                    true_latents[:, chunk],
                    {name: each[:, chunk] for name, each in latents.items()},
                )
                sums.add(block, chunk)
