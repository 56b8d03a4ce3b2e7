"""Health of field modulators: running means, and simplices on examples."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.models import wrap_model
from src.modulators.field import FieldModulator, FieldShape
from src.modulators.field_health import QUANTILES, field_health, field_parts
from src.modulators.simplex_features import first_edges, simplex_features
from src.modulators.simplex_geometry import regular_simplex
from src.modulators.tracked_health import TrackedHealth, edge_ratios, looked_at, simplex_statistics
from src.modulators.training.examples import Example
from tests.fixtures.tiny_models import N_VOCAB, model_config, tiny_model

SHAPE = FieldShape((1, 2, 4), 4)


def _features(vertices: torch.Tensor) -> torch.Tensor:
    k = len(vertices) - 1
    return simplex_features(torch.einsum("nv,vwt->nwt", first_edges(k).to(vertices), vertices))


def _examples(lengths: list[int]) -> list[Example]:
    draws = np.random.default_rng(0)
    ids = [draws.integers(3, N_VOCAB, length).astype(np.int32) for length in lengths]
    return [Example(each, np.arange(len(each)) > 0, group) for group, each in enumerate(ids)]


def test_statistics_of_known_simplices() -> None:
    """One of the template's, one twice as large, one whose first vertex is moved along an axis of its own."""
    template = regular_simplex(2, 4)
    moved = template.clone()
    moved[0, 3] = 2.0  # edges of vertex 0: sqrt(1 + 4)
    vertices = torch.stack([template, 2 * template, moved], dim=-1)
    features = _features(vertices)
    torch.testing.assert_close(
        edge_ratios(features, 2), torch.tensor([0, 0, 0.5 * np.log(5)], dtype=torch.float64), atol=1e-5, rtol=0
    )
    # V^2 of a triangle: base 1, height sqrt(3/4 + 4)
    volumes = np.log([1, 16, (3 / 4 + 4) / (3 / 4)])
    expected = [volumes.mean(), 0.0, 0.5 * np.log(5) / 3, 0.5 * np.log(5)]
    found = simplex_statistics(features, 2)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0)


def test_running_means_are_right_from_the_first_step_on() -> None:
    """Spec H7: the notebook's begins at 0 and has 0.63 of its value after 100 steps."""
    health = TrackedHealth(2, (2,))
    assert bool(health.values().isnan().all())
    large = [_features(3 * regular_simplex(2, 4)[..., None].expand(-1, -1, 700))]
    small = [_features(0.5 * regular_simplex(2, 4)[..., None].expand(-1, -1, 700))]
    health.update(0, large, torch.arange(700))
    assert float(health.values()[0, 0, 0]) == pytest.approx(4 * np.log(3), abs=1e-4)
    health.update(0, small, torch.arange(300))
    expected = (0.99 * 4 * np.log(3) + 4 * np.log(0.5)) / 1.99
    assert float(health.values()[0, 0, 0]) == pytest.approx(expected, abs=1e-4)
    assert bool(health.values()[1].isnan().all())


@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=12))
def test_what_is_looked_at_is_text_evenly_drawn(lengths: list[int]) -> None:
    places = looked_at(lengths).numpy()
    rows, columns = np.divmod(places, max(lengths))
    assert (columns < np.array(lengths)[rows]).all()
    numbers = np.concatenate([[0], np.cumsum(lengths)])[rows] + columns  # among the tokens without padding
    assert numbers[0] == 0
    stride = -(-sum(lengths) // 256)
    assert len(places) == -(-sum(lengths) // stride) <= 256
    assert (np.diff(numbers) == stride).all()


def test_running_means_move_where_they_are_tracked_and_are_saved() -> None:
    field = FieldModulator(16, (0,), SHAPE, 0)
    residual, ids = torch.randn(2, 5, 16), torch.zeros(2, 5, dtype=torch.long)
    field.train()(residual, ids, 0)
    assert bool(field.health.values().isnan().all())
    with field.tracked([5, 3]):
        changed = field(residual, ids, 0)
    values = field.health.values()
    assert bool(values.isfinite().all())
    # a block that the backward pass computes again, as gradient checkpointing does
    field(residual, ids, 0)
    changed.sum().backward()
    assert torch.equal(field.health.values(), values)
    again = FieldModulator.build(field.settings())
    again.load_state_dict(field.state_dict())
    assert torch.equal(again.health.values(), values)
    assert set(field.health_numbers()) >= {"log volume (mean), k = 4", "log edge ratio (95 %), k = 2"}
    assert not any("ratio" in name and "k = 1" in name for name in field.health_numbers())


def test_norms_of_weights_and_biases_are_told_apart() -> None:
    """BUG H-7: the bias overwrites the weight's norm."""
    field = FieldModulator(16, (0,), SHAPE, 0)
    rows = slice(2 * 4, 2 * 4 + 3 * 4)
    part = field_parts(field)[1]
    assert part.k == 2
    assert part.deformation_weight == pytest.approx(float(field.deform.weight[rows].detach().norm()))
    assert part.deformation_bias == pytest.approx(float(field.deform.bias[rows].detach().norm()))
    assert part.deformation_weight > 2 * part.deformation_bias
    assert (part.gate_weight, part.gate_bias) == (0, 0)


def test_health_on_examples_leaves_padding_out_and_changes_nothing() -> None:
    model = wrap_model(tiny_model("llama"), model_config())
    field = FieldModulator(model.d_model, (0, 2), SHAPE, 0)
    with torch.no_grad():
        for parameter in field.gates.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
    examples = _examples([3, 9, 9])
    before = {name: value.clone() for name, value in field.state_dict().items()}
    health = field_health(model, field, examples)
    assert (health.n_positions, health.n_active, health.n_null) == (21, 12, 4)
    assert all(torch.equal(value, before[name]) for name, value in field.state_dict().items())
    assert health.tracked is None
    assert [(each.layer, each.k) for each in health.experts] == [(0, 1), (0, 2), (0, 4), (2, 1), (2, 2), (2, 4)]

    # before layer 0 the states are embeddings, which need no pass
    ids = torch.cat([torch.from_numpy(example.input_ids) for example in examples]).long()
    states = model.module.get_input_embeddings()(ids)[:, None]
    seen = field.features(field.read(states, ids[:, None]))[2]
    gates = field.gate_logits(field.features(field.read(states, ids[:, None])))[2].tanh()
    expert = health.experts[2]
    assert expert.log_volume == pytest.approx(np.quantile(seen[-1].detach().numpy(), QUANTILES), abs=1e-4)
    assert expert.gate == pytest.approx(np.quantile(gates.detach().numpy(), QUANTILES), abs=1e-4)
    ratios = np.exp(edge_ratios(seen, 4).detach().numpy())
    assert expert.edge_ratio == pytest.approx(np.quantile(ratios, QUANTILES), rel=1e-4)
    assert expert.alpha == pytest.approx(0.01)
    assert health.experts[0].edge_ratio == pytest.approx([1] * 5)
