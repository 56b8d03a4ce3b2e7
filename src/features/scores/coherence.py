"""Do the tokens at which a feature fires have something in common? The entropy of their distribution."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.products import arithmetic_device
from src.features.clustered import FEWEST_DOCUMENTS, Estimate
from src.features.codes import SparseCodes
from src.features.scores.firing import Firing

_ENTRIES_AT_ONCE = 2**23  # of the features that are looked at together; a single feature may have more


@dataclass(frozen=True, eq=False)
class Coherence:
    """Entropies (nats) of each feature's tokens, weighted by activation; NaN for features that never fire.

    raw_entropy: of the tokens as they were seen. entropy: after shrinkage, with its standard error. coherence: 1 -
    entropy / entropy of the text: 1 for a single token, 0 for tokens as varied as the text's, below 0 for more varied.
    top_tokens: ids of the tokens with the largest share of the feature's activation, best first (-1 where there are
    fewer). top_shares: those shares.
    """

    raw_entropy: Float[Tensor, " feature"]
    entropy: Estimate
    coherence: Estimate
    text_entropy: float
    top_tokens: Int[Tensor, "feature top"]
    top_shares: Float[Tensor, "feature top"]


def token_coherence(
    codes: SparseCodes, firing: Firing, prior: float, n_top: int = 10, device: torch.device | str = "cpu"
) -> Coherence:
    """Entropy of the tokens at which each feature fires, shrunk towards that of the text where there is little to see.

    p_ft = sum of f's activations at token id t, over their sum. A feature that was seen once has entropy 0, whatever it
    stands for, so p is smoothed by a Dirichlet prior whose mean is the text's own distribution u (Zhai and Lafferty
    2004, *ACM TOIS* 22, 2.3): (N p_f + prior u) / (N + prior), N the effective number of documents
    (`Firing.effective_documents`). The standard error is the linearised one over documents, N and u taken as known.

    prior: documents that the text's own distribution counts for; 0 = no shrinkage.
    """
    place = arithmetic_device(device)
    vocabulary, compact = codes.token_ids.unique(return_inverse=True)
    text = torch.bincount(compact).to(place, torch.float64) / codes.n_tokens
    surprise = -text.log()
    text_entropy = float((text * surprise).sum())
    n = codes.n_features
    raw, shrunk, error = torch.full((3, n), torch.nan, dtype=torch.float64)
    top_tokens, top_shares = torch.full((n, n_top), -1), torch.zeros(n, n_top, dtype=torch.float64)
    compact = compact.to(place)
    for block, features in _blocks(codes, firing, place):
        members = slice(features.start, features.stop)
        shares = _token_shares(block, compact, len(vocabulary), len(features))
        support = firing.effective_documents[members].to(place)
        kept = support / (support + prior)
        raw[members] = _sums(shares.feature, torch.special.entr(shares.share), len(features)).cpu()
        mixed = kept[shares.feature] * shares.share + (1 - kept[shares.feature]) * text[shares.token]
        # what the prior alone gives over the whole vocabulary, corrected where the feature fires
        of_prior = torch.special.entr(1 - kept) + (1 - kept) * text_entropy
        here = torch.special.entr((1 - kept[shares.feature]) * text[shares.token])
        entropy = of_prior + _sums(shares.feature, torch.special.entr(mixed) - here, len(features))
        shrunk[members] = entropy.cpu()
        error[members] = _error(block, shares, mixed, kept, codes.n_documents).cpu()
        tokens, top = _top(shares, n_top, len(features))
        top_tokens[members] = torch.where(tokens >= 0, vocabulary[tokens.clamp_min(0).cpu()], -1)
        top_shares[members] = top.cpu()
    dead = firing.is_dead
    raw[dead] = shrunk[dead] = torch.nan
    error[firing.n_documents < FEWEST_DOCUMENTS] = torch.nan
    coherence = Estimate(1 - shrunk / text_entropy, error / text_entropy)
    return Coherence(raw, Estimate(shrunk, error), coherence, text_entropy, top_tokens, top_shares)


@dataclass(frozen=True, eq=False)
class _Block:
    """All entries of some features, which are counted from 0 here."""

    feature: Int[Tensor, " entry"]
    token: Int[Tensor, " entry"]
    document: Int[Tensor, " entry"]
    activation: Float[Tensor, " entry"]


@dataclass(frozen=True, eq=False)
class _Shares:
    """Share of a feature's activation at each of its token ids (compact ones), and which of these an entry is."""

    feature: Int[Tensor, " pair"]
    token: Int[Tensor, " pair"]
    share: Float[Tensor, " pair"]
    total: Float[Tensor, " feature"]
    of_entry: Int[Tensor, " entry"]


def _blocks(codes: SparseCodes, firing: Firing, place: torch.device) -> Iterator[tuple[_Block, range]]:
    before = torch.cat([firing.n_active.new_zeros(1), firing.n_active.cumsum(0)])
    first = 0
    while first < codes.n_features:
        last = int(torch.searchsorted(before, before[first] + _ENTRIES_AT_ONCE, right=True)) - 1
        last = min(max(last, first + 1), codes.n_features)
        found: list[tuple[Tensor, ...]] = []
        for entries in codes.chunks(place):
            here = (entries.feature >= first) & (entries.feature < last)
            document = entries.document[here] + entries.first_document
            found.append((entries.feature[here] - first, entries.token[here], document, entries.activation[here]))
        yield _Block(*(torch.cat(parts) for parts in zip(*found, strict=True))), range(first, last)
        first = last


def _sums(index: Int[Tensor, " item"], values: Float[Tensor, " item"], size: int) -> Float[Tensor, " size"]:
    return values.new_zeros(size).index_add_(0, index, values)


def _token_shares(block: _Block, compact: Int[Tensor, " token"], n_vocabulary: int, n_features: int) -> _Shares:
    pair, of_entry = (block.feature * n_vocabulary + compact[block.token]).unique(return_inverse=True)
    feature = pair // n_vocabulary
    total = _sums(block.feature, block.activation, n_features)
    share = _sums(of_entry, block.activation, len(pair)) / total[feature]
    return _Shares(feature, pair % n_vocabulary, share, total, of_entry)


def _error(
    block: _Block,
    shares: _Shares,
    mixed: Float[Tensor, " pair"],
    kept: Float[Tensor, " feature"],
    n_documents: int,
) -> Float[Tensor, " feature"]:
    """Linearised: document d moves the entropy by kept * sum over its entries of z (h - mean h) / sum z, h = -ln p."""
    n_features = len(kept)
    if n_documents < 2:
        return torch.full_like(kept, torch.nan)
    surprise = -mixed.log()
    mean = _sums(shares.feature, shares.share * surprise, n_features)
    deviation = (surprise[shares.of_entry] - mean[block.feature]) * block.activation / shares.total[block.feature]
    place, of_entry = (block.feature * n_documents + block.document).unique(return_inverse=True)
    of_document = _sums(of_entry, deviation, len(place))
    squares = _sums(place // n_documents, of_document.square(), n_features)
    return kept * (squares * n_documents / (n_documents - 1)).sqrt()


def _top(
    shares: _Shares, n_top: int, n_features: int
) -> tuple[Int[Tensor, "feature top"], Float[Tensor, "feature top"]]:
    by_share = shares.share.argsort(descending=True, stable=True)
    order = by_share[shares.feature[by_share].argsort(stable=True)]
    feature = shares.feature[order]
    counts = torch.bincount(feature, minlength=n_features)
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[feature]
    best = rank < n_top
    tokens = torch.full((n_features, n_top), -1, device=order.device)
    top = shares.share.new_zeros(n_features, n_top)
    tokens[feature[best], rank[best]] = shares.token[order[best]]
    top[feature[best], rank[best]] = shares.share[order[best]]
    return tokens, top
