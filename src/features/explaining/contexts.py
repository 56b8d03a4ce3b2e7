"""Where features fire: top activating contexts, contexts from all strengths, histograms and tokens, in one pass.

A feature *fires* on a token where its activation is above 0. Only counted tokens fire; the tokens around them are shown
whatever they are. Memory: a few hundred numbers per feature, and one chunk of rows, whatever the size of the store.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from src.activations.parts import Part
from src.activations.products import exact_products
from src.activations.store import ActivationStore
from src.features.explaining.best_per_document import BestPerDocument
from src.features.sae import Sae
from src.features.scores.token_tally import TokenShare, TokenTally
from src.features.windows import Chunk, Context
from src.hook_points import HookPoint
from src.text import Keep

N_BINS = 64
_FEATURES_AT_ONCE = 2**25  # numbers in one batch of feature activations


@dataclass(frozen=True)
class ContextSettings:
    """Which contexts are kept.

    top: with the highest activations. bands, per_band: drawn at random from bands with equal shares of the firings.
    before, after: tokens around the one that fires.
    """

    top: int
    bands: int
    per_band: int
    before: int
    after: int


@dataclass(frozen=True)
class FeatureActivity:
    """What a feature does in a store.

    counts: its firings in N_BINS bins of equal width from 0 to `upper`, the least power of two above its maximum.
    """

    feature: int
    firings: int
    sequences: int
    n_tokens: int
    n_sequences: int
    mean: float
    maximum: float
    upper: float
    counts: tuple[int, ...]
    tokens: tuple[TokenShare, ...]
    contexts: tuple[Context, ...]

    @property
    def rate(self) -> float:
        """Share of the counted tokens on which it fires."""
        return self.firings / self.n_tokens


def count_firings(
    sae: Sae, store: ActivationStore, point: HookPoint, advance: Callable[[int], None]
) -> Int[Tensor, " feature"]:
    """On how many counted tokens each feature of an SAE fires. advance: is told the number of tokens done."""
    store.require([point])
    total = torch.zeros(sae.n_features, dtype=torch.int64, device=_device(sae))
    with exact_products():
        for part in store:
            rows = part.activations(point)[torch.from_numpy(part.keep == Keep.COUNTED)]
            for batch in rows.split(_rows_at_once(sae)):
                total += (sae.encode(batch.to(total.device, torch.float32)) > 0).sum(0)
            advance(len(part.keep))
            del rows  # before the next part is read
    return total.cpu()


def find_contexts(
    sae: Sae,
    store: ActivationStore,
    point: HookPoint,
    features: Sequence[int],
    documents: Int[np.ndarray, " sequence"],
    settings: ContextSettings,
    seed: int,
    advance: Callable[[int], None],
    tokens_shown: int = 10,
) -> tuple[list[FeatureActivity], Int[Tensor, " feature"]]:
    """The activity of each of some features, in their order, and the firings of all features of the SAE.

    documents: of every sequence of the store; a document gives a feature one top context at most, and one of each band.
    seed: of the draw within bands. advance: is told the number of tokens done.
    """
    store.require([point])
    device = _device(sae)
    search = _Search(torch.tensor(list(features), device=device), settings, seed, device)
    firings = torch.zeros(sae.n_features, dtype=torch.int64, device=device)
    with exact_products():
        for part in store:
            for chunk in _chunks(sae, part, point, documents, search.features, firings):
                search.add(chunk)
                advance(len(chunk.token_ids))
    return search.activities(list(features), tokens_shown), firings.cpu()


def _device(sae: Sae) -> torch.device:
    return next(sae.module.parameters()).device


def _rows_at_once(sae: Sae) -> int:
    return max(1, _FEATURES_AT_ONCE // sae.n_features)


def _chunks(
    sae: Sae,
    part: Part,
    point: HookPoint,
    documents: Int[np.ndarray, " sequence"],
    features: Int[Tensor, " chosen"],
    firings: Int[Tensor, " feature"],
) -> Iterator[Chunk]:
    """The sequences of a part, some at a time; adds to the firings of all features."""
    rows, sequence, start = part.activations(point), part.sequence, part.sequence_start
    counted = torch.from_numpy(part.keep == Keep.COUNTED)
    arrays = (part.token_ids.astype(np.int64), sequence, part.position.astype(np.int64), documents[sequence])
    token_ids, of_sequence, position, document = (torch.from_numpy(np.ascontiguousarray(it)) for it in arrays)
    at_once, first = _rows_at_once(sae), 0
    while first < len(start) - 1:
        last = max(int(np.searchsorted(start, start[first] + at_once, side="right")) - 1, first + 1)
        here = slice(int(start[first]), int(start[last]))
        chosen = []
        # a sequence may be longer than what is encoded at once
        for batch, is_counted in zip(rows[here].split(at_once), counted[here].split(at_once), strict=True):
            acts = sae.encode(batch.to(features.device, torch.float32))
            firings += ((acts > 0) & is_counted.to(acts.device)[:, None]).sum(0)
            chosen.append(acts.index_select(1, features).float())
            del acts
        where = (values[here].to(features.device) for values in (counted, token_ids, of_sequence, position, document))
        is_counted, *others = where
        yield Chunk(torch.cat(chosen).masked_fill_(~is_counted[:, None], float("nan")), is_counted, *others)
        first = last


class _Search:
    """What a pass keeps of the chosen features."""

    def __init__(
        self, features: Int[Tensor, " chosen"], settings: ContextSettings, seed: int, device: torch.device
    ) -> None:
        n, around = len(features), (settings.before, settings.after)
        self.features = features
        self._settings = settings
        # more than are shown: windows with the same words are dropped at the end
        self._top = BestPerDocument(n, 4 * settings.top, *around, device)
        drawn = 8 * settings.bands * settings.per_band
        self._drawn = BestPerDocument(n, drawn, *around, device) if drawn else None
        self._draws = torch.Generator().manual_seed(seed)
        self._firings, self._sequences = torch.zeros(2, n, dtype=torch.int64, device=device)
        # float64 sums: of those that a device lacks, kept on the CPU
        self._sum = torch.zeros(n, dtype=torch.float64)
        self._maximum = torch.zeros(n, device=device)
        self._exponent = torch.full((n,), -126, dtype=torch.int64, device=device)
        self._counts = torch.zeros(n, N_BINS, dtype=torch.int64, device=device)
        self._tally = TokenTally(n)
        self._n_tokens = self._n_sequences = 0

    def add(self, chunk: Chunk) -> None:
        """Take the firings of a chunk."""
        row, feature = (chunk.activations > 0).nonzero(as_tuple=True)
        value = chunk.activations[row, feature]
        self._n_tokens += int(chunk.is_counted.sum())
        self._n_sequences += int(chunk.sequence[-1] - chunk.sequence[0]) + 1
        self._tally.add_tokens(chunk.token_ids[chunk.is_counted].cpu())
        if not len(row):
            return
        self._count(chunk, row, feature, value)
        self._tally.add_firings(feature.cpu(), chunk.token_ids[row].cpu(), value.cpu().double())
        self._top.add(chunk, row, feature, value)
        if self._drawn is not None:
            # drawn on the CPU, so that every device draws the same
            key = torch.rand(len(row), generator=self._draws).to(value.device)
            self._drawn.add(chunk, row, feature, key)

    def _count(self, chunk: Chunk, row: Tensor, feature: Tensor, value: Tensor) -> None:
        n = len(self.features)
        self._firings += torch.bincount(feature, minlength=n)
        pairs = torch.unique(feature * (int(chunk.sequence[-1]) + 1) + chunk.sequence[row])
        self._sequences += torch.bincount(pairs // (int(chunk.sequence[-1]) + 1), minlength=n)
        self._sum.index_add_(0, feature.cpu(), value.cpu().double())
        self._maximum.scatter_reduce_(0, feature, value, "amax")
        # 2^exponent is the least power of two above the maximum: bins are exact, whatever the order of the chunks
        exponent = torch.frexp(self._maximum).exponent.long()
        exponent = torch.where(self._maximum > 0, exponent, self._exponent)
        grown = (exponent - self._exponent).clamp_min(0)
        self._exponent += grown
        self._counts = _coarser(self._counts, grown)
        place = torch.ldexp(value, 6 - self._exponent[feature]).long().clamp_max(N_BINS - 1)
        self._counts += torch.bincount(feature * N_BINS + place, minlength=n * N_BINS).view(n, N_BINS)

    def activities(self, features: list[int], tokens_shown: int) -> list[FeatureActivity]:
        """The activity of each feature."""
        top = self._top.contexts()
        drawn = [[] for _ in features] if self._drawn is None else self._drawn.contexts()
        tokens = self._tally.largest(tokens_shown)
        found = []
        for place, feature in enumerate(features):
            firings = int(self._firings[place])
            found.append(
                FeatureActivity(
                    feature=feature,
                    firings=firings,
                    sequences=int(self._sequences[place]),
                    n_tokens=self._n_tokens,
                    n_sequences=self._n_sequences,
                    mean=float(self._sum[place]) / firings if firings else 0.0,
                    maximum=float(self._maximum[place]),
                    upper=2.0 ** int(self._exponent[place]) if firings else 1.0,
                    counts=tuple(self._counts[place].tolist()),
                    tokens=tuple(tokens[place]),
                    contexts=(
                        *unlike(top[place], self._settings.top),
                        *_in_bands(drawn[place], self._settings.bands, self._settings.per_band),
                    ),
                )
            )
        return found


def _coarser(counts: Int[Tensor, "feature bin"], doublings: Int[Tensor, " feature"]) -> Int[Tensor, "feature bin"]:
    """Histograms whose range was doubled so many times: neighbouring bins become one."""
    if not bool(doublings.any()):
        return counts
    place = torch.arange(N_BINS, device=counts.device) >> doublings.clamp_max(7)[:, None]
    return torch.zeros_like(counts).scatter_add_(1, place, counts)


def unlike(contexts: Sequence[Context], n: int) -> list[Context]:
    """The first n contexts whose words up to the firing token differ, in their order.

    Where there are fewer, as for a feature that fires at the beginning of texts, those whose whole windows differ
    make up for them.
    """
    kept: dict[int, Context] = {}
    for whole in (False, True):
        seen = {_words(context, whole) for context in kept.values()}
        for place, context in enumerate(contexts):
            words = _words(context, whole)
            if len(kept) < n and place not in kept and words not in seen:
                seen.add(words)
                kept[place] = context
    return [kept[place] for place in sorted(kept)]


def _words(context: Context, whole: bool) -> tuple[int, ...]:
    return context.token_ids if whole else context.token_ids[: context.place + 1]


def _in_bands(drawn: Sequence[Context], bands: int, per_band: int) -> list[Context]:
    """Contexts from bands of equal shares of the firings, strongest band first.

    drawn: a random sample of the firings, in random order.
    """
    by_strength = sorted(range(len(drawn)), key=lambda place: drawn[place].activation)
    found: list[Context] = []
    for band in reversed(range(bands)):
        places = by_strength[band * len(drawn) // bands : (band + 1) * len(drawn) // bands]
        some = unlike([drawn[place] for place in sorted(places)], per_band)
        found += [replace(it, band=band) for it in sorted(some, key=lambda it: -it.activation)]
    return found
