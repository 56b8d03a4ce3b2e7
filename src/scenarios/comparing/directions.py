"""Contrast directions between reference labels, and where states lie on them."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError
from src.scenarios.comparing.centring import SAME
from src.scenarios.comparing.pair_metrics import precise
from src.scenarios.comparing.to_references import label_means, label_weights
from src.scenarios.states import References

Contrast = Literal["rest", "neutral", "pairs"]


_FEWEST_DEGREES = 2


@dataclass(frozen=True, eq=False)
class ContrastDirections:
    """Unit vectors from the mean state of one side to that of a label, at each layer.

    labels, against: the two sides of each direction; `rest` is the mean of the other labels' means, `neutral` the mean
        of the neutral texts.
    units: NaN where the two means are equal up to rounding.
    origin: projection of the other side's mean, which reads as 0.
    spread: the standard deviation that is the unit of projections. scale says of what: `within labels` = of texts about
        their label's mean; `all texts` = of all texts, where labels have too few texts for that (it holds the
        differences between labels too, so that projections come out small).
    reach: where the label's own mean lies, in such units. The direction was fitted to it: it is no score.
    """

    layers: tuple[int, ...]
    labels: list[str]
    against: list[str]
    units: Float[Tensor, "layer direction width"]
    origin: Float[Tensor, "layer direction"]
    spread: Float[Tensor, "layer direction"]
    reach: Float[Tensor, "layer direction"]
    scale: Literal["within labels", "all texts"]

    @property
    def names(self) -> list[str]:
        """Of the directions."""
        return [f"{label} - {other}" for label, other in zip(self.labels, self.against, strict=True)]

    def project(self, states: Float[Tensor, "layer row width"]) -> Float[Tensor, "layer row direction"]:
        """Where states lie: 0 at the mean of the other side, in units of the spread between texts."""
        along = precise(states) @ self.units.mT
        return ((along - self.origin[:, None]) / self.spread[:, None]).float()


def contrast_directions(
    layers: tuple[int, ...],
    references: References,
    texts: Float[Tensor, "layer text width"],
    contrast: Contrast = "rest",
) -> ContrastDirections:
    """Directions of all labels: each against the mean of the others, against the neutral texts, or in all pairs.

    Differences of class means (Marks and Tegmark 2024, "The geometry of truth"; Rimsky et al. 2024).

    Raises StrataError if there is nothing to contrast with.
    """
    labels = references.labels
    if contrast == "neutral" and not references.neutral:
        raise StrataError("there are no neutral texts: mark a reference state with neutral: true")
    if contrast != "neutral" and len(labels) < 2:
        raise StrataError(f"a contrast needs two labels (there are {len(labels)}): give more reference states")
    texts = precise(texts)
    means = label_means(texts, label_weights(references, labels))
    if contrast == "pairs":
        pairs = [(i, j) for i in range(len(labels)) for j in range(len(labels)) if i < j]
        first, second = means[:, [i for i, _ in pairs]], means[:, [j for _, j in pairs]]
        names, against = [labels[i] for i, _ in pairs], [labels[j] for _, j in pairs]
    else:
        rest = (means.sum(1, keepdim=True) - means) / max(len(labels) - 1, 1)
        first = means
        second = texts[:, references.neutral].mean(1, keepdim=True).expand_as(means) if contrast == "neutral" else rest
        names, against = labels, [contrast] * len(labels)
    difference = first - second
    length = difference.norm(dim=-1, keepdim=True)
    units = torch.where(length > SAME * first.norm(dim=-1, keepdim=True), difference / length, float("nan"))
    along = texts @ units.mT
    within = _within(references, along)
    spread = along.std(1) if within is None else within
    origin = (second * units).sum(-1)
    reach = ((first * units).sum(-1) - origin) / spread
    scale = "all texts" if within is None else "within labels"
    return ContrastDirections(layers, names, against, units, origin, spread, reach.float(), scale)


def _within(
    references: References, along: Float[Tensor, "layer text direction"]
) -> Float[Tensor, "layer direction"] | None:
    """Pooled standard deviation of texts about the mean of their label; None if labels have too few texts."""
    groups = [text.label for text in references.texts]
    names = sorted(set(groups))
    degrees = len(groups) - len(names)
    if degrees < _FEWEST_DEGREES:
        return None
    member = torch.tensor([[group == name for name in names] for group in groups]).to(along)
    about = along - member @ ((member / member.sum(0)).mT @ along)
    return (about.square().sum(1) / degrees).sqrt()
