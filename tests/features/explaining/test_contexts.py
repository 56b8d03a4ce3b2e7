"""Contexts, histograms and tokens of features, against a plain search over everything in numpy."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from src.features.explaining import contexts as module
from src.features.explaining.contexts import ContextSettings, count_firings, find_contexts, unlike
from src.features.sae import load_sae
from src.features.windows import Context
from src.hook_points import HookPoint
from src.text import Keep
from tests.fixtures.saes import D, F, planted_gemma_scope, planted_rows, sae_config, sparse_latents, write_gemma_scope
from tests.fixtures.stores import make_store

POINT = HookPoint("resid_post", 0)
LENGTHS = [5, 9, 1, 12, 7, 3, 20, 6, 8, 4, 11, 2, 10, 5, 7, 9, 6, 13, 4, 8]
# documents of several sequences, apart from each other: 3 and 7 come again in later parts
DOCUMENTS = np.array([0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 3, 9, 10, 7, 11, 12, 7, 13, 14, 3])
SETTINGS = ContextSettings(top=5, bands=3, per_band=2, before=3, after=2)
FEATURES = [4, 0, 11, 7, 20]  # 20 is dead


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A store of known latents, some tokens not counted, and few words, so that they repeat."""
    folder = tmp_path_factory.mktemp("planted")
    weights, draws = planted_gemma_scope()
    latents = sparse_latents(draws, sum(LENGTHS), rate=0.3).astype(np.float32)
    keep = np.where(draws.random(len(latents)) < 0.1, Keep.BOS, Keep.COUNTED).astype(np.uint8)
    path = write_gemma_scope(folder / "layer_0", weights)
    sae = load_sae(sae_config(path=str(path), hook="resid_post", layer=0))
    store = make_store(folder, {POINT: planted_rows(weights, latents)}, LENGTHS, keep=keep, document=DOCUMENTS)
    return sae, store


@pytest.fixture(params=[10_000, 15, 1])
def chunked(request, monkeypatch):
    """All of a part at once, a few sequences, one sequence."""
    monkeypatch.setattr(module, "_FEATURES_AT_ONCE", request.param * F)


def everything(sae, store):
    """All tokens of a store: activations (NaN = not counted), token ids, sequence, position, document."""
    columns = defaultdict(list)
    for part in store:
        acts = sae.encode(part.activations(POINT)).numpy()
        acts[part.keep != Keep.COUNTED] = np.nan
        columns["acts"].append(acts)
        for name in ("token_ids", "sequence", "position"):
            columns[name].append(getattr(part, name))
        columns["document"].append(DOCUMENTS[part.sequence])
    return {name: np.concatenate(values) for name, values in columns.items()}


def expected_top(every, feature, n):
    """The strongest firing of each document, strongest first, without windows whose words up to there are the same."""
    acts, best = every["acts"][:, feature], {}
    for row in np.flatnonzero(acts > 0):
        document = every["document"][row]
        if document not in best or acts[row] > acts[best[document]]:
            best[document] = row
    found, seen = [], set()
    for row in sorted(best.values(), key=lambda row: -acts[row])[: 4 * n]:
        sequence = every["sequence"] == every["sequence"][row]
        window = [
            i for i in range(row - SETTINGS.before, row + SETTINGS.after + 1) if 0 <= i < len(acts) and sequence[i]
        ]
        words = tuple(every["token_ids"][i] for i in window if i <= row)
        if words not in seen:
            seen.add(words)
            found.append((row, window))
    return found[:n]


def test_top_contexts_are_those_of_a_search_over_everything(planted, chunked):
    sae, store = planted
    every = everything(sae, store)
    activities, _ = find_contexts(sae, store, POINT, FEATURES, DOCUMENTS, SETTINGS, 0, lambda _: None)
    assert [activity.feature for activity in activities] == FEATURES
    n_checked = 0
    for activity in activities:
        found = [context for context in activity.contexts if context.band is None]
        expected = expected_top(every, activity.feature, SETTINGS.top)
        assert len(found) == len(expected)
        for context, (row, window) in zip(found, expected, strict=True):
            assert (context.sequence, context.position) == (every["sequence"][row], every["position"][row])
            assert context.document == every["document"][row]
            assert context.token_ids == tuple(every["token_ids"][window])
            np.testing.assert_allclose(context.activations, every["acts"][window, activity.feature], rtol=1e-5)
            assert (
                context.activations[context.place]
                == context.activation
                == pytest.approx(np.nanmax([context.activation]))
            )
            n_checked += 1
    assert n_checked == 4 * SETTINGS.top


def test_counts_histograms_and_tokens_are_those_of_numpy(planted, chunked):
    sae, store = planted
    every = everything(sae, store)
    told = []
    activities, firings = find_contexts(sae, store, POINT, FEATURES, DOCUMENTS, SETTINGS, 0, told.append)
    assert sum(told) == sum(LENGTHS)
    fires = every["acts"] > 0
    np.testing.assert_array_equal(firings, fires.sum(0))
    np.testing.assert_array_equal(count_firings(sae, store, POINT, lambda _: None), fires.sum(0))
    occurrences = Counter(every["token_ids"][~np.isnan(every["acts"][:, 0])].tolist())
    for activity in activities:
        column = every["acts"][:, activity.feature]
        values = column[column > 0]
        assert (activity.firings, activity.n_tokens, activity.n_sequences) == (
            len(values),
            sum(occurrences.values()),
            20,
        )
        assert activity.sequences == len(set(every["sequence"][column > 0]))
        if not len(values):
            assert not activity.contexts
            assert not activity.tokens
            continue
        assert activity.maximum == pytest.approx(values.max())
        assert activity.mean == pytest.approx(values.mean(), rel=1e-5)
        assert activity.upper / 2 <= activity.maximum < activity.upper
        np.testing.assert_array_equal(activity.counts, np.histogram(values, 64, (0, activity.upper))[0])
        sums = defaultdict(float)
        for token, value in zip(every["token_ids"][column > 0].tolist(), values.tolist(), strict=True):
            sums[token] += value
        assert [it.share for it in activity.tokens] == pytest.approx(
            sorted(sums.values(), reverse=True)[:10] / values.sum(), rel=1e-5
        )
        for it in activity.tokens:
            assert it.share == pytest.approx(sums[it.token_id] / values.sum(), rel=1e-5)
            assert it.rate == it.firings / occurrences[it.token_id]
            assert it.mean_activation == pytest.approx(sums[it.token_id] / it.firings, rel=1e-5)


def test_contexts_of_bands_are_of_their_strength_and_of_different_documents(planted, chunked):
    sae, store = planted
    activities, _ = find_contexts(sae, store, POINT, FEATURES, DOCUMENTS, SETTINGS, 3, lambda _: None)
    for activity in activities[:4]:
        drawn = [context for context in activity.contexts if context.band is not None]
        assert [context.band for context in drawn] == [2, 2, 1, 1, 0, 0]
        strengths = [[it.activation for it in drawn if it.band == band] for band in range(3)]
        assert max(strengths[0]) < min(strengths[1]) < max(strengths[1]) < min(strengths[2])
        assert len({context.document for context in drawn}) == 6


def test_bands_depend_on_the_seed_alone(planted, monkeypatch):
    sae, store = planted

    def drawn(seed, at_once):
        monkeypatch.setattr(module, "_FEATURES_AT_ONCE", at_once * F)
        activities, _ = find_contexts(sae, store, POINT, [4], DOCUMENTS, SETTINGS, seed, lambda _: None)
        return [(it.sequence, it.position) for it in activities[0].contexts if it.band is not None]

    assert drawn(1, 10_000) == drawn(1, 10_000)
    assert drawn(1, 10_000) != drawn(2, 10_000)


def test_contexts_with_the_same_words_are_shown_once_unless_there_are_too_few_others():
    def context(activation, token_ids, place=1):
        return Context(None, 0, 0, place, activation, place, token_ids, (0.0,) * len(token_ids))

    same = [context(9, (1, 2, 3)), context(8, (1, 2, 4)), context(7, (1, 2, 3)), context(6, (5, 2, 3))]
    assert [it.activation for it in unlike(same, 2)] == [9, 6]
    assert [it.activation for it in unlike(same, 3)] == [9, 8, 6]
    assert [it.activation for it in unlike(same, 4)] == [9, 8, 6]


def test_draws_are_uniform_over_documents(tmp_path):
    """One firing in each of 60 documents: over many seeds each is drawn about as often."""
    weights, _ = planted_gemma_scope()
    latents = np.zeros((60, D))
    latents[:, 0] = np.linspace(1, 3, 60)
    sae = load_sae(sae_config(path=str(write_gemma_scope(tmp_path / "sae", weights)), hook="resid_post", layer=0))
    store = make_store(tmp_path, {POINT: planted_rows(weights, latents)}, [1] * 60, sequences_per_part=60)
    settings = ContextSettings(top=1, bands=1, per_band=1, before=0, after=0)
    seen = Counter()
    for seed in range(60):
        activities, _ = find_contexts(sae, store, POINT, [0], np.arange(60), settings, seed, lambda _: None)
        seen.update(context.sequence for context in activities[0].contexts if context.band == 0)
    assert sum(seen.values()) == 60
    # 60 draws in three thirds: 20 each, standard deviation 3.7
    thirds = [sum(seen[i] for i in range(start, start + 20)) for start in range(0, 60, 20)]
    assert all(8 < count < 32 for count in thirds)


def test_histogram_widens_exactly_when_larger_values_come_later(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_FEATURES_AT_ONCE", F)
    weights, _ = planted_gemma_scope()
    latents = np.zeros((40, D))
    latents[:, 0] = np.geomspace(0.6, 4000, 40)
    sae = load_sae(sae_config(path=str(write_gemma_scope(tmp_path / "sae", weights)), hook="resid_post", layer=0))
    store = make_store(tmp_path, {POINT: planted_rows(weights, latents)}, [1] * 40)
    activity = find_contexts(sae, store, POINT, [0], np.arange(40), SETTINGS, 0, lambda _: None)[0][0]
    values = torch.cat([sae.encode(part.activations(POINT))[:, 0] for part in store]).numpy()
    assert activity.upper == 4096
    np.testing.assert_array_equal(activity.counts, np.histogram(values, 64, (0, 4096))[0])
