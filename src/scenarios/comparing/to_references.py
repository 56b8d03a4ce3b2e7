"""The states of a run's messages against reference states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError
from src.scenarios.comparing.pair_metrics import PairMetrics, pairwise_metrics, precise
from src.scenarios.states import RESIDUAL_SOURCES, References, Rows, Run


@dataclass(frozen=True, eq=False)
class ReferenceComparison:
    """Messages of a run against the labels of references, all read at one position.

    labels: those of the references, the neutral ones last. neutral: which of them are.
    over_texts: for each source metrics [layer, message, label], the mean of a message's metrics with each text of the
        label (with one text per label this is what Activation Lab computes).
    to_mean: as over_texts, but with the mean state of the label's texts: a mean of several states is nearer to all.
    """

    run: str
    position: str
    roles: list[str]
    labels: list[str]
    neutral: list[bool]
    over_texts: Mapping[str, PairMetrics]
    to_mean: Mapping[str, PairMetrics]

    def over_layers(self, source: str) -> dict[str, Float[Tensor, "message label"]]:
        """Mean of over_texts' metrics over layers."""
        return self.over_texts[source].over_layers()

    def of_role(self, role: str) -> dict[str, PairMetrics]:
        """Unweighted means of over_texts over a role's messages: metrics [layer, label] for each source."""
        rows = [row for row, name in enumerate(self.roles) if name == role]
        if not rows:
            raise StrataError(f"{self.run} has no message of {role} (there are {', '.join(dict.fromkeys(self.roles))})")
        return {
            source: metrics.map(lambda array: array[:, rows].nanmean(1)) for source, metrics in self.over_texts.items()
        }


def all_labels(references: References) -> list[str]:
    """Labels in their order, the neutral ones last."""
    return list(dict.fromkeys([*references.labels, *(references.texts[row].label for row in references.neutral)]))


def label_weights(references: References, labels: Sequence[str]) -> Float[Tensor, "text label"]:
    """Weights that turn values of texts into means of labels."""
    belongs = torch.tensor([[text.label == label for label in labels] for text in references.texts], dtype=torch.float)
    return belongs / belongs.sum(0, keepdim=True)


def reference_rows(references: References, position: str) -> Rows:
    """All texts at one position. StrataError if that was not captured."""
    if position not in references.rows:
        raise StrataError(
            f"position {position!r} of the references was not captured (there are {', '.join(references.rows)}): "
            "capture with this position in capture.positions"
        )
    return references.rows[position]


def compare_with_references(
    run: Run, references: References, position: str, sources: Sequence[str] = RESIDUAL_SOURCES
) -> ReferenceComparison:
    """Every message of a run against every reference label (specification 3.2), for the sources that both have.

    Raises StrataError if the position was not captured, or the layers differ.
    """
    rows = reference_rows(references, position)
    if run.layers != rows.layers:
        raise StrataError(
            f"{run.name} has layers {list(run.layers)}, the references {list(rows.layers)}: "
            "capture both with the same capture.layers"
        )
    labels = all_labels(references)
    neutral = {references.texts[row].label for row in references.neutral}
    weights = label_weights(references, labels)
    over_texts, to_mean = {}, {}
    for source in sources:
        if source not in run.conversation.snapshot_rows or source not in rows:
            continue
        states, texts = run.snapshots(source, position), rows.get(source)
        metrics = pairwise_metrics(run.layers, states, texts)
        over_texts[source] = metrics.map(lambda array: _averaged(array, weights.to(array)))
        to_mean[source] = pairwise_metrics(run.layers, states, label_means(texts, weights))
    return ReferenceComparison(
        run.name,
        position,
        [message.role for message in run.messages],
        labels,
        [label in neutral for label in labels],
        over_texts,
        to_mean,
    )


def label_means(
    texts: Float[Tensor, "layer text width"], weights: Float[Tensor, "text label"]
) -> Float[Tensor, "layer label width"]:
    """Mean state of each label's texts."""
    return torch.einsum("ltw,tk->lkw", precise(texts), precise(weights.to(texts.device)))


def _averaged(array: Float[Tensor, "layer message text"], share: Float[Tensor, "text label"]) -> Tensor:
    """NaN where the label has a text that is NaN; texts of other labels don't spread theirs."""
    missing = array.isnan().to(share) @ (share > 0).to(share)
    return torch.where(missing > 0, float("nan"), array.nan_to_num(0) @ share.to(array))
