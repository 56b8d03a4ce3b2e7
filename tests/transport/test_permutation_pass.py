import numpy as np
import pytest
import torch

from src.activations.passes import Rows
from src.errors import StrataError
from src.hook_points import HookPoint
from src.transport import permutation_pass
from src.transport.canonical import CrossFitting, cross_fitted_correlations
from src.transport.permutation import PermutationTest, shuffled_rows
from src.transport.permutation_pass import null_blocks, shuffled_cross_fits
from tests.fixtures.planted_transport import X, Y, moments_of, planted

FOLDS = range(4)


def documents(n_documents=200, length=5):
    document = np.repeat(np.arange(n_documents), length)
    return document, document % 4


def passes(data, document, group, n_parts=3, uncounted=0):
    """What starts a pass over rows in parts, with some rows at the end of each part that do not count."""

    def start(points):
        for chosen in np.array_split(np.arange(len(document)), n_parts):
            is_counted = torch.ones(len(chosen) + uncounted, dtype=torch.bool)
            is_counted[len(chosen) :] = False
            chosen = np.append(chosen, np.repeat(chosen[:1], uncounted))
            activations = {point: torch.from_numpy(data[point][chosen]) for point in points}
            document_of, group_of = (torch.from_numpy(each[chosen]) for each in (document, group))
            yield Rows(activations, document_of, group_of, is_counted, torch.zeros_like(is_counted))

    return start


def null_sizes(found):
    return [[fit.explained_dimensions for fit in null] for _, null in found]


def test_a_pass_gives_the_cross_fits_of_rows_that_are_paired_anew():
    x, y = planted(1000, 6, 2, 0.9, 0)
    document, group = documents()
    moments = moments_of(x, y, group)
    start = passes({X: x, Y: y}, document, group, uncounted=3)
    ((observed, null),) = shuffled_cross_fits(moments, [(X, Y)], FOLDS, start, 3, seed=7)
    expected = cross_fitted_correlations(moments, X, Y, FOLDS)
    torch.testing.assert_close(observed.by_fold, expected.by_fold, rtol=0, atol=1e-12)
    for replicate, fit in enumerate(null):
        draws = permutation_pass._generator(7, replicate, 0)
        # 200 documents are one batch
        order = shuffled_rows(torch.from_numpy(group), torch.from_numpy(document), draws)
        paired = moments_of(x, y[order], group)
        anew = CrossFitting(paired, X, Y, FOLDS).correlations(paired)
        torch.testing.assert_close(fit.by_fold, anew.by_fold, rtol=0, atol=1e-9)
    assert len({fit.explained_dimensions for fit in null}) == 3


def test_memory_decides_the_number_of_passes_and_no_number():
    document, group = documents()
    draws = np.random.default_rng(0)
    points = [HookPoint("resid_post", layer) for layer in range(3)]
    data = {point: draws.standard_normal((1000, 5)) for point in points}
    pairs = [(points[0], points[1]), (points[0], points[2]), (points[1], points[2])]
    ends = [*((point, point) for point in points), *pairs]
    moments = moments_of(data[points[0]], data[points[1]], group).empty(ends, dict.fromkeys(points, 5), 4)
    moments.update({point: torch.from_numpy(x) for point, x in data.items()}, torch.from_numpy(group))
    one = 8 * 4 * 25
    counts, sizes = [], []
    for memory in (10**9, 5 * one, 2 * one, 1):
        started = []

        def start(points, started=started):
            started.append(list(points))
            return passes(data, document, group)(points)

        done = []
        found = shuffled_cross_fits(moments, pairs, FOLDS, start, 5, 0, advance=done.append, memory=memory)
        sizes.append(null_sizes(found))
        counts.append(len(started))
        assert sum(done) == 15
    assert counts == [1, 3, 9, 15]
    assert sizes[0] == sizes[1] == sizes[2] == sizes[3]


@pytest.mark.parametrize("memory", [1, 10_000, 10**6, 10**12])
def test_blocks_hold_every_replicate_of_every_pair_once(memory):
    blocks = null_blocks(7, 19, 5, 32, memory)
    held = [(pair, replicate) for pairs, replicates in blocks for pair in pairs for replicate in replicates]
    assert held == [(pair, replicate) for pair in range(7) for replicate in range(19)]
    for pairs, replicates in blocks:
        assert len(pairs) * len(replicates) == 1 or 8 * 5 * 32**2 * len(pairs) * len(replicates) <= memory


def test_small_parts_are_gathered_until_there_are_documents_to_change_places_with():
    """Parts of two documents, which alone would leave every document where it was."""
    x, y = planted(1600, 8, 8, 0.99, 0)
    document, group = documents(320)
    moments = moments_of(x, y, group)
    ((observed, null),) = shuffled_cross_fits(
        moments, [(X, Y)], FOLDS, passes({X: x, Y: y}, document, group, n_parts=160), 5, 0
    )
    assert observed.explained_dimensions > 7.5
    assert max(abs(fit.explained_dimensions) for fit in null) < 0.3
    batches = list(permutation_pass._batches(passes({X: x}, document, group, 160)([X]), FOLDS))
    assert [batch.n_documents for batch in batches] == [128, 192]  # what is left over joins the last one
    assert torch.equal(torch.cat([batch.document for batch in batches]), torch.from_numpy(document))


def test_p_values_of_independent_documents_are_uniform():
    document, group = documents(80, 4)
    p_values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, y = (
            rng.standard_normal((320, 4)) + 2 * rng.standard_normal((80, 4))[document]  # tokens share an offset
            for _ in range(2)
        )
        found = shuffled_cross_fits(
            moments_of(x, y, group), [(X, Y)], FOLDS, passes({X: x, Y: y}, document, group), 19, seed
        )
        p_values += [PermutationTest.of(observed, null).explained_dimensions.p_value for observed, null in found]
    # uniform on 0.05 .. 1
    assert np.mean(p_values) == pytest.approx(0.525, abs=3 * 0.29 / np.sqrt(40))
    assert np.mean(np.array(p_values) <= 0.1) < 0.3


def test_float32_moments_have_a_null_too():
    x, y = planted(1000, 6, 2, 0.9, 0)
    document, group = documents()
    start = passes({X: x, Y: y}, document, group)
    ((_, exact),) = shuffled_cross_fits(moments_of(x, y, group), [(X, Y)], FOLDS, start, 2, 0)
    ((_, rough),) = shuffled_cross_fits(moments_of(x, y, group, "float32"), [(X, Y)], FOLDS, start, 2, 0)
    for one, other in zip(exact, rough, strict=True):
        torch.testing.assert_close(one.by_fold, other.by_fold, rtol=0, atol=1e-4)


def test_other_rows_than_those_of_the_moments_are_refused():
    x, y = planted(1000, 6, 2, 0.9, 0)
    document, group = documents()
    moments = moments_of(x, y, group)
    start = passes({X: x[5:], Y: y[5:]}, document[5:], group[5:])
    with pytest.raises(StrataError, match="must be those of the moments"):
        list(shuffled_cross_fits(moments, [(X, Y)], FOLDS, start, 2, 0))
