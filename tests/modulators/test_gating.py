"""Gates on the residual stream against autograd's own way there."""

import pytest
import torch

from src.modulators.gating import gated

ACTIVE = (slice(0, 4), torch.tensor([0, 2, 3, 5]))


def _inputs(n_experts: int = 3, **keys: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    draws = torch.Generator().manual_seed(0)
    residual = torch.randn(2, 5, 6, dtype=torch.float64, generator=draws).requires_grad_()
    alphas = torch.rand(n_experts, dtype=torch.float64, generator=draws).requires_grad_()
    logits = [torch.randn(2, 5, 4, dtype=torch.float64, generator=draws).requires_grad_() for _ in range(n_experts)]
    return residual, alphas, logits


def _plain(
    residual: torch.Tensor, active: slice | torch.Tensor, alphas: torch.Tensor, logits: list[torch.Tensor]
) -> torch.Tensor:
    factor = torch.stack([1 + alpha * logit.tanh() for alpha, logit in zip(alphas, logits, strict=True)]).prod(0)
    index = torch.arange(residual.shape[-1])[active]
    return residual.index_copy(-1, index, residual[..., index] * factor)


@pytest.mark.parametrize("active", ACTIVE)
@pytest.mark.parametrize("n_experts", [1, 3, 5])
def test_result_and_gradients_equal_autograds(active: slice | torch.Tensor, n_experts: int) -> None:
    residual, alphas, logits = _inputs(n_experts)
    weights = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = [way(residual, active, alphas, logits) for way in (gated, _plain)]
    torch.testing.assert_close(*results)
    found, expected = (torch.autograd.grad((it * weights).sum(), [residual, alphas, *logits]) for it in results)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("active", ACTIVE)
def test_gradients_are_those_of_finite_differences(active: slice | torch.Tensor) -> None:
    residual, alphas, logits = _inputs(2)
    assert torch.autograd.gradcheck(lambda r, a, *them: gated(r, active, a, them), (residual, alphas, *logits))


def test_a_factor_of_zero_leaves_the_other_gradients() -> None:
    """alpha = 1 with a closed gate: nothing may be divided by the factor."""
    residual, _, logits = _inputs(2)
    alphas = torch.ones(2, dtype=torch.float64, requires_grad=True)
    logits[0] = torch.full_like(logits[0], -50.0).requires_grad_()
    found, expected = (
        torch.autograd.grad(way(residual, slice(0, 4), alphas, logits).sum(), [residual, alphas, *logits])
        for way in (gated, _plain)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_stream_of_half_precision_keeps_its_dtype_and_what_is_not_active(dtype: torch.dtype) -> None:
    residual, alphas, logits = _inputs()
    half = residual.detach().to(dtype).requires_grad_()
    wide = [logit.detach().float() for logit in logits]
    result = gated(half, ACTIVE[1], alphas.detach().float(), wide)
    assert result.dtype == dtype
    assert torch.equal(result[..., [1, 4]], half[..., [1, 4]])
    # computed in float32 and rounded once
    exact = _plain(half.float(), ACTIVE[1], alphas.float(), wide)
    assert torch.equal(result, exact.to(dtype))
    (gradient,) = torch.autograd.grad(result.float().sum(), half)
    assert gradient.dtype == dtype
    assert torch.equal(gradient[..., 1], torch.ones(2, 5, dtype=dtype))


@pytest.mark.parametrize("active", ACTIVE)
def test_logits_of_zero_change_no_bit(active: slice | torch.Tensor) -> None:
    residual, alphas, logits = _inputs()
    marked = residual.detach().clone()
    marked[0, 0] = torch.tensor([0.0, -0.0, float("inf"), -1e300, float("inf"), 5e-324])
    result = gated(marked, active, alphas, [torch.zeros_like(logit) for logit in logits])
    assert torch.equal(result.view(torch.int64), marked.view(torch.int64))


@pytest.mark.parametrize(
    ("of_residual", "of_logits", "of_alphas"),
    [
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float32, torch.float64, torch.float32),
    ],
)
def test_every_gradient_has_the_dtype_of_what_it_is_of(
    of_residual: torch.dtype, of_logits: torch.dtype, of_alphas: torch.dtype
) -> None:
    residual, alphas, logits = _inputs()
    given = [residual.to(of_residual), alphas.to(of_alphas), *(logit.to(of_logits) for logit in logits)]
    given = [each.detach().requires_grad_() for each in given]
    results = gated(given[0], ACTIVE[0], given[1], given[2:]), _plain(residual, ACTIVE[0], alphas, logits)
    found, expected = (
        torch.autograd.grad(result.square().sum(), of)
        for result, of in zip(results, (given, [residual, alphas, *logits]), strict=True)
    )
    for one, other, each in zip(found, expected, given, strict=True):
        assert one.dtype == each.dtype
        torch.testing.assert_close(one.double(), other, rtol=0.1, atol=0.1)


def test_gradients_of_the_second_order_are_refused() -> None:
    residual, alphas, logits = _inputs()
    result = gated(residual, ACTIVE[0], alphas, logits).square().sum()
    (gradient,) = torch.autograd.grad(result, logits[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
