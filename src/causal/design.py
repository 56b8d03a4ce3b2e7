"""Which conditions an evaluation has: pairs of layers, times interventions, times sets of positions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from src.causal.interventions import AlongDirections, Intervention, baseline_interventions, operator_interventions
from src.causal.perplexity import Condition
from src.causal.positions import POOLED, Positions, position_text
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.operator import TransportOperator
from src.transport.pairs import LayerPair

Means = Mapping[HookPoint, Float[Tensor, " d_model"]]


@dataclass(frozen=True, eq=False)
class PairSubject:
    """What one pair of layers is tried with.

    operators: by the name that tells them apart (a method). means: of the training tokens; empty if nothing needs them.
    """

    source: HookPoint
    target: HookPoint
    operators: Mapping[str, TransportOperator]
    means: Means


@dataclass(frozen=True)
class Trial:
    """One row of a result: an intervention at a pair of layers and a set of positions, or at all sets together.

    intervention: `transport`, `zero`, ... operator: the name of the one that it was made of; empty if of none. label:
    `transport`, or `transport (ridge)` where there are operators of several names. positions: as text; POOLED = all
    sets. conditions: the names of the conditions that are counted.
    """

    pair: LayerPair
    intervention: str
    operator: str
    label: str
    positions: str
    conditions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Design:
    """The trials, and the conditions that they need, of which several trials may need the same one."""

    trials: tuple[Trial, ...]
    conditions: tuple[Condition, ...]


def design_conditions(
    subjects: Mapping[LayerPair, PairSubject],
    interventions: Sequence[str],
    positions: Sequence[Positions],
    d_model: int,
    seed: int,
    basis: Float[Tensor, "d_model direction"] | None = None,
) -> Design:
    """All trials, those of a pair and an intervention side by side, with one that pools them if there are several sets.

    interventions: names, of which each pair is given those that it can have. basis: orthonormal columns; only the
    component along them is replaced. What does not depend on the source is one condition for all pairs of a target.
    """
    trials: list[Trial] = []
    conditions: dict[str, Condition] = {}
    several = len({name for subject in subjects.values() for name in subject.operators}) > 1
    for pair, subject in subjects.items():
        available = list(_available(pair, subject, interventions, d_model, seed))
        for wanted in interventions:
            for name, operator, place, intervention in available:
                if name != wanted:
                    continue
                label = f"{name} ({operator})" if operator and several else name
                edit = intervention if basis is None else AlongDirections(basis, intervention)
                names = {js: f"{label} {place} at {position_text(js)}" for js in positions}
                for js, condition in names.items():
                    conditions.setdefault(condition, Condition(condition, edit, subject.target, js))
                    trials.append(Trial(pair, name, operator, label, position_text(js), (condition,)))
                if len(positions) > 1:
                    trials.append(Trial(pair, name, operator, label, POOLED, tuple(names.values())))
    if not trials:
        raise StrataError(f"none of the interventions {', '.join(interventions)} can be made at these pairs of layers")
    return Design(tuple(trials), tuple(conditions.values()))


def _available(
    pair: LayerPair, subject: PairSubject, wanted: Sequence[str], d_model: int, seed: int
) -> Iterator[tuple[str, str, str, Intervention]]:
    """(intervention, operator's name, what tells its conditions apart, the intervention) of everything there is."""
    mean = subject.means.get(subject.target)
    for name, it in baseline_interventions(subject.source, d_model, mean, seed).items():
        yield name, "", f"{subject.source}->{subject.target}" if it.sources else str(subject.target), it
    for operator_name, operator in subject.operators.items():
        for name, it in operator_interventions(operator, subject.means[subject.source], seed, wanted).items():
            yield name, operator_name, str(pair), it
