"""Matching features with labels, against scikit-learn and loops."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from src.errors import StrataError
from src.features.scores.matching import (
    best_labels,
    best_matches,
    count_hits,
    document_counts,
    f1_replicates,
    firing_thresholds,
    labels_of_other_documents,
)
from src.transport.bootstrap import DocumentBootstrap


@pytest.fixture(scope="module")
def planted():
    """300 tokens of 20 documents; feature 3 fires on label 0 strongly and elsewhere weakly; feature 5 is label 1."""
    generator = torch.Generator().manual_seed(0)
    document = torch.arange(20).repeat_interleave(15)
    labels = torch.rand(300, 4, generator=generator) < torch.tensor([0.2, 0.3, 0.1, 0.4])
    activations = torch.rand(300, 8, generator=generator) * (torch.rand(300, 8, generator=generator) < 0.3)
    activations[:, 3] = torch.where(labels[:, 0], 2.0, 0.5) + 0.1 * torch.rand(300, generator=generator)
    activations[:, 5] = labels[:, 1].float()
    activations[:, 7] = 0  # dead
    return activations, labels, document


def test_f1_equals_scikit_learns_for_every_feature_threshold_and_label(planted):
    activations, labels, _ = planted
    thresholds = firing_thresholds(activations, 5)
    scores = count_hits(activations, labels, thresholds).f1()
    for feature in range(8):
        for level in range(5):
            fires = activations[:, feature] > thresholds[feature, level]
            for label in range(4):
                expected = f1_score(labels[:, label].numpy(), fires.numpy(), zero_division=0)
                assert scores[feature, level, label].item() == pytest.approx(expected, abs=1e-12)


def test_thresholds_are_zero_and_quantiles_of_the_positive_activations(planted):
    activations, _, _ = planted
    thresholds = firing_thresholds(activations, 4)
    for feature in range(7):
        positive = activations[:, feature][activations[:, feature] > 0].numpy()
        expected = [0, *np.quantile(positive, [0.25, 0.5, 0.75], method="higher")]
        np.testing.assert_allclose(thresholds[feature].numpy(), expected, atol=0.03)
        assert set(thresholds[feature, 1:].tolist()) <= set(positive.tolist())
    assert not thresholds[7].any()
    assert firing_thresholds(activations, 1).eq(0).all()


def test_negative_activations_and_no_thresholds_are_refused(planted):
    activations, _, _ = planted
    with pytest.raises(StrataError, match="two features"):
        firing_thresholds(-activations, 4)
    with pytest.raises(StrataError, match="at least one"):
        firing_thresholds(activations, 0)


def test_counts_of_chunks_add_up(planted, monkeypatch):
    activations, labels, _ = planted
    thresholds = firing_thresholds(activations, 5)
    whole = count_hits(activations, labels, thresholds)
    halves = count_hits(activations[:110], labels[:110], thresholds) + count_hits(
        activations[110:], labels[110:], thresholds
    )
    monkeypatch.setattr("src.features.scores.matching._TOKENS_AT_ONCE", 37)
    chunked = count_hits(activations, labels, thresholds)
    for other in (halves, chunked):
        assert torch.equal(other.hits, whole.hits)
        assert torch.equal(other.fires, whole.fires)
        assert torch.equal(other.positives, whole.positives)


def test_best_match_is_the_best_of_a_loop_and_finds_what_was_planted(planted):
    activations, labels, _ = planted
    thresholds = firing_thresholds(activations, 8)
    found = best_matches(count_hits(activations, labels, thresholds), thresholds)
    assert found.feature[:2].tolist() == [3, 5]
    assert found.f1[1] == 1
    assert found.threshold[0] > 0.5  # weak firings are left out
    assert found.f1[0] > 0.85
    for label in range(4):
        scores = [
            f1_score(labels[:, label].numpy(), (activations[:, i] > t).numpy(), zero_division=0)
            for i in range(8)
            for t in thresholds[i]
        ]
        assert found.f1[label].item() == pytest.approx(max(scores), abs=1e-12)


def test_best_label_of_each_feature_is_the_best_of_a_loop(planted):
    activations, labels, document = planted
    thresholds = firing_thresholds(activations, 6)
    label, found = best_labels(count_hits(activations, labels, thresholds), thresholds)
    assert label[[3, 5]].tolist() == [0, 1]
    assert found.feature.tolist() == list(range(8))
    for feature in range(8):
        fires = [(activations[:, feature] > t).numpy() for t in thresholds[feature]]
        scores = [f1_score(labels[:, i].numpy(), fire, zero_division=0) for i in range(4) for fire in fires]
        assert found.f1[feature].item() == pytest.approx(max(scores), abs=1e-12)
    counts = document_counts(activations, labels[:, label], document, found, 20)
    torch.testing.assert_close(f1_replicates(counts, torch.ones(1, 20, dtype=torch.float64))[0], found.f1)


def test_replicates_weigh_whole_documents(planted):
    activations, labels, document = planted
    thresholds = firing_thresholds(activations, 4)
    found = best_matches(count_hits(activations, labels, thresholds), thresholds)
    counts = document_counts(activations, labels, document, found, 20)
    weights = DocumentBootstrap(30, seed=1).weights(torch.arange(20))
    replicates = f1_replicates(counts, weights)
    torch.testing.assert_close(replicates[0], found.f1)
    for replicate in (1, 17):
        of_token = weights[replicate][document].numpy()
        for label in range(4):
            fires = activations[:, found.feature[label]] > found.threshold[label]
            expected = f1_score(labels[:, label].numpy(), fires.numpy(), sample_weight=of_token, zero_division=0)
            assert replicates[replicate, label].item() == pytest.approx(expected, abs=1e-12)
    no_positives = f1_replicates(counts, torch.zeros(1, 20, dtype=torch.float64))
    assert no_positives.isnan().all()


def test_labels_of_other_documents_keep_frequency_and_runs_and_lose_the_features():
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(5, 30, (400,), generator=generator)
    document = torch.arange(400).repeat_interleave(lengths)
    of_document = torch.rand(400, 3, generator=generator) < 0.2
    labels = of_document[document]
    shuffled = labels_of_other_documents(labels, document, generator)
    assert torch.equal(shuffled.sum(0), labels.sum(0))
    runs, moved_runs = ((marks[1:] != marks[:-1]).sum(0) for marks in (labels, shuffled))
    assert (runs - moved_runs).abs().max() < 0.25 * runs.max()  # still whole documents of one label
    features = labels.float()
    found = best_matches(count_hits(features, shuffled, torch.zeros(3, 1)), torch.zeros(3, 1))
    assert found.f1.max() < 0.35  # about 0.2 by chance, and 1 before
