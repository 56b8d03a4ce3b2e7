"""What an evaluation's controls are made from."""

from typing import Any, cast

import numpy as np
import torch

from src.config.modulators.evaluate import EvaluateModulatorConfig
from src.modulators.controls.equal_strength import mean_gates_on
from src.modulators.controls.field_gates import ConstantGates
from src.modulators.training.examples import Example
from src.stage.modulators.evaluating.work import EvaluationWork
from src.stage.modulators.texts import Examples
from tests.fixtures.tiny_models import N_VOCAB
from tests.fixtures.tiny_modulators import field_modulator, wrapped


def _examples(seed: int, n: int) -> list[Example]:
    draws = np.random.default_rng(seed)
    ids = draws.integers(3, N_VOCAB, (n, 9)).astype(np.int32)
    return [Example(each, np.arange(9) > 0, group) for group, each in enumerate(ids)]


def test_mean_gates_of_the_constant_control_come_from_no_example_that_is_scored() -> None:
    """Nothing is fitted on what is scored: a control that was would be too strong by as much."""
    model = wrapped("llama")
    field = field_modulator(model)
    scored, val = _examples(0, 5), _examples(1, 4)
    config = EvaluateModulatorConfig.model_construct(batch_size=2, seed=0)
    nothing = cast(Any, None)
    work = EvaluationWork(config, nothing, nothing, model, field, "text", scored, Examples(([], val, []), []))
    constant = work.controls["constant"]
    assert isinstance(constant, ConstantGates)
    of_val, of_scored = (mean_gates_on(model, field, examples, 2) for examples in (val, scored))
    assert (of_val - of_scored).abs().max() > 0.01
    torch.testing.assert_close(constant.bias.tanh().detach(), of_val, atol=1e-5, rtol=0)
