"""The interventions that every evaluation has: an operator, its controls, and the baselines that need no operator."""

from collections.abc import Collection
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from src.causal.interventions import (
    Constant,
    CopySource,
    Intervention,
    OnTokensWith,
    Resample,
    Transport,
    source_seen_from_target,
)
from src.hook_points import HookPoint
from src.transport.operator import TransportOperator

OF_AN_OPERATOR = ("transport", "rotated", "null")


def standard_interventions(
    operator: TransportOperator,
    source_mean: Float[Tensor, "d_in"],
    target_mean: Float[Tensor, "d_out"],
    seed: int,
    names: Collection[str] | None = None,
) -> dict[str, Intervention]:
    """The operator and what it is compared with, by name: for writing at the place of `operator.target`.

    transport, rotated, null (the operator of zero: its bias), and the baselines of `baseline_interventions`; identity
    is left out if the widths differ. The means are those over the training tokens. Of an operator with an offset, all
    edit the tokens whose source is there. names: only these; all if None (`rotated` takes two decompositions to make).
    """
    source = source_seen_from_target(operator)
    interventions: dict[str, Intervention] = {"transport": Transport(operator), "null": Constant(operator.bias)}
    if names is None or "rotated" in names:
        interventions["rotated"] = Transport(rotated_operator(operator, source_mean, seed))
    baselines = baseline_interventions(source, len(operator.bias), target_mean, seed)
    if operator.weight.shape[0] != operator.weight.shape[1]:
        del baselines["identity"]
    chosen = {**interventions, **baselines}
    return on_tokens_with(source, {name: it for name, it in chosen.items() if names is None or name in names})


def baseline_interventions(
    source: HookPoint, d_out: int, target_mean: Float[Tensor, "d_out"] | None, seed: int
) -> dict[str, Intervention]:
    """What needs no operator: identity (the source copied), mean (left out if not known), resample, zero.

    source: as seen from the edited token; all edit the tokens whose source is there.
    """
    interventions: dict[str, Intervention] = {"identity": CopySource(source)}
    if target_mean is not None:
        interventions["mean"] = Constant(target_mean)
    return on_tokens_with(source, {**interventions, "resample": Resample(seed), "zero": Constant(torch.zeros(d_out))})


def on_tokens_with(source: HookPoint, interventions: dict[str, Intervention]) -> dict[str, Intervention]:
    """Interventions that edit only tokens whose source is there, if it has an offset."""
    if not source.offset:
        return interventions
    return {name: it if source in it.sources else OnTokensWith(source, it) for name, it in interventions.items()}


def rotated_operator(operator: TransportOperator, source_mean: Float[Tensor, "d_in"], seed: int) -> TransportOperator:
    """A control with the spectrum of an operator and none of its directions: weight U W V', U and V random rotations.

    U and V are Haar-distributed orthogonal matrices. The bias is chosen so that the prediction at `source_mean` (the
    mean of the source over the training tokens) stays what it was.
    """
    weight = operator.weight.cpu().double()
    generator = torch.Generator().manual_seed(seed)
    left, right = (_random_orthogonal(size, generator) for size in weight.shape)
    rotated = left @ weight @ right.T
    bias = operator.bias.cpu().double() + source_mean.cpu().double() @ (weight - rotated)
    return replace(
        operator,
        weight=rotated.to(operator.weight),
        bias=bias.to(operator.bias),
        method=f"{operator.method}, rotated",
        metadata={**operator.metadata, "rotation_seed": seed},
    )


def _random_orthogonal(size: int, generator: torch.Generator) -> Float[Tensor, "size size"]:
    """Haar measure: QR of a normal matrix with the signs of R's diagonal (Mezzadri 2007, section 5)."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()
