"""Cosines over layers, convergence, spectra, principal components and single neurons: closed forms and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from src.errors import StrataError
from src.scenarios.lenses.cross_layer import convergence, cross_layer_cosine, without_mean
from src.scenarios.lenses.principal_components import pca_trajectories
from src.scenarios.lenses.spectra import spectrum
from src.scenarios.lenses.trajectories import liveliest, trajectories


def states(layers=4, rows=5, d=6, seed=0):
    return torch.randn(layers, rows, d, generator=torch.Generator().manual_seed(seed))


def test_cosines_of_a_row_with_itself_at_all_layers_are_scikit_learns():
    found = cross_layer_cosine(states())
    for row in range(5):
        np.testing.assert_allclose(found[row], cosine_similarity(states()[:, row]), atol=1e-6)


def test_a_state_of_norm_0_has_no_direction_and_one_that_is_nan_stays_so():
    planted = states()
    planted[1, 2] = 0
    planted[2, 3, 0] = math.nan
    found = cross_layer_cosine(planted)
    assert found[2, 1].tolist() == [0, 1, 0, 0]
    assert bool(found[3, 2].isnan().all())
    assert float(found[3, 0, 0]) == 1


def test_convergence_of_states_that_turn_by_known_angles():
    angles = torch.tensor([0.0, 1.0, 1.5, 1.51, 1.52])
    lengths = torch.tensor([1.0, 2.0, 2.0, 4.0, 4.0])
    turning = (torch.stack([angles.cos(), angles.sin()], -1) * lengths[:, None])[:, None]
    found = convergence(turning, [0, 2, 4, 6, 8])
    assert found.cosine[:, 0].tolist() == pytest.approx(np.cos([1.0, 0.5, 0.01, 0.01]).tolist(), abs=1e-6)
    assert found.depth == [4]
    step = math.sqrt(1 + 4 - 4 * math.cos(1.0))
    assert float(found.change[0, 0]) == pytest.approx(step, rel=1e-5)


def test_depth_where_nothing_settles_where_all_is_still_and_where_a_late_layer_turns():
    still = torch.ones(4, 1, 3)
    late = still.clone()
    late[3] = torch.tensor([1.0, -1.0, 0.0])
    lost = still.clone()
    lost[2] = math.nan
    assert convergence(torch.cat([still, late, lost], 1), [0, 1, 2, 3]).depth == [0, 3, 3]
    zero = torch.zeros(2, 1, 3)
    assert (convergence(zero, [0, 1]).cosine.item(), convergence(zero, [0, 1]).change.item()) == (0, 0)


def test_without_the_mean_what_all_rows_share_does_not_hold_states_together():
    shared = states() + 100.0
    assert float(convergence(shared, range(4)).cosine.min()) > 0.99
    torch.testing.assert_close(without_mean(shared).mean(1), torch.zeros(4, 6), atol=1e-4, rtol=0)
    assert float(convergence(without_mean(shared), range(4)).cosine.min()) < 0.9


@given(st.integers(2, 6), st.floats(0.1, 100))
def test_equal_singular_values_have_their_number_as_effective_rank(n, scale):
    simplex = torch.eye(n + 1) * scale  # about its mean: n equal singular values
    found = spectrum(simplex)
    assert found.effective_rank == pytest.approx(n, rel=1e-5)
    assert found.nuclear == pytest.approx(n * found.spectral, rel=1e-5)
    assert found.spectral == pytest.approx(scale, rel=1e-5)


def test_spectra_in_closed_form():
    line = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]) + 7
    assert spectrum(line).effective_rank == pytest.approx(1)
    assert spectrum(line).spectral == pytest.approx(math.sqrt(2))
    cross = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    p = np.array([3, 1]) / 4
    assert spectrum(cross).effective_rank == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    for nothing in (torch.ones(1, 3), torch.full((5, 3), 0.1)):
        assert (spectrum(nothing).effective_rank, spectrum(nothing).nuclear) == (None, 0)
    broken = spectrum(torch.tensor([[1.0, math.inf], [0.0, 1.0]]))
    assert math.isnan(broken.spectral)
    assert broken.values == []


def test_principal_components_are_scikit_learns_up_to_sign():
    found = pca_trajectories(states(), 3)
    reference = PCA(3).fit(states().flatten(0, 1).numpy())
    expected = reference.transform(states().flatten(0, 1).numpy())
    np.testing.assert_allclose(found.coordinates.flatten(0, 1).abs(), np.abs(expected), atol=1e-4)
    np.testing.assert_allclose(found.explained, reference.explained_variance_ratio_, atol=1e-5)
    largest = found.coordinates.flatten(0, 1).abs().argmax(0)
    assert bool((found.coordinates.flatten(0, 1)[largest, range(3)] > 0).all())


def test_principal_components_of_few_or_equal_or_broken_states():
    assert pca_trajectories(torch.ones(2, 2, 3)).explained.tolist() == [0, 0]
    assert pca_trajectories(states(1, 1, 4)).coordinates.shape == (1, 1, 1)
    with pytest.raises(StrataError, match="NaN or inf"):
        pca_trajectories(torch.full((1, 2, 3), math.nan))


def test_neurons_are_followed_and_nan_is_kept():
    planted = states()
    planted[1, 2, 3] = math.nan
    found = trajectories(planted, [0, 2, 4, 6], [(2, 3), (6, 0)], "mlp_act")
    assert torch.equal(found[1], planted[3, :, 0])
    assert math.isnan(found[0, 2])
    with pytest.raises(StrataError, match=r"layer 1 was not captured \(there are 0, 2, 4, 6\)"):
        trajectories(planted, [0, 2, 4, 6], [(1, 3)], "mlp_act")
    with pytest.raises(StrataError, match=r"mlp_act of layer 2 has 0..5, not 6"):
        trajectories(planted, [0, 2, 4, 6], [(2, 6)], "mlp_act")


def test_the_liveliest_neurons_vary_most_and_broken_ones_come_last():
    planted = torch.zeros(2, 4, 3)
    planted[1, :, 2] = torch.tensor([5.0, -5, 5, -5])
    planted[0, :, 1] = torch.tensor([1.0, 0, 0, 0])
    planted[0, 0, 0] = math.inf
    assert liveliest(planted, [3, 9], 2) == [(9, 2), (3, 1)]
    assert liveliest(planted, [3, 9], 6)[-1] == (3, 0)
