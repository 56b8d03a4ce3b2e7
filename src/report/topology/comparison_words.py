"""What a comparison of topology says, in words; every threshold is free of scale."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import factorial

import numpy as np

from src.report.topology.compared import CKA, CloudPair, ComparedTopology, LayerMatrix, ResultPair
from src.topology.inference.rank_correlation import FEWEST


@dataclass(frozen=True)
class Levels:
    """From which debiased CKA on two clouds are called so."""

    nearly_the_same: float = 0.95
    alike: float = 0.5
    related: float = 0.1


LEVELS = Levels()


def interpretation(found: ComparedTopology) -> str:
    """Paragraphs: one for each pair of results, one for the layers of each."""
    agreement, parts = found.correspondence_q(), []
    for pair in found.pairs:
        sentences = [
            _agreement(pair, agreement, found.level),
            _overlap(pair),
            _shapes(pair),
            _loops(pair),
        ]
        parts.append(f"{pair.first} and {pair.second}: " + " ".join(filter(None, sentences)))
    parts += filter(None, (_layers(label, matrices) for label, matrices in found.within.items()))
    if found.losses:
        parts.append(pseudo_replication(len(found.losses)))
    return "\n\n".join(parts)


def pseudo_replication(n_models: int) -> str:
    """What may be concluded of topology and perplexity from so many models."""
    if n_models < 2:
        return "Topology and perplexity: one model correlates with nothing; measure several."
    text = (
        "Topology and perplexity: layers of one model are not independent of each other, and to count them as many "
        "would be pseudo-replication. The units here are models, each with the mean of its layers; models of one "
        "family, or trained on one corpus, are not independent either."
    )
    if n_models < FEWEST:
        text += (
            f" {n_models} models are too few for a p-value, so none is given: even a perfect order of {n_models} comes "
            f"about by chance in {2 / factorial(n_models):.0%} of the cases. From {FEWEST} models on there is one."
        )
    return text


def _agreement(pair: ResultPair, corrected: dict[tuple[str, str, str, str], float], level: float) -> str:
    paired = [cloud for cloud in pair.clouds if cloud.found.paired is not None]
    if not paired:
        return "Their points are not paired, so they are compared as clouds alone."

    def word(cloud: CloudPair) -> str:
        assert cloud.found.paired is not None
        cka = cloud.found.paired.debiased_cka.value
        q = corrected.get((pair.first, pair.second, cloud.first, cloud.second), np.nan)
        if not q <= level or cka < LEVELS.related:
            return "not related" if q <= level else "not told from shuffled ones"
        return "nearly the same" if cka >= LEVELS.nearly_the_same else "alike" if cka >= LEVELS.alike else "related"

    def values(clouds: Sequence[CloudPair]) -> str:
        ckas = [cloud.found.paired.debiased_cka.value for cloud in clouds if cloud.found.paired is not None]
        return f"debiased CKA {_range(ckas)}"

    return f"Row by row their clouds are {_by_layer(paired, word, values)}."


def _overlap(pair: ResultPair) -> str:
    unions = [cloud for cloud in pair.clouds if cloud.found.union is not None]
    if not unions:
        reason = next(cloud.found.no_union for cloud in pair.clouds)
        return f"Whether they overlap can't be said: {reason}."

    def word(cloud: CloudPair) -> str:
        assert cloud.found.union is not None
        return cloud.found.union.verdict

    def values(clouds: Sequence[CloudPair]) -> str:
        trees = [cloud.found.union.tests.friedman_rafsky for cloud in clouds if cloud.found.union is not None]
        return f"{_range([100 * tree.ratio for tree in trees], 0)} % of the expected cross edges"

    return f"In the space that they share: {_by_layer(unions, word, values)}."


def _shapes(pair: ResultPair) -> str:
    unions = [cloud for cloud in pair.clouds if cloud.found.union is not None]
    if not unions:
        return ""

    def word(cloud: CloudPair) -> str:
        assert cloud.found.union is not None
        return cloud.found.union.shape_verdict

    return f"About one centre and at one size: {_by_layer(unions, word, lambda _: '')}."


def _loops(pair: ResultPair) -> str:
    known = [cloud for cloud in pair.clouds if np.isfinite(cloud.found.loops.between)]
    if not known:
        return ""
    differing = [cloud.title for cloud in known if cloud.found.loops.differ]
    if not differing:
        return "Their loops are nowhere less alike than those of two halves of one cloud."
    where = "every layer" if len(differing) == len(known) else f"layer {', '.join(differing)}"
    return f"Their loops are less alike than those of two halves of one cloud at {where}."


def _layers(label: str, matrices: Sequence[LayerMatrix]) -> str:
    """How fast a model's cloud changes from layer to layer."""
    cka = next((matrix for matrix in matrices if matrix.measure == CKA), None)
    if cka is None or len(cka.rows) < 3:
        return ""
    steps = np.diagonal(cka.values, offset=1)
    if not np.isfinite(steps).all():
        return ""
    least = int(steps.argmin())
    return (
        f"Within {label}, neighbouring layers agree with a debiased CKA of {_range(steps.tolist())}, and change most "
        f"from {cka.rows[least]} to {cka.rows[least + 1]} ({steps[least]:.2f}); the first and the last with "
        f"{cka.values[0, -1]:.2f}."
    )


def _by_layer(
    clouds: Sequence[CloudPair], word: Callable[[CloudPair], str], values: Callable[[Sequence[CloudPair]], str]
) -> str:
    """One word for each run of layers, with the range of its values."""
    parts = []
    for name, run in groupby(clouds, word):
        members = list(run)
        first, last = members[0].title, members[-1].title
        is_layer = members[0].layers[0] is not None
        told = values(members)
        number = f"layers {first} to {last}" if len(members) > 1 else f"layer {first}"
        where = f" at {number if is_layer else first}"
        if len(members) == len(clouds) and (len(clouds) > 1 or not is_layer):
            where = " at every layer" if is_layer else ""
        parts.append(f"{name}{where}{f' ({told})' if told else ''}")
    return "; ".join(parts)


def _range(values: Sequence[float], decimals: int = 2) -> str:
    low, high = (f"{end:.{decimals}f}" for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
