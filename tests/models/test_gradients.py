"""Gradients of the loss with respect to hidden states, against autograd through the plain model and differences."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel, VocabularyHead, attach, capture, states_and_gradients, wrap_model
from tests.fixtures.tiny_models import D_MODEL, FAMILIES, N_LAYERS, model_config, ragged_batch, tiny_model

CAUSAL = [family for family in FAMILIES if family not in ("bert", "distilbert", "t5")]
POST = [HookPoint("resid_post", layer) for layer in range(N_LAYERS)]
LENGTHS = [9, 4, 12, 7]


def plain_loss(module: nn.Module, tokens: Tensor) -> Tensor:
    """Of one sequence without padding, by the whole model."""
    logits = module(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits[0, :-1]
    return cross_entropy(logits, tokens[0, 1:], reduction="sum")


def plain_gradients(model: LanguageModel, tokens: Tensor) -> list[Tensor]:
    """Gradients at the blocks' outputs, [pos, d_model], by plain hooks that keep them."""
    outputs: list[Tensor] = []

    def remember(_module: nn.Module, _args: Any, output: Any) -> Any:
        state = (output[0] if isinstance(output, tuple) else output).clone()
        if not outputs:
            state = state.detach().requires_grad_()
        state.retain_grad()
        outputs.append(state)
        return (state.clone(), *output[1:]) if isinstance(output, tuple) else state.clone()

    handles = [block.register_forward_hook(remember) for block in model.blocks]
    plain_loss(model.module, tokens).backward()
    for handle in handles:
        handle.remove()
    return [output.grad[0] for output in outputs if output.grad is not None]


@pytest.mark.parametrize(
    ("family", "keys"),
    [*((family, {}) for family in CAUSAL), ("gemma2", {"final_logit_softcapping": 3.0}), ("gpt2", {"tie": False})],
)
@pytest.mark.usefixtures("true_double")
def test_they_are_those_of_the_models_own_loss_at_all_layers_at_once(family: str, keys: dict[str, Any]) -> None:
    keys = {"tie_word_embeddings": False} if keys == {"tie": False} else keys
    model = wrap_model(tiny_model(family, **keys).double(), model_config())
    ids, mask = ragged_batch(LENGTHS)
    capture(model, ids, mask, POST)  # what inference mode leaves behind in a model must not hinder autograd
    states, gradients, nll = states_and_gradients(model, ids, mask, POST, chunk_bytes=4 * 97 * 5)
    for row, length in enumerate(LENGTHS):
        clean = capture(model, ids[row : row + 1, :length], mask[row : row + 1, :length], POST)
        for point, expected in zip(POST, plain_gradients(model, ids[row : row + 1, :length]), strict=True):
            size = float(expected.abs().max())
            assert size > 1e-3
            torch.testing.assert_close(gradients[point][row, :length], expected, atol=1e-6 * size, rtol=1e-6)
            torch.testing.assert_close(states[point][row, :length], clean[point][0])
        assert float(nll[row].sum()) == pytest.approx(float(plain_loss(model.module, ids[row : row + 1, :length])))
    for point in POST:
        assert gradients[point][mask == 0].abs().max() == 0
    assert nll[mask[:, 1:] == 0].abs().max() == 0
    assert all(weight.grad is None for weight in model.module.parameters())


@pytest.mark.parametrize("point", ["resid_pre.0", "attn_out.1", "mlp_out.1", "resid_post.0", "resid_post.2"])
@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma2"])
@pytest.mark.usefixtures("true_double")
def test_finite_differences(family: str, point: str) -> None:
    model = wrap_model(tiny_model(family).double(), model_config())
    ids, mask = ragged_batch([9])
    place = HookPoint.parse(point)
    direction = torch.randn(*ids.shape, D_MODEL, generator=torch.Generator().manual_seed(1)).double()

    def loss(step: float) -> float:
        handle = attach(model, place, lambda state: state + step * direction.view(state.shape))
        with torch.no_grad():
            total = plain_loss(model.module, ids)
        handle.remove()
        return float(total)

    gradient = states_and_gradients(model, ids, mask, [place]).gradients[place]
    expected = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("kind", "dtype"), [("half", torch.float16), ("bfloat16", torch.bfloat16)])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "falcon"])
def test_half_precision_comes_near(family: str, kind: str, dtype: torch.dtype) -> None:
    ids, mask = ragged_batch(LENGTHS)
    half = wrap_model(getattr(tiny_model(family), kind)(), model_config())
    wide = wrap_model(getattr(tiny_model(family), kind)().double(), model_config())
    found, expected = (states_and_gradients(model, ids, mask, POST) for model in (half, wide))
    for point in POST:
        assert found.states[point].dtype == dtype
        assert found.gradients[point].dtype == torch.float32
        error = found.gradients[point].double() - expected.gradients[point]
        assert float(error.norm()) < (0.02 if dtype == torch.float16 else 0.15) * float(
            expected.gradients[point].norm()
        )


def test_tiny_gradients_survive_float16_and_infinite_ones_are_an_error() -> None:
    module = tiny_model("llama")
    module.lm_head.weight.data.mul_(1e-6)
    wide = states_and_gradients(wrap_model(module.double(), model_config()), *ragged_batch(LENGTHS), POST[:1])
    half = wrap_model(module.half(), model_config())
    found = states_and_gradients(half, *ragged_batch(LENGTHS), POST[:1]).gradients[POST[0]].double()
    expected = wide.gradients[POST[0]]
    assert 0 < float(expected.abs().max()) < 2e-5
    assert float((found - expected).norm() / expected.norm()) < 0.3
    ids, mask = ragged_batch([5, 4])
    head = VocabularyHead(half)
    handle = attach(half, POST[1], lambda state: state * torch.inf)
    with pytest.raises(StrataError, match=r"gradients at resid_post\.0 hold NaN or inf: run the model in a wider"):
        states_and_gradients(half, ids, mask, POST[:1], head)
    handle.remove()


def test_what_can_not_be_differentiated_is_refused_and_the_model_left_as_it_was() -> None:
    for family in ("bert", "t5"):
        with pytest.raises(StrataError, match="has no vocabulary head"):
            states_and_gradients(wrap_model(tiny_model(family), model_config()), *ragged_batch([4]), POST)
    model: LanguageModel = wrap_model(tiny_model("llama"), model_config())
    ids, mask = ragged_batch([5, 4])
    with pytest.raises(StrataError, match=r"layers 0\.\.2"):
        states_and_gradients(model, ids, mask, [HookPoint("resid_post", 3)])
    with pytest.raises(StrataError, match="pad sequences on the right"):
        states_and_gradients(model, ids, mask.flip(1), POST)
    before = model.module(input_ids=ids, attention_mask=mask).logits
    states_and_gradients(model, ids, mask, POST)
    torch.testing.assert_close(model.module(input_ids=ids, attention_mask=mask).logits, before, atol=0, rtol=0)
    assert all(not item._forward_hooks and not item._forward_pre_hooks for item in model.module.modules())
