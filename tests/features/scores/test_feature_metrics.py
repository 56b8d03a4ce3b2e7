"""Every metric of a feature against a plain loop over features in float64."""

import numpy as np
import pytest
import torch
from scipy.special import entr
from scipy.stats import rankdata

from src.features import codes as codes_module
from src.features.scores import coherence as coherence_module
from src.features.scores import redundancy as redundancy_module
from src.features.scores.attribution import attributed_effects
from src.features.scores.coherence import token_coherence
from src.features.scores.firing import firing_statistics
from src.features.scores.redundancy import activation_redundancy, nearest_decoders
from tests.fixtures.sparse_codes import CONSTANT, DEAD, N_FEATURES, ONCE, by_document, codes_of, random_text


@pytest.fixture(params=["whole", "in pieces"])
def text(request, monkeypatch):
    """Activations, tokens, lengths and codes; read at once, or so that every loop over pieces has several rounds."""
    if request.param == "in pieces":
        monkeypatch.setattr(codes_module, "_ENTRIES_AT_ONCE", 50)
        monkeypatch.setattr(coherence_module, "_ENTRIES_AT_ONCE", 100)
        monkeypatch.setattr(redundancy_module, "_NUMBERS_AT_ONCE", 5 * N_FEATURES)
        monkeypatch.setattr(redundancy_module, "_PAIRS_AT_ONCE", 30)
    dense, ids, lengths = random_text()
    return dense, ids, lengths, codes_of(dense, ids, lengths, effect=np.cos(dense))


def ratio_error(values: np.ndarray, counts: np.ndarray) -> float:
    residual = values - values.sum() / counts.sum() * counts
    return float(np.sqrt((residual**2).sum() * len(values) / (len(values) - 1)) / counts.sum())


def test_rates_magnitudes_and_support(text):
    dense, _, lengths, codes = text
    firing = firing_statistics(codes)
    sums, counts = by_document(dense, lengths), by_document((dense > 0).astype(float), lengths)
    for f in range(N_FEATURES):
        active = dense[dense[:, f] > 0, f]
        assert firing.rate.value[f] == pytest.approx(len(active) / len(dense))
        assert firing.rate.error[f] == pytest.approx(ratio_error(counts[:, f], np.array(lengths)), rel=1e-6, abs=1e-12)
        assert firing.mean_activation.value[f] == pytest.approx(dense[:, f].mean())
        assert firing.mean_activation.error[f] == pytest.approx(
            ratio_error(sums[:, f], np.array(lengths)), rel=1e-6, abs=1e-12
        )
        assert int(firing.n_documents[f]) == (counts[:, f] > 0).sum()
        assert bool(firing.is_dead[f]) == (f == DEAD) == (len(active) == 0)
        if len(active):
            assert firing.mean_when_active.value[f] == pytest.approx(active.mean())
            assert firing.max_activation[f] == active.max()
            assert firing.effective_documents[f] == pytest.approx(sums[:, f].sum() ** 2 / (sums[:, f] ** 2).sum())
    assert firing.max_activation[DEAD] == 0
    assert firing.effective_documents[ONCE] == 1
    assert firing.mean_when_active.value[DEAD].isnan()


@pytest.mark.parametrize("prior", [0.0, 5.0])
def test_entropies_of_tokens(text, prior):
    dense, ids, _, codes = text
    firing = firing_statistics(codes)
    found = token_coherence(codes, firing, prior, n_top=3)
    names = np.unique(ids)
    u = np.array([(ids == name).mean() for name in names])
    assert found.text_entropy == pytest.approx(entr(u).sum())
    for f in range(N_FEATURES):
        if f == DEAD:
            assert found.entropy.value[f].isnan()
            assert found.raw_entropy[f].isnan()
            assert found.top_tokens[f].tolist() == [-1, -1, -1]
            continue
        weights = np.array([dense[ids == name, f].sum() for name in names])
        p = weights / weights.sum()
        n = float(firing.effective_documents[f])
        mixed = (n * p + prior * u) / (n + prior)
        assert found.raw_entropy[f] == pytest.approx(entr(p).sum(), abs=1e-9)
        assert found.entropy.value[f] == pytest.approx(entr(mixed).sum(), abs=1e-9)
        assert found.coherence.value[f] == pytest.approx(1 - entr(mixed).sum() / entr(u).sum(), abs=1e-9)
        best = [names[i] for i in np.argsort(-weights, kind="stable")[:3] if weights[i] > 0]
        assert found.top_tokens[f].tolist() == best + [-1] * (3 - len(best))
        assert found.top_shares[f, 0] == pytest.approx(p.max())


def test_the_error_of_the_entropy_is_that_of_the_jackknife(text):
    """The linearised error against leaving each document out, the support held fixed as the formula says."""
    dense, ids, lengths, codes = text
    firing = firing_statistics(codes)
    found = token_coherence(codes, firing, prior=5.0)
    names, documents = np.unique(ids), np.repeat(np.arange(len(lengths)), lengths)
    u = np.array([(ids == name).mean() for name in names])
    for f in (0, 1, 4, CONSTANT):
        n = float(firing.effective_documents[f])

        def entropy(rows: np.ndarray, f=f, n=n) -> float:
            weights = np.array([dense[rows & (ids == name), f].sum() for name in names])
            return float(entr((n * weights / weights.sum() + 5 * u) / (n + 5)).sum())

        left_out = np.array([entropy(documents != d) for d in range(len(lengths))])
        jackknife = np.sqrt((len(lengths) - 1) / len(lengths) * ((left_out - left_out.mean()) ** 2).sum())
        assert found.entropy.error[f] == pytest.approx(jackknife, rel=0.15)


def test_shrinkage_keeps_a_feature_that_was_seen_once_from_looking_coherent(text):
    _, _, _, codes = text
    firing = firing_statistics(codes)
    raw, shrunk = (token_coherence(codes, firing, prior).coherence.value[ONCE] for prior in (0.0, 5.0))
    assert raw == pytest.approx(1)
    assert 0 < shrunk < 0.2


def test_correlations_are_pearsons_and_leave_the_feature_itself_out(text):
    dense, _, lengths, codes = text
    found = activation_redundancy(codes)
    documents = np.repeat(np.arange(len(lengths)), lengths)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(dense.T)
    np.fill_diagonal(r, 0)
    for f in range(N_FEATURES):
        if f in (DEAD, CONSTANT):
            assert found.correlation.value[f].isnan()
            assert found.partner[f] == -1
            continue
        row = np.nan_to_num(np.abs(r[f]))
        assert found.correlation.value[f] == pytest.approx(row.max(), abs=1e-9)
        assert int(found.partner[f]) == row.argmax() != f
    assert found.correlation.value[1] > 0.5
    for f in (0, 1, 4):
        other = int(found.partner[f])

        def correlation(rows: np.ndarray, f=f, other=other) -> float:
            return float(abs(np.corrcoef(dense[rows, f], dense[rows, other])[0, 1]))

        left_out = np.array([correlation(documents != d) for d in range(len(lengths))])
        jackknife = np.sqrt((len(lengths) - 1) / len(lengths) * ((left_out - left_out.mean()) ** 2).sum())
        assert found.correlation.error[f] == pytest.approx(jackknife, rel=0.25)


def test_decoder_cosines_leave_the_feature_itself_out(monkeypatch):
    monkeypatch.setattr(redundancy_module, "_NUMBERS_AT_ONCE", 20)
    decoder = np.random.default_rng(0).standard_normal((7, 4))
    decoder[5] = 3 * decoder[2]
    cosine, partner = nearest_decoders(torch.from_numpy(decoder))
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    products = unit @ unit.T
    np.fill_diagonal(products, -2)
    np.testing.assert_allclose(cosine.numpy(), products.max(1), atol=1e-12)
    assert partner.tolist() == products.argmax(1).tolist()
    assert partner[5] == 2


def test_attributed_effects_are_sums_over_documents(text):
    dense, _, lengths, codes = text
    wanted = np.arange(len(lengths)) % 2 == 0
    effect = by_document(np.where(dense > 0, np.cos(dense), 0), lengths)
    counts = by_document((dense > 0).astype(float), lengths)
    for documents in (None, torch.from_numpy(wanted)):
        found = attributed_effects(codes, documents=documents)
        rows = slice(None) if documents is None else wanted
        tokens = np.array(lengths)[rows]
        for f in (0, 1, CONSTANT):
            of_f, firings = effect[rows, f], counts[rows, f]
            assert found.per_token.value[f] == pytest.approx(of_f.sum() / tokens.sum(), rel=1e-5)
            assert found.per_token.error[f] == pytest.approx(ratio_error(of_f, tokens), rel=1e-4)
            assert found.per_firing.value[f] == pytest.approx(of_f.sum() / firings.sum(), rel=1e-5)
            fires = firings > 0  # the documents of a mean over firings
            assert found.per_firing.error[f] == pytest.approx(ratio_error(of_f[fires], firings[fires]), rel=1e-4)


def test_ranks_of_scipy():
    from src.features.scores.scoring import quantile

    values = np.array([3.0, 1.0, np.nan, 3.0, -2.0, 7.0])
    known = ~np.isnan(values)
    expected = np.full(6, np.nan)
    expected[known] = (rankdata(values[known]) - 1) / (known.sum() - 1)
    np.testing.assert_allclose(quantile(torch.from_numpy(values)).numpy(), expected)
