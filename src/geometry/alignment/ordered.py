"""Are digits and weekdays where they should be? Tokens of ordered sets, which no map was fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.directions import unit_rows


@dataclass(frozen=True, eq=False)
class OrderedAgreement:
    """One ordered set after a map.

    own: cosine of each token's prediction with its own row; cosine: their mean. others: mean cosine with the rows of
    the set's other tokens. at_home: tokens whose prediction is nearer to its own row than to any other of the set.
    cosine_p, at_home_p: of as much or more when the set's tokens are relabelled.
    structure: Pearson's r of the cosines of all pairs of tokens, predictions against true rows; mean_difference: of
    them, absolute; structure_p: of as much or more when the predictions are relabelled.
    steps_source, steps_predicted, steps_true: Pearson's r of how far apart two tokens stand in their order with their
    cosine; negative where neighbours are alike. steps_p: of the predictions, one-sided.
    within: cosines of predictions (rows) with true rows (columns), each side less the set's mean: what tells its tokens
    apart.
    """

    name: str
    tokens: tuple[str, ...]
    cycle: bool
    own: Float[np.ndarray, " token"]
    cosine: float
    cosine_p: float
    others: float
    at_home: int
    at_home_p: float
    structure: float
    structure_p: float
    mean_difference: float
    steps_source: float
    steps_predicted: float
    steps_true: float
    steps_p: float
    within: Float[np.ndarray, "token token"]


def ordered_agreement(
    name: str,
    tokens: Sequence[str],
    cycle: bool,
    distances: Int[np.ndarray, "token token"],
    source: Float[Tensor, "token d_source"],
    predicted: Float[Tensor, "token d_target"],
    true: Float[Tensor, "token d_target"],
    permutations: int,
    seed: int,
) -> OrderedAgreement:
    """Compare the predictions of an ordered set with its true rows (all centred on the training pairs).

    distances: steps between tokens in their order, a cycle the shorter way round. Relabellings of the set keep what its
    tokens have in common, so that no p-value is earned by it.
    """
    n = len(tokens)
    x, y, s = (unit_rows(rows).cpu().numpy() for rows in (predicted, true, source))
    across, among, wanted, before = x @ y.T, x @ x.T, y @ y.T, s @ s.T
    upper = np.triu_indices(n, 1)
    steps = distances.astype(float)
    random = np.random.default_rng([seed, 5])
    orders = np.stack([random.permutation(n) for _ in range(permutations)]) if permutations else np.zeros((0, n), int)
    nearest = across.argmax(1)
    # relabelled tokens: prediction i is held against row order[i]
    own_drawn = across[np.arange(n), orders].mean(1)
    home_drawn = (nearest == orders).sum(1)
    moved = among[orders[:, upper[0]], orders[:, upper[1]]]
    structure, step = _pearson(among[upper], wanted[upper]), _pearson(steps[upper], among[upper])
    own = across.diagonal().copy()
    at_home = int((nearest == np.arange(n)).sum())

    def p(drawn: np.ndarray, value: float) -> float:
        return (1 + int((drawn >= value - 1e-12).sum())) / (1 + len(drawn))

    return OrderedAgreement(
        name=name,
        tokens=tuple(tokens),
        cycle=cycle,
        own=own,
        cosine=float(own.mean()),
        cosine_p=p(own_drawn, float(own.mean())),
        others=float((across.sum() - own.sum()) / (n * (n - 1))),
        at_home=at_home,
        at_home_p=p(home_drawn, at_home),
        structure=structure,
        structure_p=p(_pearson_rows(moved, wanted[upper]), structure),
        mean_difference=float(np.abs(among - wanted)[upper].mean()),
        steps_source=_pearson(steps[upper], before[upper]),
        steps_predicted=step,
        steps_true=_pearson(steps[upper], wanted[upper]),
        steps_p=p(-_pearson_rows(moved, steps[upper]), -step),
        within=(unit_rows(predicted - predicted.mean(0)) @ unit_rows(true - true.mean(0)).T).cpu().numpy(),
    )


def _pearson(a: Float[np.ndarray, " pair"], b: Float[np.ndarray, " pair"]) -> float:
    return float(_pearson_rows(a[None], b)[0])


def _pearson_rows(
    rows: Float[np.ndarray, "draw pair"], against: Float[np.ndarray, " pair"]
) -> Float[np.ndarray, " draw"]:
    """Pearson's r of each row with one vector; 0 where one of them is constant."""
    a, b = rows - rows.mean(1, keepdims=True), against - against.mean()
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b)
    return np.divide(a @ b, size, out=np.zeros(len(rows)), where=size > 0)


def mean_rows(rows: Float[Tensor, "row d"], members: Sequence[Sequence[int]]) -> Float[Tensor, "token d"]:
    """The mean of each token's occurrences."""
    return torch.stack([rows[torch.as_tensor(list(member), dtype=torch.int64)].mean(0) for member in members])
