"""Clouds of activations: the chosen tokens of a text, at several hook points at once."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.collect import batches_of_like_length, right_padded
from src.activations.store import ActivationStore
from src.activations.token_choice import ChosenTokens, TokenBlock, sequence_tokens, store_tokens
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, forward_pass, run_with_hooks
from src.text import Keep, TokenSequence

Clouds = dict[HookPoint, Float[np.ndarray, "point d_model"]]
Advance = Callable[[int], None]


def clouds_of_store(
    store: ActivationStore, points: Sequence[HookPoint], chosen: ChosenTokens, advance: Advance = lambda _: None
) -> Clouds:
    """The points of a cloud per hook point, float32, in one pass over the parts that hold chosen tokens.

    Memory: the clouds in float64, and one array of one part. advance: is told the number of tokens done.

    Raises:
        StrataError: a hook point that was not collected, or a point that is not finite.
    """
    store.require(points)
    pool = _Pool(points, store.layout.d_model, chosen)
    for part, block in zip(store, store_tokens(store), strict=True):
        rows, weights, point = pool.rows_of(block)
        if len(rows):
            index = torch.from_numpy(rows)
            for place in points:
                pool.add(place, part.activations(place).index_select(0, index), weights, point)
        advance(len(block.token_ids))
    return pool.clouds()


def clouds_of_model(
    model: LanguageModel,
    sequences: Sequence[TokenSequence],
    points: Sequence[HookPoint],
    chosen: ChosenTokens,
    batch_size: int,
    advance: Advance = lambda _: None,
) -> Clouds:
    """The same from a model that reads the sequences: one pass for all hook points, which ends after the last of them.

    Sequences are padded on the right, so positions are right in every family, and padding is never chosen; pooling is
    in float32 or above whatever the model's dtype. advance: is told the number of tokens done.
    """
    pool = _Pool(points, model.d_model, chosen)
    block = next(sequence_tokens(sequences))
    rows, weights, point = pool.rows_of(block)
    position, owner = block.position[rows], block.sequence[rows]
    wanted = np.unique(owner)
    lengths = np.array([len(sequences[place].token_ids) for place in wanted])
    for batch in batches_of_like_length(lengths, batch_size):
        read = wanted[batch]
        ids, mask = right_padded([sequences[place].token_ids for place in read])
        here = np.flatnonzero(np.isin(owner, read))
        sorter = np.argsort(read)
        row = torch.from_numpy(sorter[np.searchsorted(read, owner[here], sorter=sorter)])
        column = torch.from_numpy(position[here])

        def take(
            place: HookPoint,
            states: Float[Tensor, "batch pos d_model"],
            row: Tensor = row,
            column: Tensor = column,
            here: Int[np.ndarray, "row"] = here,
        ) -> None:
            taken = states[row.to(states.device), column.to(states.device)].float().cpu()
            pool.add(place, taken, weights[here], point[here])

        with forward_pass(model, ids.shape):
            run_with_hooks(model, ids, mask, points, take)
        advance(int(lengths[batch].sum()))
    return pool.clouds()


class _Pool:
    """Adds rows of activations up to points: means with given weights, or the largest values."""

    def __init__(self, points: Sequence[HookPoint], d_model: int, chosen: ChosenTokens) -> None:
        self._chosen = chosen
        by_token = np.lexsort([chosen.position, chosen.sequence])
        self._sequence, self._position = chosen.sequence[by_token], chosen.position[by_token]
        self._point = chosen.point[by_token]
        self._tokens_per_point = np.bincount(chosen.point, minlength=chosen.n_points)
        start = float("-inf") if chosen.largest else 0.0
        self._sums = {
            point: torch.full((chosen.n_points, d_model), start, dtype=torch.float64) for point in dict.fromkeys(points)
        }

    def rows_of(
        self, block: TokenBlock
    ) -> tuple[Int[np.ndarray, "row"], Float[np.ndarray, "row"], Int[np.ndarray, "row"]]:
        """Rows of a block that go into points, their weights in the means, and their points."""
        if not len(block.sequence):
            return np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)
        low, high = np.searchsorted(self._sequence, [block.sequence[0], block.sequence[-1] + 1])
        start = np.searchsorted(block.sequence, self._sequence[low:high])
        point = self._point[low:high]
        if not self._chosen.pooled:
            return start + self._position[low:high], 1 / self._tokens_per_point[point], point
        counted = block.keep == Keep.COUNTED
        rows = [
            np.flatnonzero(counted[first : first + last + 1]) + first
            for first, last in zip(start.tolist(), self._position[low:high].tolist(), strict=True)
        ]
        lengths = np.array([len(some) for some in rows], np.int64)
        owner = np.repeat(point, lengths)
        weights = np.repeat(1 / (lengths * self._tokens_per_point[point]), lengths)
        return np.concatenate(rows) if rows else np.zeros(0, np.int64), weights, owner

    def add(
        self,
        place: HookPoint,
        rows: Float[Tensor, "row d_model"],
        weights: Float[np.ndarray, "row"],
        point: Int[np.ndarray, "row"],
    ) -> None:
        """Add rows of activations to their points."""
        values, index = rows.double(), torch.from_numpy(point)
        if self._chosen.largest:
            self._sums[place].scatter_reduce_(0, index[:, None].expand_as(values), values, "amax")
        else:
            self._sums[place].index_add_(0, index, values * torch.from_numpy(weights)[:, None])

    def clouds(self) -> Clouds:
        """The points, float32."""
        clouds = {place: sums.float().numpy() for place, sums in self._sums.items()}
        for place, cloud in clouds.items():
            if bad := int((~np.isfinite(cloud).all(axis=1)).sum()):
                raise StrataError(
                    f"{bad} of {len(cloud)} points of {place} are not finite: run the model in float32, or collect "
                    "with non_finite=mask"
                )
        return clouds
