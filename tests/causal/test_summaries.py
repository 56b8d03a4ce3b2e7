"""Summaries against plain sums over documents drawn with the same weights."""

import math

import numpy as np
import pytest
import torch

from src.causal.scores import EditProof, TokenScores
from src.causal.summaries import ScoreSums
from src.causal.sums import SequenceSums
from src.errors import StrataError
from src.transport.bootstrap import DocumentBootstrap, Estimate

N_SEQUENCES, N_POSITIONS = 9, 7
DOCUMENTS = torch.tensor([5, 5, 2, 8, 2, 5, 11, 12, 13])
BOOTSTRAP = DocumentBootstrap(50, seed=4)


def random_scores(first: dict[str, int], harm: dict[str, float]) -> TokenScores:
    """Conditions whose edits begin at a position, and raise the NLL by about `harm`."""
    draws = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, N_POSITIONS + 1, (N_SEQUENCES,), generator=draws)
    predicted = torch.arange(N_POSITIONS) < lengths[:, None]
    clean = torch.rand(predicted.shape, generator=draws) * predicted
    affected = torch.stack([predicted & (torch.arange(N_POSITIONS) >= start) for start in first.values()])
    shape = affected.shape
    added = torch.rand(shape, generator=draws) * torch.tensor(list(harm.values()))[:, None, None]
    return TokenScores(
        conditions=tuple(first),
        predicted=predicted,
        clean_nll=clean,
        nll=clean + added * affected,
        kl=torch.rand(shape, generator=draws) * affected,
        agrees=(torch.rand(shape, generator=draws) < 0.5) & affected | (predicted & ~affected),
        affected=affected,
        proofs={name: EditProof(1, 0.0, 0.0) for name in first},
    )


SCORES = random_scores({"zero": 2, "transport": 2, "late": 4}, {"zero": 2.0, "transport": 0.5, "late": 1.0})


def score_sums(scores: TokenScores, distances: tuple[int, ...] = (0,)) -> ScoreSums:
    return ScoreSums(SequenceSums.of(scores, DOCUMENTS, distances), BOOTSTRAP)


def by_hand(values: torch.Tensor, where: torch.Tensor) -> np.ndarray:
    """Weighted mean of values at `where`, for each replicate: one loop over sequences."""
    weights = dict(zip([2, 5, 8, 11, 12, 13], BOOTSTRAP.weights(torch.tensor([2, 5, 8, 11, 12, 13])).T, strict=True))
    above, below = np.zeros(51), np.zeros(51)
    for sequence, document in enumerate(DOCUMENTS.tolist()):
        weight = weights[document].numpy()
        above += weight * float(values[sequence][where[sequence]].double().sum())
        below += weight * int(where[sequence].sum())
    with np.errstate(invalid="ignore"):
        return above / below


def assert_estimate(found: Estimate, replicates: np.ndarray) -> None:
    drawn = replicates[1:][np.isfinite(replicates[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose([found.value, found.low, found.high], [replicates[0], low, high], rtol=1e-9)


@pytest.mark.parametrize("condition", ["zero", "transport", "late"])
def test_summaries_are_weighted_means_of_token_scores(condition: str) -> None:
    place = SCORES.conditions.index(condition)
    affected, predicted = SCORES.affected[place], SCORES.predicted
    change = SCORES.nll[place].double() - SCORES.clean_nll.double()
    summary = score_sums(SCORES).summary(condition)
    assert (summary.n_predictions, summary.n_affected) == (int(predicted.sum()), int(affected.sum()))
    assert_estimate(summary.nll_clean, by_hand(SCORES.clean_nll, predicted))
    assert_estimate(summary.nll_change, by_hand(change, predicted))
    assert_estimate(summary.nll_clean_affected, by_hand(SCORES.clean_nll, affected))
    assert_estimate(summary.nll_change_affected, by_hand(change, affected))
    assert_estimate(summary.kl_affected, by_hand(SCORES.kl[place], affected))
    assert_estimate(summary.agreement_affected, by_hand(SCORES.agrees[place].float(), affected))
    assert summary.nll_change_affected.value > summary.nll_change.value


def test_pooled_conditions_are_means_over_all_their_predictions() -> None:
    sums = score_sums(SCORES)
    pooled, zero, late = sums.summary("zero", "late"), sums.summary("zero"), sums.summary("late")
    n = zero.n_affected + late.n_affected
    assert (pooled.n_affected, pooled.n_predictions) == (n, 2 * zero.n_predictions)
    parts = zero.nll_change_affected.value * zero.n_affected + late.nll_change_affected.value * late.n_affected
    assert pooled.nll_change_affected.value == pytest.approx(parts / n)
    assert pooled.nll_change.value == pytest.approx((zero.nll_change.value + late.nll_change.value) / 2)
    assert pooled.nll_clean == zero.nll_clean


def test_recovered_share_is_a_paired_ratio() -> None:
    sums = score_sums(SCORES)
    predicted = SCORES.predicted
    zero, transport = (by_hand(SCORES.nll[place], predicted) for place in (0, 1))
    clean = by_hand(SCORES.clean_nll, predicted)
    found = sums.recovered_share("transport", "zero")
    drawn = (zero - transport) / (zero - clean)
    np.testing.assert_allclose(found.value, drawn[0], rtol=1e-6)
    np.testing.assert_allclose([found.low, found.high], np.nanquantile(drawn[1:], [0.025, 0.975]), rtol=1e-6)
    assert sums.recovered_share("zero", "zero") == Estimate(0.0, 0.0, 0.0)
    assert sums.recovered_share(["transport", "zero"], ["zero", "zero"]).value == pytest.approx(found.value / 2)
    with pytest.raises(StrataError, match="give both the same positions"):
        sums.recovered_share("late", "zero")
    with pytest.raises(StrataError, match="give both the same positions"):
        sums.recovered_share(["zero", "transport"], "zero")


def test_nothing_is_recovered_where_the_reference_does_no_harm() -> None:
    scores = random_scores({"zero": 0, "transport": 0}, {"zero": -1.0, "transport": 0.1})
    share = score_sums(scores).recovered_share("transport", "zero")
    assert all(math.isnan(number) for number in (share.value, share.low, share.high))


def test_a_share_of_hardly_any_harm_has_no_interval() -> None:
    """Harm of 1 nat in one document of six: a third of the replicates are without it, and nothing is to recover."""
    scores = random_scores({"zero": 0, "transport": 0}, {"zero": 0.0, "transport": 0.0})
    scores.nll[0, 3, 0] += 1
    scores.nll[1, 3, 0] += 0.25
    share = score_sums(scores).recovered_share("transport", "zero")
    assert share.value == pytest.approx(0.75)
    assert math.isnan(share.low)
    assert math.isnan(share.high)


def test_change_by_distance_from_the_first_edit() -> None:
    sums = score_sums(SCORES, (0, 1, 3, 5))
    found = sums.change_by_distance("late")
    change = (SCORES.nll[2] - SCORES.clean_nll).double()
    for estimate, distances in zip(found, ([0], [1, 2]), strict=False):
        at = torch.zeros_like(SCORES.predicted)
        for distance in distances:
            at[:, 4 + distance] = SCORES.affected[2][:, 4 + distance]
        assert_estimate(estimate, by_hand(change, at))
    assert all(math.isnan(estimate.value) for estimate in found[2:])
    assert len(found) == 4
    # pooled: the sums of both over the number of both
    pooled, zero = sums.change_by_distance("zero", "late")[0], sums.change_by_distance("zero")[0]
    n_zero, n_late = (int(SCORES.affected[place].any(1).sum()) for place in (0, 2))
    mean = (zero.value * n_zero + found[0].value * n_late) / (n_zero + n_late)
    assert pooled.value == pytest.approx(mean)
    with pytest.raises(StrataError, match="bins of distance must ascend from 0"):
        score_sums(SCORES, (1, 3))


def test_batches_that_are_joined_give_the_sums_of_the_whole() -> None:
    """Documents 5 and 2 have sequences in both batches; the second batch is narrower."""
    whole = SequenceSums.of(SCORES, DOCUMENTS, (0, 2))
    batches = []
    for rows in (slice(0, 5), slice(5, None)):
        width = int(SCORES.predicted[rows].sum(1).max())
        at = rows, slice(0, width)
        batch = TokenScores(
            SCORES.conditions,
            SCORES.predicted[at],
            SCORES.clean_nll[at],
            *(tensor[:, rows, :width] for tensor in (SCORES.nll, SCORES.kl, SCORES.agrees, SCORES.affected)),
            SCORES.proofs,
        )
        batches.append(SequenceSums.of(batch, DOCUMENTS[rows], (0, 2)))
    joined = SequenceSums.join(batches)
    for name in ("document", "n_all", "clean_all", "n", "clean", "change", "kl", "agreement", "n_at", "change_at"):
        torch.testing.assert_close(getattr(joined, name), getattr(whole, name))
    assert whole.n_at.sum(2).equal(whole.n)
    torch.testing.assert_close(whole.change_at.sum(2), whole.change)
    with pytest.raises(StrataError, match="no sequences to evaluate"):
        SequenceSums.join([])


def test_intervals_cover_the_truth_about_as_often_as_they_claim() -> None:
    """Documents whose changes have mean 1: 95 % of intervals hold 1, within what 200 runs and 40 documents allow."""
    draws = torch.Generator().manual_seed(0)
    covered = 0
    ones = torch.ones(40, 1, dtype=torch.bool)
    for run in range(200):
        change = 1 + torch.randn(40, 1, generator=draws)
        scores = TokenScores(("x",), ones, change * 0, change[None], change[None] * 0, ones[None], ones[None], {})
        sums = SequenceSums.of(scores, torch.arange(40))
        estimate = ScoreSums(sums, DocumentBootstrap(200, run)).summary("x").nll_change
        covered += estimate.low <= 1 <= estimate.high
    assert 0.88 <= covered / 200 <= 0.98


def test_conditions_that_are_unknown_or_change_nothing_are_refused() -> None:
    sums = score_sums(random_scores({"far": 20}, {"far": 1.0}))
    with pytest.raises(StrataError, match="condition far changes no prediction: no sequence reaches its positions"):
        sums.summary("far")
    for names in (("near",), ()):
        with pytest.raises(StrataError, match=r"there is no condition (near|\(none named\)): choose from far"):
            sums.summary(*names)
