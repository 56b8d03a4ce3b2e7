"""How often loops are found where there are none, and where there is one: the table of docs/methods.md.

    python -m benchmarks.calibrate_topology                    # 5 minutes of CPU time
    python -m benchmarks.calibrate_topology --clouds 0.1       # a tenth of the clouds

Each row is a kind of cloud, each column a test at level 0.05: `universal` alone (q of Benjamini and Hochberg), the
null models `gaussian` and `shuffled` scores alone, and `both`, the decision (gaussian and universal). An entry is the
share of clouds with any significant loop; for clouds that have one loop, the share with exactly one stands behind it.
With groups, `gaussian` is the null model that keeps them.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from src.topology.homology.distances import Distances
from src.topology.homology.persistence import persistence
from src.topology.inference.nulls import Cloud, NullModel, gaussian, grouped_gaussian, shuffled_scores
from src.topology.inference.significance import LEVEL, null_largest_ratios, significant_loops

# p = 0.05 is reached exactly: 2 of 40
DRAWS = 39
SIZES, WIDTHS = (30, 50, 100, 200, 400), (2, 3, 8, 32, 64, 128, 256)
COLUMNS = ("universal", "gaussian", "shuffled", "both")
Labelled = tuple[Cloud, np.ndarray | None]


@dataclass(frozen=True)
class Kind:
    """A kind of cloud: what it is called, how many are drawn, one of them (k-th), and whether it has a loop."""

    name: str
    clouds: int
    draw: Callable[[np.random.Generator, int], Labelled]
    loop: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clouds", type=float, default=1.0, help="share of the clouds")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"| clouds | number | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for row, kind in enumerate(kinds()):
        number = max(2, round(kind.clouds * arguments.clouds))
        found = np.array([count_loops(*kind.draw(random_of(arguments.seed, row, k), k), k) for k in range(number)])
        entries = [
            f"{(column > 0).mean():.3f}" + (f", {(column == 1).mean():.3f}" if kind.loop else "") for column in found.T
        ]
        print(f"| {kind.name} | {number} | {' | '.join(entries)} |", flush=True)


def count_loops(points: Cloud, groups: np.ndarray | None, seed: int) -> list[int]:
    """Significant loops by each test of COLUMNS; with groups, the null model gaussian is that of the groups."""
    bars = persistence(Distances.from_points(points)).bars[1]
    found, shuffled = (
        significant_loops(bars, null_largest_ratios(points, null, DRAWS, seed), LEVEL)
        for null in (model_of(groups), shuffled_scores)
    )
    tests = found.q_universal, found.p_null, shuffled.p_null, found.decisive
    return [int((p <= LEVEL).sum()) for p in tests]


def model_of(groups: np.ndarray | None) -> NullModel:
    return gaussian if groups is None else grouped_gaussian(groups)


def random_of(*seeds: int) -> np.random.Generator:
    return np.random.default_rng(seeds)


def kinds() -> list[Kind]:
    """No loop: Gaussian, then not Gaussian; then circles."""
    return [
        Kind("Gaussian, n 30 to 400, d 2 to 256, isotropic and decaying", 200, any_gaussian),
        Kind("5 centres", 40, lambda random, _: (centres(random, 5, 1.0)[0], None)),
        Kind("12 centres, narrow", 40, lambda random, _: (centres(random, 12, 0.1)[0], None)),
        Kind("40 centres", 40, lambda random, _: (centres(random, 40, 0.3)[0], None)),
        Kind("60 tokens, Zipf, own spreads", 40, lambda random, _: (tokens(random)[0], None)),
        Kind("the same, tokens as groups", 40, lambda random, _: tokens(random)),
        Kind("Student t, 3 degrees", 40, lambda random, _: (student(random), None)),
        Kind("uniform in a cube", 40, lambda random, _: (random.uniform(-1, 1, (150, 64)), None)),
        Kind("square in 64-d noise", 40, lambda random, _: (square(random), None)),
        Kind("12 subspaces of 1 to 11 dimensions", 40, lambda random, _: (subspaces(random)[0], None)),
        Kind("the same, subspaces as groups", 40, lambda random, _: subspaces(random)),
        *(
            Kind(
                f"circle, n {n}, noise {noise} of the radius",
                40,
                lambda random, _, n=n, noise=noise: (circle(random, n, noise), None),
                True,
            )
            for n in (60, 100, 300)
            for noise in (0.5, 0.8, 1.0, 1.2)
        ),
        Kind("7 weekdays, 10 tokens each, noise 0.3", 40, lambda random, _: (polygon(random, 7)[0], None), True),
        Kind("the same, weekdays as groups", 40, lambda random, _: polygon(random, 7), True),
        Kind("12 month means, noise 0.1", 40, lambda random, _: (polygon(random, 12, 1, 0.1)[0], None), True),
    ]


def spectrum(d: int) -> Float[np.ndarray, "d"]:
    return np.arange(1, d + 1) ** -0.75


def any_gaussian(random: np.random.Generator, number: int) -> Labelled:
    n, d = SIZES[number % len(SIZES)], WIDTHS[number // len(SIZES) % len(WIDTHS)]
    decaying = number // (len(SIZES) * len(WIDTHS)) % 2
    return random.standard_normal((n, d)) * (spectrum(d) if decaying else 1.0), None


def centres(random: np.random.Generator, count: int, width: float, n: int = 150, d: int = 64) -> Labelled:
    label = random.integers(count, size=n)
    return random.standard_normal((count, d))[label] + width * random.standard_normal((n, d)), label


def tokens(random: np.random.Generator, count: int = 60, n: int = 150, d: int = 64) -> Labelled:
    """Token embeddings that occur by Zipf's law, each with contextual variation of its own size per dimension."""
    frequency = 1 / np.arange(1, count + 1)
    label = random.choice(count, n, p=frequency / frequency.sum())
    spread = 0.3 * np.exp(0.7 * random.standard_normal((count, d)))
    return (random.standard_normal((count, d))[label] + spread[label] * random.standard_normal((n, d))) * spectrum(
        d
    ), label


def student(random: np.random.Generator, n: int = 150, d: int = 64) -> Cloud:
    return random.standard_normal((n, d)) * spectrum(d) / np.sqrt(random.chisquare(3, (n, 1)) / 3)


def square(random: np.random.Generator, n: int = 150, d: int = 64) -> Cloud:
    return random.uniform(-1, 1, (n, 2)) @ random.standard_normal((2, d)) + 0.05 * random.standard_normal((n, d))


def subspaces(random: np.random.Generator, count: int = 12, n: int = 150, d: int = 64) -> Labelled:
    """Clusters of which each fills few dimensions of its own."""
    label = np.arange(n) % count
    points = random.standard_normal((count, d))[label] + 0.03 * random.standard_normal((n, d))
    for cluster in range(count):
        dimension = int(random.integers(1, 12))
        axes = random.standard_normal((dimension, d)) / np.sqrt(dimension)
        members = label == cluster
        points[members] += 0.6 * random.standard_normal((int(members.sum()), dimension)) @ axes
    return points, label


def circle(random: np.random.Generator, n: int, noise: float, d: int = 64) -> Cloud:
    """A unit circle in d dimensions with Gaussian noise vectors of length `noise`."""
    return on_plane(random.uniform(0, 2 * np.pi, n), d) + noise / np.sqrt(d) * random.standard_normal((n, d))


def polygon(
    random: np.random.Generator, count: int, copies: int = 10, noise: float = 0.3, jitter: float = 0.1, d: int = 64
) -> Labelled:
    """Copies of `count` classes about equally spaced on a circle; jitter in units of their spacing."""
    label = np.repeat(np.arange(count), copies)
    angle = 2 * np.pi * (np.arange(count) + jitter * random.standard_normal(count)) / count
    length = len(label)
    return on_plane(angle, d)[label] + noise / np.sqrt(d) * random.standard_normal((length, d)), label


def on_plane(angle: Float[np.ndarray, "point"], d: int) -> Cloud:
    points = np.zeros((len(angle), d))
    points[:, 0], points[:, 1] = np.cos(angle), np.sin(angle)
    return points


if __name__ == "__main__":
    main()
