"""How far learning rates carry a strength."""

import math

import pytest
import torch

from src.modulators.residual import ResidualModulator
from src.modulators.training.schedule import rate_factor, reach
from src.modulators.training.strengths import StrengthWatch, strength_records
from tests.fixtures.tiny_models import N_VOCAB
from tests.fixtures.tiny_modulators import field_modulator, residual_modulator, wrapped


def of_alpha(alpha: float, layers=(0, 1)) -> ResidualModulator:
    return ResidualModulator(
        torch.ones(N_VOCAB, 2), torch.ones(4, 2), torch.ones(N_VOCAB, dtype=torch.bool), layers, alpha
    )


def test_the_notebooks_rates_can_not_carry_alpha_to_its_target():
    """BUG G-11: 10 epochs of 264 steps at a rate of 1e-3 on a cosine sum to 1.452 logits: 0.041 from 0.01."""
    rates = [1e-3 * 0.5 * (1 + math.cos(math.pi * epoch / 10)) for epoch in range(10) for _ in range(264)]
    within = reach(rates)
    assert within == pytest.approx(1.452, abs=5e-4)
    first, _ = StrengthWatch(of_alpha(0.01)).strengths(within)
    assert first.highest == pytest.approx(0.0414, abs=1e-4)
    assert first.highest < 0.29154
    assert math.log(0.2915 / 0.7085) - math.log(0.01 / 0.99) == pytest.approx(3.71, abs=0.01)


def test_the_band_is_around_where_a_strength_began_and_nothing_is_moved():
    modulator = of_alpha(0.2)
    watch = StrengthWatch(modulator)
    with torch.no_grad():
        modulator.strength[1] += 0.3
    before = modulator.strength.detach().clone()
    found = watch.strengths(0.5)
    logit = math.log(0.2 / 0.8)
    for each in found:
        assert each.lowest == pytest.approx(1 / (1 + math.exp(-(logit - 0.5))), rel=1e-5)
        assert each.highest == pytest.approx(1 / (1 + math.exp(-(logit + 0.5))), rel=1e-5)
    assert found[1].alpha == pytest.approx(1 / (1 + math.exp(-(logit + 0.3))), rel=1e-5)
    assert torch.equal(modulator.strength, before)
    assert [record["layer"] for record in strength_records(7, found)] == [0, 1]


def test_the_band_follows_the_bounds_of_a_field():
    modulator = field_modulator(wrapped("llama"), alpha=0.05)
    found = StrengthWatch(modulator).strengths(50.0)
    shape = modulator.shape
    assert len(found) == len(modulator.layers) * len(shape.dimensions)
    assert all(each.lowest == pytest.approx(shape.lowest, rel=1e-4) for each in found)
    assert all(each.highest == pytest.approx(shape.highest, rel=1e-4) for each in found)


def test_strengths_that_are_held_have_no_band():
    modulator = residual_modulator(wrapped("llama"))
    modulator.strength.requires_grad_(False)
    assert all(each.lowest == each.alpha == each.highest for each in StrengthWatch(modulator).strengths(3.0))


def test_rates_grow_then_fall_to_nothing():
    factors = [rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] < 1e-3
    assert rate_factor(0, 1, 0.0) == 1
    assert reach(factors) == pytest.approx(5.5 + 45.5, rel=1e-3)
