"""Relational vectors: classical scaling, its extension to other words, interpolation, and how it is judged."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr

import src.modulators.beginning.relational as relational
from src.errors import StrataError
from src.geometry.words.matching import Word
from src.modulators.beginning.interpolation import interpolate, nearest_rows
from src.modulators.beginning.reconstruction import reconstruction
from src.modulators.beginning.relational import RelationalSpace, similarities
from tests.fixtures.worded_taxonomy import MadeSense, tree_of_words, worded_taxonomy


def _words(*senses: int) -> list[Word]:
    return [Word(f"w{i}", f"w{i}", (i,), (sense,), 0) for i, sense in enumerate(senses)]


def _planted(n: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width)) * np.arange(width, 0, -1)


def test_similarities_of_a_small_tree() -> None:
    """Root w0 with children w1, w2, and w3, w4 below w1: Wu-Palmer and path by hand."""
    tree = tree_of_words([2, 2])
    wu_palmer = similarities(tree, _words(3, 4, 5, 3), "wu_palmer")
    # siblings meet at depth 2: 2 * 2 / (1 + 1 + 2 * 2); across the root: 2 * 1 / (2 + 2 + 2 * 1)
    assert wu_palmer[0] == pytest.approx([1, 2 / 3, 1 / 3, 1], abs=1e-6)
    assert similarities(tree, _words(3, 4, 5, 3), "path")[0] == pytest.approx([1, 1 / 3, 1 / 5, 1])


@pytest.mark.parametrize("measure", ["wu_palmer", "path"])
def test_words_that_nothing_connects_are_not_similar(measure: relational.Similarity) -> None:
    """Verbs have many roots; no artificial one is put above them (BUG D-3, which BUG G-2 came from)."""
    senses = {"run": MadeSense({"run": 0}, pos="v"), "walk": MadeSense({"walk": 0}, ["run"], pos="v")}
    taxonomy = worded_taxonomy(senses | {"see": MadeSense({"see": 0}, pos="v")})
    found = similarities(taxonomy, _words(0, 1, 2), measure)
    assert found[2].tolist() == [0, 0, 1]
    assert found[0, 1] > 0
    assert np.array_equal(found, found.T)


def test_inner_products_of_all_directions_are_the_centred_similarities() -> None:
    tree = tree_of_words([3, 3, 2])
    similar = similarities(tree, _words(*range(len(tree.names))), "wu_palmer")
    space = RelationalSpace.of(similar, width=200)
    centring = np.eye(len(similar)) - 1 / len(similar)
    centred = centring @ similar @ centring
    values = np.linalg.eigvalsh(centred)[::-1]
    assert space.eigenvalues == pytest.approx(values[: len(space.eigenvalues)])
    # what is left out are negative directions alone
    rest = centred - space.vectors @ space.vectors.T
    assert np.linalg.eigvalsh(rest).max() < 1e-8
    assert np.trace(centred) == pytest.approx((1 - space.removed) * np.trace(similar))


def test_what_all_words_share_is_no_direction() -> None:
    """BUG G-2: not centred, the first eigenvector is that all words are similar, and vectors have a common part."""
    tree = tree_of_words([4, 4])
    similar = similarities(tree, _words(*range(5, 21)), "wu_palmer")
    raw = np.linalg.eigh(similar)
    uncentred = raw.eigenvectors[:, -8:] * np.sqrt(raw.eigenvalues[-8:])
    space = RelationalSpace.of(similar, 8)

    def mean_cosine(rows: np.ndarray) -> float:
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return float((units @ units.T)[np.triu_indices(len(rows), 1)].mean())

    assert mean_cosine(uncentred) > 0.3
    assert mean_cosine(space.vectors) == pytest.approx(-1 / 15, abs=0.02)
    assert np.abs(space.vectors.mean(0)).max() < 1e-12


def test_lengths_are_those_of_the_scaling() -> None:
    """BUG G-2: rows made unit length lose how far a word lies from the middle."""
    planted = _planted(40, 4)
    space = RelationalSpace.of(planted @ planted.T, 4)
    lengths = np.linalg.norm(planted - planted.mean(0), axis=1)
    assert np.linalg.norm(space.vectors, axis=1) == pytest.approx(lengths)
    assert pdist(space.vectors) == pytest.approx(pdist(planted))


def test_lanczos_finds_the_same_space(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = _planted(120, 12)
    similar = planted @ planted.T + 0.1 * np.eye(120)
    dense = RelationalSpace.of(similar, 6)
    monkeypatch.setattr(relational, "_DENSE", 10)
    sparse = RelationalSpace.of(similar, 6)
    assert sparse.eigenvalues == pytest.approx(dense.eigenvalues)
    assert sparse.vectors == pytest.approx(dense.vectors, abs=1e-8)


def test_there_are_no_more_directions_than_the_relations_have() -> None:
    planted = _planted(50, 3)
    assert RelationalSpace.of(planted @ planted.T, 20).vectors.shape == (50, 3)
    assert RelationalSpace.of(planted @ planted.T, 2).vectors.shape == (50, 2)
    with pytest.raises(StrataError, match="equally similar"):
        RelationalSpace.of(np.ones((10, 10)), 4)


def test_other_words_are_placed_where_anchors_would_be() -> None:
    planted = _planted(60, 5)
    similar = planted @ planted.T
    space = RelationalSpace.of(similar[:50, :50], 5)
    assert space.place(similar[:50, :50]) == pytest.approx(space.vectors)
    both = np.concatenate([space.vectors, space.place(similar[50:, :50])])
    # a rotation of what was planted
    assert squareform(pdist(both)) == pytest.approx(squareform(pdist(planted)), abs=1e-8)


def test_interpolation_by_hand() -> None:
    anchors = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, -3.0]])
    vectors = torch.eye(3)
    found = interpolate(torch.tensor([[1.0, 1.0]]), anchors, vectors, neighbours=2, temperature=5.0)
    assert found[0].tolist() == pytest.approx([0.5, 0.5, 0])
    alone = interpolate(torch.tensor([[2.0, 0.5]]), anchors, vectors, neighbours=1, temperature=5.0)
    assert alone[0].tolist() == [1, 0, 0]
    cosines = torch.tensor([2.0, 0.5, -2.5]) / torch.tensor([2.0, 0.5]).norm() / torch.tensor([1, 1, 2**0.5])
    everyone = interpolate(torch.tensor([[2.0, 0.5]]), anchors, vectors, neighbours=9, temperature=5.0)
    assert everyone[0].tolist() == pytest.approx((5 * cosines).softmax(0).tolist())
    assert interpolate(anchors[:0], anchors, vectors, 2, 5.0).shape == (0, 3)


def test_what_all_embeddings_share_does_not_move_interpolation() -> None:
    draws = torch.Generator().manual_seed(0)
    rows, anchors = (torch.randn(n, 6, generator=draws, dtype=torch.float64) for n in (4, 20))
    vectors = torch.randn(20, 3, generator=draws, dtype=torch.float64)
    plain = interpolate(rows, anchors, vectors, 5, 10.0)
    shifted = interpolate(rows + 100, anchors + 100, vectors, 5, 10.0)
    torch.testing.assert_close(plain, shifted)


def test_nearest_rows_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 4, generator=draws)
    whole = nearest_rows(rows, rows, 3)
    monkeypatch.setattr("src.modulators.beginning.interpolation._COSINES_AT_ONCE", 70)
    blocks = nearest_rows(rows, rows, 3)
    torch.testing.assert_close(whole[0], blocks[0])
    assert torch.equal(whole[1], blocks[1])
    assert torch.equal(whole[1][:, 0], torch.arange(30))


@given(st.integers(0, 1000))
def test_reconstruction_is_pearsons_r_and_its_jackknife(seed: int) -> None:
    draws = np.random.default_rng(seed)
    vectors = draws.standard_normal((9, 4))
    similar = draws.random((9, 9))
    similar = similar + similar.T
    found = reconstruction(vectors, similar, draws=0, seed=0)

    def r(kept: np.ndarray) -> float:
        some = vectors[kept] / np.linalg.norm(vectors[kept], axis=1, keepdims=True)
        pairs = np.triu_indices(len(kept), 1)
        return float(pearsonr((some @ some.T)[pairs], similar[np.ix_(kept, kept)][pairs]).statistic)

    left = np.array([r(np.delete(np.arange(9), i)) for i in range(9)])
    assert found.r == pytest.approx(r(np.arange(9)), abs=1e-9)
    assert found.error == pytest.approx(np.sqrt(8 / 9 * np.square(left - left.mean()).sum()), rel=1e-6)


def test_reconstruction_of_nothing_is_chance() -> None:
    ps = []
    for seed in range(40):
        draws = np.random.default_rng(seed)
        similar = draws.random((14, 14))
        ps.append(reconstruction(draws.standard_normal((14, 5)), similar + similar.T, 49, seed).p)
    # uniform p: 2 of 40 below 0.05 are expected, and 8 have a chance of less than 1 in 1,000
    assert sum(p <= 0.05 for p in ps) < 8
    assert 0.3 < np.mean(ps) < 0.7


def test_reconstruction_of_what_was_planted_beats_its_null() -> None:
    planted = _planted(40, 4)
    units = planted / np.linalg.norm(planted, axis=1, keepdims=True)
    found = reconstruction(planted, units @ units.T, 99, 0)
    assert found.r == pytest.approx(1)
    assert found.p == 0.01
    assert found.null_high < 0.3
    drawn = reconstruction(planted, units @ units.T, 9, 0, most=20)
    assert (drawn.n_words, drawn.r) == (20, pytest.approx(1))


def test_reconstruction_of_vectors_that_are_all_alike_is_not_defined() -> None:
    found = reconstruction(np.ones((12, 3)), np.random.default_rng(0).random((12, 12)), 9, 0)
    assert np.isnan([found.r, found.error, found.p]).all()
