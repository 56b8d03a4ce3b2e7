"""The compiled engine against ripser, which gets the same matrix: equal to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ripser import ripser
from scipy.sparse.csgraph import minimum_spanning_tree

from src.topology.homology.reduced_rips import reduced_rips

MADE = ("integer", "not metric", "few values", "grid", "cloud", "copies", "far clusters", "subnormal")


def made_matrix(kind: str, n_points: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    shape = (n_points, n_points)
    if kind == "integer":
        matrix = generator.integers(0, generator.integers(2, 30), shape).astype(float)
    elif kind == "not metric":
        matrix = generator.random(shape)
    elif kind == "few values":
        matrix = np.where(generator.random(shape) < 0.3, 2.0, 3.0)
    elif kind == "subnormal":  # below what float32 tells apart
        matrix = generator.random(shape) * 1e-43
    else:
        points = generator.standard_normal((n_points, generator.integers(1, 6)))
        if kind == "grid":
            points = np.round(3 * points)
        if kind == "copies":
            points = points[generator.integers(0, n_points, n_points)]
        if kind == "far clusters":
            points += 50 * generator.integers(0, 3, n_points)[:, None]
        matrix = np.sqrt(np.square(points[:, None] - points[None]).sum(axis=2))
    matrix = np.triu(matrix, 1)
    return matrix + matrix.T


def diagrams(matrix: np.ndarray) -> list[np.ndarray]:
    found = reduced_rips(matrix)
    assert len(found.pivot) == len(found.generator)  # all classes die below the enclosing radius
    deaths = np.append(found.tree_length, np.float32(np.inf))
    loops = np.stack([found.generator_length[found.pivot], found.death_length], axis=1)
    return [np.stack([np.zeros_like(deaths), deaths], axis=1), loops]


def in_order(diagram: np.ndarray) -> np.ndarray:
    diagram = diagram[diagram[:, 1] > diagram[:, 0]]
    return diagram[np.lexsort(diagram.T)]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.sampled_from(MADE), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_diagrams_are_ripsers_to_the_last_bit(kind, n_points, seed):
    matrix = made_matrix(kind, n_points, seed)
    theirs = ripser(matrix.astype(np.float32), distance_matrix=True)["dgms"]
    for mine, other in zip(diagrams(matrix), theirs, strict=True):
        assert np.array_equal(in_order(mine), in_order(np.asarray(other)))


@pytest.mark.parametrize("kind", MADE)
def test_edges_are_those_whose_lengths_are_told(kind):
    matrix = made_matrix(kind, 50, 3)
    found = reduced_rips(matrix)
    for edges, lengths in (
        (found.tree, found.tree_length),
        (found.generator, found.generator_length),
        (found.death, found.death_length),
    ):
        assert np.array_equal(matrix[edges[:, 0], edges[:, 1]].astype(np.float32), lengths)
        assert (edges[:, 0] < edges[:, 1]).all()
    # a class has its youngest generator once, and no other that is younger
    for bar, pivot in enumerate(found.pivot):
        members = found.member[found.offset[bar] : found.offset[bar + 1]]
        assert members[-1] == pivot
        assert (np.diff(members) > 0).all()


def test_the_tree_is_scipys_minimum_spanning_tree():
    matrix = made_matrix("cloud", 70, 5)
    expected = minimum_spanning_tree(matrix).tocoo()
    edges = {tuple(sorted(edge)) for edge in zip(expected.row.tolist(), expected.col.tolist(), strict=True)}
    assert set(map(tuple, reduced_rips(matrix).tree.tolist())) == edges


@pytest.mark.parametrize("n_points", [512, 513])
def test_more_points_than_a_block_of_bits_and_more_generators_than_the_first_buffers(n_points):
    points = np.random.default_rng(n_points).standard_normal((n_points, 40))
    matrix = np.sqrt(np.square(points[:, None] - points[None]).sum(axis=2))
    mine = diagrams(matrix)
    assert len(mine[1]) > 700
    theirs = ripser(matrix.astype(np.float32), distance_matrix=True)["dgms"]
    assert np.array_equal(in_order(mine[1]), in_order(theirs[1]))


def test_the_order_of_points_changes_no_bar():
    matrix = made_matrix("grid", 60, 1)
    order = np.random.default_rng(0).permutation(60)
    for mine, shuffled in zip(diagrams(matrix), diagrams(matrix[order][:, order]), strict=True):
        assert np.array_equal(in_order(mine), in_order(shuffled))


def test_a_matrix_that_cannot_be_written_to_or_lies_otherwise_in_memory():
    matrix = made_matrix("cloud", 30, 2)
    expected = in_order(diagrams(matrix)[1])
    wide = np.zeros((60, 60))
    wide[::2, ::2] = matrix
    for same in (np.asfortranarray(matrix), wide[::2, ::2]):
        same.flags.writeable = False
        assert np.array_equal(in_order(diagrams(same)[1]), expected)
