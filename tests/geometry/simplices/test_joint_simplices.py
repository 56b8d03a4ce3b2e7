"""Two spaces: joint masks (BUG B-1), correlations and their nulls."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from src.geometry.simplices.drawing import draw_simplices
from src.geometry.simplices.joint import joint_statistics
from src.geometry.simplices.moments import cloud_moments
from src.geometry.simplices.notebook import notebook_joint_r, notebook_volumes
from src.geometry.simplices.profile import SimplexSettings
from src.geometry.simplices.volumes import VertexPool

QUICK = SimplexSettings(n_simplices=3000, pool=300, resamples=200)
FEW = SimplexSettings(n_simplices=800, pool=300, resamples=100)


def points(seed: int, n: int = 300, d: int = 24) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


def test_a_simplex_without_volume_in_one_space_is_left_out_of_both():
    """BUG B-1: two lists filtered apart pair volumes of different simplices after the first rejected one."""
    first = points(0)
    second = first.clone()
    second[1] = second[0]
    found = joint_statistics(first, second, QUICK, permutations=19, seed=0)
    assert found.n_joint < found.n_simplices
    # but for simplices of the moved point the spaces are the same: filtered apart, r would be near 0
    assert found.log_volumes.r.value > 0.97
    same = joint_statistics(first, first * 7 + 3, QUICK, permutations=19, seed=0)
    assert same.n_joint == same.n_simplices
    assert same.volumes.r.value == pytest.approx(1)


def test_the_notebooks_way_shifts_its_lists():
    first = points(0, n=40)
    copies = first.clone()
    copies[1:9] = copies[0]
    ours = joint_statistics(first, copies, QUICK, permutations=9, seed=0).volumes.r.value
    assert ours > 0.6
    assert abs(notebook_joint_r(first, copies)) < ours / 2
    assert notebook_joint_r(first, first * 2) == pytest.approx(1)


def test_r_is_that_of_numpy_over_simplices_of_both():
    first, second = points(0), points(0)[:, :12] + 0.5 * points(1)[:, :12]
    settings = replace(QUICK, n_simplices=2000)
    found = joint_statistics(first, second, settings, permutations=9, seed=3)
    # the pool is all points, and the draw that of the same generator
    simplices = torch.from_numpy(draw_simplices(300, 4, 2000, np.random.default_rng([3, 0])))
    logs = [VertexPool(space).log_volumes(simplices).numpy() for space in (first, second)]
    assert found.log_volumes.r.value == pytest.approx(np.corrcoef(*logs)[0, 1])
    assert found.volumes.r.value == pytest.approx(np.corrcoef(*np.exp(logs))[0, 1])
    assert found.log_volumes.r.low < found.log_volumes.r.value < found.log_volumes.r.high


def test_unrelated_spaces_lie_within_the_permuted_null():
    inside, ps = 0, []
    for seed in range(8):
        found = joint_statistics(points(seed), points(seed + 100), FEW, permutations=39, seed=seed).log_volumes
        inside += found.null_low <= found.r.value <= found.null_high
        ps.append(found.p)
    assert inside >= 6
    assert max(ps) > 0.3


def test_norms_that_two_spaces_share_are_told_from_shapes():
    draws = np.random.default_rng(0)
    scales = torch.from_numpy(np.exp(0.4 * draws.normal(size=(300, 1))))
    only_norms = joint_statistics(points(0) * scales, points(1) * scales, QUICK, permutations=39, seed=0)
    assert only_norms.log_volumes.r.value > 0.8
    assert only_norms.log_volumes.p == 1 / 40
    assert abs(only_norms.beyond_norms.r.value) < 0.15
    shapes = joint_statistics(points(0), points(0) + 0.3 * points(1), QUICK, permutations=39, seed=0)
    assert shapes.beyond_norms.r.value > 0.6


def test_spaces_of_other_lengths_and_too_few_points_are_refused():
    with pytest.raises(ValueError, match="300 points in one space, 299 in the other"):
        joint_statistics(points(0), points(0, n=299), QUICK, permutations=1, seed=0)
    broken = points(0, n=8)
    broken[:4] = float("nan")
    with pytest.raises(ValueError, match="needs 5 points; there are 4"):
        joint_statistics(broken, points(1, n=8), QUICK, permutations=1, seed=0)


def test_the_notebooks_volumes_are_a_loops():
    table = points(0, n=60, d=16).float()
    found = notebook_volumes(table, cloud_moments(table), n_simplices=50)
    draws = np.random.default_rng(42)
    volumes = []
    for _ in range(50):
        rows = table[draws.choice(60, 5, replace=False)].double().numpy()
        bordered = np.ones((6, 6))
        bordered[0, 0] = 0
        for i in range(5):
            for j in range(5):
                bordered[i + 1, j + 1] = ((rows[i] - rows[j]) ** 2).sum()
        squared = -np.linalg.det(bordered) / 9216
        if squared > 0:
            volumes.append(np.sqrt(squared))
    assert found.n_valid == len(volumes)
    assert found.mean == pytest.approx(np.mean(volumes))
    assert found.cv == pytest.approx(np.std(volumes) / np.mean(volumes))
    assert found.ratio_entry_std == pytest.approx(1, abs=0.25)
    assert notebook_volumes(table[:4], cloud_moments(table[:4])).n_valid == 0
