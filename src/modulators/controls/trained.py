"""What controls begin with when they are trained as their modulator is."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch

from src.models import LanguageModel
from src.modulators.adapters import lora_of_size
from src.modulators.controls.field_gates import ActiveScaling, RandomFeatureGates, closed_gates, constant_gates
from src.modulators.controls.known_tokens import TokenScaling
from src.modulators.controls.shuffled_field import ShuffledField
from src.modulators.controls.targets import constant_target, random_targets, shuffled_targets, zero_target
from src.modulators.field import FieldModulator
from src.modulators.modulator import Modulator
from src.modulators.residual import ResidualModulator
from src.modulators.simplex_features import n_features

ControlName = Literal["zero", "random", "shuffled", "constant", "shrink", "lora"]

_OF_RESIDUAL: Mapping[str, Callable[[ResidualModulator, int], Modulator]] = {
    "zero": lambda modulator, _: zero_target(modulator),
    "random": random_targets,
    "shuffled": shuffled_targets,
    "constant": lambda modulator, _: constant_target(modulator),
    "shrink": lambda modulator, _: TokenScaling(modulator.known, modulator.layers),
}
_OF_FIELD: Mapping[str, Callable[[FieldModulator, int], Modulator]] = {
    "zero": lambda field, _: closed_gates(field),
    "random": lambda field, seed: random_features(field, seed),
    "shuffled": ShuffledField.of,
    "constant": lambda field, _: constant_gates(field, torch.zeros(1, len(field.shape.dimensions), len(field.active))),
    "shrink": lambda field, _: ActiveScaling(field.active, field.layers),
}


def trained_control(name: ControlName, modulator: Modulator, model: LanguageModel, seed: int) -> Modulator:
    """A control as it begins, from its modulator as it begins: the same strengths, layers, tokens or dimensions.

    What is trained in the modulator is trained in the control, as far as the control has it.

    Args:
        name: zero, random, shuffled, constant (of targets or gates), shrink (a free factor per layer), or lora (of as
            many trained numbers as the modulator's).
        modulator: a residual or field modulator before training.
        model: what lora adapts.
        seed: of what is drawn.

    Raises:
        StrataError: NotApplicableError where lora finds nothing to adapt.
    """
    if name == "lora":
        return lora_of_size(model, modulator.layers, modulator.n_trained, seed)
    if isinstance(modulator, ResidualModulator):
        return _OF_RESIDUAL[name](modulator, seed)
    if isinstance(modulator, FieldModulator):
        return _OF_FIELD[name](modulator, seed)
    raise TypeError(f"a {modulator.kind} has no control {name}")


def random_features(field: FieldModulator, seed: int) -> RandomFeatureGates:
    """Gates that read as many random features as simplices would give them."""
    bounds = (field.shape.lowest, field.shape.highest)
    counts = [n_features(k) for k in field.shape.dimensions]
    return RandomFeatureGates(counts, field.active, field.layers, field.strength, bounds, seed)
