"""The matched-rank analysis of saved operators: every rank against its ceiling, and the size of what is transported."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from src.activations.moments import Moments
from src.activations.passes import Rows, rows_by_part
from src.activations.store import ActivationStore
from src.hook_points import HookPoint
from src.stage.context import Stage
from src.stage.moments import pair_products, prepare_moments
from src.stage.stores import Split
from src.transport.bootstrap import DocumentBootstrap
from src.transport.canonical import CrossFit, cross_fitted_correlations, floor_for
from src.transport.matched_rank import PairRanks, RankSettings
from src.transport.pairs import LayerPair
from src.transport.permutation import PermutationTest
from src.transport.permutation_pass import shuffled_cross_fits
from src.transport.rank import MatchedRank, RankFamilies, rank_families
from src.transport.rank_bootstrap import RankBands, bootstrap_ranks, rank_blocks
from src.transport.saved import SavedOperator

# a null of so few documents, each of which may stay where it was, has few values and is too wide
_FEW_PER_FOLD = 8


def match_operators(
    operators: Mapping[LayerPair, SavedOperator],
    store: ActivationStore,
    split: Split,
    settings: RankSettings,
    bootstrap: DocumentBootstrap,
    stage: Stage,
) -> dict[LayerPair, PairRanks]:
    """Analyse all pairs: maps are found on the folds of train, which the operators were fitted on, and scored on test.

    One pass over the store for the moments, if no artifact holds them; then passes over test for the intervals and
    over train for the null, one of each where everything fits into memory.
    """
    fitted = next(iter(operators.values())).settings
    hook, pairs = fitted["hook"], list(operators)
    products = pair_products(pairs, hook, targets_too=True)
    store.require([point for pair in products for point in pair])
    offsets = fitted["row_offsets"]
    moments = prepare_moments(stage, store, split, products, fitted["precision"], with_test=True, offsets=offsets)
    floor = floor_for(moments, settings.floor)
    scored: dict[LayerPair, tuple[MatchedRank, RankBands]] = {}
    blocks = rank_blocks(pairs, store.layout.d_model, bootstrap.replicates)
    with stage.progress("matched rank", None, "tokens") as advance:
        for block in blocks:
            families = {pair: _families(operators[pair], moments, split, settings, floor) for pair in block}
            points = [point for each in families.values() for point in (each.source, each.target)]
            test = rows_by_part(store, points, split.groups, [split.test], split.documents, offsets)
            bands = bootstrap_ranks(families, test, bootstrap, stage.device, advance)
            held_out = moments.subset([split.test])
            scored |= {
                pair: (each.match(held_out).without_directions(), bands[pair]) for pair, each in families.items()
            }

    def train_rows(points: Sequence[HookPoint]) -> Iterator[Rows]:
        return rows_by_part(store, points, split.groups, split.train, split.documents, offsets)

    ends = [(pair.source(hook), pair.target(hook)) for pair in pairs]
    sizes = _sizes(moments, ends, train_rows, split, settings, floor, stage)
    return {pair: PairRanks(*scored[pair], *size) for pair, size in zip(pairs, sizes, strict=True)}


def _families(
    saved: SavedOperator, moments: Moments, split: Split, settings: RankSettings, floor: float
) -> RankFamilies:
    operator, train = saved.load(), moments.subset(split.train)
    alpha = settings.penalty(operator, saved.settings["fit"], train)
    return rank_families(train, operator.source, operator.target, operator.weight, alpha, floor)


def _sizes(
    moments: Moments,
    ends: Sequence[tuple[HookPoint, HookPoint]],
    train_rows: Callable[[Sequence[HookPoint]], Iterator[Rows]],
    split: Split,
    settings: RankSettings,
    floor: float,
    stage: Stage,
) -> list[tuple[CrossFit, PermutationTest | None]]:
    """Cross-fitted correlations of each source and target, and their null. train_rows: starts a pass over train."""
    if not settings.permutations:
        return [(cross_fitted_correlations(moments, *pair, split.train, floor), None) for pair in ends]
    _warn_of_few_documents(split, stage)
    with stage.progress("permutations", len(ends) * settings.permutations, "replicates") as advance:
        found = shuffled_cross_fits(
            moments, ends, split.train, train_rows, settings.permutations, stage.config.seed, floor, advance
        )
        return [(observed, PermutationTest.of(observed, null)) for observed, null in found]


def _warn_of_few_documents(split: Split, stage: Stage) -> None:
    fewest = min(len(np.unique(split.documents[split.groups == fold])) for fold in split.train)
    if fewest < _FEW_PER_FOLD:
        stage.warn(
            f"a fold holds only {fewest} documents: shuffling so few gives a poor null; collect more, or fit with "
            "fewer folds (cv_folds)"
        )
