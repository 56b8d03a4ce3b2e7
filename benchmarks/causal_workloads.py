"""What `bench_causal` evaluates, at resid_post of some layers.

readme_pairs: the twenty edits of the workflow in the reference's README, which has the layer pairs L = 5, 6 with k = 1,
4 of a model of 12 layers: at each of the four targets two operators, null, zero and another constant, at every
position. 20_edits: twenty at one target, half operators, half constants, at every position.
single_js, multiple_js, all_js: the reference's own presets, as it runs them at one target: transport, null and zero at
positions 10, 50, 100 one at a time, at three sets of five positions, and at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from src.causal.interventions import Constant, Intervention, Transport
from src.causal.perplexity import Condition
from src.hook_points import HookPoint
from src.models import LanguageModel
from src.transport.operator import TransportOperator

N_CONDITIONS = 20
LEAP = 2
PRESETS = {
    "single_js": [(10,), (50,), (100,)],
    "multiple_js": [(10 + shift, *(place + shift for place in (50, 70, 100, 120))) for shift in range(3)],
    "all_js": [None],
}
NAMES = ["readme_pairs", "20_edits", *PRESETS]


@dataclass(frozen=True)
class Workload:
    """Conditions that are evaluated together. null_operators: whose bias a condition of that name writes."""

    name: str
    conditions: list[Condition]
    null_operators: dict[str, TransportOperator]


def workloads(model: LanguageModel, target: HookPoint) -> Iterator[Workload]:
    """Those of NAMES; target: of all but readme_pairs."""
    yield _readme_pairs(model)
    draws = torch.Generator().manual_seed(1)
    source = HookPoint("resid_post", target.layer - LEAP)
    edits: list[Intervention] = []
    for index in range(N_CONDITIONS):
        transport = Transport(_random_operator(model, source, target, draws))
        edits.append(Constant(transport.operator.bias) if index % 2 else transport)
    yield Workload("20_edits", [Condition(str(index), edit, target) for index, edit in enumerate(edits)], {})
    operator = _random_operator(model, source, target, draws)
    for preset, sets in PRESETS.items():
        yield _named(preset, model, [(operator, positions) for positions in sets])


def _readme_pairs(model: LanguageModel) -> Workload:
    draws = torch.Generator().manual_seed(1)
    middle = model.n_layers // 2
    conditions: list[Condition] = []
    null_operators: dict[str, TransportOperator] = {}
    for layer in (middle - 1, middle):
        for k in sorted({1, model.n_layers // 3}):
            source, target = HookPoint("resid_post", layer), HookPoint("resid_post", layer + k)
            operator = _random_operator(model, source, target, draws)
            part = _named(f"L={layer}, k={k}", model, [(operator, None)])
            other = _random_operator(model, source, target, draws)
            conditions += [
                *part.conditions,
                Condition(f"other transport {part.name}", Transport(other), target),
                Condition(f"other null {part.name}", Constant(other.bias), target),
            ]
            null_operators |= part.null_operators
    return Workload("readme_pairs", conditions, null_operators)


def _named(name: str, model: LanguageModel, edits: list[tuple[TransportOperator, tuple[int, ...] | None]]) -> Workload:
    """Transport, null and zero, as the reference has them, of each operator at its positions."""
    conditions: list[Condition] = []
    null_operators: dict[str, TransportOperator] = {}
    for operator, positions in edits:
        families: dict[str, Intervention] = {
            "transport": Transport(operator),
            "null": Constant(operator.bias),
            "zero": Constant(torch.zeros(model.d_model, device=model.device)),
        }
        of_operator = {
            family: Condition(f"{family} {name} {positions}", edit, operator.target, positions)
            for family, edit in families.items()
        }
        conditions += of_operator.values()
        null_operators[of_operator["null"].name] = operator
    return Workload(name, conditions, null_operators)


def _random_operator(
    model: LanguageModel, source: HookPoint, target: HookPoint, draws: torch.Generator
) -> TransportOperator:
    """Near the identity."""
    weight = torch.eye(model.d_model) + 0.02 * torch.randn(model.d_model, model.d_model, generator=draws)
    bias = 0.1 * torch.randn(model.d_model, generator=draws)
    return TransportOperator(weight.to(model.device), bias.to(model.device), source, target, "random")
