"""The field modulator: identity at the start, an untouched null space, live gradients, and what experts read."""

import math
from typing import Any

import pytest
import torch

from src.errors import StrataError
from src.modulators.field import FieldModulator, FieldShape, bounded
from src.modulators.simplex_geometry import regular_simplex, regular_square_volume

IDS = torch.zeros(2, 5, dtype=torch.long)


def _residual(d_model: int = 16, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(2, 5, d_model, generator=torch.Generator().manual_seed(seed))


def _field(opened: bool = True, **keys: Any) -> FieldModulator:
    """With gates that do something, unless it is as it begins."""
    field = FieldModulator(16, (0, 2), FieldShape(**{"alpha": 0.1, **keys}), seed=7)
    if opened:
        draws = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for gate in field.gates:
                for parameter in gate.parameters():
                    parameter.normal_(generator=draws)
    return field


@pytest.mark.parametrize("null_place", ["tail", "random"])
def test_it_begins_as_the_identity(null_place: str) -> None:
    """BUG H-4: the notebook's gates are about a half at the start, and shrink the stream."""
    residual = _residual()
    assert torch.equal(_field(opened=False, null_place=null_place)(residual, IDS, 2), residual)


def test_it_is_the_identity_as_alpha_goes_to_zero() -> None:
    field, residual = _field(lowest=1e-12, alpha=2e-12), _residual()
    torch.testing.assert_close(field(residual, IDS, 0), residual, rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("null_place", ["tail", "random"])
def test_null_dimensions_are_untouched_to_the_bit(null_place: str, dtype: torch.dtype) -> None:
    """BUG H-5: the notebook's random null space fails in its first call."""
    field = _field(null_place=null_place)
    residual = _residual().to(dtype)
    null = [place for place in range(16) if place not in field.active.tolist()]
    assert len(null) == 4
    assert (null == [12, 13, 14, 15]) == (null_place == "tail")
    changed = field(residual, IDS, 0)
    assert changed.dtype == dtype
    assert torch.equal(changed[..., null], residual[..., null])
    assert not torch.isclose(changed[..., field.active], residual[..., field.active]).all(0).all(0).any()
    # and they are not read either
    other = residual.clone()
    other[..., null] = float("nan")
    assert torch.equal(field(other, IDS, 0)[..., field.active], changed[..., field.active])


def test_it_equals_a_modulator_written_out_by_hand() -> None:
    """Vertex by vertex, and V^2 by the determinant of the edges' Gram matrix, in float64."""
    field, residual = _field().double(), _residual().double()
    for position in [(0, 0), (1, 4)]:
        active = residual[position][:12]
        place, factor = 0, torch.ones(12, dtype=torch.float64)
        for expert, k in enumerate((1, 2, 4)):
            rows = slice(place, place + (k + 1) * 8)
            place += (k + 1) * 8
            moved = field.deform.weight[rows] @ active + field.deform.bias[rows]
            vertices = regular_simplex(k, 8).float().double() + 0.05 * moved.view(k + 1, 8)
            seen = torch.pdist(vertices).square()
            if k > 1:
                edges = vertices[1:] - vertices[0]
                square = torch.linalg.det(edges @ edges.T) / math.factorial(k) ** 2 / regular_square_volume(k)
                seen = torch.cat([seen, square[None]])
            gate = (field.gates[expert].weight @ (seen + 1e-6).log() + field.gates[expert].bias).tanh()
            factor = factor * (1 + field.strengths()[1, expert] * gate)
        torch.testing.assert_close(field(residual, IDS, 2)[position][:12], active * factor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_every_expert_answers_to_its_input(k: int) -> None:
    """BUG H-3: an edge expert after LayerNorm is a constant gate."""
    field = _field(dimensions=(k,))
    gates = [field.gate_logits(field.features(field.read(_residual(seed=seed), IDS)))[0] for seed in (0, 1)]
    assert (gates[0] - gates[1]).abs().mean() > 0.05


def test_gradients_flow_to_every_parameter() -> None:
    """BUG H-2: 20 of the notebook's parameters never get one."""
    field, residual = _field(), _residual().requires_grad_()
    (field(residual, IDS, 0) + field(residual, IDS, 2)).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in field.named_parameters()}
    assert set(gradients) == {"deform.weight", "deform.bias", "strength"} | {
        f"gates.{place}.{part}" for place in range(3) for part in ("weight", "bias")
    }
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert bool((gradient != 0).all()), name
    assert residual.grad is not None
    assert bool((residual.grad != 0).all())


def test_two_steps_from_the_start_reach_every_parameter() -> None:
    """Gates of 0 hide what is behind them, for one step."""
    field, residual = _field(opened=False), _residual()
    optimiser = torch.optim.SGD(field.parameters(), lr=0.1)
    start = {name: parameter.detach().clone() for name, parameter in field.named_parameters()}
    for _ in range(2):
        optimiser.zero_grad()
        sum((field(residual, IDS, layer) - 1).square().mean() for layer in (0, 2)).backward()  # type: ignore[union-attr]
        optimiser.step()
    for name, parameter in field.named_parameters():
        assert not torch.equal(parameter, start[name]), name


def test_gradients_through_the_whole_modulator_are_those_of_finite_differences() -> None:
    field = FieldModulator(4, (0,), FieldShape((1, 2), 2, alpha=0.1, deformation=0.3), seed=0).double().eval()
    draws = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for gate in field.gates.parameters():
            gate.normal_(generator=draws)
    parameters = [parameter.detach().requires_grad_() for parameter in field.parameters()]
    names = [name for name, _ in field.named_parameters()]
    residual = torch.randn(1, 2, 4, dtype=torch.float64, generator=draws).requires_grad_()

    def run(residual: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(field, given, (residual, torch.zeros(1, 2, dtype=torch.long), 0))

    assert torch.autograd.gradcheck(run, (residual, *parameters))


@pytest.mark.parametrize("logit", [-60.0, -17.5, 0.0, 17.5, 60.0])
def test_strengths_never_lose_their_gradient(logit: float) -> None:
    """BUG H-6: sigmoid and clamp have a gradient of 0 beyond the bounds; sigmoid too, in float32, from 17 on."""
    logits = torch.tensor([logit], requires_grad=True)
    alpha = bounded(logits, 0.001, 0.35)
    assert 0.001 <= float(alpha.detach()) <= 0.35
    alpha.sum().backward()
    assert logits.grad is not None
    assert float(logits.grad) > 0
    exact = 0.001 + 0.349 * torch.tensor(logit, dtype=torch.float64).sigmoid()
    assert float(alpha.detach()) == pytest.approx(float(exact), rel=1e-6)


def test_it_begins_at_alpha_and_the_seed_alone_draws_it() -> None:
    torch.manual_seed(0)
    first = _field(opened=False, null_place="random")
    torch.manual_seed(1)
    again = _field(opened=False, null_place="random")
    torch.testing.assert_close(first.strengths(), torch.full((2, 3), 0.1))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    other = FieldModulator(16, (0, 2), FieldShape(null_place="random"), seed=8)
    assert not torch.equal(other.deform.weight, first.deform.weight)
    assert not torch.equal(other.active, first.active)


def test_given_directions_are_all_that_experts_read() -> None:
    draws = torch.Generator().manual_seed(3)
    directions = torch.randn(3, 16, generator=draws)
    field = FieldModulator(16, (0,), FieldShape(), 7, directions)
    plain = FieldModulator(16, (0,), FieldShape(), 7)
    torch.testing.assert_close(field.deform.weight.norm(dim=1), plain.deform.weight.norm(dim=1))
    assert int(torch.linalg.matrix_rank(field.deform.weight.detach())) == 3
    residual = _residual()
    readable = torch.linalg.qr(directions[:, :12].T).Q
    active = residual[..., :12]
    within = residual.clone()
    within[..., :12] = active @ readable @ readable.T
    read = [field.read(it, IDS) for it in (residual, within)]
    torch.testing.assert_close(*(torch.cat(field.features(it)) for it in read), rtol=1e-4, atol=1e-4)
    beyond = (torch.cat(plain.features(it)) for it in read)
    assert (next(beyond) - next(beyond)).abs().max() > 0.01


@pytest.mark.parametrize("directions", [torch.eye(16)[12:], torch.full((2, 16), float("nan"))])
def test_directions_that_can_not_be_read_are_refused(directions: torch.Tensor) -> None:
    with pytest.raises(StrataError, match=r"directions.*null_share.*init=random"):
        FieldModulator(16, (0,), FieldShape(), 7, directions)


def test_shapes_that_leave_nothing_are_refused() -> None:
    with pytest.raises(StrataError, match="leaves none of 2 dimensions"):
        FieldModulator(2, (0,), FieldShape(null_share=0.9), 0)
    with pytest.raises(StrataError, match=r"alpha=0.5 lies outside of \(0.001, 0.35\)"):
        FieldModulator(16, (0,), FieldShape(alpha=0.5), 0)


def test_experts_are_named_by_their_dimension_and_none_stands_for_another() -> None:
    assert _field().part_names == ("k = 1", "k = 2", "k = 4")
    twins = _field(dimensions=(2, 4, 2))
    assert twins.part_names == ("k = 2 (0)", "k = 4", "k = 2 (2)")
    assert len(twins.health_numbers()) == 3 * 4
