import numpy as np
import pytest
from sklearn.decomposition import PCA

from src.errors import StrataError
from src.topology.homology.distances import Distances
from src.topology.measures.local_pca import local_pca_dimension


def test_components_are_those_of_principal_component_analysis():
    points = np.random.default_rng(0).normal(size=(300, 8)) * np.linspace(1, 3, 8)
    distances = Distances.from_points(points)
    found = local_pca_dimension(distances, seed=0, k=15, share=0.8, halves=2)
    index = distances.nearest(15)[1]
    truth = []
    for i in range(300):
        reached = PCA().fit(points[[i, *index[i]]]).explained_variance_ratio_.cumsum()
        truth.append(int((reached < 0.8).sum()) + 1)
    np.testing.assert_array_equal(found.needed, truth)
    assert found.estimate.value == pytest.approx(np.mean(truth))
    assert found.estimate.low < found.estimate.value < found.estimate.high


@pytest.mark.parametrize("d", [1, 2, 5, 10])
def test_a_flat_cloud_has_its_dimension(d):
    random = np.random.default_rng(d)
    points = random.random((200, d)) @ random.normal(size=(d, 30))
    found = local_pca_dimension(Distances.from_points(points), seed=0, share=0.9999, halves=2)
    assert set(found.needed.tolist()) == {d}
    assert found.estimate.value == d


def test_what_it_cannot_do_is_refused():
    points = np.random.default_rng(0).random((61, 3)) + 1
    distances = Distances.from_points(points)
    with pytest.raises(StrataError, match="needs 62 points, there are 61"):
        local_pca_dimension(distances, seed=0)
    with pytest.raises(StrataError, match="these are cosine"):
        local_pca_dimension(Distances.from_points(points, "cosine"), seed=0, k=5)
    with pytest.raises(StrataError, match="between 0 and 1, not at 1"):
        local_pca_dimension(distances, seed=0, k=5, share=1.0)
