"""Do reference texts of one label lie together? Leave-one-out nearest centroids, with a permutation null."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest
from torch import Tensor

from src.scenarios.comparing.centring import SAME
from src.scenarios.comparing.pair_metrics import precise
from src.scenarios.comparing.randomisation import permutation_p
from src.scenarios.comparing.to_references import reference_rows
from src.scenarios.states import RESIDUAL_SOURCES, References

# entries of the largest array of a batch of permutations
_BATCH = 2**22


@dataclass(frozen=True, eq=False)
class SourceSeparability:
    """How often a text's nearest label is its own, the text itself left out.

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
    sources: tuple[str, ...] = RESIDUAL_SOURCES,
    *,
    draws: int = 999,
    seed: int = 0,
) -> Separability:
    """Separability at all layers of the given sources, tested together.

    The nearest label is that with the largest cosine between the text and the mean of the label's other texts, both
    less the centre: the mean of the neutral texts, or without any the mean of these label means (of other texts too).
    Null: labels shuffled over texts, the same shuffles for all layers and sources.

    Raises StrataError if the position was not captured.
    """
    rows = reference_rows(references, position)
    counts = Counter(text.label for text in references.texts if not text.neutral)
    labels = [label for label in references.labels if counts[label] > 1]
    texts = [row for row, text in enumerate(references.texts) if text.label in labels and not text.neutral]
    truth = torch.tensor([labels.index(references.texts[row].label) for row in texts], dtype=torch.long)
    notes, reason = [], None
    if single := [label for label in references.labels if counts[label] == 1]:
        notes.append(f"{', '.join(single)}: only one text, so left out")
    if len(labels) < 2:
        reason = (
            "it takes two labels with two texts each, so that one text can be left out: give reference states several "
            f"examples (there are {len(labels)} such labels)"
        )
    else:
        ways = math.factorial(len(texts)) / math.prod(math.factorial(counts[label]) for label in labels)
        # labels with equally many texts can change their names without changing any accuracy
        alike = math.prod(math.factorial(n) for n in Counter(counts[label] for label in labels).values())
        if ways / alike < 20:
            notes.append(f"{len(texts)} texts: p can't be below {alike / ways:.2g} however well they separate")
    present = [source for source in sources if source in rows]
    found = {}
    if reason is None and present:
        shuffled = shuffled_labels(truth, draws, seed)
        results = {}
        for source in present:
            array = precise(rows.get(source))
            middle = array[:, references.neutral].mean(1, keepdim=True) if references.neutral else None
            results[source] = leave_one_out(array[:, texts], shuffled, len(labels), middle)
        scores = torch.stack([share for share, _ in results.values()], 1)
        p, together = permutation_p(scores[0], scores[1:])
        for place, source in enumerate(present):
            share, nearest = scores[:, place], results[source][1]
            low, high = _wilson(share[0], len(texts))
            null = share[1:]
            found[source] = SourceSeparability(
                *(array.float() for array in (share[0], low, high, null.mean(0), null.quantile(0.95, dim=0))),
                p[place].float(),
                together[place].float(),
                nearest,
            )
    return Separability(
        position, rows.layers, labels, truth, texts, 1 / max(len(labels), 1), draws, found, reason, notes
    )


def shuffled_labels(truth: Int[Tensor, "text"], draws: int, seed: int) -> Int[Tensor, "draw+1 text"]:
    """The labels as they are, and then in random orders."""
    generator = torch.Generator().manual_seed(seed)
    orders = torch.rand(draws, len(truth), generator=generator).argsort(1)
    return torch.cat([truth[None], truth[orders]])


def leave_one_out(
    texts: Float[Tensor, "layer text width"],
    labellings: Int[Tensor, "labelling text"],
    n_labels: int,
    middle: Float[Tensor, "layer 1 width"] | None,
) -> tuple[Float[Tensor, "labelling layer"], Int[Tensor, "layer text"]]:
    """Accuracy of every labelling at every layer, and the nearest labels under the first one (-1: a tie).

    Only inner products of texts enter, so that a labelling costs two small products of matrices. Each label must have
    two texts at least. NaN at layers with a state that is not finite.
    """
    bad = ~texts.isfinite().all(-1).all(-1)
    if middle is not None:
        bad |= ~middle.isfinite().all(-1).all(-1)
    lengths = texts.nan_to_num(0, 0, 0).norm(dim=-1)
    # cosines of differences don't change when all states are moved; near 0 they keep their digits
    moved = (texts - (texts.mean(1, keepdim=True) if middle is None else middle)).nan_to_num(0, 0, 0)
    inner = moved @ moved.mT
    smallest = (SAME * lengths).square()
    labellings = labellings.to(texts.device)
    batch = max(1, _BATCH // (len(texts) * texts.shape[1] * n_labels))
    shares, nearest = [], torch.empty(0)
    for start in range(0, len(labellings), batch):
        member = torch.nn.functional.one_hot(labellings[start : start + batch], n_labels).to(inner)
        cosine = _held_out_cosines(inner, member, smallest, own_centre=middle is None)
        best = cosine >= cosine.max(-1, keepdim=True).values - 1e-9
        shares.append((best * member[:, None] / best.sum(-1, keepdim=True)).sum(-1).mean(-1))
        if start == 0:
            nearest = torch.where(best[0].sum(-1) > 1, -1, best[0].int().argmax(-1))
    return torch.cat(shares).masked_fill(bad, float("nan")), nearest.masked_fill(bad[:, None], -1)


def _held_out_cosines(
    inner: Float[Tensor, "layer text text"],
    member: Float[Tensor, "labelling text label"],
    smallest: Float[Tensor, "layer text"],
    own_centre: bool,
) -> Float[Tensor, "labelling layer text label"]:
    """Cosine of each text x with the mean m of each label's other texts, both less the centre c.

    own_centre: c = mean over labels of m, else c = 0. Vectors shorter than `smallest` (squared) count as 0.
    """
    n_labels = member.shape[-1]
    size = inner.diagonal(dim1=-2, dim2=-1)[None, :, :, None]
    share = 1 / (member.sum(1, keepdim=True) - member)[:, None]  # 1 / texts of the label without x
    member = member[:, None]
    with_sum = inner[None] @ member  # x . (sum of a label's texts)
    sums = member.mT @ with_sum  # (sum of a label) . (sum of another)
    with_mean = (with_sum - size * member) * share
    own = sums.diagonal(dim1=-2, dim2=-1)[:, :, None]
    mean_size = (own - 2 * member * with_sum + member * size) * share.square()
    if own_centre:
        # m . c, from sums over labels k of (s_l - [x in l] x) . (s_k - [x in k] x) / n_k
        with_centre = share / n_labels * (
            share @ sums.mT
            - member * (with_sum * share).sum(-1, keepdim=True)
            - (with_sum - size * member) * (member * share).sum(-1, keepdim=True)
        )  # fmt: skip
        x_centre = with_mean.mean(-1, keepdim=True)
        centre_size = with_centre.mean(-1, keepdim=True)
        numerator = with_mean - x_centre - with_centre + centre_size
        x_size = size - 2 * x_centre + centre_size
        mean_size = mean_size - 2 * with_centre + centre_size
    else:
        numerator, x_size = with_mean, size
    real: Bool[Tensor, "labelling layer text label"] = torch.minimum(x_size, mean_size) > smallest[None, :, :, None]
    scale = (x_size.clamp(min=0) * mean_size.clamp(min=0)).sqrt()
    return torch.where(real, numerator / scale.clamp(min=1e-300), 0.0)


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
