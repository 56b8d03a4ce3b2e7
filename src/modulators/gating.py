"""Multiply dimensions of the residual stream by the gates of several experts, with the gradient written out."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


def gated(
    residual: Float[Tensor, "token d_model"],
    active: Int[Tensor, " active"] | slice,
    alphas: Float[Tensor, " expert"],
    logits: Sequence[Float[Tensor, "token active"]],
) -> Float[Tensor, "token d_model"]:
    """x_j * prod over experts e of (1 + alpha_e tanh(logit_ej)) on the active dimensions j (spec H5).

    The others are the residual's to the bit, and so is everything where logits are 0. Computed in the logits' dtype;
    the result is in the residual's. Written out because the pieces that autograd would keep are as large as the
    activations of a block of the model: here the gates alone are kept.
    """
    return _Gated.apply(residual, active, alphas, *logits)  # pyright: ignore[reportReturnType]


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, active: Any, alphas: Tensor, *logits: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gates = [logit.tanh() for logit in logits]
        factor = torch.ones_like(gates[0])
        for gate, alpha in zip(gates, alphas, strict=True):
            factor *= 1 + alpha * gate
        result = residual.clone()
        result[:, active] = factor.mul_(residual[:, active]).to(residual.dtype)
        ctx.active = active
        ctx.save_for_backward(residual, alphas, *gates)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        residual, alphas, *gates = ctx.saved_tensors
        dtype = gates[0].dtype
        (gradient,) = gradients
        incoming = gradient[:, ctx.active].to(dtype)
        # product of the factors of the experts before each one; those after it come in on the way back
        before = [torch.ones_like(gates[0])]
        for gate, alpha in zip(gates, alphas, strict=True):
            before.append(before[-1] * (1 + alpha * gate))
        result = gradient.clone()
        result[:, ctx.active] = (incoming * before[-1]).to(gradient.dtype)
        carried = incoming * residual[:, ctx.active].to(dtype)
        of_logits, of_alphas = [], []
        for gate, alpha, earlier in zip(gates[::-1], alphas.flip(0), before[-2::-1], strict=True):
            of_factor = earlier.mul_(carried)
            of_alphas.append((of_factor * gate).sum())
            carried *= 1 + alpha * gate
            of_logits.append(of_factor.mul_(alpha).addcmul_(of_factor * gate, gate, value=-1))
        return result, None, torch.stack(of_alphas[::-1]), *of_logits[::-1]
