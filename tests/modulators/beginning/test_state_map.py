"""The map of vectors onto a model's states: fit, held-out quality, and what the modulator is handed."""

import numpy as np
import pytest
import torch

from src.errors import StrataError
from src.modulators.beginning.beginning import random_beginning, with_vectors
from src.modulators.beginning.procrustes import MapQuality, fit_map, map_quality, with_map
from src.modulators.residual import ResidualModulator


def _normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _rotation(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(_normal(columns, rows, seed=seed)).Q.T


def _quality(vectors: torch.Tensor, states: torch.Tensor, n_anchors: int, draws: int = 99) -> MapQuality:
    anchors, others = (vectors[:n_anchors], states[:n_anchors]), (vectors[n_anchors:], states[n_anchors:])
    layers = {3: (anchors[1].mean(0), others[1])}
    return map_quality(fit_map(*anchors), anchors, others, layers, draws, seed=0)


def test_a_planted_rotation_is_recovered_with_its_means() -> None:
    """Spec K (1e-8), and BUG G-5: both means are carried along."""
    vectors, turn = _normal(60, 5) + 4, _rotation(5, 16, seed=1)
    states = 3 * vectors @ turn + 7
    found = fit_map(vectors, states)
    torch.testing.assert_close(found.centred(vectors) + found.target_centre, states, atol=1e-8, rtol=0)
    torch.testing.assert_close(found.weight, 3 * turn, atol=1e-8, rtol=0)


def test_independent_states_have_no_held_out_cosine() -> None:
    """BUG G-4: on the anchors of the fit it is well above 0 for any data."""
    found = _quality(_normal(400, 12), _normal(400, 24, seed=1), 200)
    assert found.fitted > 0.1
    assert abs(found.held_out.value) < 0.05
    assert found.p > 0.05
    assert found.held_out.value < found.null_high + 0.02


def test_a_planted_relation_beats_shuffled_anchors() -> None:
    vectors = _normal(120, 6)
    states = vectors @ _rotation(6, 20, seed=1) + 0.3 * _normal(120, 20, seed=2) + 5
    found = _quality(vectors, states, 80)
    assert found.held_out.low > 0.7
    assert found.p == 0.01
    assert found.null_high < 0.4
    assert found.by_layer[3].value == pytest.approx(found.held_out.value)
    # the mean is 5 in each of 20 dimensions; deviations have 6 + 0.09 * 20 = 7.8 of square length
    assert found.shared**2 == pytest.approx(500 / 507.8, abs=0.005)


def test_what_all_states_share_earns_nothing() -> None:
    """Cosines of states as they are would be near 1 whatever the map is."""
    found = _quality(_normal(200, 6), _normal(200, 20, seed=1) + 100, 100)
    assert abs(found.held_out.value) < 0.1


def test_deviations_are_as_long_as_those_of_states() -> None:
    """Also of a poor fit: the least-squares scale would make all targets the mean."""
    vectors, states = _normal(100, 6), 5 * _normal(100, 20, seed=1) + 2
    mapped = fit_map(vectors, states).centred(vectors)
    assert mapped.square().sum() == pytest.approx(float((states - states.mean(0)).square().sum()))


def test_too_few_anchors_for_a_rotation_are_refused() -> None:
    with pytest.raises(StrataError, match="6 anchors do not determine a rotation in 6 dimensions"):
        fit_map(_normal(6, 6), _normal(6, 20))


def test_the_modulator_says_what_the_map_says() -> None:
    """BUG G-5: what is fitted about means is mixed in with them: P g + b is the map's own target."""
    vectors = _normal(30, 5) + 1
    states = _normal(30, 16, seed=1) + 3
    fitted = fit_map(vectors, states)
    tokens = torch.arange(10, 40)
    begun, factor = with_vectors(random_beginning(50, 16, 8, seed=0), tokens, vectors)
    begun = with_map(begun, fitted, factor, length=2.0)
    modulator = ResidualModulator(begun.table, begun.projection, begun.known, [0], offset=begun.offset)
    expected = 2 * (fitted.centred(vectors) + fitted.target_centre)
    torch.testing.assert_close(modulator.target(tokens).detach(), expected.float(), atol=1e-4, rtol=1e-4)
    # mixed in as the mean of states over layers says, at the length of the stream (BUG G-6)
    stream = _normal(1, 30, 16, seed=5).float() * 40
    mixed = modulator(stream, tokens[None], 0)
    target = stream + (mixed - stream) / modulator.strengths()[0]
    torch.testing.assert_close(target.norm(dim=-1), stream.norm(dim=-1), atol=0.02, rtol=1e-3)
    cosine = torch.cosine_similarity(target[0], expected.float())
    assert float(cosine.detach().min()) > 0.9999
    # the columns that no vector fills can be trained
    assert not begun.table[:, 5:].any()
    assert begun.projection[:, 5:].norm(dim=0).mean() == pytest.approx(
        float(begun.projection[:, :5].norm(dim=0).mean())
    )


def test_tokens_without_a_vector_are_not_known() -> None:
    """BUG G-3: rows that nothing is known of were random, and eight times as long."""
    begun, factor = with_vectors(random_beginning(12, 6, 4, seed=0), torch.tensor([2, 7]), _normal(2, 4) / 9)
    assert begun.known.nonzero()[:, 0].tolist() == [2, 7]
    assert not begun.table[~begun.known].any()
    assert float(begun.table[begun.known].square().mean()) == pytest.approx(1)
    lengths = begun.table[begun.known].norm(dim=1) / (_normal(2, 4) / 9).norm(dim=1)
    assert lengths.tolist() == pytest.approx([factor] * 2)
    modulator = ResidualModulator(begun.table, begun.projection, begun.known, [0], alpha=0.5)
    stream, ids = _normal(1, 12, 6).float(), torch.arange(12)[None]
    changed = (modulator(stream, ids, 0) != stream).any(-1)[0]
    assert changed.tolist() == begun.known.tolist()


def test_vectors_that_are_nothing_are_refused() -> None:
    start = random_beginning(12, 6, 4, seed=0)
    with pytest.raises(StrataError, match="all zero"):
        with_vectors(start, torch.tensor([2, 7]), torch.zeros(2, 4))
    with pytest.raises(StrataError, match="do not fit"):
        with_vectors(start, torch.tensor([2, 7]), _normal(2, 5))


def test_a_random_beginning_has_numbers_of_about_one() -> None:
    start = random_beginning(400, 32, 8, seed=3)
    assert float(start.table.std()) == pytest.approx(1, abs=0.1)
    assert float((start.table @ start.projection.T).std()) == pytest.approx(1, abs=0.15)
    assert bool(start.known.all())
    assert torch.equal(start.table, random_beginning(400, 32, 8, seed=3).table)
    assert not np.allclose(start.table, random_beginning(400, 32, 8, seed=4).table)
