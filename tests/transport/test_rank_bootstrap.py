"""Intervals over the ranks against maps of one rank at a time, applied to rows that are weighted one by one."""

import numpy as np
import pytest
import torch

from src.activations.passes import Rows
from src.errors import StrataError
from src.transport.bootstrap import DocumentBootstrap
from src.transport.pairs import LayerPair
from src.transport.rank import match_ranks, rank_families
from src.transport.rank_bootstrap import bootstrap_ranks, rank_blocks
from src.transport.rank_factors import METRICS
from tests.fixtures.planted_transport import X, Y, mixing, moments_of

CPU = torch.device("cpu")
PAIR = LayerPair(0, 1)


def rows(n, d_in, d_out, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d_in)) @ mixing(rng, d_in) + 3 * rng.standard_normal(d_in)
    y = np.tanh(x) @ rng.standard_normal((d_in, d_out)) + 2 * rng.standard_normal((n, d_out))
    return x, y * np.geomspace(0.2, 5, d_out) - 4


def batches(x, y, document, sizes, uncounted=()):
    """Rows in batches, as a store gives them."""
    counted = np.ones(len(x), bool)
    counted[list(uncounted)] = False
    for chosen in np.split(np.arange(len(x)), np.cumsum(sizes)[:-1]):
        tensors = [torch.from_numpy(each[chosen]) for each in (x, y, document, counted)]
        nothing = torch.zeros(len(chosen), dtype=torch.int64)
        yield Rows({X: tensors[0], Y: tensors[1]}, tensors[2], nothing, tensors[3], nothing.bool())


def analysed(x, y, alpha, bootstrap, sizes=(30, 50, 40), n_train=300):
    """Families from the first rows, bands from the rest, and what `match_ranks` says of it."""
    weight = torch.from_numpy(np.random.default_rng(5).standard_normal((x.shape[1], y.shape[1])))
    moments = moments_of(x, y, (np.arange(len(x)) >= n_train).astype(int))
    train, held_out = moments.subset([0]), moments.subset([1])
    families = rank_families(train, X, Y, weight, alpha)
    document = np.arange(len(x) - n_train) // 6
    seen = []
    streamed = batches(x[n_train:], y[n_train:], document, sizes)
    bands = bootstrap_ranks({PAIR: families}, streamed, bootstrap, CPU, seen.append)[PAIR]
    assert seen == list(sizes)
    return families, bands, match_ranks(train, held_out, X, Y, weight, alpha), document


@pytest.mark.parametrize("alpha", [0.0, 30.0])
@pytest.mark.parametrize(("d_in", "d_out"), [(10, 10), (7, 11), (11, 7)])
def test_the_pass_gives_the_curves_of_the_moments(alpha, d_in, d_out):
    _, bands, matched, _ = analysed(*rows(420, d_in, d_out), alpha, DocumentBootstrap(3, 0))
    for metric in METRICS:
        np.testing.assert_allclose(bands.ceiling[metric].value, matched.ceiling[metric], rtol=0, atol=1e-8)
        for family, curves in matched.r2.items():
            np.testing.assert_allclose(bands.r2[family][metric].value, curves[metric], rtol=0, atol=1e-8)
            efficiency = matched.efficiency(family, metric)
            np.testing.assert_allclose(bands.efficiency[family][metric].value, efficiency, rtol=1e-7, atol=1e-8)


def weighted_r2(x, y, weight, root, weights):
    """R2 about 0 of one map over weighted rows of deviations."""
    error = np.square((y - x @ weight) @ root).sum(1)
    return 1 - (weights @ error) / (weights @ np.square(y @ root).sum(1))


@pytest.mark.parametrize("alpha", [0.0, 30.0])
def test_intervals_are_those_of_rows_that_are_weighted_one_by_one(alpha):
    x, y = rows(420, 6, 6)
    bootstrap = DocumentBootstrap(120, 1)
    families, bands, _, document = analysed(x, y, alpha, bootstrap)
    weights = bootstrap.weights(torch.arange(20))[:, document].numpy()
    u, v = x[300:] - x[:300].mean(0), y[300:] - y[:300].mean(0)
    roots = {"whitened": families.whitening.into.numpy(), "raw": np.eye(6)}
    for metric, root in roots.items():
        ceilings = np.zeros((121, 6))
        optimal = families.ceiling_factors[metric]
        total = weights @ np.square(v @ root).sum(1)
        for place in range(6):
            single = u @ (optimal.left[:, [place]] @ optimal.right[:, [place]].T).numpy() @ root
            along, square = weights @ (single * (v @ root)).sum(1), weights @ np.square(single).sum(1)
            ceilings[:, place] = along * np.abs(along) / square / total
        ceilings = ceilings.cumsum(1)
        for family, factors in families.factors.items():
            for rank in (1, 3, 6):
                replicates = weighted_r2(u, v, factors.weight(rank).numpy(), root, weights)
                expected = np.quantile(replicates[1:], [0.025, 0.975])
                found = bands.r2[family][metric].at(rank - 1)
                np.testing.assert_allclose([found.low, found.high], expected, rtol=0, atol=1e-9)
                efficiency = replicates / ceilings[:, rank - 1]
                low, middle, high = np.quantile(efficiency[1:], [0.025, 0.5, 0.975])
                found = bands.efficiency[family][metric].at(rank - 1)
                expected = [low - middle + efficiency[0], high - middle + efficiency[0]]
                np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-7, atol=1e-9)
        low, middle, high = np.quantile(ceilings[1:], [0.025, 0.5, 0.975], axis=0)
        np.testing.assert_allclose(bands.ceiling[metric].low, low - middle + ceilings[0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(bands.ceiling[metric].high, high - middle + ceilings[0], rtol=0, atol=1e-9)


def test_batches_do_not_matter_and_rows_that_do_not_count_are_left_out():
    x, y = rows(420, 5, 5)
    bootstrap = DocumentBootstrap(20, 0)
    families, bands, _, document = analysed(x, y, 0.0, bootstrap)
    held_x, held_y = x[300:].copy(), y[300:].copy()
    spoilt = np.concatenate([held_x, 1e6 * np.ones((4, 5))]), np.concatenate([held_y, np.full((4, 5), np.nan)])
    streamed = batches(*spoilt, np.append(document, [3, 3, 99, 99]), [1, 119, 4], range(120, 124))
    again = bootstrap_ranks({PAIR: families}, streamed, bootstrap, CPU, lambda _: None)[PAIR]
    for family, metrics in bands.r2.items():
        for metric, band in metrics.items():
            torch.testing.assert_close(again.r2[family][metric].high, band.high, rtol=0, atol=1e-10)
    with pytest.raises(StrataError, match=r"resid_post\.1 does not vary among the held-out rows"):
        bootstrap_ranks({PAIR: families}, [], bootstrap, CPU, lambda _: None)


def test_a_band_covers_what_many_documents_give():
    """R2 of fixed maps: the interval from 40 documents holds the value over very many in about 95 of 100 draws."""
    rng = np.random.default_rng(0)
    b = rng.standard_normal((4, 4))

    def draw(n_documents):
        x = rng.standard_normal((5 * n_documents, 4)) + rng.standard_normal((n_documents, 4)).repeat(5, 0)
        noise = rng.standard_normal((n_documents, 1)).repeat(5, 0) * rng.standard_normal((5 * n_documents, 4))
        return x, x @ b + 3 * noise

    x, y = draw(200)
    train = moments_of(x, y, np.zeros(1000, int)).subset([0])
    families = rank_families(train, X, Y)
    many = draw(20_000)
    truth = families.match(moments_of(*many, np.zeros(100_000, int)).subset([0])).r2["reduced_rank_raw"]["raw"]
    covered = []
    for seed in range(100):
        few, document = draw(40), np.arange(200) // 5
        bootstrap = DocumentBootstrap(200, seed)
        streamed = batches(*few, document, [200])
        band = bootstrap_ranks({PAIR: families}, streamed, bootstrap, CPU, lambda _: None)[PAIR]
        band = band.r2["reduced_rank_raw"]["raw"]
        covered.append(((band.low <= truth) & (truth <= band.high)).numpy())
    assert (np.mean(covered, axis=0) > 0.87).all()


def test_pairs_are_cut_into_blocks_that_fit():
    pairs = [LayerPair(layer, 1) for layer in range(7)]
    assert rank_blocks(pairs, 128, 1000) == [pairs]
    per_pair = 8 * 128 * (16 * 128 + 10 * 1001)
    assert [len(block) for block in rank_blocks(pairs, 128, 1000, 3 * per_pair)] == [3, 3, 1]
    assert [len(block) for block in rank_blocks(pairs, 2304, 1000, 1)] == [1] * 7
