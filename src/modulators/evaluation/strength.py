"""A modulator at a strength of one's own choice."""

import copy

import torch

from src.modulators.modulator import Modulator

# logits beyond which no strength changes in float32
_FURTHEST = 40.0
_STEPS = 60
_TOLERANCE = 1e-4


@torch.no_grad()
def at_strength(modulator: Modulator, alpha: float) -> Modulator | None:
    """A copy whose strengths are all alpha; the modulator keeps its trained ones (spec G10).

    Strengths rise with their logits in every kind of modulator, so the logit is found by bisection.
    None: it has no strengths, or none of that size (a field modulator's are bounded).
    """
    if modulator.strengths() is None:
        return None
    fixed = copy.deepcopy(modulator)
    logits = [parameter for name, parameter in fixed.named_parameters() if fixed.role(name) == "strength"]
    low, high = -_FURTHEST, _FURTHEST
    for _ in range(_STEPS):
        middle = (low + high) / 2
        for logit in logits:
            logit.fill_(middle)
        low, high = (middle, high) if _strength(fixed) < alpha else (low, middle)
    return fixed if abs(_strength(fixed) - alpha) <= _TOLERANCE * alpha else None


def _strength(modulator: Modulator) -> float:
    strengths = modulator.strengths()
    assert strengths is not None
    return float(strengths.double().mean())
