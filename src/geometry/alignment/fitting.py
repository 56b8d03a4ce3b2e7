"""Fits over and over: on anchors whose partners are shuffled, and on fewer and fewer of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int

from src.geometry.alignment.maps import AffineMap, Method, fit, method_of
from src.geometry.alignment.rows import PairedRows
from src.geometry.alignment.scatter import Scatter
from src.geometry.alignment.scores import Interval, UnitBootstrap, held_out, score_intervals, score_tokens

Advance = Callable[[int], None]
# of the scores of a map, those that shuffled pairs are held against
TESTED = ("cosine", "explained")


@dataclass(frozen=True)
class AlignmentSettings:
    """How maps are fitted and judged.

    alphas: relative to the mean eigenvalue of the scatter, tried on the validation pairs. shuffles: maps fitted on
    anchors whose partners are shuffled. bootstrap: draws for intervals. curve_points: anchor counts of the learning
    curve. queries, candidates: tokens of retrieval; more are drawn from.
    """

    methods: tuple[Method, ...]
    alphas: tuple[float, ...]
    shuffles: int
    bootstrap: int
    curve_points: int
    queries: int
    candidates: int
    seed: int


@dataclass(frozen=True)
class CurvePoint:
    """Held-out scores of a map that was fitted on so many anchors."""

    method: str
    anchors: int
    cosine: Interval
    explained: Interval


@dataclass(frozen=True, eq=False)
class Moments:
    """What maps are fitted on and chosen by; both about the anchors' means."""

    train: Scatter
    val: Scatter

    @classmethod
    def of(cls, train: PairedRows, val: PairedRows, device: torch.device | str) -> Self:
        """Add up the pairs."""
        fitted = Scatter.of(train.source, train.target, device)
        centres = fitted.source_centre, fitted.target_centre
        return cls(fitted, Scatter.of(val.source, val.target, device, centres))


def mean_scores(found: AffineMap, test: PairedRows) -> dict[str, float]:
    """The tested scores over all held-out tokens."""
    scores = score_tokens(*held_out(test, found), found.target_centre)
    return {"cosine": float(scores.cosine.mean()), "explained": scores.explained}


def shuffled_scores(
    train: PairedRows,
    val: PairedRows,
    test: PairedRows,
    maps: Mapping[str, AffineMap],
    settings: AlignmentSettings,
    device: torch.device | str,
    advance: Advance,
) -> dict[str, dict[str, Float[np.ndarray, " draw"]]]:
    """Held-out scores of maps that are fitted, and chosen, on pairs whose partners are shuffled.

    The test pairs stay as they are: what is left of a score is what needs no correspondence. The regularisation of CCA
    is that of the true pairs (its number of components is chosen anew); that of ridge is chosen anew.
    """
    found: dict[str, dict[str, list[float]]] = {name: {score: [] for score in TESTED} for name in maps}
    random = np.random.default_rng([settings.seed, 7])
    for _ in range(settings.shuffles):
        moments = Moments.of(_shuffled(train, random), _shuffled(val, random), device)
        for name, seen in maps.items():
            alphas = (seen.settings["alpha"],) if name == "cca" else settings.alphas
            drawn = mean_scores(fit(method_of(seen), moments.train, moments.val, alphas), test)
            for score in TESTED:
                found[name][score].append(drawn[score])
            advance(1)
    return {name: {score: np.array(values) for score, values in drawn.items()} for name, drawn in found.items()}


def _shuffled(rows: PairedRows, random: np.random.Generator) -> PairedRows:
    order = torch.from_numpy(random.permutation(len(rows))).to(rows.target.device)
    return PairedRows(rows.source, rows.target[order], rows.group, rows.unit, rows.labels)


def learning_curve(
    train: PairedRows,
    val: Scatter,
    test: PairedRows,
    settings: AlignmentSettings,
    device: torch.device | str,
    advance: Advance,
) -> list[CurvePoint]:
    """Held-out scores over the number of anchors; each set of anchors is part of the next.

    Rotations need more anchors than dimensions: they have fewer points.
    """
    order = np.random.default_rng([settings.seed, 8]).permutation(len(train))
    bootstrap = UnitBootstrap(test.unit, settings.bootstrap, settings.seed)
    width = min(train.source.shape[1], train.target.shape[1])
    points = []
    for n in anchor_counts(len(train), settings.curve_points):
        part = train.take(order[:n])
        fitted = Scatter.of(part.source, part.target, device)
        chosen = val.about(fitted.source_centre, fitted.target_centre)
        for method in settings.methods:
            if n > width or method not in ("orthogonal", "scaled"):
                found = fit(method, fitted, chosen, settings.alphas)
                scores = score_tokens(*held_out(test, found), found.target_centre)
                intervals = score_intervals(scores, bootstrap)
                points.append(CurvePoint(method, n, intervals["cosine"], intervals["explained"]))
            advance(1)
    return points


def anchor_counts(n: int, points: int) -> list[int]:
    """Numbers of anchors up to n, in equal ratios, from n / 32 (but 4 at least) on."""
    if points < 1:
        return []
    least = min(n, max(4, n // 32))
    return sorted({round(float(count)) for count in np.geomspace(n, least, points)})


def drawn(n: int, most: int, seed: int) -> Int[np.ndarray, " chosen"]:
    """All of n, or so many of them at random, in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng([seed, 6]).choice(n, most, replace=False))
