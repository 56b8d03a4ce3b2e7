"""How well operators do that are fitted on part of the training documents: every fit from sums of blocks of them.

Training documents are dealt to blocks at random. A subset is some of the blocks; its moments are their sum, so that no
subset needs a pass over the rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

import numpy as np

from src.activations.moments import Moments
from src.config.scaling import subset_sizes
from src.errors import StrataError
from src.transport.closed_form import ClosedFormScore
from src.transport.fitting import PairFit, fit_pairs
from src.transport.jackknife import GroupJackknife, JackknifeScore
from src.transport.pairs import LayerPair
from src.transport.settings import FitSettings


@dataclass(frozen=True)
class Subset:
    """Some of the blocks, sorted. fraction: of all blocks, as it was asked for. draw: which random order it is of."""

    fraction: float
    draw: int
    blocks: tuple[int, ...]

    def folds(self, n_folds: int) -> list[list[int]]:
        """The blocks dealt to folds in turn; as many folds as blocks, where there are fewer.

        All blocks together, if n_folds divides their number, give the folds that a `split_groups` into n_folds gives.
        """
        n_folds = min(n_folds, len(self.blocks))
        return [list(self.blocks[fold::n_folds]) for fold in range(n_folds)]


def draw_subsets(n_blocks: int, fractions: Sequence[float], draws: int, seed: int) -> list[Subset]:
    """The subsets of a study, by fraction and draw: the first blocks of a random order, of which each draw has one.

    The subsets of one draw are nested, and a draw does not depend on how many there are. All blocks are one subset,
    whose draw is 0.
    """
    orders = [np.random.default_rng([seed, draw]).permutation(n_blocks) for draw in range(draws)]
    return [
        Subset(fraction, draw, tuple(sorted(order[:size].tolist())))
        for fraction, size in zip(fractions, subset_sizes(fractions, n_blocks), strict=True)
        for draw, order in enumerate(orders[:1] if size == n_blocks else orders)
    ]


@dataclass(frozen=True)
class HeldOut:
    """The scores of one predictor on the val documents, and on the test documents."""

    val: ClosedFormScore
    test: JackknifeScore


@dataclass(frozen=True)
class ScalingPoint:
    """The fit of one pair on one subset, beside the identity and the identity + shift (whose shift is the subset's).

    n_rows: counted training tokens. alpha, relative_alpha: as in `AffineFit`; the median, where outputs have their own.
    cv_score: mean R2 over the folds of what was chosen; at_edge: whether that is an end of the grid (None: nothing was
    tuned). unconverged: outputs that max_iter stopped (None: the method does not iterate).
    """

    pair: LayerPair
    subset: Subset
    n_rows: int
    n_folds: int
    alpha: float | None
    relative_alpha: float | None
    l1_ratio: float | None
    cv_score: float | None
    at_edge: bool | None
    unconverged: int | None
    operator: HeldOut
    identity: HeldOut
    shift: HeldOut


def require_rows(moments: Moments, subsets: Sequence[Subset], n_folds: int, test: Sequence[int]) -> None:
    """StrataError if a block or a group of test has no rows, or a fold of a subset too few for R2."""
    count = moments.count.tolist()
    blocks = {block for subset in subsets for block in subset.blocks}
    for groups, key, what in ((blocks, "blocks", "training"), (test, "test_blocks", "test")):
        if empty := sum(not count[group] for group in groups):
            raise StrataError(
                f"{empty} of {len(groups)} groups of the {what} documents hold no rows: use fewer {key}, or collect "
                "more"
            )
    for subset in subsets:
        fewest = min(sum(count[block] for block in fold) for fold in subset.folds(n_folds))
        if fewest < 2:
            rows = sum(count[block] for block in subset.blocks)
            raise StrataError(
                f"fractions: {subset.fraction:g} of the training documents is {rows:,} rows, of which a fold gets "
                f"{fewest}, and R2 needs 2: leave it out, use fewer blocks, or collect more"
            )


def study_scaling(
    moments: Moments,
    pairs: Sequence[LayerPair],
    hook: str,
    subsets: Sequence[Subset],
    n_folds: int,
    val: int,
    test: Sequence[int],
    settings: FitSettings,
    advance: Callable[[int], None] = lambda _: None,
) -> list[ScalingPoint]:
    """Fit every pair on every subset, choosing its penalty by cross-validation within the subset, and score the fits.

    moments: groups are the blocks, then val, then those of test. advance: is told the number of fits done.
    Raises StrataError when the moments lack a pair, or a group has no rows.
    """
    jackknife = GroupJackknife(moments, test)
    points: list[ScalingPoint] = []
    for source, of_source in groupby(sorted(pairs), key=lambda pair: pair.source(hook)):
        targets = list(of_source)
        products = [(source, source), *((source, pair.target(hook)) for pair in targets)]
        for subset in subsets:
            folds = subset.folds(n_folds)
            train = range(len(folds))
            merged = moments.merged([*folds, [val]], list(dict.fromkeys(products)))
            fits = fit_pairs(merged, targets, hook, train, len(folds), settings)
            n_rows = int(merged.count[: len(folds)].sum())
            points += [_point(fit, subset, n_rows, len(folds), merged, jackknife) for fit in fits]
            advance(len(fits))
    return points


def _point(
    fit: PairFit, subset: Subset, n_rows: int, n_folds: int, merged: Moments, jackknife: GroupJackknife
) -> ScalingPoint:
    operator, path = fit.operator, fit.path
    source, target, metadata = operator.source, operator.target, operator.metadata
    training = merged.subset(range(n_folds))
    shift = training.mean(target) - training.mean(source)
    alpha, relative = operator.alpha, metadata["relative_alpha"]
    if path is not None and "output_alphas" in metadata:
        alpha = median(metadata["output_alphas"])
        relative = alpha * float(path.relative_alphas[0] / path.alphas[0])
    return ScalingPoint(
        pair=fit.pair,
        subset=subset,
        n_rows=n_rows,
        n_folds=n_folds,
        alpha=alpha,
        relative_alpha=relative,
        l1_ratio=metadata.get("l1_ratio"),
        cv_score=None if path is None else path.best_score,
        at_edge=None if path is None else path.at_edge,
        unconverged=metadata.get("unconverged_outputs"),
        operator=HeldOut(fit.val, jackknife.score_affine(source, target, operator.weight, operator.bias)),
        identity=HeldOut(fit.identity, jackknife.score_identity(source, target, shifted_by=shift * 0)),
        shift=HeldOut(fit.shift, jackknife.score_identity(source, target, shifted_by=shift)),
    )
