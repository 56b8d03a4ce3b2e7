"""Where the strengths of a modulator are, and where training could have carried them by now (spec G9)."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from src.modulators.modulator import Modulator

# what the published notebook compares final strengths with (spec G9, G11): numbers without a derivation
NOTEBOOK_STRENGTHS = (0.29154, 0.5, 0.70846)


@dataclass(frozen=True)
class Strength:
    """Of one part of a modulator before one layer: what it is, and the lowest and highest within reach."""

    layer: int
    part: int
    alpha: float
    lowest: float
    highest: float


class StrengthWatch:
    """Remembers where the strengths of a modulator began.

    The parameters of role `strength` are what Adam moves (logits, mostly); what a strength can be is read off the
    modulator itself with them moved down and up, so any function from the one to the other will do.
    """

    def __init__(self, modulator: Modulator) -> None:
        self._modulator = modulator
        self._start = {
            name: parameter.detach().clone()
            for name, parameter in modulator.named_parameters()
            if parameter.requires_grad and modulator.role(name) == "strength"
        }

    @torch.no_grad()
    def strengths(self, reach: float) -> list[Strength]:
        """All of them, if their parameters can have moved by `reach`; none for a modulator without strengths."""
        found = self._modulator.strengths()
        if found is None:
            return []
        alphas = found.tolist()
        parameters = dict(self._modulator.named_parameters())
        held = {name: parameters[name].clone() for name in self._start}
        ends = []
        for way in (-reach, reach):
            for name, start in self._start.items():
                parameters[name].copy_(start.to(parameters[name]) + way)
            ends.append(self._modulator.strengths().tolist())  # pyright: ignore[reportOptionalMemberAccess]
        for name, value in held.items():
            parameters[name].copy_(value)
        return [
            Strength(layer, part, alpha, *sorted(end[row][part] for end in ends))
            for row, layer in enumerate(self._modulator.layers)
            for part, alpha in enumerate(alphas[row])
        ]


def strength_records(step: int, strengths: list[Strength]) -> list[dict[str, Any]]:
    """As flat records."""
    return [{"step": step, **asdict(strength)} for strength in strengths]
