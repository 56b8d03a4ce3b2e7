"""A modulator at a fixed strength (spec G10: the published notebook loses the trained strengths in its sweep)."""

import copy

import pytest
import torch

from src.modulators.controls.known_tokens import TokenScaling
from src.modulators.evaluation.strength import at_strength
from src.modulators.field import FieldModulator, FieldShape
from src.modulators.modulator import Modulator
from src.modulators.residual import ResidualModulator


def residual(per_layer: bool) -> ResidualModulator:
    known = torch.ones(5, dtype=torch.bool)
    found = ResidualModulator(torch.randn(5, 3), torch.randn(4, 3), known, (0, 2), 0.05, per_layer)
    with torch.no_grad():
        found.strength.add_(torch.randn(found.strength.shape))
    return found


def strengths_of(modulator: Modulator | None) -> list[float]:
    assert modulator is not None
    strengths = modulator.strengths()
    assert strengths is not None
    return strengths.flatten().tolist()


@pytest.mark.parametrize("alpha", [1e-4, 0.01, 0.29154, 0.5, 0.97])
@pytest.mark.parametrize("per_layer", [True, False])
def test_every_layer_has_it_and_the_trained_ones_stay(alpha, per_layer):
    """G10: a clone is set, and the modulator itself keeps its trained strengths."""
    modulator = residual(per_layer)
    before = copy.deepcopy(modulator.state_dict())
    fixed = at_strength(modulator, alpha)
    assert strengths_of(fixed) == pytest.approx([alpha] * 2, rel=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in modulator.state_dict().items())
    assert fixed is not None
    unchanged = {name: value for name, value in fixed.state_dict().items() if name != "strength"}
    assert all(torch.equal(value, before[name]) for name, value in unchanged.items())


def test_bounded_strengths_are_set_within_their_bounds_alone():
    field = FieldModulator(16, (0, 1), FieldShape(dimensions=(1, 2), width=3, lowest=0.001, highest=0.35), seed=0)
    fixed = at_strength(field, 0.29154)
    assert strengths_of(fixed) == pytest.approx([0.29154] * 4, rel=1e-4)
    assert at_strength(field, 0.5) is None
    assert at_strength(field, 1e-5) is None


def test_what_has_no_strengths_has_none_to_set():
    assert at_strength(TokenScaling(torch.ones(5, dtype=torch.bool), (0,)), 0.1) is None
