"""Do reference texts of one label lie together? Nearest centroids of other texts, with a permutation null."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from scipy.stats import binomtest
from torch import Tensor

from src.errors import StrataError
from src.scenarios.comparing.held_out import held_out_accuracy
from src.scenarios.comparing.pair_metrics import precise
from src.scenarios.comparing.randomisation import permutation_p, shuffled_labels
from src.scenarios.comparing.to_references import reference_rows
from src.scenarios.states import RESIDUAL_SOURCES, References

HeldOut = Literal["text", "example"]
# shuffles of labels that differ in what they give: with fewer, no p is below 5 %
_FEW_WAYS = 20


@dataclass(frozen=True, eq=False)
class SourceSeparability:
    """How often a text's nearest label is its own, from texts that it is not among.

    accuracy: share of texts; a tie of k labels counts 1/k. low, high: Wilson's 95 % interval over texts, which takes
        their results as independent. null_mean, null_high: mean and 95 % quantile with labels shuffled.
    p: of the layer alone. p_corrected: with the maximum over all layers and sources that were tested together.
    nearest: index of each text's nearest label, -1 for a tie.
    """

    accuracy: Float[Tensor, "layer"]
    low: Float[Tensor, "layer"]
    high: Float[Tensor, "layer"]
    null_mean: Float[Tensor, "layer"]
    null_high: Float[Tensor, "layer"]
    p: Float[Tensor, "layer"]
    p_corrected: Float[Tensor, "layer"]
    nearest: Int[Tensor, "layer text"]

    def confusion(self, truth: Int[Tensor, "text"], n_labels: int) -> Int[Tensor, "layer label label"]:
        """Texts by their own (rows) and their nearest label (columns); ties are left out."""
        table = torch.zeros(len(self.nearest), n_labels, n_labels + 1, dtype=torch.long)
        rows = truth[None].expand_as(self.nearest)
        layers = torch.arange(len(table))[:, None].expand_as(rows)
        table.index_put_((layers, rows, self.nearest.cpu()), torch.ones_like(rows), accumulate=True)
        return table[:, :, :n_labels]


@dataclass(frozen=True, eq=False)
class Separability:
    """Of the references at one position, without the neutral texts.

    truth: index of each text's label. texts: which row of the references each is. chance: 1 / labels.
    reason: why nothing could be tested (by_source is empty then). notes: what to keep in mind.
    """

    position: str
    held_out: HeldOut
    layers: tuple[int, ...]
    labels: list[str]
    truth: Int[Tensor, "text"]
    texts: list[int]
    chance: float
    draws: int
    by_source: Mapping[str, SourceSeparability]
    reason: str | None
    notes: list[str]


def separability(
    references: References,
    position: str,
    sources: Sequence[str] = RESIDUAL_SOURCES,
    *,
    held_out: HeldOut | None = None,
    draws: int = 999,
    seed: int = 0,
) -> Separability:
    """Separability at all layers of the given sources, tested together.

    The nearest label is that with the largest cosine between the text and the means of the labels' texts that are not
    held out, both less the centre: the mean of the neutral texts, or without any the mean of these label means.

    held_out: `example` holds out the examples of one number of all labels together, and shuffles labels within them:
        where example 3 of each label has the same wording, a text is not drawn to the other labels' third examples,
        and all means are of equally many texts. `text` holds out one text alone, and shuffles labels over all texts.
        None: `example` where labels have equally many texts.

    Raises StrataError if the position was not captured, or labels have different numbers of texts for `example`.
    """
    rows = reference_rows(references, position)
    counts = Counter(text.label for text in references.texts if not text.neutral)
    labels = [label for label in references.labels if counts[label] > 1]
    texts = [row for row, text in enumerate(references.texts) if text.label in labels and not text.neutral]
    truth = torch.tensor([labels.index(references.texts[row].label) for row in texts], dtype=torch.long)
    sizes = Counter(counts[label] for label in labels)
    if held_out is None:
        held_out = "example" if len(sizes) == 1 else "text"
    if held_out == "example" and len(sizes) > 1:
        raise StrataError("labels have different numbers of examples: hold out one text at a time (held_out=text)")
    notes, reason = [], None
    if single := [label for label in references.labels if counts[label] == 1]:
        notes.append(f"{', '.join(single)}: only one text, so left out")
    blocks = torch.arange(len(texts))
    if len(labels) < 2:
        reason = (
            "it takes two labels with two texts each, so that one text can be left out: give reference states several "
            f"examples (there are {len(labels)} such labels)"
        )
    else:
        # labels with equally many texts can change their names without changing any accuracy
        alike = math.prod(math.factorial(n) for n in sizes.values())
        if held_out == "example":
            blocks = torch.tensor([int((truth[:place] == truth[place]).sum()) for place in range(len(truth))])
            ways = math.factorial(len(labels)) ** counts[labels[0]]
        else:
            ways = math.factorial(len(texts)) // math.prod(math.factorial(counts[label]) for label in labels)
        if ways // alike < _FEW_WAYS:
            notes.append(f"labels can be shuffled in {ways // alike} ways only, so p can't be below {alike / ways:.2g}")
    present = [source for source in sources if source in rows]
    found = {}
    if reason is None and present:
        within = blocks if held_out == "example" else torch.zeros_like(blocks)
        shuffled = shuffled_labels(truth, draws, torch.Generator().manual_seed(seed), within)
        results = {}
        for source in present:
            array = precise(rows.get(source))
            middle = array[:, references.neutral].mean(1, keepdim=True) if references.neutral else None
            results[source] = held_out_accuracy(array[:, texts], shuffled, len(labels), blocks, middle)
        scores = torch.stack([share for share, _ in results.values()], 1)
        p, together = permutation_p(scores[0], scores[1:])
        for place, source in enumerate(present):
            share, nearest = scores[:, place], results[source][1]
            low, high = _wilson(share[0], len(texts))
            null = share[1:]
            found[source] = SourceSeparability(
                accuracy=share[0].float(),
                low=low.float(),
                high=high.float(),
                null_mean=null.mean(0).float(),
                null_high=null.quantile(0.95, dim=0).float(),
                p=p[place],
                p_corrected=together[place],
                nearest=nearest,
            )
    return Separability(
        position, held_out, rows.layers, labels, truth, texts, 1 / max(len(labels), 1), draws, found, reason, notes
    )


def _wilson(share: Float[Tensor, "layer"], n: int) -> tuple[Float[Tensor, "layer"], Float[Tensor, "layer"]]:
    """95 % interval of a share of n; ties are rounded to the nearest count."""
    pairs = []
    for value in share.tolist():
        if math.isnan(value):
            pairs.append((float("nan"), float("nan")))
            continue
        interval = binomtest(round(value * n), n).proportion_ci(0.95, method="wilson")
        pairs.append((interval.low, interval.high))
    low, high = torch.tensor(pairs).to(share).unbind(-1)
    return low, high
