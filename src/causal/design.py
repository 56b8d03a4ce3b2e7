"""Which conditions an evaluation has: pairs of layers, times interventions, times sets of positions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from src.causal.directions import Directions
from src.causal.feature_codes import FeatureCodes
from src.causal.feature_interventions import AblateFeatures, AblateOthers, AlongLatents, MeanFeatures
from src.causal.interventions import AlongDirections, Intervention, Transport
from src.causal.perplexity import Condition
from src.causal.positions import POOLED, Positions, position_text
from src.causal.standard import OF_AN_OPERATOR, baseline_interventions, on_tokens_with, standard_interventions
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport.operator import TransportOperator
from src.transport.pairs import LayerPair


@dataclass(frozen=True, eq=False)
class PairSubject:
    """What one pair of layers is tried with.

    source: as seen from the edited token (an offset of -1: the token before). target: where is written. operators: by
    the name that tells them apart (a method). source_mean, target_mean: over the training tokens; None if not known,
    and then there are no operators.
    """

    source: HookPoint
    target: HookPoint
    operators: Mapping[str, TransportOperator]
    source_mean: Float[Tensor, " d_in"] | None
    target_mean: Float[Tensor, " d_out"] | None


@dataclass(frozen=True)
class Trial:
    """One row of a result: an intervention at a pair of layers and a set of positions, or at all sets together.

    intervention: `transport`, `zero`, ... operator: the name of the one that it was made of; empty if of none. label:
    `transport`, or `transport (ridge)` where there are operators of several names. positions: as text; POOLED = all
    sets. conditions: the names of the conditions that are counted. features: which ones of an SAE are edited, as text;
    empty: the whole activation is.
    """

    pair: LayerPair
    intervention: str
    operator: str
    label: str
    positions: str
    conditions: tuple[str, ...]
    features: str = ""


@dataclass(frozen=True, eq=False)
class FeatureSubject:
    """The features of one hook point that are edited.

    groups: those that are edited together, by what tables call them, as places among the features of the codes. means:
    of all features of the codes, over training tokens; None if not asked for.
    """

    codes: FeatureCodes
    groups: Mapping[str, tuple[int, ...]]
    means: Float[Tensor, " feature"] | None


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
    directions: Directions | None = None,
    features: Mapping[HookPoint, FeatureSubject] | None = None,
) -> Design:
    """All trials, those of a pair and an intervention side by side, with one that pools them if there are several sets.

    interventions: names, of which each pair is given those that it can have. directions: only the component along those
    of the target is replaced. features: of each target, for the interventions that edit them. What does not depend on
    the source is one condition for all pairs of a target.
    """
    trials: list[Trial] = []
    conditions: dict[str, Condition] = {}
    several = len({name for subject in subjects.values() for name in subject.operators}) > 1
    for pair, subject in subjects.items():
        available = [(*it, "") for it in _available(pair, subject, interventions, d_model, seed)]
        if features is not None:
            available += _of_features(pair, subject, interventions, features[subject.target], seed)
        for wanted in interventions:
            for name, operator, place, intervention, chosen in available:
                if name != wanted:
                    continue
                label = f"{name} ({operator})" if operator and several else name
                label += f" {chosen}" if chosen else ""
                edit = intervention
                if directions is not None:
                    edit = AlongDirections(directions.at(subject.target), intervention)
                names = {js: f"{label} {place} at {position_text(js)}" for js in positions}
                for js, condition in names.items():
                    conditions.setdefault(condition, Condition(condition, edit, subject.target, js))
                    trials.append(Trial(pair, name, operator, label, position_text(js), (condition,), chosen))
                if len(positions) > 1:
                    trials.append(Trial(pair, name, operator, label, POOLED, tuple(names.values()), chosen))
    if not trials:
        raise StrataError(f"none of the interventions {', '.join(interventions)} can be made at these pairs of layers")
    return Design(tuple(trials), tuple(conditions.values()))


def _available(
    pair: LayerPair, subject: PairSubject, wanted: Sequence[str], d_model: int, seed: int
) -> Iterator[tuple[str, str, str, Intervention]]:
    """(intervention, operator's name, what tells its conditions apart, the intervention) of everything there is."""
    made: dict[str, dict[str, Intervention]] = {}
    if subject.source_mean is not None and subject.target_mean is not None:
        means = subject.source_mean, subject.target_mean
        made = {name: standard_interventions(it, *means, seed, wanted) for name, it in subject.operators.items()}
    made = made or {"": baseline_interventions(subject.source, d_model, subject.target_mean, seed)}
    offset = f"@{pair.offset:+d}" if pair.offset else ""
    for place, (operator, interventions) in enumerate(made.items()):
        for name, it in interventions.items():
            if name in OF_AN_OPERATOR:
                yield name, operator, str(pair), it
            elif place == 0:
                source = f"{subject.source.at(0)}->" if name == "identity" else ""
                yield name, "", f"{source}{subject.target}{offset}", it


def _of_features(
    pair: LayerPair, subject: PairSubject, wanted: Sequence[str], features: FeatureSubject, seed: int
) -> Iterator[tuple[str, str, str, Intervention, str]]:
    """As `_available`, with the features, of the interventions that edit them."""
    codes, place = features.codes, f"{subject.target}{f'@{pair.offset:+d}' if pair.offset else ''}"
    transports = {name: Transport(operator) for name, operator in subject.operators.items()}
    for label, places in features.groups.items():
        for name, transport in transports.items():
            yield "transport_features", name, str(pair), AlongLatents(codes, places, transport), label
        others: dict[str, Intervention] = {
            "ablate_features": AblateFeatures(codes, places),
            "random_features": AblateOthers(codes, places, seed),
        }
        if features.means is not None:
            others["mean_features"] = MeanFeatures(codes, places, features.means)
        for name, it in on_tokens_with(subject.source, others).items():
            yield name, "", place, it, label
