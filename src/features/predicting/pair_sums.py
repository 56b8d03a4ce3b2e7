"""Sums over tokens of features and their predictions, per group of documents: all that the metrics of one pair need.

What is summed over all tokens is dense; an SAE's features fire rarely, so that what is summed over the tokens where
they fire is gathered from those alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.features.predicting.intervals import N_GROUPS
from src.features.predicting.metrics import (
    FIRES_ABOVE,
    SMALLEST,
    LatentSums,
    Magnitudes,
    PredictedProjections,
    TrueProjections,
)

# over which tokens: all, those where the feature fires, those where it fires in the prediction
TokenSet = Literal["all", "active", "predicted"]
TOKEN_SETS: tuple[TokenSet, ...] = ("all", "active", "predicted")
OPERATOR, SHIFT, IDENTITY, MEAN = "operator", "identity_shift", "identity", "mean"
# whose latents are computed; those of the identity's and the mean's projections follow from other sums
ENCODED = (OPERATOR, SHIFT, IDENTITY)

_N, _TRUE, _TRUE_SQUARE, _TRUE_ABS, _OPERATOR, _OPERATOR_SQUARE, _OPERATOR_SSE = range(7)
_SHIFT, _SHIFT_SQUARE, _SHIFT_SSE = range(7, 10)
_SIZES = slice(10, 16)
N_PROJECTION_SUMS = 16
_Z, _Z_SQUARE = range(2)
FIRES, FIRES_PREDICTED = 2, 6  # of truth and of the operator's prediction
_PER_PREDICTOR = 5  # sums of z^, z^2, z z^, how often it fires, how often both do
N_LATENT_SUMS = 3 + _PER_PREDICTOR * len(ENCODED)
N_SUMS = len(TOKEN_SETS) * N_PROJECTION_SUMS + N_LATENT_SUMS


@dataclass(frozen=True)
class Block:
    """What is summed of some rows and a chunk of the features, all [row, feature].

    true, predicted: projections of the target's rows and of an operator's prediction. shifted: of the source's rows
    plus the difference of the training means. true_latents, latents: activations, the latter by predictor.
    """

    group: Int[Tensor, " row"]
    true: Float[Tensor, "row feature"]
    predicted: Float[Tensor, "row feature"]
    shifted: Float[Tensor, "row feature"]
    true_latents: Float[Tensor, "row feature"]
    latents: dict[str, Float[Tensor, "row feature"]]


class PairSums:
    """The sums of one pair of layers: 66 float64 numbers for each feature and group of documents, however many tokens.

    centre: projection of the target's training mean. shift: its difference to that of the source's. mean_latents:
    activations at the training mean. n_rows: of each group.
    """

    def __init__(
        self,
        centre: Float[Tensor, " feature"],
        shift: Float[Tensor, " feature"],
        mean_latents: Float[Tensor, " feature"],
    ) -> None:
        self.centre, self.shift, self.mean_latents = centre.double(), shift.double(), mean_latents.double()

        def zeros(*shape: int) -> Tensor:
            return self.centre.new_zeros(*shape, N_GROUPS, len(self.centre))

        self.projections = {tokens: zeros(N_PROJECTION_SUMS) for tokens in TOKEN_SETS}
        self.latents = zeros(N_LATENT_SUMS)
        self.n_rows = self.centre.new_zeros(N_GROUPS)

    def count(self, group: Int[Tensor, " row"]) -> None:
        """Count rows, once for all chunks of the features."""
        self.n_rows.add_(group.bincount(minlength=N_GROUPS))

    def add(self, block: Block, features: slice) -> None:
        """Add rows to a chunk of the features."""
        self._add_all(block, features)
        fires = block.true_latents > FIRES_ABOVE
        row, column = fires.nonzero(as_tuple=True)
        self._add_some("active", block, row, column, features)
        latents = [*_powers(block.true_latents[row, column])]
        for place, name in enumerate(ENCODED):
            of_predictor = block.latents[name] > FIRES_ABOVE
            own_row, own_column = of_predictor.nonzero(as_tuple=True)
            if name == OPERATOR:
                self._add_some("predicted", block, own_row, own_column, features)
            found = torch.stack([*_powers(block.latents[name][own_row, own_column])])
            first = 3 + _PER_PREDICTOR * place
            rows = [first, first + 1, first + 3]
            self._scatter(self.latents, rows, found, block.group[own_row], own_column, features)
            product = latents[0] * block.latents[name][row, column].double()
            both = torch.stack([product, of_predictor[row, column].double()])
            self._scatter(self.latents, [first + 2, first + 4], both, block.group[row], column, features)
        self._scatter(self.latents, [0, 1, 2], torch.stack(latents), block.group[row], column, features)

    def _add_all(self, block: Block, features: slice) -> None:
        groups, place = block.group.unique(return_inverse=True)
        members = torch.zeros(len(groups), len(place), dtype=torch.float64, device=place.device)
        members[place, torch.arange(len(place), device=place.device)] = 1
        total = self.projections["all"]
        total[_N, :, features].index_add_(0, groups, members.sum(1, keepdim=True).expand(-1, block.true.shape[1]))
        values = _statistics(block.true, block.predicted, block.shifted, self.centre[features])
        for statistic, each in enumerate(values, start=1):
            total[statistic, :, features].index_add_(0, groups, members @ each)

    def _add_some(
        self, tokens: TokenSet, block: Block, row: Int[Tensor, " n"], column: Int[Tensor, " n"], features: slice
    ) -> None:
        """Add the projections at some tokens of some features."""
        centre = self.centre[features][column]
        true, predicted, shifted = (values[row, column] for values in (block.true, block.predicted, block.shifted))
        values = [torch.ones_like(centre), *(each.clone() for each in _statistics(true, predicted, shifted, centre))]
        everything = list(range(N_PROJECTION_SUMS))
        self._scatter(self.projections[tokens], everything, torch.stack(values), block.group[row], column, features)

    @staticmethod
    def _scatter(
        total: Float[Tensor, "statistic group feature"],
        statistics: list[int],
        values: Float[Tensor, "some n"],
        group: Int[Tensor, " n"],
        column: Int[Tensor, " n"],
        features: slice,
    ) -> None:
        n_features = total.shape[2]
        place = group * n_features + (column + features.start)
        flat = total.view(len(total), -1)
        for statistic, each in zip(statistics, values, strict=True):
            flat[statistic].index_add_(0, place, each)


def _powers(latents: Float[Tensor, " n"]) -> tuple[Tensor, Tensor, Tensor]:
    exact = latents.double()
    return exact, exact.square(), torch.ones_like(exact)


def _statistics(
    true: Float[Tensor, "*entry"],
    predicted: Float[Tensor, "*entry"],
    shifted: Float[Tensor, "*entry"],
    centre: Float[Tensor, "*#entry"],
) -> Iterator[Float[Tensor, "*entry"]]:
    """What is summed of projections, in the order of the statistics but their number; each may overwrite the last."""
    size = true.abs()
    deviation = true - centre
    buffer = torch.empty_like(size)
    yield deviation
    yield torch.mul(deviation, deviation, out=buffer)
    yield size
    predicted_size = predicted.abs()
    error = torch.sub(true, predicted)
    torch.sub(predicted, centre, out=deviation)
    yield deviation
    yield torch.mul(deviation, deviation, out=buffer)
    yield torch.mul(error, error, out=buffer)
    torch.sub(shifted, centre, out=deviation)
    yield deviation
    yield torch.mul(deviation, deviation, out=buffer)
    torch.sub(true, shifted, out=deviation)
    yield torch.mul(deviation, deviation, out=buffer)
    yield predicted_size
    error.abs_()
    yield error
    is_clear = bool((torch.minimum(size, predicted_size, out=buffer) > SMALLEST).all())
    if is_clear:
        yield error.div_(size)
        yield torch.ones_like(size)
        yield torch.div(predicted_size, size, out=buffer).log_().square_()
        yield torch.ones_like(size)
    else:
        has_size, has_both = size > SMALLEST, buffer > SMALLEST
        size.masked_fill_(~has_size, 1)
        yield error.div_(size).masked_fill_(~has_size, 0)
        yield has_size.to(size.dtype)
        yield torch.div(predicted_size, size, out=buffer).masked_fill_(~has_both, 1).log_().square_()
        yield has_both.to(size.dtype)


@dataclass(frozen=True)
class TokenSums:
    """The projections of one set of tokens, in the form that the metrics take; replicates as in `sums`."""

    truth: TrueProjections
    predictions: dict[str, PredictedProjections]
    sizes: Magnitudes


def projection_sums(
    sums: Float[Tensor, "statistic replicate feature"],
    centre: Float[Tensor, " feature"],
    shift: Float[Tensor, " feature"],
) -> TokenSums:
    """Sums of every predictor: those of the identity follow from those of identity + shift, the mean is the centre."""
    truth = TrueProjections(sums[_N], sums[_TRUE], sums[_TRUE_SQUARE], sums[_TRUE_ABS], centre)
    shifted = PredictedProjections(sums[_SHIFT], sums[_SHIFT_SQUARE], sums[_SHIFT_SSE])
    nothing = torch.zeros_like(truth.sum)
    predictions = {
        OPERATOR: PredictedProjections(sums[_OPERATOR], sums[_OPERATOR_SQUARE], sums[_OPERATOR_SSE]),
        SHIFT: shifted,
        IDENTITY: shifted.shifted(truth, -shift),
        MEAN: PredictedProjections(nothing, nothing, truth.square),
    }
    return TokenSums(truth, predictions, Magnitudes(*sums[_SIZES]))


def latent_sums(
    sums: Float[Tensor, "statistic replicate feature"],
    n_rows: Float[Tensor, " replicate"],
    mean_latents: Float[Tensor, " feature"],
) -> dict[str, LatentSums]:
    """Sums of every predictor's latents; those of the training mean are the same at every token."""
    n = n_rows[:, None].expand_as(sums[0])
    true, true_square, fires = sums[_Z], sums[_Z_SQUARE], sums[FIRES]
    found = {}
    for place, name in enumerate(ENCODED):
        first = 3 + _PER_PREDICTOR * place
        predicted, square, product, fires_predicted, both = sums[first : first + _PER_PREDICTOR]
        found[name] = LatentSums(n, true, true_square, predicted, square, product, fires, fires_predicted, both)
    is_on = (mean_latents > FIRES_ABOVE).to(n)
    found[MEAN] = LatentSums(
        n, true, true_square, n * mean_latents, n * mean_latents.square(), true * mean_latents, fires, n * is_on,
        fires * is_on,
    )  # fmt: skip
    return found
