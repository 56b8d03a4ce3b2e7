"""Cosines of messages and reference labels with the common component taken out: centred, and whitened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.scenarios.comparing.pair_metrics import pairwise_metrics, precise
from src.scenarios.comparing.to_references import label_means, label_weights, reference_rows
from src.scenarios.comparing.whitening import Whitening, whitening
from src.scenarios.states import RESIDUAL_SOURCES, References, Run

Kind = Literal["raw", "centred", "whitened"]
# a difference below this share of a state's length is the rounding of forward passes, not a difference
SAME = 1e-4


@dataclass(frozen=True, eq=False)
class SourceSimilarities:
    """Cosines of messages with labels' mean states; whitened is None where there are too few texts.

    common_share: |mean|^2 / mean of |state|^2 over all texts, the share of their states that texts have in common.
    identical: share of the pairs (message, reference text) whose states are the same up to rounding. 1 says that raw
        cosines compare nothing but the same token with itself (as resid_pre of layer 0 does under a chat template).
    """

    raw: Float[Tensor, "layer message label"]
    centred: Float[Tensor, "layer message label"]
    whitened: Float[Tensor, "layer message label"] | None
    common_share: Float[Tensor, "layer"]
    identical: Float[Tensor, "layer"]

    @property
    def vacuous(self) -> Bool[Tensor, "layer"]:
        """Layers where every message is the same state as every reference text."""
        return self.identical == 1

    def of(self, kind: Kind) -> Float[Tensor, "layer message label"]:
        """The cosines of a kind; NaN for whitened ones that could not be made."""
        found = getattr(self, kind)
        return torch.full_like(self.raw, float("nan")) if found is None else found

    def best(self, kind: Kind = "centred") -> Int[Tensor, "layer message"]:
        """Index of the nearest label; -1 where a cosine is NaN."""
        cosines = self.of(kind)
        return torch.where(cosines.isnan().any(-1), -1, cosines.argmax(-1))

    def margin(self, kind: Kind = "centred") -> Float[Tensor, "layer message"]:
        """Cosine of the best label less that of the second; NaN if there is but one label."""
        cosines = self.of(kind)
        if cosines.shape[-1] < 2:
            return torch.full_like(cosines[..., 0], float("nan"))
        first, second = cosines.topk(2, dim=-1).values.unbind(-1)
        return torch.where(cosines.isnan().any(-1), float("nan"), first - second)


@dataclass(frozen=True, eq=False)
class Similarities:
    """A run's messages and the labels that are not neutral, by source.

    centre: what was subtracted, the mean of `neutral` texts or, without any, the mean of the labels' mean states.
    no_whitening: why there is none.
    """

    run: str
    position: str
    layers: tuple[int, ...]
    roles: list[str]
    labels: list[str]
    centre: Literal["neutral", "labels"]
    by_source: Mapping[str, SourceSimilarities]
    no_whitening: str | None


def similarities(
    run: Run,
    references: References,
    position: str,
    sources: Sequence[str] = RESIDUAL_SOURCES,
    *,
    whitened: bool = True,
) -> Similarities:
    """Raw, centred and whitened cosines of every message with every label's mean state.

    The centre is made of reference texts alone, so no message is part of what is subtracted from it. Whitening is by
    the covariance of texts within their labels, shrunk (Ledoit and Wolf 2004).

    Raises StrataError if the position was not captured.
    """
    rows = reference_rows(references, position)
    labels, by_source, reason = references.labels, {}, None
    for source in sources:
        if source not in rows or source not in run.conversation.snapshot_rows:
            continue
        states, texts = precise(run.snapshots(source, position)), precise(rows.get(source))
        middle = centre(references, texts)
        means = label_means(texts, label_weights(references, labels))
        found = (
            whitening(texts, [text.label for text in references.texts]) if whitened else "whitening was not asked for"
        )
        reason = found if isinstance(found, str) else None
        by_source[source] = SourceSimilarities(
            raw=cosines(states, means),
            centred=centred_cosines(states, means, middle),
            whitened=centred_cosines(states, means, middle, found) if isinstance(found, Whitening) else None,
            common_share=(texts.mean(1).square().sum(-1) / texts.square().sum(-1).mean(-1)).float(),
            identical=identical_share(states, texts),
        )
    return Similarities(
        run.name,
        position,
        run.layers,
        [message.role for message in run.messages],
        labels,
        "neutral" if references.neutral else "labels",
        by_source,
        reason,
    )


def centre(references: References, texts: Float[Tensor, "layer text width"]) -> Float[Tensor, "layer 1 width"]:
    """Mean of the neutral texts; without any, the mean over labels of their mean states."""
    if references.neutral:
        return texts[:, references.neutral].mean(1, keepdim=True)
    return label_means(texts, label_weights(references, references.labels)).mean(1, keepdim=True)


def cosines(
    first: Float[Tensor, "layer first width"], second: Float[Tensor, "layer second width"]
) -> Float[Tensor, "layer first second"]:
    """Cosines of all pairs: 0 for a zero vector, NaN for one that is not finite."""
    return pairwise_metrics(tuple(range(len(first))), first, second).cosine


def centred_cosines(
    states: Float[Tensor, "layer row width"],
    targets: Float[Tensor, "layer target width"],
    middle: Float[Tensor, "layer 1 width"],
    whiten: Whitening | None = None,
) -> Float[Tensor, "layer row target"]:
    """Cosines of states - middle with targets - middle.

    What differs from the middle by less than SAME of its length counts as equal to it: its cosines are 0.
    """
    moved = [_without_rounding(array - middle, middle) for array in (states, targets)]
    return cosines(*(array if whiten is None else whiten(array) for array in moved))


def identical_share(
    states: Float[Tensor, "layer row width"], texts: Float[Tensor, "layer text width"]
) -> Float[Tensor, "layer"]:
    """Share of pairs whose distance is below SAME of the length of the text's state; NaN if a state is not finite."""
    bad = ~(states.isfinite().all(-1).all(-1) & texts.isfinite().all(-1).all(-1))
    states, texts = states.nan_to_num(0, 0, 0), texts.nan_to_num(0, 0, 0)
    apart = torch.cdist(states, texts, compute_mode="donot_use_mm_for_euclid_dist")
    share = (apart <= SAME * texts.norm(dim=-1)[:, None]).float().mean((-1, -2))
    return share.masked_fill(bad, float("nan"))


def _without_rounding(moved: Tensor, middle: Tensor) -> Tensor:
    return torch.where(moved.norm(dim=-1, keepdim=True) <= SAME * middle.norm(dim=-1, keepdim=True), 0.0, moved)
