"""Stores on their way into sums: parts, blocks, and two stores that are cut differently."""

import numpy as np
import pytest
import torch

from src.geometry.layers.profile import LayerSettings, LayerSums
from src.geometry.layers.sites import sites_of
from src.geometry.layers.stacks import StackSums
from src.hook_points import HookPoint
from src.stage.geometry.layer_reading import documents_of, read_stores
from tests.fixtures.stores import make_store

POINTS = [HookPoint("resid_post", layer) for layer in range(2)]
LENGTHS = [3, 1, 6, 2, 5, 4, 7, 2, 2, 8, 1]


def rows(seed):
    draws = np.random.default_rng(seed)
    return {point: draws.standard_normal((sum(LENGTHS), 6)).astype(np.float32) for point in POINTS}


@pytest.mark.parametrize("block_numbers", [1, 60, 10**6])
def test_two_stores_that_are_cut_differently_are_read_side_by_side(tmp_path, monkeypatch, block_numbers):
    monkeypatch.setattr("src.stage.geometry.layer_reading._BLOCK_NUMBERS", block_numbers)
    first, second = rows(0), rows(1)
    stores = [
        make_store(tmp_path / "a", first, LENGTHS, sequences_per_part=4),
        make_store(tmp_path / "b", second, LENGTHS, sequences_per_part=3),
    ]
    documents = documents_of(np.arange(len(LENGTHS)) + 100, 5, 0, torch.device("cpu"))
    sites = sites_of(POINTS)
    sums = [LayerSums(sites, 6, LayerSettings(documents.n_replicates, 4)) for _ in stores]
    comparison = StackSums(sites, sites, True, documents.n_replicates, 0)
    done: list[int] = []
    read_stores(stores, documents, sums, comparison, done.append)
    assert sum(done) == sum(LENGTHS)
    found = comparison.comparison()
    assert found.n_pairs == sum(LENGTHS)
    assert found.cosine is not None
    for place, point in enumerate(POINTS):
        for stack, states in zip(sums, (first, second), strict=True):
            norms = np.linalg.norm(states[point].astype(np.float64), axis=1)
            assert float(stack.profile().sites[place].norms.mean[0]) == pytest.approx(norms.mean())
        ours, theirs = torch.from_numpy(first[point]), torch.from_numpy(second[point])
        cosine = torch.nn.functional.cosine_similarity(ours.double(), theirs.double(), dim=-1)
        assert float(found.cosine[0, place, place]) == pytest.approx(float(cosine.mean()), abs=1e-6)


def test_replicates_do_not_depend_on_how_a_store_is_cut(tmp_path):
    found = []
    for place, per_part in enumerate((2, 11)):
        store = make_store(tmp_path / str(place), rows(0), LENGTHS, sequences_per_part=per_part)
        documents = documents_of(np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]), 8, 3, torch.device("cpu"))
        sums = LayerSums(sites_of(POINTS), 6, LayerSettings(documents.n_replicates, 4))
        read_stores([store], documents, [sums], None, lambda _: None)
        found.append(sums.profile().sites[0])
    assert torch.allclose(found[0].cosines.across, found[1].cosines.across)
    assert torch.allclose(found[0].norms.mean, found[1].norms.mean)
    assert found[0].norms.mean[1:].std() > 0
