"""What a step costs: what is measured changes nothing, and the graph begins where the modulator does."""

import pytest
import torch

from src.modulators.training.cost import measure_step
from src.modulators.training.record import best_evaluation, is_out_of_patience
from tests.fixtures.tiny_modulators import field_modulator, n_hooks, residual_modulator, wrapped
from tests.modulators.training.test_modulator_examples import texts

EXAMPLES = texts([20, 18, 20])


def test_measuring_changes_nothing():
    model = wrapped("llama")
    modulator = field_modulator(model).train()
    before = {name: value.clone() for name, value in modulator.state_dict().items()}
    hooks = n_hooks(model)
    cost = measure_step(model, modulator, EXAMPLES, repeats=2)
    assert all(torch.equal(value, before[name]) for name, value in modulator.state_dict().items())
    assert all(parameter.grad is None for parameter in modulator.parameters())
    assert modulator.training
    assert n_hooks(model) == hooks
    assert (cost.n_sequences, cost.n_positions, cost.repeats, cost.measured_peak) == (3, 20, 2, False)
    assert cost.seconds > 0
    assert cost.frozen_seconds > 0


def test_blocks_below_the_first_injection_are_computed_without_a_graph():
    """What the graph holds falls with the blocks that are above the modulator, and both passes have the same ones."""
    model = wrapped("llama")
    costs = [measure_step(model, residual_modulator(model, layers=[first]), EXAMPLES, repeats=1) for first in range(3)]
    frozen = [cost.frozen_bytes for cost in costs]
    assert frozen[0] > 1.3 * frozen[1] > 1.3 * 1.3 * frozen[2] > 0
    assert all(1 <= cost.memory_ratio < 1.3 for cost in costs)
    states = []
    handle = model.blocks[2].register_forward_pre_hook(lambda _, args: states.append(args[0].requires_grad))
    with residual_modulator(model, layers=[2]).attached(model):
        handle.remove()
        model.blocks[2].register_forward_pre_hook(lambda _, args: states.append(args[0].requires_grad), prepend=True)
        model.module(input_ids=torch.tensor([[3, 4, 5]]))
    assert states == [False]


def test_the_bytes_are_those_that_autograd_keeps():
    model = wrapped("gpt2")
    modulator = residual_modulator(model, layers=[2])
    cost = measure_step(model, modulator, EXAMPLES, repeats=1)
    n_tokens = 3 * 20
    # of each token at least: the input and output of the last block's MLP (4 d wide) and the float32 logits
    assert cost.frozen_bytes > 4 * n_tokens * (8 * model.d_model)
    assert cost.bytes - cost.frozen_bytes < 4 * n_tokens * 12 * model.d_model


@pytest.mark.parametrize(
    ("values", "best"),
    [([3.0, 1.0, 2.0], 1), ([1.0, 1.0], 0), ([float("nan"), 2.0], 1), ([float("nan")] * 2, 0)],
)
def test_the_lowest_evaluation_is_the_best_and_of_equals_the_first(values, best):
    assert best_evaluation(values) == best


def test_patience_counts_evaluations_since_the_best():
    assert not is_out_of_patience([3, 1, 2], 2)
    assert is_out_of_patience([3, 1, 2, 1], 2)
    assert not is_out_of_patience([3, 1, 2, 1, 0.5], 2)
    assert not is_out_of_patience([1, 2, 3, 4], None)
