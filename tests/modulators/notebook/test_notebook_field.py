"""The notebook's field modulator, and that its mistakes are in it."""

from typing import Any

import pytest
import torch

from src.errors import StrataError
from src.modulators.field import FieldShape
from src.modulators.notebook.cv_check import notebook_cv_check
from src.modulators.notebook.field import NotebookField, notebook_field_health
from src.modulators.notebook.templates import notebook_template, notebook_volume
from src.modulators.simplex_geometry import regular_simplex, regular_square_volume

IDS = torch.zeros(1, 4, dtype=torch.long)


def _field(d_model: int = 32, n_layers: int = 6, seed: int = 0, **keys: Any) -> NotebookField:
    return NotebookField(d_model, tuple(range(n_layers)), FieldShape(**keys), seed)


def _residual(d_model: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 4, d_model, generator=torch.Generator().manual_seed(seed))


def test_it_has_the_published_number_of_parameters() -> None:
    field = _field(512)
    assert field.n_trained == 38_552
    experts = [[p.numel() for name, p in each.named_parameters() if "gate" not in name] for each in field.experts]
    assert [sum(each) for each in experts] == [6_167, 9_253, 15_434]
    assert [sum(p.numel() for p in each.get_submodule("gate").parameters()) for each in field.experts] == [
        1_152,
        1_920,
        4_608,
    ]
    assert field.strength.numel() == 18


@pytest.mark.parametrize(
    ("k", "lowest", "highest"), [(1, 1.0, 1.0), (2, 0.959, 1.050), (3, 0.950, 1.067), (4, 0.944, 1.076)]
)
def test_edges_of_templates_are_as_published(k: int, lowest: float, highest: float) -> None:
    """BUG H-1: unequal edges, which a check of V^2 does not notice."""
    template = notebook_template(k, 8)
    edges = torch.pdist(template)
    assert float(edges[0]) == pytest.approx(1.0)
    assert float(edges.min()) == pytest.approx(lowest)
    assert float(edges.max()) == pytest.approx(highest)
    if k == 2:
        torch.testing.assert_close(edges, torch.tensor([1.0, 1.050, 0.959], dtype=torch.float64))
    if k == 4:
        assert highest / lowest == pytest.approx(1.139, abs=1e-3)
    if k in (2, 4):
        assert float(notebook_volume(template)[1]) == pytest.approx(regular_square_volume(k), rel=0.01)
    torch.testing.assert_close(template.mean(0), torch.zeros(8, dtype=torch.float64))


def test_templates_that_are_not_published_are_refused() -> None:
    with pytest.raises(StrataError, match=r"not for k = 5 in 8.*compat=null"):
        notebook_template(5, 8)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_cayley_menger_volumes_are_right_where_they_are_well_conditioned(k: int) -> None:
    edges, volume = notebook_volume(regular_simplex(k, 8))
    torch.testing.assert_close(edges, torch.ones_like(edges))
    assert float(volume) == pytest.approx(regular_square_volume(k))


def test_validity_never_gets_a_gradient() -> None:
    """BUG H-2: 20 parameters of the published modulator."""
    field = _field(512, n_layers=1)
    field(_residual(512), IDS, 0).sum().backward()
    silent = {name: p.numel() for name, p in field.named_parameters() if p.grad is None}
    assert all(".validity." in name for name in silent)
    assert sum(silent.values()) == 20


def test_the_edge_expert_does_not_see_its_input() -> None:
    """BUG H-3: LayerNorm of twice d^2 is 0."""
    field = _field()
    states = [_residual(seed=seed)[..., :24] for seed in (0, 1)]
    edge, triangle, _ = field.experts
    torch.testing.assert_close(*(edge(state)[0] for state in states), rtol=0, atol=1e-4)
    assert (triangle(states[0])[0] - triangle(states[1])[0]).abs().max() > 0.01


@pytest.mark.parametrize(("alpha", "scale"), [(0.01, 0.914), (0.35, 0.031)])
def test_it_shrinks_the_stream_from_the_start(alpha: float, scale: float) -> None:
    """BUG H-4: by half of alpha for each expert and layer. The published scales are those of gates of a half."""
    field = _field(highest=0.36, alpha=alpha)
    with torch.no_grad():
        for name, parameter in field.named_parameters():
            if ".gate." in name:
                parameter.zero_()
    residual = _residual()
    changed = residual
    for layer in range(6):
        changed = field(changed, IDS, layer)
    torch.testing.assert_close(changed[..., :24], scale * residual[..., :24], rtol=0.02, atol=0)
    assert torch.equal(changed[..., 24:], residual[..., 24:])
    drawn = _field(highest=0.36, alpha=alpha)(residual, IDS, 0)
    assert bool((drawn[..., :24].abs() < residual[..., :24].abs()).all())


def test_a_random_null_space_is_refused_where_the_notebook_would_fail() -> None:
    """BUG H-5."""
    with pytest.raises(StrataError, match=r"random null space.*null_place=tail"):
        _field(null_place="random")


def test_a_strength_beyond_its_bounds_is_stuck() -> None:
    """BUG H-6."""
    field = _field(n_layers=1)
    with torch.no_grad():
        field.strength.copy_(torch.tensor([[0.0, -7.0131, -3.0]]))  # alpha 0.5, 0.0009, 0.047
    alphas = field.strengths()
    torch.testing.assert_close(alphas.detach(), torch.tensor([[0.35, 0.001, 0.0474]]), rtol=0, atol=1e-4)
    alphas.sum().backward()
    assert field.strength.grad is not None
    assert field.strength.grad[0, :2].tolist() == [0, 0]
    assert float(field.strength.grad[0, 2]) > 0


def test_the_norm_of_a_deformation_is_that_of_its_bias() -> None:
    """BUG H-7."""
    field = _field()
    found = notebook_field_health(field)
    assert set(found) == {f"experts.{place}.deform" for place in range(3)}
    bias = field.experts[0].get_parameter("deform.bias").detach()
    assert found["experts.0.deform"] == pytest.approx(float(bias.norm()))


def test_the_share_of_valid_volumes_begins_at_zero_and_tells_nothing() -> None:
    """Spec H7: 0.63 after 100 steps, though every V^2 is above 0."""
    field, residual = _field(n_layers=1), _residual()
    for _ in range(100):
        field(residual, IDS, 0)
    torch.testing.assert_close(field.valid, torch.full((1, 3), 1 - 0.99**100))
    with torch.no_grad():
        field(residual, IDS, 0)
    torch.testing.assert_close(field.valid, torch.full((1, 3), 0.634), rtol=0, atol=1e-3)


def test_the_check_of_a_cv_reads_eight_dimensions() -> None:
    """BUG H-8: isotropic states of 512 dimensions have a CV of 0.063, and the check says 0.60."""
    points = torch.randn(1000, 512, generator=torch.Generator().manual_seed(0))
    found = notebook_cv_check(points, seed=0)
    assert found["cv"] == pytest.approx(0.609, abs=0.05)
    assert found["in_band"] is False
    changed = points.clone()
    changed[:, 8:] *= 100
    assert notebook_cv_check(changed, seed=0) == found


def test_the_check_of_a_cv_leaves_out_its_verdict_without_a_volume() -> None:
    """Spec H9: which the notebook's trainer takes for healthy."""
    found = notebook_cv_check(torch.ones(10, 16), seed=0)
    assert "in_band" not in found
    assert found["valid"] == 0.0
