"""95 % intervals of the curves over ranks: maps fixed by the training rows, documents of the scored rows drawn anew.

What a factor adds to the squared error is a sum over rows: with z = (x - mean) A, c = (y - mean) M B and G = B'MB of a
map with factors A, B in the metric M, rank r lowers it by 2 z_r c_r - z_r^2 G_rr - 2 z_r sum_{j<r} G_rj z_j. So a pass
that sums this per document gives every rank of every replicate, for factors that are not orthogonal too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.passes import Rows
from src.activations.products import arithmetic_device, exact_products
from src.errors import StrataError
from src.transport.bootstrap import Band, DocumentBootstrap
from src.transport.canonical import Whitening, padded
from src.transport.pairs import LayerPair
from src.transport.rank import OPTIMAL, Family, RankFamilies
from src.transport.rank_factors import METRICS, Metric, RankFactors

# In these metrics the factors of a family are orthogonal: G is diagonal.
_ORTHOGONAL = {*((family, metric) for metric, family in OPTIMAL.items()), ("truncated_svd", "raw")}
# Square matrices of a pair: left factors of families and ceilings, their right ones per metric, and G three times.
_MATRICES = 16
# Numbers that are summed per document and rank: two for a ceiling, one for any other map and metric.
_SUMS = 10
_BLOCK_ROWS = 512
# For the factors and sums of the pairs that share a pass over the test share.
MEMORY_BYTES = 4 * 2**30


@dataclass(frozen=True)
class RankBands:
    """The curves of `MatchedRank` over r = 1..d, with intervals; efficiency is NaN where the ceiling is not above 0.

    An interval of an efficiency leaves out the replicates whose ceiling is not above 0. The ceiling is optimised on the
    scored rows, so its intervals and those of efficiencies are centred (`Band.of`): they tell the spread that other
    documents would cause, not by how much a ceiling of so few documents lies above that of all.
    """

    r2: Mapping[Family, Mapping[Metric, Band]]
    ceiling: Mapping[Metric, Band]
    efficiency: Mapping[Family, Mapping[Metric, Band]]


def rank_blocks(
    pairs: Sequence[LayerPair], d_model: int, replicates: int, memory: int = MEMORY_BYTES
) -> list[list[LayerPair]]:
    """Cut pairs into blocks whose factors and sums fit a memory budget in bytes; a block holds one pair at least."""
    per_pair = 8 * d_model * (_MATRICES * d_model + _SUMS * (replicates + 1))
    size = max(1, memory // per_pair)
    return [list(pairs[start : start + size]) for start in range(0, len(pairs), size)]


def bootstrap_ranks(
    families: Mapping[LayerPair, RankFamilies],
    batches: Iterable[Rows],
    bootstrap: DocumentBootstrap,
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[LayerPair, RankBands]:
    """Stream the counted held-out rows past all maps. advance: is told the number of tokens done.

    Memory does not grow with the rows (see `rank_blocks`). Raises StrataError if there are no rows, or a target does
    not vary among them.
    """
    device = arithmetic_device(device)
    sums = {pair: _PairSums(each, bootstrap.replicates, device) for pair, each in families.items()}
    with exact_products():
        for rows in batches:
            index = rows.is_counted.nonzero()[:, 0]
            documents, place = rows.document[index].unique(return_inverse=True)
            weights, place = bootstrap.weights(documents).to(device), place.to(device)
            for pair, each in families.items():
                x, y = (rows.activations[point].to(device) for point in (each.source, each.target))
                sums[pair].add(x, y, index.to(device), place, weights)
            advance(len(rows.document))
    return {pair: of_pair.bands() for pair, of_pair in sums.items()}


class _PairSums:
    """Weighted sums over rows: per family and metric of what each factor adds, and per metric of the squares of y."""

    def __init__(self, families: RankFamilies, replicates: int, device: torch.device) -> None:
        self._target, self._d = families.target, families.d
        train = families.train
        self._mean_x, self._mean_y = (train.mean(h).to(device) for h in (families.source, families.target))
        self._into: dict[Metric, Tensor | None] = {"whitened": families.whitening.into.to(device), "raw": None}
        maps: dict[str, RankFactors] = {family: factors for family, factors in families.factors.items()}
        # without a penalty the directions of the ceiling are those of a family
        self._ceiling: dict[Metric, str] = {}
        for metric, factors in families.ceiling_factors.items():
            self._ceiling[metric] = OPTIMAL[metric]
            if factors is not maps[OPTIMAL[metric]]:
                self._ceiling[metric] = f"ceiling, {metric}"
                maps[self._ceiling[metric]] = factors
        self._terms: dict[tuple[str, Metric], _Terms] = {}
        for name, factors in maps.items():
            for metric in METRICS:
                is_ceiling = self._ceiling[metric] == name
                if is_ceiling or name in families.factors:
                    whitening = families.whitening if metric == "whitened" else None
                    is_orthogonal = is_ceiling or (name, metric) in _ORTHOGONAL
                    self._terms[name, metric] = _Terms(
                        factors, whitening, replicates, device, is_orthogonal=is_orthogonal, is_ceiling=is_ceiling
                    )
        self._families = tuple(families.factors)
        self._left = {name: factors.left.to(device) for name, factors in maps.items()}
        self._total = torch.zeros(replicates + 1, len(METRICS), dtype=torch.float64, device=device)

    def add(
        self,
        x: Float[Tensor, "row d_in"],
        y: Float[Tensor, "row d_out"],
        index: Int[Tensor, "counted"],
        document: Int[Tensor, "counted"],
        weights: Float[Tensor, "replicate document"],
    ) -> None:
        n_documents = weights.shape[1]
        per_document = {key: weights.new_zeros(n_documents, *terms.shape) for key, terms in self._terms.items()}
        total = weights.new_zeros(n_documents, len(METRICS))
        for chosen, place in zip(index.split(_BLOCK_ROWS), document.split(_BLOCK_ROWS), strict=True):
            u, v = x[chosen].double() - self._mean_x, y[chosen].double() - self._mean_y
            in_metric = {metric: v if into is None else v @ into for metric, into in self._into.items()}
            squares = torch.stack([in_metric[metric].square().sum(1) for metric in METRICS], 1)
            total.index_add_(0, place, squares)
            for name, left in self._left.items():
                z = u @ left
                for metric in METRICS:
                    if (terms := self._terms.get((name, metric))) is not None:
                        per_document[name, metric].index_add_(0, place, terms(z, in_metric[metric]))
        self._total += weights @ total
        for key, terms in self._terms.items():
            terms.sums.flatten(1).addmm_(weights, per_document[key].flatten(1))

    def bands(self) -> RankBands:
        """The curves of all replicates, and their intervals."""
        if not bool((self._total[0] > 0).all()):
            raise StrataError(f"{self._target} does not vary among the held-out rows: hold out more sequences")
        total = {metric: self._total[:, place, None] for place, metric in enumerate(METRICS)}
        ceilings: dict[Metric, Tensor] = {
            metric: self._curve(self._terms[name, metric].best_gains() / total[metric])
            for metric, name in self._ceiling.items()
        }
        r2: dict[Family, dict[Metric, Band]] = {family: {} for family in self._families}
        efficiency: dict[Family, dict[Metric, Band]] = {family: {} for family in self._families}
        for family in self._families:
            for metric, ceiling in ceilings.items():
                curve = self._curve(self._terms[family, metric].gains() / total[metric])
                r2[family][metric] = Band.of(curve)
                reached = torch.where(ceiling > 0, curve / ceiling, float("nan"))
                efficiency[family][metric] = Band.of(reached, centred=True)
        return RankBands(r2, {metric: Band.of(curve, centred=True) for metric, curve in ceilings.items()}, efficiency)

    def _curve(self, gains: Float[Tensor, "replicate factor"]) -> Float[Tensor, "replicate d"]:
        """Cumulative sums over the factors, flat beyond the last; a replicate that drew no document is NaN."""
        return padded(gains, self._d).cumsum(1)


class _Terms:
    """What every factor of a map adds in a metric, per row, and its weighted sums.

    whitening: None = the raw metric. For the directions of a ceiling, z c and z^2 G are kept apart: it needs both.
    """

    def __init__(
        self,
        factors: RankFactors,
        whitening: Whitening | None,
        replicates: int,
        device: torch.device,
        *,
        is_orthogonal: bool,
        is_ceiling: bool,
    ) -> None:
        right = (factors.right if whitening is None else whitening.into.T @ factors.right).to(device)
        self._right, self._is_ceiling = right, is_ceiling
        self._square = right.square().sum(0)
        self._earlier = None if is_orthogonal else 2 * (right.T @ right).tril(-1).T
        self.shape = (2 if is_ceiling else 1, right.shape[1])
        self.sums = torch.zeros(replicates + 1, *self.shape, dtype=torch.float64, device=device)

    def __call__(
        self, z: Float[Tensor, "row factor"], y: Float[Tensor, "row d_out"]
    ) -> Float[Tensor, "row term factor"]:
        linear, quadratic = z * (y @ self._right), z.square() * self._square
        if self._is_ceiling:
            return torch.stack((linear, quadratic), 1)
        gain = 2 * linear - quadratic
        return (gain if self._earlier is None else gain - z * (z @ self._earlier))[:, None]

    def gains(self) -> Float[Tensor, "replicate factor"]:
        """By how much each factor lowers the squared error."""
        return 2 * self.sums[:, 0] - self.sums[:, 1] if self._is_ceiling else self.sums[:, 0]

    def best_gains(self) -> Float[Tensor, "replicate factor"]:
        """The same if each factor were scaled at its best for the rows; one of the wrong sign counts against it."""
        linear, quadratic = self.sums[:, 0], self.sums[:, 1]
        return torch.where(quadratic > 0, linear * linear.abs() / quadratic, 0)
