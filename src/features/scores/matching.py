"""Which feature goes with which label: F1 of `activation > threshold` against boolean labels of tokens.

All features, thresholds and labels at once: the counts behind every F1 are one product of a sparse matrix (where a
feature lies between two of its thresholds) with the labels. Choose on some documents (`count_hits`, `best_matches`),
score on others (`document_counts`, `f1_replicates`): the best of thousands of candidates is flattered where it was
chosen.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.errors import StrataError

# of this many tokens or activations those that are not zero are listed at once
_TOKENS_AT_ONCE, _VALUES_AT_ONCE = 16_384, 2**25


@dataclass(frozen=True, eq=False)
class Hits:
    """Tokens counted for every feature, threshold and label; exact. Counts of chunks of tokens add up.

    hits: tokens above the threshold that have the label. fires: tokens above the threshold. positives: tokens that
    have the label.
    """

    hits: Int[Tensor, "feature threshold label"]
    fires: Int[Tensor, "feature threshold"]
    positives: Int[Tensor, " label"]

    def __add__(self, other: "Hits") -> "Hits":
        return Hits(self.hits + other.hits, self.fires + other.fires, self.positives + other.positives)

    def f1(self) -> Float[Tensor, "feature threshold label"]:
        """F1 of every feature and threshold as a predictor of every label, as `f1`."""
        return f1(self.hits, self.fires[..., None], self.positives)


@dataclass(frozen=True, eq=False)
class Matches:
    """Features paired with labels, each with the threshold of highest F1 and that F1, as long as there are labels."""

    feature: Int[Tensor, " label"]
    threshold: Float[Tensor, " label"]
    f1: Float[Tensor, " label"]


@dataclass(frozen=True, eq=False)
class DocumentCounts:
    """What `Hits` counts, per document, for one feature and threshold for each label."""

    hits: Float[Tensor, "document label"]
    fires: Float[Tensor, "document label"]
    positives: Float[Tensor, "document label"]


def f1(hits: Tensor, fires: Tensor, positives: Tensor) -> Tensor:
    """F1 = 2 hits / (fires + positives) = harmonic mean of precision and recall (van Rijsbergen 1979); 0 if both are 0.

    float64 where the device has it.
    """
    dtype = torch.float32 if hits.device.type == "mps" else torch.float64
    return 2 * hits.to(dtype) / (fires + positives).to(dtype).clamp_min(torch.finfo(dtype).tiny)


def firing_thresholds(
    activations: Float[Tensor, "token feature"], n_thresholds: int
) -> Float[Tensor, "feature threshold"]:
    """Thresholds to try for each feature: 0, then quantiles of its own positive activations, in rising order.

    Quantile i is at i / n_thresholds: at the last a share of 1 / n_thresholds of the feature's firings lies above. A
    feature that never fires has zeros.

    Raises StrataError for fewer than one threshold or a negative activation (give the negative side as a feature).
    """
    if n_thresholds < 1:
        raise StrataError(f"{n_thresholds} thresholds: at least one is needed")
    if bool((activations < 0).any()):
        raise StrataError("matching takes activations >= 0: give max(x, 0) and max(-x, 0) as two features")
    at_once = max(1, _VALUES_AT_ONCE // max(1, len(activations)))
    return torch.cat([_firing_thresholds(columns, n_thresholds) for columns in activations.split(at_once, dim=1)])


def _firing_thresholds(
    activations: Float[Tensor, "token feature"], n_thresholds: int
) -> Float[Tensor, "feature threshold"]:
    n_features = activations.shape[1]
    feature, token = activations.T.nonzero(as_tuple=True)
    value, order = activations[token, feature].sort(stable=True)
    value = value[feature[order].sort(stable=True).indices]  # feature by feature, each in rising order
    firings = feature.bincount(minlength=n_features)
    first = firings.cumsum(0) - firings
    share = torch.arange(1, n_thresholds, device=activations.device) / n_thresholds
    place = first[:, None] + (share * firings[:, None]).floor().long()
    thresholds = activations.new_zeros(n_features, n_thresholds)
    fires = firings > 0
    thresholds[fires, 1:] = value[place[fires]]
    return thresholds


def count_hits(
    activations: Float[Tensor, "token feature"],
    labels: Bool[Tensor, "token label"],
    thresholds: Float[Tensor, "feature threshold"],
) -> Hits:
    """Count, for all features, thresholds and labels, the tokens with `activation > threshold`.

    thresholds: rising for each feature, and none below 0. Time: (non-zero activations) x labels. Memory: counts of 8
    bytes for features x thresholds x labels, and a list of the non-zero activations of 16,384 tokens.
    """
    n_features, n_thresholds = thresholds.shape
    hits = torch.zeros(n_features * n_thresholds, labels.shape[1], dtype=torch.int64, device=activations.device)
    fires = torch.zeros(n_features * n_thresholds, dtype=torch.int64, device=activations.device)
    for first in range(0, len(activations), _TOKENS_AT_ONCE):
        rows, marks = activations[first : first + _TOKENS_AT_ONCE], labels[first : first + _TOKENS_AT_ONCE]
        # feature by feature, so that each row of the sparse matrix is read at one go
        feature, token = rows.T.gt(thresholds[:, :1]).nonzero(as_tuple=True)
        value = rows[token, feature]
        passed = (value[:, None] > thresholds[feature]).sum(1)  # how many thresholds the activation is above
        cell = feature * n_thresholds + passed - 1
        between = torch.sparse_coo_tensor(
            torch.stack([cell, token]),
            torch.ones_like(value, dtype=torch.float32),
            (len(fires), len(rows)),
            check_invariants=False,
        )
        hits += torch.sparse.mm(between, marks.float()).long()  # whole numbers below 2^24: exact
        fires += cell.bincount(minlength=len(fires))
    # what lies above a threshold is what lies between it and the next, and above that
    above = hits.view(n_features, n_thresholds, -1).flip(1).cumsum(1).flip(1)
    return Hits(above, fires.view(n_features, n_thresholds).flip(1).cumsum(1).flip(1), labels.sum(0))


def best_matches(hits: Hits, thresholds: Float[Tensor, "feature threshold"]) -> Matches:
    """For each label the feature and threshold of highest F1, the first of equals."""
    scores = hits.f1().flatten(0, 1)
    best, place = scores.max(0)
    return Matches(place // thresholds.shape[1], thresholds.flatten()[place], best)


def best_labels(hits: Hits, thresholds: Float[Tensor, "feature threshold"]) -> tuple[Int[Tensor, " feature"], Matches]:
    """For each feature the label, and the threshold, of highest F1: the labels, and matches with one entry a feature.

    `document_counts(activations, labels[:, label], ...)` scores them.
    """
    scores = hits.f1()
    best, place = scores.flatten(1).max(1)
    threshold = thresholds.gather(1, (place // scores.shape[2])[:, None])[:, 0]
    return place % scores.shape[2], Matches(torch.arange(len(best), device=best.device), threshold, best)


def document_counts(
    activations: Float[Tensor, "token feature"],
    labels: Bool[Tensor, "token label"],
    document: Int[Tensor, " token"],
    matches: Matches,
    n_documents: int,
) -> DocumentCounts:
    """Hits, firings and positives of each label's match in each document; document: 0 ... n_documents - 1."""
    fires = activations[:, matches.feature] > matches.threshold

    def of_documents(marks: Bool[Tensor, "token label"]) -> Float[Tensor, "document label"]:
        sums = torch.zeros(n_documents, marks.shape[1], dtype=torch.float32, device=marks.device)
        return sums.index_add_(0, document, marks.float())

    return DocumentCounts(of_documents(fires & labels), of_documents(fires), of_documents(labels))


def f1_replicates(
    counts: DocumentCounts, weights: Float[Tensor, "replicate document"]
) -> Float[Tensor, "replicate label"]:
    """F1 under weights of documents: all ones for the F1 itself, random ones for replicates of a bootstrap.

    NaN where no document of a label has a weight.
    """
    hits, fires, positives = (weights @ sums.to(weights) for sums in (counts.hits, counts.fires, counts.positives))
    return torch.where(positives > 0, f1(hits, fires, positives), float("nan"))


def labels_of_other_documents(
    labels: Bool[Tensor, "token label"], document: Int[Tensor, " token"], generator: torch.Generator
) -> Bool[Tensor, "token label"]:
    """Labels that know nothing of their tokens: the documents' labels, laid along the tokens in a random order.

    Frequency and clustering within documents stay as they are. What a match with these scores is what the search alone
    finds. A document's tokens stand side by side.
    """
    _, lengths = document.unique_consecutive(return_counts=True)
    starts = lengths.cumsum(0) - lengths
    order = torch.randperm(len(lengths), generator=generator, device=generator.device).to(lengths.device)
    moved = [torch.arange(int(starts[i]), int(starts[i] + lengths[i])) for i in order.tolist()]
    return labels[torch.cat(moved).to(labels.device)]
