"""Partial correlations against residuals of a regression over the listed pairs."""

import numpy as np
import pytest
import torch
from scipy import stats

from src.geometry.words import pair_sums
from src.geometry.words.cosines import unit_rows
from src.geometry.words.partial import partial_correlation

SCORES = {d: 1 / (1 + d) for d in range(1, 9)}


@pytest.fixture
def made() -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    distances = draws.integers(1, 11, (30, 30)).astype(np.uint8)  # 9 and 10 take no part
    distances = np.minimum(distances, distances.T)
    units = unit_rows(torch.from_numpy(draws.normal(size=(30, 6))), "raw", torch.device("cpu"))
    return units, torch.from_numpy(distances), draws.normal(size=30), draws.exponential(size=30)


def residual_correlation(units, distances, properties, left_out=None) -> float:
    words = [word for word in range(len(units)) if word != left_out]
    first, second = (np.array(words)[side] for side in np.triu_indices(len(words), 1))
    distance = distances.numpy()[first, second]
    kept = distance < 9
    first, second, distance = first[kept], second[kept], distance[kept]
    columns = [np.ones(len(first))]
    for values in properties:
        columns += [values[first] + values[second], np.abs(values[first] - values[second])]
    design = np.stack(columns, 1)
    residuals = []
    for y in ((units[first] * units[second]).sum(-1).numpy(), 1 / (1 + distance.astype(float))):
        residuals.append(y - design @ np.linalg.lstsq(design, y, rcond=None)[0])
    return float(stats.pearsonr(*residuals).statistic)


def test_partial_correlation_is_that_of_residuals(made, monkeypatch):
    units, distances, *properties = made
    monkeypatch.setattr(pair_sums, "_BLOCK_PAIRS", 7 * 30 * 4)
    found = partial_correlation(units, distances, SCORES, properties)
    assert found.value == pytest.approx(residual_correlation(units, distances, properties), abs=1e-9)
    left = np.array([residual_correlation(units, distances, properties, word) for word in range(30)])
    assert found.error == pytest.approx(np.sqrt(29 / 30 * np.square(left - left.mean()).sum()), rel=1e-6)


def test_a_property_that_explains_everything_leaves_nothing():
    # two cliques: a word's clique decides both its distances and its cosines, up to noise
    rng = np.random.default_rng(1)
    clique = np.repeat([0.0, 1.0], 30)
    distances = np.where(clique[:, None] == clique, 2, 4).astype(np.uint8) + rng.integers(0, 2, (60, 60), np.uint8)
    distances = torch.from_numpy(np.maximum(distances, distances.T))
    rows = rng.normal(size=(60, 8))
    rows[:, 0] += 6 * clique - 3
    units = unit_rows(torch.from_numpy(rows), "raw", torch.device("cpu"))
    assert partial_correlation(units, distances, SCORES, []).value > 0.6
    assert abs(partial_correlation(units, distances, SCORES, [clique]).value) < 0.06


def test_a_property_that_all_words_share_changes_nothing(made):
    units, distances, *_ = made
    without = partial_correlation(units, distances, SCORES, [])
    assert partial_correlation(units, distances, SCORES, [np.ones(30)]).value == pytest.approx(without.value)


def test_nothing_varies():
    same = torch.ones(10, 2, dtype=torch.float64) / 2**0.5
    distances = torch.full((10, 10), 3, dtype=torch.uint8)
    assert np.isnan(partial_correlation(same, distances, SCORES, []).value)
