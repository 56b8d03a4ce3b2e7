"""One space mapped to another: all maps fitted on anchors, judged on held-out tokens, beside what they must beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control

from src.errors import StrataError
from src.geometry.alignment.fitting import (
    Advance,
    AlignmentSettings,
    CurvePoint,
    Moments,
    drawn,
    learning_curve,
    mean_scores,
    shuffled_scores,
)
from src.geometry.alignment.maps import AffineMap, baselines, fit
from src.geometry.alignment.relations import MOST_TOKENS, Relations, relations
from src.geometry.alignment.retrieval import chance, retrieval
from src.geometry.alignment.rows import Group, PairedRows
from src.geometry.alignment.scores import (
    Interval,
    TokenScores,
    UnitBootstrap,
    cosines,
    held_out,
    residual_spectrum,
    score_intervals,
    score_tokens,
    summary,
)

# held-out tokens without which nothing can be said
FEWEST_TEST = 10


@dataclass(frozen=True, eq=False)
class MapResult:
    """One map.

    fitted: by a method, not a baseline. anchor_cosine: mean over the pairs that it was fitted on, which says little
    (spec F: 0.27 for independent data).
    intervals: of `scores.score_intervals`. summaries: of cosine, raw_cosine and distance over test tokens. null: of
    each tested score, the values after fits on shuffled pairs; p, q: of as much or more among them, q corrected
    (Benjamini and Hochberg) over all maps and tested scores. Both are empty for what was not fitted on pairs.
    spectrum: of the residual, as shares of the target's variance on test tokens. mismatched: cosines of predictions
    with the rows of other test tokens, each with one that was drawn.
    """

    map: AffineMap
    fitted: bool
    anchor_cosine: float
    scores: TokenScores
    intervals: Mapping[str, Interval]
    summaries: Mapping[str, Mapping[str, float]]
    null: Mapping[str, Float[np.ndarray, " draw"]]
    p: Mapping[str, float]
    q: Mapping[str, float]
    relations: Relations | None
    spectrum: Float[np.ndarray, " d_target"]
    mismatched: Float[np.ndarray, " token"]


@dataclass(frozen=True, eq=False)
class Alignment:
    """All that is known of two spaces.

    maps: the fitted ones, then baselines. raw, centred: relations over test tokens of both spaces as they are, and less
    the training pairs' means: no map is in them. best: the fitted map that explains most of the validation pairs.
    spectrum: of the target on test tokens. ceiling: share of the target's variance on test tokens that a map of the
    source's width could reach at all, 1 unless the target is wider. test: rows of the test tokens among the pairs.
    """

    maps: Mapping[str, MapResult]
    best: str
    raw: Relations
    centred: Relations
    curve: Sequence[CurvePoint]
    spectrum: Float[np.ndarray, " d_target"]
    ceiling: float
    counts: Mapping[str, int]
    n_units: int
    n_queries: int
    n_candidates: int
    test: Int[np.ndarray, " token"]

    def chance(self, rank: int) -> float:
        """P@rank by guessing."""
        return chance(self.n_candidates, rank)


def align(rows: PairedRows, settings: AlignmentSettings, device: torch.device | str, advance: Advance) -> Alignment:
    """Fit, and judge. advance: is told of each map that was fitted (`n_steps` of them).

    Raises StrataError: too few pairs of a group, or too few anchors for a rotation.
    """
    counts = {group.name.lower(): len(rows.of(group)) for group in Group}
    check_counts(counts)
    train, val, test = (rows.take(rows.of(group)) for group in (Group.TRAIN, Group.VAL, Group.TEST))
    moments = Moments.of(train, val, device)
    maps = {}
    for method in settings.methods:
        maps[method] = fit(method, moments.train, moments.val, settings.alphas)
        advance(1)
    best = max(maps, key=lambda name: moments.val.explained(maps[name].weight))
    nulls = shuffled_scores(train, val, test, maps, settings, device, advance)
    maps |= {found.name: found for found in baselines(moments.train)}
    p = _p_values(maps, nulls, test)
    q = dict(zip(p, false_discovery_control(list(p.values())), strict=True)) if p else {}

    bootstrap = UnitBootstrap(test.unit, settings.bootstrap, settings.seed)
    asked = _Asked.of(rows, settings)
    compared = test.take(drawn(len(test), MOST_TOKENS, settings.seed))
    anchors = train.take(drawn(len(train), MOST_TOKENS, settings.seed))
    others = mismatch(len(test), settings.seed)
    results = {}
    for name, found in maps.items():
        predicted, true = held_out(test, found)
        scores = score_tokens(predicted, true, found.target_centre)
        null = nulls.get(name, {})
        results[name] = MapResult(
            map=found,
            fitted=name in settings.methods,
            anchor_cosine=float(score_tokens(*held_out(anchors, found), found.target_centre).cosine.mean()),
            scores=scores,
            intervals=score_intervals(scores, bootstrap) | asked.intervals(found, settings),
            summaries={
                "cosine": summary(scores.cosine),
                "raw_cosine": summary(scores.raw_cosine),
                "distance": summary(scores.distance),
            },
            null=null,
            p={score: p[name, score] for score in null},
            q={score: float(q[name, score]) for score in null},
            relations=None
            if name == "mean"
            else relations(*held_out(compared, found), compared.unit, settings.shuffles, settings.seed),
            spectrum=residual_spectrum(predicted, true)[0],
            mismatched=cosines(predicted, true[others]).cpu().numpy(),
        )
        advance(1)
    centre = maps[best].source_centre, maps[best].target_centre
    x, y = (side.to(centre[0].device).double() for side in (compared.source, compared.target))
    spectrum = residual_spectrum(*held_out(test, maps[best]))[1]
    curve = learning_curve(train, moments.val, test, settings, device, advance)
    return Alignment(
        maps=results,
        best=best,
        raw=relations(x, y, compared.unit, settings.shuffles, settings.seed),
        centred=relations(x - centre[0], y - centre[1], compared.unit, settings.shuffles, settings.seed),
        curve=curve,
        spectrum=spectrum,
        ceiling=float(spectrum[: rows.source.shape[1]].sum()),
        counts=counts,
        n_units=bootstrap.n_units,
        n_queries=len(asked.queries),
        n_candidates=len(asked.rows),
        test=rows.of(Group.TEST),
    )


def mismatch(n: int, seed: int) -> Int[np.ndarray, " token"]:
    """Another token for each of n: the next one around a random circle."""
    circle = np.random.default_rng([seed, 9]).permutation(n)
    other = np.empty(n, np.int64)
    other[circle] = np.roll(circle, 1)
    return other


def n_steps(settings: AlignmentSettings) -> int:
    """Maps that `align` fits or judges, at most."""
    n_methods = len(settings.methods)
    return n_methods * (2 + settings.shuffles + settings.curve_points) + 3


def check_counts(counts: Mapping[str, int]) -> None:
    """StrataError where a group has too few pairs for anything to be said."""
    if counts["test"] < FEWEST_TEST or counts["val"] < 2 or counts["train"] < 4:
        raise StrataError(
            f"{counts['train']} pairs to fit on, {counts['val']} to choose by and {counts['test']} to judge by are too "
            f"few (4, 2 and {FEWEST_TEST} are the least): choose models that share more tokens, or other split.*"
        )


def _p_values(
    maps: Mapping[str, AffineMap], nulls: Mapping[str, Mapping[str, np.ndarray]], test: PairedRows
) -> dict[tuple[str, str], float]:
    found = {}
    for name, null in nulls.items():
        seen = mean_scores(maps[name], test)
        for score, values in null.items():
            found[name, score] = (1 + int((values >= seen[score]).sum())) / (1 + len(values))
    return found


@dataclass(frozen=True, eq=False)
class _Asked:
    """Retrieval: which tokens are candidates, and which of the test tokens are asked for theirs.

    rows: the candidates. queries: places among them.
    """

    rows: PairedRows
    queries: Int[np.ndarray, " query"]

    @classmethod
    def of(cls, rows: PairedRows, settings: AlignmentSettings) -> "_Asked":
        test = rows.of(Group.TEST)
        asked = test[drawn(len(test), settings.queries, settings.seed)]
        others = np.setdiff1d(np.arange(len(rows)), asked)
        others = others[drawn(len(others), max(0, settings.candidates - len(asked)), settings.seed)]
        candidates = np.sort(np.concatenate([asked, others]))
        return cls(rows.take(candidates), np.searchsorted(candidates, asked))

    def intervals(self, found: AffineMap, settings: AlignmentSettings) -> dict[str, Interval]:
        """P@1 and P@10 by cosine and CSLS."""
        bootstrap = UnitBootstrap(self.rows.unit[self.queries], settings.bootstrap, settings.seed)
        hits = retrieval(*held_out(self.rows, found), self.queries)
        return {name: bootstrap.mean(values) for name, values in hits.items()}
