"""Multiply dimensions of the residual stream by the gates of several experts, with the gradient written out."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


def gated(
    residual: Float[Tensor, "*batch d_model"],
    active: Int[Tensor, " active"] | slice,
    alphas: Float[Tensor, " expert"],
    logits: Sequence[Float[Tensor, "*batch active"]],
) -> Float[Tensor, "*batch d_model"]:
    """x_j * prod over experts e of (1 + alpha_e tanh(logit_ej)) on the active dimensions j (spec H5).

    The others are the residual's to the bit, and so is everything where logits are 0. Computed in the logits' dtype;
    the result is in the residual's. Written out because the pieces that autograd would keep are as large as the
    activations of a block of the model: here gates and residual alone are kept. Gradients of the first order only.
    """
    return _Gated.apply(residual, active, alphas, *logits)  # pyright: ignore[reportReturnType]


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, active: Any, alphas: Tensor, *logits: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gates = [logit.tanh() for logit in logits]
        ctx.active = active
        ctx.save_for_backward(residual, alphas, *gates)
        product, factor = torch.ones_like(gates[0]), torch.empty_like(gates[0])
        for gate, alpha in zip(gates, alphas, strict=True):
            product.mul_(torch.mul(gate, alpha, out=factor).add_(1))
        result = residual.clone()
        result[..., active] = product.mul_(residual[..., active]).to(residual.dtype)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        residual, alphas, *gates = ctx.saved_tensors
        incoming = gradients[0][..., ctx.active].to(gates[0].dtype)
        # the gradient of each factor: what comes in, times the factors before it, times those after it
        carried = incoming * residual[..., ctx.active]
        factor = torch.empty_like(carried)
        of_logits, of_alphas = [], []
        for gate, alpha in zip(gates, alphas, strict=True):
            of_logits.append(carried.clone())
            carried.mul_(torch.mul(gate, alpha, out=factor).add_(1))
        after = carried.fill_(1)
        for gate, alpha, of_logit in zip(gates[::-1], alphas.flip(0), of_logits[::-1], strict=True):
            of_logit.mul_(after)
            after.mul_(torch.mul(gate, alpha, out=factor).add_(1))
            of_alphas.append(torch.dot(of_logit.flatten(), gate.flatten()))
            of_logit.addcmul_(torch.mul(gate, gate, out=factor), of_logit, value=-1).mul_(alpha)
        result = gradients[0].clone()
        result[..., ctx.active] = after.mul_(incoming).to(result.dtype)
        return result, None, torch.stack(of_alphas[::-1]), *of_logits
