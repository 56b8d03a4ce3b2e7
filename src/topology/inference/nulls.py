"""Null models: clouds that share something with a cloud of activations and are otherwise random.

A null model is fitted to a cloud, and then draws clouds of as many points. What it keeps says what a small p rejects:

- `gaussian`: sample mean and covariance, exactly. Rejected: the points are independent draws of some Gaussian.
- `shuffled_scores`: the principal components' own distributions. Rejected: principal components are independent.
- `grouped_gaussian`: groups (copies of a token, classes) and all that is within them. Rejected: the groups' centres
  are arranged as draws of a Gaussian.
- `shuffled_labels`: of a cloud of class means, the rows they are means of. Rejected: labels say nothing.
- `random_model`: a model of the same form with random weights. Rejected: training changed nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

from src.errors import StrataError
from src.topology.homology.distances import Distances, centred, checked_points
from src.topology.homology.persistence import persistence
from src.topology.inference.resampling import Statistics, checked_groups, gather, generator, in_threads

Cloud = Float[np.ndarray, "point d"]
Draw = Callable[[np.random.Generator], Cloud]
NullModel = Callable[[Cloud], Draw]

# Quantiles of the draws that a summary shows.
LOW, HIGH = 0.025, 0.975


@dataclass(frozen=True)
class PrincipalScores:
    """A cloud in the axes of its principal components: at most n - 1 of them, and all distances as they were.

    Attributes:
        scores: centred, with orthogonal columns, longest first; components without variance are left out.
        mean: of the cloud along these axes, and (last) the length of what is left of it: cosines need it.
    """

    scores: Float[np.ndarray, "point component"]
    mean: Float[np.ndarray, "component+1"]

    @classmethod
    def of(cls, points: Cloud) -> "PrincipalScores":
        """Of a cloud. Raises StrataError as `Distances.from_points` does."""
        points = checked_points(points)
        mean = points.mean(axis=0)
        left, lengths, axes = np.linalg.svd(centred(points), full_matrices=False)
        kept = lengths > lengths[0] * max(points.shape) * np.finfo(np.float64).eps
        along = axes[kept] @ mean
        beyond = np.sqrt(max(mean @ mean - along @ along, 0.0))
        return cls(left[:, kept] * lengths[kept], np.append(along, beyond))

    def cloud(self, scores: Float[np.ndarray, "point component"]) -> Cloud:
        """A cloud with these scores and this mean."""
        return np.append(scores, np.zeros((len(scores), 1)), axis=1) + self.mean


def gaussian(points: Cloud) -> Draw:
    """Gaussian clouds with exactly the sample mean and covariance of this one (a rotation test).

    Rows of a Gaussian cloud X = 1m' + U S V' have a distribution that no rotation of the sample space about the vector
    of ones changes, so that, given the sample mean and covariance, U is uniformly distributed: draws replace it. A test
    with such draws is exact for every n, d, mean and covariance, d > n included (Wedderburn 1975, "Random rotations and
    multivariate normal simulation"; Langsrud 2005, "Rotation tests", Stat. Comput. 15).
    """
    own = PrincipalScores.of(points)
    lengths = np.linalg.norm(own.scores, axis=0)
    return lambda random: own.cloud(_uniform_frame(own.scores.shape, random) * lengths)


def shuffled_scores(points: Cloud) -> Draw:
    """Clouds whose principal scores are this one's, each component permuted by itself: marginals stay, the rest goes.

    Not exact: permuted components correlate by about 1 / sqrt(n), those of the cloud do not, so that draws have a
    somewhat lower effective dimension. Their loops are the larger for it: p of loops err on the safe side.
    """
    own = PrincipalScores.of(points)
    return lambda random: own.cloud(random.permuted(own.scores, axis=0))


def grouped_gaussian(groups: Shaped[np.ndarray, "point"]) -> NullModel:
    """Clouds whose groups' centres are rearranged as by `gaussian`, each group moved as a whole.

    Covariance of the centres, and every group's own points about its centre, stay exactly. For clouds that consist of
    copies of a few tokens, where a loop through centres is to be told from what few random centres do.
    Raises StrataError when it is fitted, if groups do not match the points or are fewer than 3.
    """

    def fit(points: Cloud) -> Draw:
        own = PrincipalScores.of(points)
        label = checked_groups(groups, len(own.scores))
        if label.max() < 2:
            raise StrataError(f"{label.max() + 1} groups have no arrangement to test: 3 or more are needed")
        centres = _group_means(own.scores, label)
        middle = centres.mean(axis=0)
        left, lengths, axes = np.linalg.svd(centres - middle, full_matrices=False)
        kept = lengths > max(lengths[0], np.finfo(np.float64).tiny) * max(centres.shape) * np.finfo(np.float64).eps
        within, shape, spanned = own.scores - centres[label], left[:, kept].shape, lengths[kept, None] * axes[kept]
        return lambda random: own.cloud((middle + _uniform_frame(shape, random) @ spanned)[label] + within)

    return fit


def shuffled_labels(rows: Float[np.ndarray, "row d"], labels: Shaped[np.ndarray, "row"]) -> NullModel:
    """Clouds of class means (in sorted order of the classes) after the rows' labels were permuted.

    Raises StrataError when it is fitted to a cloud that is not the class means of these rows.
    """
    rows = checked_points(rows)
    label = checked_groups(labels, len(rows))

    def fit(points: Cloud) -> Draw:
        means = _group_means(rows, label)
        if np.shape(points) != means.shape or not np.allclose(points, means):
            raise StrataError("the cloud is not the class means of the labelled rows, in sorted order of the classes")
        return lambda random: _group_means(rows, random.permutation(label))

    return fit


def random_model(clouds: Sequence[Cloud]) -> NullModel:
    """Clouds collected from randomly initialised models: each draw is a subsample of one of them.

    Draws of few clouds depend on each other: p is for these initialisations, not for all. Raises StrataError when it is
    fitted, if there is no cloud, one has fewer points than are needed, or a single one has no more than these (all
    draws would be the same).
    """
    controls = [checked_points(cloud) for cloud in clouds]

    def fit(points: Cloud) -> Draw:
        needed, least = len(points), min((len(each) for each in controls), default=0)
        if least < needed or (least == needed and len(controls) == 1):
            raise StrataError(
                f"randomly initialised models: {needed} points are drawn from each of {len(controls)} clouds, and the "
                f"smallest has {least}: collect more points than these, or from more initialisations"
            )

        def draw(random: np.random.Generator) -> Cloud:
            control = controls[random.integers(len(controls))]
            return control[np.sort(random.choice(len(control), needed, replace=False))]

        return draw

    return fit


@dataclass(frozen=True)
class NullSummary:
    """A statistic of a cloud beside what a null model's clouds have.

    Attributes:
        observed: of the cloud; NaN where it is not defined (so are the p then).
        mean, sd, low, high: of the draws in which it is defined; low and high are 2.5 and 97.5 % quantiles.
        p_greater, p_less: (1 + #{draws at least (at most) the observed}) / (1 + draws), never 0.
        p_two_sided: twice the smaller of them, 1 at most.
        draws: in which the statistic is defined. values: of all draws, NaN where it is not.
    """

    observed: float
    mean: float
    sd: float
    low: float
    high: float
    p_greater: float
    p_less: float
    p_two_sided: float
    draws: int
    values: Float[np.ndarray, "draw"]

    @classmethod
    def of(cls, observed: float, values: Float[np.ndarray, "draw"]) -> "NullSummary":
        """From the observed value and those of the draws."""
        defined = values[~np.isnan(values)]
        if not len(defined):
            nan = float("nan")
            return cls(observed, nan, nan, nan, nan, nan, nan, nan, 0, values)
        greater, less = permutation_p_value(observed, defined), permutation_p_value(-observed, -defined)
        low, high = np.quantile(defined, [LOW, HIGH])
        sd = float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")
        both = float(np.minimum(1.0, 2 * np.minimum(greater, less)))
        return cls(
            observed, float(defined.mean()), sd, float(low), float(high), greater, less, both, len(defined), values
        )


def permutation_p_value(observed: float, null: Float[np.ndarray, "draw"]) -> float:
    """(1 + #{null >= observed}) / (1 + draws): Phipson and Smyth 2010; NaN if the observed is."""
    return float("nan") if np.isnan(observed) else float((1 + (null >= observed).sum()) / (1 + len(null)))


def null_distribution(
    points: Cloud,
    statistics: Statistics,
    null: NullModel = gaussian,
    draws: int = 20,
    seed: int = 0,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    observed: Mapping[str, float] | None = None,
    sample: Callable[[Cloud, np.random.Generator], Cloud] | None = None,
    max_dimension: int = 1,
    workers: int = 1,
) -> dict[str, NullSummary]:
    """Every statistic of a cloud beside those of a null model's clouds of the same size, measured in the same way.

    Args:
        points: the cloud, after PCA and before sampling down if `sample` is given, else as it is measured.
        statistics: all statistics of a cloud by name, from its distances and its diagrams.
        null: a null model of this module.
        draws: clouds to draw; p is 1 / (1 + draws) at least.
        seed: draw k depends on the seed and on k alone.
        metric: of the distances.
        observed: the cloud's own statistics, if they are known; else they are computed.
        sample: how a cloud is sampled down; applied to every draw.
        max_dimension: of the homology.
        workers: threads.

    Raises:
        StrataError: if there are no draws, or the null model cannot be fitted to the points.
    """
    if draws < 1:
        raise StrataError(f"a null distribution needs 1 draw or more: {draws} were asked for")
    cloud_of = null(points)

    def measured(cloud: Cloud, random: np.random.Generator) -> Mapping[str, float]:
        distances = Distances.from_points(sample(cloud, random) if sample else cloud, metric)
        return statistics(distances, persistence(distances, max_dimension))

    def of_draw(draw: int) -> Mapping[str, float]:
        random = generator(seed, draw)
        return measured(cloud_of(random), random)

    # the number after the draws' is the sampling's of the cloud itself
    own = measured(checked_points(points), generator(seed, draws)) if observed is None else observed
    found = gather(in_threads(of_draw, draws, workers))
    return {name: NullSummary.of(own[name], values) for name, values in found.items()}


def _uniform_frame(shape: tuple[int, ...], random: np.random.Generator) -> Float[np.ndarray, "point component"]:
    """Orthonormal columns, uniformly distributed among those that are orthogonal to the vector of ones."""
    columns = random.standard_normal(shape)
    columns -= columns.mean(axis=0)
    frame, triangle = np.linalg.qr(columns)
    # QR chooses signs by the first entries; cosines, unlike distances, see which way an axis points (Mezzadri 2007)
    return frame * np.sign(triangle.diagonal())


def _group_means(rows: Float[np.ndarray, "row d"], label: np.ndarray) -> Float[np.ndarray, "group d"]:
    sums = np.zeros((label.max() + 1, rows.shape[1]))
    np.add.at(sums, label, rows)
    return sums / np.bincount(label)[:, None]
