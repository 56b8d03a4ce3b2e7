import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import jaccard_score
from sklearn.metrics.pairwise import cosine_similarity, manhattan_distances

from src.errors import StrataError
from src.scenarios.comparing.pair_metrics import SUMMARY_COLUMNS, PairMetrics, pair_metrics, pairwise_metrics
from src.scenarios.comparing.qkv import qkv_metrics
from src.scenarios.source_names import canonical_source, lab_source


def some_states(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_metrics_equal_scikit_learn():
    first, second = some_states(0, 2, 3, 450), some_states(1, 2, 4, 450)
    found = pairwise_metrics((0, 1), first, second)
    for layer in (0, 1):
        one, other = first[layer].numpy(), second[layer].numpy()
        np.testing.assert_allclose(found.cosine[layer], cosine_similarity(one, other), atol=1e-6)
        np.testing.assert_allclose(found.mae[layer], manhattan_distances(one, other) / 450, rtol=1e-6)
        top = [[np.isin(range(450), np.argsort(np.abs(row))[-4:]) for row in rows] for rows in (one, other)]
        expected = [[jaccard_score(a, b) for b in top[1]] for a in top[0]]
        np.testing.assert_allclose(found.overlap[layer], expected, atol=1e-6)


def test_closed_forms():
    first = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    second = torch.tensor([[4.0, 3.0, 0.0], [1.0, 0.0, 0.0]])
    found = pair_metrics((2, 5), first, second)
    assert found.cosine.tolist() == pytest.approx([24 / 25, 0])
    assert found.mae.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found.overlap[0] == 0  # the largest dimension of three: the second and the first
    assert pair_metrics((2, 5), first, first).overlap.tolist() == [1, 1]


def test_the_small_number_of_the_cosine_is_activation_labs():
    tiny = torch.full((1, 1), 1e-4)
    assert pair_metrics((0,), tiny, tiny).cosine.item() == pytest.approx(1e-8 / (1e-8 + 1e-8))


@given(arrays(np.float32, (1, 2, 20), elements=st.floats(-1e4, 1e4, width=32)))
def test_metrics_are_symmetric_and_bounded(values):
    states = torch.from_numpy(values)
    found = pairwise_metrics((0,), states, states)
    for array in (found.cosine, found.mae, found.overlap):
        torch.testing.assert_close(array, array.mT)
    assert (found.cosine.abs() <= 1 + 1e-6).all()
    assert ((found.overlap >= 0) & (found.overlap <= 1)).all()
    assert (found.mae.diagonal(dim1=-2, dim2=-1) == 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_gives_nan_in_its_own_cells_alone(bad):
    first, second = some_states(0, 2, 2, 8), some_states(1, 2, 2, 8)
    first[1, 0, 3] = bad
    clean = pairwise_metrics((0, 1), some_states(0, 2, 2, 8), second)
    found = pairwise_metrics((0, 1), first, second)
    for name in ("cosine", "mae", "overlap"):
        array = getattr(found, name)
        assert array[1, 0].isnan().all()
        assert int(array.isnan().sum()) == 2
        torch.testing.assert_close(array[0], getattr(clean, name)[0])


def test_states_of_other_shapes_are_refused():
    with pytest.raises(StrataError, match="width 8 can't be compared with states of 2 layers and width 9"):
        pairwise_metrics((0, 1), torch.zeros(2, 1, 8), torch.zeros(2, 1, 9))


def test_summary_has_the_statistics_of_numpy_and_names_layers():
    cosine, mae, overlap = np.array([0.9, -0.2, 0.5, 0.4]), np.array([1.0, 3.0, 2.0, 0.1]), np.array([0.5, 1, 0.2, 0.3])
    layers = (0, 3, 7, 9)
    found = PairMetrics(layers, *(torch.tensor(array) for array in (cosine, mae, overlap))).summary()
    assert tuple(found) == SUMMARY_COLUMNS
    for array, name in ((cosine, "cosine"), (mae, "MAE"), (overlap, "overlap")):
        for statistic, function in (("mean", np.mean), ("std", np.std), ("median", np.median)):
            assert found[f"{statistic}_{name}"] == round(float(function(array)), 4)
    assert (found["min_cosine"], found["min_overlap"]) == (-0.2, 0.2)
    assert [found[f"{name}_layer"] for name in ("most_divergent", "max_MAE", "min_overlap")] == [3, 3, 7]


def test_summary_leaves_out_layers_without_a_value_and_survives_none():
    cosine = torch.tensor([0.5, math.nan, 0.1])
    found = PairMetrics((0, 1, 2), cosine, cosine, cosine).summary()
    assert (found["mean_cosine"], found["min_cosine"], found["most_divergent_layer"]) == (0.3, 0.1, 2)
    empty = PairMetrics((0,), *[torch.tensor([math.nan])] * 3).summary()
    assert math.isnan(empty["mean_cosine"])
    assert empty["most_divergent_layer"] is None


def test_qkv_metrics_equal_their_definition():
    first, second = some_states(0, 2, 2, 30), some_states(1, 2, 3, 30)
    first[0, 0, :4] = second[0, 0, :4] = 0  # equal signs too
    found = qkv_metrics((0, 1), first, second)
    a, b = first[0, 0].double(), second[0, 0].double()
    equal = a.sign() == b.sign()
    assert found.average[0, 0, 0].item() == pytest.approx(((a + b) / 2).mean().item())
    cosine = torch.cosine_similarity(a, b, dim=0)
    assert found.nas[0, 0, 0].item() == pytest.approx((cosine * equal.double().mean()).item())
    assert found.sfa[0, 0, 0].item() == pytest.approx((((a + b) / 2)[equal].sum() / equal.sum()).item())


def test_names_of_sources():
    assert canonical_source("hidden_out") == canonical_source("resid_post") == "resid_post"
    assert canonical_source("mlp_down_out") == "mlp_out"
    assert lab_source("mlp_out") == "mlp_down_out"
    with pytest.raises(StrataError, match="no source 'hidden'"):
        canonical_source("hidden")
