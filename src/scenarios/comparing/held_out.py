"""Nearest centroids with texts held out, for many labellings and layers at once."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.scenarios.comparing.centring import SAME

# entries of the largest array of a batch of labellings
_BATCH = 2**22


def held_out_accuracy(
    texts: Float[Tensor, "layer text width"],
    labellings: Int[Tensor, "labelling text"],
    n_labels: int,
    blocks: Int[Tensor, "text"],
    middle: Float[Tensor, "layer 1 width"] | None,
) -> tuple[Float[Tensor, "labelling layer"], Int[Tensor, "layer text"]]:
    """Accuracy of every labelling at every layer, and the nearest labels under the first one (-1: a tie).

    blocks: texts of one number are held out together. middle: the centre; None = the mean of the labels' means.
    Only inner products of texts enter, so that a labelling costs a few small products of matrices. Each label must have
    texts in two blocks. NaN at layers with a state that is not finite.
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
    together = (blocks[:, None] == blocks).to(inner)
    batch = max(1, _BATCH // (len(texts) * texts.shape[1] * n_labels))
    shares, nearest = [], torch.empty(0)
    for start in range(0, len(labellings), batch):
        member = torch.nn.functional.one_hot(labellings[start : start + batch], n_labels).to(inner)
        cosine = _held_out_cosines(inner, member, together, smallest, own_centre=middle is None)
        best = cosine >= cosine.max(-1, keepdim=True).values - 1e-9
        shares.append((best * member[:, None] / best.sum(-1, keepdim=True)).sum(-1).mean(-1))
        if start == 0:
            nearest = torch.where(best[0].sum(-1) > 1, -1, best[0].int().argmax(-1))
    return torch.cat(shares).masked_fill(bad, float("nan")).cpu(), nearest.masked_fill(bad[:, None], -1).cpu()


def _held_out_cosines(
    inner: Float[Tensor, "layer text text"],
    member: Float[Tensor, "labelling text label"],
    together: Float[Tensor, "text text"],
    smallest: Float[Tensor, "layer text"],
    own_centre: bool,
) -> Float[Tensor, "labelling layer text label"]:
    """Cosine of each text x with the means m of labels over the texts that are not held out with x, less the centre c.

    together: 1 for texts that are held out together, x itself among them. own_centre: c = mean over labels of m, else
    c = 0. Vectors shorter than `smallest` (squared) count as 0.
    """
    n_labels = member.shape[-1]
    size = inner.diagonal(dim1=-2, dim2=-1)[None, :, :, None]
    share = 1 / (member.sum(1, keepdim=True) - together @ member)[:, None]  # 1 / texts of a label that are left
    member = member[:, None]
    # x . (sum of a label's texts), of all texts and of those held out with x
    with_sum, with_held = inner[None] @ member, (inner * together)[None] @ member
    sums = member.mT @ with_sum  # (sum of a label) . (sum of another)
    with_mean = (with_sum - with_held) * share
    own = sums.diagonal(dim1=-2, dim2=-1)[:, :, None]
    mean_size = (own - together @ (member * (2 * with_sum - with_held))) * share.square()
    if own_centre:
        # m . c = sum over labels k of (s_l - held of l) . (s_k - held of k) / n_k, the product multiplied out
        both = ((with_sum - with_held) * share).sum(-1, keepdim=True) * member
        both = both + (member * share).sum(-1, keepdim=True) * with_sum
        with_centre = share / n_labels * (share @ sums.mT - together @ both)
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
