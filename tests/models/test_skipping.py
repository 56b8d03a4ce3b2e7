"""Blocks that are left out, and hidden states that are put in."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor

from src.hook_points import HookPoint
from src.models import BlockSkipper, attach, capture, wrap_model
from src.models.inner import hidden_state, residual_input, with_hidden_state, with_residual_input
from tests.fixtures.tiny_models import D_MODEL, N_LAYERS, model_config, ragged_batch, tiny_model


@pytest.mark.parametrize("family", ["llama", "falcon", "gpt2", "distilbert"])
@pytest.mark.parametrize("count", range(N_LAYERS + 1))
def test_the_rest_of_the_model_goes_on_from_the_state(family: str, count: int) -> None:
    model = wrap_model(tiny_model(family), model_config())
    ids, mask = ragged_batch([7, 4])
    points = [HookPoint("resid_post", layer) for layer in range(N_LAYERS)]
    states = capture(model, ids, mask, points)
    ran: list[int] = []
    for layer, block in enumerate(model.blocks):
        next(block.children()).register_forward_hook(lambda *_args, layer=layer: ran.append(layer))
    skipper = BlockSkipper(model)
    ran.clear()
    state = states[points[max(count, 1) - 1]]
    with skipper.skipped(count, state.clone()):
        found = capture(model, ids, mask, points)
    assert ran == list(range(count, N_LAYERS))
    for layer, point in enumerate(points):
        torch.testing.assert_close(found[point], state if layer < count else states[point], atol=0, rtol=0)
    again = capture(model, ids, mask, points)
    torch.testing.assert_close(again[points[-1]], states[points[-1]], atol=0, rtol=0)


@pytest.mark.parametrize("family", ["llama", "falcon", "opt"])
@pytest.mark.parametrize("hook", ["resid_pre", "attn_out", "mlp_out", "resid_post"])
def test_visitors_replace_states_in_turn(family: str, hook: str) -> None:
    model = wrap_model(tiny_model(family), model_config())
    batch = ragged_batch([6, 6])
    point = HookPoint(hook, 1)
    model.check_hook_points([point])
    clean = capture(model, *batch, [point])[point]
    handles = [attach(model, point, lambda state: 2 * state), attach(model, point, lambda state: state + 1)]
    torch.testing.assert_close(capture(model, *batch, [point])[point], 2 * clean + 1, atol=1e-6, rtol=1e-6)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(capture(model, *batch, [point])[point], clean, atol=0, rtol=0)


def test_hidden_states_in_every_kind_of_output_and_argument() -> None:
    old, new = torch.zeros(2, 3, D_MODEL), torch.ones(2, 3, D_MODEL)
    outputs: list[Any] = [old, (old, None), [old, 5], OrderedDict(hidden=old, other=5)]
    for output in outputs:
        changed = with_hidden_state(output, new)
        assert type(changed) is type(output)
        assert hidden_state(changed) is new
        assert hidden_state(output) is old
        if not isinstance(output, Tensor):
            rest = list(changed.values() if isinstance(changed, dict) else changed)[1:]
            assert rest in ([None], [5])
    for args, kwargs in (((old, 3), {"mask": 1}), ((), {"mask": 1, "hidden_states": old}), ((), {"x": old, "mask": 1})):
        changed_args, changed_kwargs = with_residual_input(args, kwargs, new)
        assert residual_input(changed_args, changed_kwargs) is new
        assert changed_args[1:] == args[1:]
        assert changed_kwargs["mask"] == 1
        assert changed_kwargs.keys() == kwargs.keys()
