"""Classes against scikit-learn and brute force; their null."""

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from src.geometry.words.classes import cluster_words, word_classes
from src.geometry.words.cosines import unit_rows

CPU = torch.device("cpu")


def made(spread: float, offset: float = 0.0) -> tuple[torch.Tensor, list[str]]:
    rng = np.random.default_rng(31)
    names = ["big"] * 30 + ["middle"] * 20 + ["small"] * 10 + ["lone"]
    centres = {name: rng.normal(size=12) * spread for name in dict.fromkeys(names)}
    rows = np.stack([centres[name] + rng.normal(size=12) for name in names])
    rows[:, 0] += offset
    return torch.from_numpy(rows), names


def test_numbers_are_scikit_learns_and_those_of_listed_pairs():
    rows, names = made(1.0)
    units = unit_rows(rows, "centred", CPU)
    classes = word_classes(names, fewest=2)
    assert classes.names == ("big", "middle", "small")
    found = cluster_words(units, classes, neighbours=4, permutations=19, seed=0)
    assert found is not None
    kept, label = units[:60].numpy(), classes.label[:60]
    cosine = kept @ kept.T
    first, second = np.triu_indices(60, 1)
    same = label[first] == label[second]
    assert found.mean_within == pytest.approx(cosine[first, second][same].mean())
    assert found.mean_between == pytest.approx(cosine[first, second][~same].mean())
    for place in range(3):
        inside = same & (label[first] == place)
        assert found.within[place] == pytest.approx(cosine[first, second][inside].mean())
        assert found.lift[place] == pytest.approx(found.within[place] - cosine[first, second].mean())
    assert found.silhouette == pytest.approx(silhouette_score(kept, label, metric="cosine"))
    nearest = NearestNeighbors(n_neighbors=4, metric="cosine").fit(kept).kneighbors(return_distance=False)
    assert found.purity == pytest.approx((label[nearest] == label[:, None]).mean())
    assert found.expected_purity == pytest.approx(same.mean())


def test_real_classes_stand_out_and_made_up_ones_do_not():
    rows, names = made(1.0)
    units = unit_rows(rows, "centred", CPU)
    real = cluster_words(units, word_classes(names, 2), 5, 199, 0)
    shuffled = np.random.default_rng(0).permutation(names).tolist()
    chance = cluster_words(units, word_classes(shuffled, 2), 5, 199, 0)
    assert real is not None
    assert chance is not None
    assert real.p.max() == real.purity_p == real.silhouette_p == 1 / 200
    assert chance.purity_p > 0.05
    assert chance.silhouette_p > 0.05
    assert (np.abs(chance.lift) < 4 * chance.null_sd).all()
    assert chance.purity == pytest.approx(chance.expected_purity, abs=0.12)


def test_what_all_words_share_does_not_read_as_clustering():
    rows, names = made(0.0, offset=50.0)
    classes = word_classes(names, 2)
    raw = cluster_words(unit_rows(rows, "raw", CPU), classes, 5, 19, 0)
    centred = cluster_words(unit_rows(rows, "centred", CPU), classes, 5, 19, 0)
    assert raw is not None
    assert centred is not None
    assert raw.mean_within > 0.9
    assert abs(raw.lift).max() < 0.01
    assert abs(centred.mean_within) < 0.1


def test_small_classes_and_words_without_one_are_left_out():
    classes = word_classes(["a", "a", "", "", "", "b"], fewest=2)
    assert classes.names == ("a",)
    assert classes.label.tolist() == [0, 0, -1, -1, -1, -1]
    assert cluster_words(unit_rows(torch.eye(6), "raw", CPU), classes, 2, 19, 0) is None
