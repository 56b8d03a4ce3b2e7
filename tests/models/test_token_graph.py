"""Derivatives of single tokens against those of the whole model, patched at one token."""

import warnings
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, attach, capture, wrap_model
from src.models.token_graph import TokenGraph
from tests.fixtures.tiny_models import D_MODEL, FAMILIES, model_config, ragged_batch, tiny_model

CAUSAL = tuple(family for family in FAMILIES if family not in ("bert", "distilbert", "t5"))
FIRST, LAST = HookPoint("resid_post", 0), HookPoint("resid_post", 2)
AT = torch.tensor([5, 2, 6])


def jacobians(states, source: HookPoint, target: HookPoint) -> Tensor:
    """[batch, d_out, d_in]."""
    rows = []
    for output in range(D_MODEL):
        chosen = torch.zeros_like(states[target])
        chosen[:, output] = 1
        rows.append(torch.autograd.grad(states[target], states[source], chosen, retain_graph=True)[0])
    return torch.stack(rows, 1)


def patched_jacobians(
    model: LanguageModel, ids: Tensor, mask: Tensor, at: Tensor, points: Sequence[HookPoint]
) -> Tensor:
    """The same by autograd through the whole model, one sequence at a time without padding, of a patched token."""
    found = []
    for tokens, length, position in zip(ids, mask.sum(1), at.tolist(), strict=True):
        tokens = tokens[None, : int(length)]
        clean = capture(model, tokens, torch.ones_like(tokens), [points[0]])[points[0]][0, position]

        def late_state(x: Tensor, tokens: Tensor = tokens, position: int = position) -> Tensor:
            seen: list[Tensor] = []

            def write(state: Tensor) -> Tensor:
                whole = state.reshape(1, -1, D_MODEL).clone()
                whole[0, position] = x
                return whole.view(state.shape)

            def read(state: Tensor) -> None:
                seen.append(state.reshape(-1, D_MODEL)[position].clone())

            handles = [attach(model, points[0], write), attach(model, points[1], read)]
            try:
                model.inner(tokens, torch.ones_like(tokens))
            finally:
                for handle in handles:
                    handle.remove()
            return seen[0]

        found.append(torch.autograd.functional.jacobian(late_state, clean.clone()))
    return torch.stack(found)


def wrapped(family: str, **keys) -> LanguageModel:
    return wrap_model(tiny_model(family, **keys).double(), model_config())


@pytest.mark.parametrize("family", CAUSAL)
def test_norms_in_float32_do_not_hinder_a_model_in_float64(family: str) -> None:
    """What differs by the rounding of float32 was taken for another state: whole sequences, with a warning."""
    ids, mask = ragged_batch([7, 4, 8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TokenGraph(wrapped(family)).states(ids, mask, AT, [FIRST, LAST])


@pytest.mark.usefixtures("true_double")
@pytest.mark.parametrize("family", CAUSAL)
def test_derivatives_are_the_models_own_and_cost_one_token(family: str) -> None:
    model = wrapped(family)
    ids, mask = ragged_batch([7, 4, 8])
    graph = TokenGraph(model)
    widths: list[int] = []

    def note(state: Tensor) -> None:
        if torch.is_grad_enabled():
            widths.append(state.numel() // D_MODEL // len(ids))

    handle = attach(model, HookPoint("resid_post", 1), note)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        states = graph.states(ids, mask, AT, [FIRST, LAST])
    handle.remove()
    assert widths == [1]
    found, expected = jacobians(states, FIRST, LAST), patched_jacobians(model, ids, mask, AT, [FIRST, LAST])
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-7)
    assert float((expected - torch.eye(D_MODEL)).norm()) > 1
    clean = capture(model, ids, mask, [LAST])[LAST]
    torch.testing.assert_close(states[LAST].detach(), clean[torch.arange(3), AT])


@pytest.mark.parametrize(
    ("source", "target"), [("resid_pre.0", "resid_pre.2"), ("attn_out.0", "attn_out.2"), ("mlp_out.0", "mlp_out.1")]
)
@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma2", "falcon"])
@pytest.mark.usefixtures("true_double")
def test_any_hook_point(family: str, source: str, target: str) -> None:
    model = wrapped(family)
    ids, mask = ragged_batch([7, 4, 8])
    points = [HookPoint.parse(source), HookPoint.parse(target)]
    found = jacobians(TokenGraph(model).states(ids, mask, AT, points), *points)
    torch.testing.assert_close(found, patched_jacobians(model, ids, mask, AT, points), atol=1e-9, rtol=1e-7)


@pytest.mark.usefixtures("true_double")
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_finite_differences(family: str) -> None:
    model = wrapped(family)
    ids, mask = ragged_batch([7])
    found = jacobians(TokenGraph(model).states(ids, mask, torch.tensor([4]), [FIRST, LAST]), FIRST, LAST)[0]
    direction = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(1)).double()

    def moved(step: float) -> Tensor:
        def write(state: Tensor) -> Tensor:
            state = state.clone()
            state[0, 4] += step * direction
            return state

        handle = attach(model, FIRST, write)
        state = capture(model, ids, mask, [LAST])[LAST][0, 4]
        handle.remove()
        return state

    expected = (moved(1e-5) - moved(-1e-5)) / 2e-5
    torch.testing.assert_close(found @ direction, expected, atol=1e-6, rtol=1e-6)


def test_a_source_between_source_and_target_and_the_first_position() -> None:
    model = wrapped("gpt_neox")
    ids, mask = ragged_batch([7, 1, 8])
    at, middle = torch.tensor([0, 0, 7]), HookPoint("resid_post", 1)
    states = TokenGraph(model).states(ids, mask, at, [LAST, middle, FIRST])
    for points in ([FIRST, LAST], [middle, LAST], [FIRST, middle]):
        expected = patched_jacobians(model, ids, mask, at, points)
        torch.testing.assert_close(jacobians(states, *points), expected, atol=1e-9, rtol=1e-7)
    # of one token: the derivatives along a column are multiplied
    product = jacobians(states, middle, LAST) @ jacobians(states, FIRST, middle)
    torch.testing.assert_close(jacobians(states, FIRST, LAST), product)


@pytest.mark.parametrize(
    ("family", "keys"),
    [("gemma2", {"sliding_window": 4}), ("mistral", {"sliding_window": 4}), ("bert", {}), ("distilbert", {})],
)
def test_what_has_no_cache_goes_through_whole_sequences(family: str, keys: dict) -> None:
    model = wrap_model(tiny_model(family, **keys), model_config())
    ids, mask = ragged_batch([11, 4, 12])
    at = torch.tensor([8, 2, 10])
    graph = TokenGraph(model)
    with pytest.warns(UserWarning, match="can't go on from a key-value cache"):
        states = graph.states(ids, mask, at, [FIRST, LAST])
    expected = patched_jacobians(model, ids, mask, at, [FIRST, LAST])
    torch.testing.assert_close(jacobians(states, FIRST, LAST), expected, atol=2e-5, rtol=1e-5)
    with warnings.catch_warnings():  # once is enough
        warnings.simplefilter("error")
        graph.states(ids, mask, at, [FIRST, LAST])


def test_what_the_model_lacks_is_refused() -> None:
    graph = TokenGraph(wrapped("llama"))
    ids, mask = ragged_batch([4])
    with pytest.raises(StrataError, match=r"layers 0\.\.2"):
        graph.states(ids, mask, torch.tensor([2]), [FIRST, HookPoint("resid_post", 3)])
    with pytest.raises(StrataError, match="beyond the vocabulary"):
        graph.states(ids + 1000, mask, torch.tensor([2]), [FIRST, LAST])
