import sys

import numpy as np
import pytest
from actopo.data import load_example_cloud
from gudhi import bottleneck_distance

from src.errors import StrataError
from src.topology.homology import backends
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import estimate_memory, persistence


def noisy_circle(n_points: int = 60, seed: int = 0) -> Distances:
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 2 * np.pi, n_points)
    points = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    return Distances.from_points(points + 0.05 * generator.standard_normal(points.shape))


def test_a_circle_has_one_long_loop():
    distances = noisy_circle()
    found = persistence(distances)
    loops = found.bars[1]
    assert found.n_points == 60
    assert found.backend == "reduced"
    assert loops.lifetimes[0] > 1
    assert (loops.lifetimes[1:] < 0.2).all()
    # of an inscribed regular polygon's circle the Vietoris-Rips loop ends at an equilateral triangle's side, sqrt(3) r
    assert loops.death[0] == pytest.approx(np.sqrt(3), abs=0.15)


def test_bars_are_longest_first_and_their_edges_have_their_lengths():
    distances = noisy_circle(80)
    length = distances.matrix.astype(np.float32)
    for bars in persistence(distances).bars:
        assert (np.diff(bars.lifetimes[np.isfinite(bars.lifetimes)]) <= 0).all()
        assert (bars.lifetimes > 0).all()
        finite = np.isfinite(bars.death)
        assert np.array_equal(length[tuple(bars.death_edge[finite].T)], bars.death[finite])
    components, loops = persistence(distances).bars
    assert np.array_equal(length[tuple(loops.birth_edge.T)], loops.birth)
    assert components.death[0] == np.inf
    assert components.death_edge[0].tolist() == [-1, -1]
    assert len(components) == 80
    assert len(components.finite) == 79
    assert not components.birth.any()
    assert (components.birth_edge == -1).all()


def test_ties_are_in_the_same_order_every_time():
    points = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(25, 2)
    loops = persistence(Distances.from_points(points)).bars[1]
    assert len(loops) == 16
    assert set(zip(loops.birth, loops.death, strict=True)) == {(1.0, float(np.float32(np.sqrt(2))))}
    keys = [tuple(edge) for edge in np.concatenate([loops.birth_edge, loops.death_edge], axis=1).tolist()]
    assert keys == sorted(keys)


@pytest.mark.parametrize("backend", ["auto", "gudhi", "ripser"])
@pytest.mark.parametrize(
    ("matrix", "deaths"),
    [
        (np.zeros((1, 1)), [np.inf]),
        (np.array([[0, 2.5], [2.5, 0]]), [np.inf, 2.5]),
        (np.zeros((6, 6)), [np.inf]),  # copies of one point: components without length are not kept
        (np.full((2, 2), 1e-50) * (1 - np.eye(2)), [np.inf]),  # 0 as float32
        (np.array([[0, 0, 3.0], [0, 0, 3], [3, 3, 0]]), [np.inf, 3]),
    ],
)
def test_the_smallest_clouds(matrix, deaths, backend):
    components, loops = persistence(Distances.precomputed(matrix), backend=backend).bars
    assert components.death.tolist() == deaths
    assert not components.birth.any()
    assert loops.diagram.shape == (0, 2)


def test_backends_give_the_same_bars_in_the_same_order():
    distances = noisy_circle(50, seed=3)
    expected = [bars.diagram for bars in persistence(distances).bars]
    for backend in ("gudhi", "ripser"):
        found = persistence(distances, backend=backend)
        assert all(np.array_equal(bars.diagram, mine) for bars, mine in zip(found.bars, expected, strict=True))
        assert found.backend == backend
        assert found.generators is None


def test_dimensions_above_one_are_gudhis():
    generator = np.random.default_rng(1)
    points = generator.standard_normal((90, 3))
    distances = Distances.from_points(points / np.linalg.norm(points, axis=1)[:, None])
    found = persistence(distances, max_dimension=2)
    assert found.backend == "reduced, gudhi above H1"
    assert found.generators is not None
    assert found.bars[2].lifetimes[0] > 3 * found.bars[2].lifetimes[1:].max(initial=0.1)  # the sphere's inside
    for bars, other in zip(found.bars, persistence(distances, 2, "ripser").bars, strict=True):
        assert np.array_equal(bars.diagram, other.diagram)
    assert len(persistence(distances, max_dimension=0).bars) == 1


@pytest.mark.parametrize("backend", ["auto", "gudhi", "ripser"])
@pytest.mark.parametrize("max_dimension", [0, 1, 2])
def test_check_agrees(backend, max_dimension):
    persistence(noisy_circle(30), max_dimension, backend, check=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda bars: [bars[0], bars[1] + [0, 0.01]], r"H1 bar 0: reduced has \[.*\), gudhi has \["),
        (lambda bars: [bars[0], bars[1][1:]], r"H1 bar 0: reduced has"),
        (lambda bars: [bars[0][1:], bars[1]], r"H0 bar \d+: reduced has"),
        (lambda bars: [bars[0], np.concatenate([bars[1], [[0.5, 0.5001]]])], r"reduced has none, gudhi has \[0.5,"),
    ],
)
def test_check_names_the_first_bar_that_differs(monkeypatch, change, said):
    distances = Distances.from_points(np.array([[0.0, 0], [1, 0], [1, 1.1], [0, 1.2]]))
    changed = change(backends.gudhi_diagrams(distances.matrix.astype(np.float32), 1))
    monkeypatch.setitem(backends.OTHERS, "gudhi", lambda matrix, max_dimension: changed)
    with pytest.raises(StrataError, match=said):
        persistence(distances, check=True)


def test_check_forgives_rounding(monkeypatch):
    distances = noisy_circle(30)
    near = [bars * (1 + 2e-7) for bars in backends.gudhi_diagrams(distances.matrix.astype(np.float32), 1)]
    monkeypatch.setitem(backends.OTHERS, "gudhi", lambda matrix, max_dimension: near)
    persistence(distances, check=True)


# spec 3: bars, and sums of lifetimes, of actopo's example clouds (ripser on float32 points)
@pytest.mark.parametrize(
    ("name", "n_loops", "loops_total", "longest", "components_total"),
    [
        ("base", 452, 53.032218, [0.63181, 0.42210, 0.42051, 0.40989, 0.39935, 0.39212], 1927.6588),
        ("instruct", 617, 45.408883, [0.30596, 0.28544, 0.28428, 0.27678, 0.26848, 0.26082], 1261.7675),
        ("union", 1094, 99.950023, [0.63181], 3197.3894),
    ],
)
def test_real_clouds_have_the_published_bars(name, n_loops, loops_total, longest, components_total):
    parts = ["base", "instruct"] if name == "union" else [name]
    distances = Distances.from_points(np.concatenate([load_example_cloud(part) for part in parts]))
    components, loops = persistence(distances).bars
    assert len(loops) == n_loops
    assert loops.lifetimes.sum() == pytest.approx(loops_total, abs=2e-4)
    assert loops.lifetimes[: len(longest)] == pytest.approx(longest, abs=6e-6)
    assert components.lifetimes[1:].sum() == pytest.approx(components_total, abs=2e-3)
    if name == "base":
        theirs = persistence(distances, backend="ripser").bars[1]
        assert np.array_equal(loops.diagram, theirs.diagram)
        # gudhi in float64: what rounding to float32 changes
        exact = backends.gudhi_diagrams(distances.matrix, 1)[1]
        assert bottleneck_distance(loops.diagram, exact) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"backend": "dionysus"}, "backend dionysus is not known: choose one of auto, reduced, gudhi, ripser"),
        ({"max_dimension": -1}, "max_dimension is -1"),
        ({"max_dimension": 2, "backend": "reduced"}, "knows H0 and H1, not H2: use backend auto or gudhi"),
        ({"memory_limit": 10_000}, r"persistence diagrams of 60 points need 1.1 MB of memory, and 9.8 kB are allowed"),
    ],
)
def test_errors_say_what_to_do(arguments, said):
    with pytest.raises(StrataError, match=said):
        persistence(noisy_circle(), **arguments)


def test_clouds_that_the_engine_cannot_take_are_refused():
    with pytest.raises(StrataError, match="without points"):
        persistence(Distances.precomputed(np.zeros((0, 0))))
    with pytest.raises(StrataError, match="beyond float32"):
        persistence(Distances.precomputed(np.array([[0, 1e39], [1e39, 0]])))


def test_a_missing_ripser_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "ripser", None)
    with pytest.raises(StrataError, match="pip install ripser, or use backend gudhi"):
        persistence(noisy_circle(), backend="ripser")


def test_memory_grows_with_the_square_of_the_points():
    assert 8 * 4000**2 < estimate_memory(4000) < 10 * 4000**2
