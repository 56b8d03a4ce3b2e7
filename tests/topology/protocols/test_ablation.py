"""Statistics over sizes of subsamples and over numbers of principal components."""

import numpy as np
import pytest

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.homology.persistence import Persistence, persistence
from src.topology.measures.measures import statistics
from src.topology.protocols.ablation import over_components, over_sizes
from src.topology.protocols.protocol import ROBUST


def all_statistics(distances: Distances, found: Persistence) -> dict[str, float]:
    return statistics(distances, found, ROBUST.scale_of(distances), ROBUST.betti_fraction, ROBUST.survival_fraction)


def few(distances: Distances, found: Persistence) -> dict[str, float]:
    return {"points": float(distances.n_points), "mean": float(distances.pairs.mean()), "h1": float(len(found.bars[1]))}


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(120, 6))


def test_sizes_ascend_to_the_whole_cloud_which_is_measured_once(cloud):
    distances = Distances.from_points(cloud)
    found = over_sizes(distances, few, sizes=(60, 20, 20, 500), draws=8)
    assert list(found) == [20, 60, 120]
    assert {size: band["points"].mean for size, band in found.items()} == {20: 20.0, 60: 60.0, 120: 120.0}
    assert [band["h1"].draws for band in found.values()] == [8, 8, 1]
    whole = few(distances, persistence(distances))
    last = found[120]
    assert {name: (band.mean, band.low, band.high, band.sd) for name, band in last.items()} == {
        name: (value, value, value, 0.0) for name, value in whole.items()
    }


def test_a_mean_does_not_move_with_the_size_and_a_count_does(cloud):
    found = over_sizes(Distances.from_points(cloud), few, sizes=(20, 40, 80), draws=40)
    truth = found[120]["mean"].mean
    for size in (20, 40, 80):
        band = found[size]["mean"]
        assert band.mean == pytest.approx(truth, abs=4 * band.sd / np.sqrt(40))
    assert found[20]["mean"].sd > found[40]["mean"].sd > found[80]["mean"].sd
    assert found[20]["h1"].high < found[80]["h1"].low


def test_numbers_of_components_are_computed_from_the_scores(cloud):
    found = over_components(cloud, all_statistics, components=(2, 4, 6, 50, None))
    assert list(found) == [2, 4, None]  # 6 and more are the cloud itself
    centred = cloud - cloud.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    of_two = Distances.from_points(left[:, :2] * size[:2])
    assert found[2] == pytest.approx(all_statistics(of_two, persistence(of_two)), nan_ok=True)
    itself = Distances.from_points(cloud)
    assert found[None] == pytest.approx(all_statistics(itself, persistence(itself)), nan_ok=True)
    assert found[2]["median_distance"] < found[4]["median_distance"] < found[None]["median_distance"]


def test_impossible_ablations_are_refused(cloud):
    distances = Distances.from_points(cloud)
    with pytest.raises(StrataError, match="2 were asked for"):
        over_sizes(distances, few, sizes=(2,))
    with pytest.raises(StrataError, match="1 were asked for"):
        over_sizes(distances, few, sizes=(20,), draws=1)
    with pytest.raises(StrataError, match="1 is the least"):
        over_components(cloud, few, components=(0, None))
