"""Streaming evaluation of several pairs against numpy on all rows at once, replicate by replicate."""

from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from src.activations.passes import Rows
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport import tally
from src.transport.bootstrap import DocumentBootstrap
from src.transport.evaluate import IDENTITY, MEAN, OPERATOR, PREDICTORS, SHIFT, judge_pairs, memory_blocks
from src.transport.metrics import QUANTILES
from src.transport.operator import TransportOperator
from src.transport.pairs import LayerPair

POINTS = [HookPoint("resid_post", layer) for layer in range(3)]
PAIRS = [LayerPair(0, 1), LayerPair(0, 2), LayerPair(1, 1)]
D, N_SEQUENCES, REPLICATES = 4, 12, 30
CPU = torch.device("cpu")


def make_data(seed=0, dtype=torch.float32):
    """Sequences of 2 to 9 tokens: the first is BOS, some others are left out; layer 0 has an outlier dimension."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 10, N_SEQUENCES)
    n = int(lengths.sum())
    base = rng.normal(size=(n, D)) * [1, 2, 300, 1] + [0, 1, 2000, 5]
    x = [base, base @ (np.eye(D) + 0.1 * rng.normal(size=(D, D))) + 3]
    x.append(x[1] + rng.normal(size=(n, D)))
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    for values in x:
        values[first] = 900.0
    counted = rng.random(n) > 0.2
    counted[first] = False
    counted[-1] = True
    rows = Rows(
        activations={point: torch.from_numpy(values).to(dtype) for point, values in zip(POINTS, x, strict=True)},
        document=torch.from_numpy(np.repeat(np.arange(N_SEQUENCES), lengths)),
        group=torch.zeros(n, dtype=torch.int64),
        is_counted=torch.from_numpy(counted),
        is_first=torch.from_numpy(np.isin(np.arange(n), first)),
    )
    means = {
        point: torch.from_numpy(rng.normal(size=D) + values.mean(0)) for point, values in zip(POINTS, x, strict=True)
    }
    operators = {}
    for pair in PAIRS:
        weight = np.eye(D) + 0.1 * rng.normal(size=(D, D))
        source, target = pair.source("resid_post"), pair.target("resid_post")
        tensors = torch.from_numpy(weight), torch.from_numpy(rng.normal(size=D))
        operators[pair] = TransportOperator(*tensors, source, target, "ridge", 2.5)
    return rows, means, operators


def part_of(rows, index):
    rest = (getattr(rows, name)[index] for name in ("document", "group", "is_counted", "is_first"))
    return Rows({point: x[index] for point, x in rows.activations.items()}, *rest)


def judge(rows, means, operators, batches=None, replicates=REPLICATES):
    return judge_pairs(
        operators, means, batches or [rows], DocumentBootstrap(replicates, seed=1), CPU, lambda _count: None
    )


def predictions(pair, rows, means, operators):
    x = rows.activations[pair.source("resid_post")].double().numpy()
    mean_x, mean_y = (means[point("resid_post")].numpy() for point in (pair.source, pair.target))
    weight, bias = operators[pair].weight.numpy(), operators[pair].bias.numpy()
    return {
        OPERATOR: x @ weight + bias,
        SHIFT: x + (mean_y - mean_x),
        IDENTITY: x,
        MEAN: np.broadcast_to(mean_y, x.shape),
    }


def by_numpy(truth, prediction, identity, row_weights):
    """Every score of every replicate, [score, replicate], from all rows with their weights, by scikit-learn's R2."""
    scores = []
    for weight in row_weights:
        if not weight.any():
            continue
        per_dimension = r2_score(truth, prediction, sample_weight=weight, multioutput="raw_values")
        weighted = r2_score(truth, prediction, sample_weight=weight, multioutput="variance_weighted")
        norms = np.linalg.norm(truth, axis=1) * np.linalg.norm(prediction, axis=1)
        sse, sse_identity = (weight @ (truth - each) ** 2 for each in (prediction, identity))
        scores.append(
            [
                per_dimension.mean(),
                weighted,
                sse.mean() / weight.sum(),
                weight @ ((truth * prediction).sum(1) / norms) / weight.sum(),
                1 - sse.sum() / sse_identity.sum(),
                *np.quantile(per_dimension, QUANTILES),
            ]
        )
    return np.array(scores).T


def all_scores(metrics, skill):
    estimates = [metrics.r2_uniform, metrics.r2_variance_weighted, metrics.mse, metrics.cosine, skill]
    return np.array([astuple(each) for each in [*estimates, *(metrics.r2_quantiles[q] for q in QUANTILES)]])


@pytest.mark.parametrize("block_numbers", [2**18, 1])
def test_every_score_and_interval_is_that_of_all_rows_at_once(monkeypatch, block_numbers):
    monkeypatch.setattr(tally, "_CPU_BLOCK", block_numbers)
    rows, means, operators = make_data(seed=3)
    n = len(rows.document)
    found = judge(rows, means, operators, [part_of(rows, index) for index in torch.arange(n).split(17)])
    weights = DocumentBootstrap(REPLICATES, seed=1).weights(torch.arange(N_SEQUENCES)).numpy()[:, rows.document]
    for pair in PAIRS:
        assert (found[pair].hook, found[pair].method, found[pair].alpha) == ("resid_post", "ridge", 2.5)
        assert tuple(found[pair].predictors) == PREDICTORS
        truth = rows.activations[pair.target("resid_post")].double().numpy()
        predicted = predictions(pair, rows, means, operators)
        for name, prediction in predicted.items():
            judgement = found[pair].predictors[name]
            for chosen, metrics in (
                (rows.is_counted, judgement.metrics),
                (rows.is_counted | rows.is_first, judgement.with_bos),
            ):
                keep = chosen.numpy()
                scores = by_numpy(truth[keep], prediction[keep], predicted[IDENTITY][keep], weights[:, keep])
                low, high = np.quantile(scores[:, 1:], [0.025, 0.975], axis=1)
                expected = np.stack([scores[:, 0], low, high], axis=1)
                ours = all_scores(metrics, judgement.skill)
                if metrics is judgement.with_bos:  # the skill is told for counted rows alone
                    ours, expected = np.delete(ours, 4, 0), np.delete(expected, 4, 0)
                assert metrics.n_rows == keep.sum()
                np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_results_depend_on_neither_order_nor_batching(data):
    rows, means, operators = make_data()
    n = len(rows.document)
    order = torch.tensor(data.draw(st.permutations(range(n))))
    size = data.draw(st.integers(1, n))
    whole = judge(rows, means, operators)
    parts = judge(rows, means, operators, [part_of(rows, index) for index in order.split(size)])
    for pair in PAIRS:
        for name in PREDICTORS:
            ours, expected = (
                all_scores(found[pair].predictors[name].metrics, found[pair].predictors[name].skill)
                for found in (parts, whole)
            )
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_pairs_judged_alone_score_as_they_do_together():
    rows, means, operators = make_data()
    together = judge(rows, means, operators)
    for pair in PAIRS:
        alone = judge(rows, means, {pair: operators[pair]})[pair]
        for name in PREDICTORS:
            for ours, expected in zip(
                all_scores(alone.predictors[name].with_bos, alone.predictors[name].skill),
                all_scores(together[pair].predictors[name].with_bos, together[pair].predictors[name].skill),
                strict=True,
            ):
                np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)


def test_weights_are_drawn_once_for_a_batch():
    rows, means, operators = make_data()
    drawn = []

    class Counting(DocumentBootstrap):
        def weights(self, document):
            drawn.append(document.tolist())
            return super().weights(document)

    judge_pairs(operators, means, [rows, rows], Counting(5, 0), CPU, lambda _count: None)
    assert drawn == [list(range(N_SEQUENCES))] * 2


def test_half_precision_rows_are_scored_in_float64():
    rows, means, operators = make_data(dtype=torch.bfloat16)
    found = judge(rows, means, operators, replicates=0)
    keep = rows.is_counted
    for pair in PAIRS:
        truth = rows.activations[pair.target("resid_post")][keep].double()
        expected = r2_score(truth, predictions(pair, rows, means, operators)[OPERATOR][keep])
        metrics = found[pair].predictors[OPERATOR].metrics
        assert metrics.r2_uniform.value == pytest.approx(expected, abs=1e-11)
        assert np.isnan([metrics.mse.low, metrics.mse.high]).all()


def test_mps_has_no_float64_so_the_cpu_stands_in():
    rows, means, operators = make_data()
    bootstrap = DocumentBootstrap(0, 0)
    found = judge_pairs(operators, means, [rows], bootstrap, torch.device("mps"), lambda _count: None)
    assert found[PAIRS[0]].predictors[OPERATOR].metrics.n_rows == int(rows.is_counted.sum())


def test_a_store_whose_first_tokens_count_has_no_scores_of_their_own():
    rows, means, operators = make_data()
    nothing = torch.zeros_like(rows.is_first)
    found = judge(Rows(rows.activations, rows.document, rows.group, rows.is_counted, nothing), means, operators)
    assert all(judgement.with_bos is None for each in found.values() for judgement in each.predictors.values())


def test_nothing_to_score_and_nothing_finite_are_refused():
    rows, means, operators = make_data()
    nothing = torch.zeros_like(rows.is_first)
    for batches in ([], [Rows(rows.activations, rows.document, rows.group, nothing, nothing)]):
        with pytest.raises(StrataError, match="split is empty"):
            judge_pairs(operators, means, batches, DocumentBootstrap(5, 0), CPU, lambda _count: None)
    rows.activations[POINTS[0]][rows.is_counted.nonzero()[3, 0], 1] = float("inf")
    with pytest.raises(StrataError, match="NaN or inf"):
        judge(rows, means, operators)


def test_blocks_of_pairs_fit_the_memory_and_lose_none():
    pairs = [LayerPair(layer, leap, j) for layer in range(6) for leap in range(1, 6 - layer) for j in (0, -1)]
    d, replicates = 100, 50

    def bytes_of(block):
        targets, sources = {(pair.L + pair.k, pair.offset) for pair in block}, {(pair.L, 0) for pair in block}
        arrays = 2 * len(block) + 2 * len(targets) + len(sources - targets)
        return 8 * (arrays * 2 * (replicates + 1) * d + len(block) * d * d)

    for memory in (1, 500_000, 2_000_000, 10**9):
        blocks = memory_blocks(pairs, d, replicates, memory)
        assert [pair for block in blocks for pair in block] == pairs
        assert all(len(block) == 1 or bytes_of(block) <= memory for block in blocks)
        # no block could have taken the first pair of the next one
        for block, following in pairwise(blocks):
            assert bytes_of([*block, following[0]]) > memory
    assert len(memory_blocks(pairs, d, replicates)) == 1


def test_sums_take_the_memory_that_blocks_count_on(monkeypatch):
    rows, means, operators = make_data()
    allocated = []
    original = tally.ReplicateSums.__init__

    def counting(sums, *arguments):
        original(sums, *arguments)
        allocated.append(sums._total.nbytes if sums._total.ndim > 2 else 0)

    monkeypatch.setattr(tally.ReplicateSums, "__init__", counting)
    judge(rows, means, operators)
    scalars = 8 * 2 * (REPLICATES + 1) * 3 * len(PAIRS)
    total = sum(allocated) - scalars + 8 * D * D * len(PAIRS)
    assert len(memory_blocks(PAIRS, D, REPLICATES, total)) == 1
    assert len(memory_blocks(PAIRS, D, REPLICATES, total - 1)) == 2
