"""How much a feature repeats another: the correlation of their activations, and the angle of their decoders."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.products import arithmetic_device
from src.features.clustered import Estimate
from src.features.codes import Entries, SparseCodes

_NUMBERS_AT_ONCE = 2**24  # in some rows of a matrix feature x feature
_PAIRS_AT_ONCE = 2**21  # of features that fire at the same token


@dataclass(frozen=True, eq=False)
class Redundancy:
    """Of each feature the largest |Pearson correlation| of activations with another's, and which that is (-1: none).

    NaN for a feature that never fires, or always alike. The standard error takes the partner as known; being the
    largest of many, the correlation of a feature that fires rarely leans high.
    """

    correlation: Estimate
    partner: Int[Tensor, " feature"]


def activation_redundancy(codes: SparseCodes, device: torch.device | str = "cpu") -> Redundancy:
    """The Pearson correlation over all counted tokens, from Z'Z, which only tokens where both fire add to.

    Rows of Z'Z are made in blocks of features; the work is the number of pairs of features at the same token, the
    memory does not grow with the number of tokens.
    """
    place = arithmetic_device(device)
    n, n_tokens = codes.n_features, codes.n_tokens
    total, square = torch.zeros(2, n, dtype=torch.float64, device=place)
    for entries in codes.chunks(device):
        total.index_add_(0, entries.feature, entries.activation)
        square.index_add_(0, entries.feature, entries.activation.square())
    mean = total / n_tokens
    variance = square / n_tokens - mean.square()
    # below rounding, a feature does not vary
    spread = torch.where(variance > 1e-12 * square / n_tokens, variance, 0).sqrt()
    signed, partner = torch.zeros_like(mean), torch.full_like(mean, -1, dtype=torch.int64)
    size = max(1, _NUMBERS_AT_ONCE // n)
    for first in range(0, n, size):
        members = torch.arange(first, min(first + size, n), device=place)
        products = _co_activation(codes, members, device).view(len(members), n) / n_tokens
        products -= torch.outer(mean[members], mean)
        products /= torch.outer(spread[members], spread)  # NaN or infinite where a feature does not vary
        products.masked_fill_((spread[members, None] * spread) == 0, 0)
        products[members - first, members] = 0
        best = products.abs().argmax(1)
        signed[members] = products[members - first, best]
        partner[members] = best
    # two others that vary are needed for a partner to mean anything
    lonely = (spread == 0) | (int((spread > 0).sum()) < 2)
    signed[lonely], partner[lonely] = torch.nan, -1
    error = _errors(codes, mean, spread, signed, partner, device)
    return Redundancy(Estimate(signed.abs().cpu(), error.cpu()), partner.cpu())


def _co_activation(codes: SparseCodes, members: Int[Tensor, " member"], device: torch.device | str) -> Tensor:
    """Rows of Z'Z, flat: sums over tokens of the product of activations, for consecutive features and all others."""
    n, first = codes.n_features, members[0]
    products = torch.zeros(len(members) * n, dtype=torch.float64, device=members.device)
    for entries in codes.chunks(device):
        begins, counts = _of_same_token(entries)
        left = ((entries.feature >= first) & (entries.feature <= members[-1])).nonzero()[:, 0]
        for some in _pieces(left, counts):
            many = counts[some]
            one = some.repeat_interleave(many)
            within = torch.arange(len(one), device=one.device) - (many.cumsum(0) - many).repeat_interleave(many)
            other = begins[one] + within
            index = (entries.feature[one] - first) * n + entries.feature[other]
            products.index_add_(0, index, entries.activation[one] * entries.activation[other])
    return products


def _of_same_token(entries: Entries) -> tuple[Int[Tensor, " entry"], Int[Tensor, " entry"]]:
    """Of each entry the place of the first entry of its token, and how many there are."""
    _, of_entry, counts = entries.token.unique_consecutive(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - counts)[of_entry], counts[of_entry]


def _pieces(left: Int[Tensor, " some"], counts: Int[Tensor, " entry"]) -> Iterator[Int[Tensor, " few"]]:
    if len(left):
        yield from left.split(max(1, _PAIRS_AT_ONCE // int(counts[left].max())))


def _errors(
    codes: SparseCodes,
    mean: Float[Tensor, " feature"],
    spread: Float[Tensor, " feature"],
    correlation: Float[Tensor, " feature"],
    partner: Int[Tensor, " feature"],
    device: torch.device | str,
) -> Float[Tensor, " feature"]:
    """Linearised standard errors over documents.

    A token moves r by (uv - r (u^2 + v^2) / 2) / n, u and v standardised (Devlin, Gnanadesikan and Kettenring 1975,
    *Biometrika* 62).
    """
    n_documents, other = codes.n_documents, partner.clamp_min(0)
    squares = torch.zeros_like(mean)
    for entries in codes.chunks(device):
        key = entries.token * codes.n_features
        keys = key + entries.feature
        wanted = key + other[entries.feature]
        found = torch.searchsorted(keys, wanted).clamp_max(max(len(keys) - 1, 0))
        partners = torch.where(keys[found] == wanted, entries.activation[found], 0) if len(keys) else keys.double()
        tokens = entries.tokens_per_document[:, None]
        product = entries.per_document(entries.activation * partners)
        first, second = entries.per_document(entries.activation), entries.per_document(entries.activation.square())
        uv = product - mean * first[:, other] - mean[other] * first + tokens * mean * mean[other]
        uv /= spread * spread[other]
        u2 = (second - 2 * mean * first + tokens * mean.square()) / spread.square()
        of_document = uv - correlation / 2 * (u2 + u2[:, other])
        squares += of_document.square().sum(0)
    if n_documents < 2:
        return torch.full_like(mean, torch.nan)
    return (squares * n_documents / (n_documents - 1)).sqrt() / codes.n_tokens


def nearest_decoders(
    decoder: Float[Tensor, "feature d_model"],
) -> tuple[Float[Tensor, " feature"], Int[Tensor, " feature"]]:
    """The highest cosine of each decoder direction to another feature's, and which that is; in blocks."""
    directions = torch.nn.functional.normalize(decoder, dim=1)
    cosine, partner = directions.new_zeros(len(decoder)), torch.zeros(len(decoder), dtype=torch.int64)
    size = max(1, _NUMBERS_AT_ONCE // len(decoder))
    for first in range(0, len(decoder), size):
        products = directions[first : first + size] @ directions.T
        places = torch.arange(len(products), device=products.device)
        products[places, places + first] = -torch.inf
        best = products.max(1)
        cosine[first : first + size], partner[first : first + size] = best.values, best.indices.cpu()
    return cosine.cpu(), partner
