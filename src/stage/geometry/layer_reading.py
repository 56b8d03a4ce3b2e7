"""States of every layer on their way into running sums: from stores, or from a model that reads and keeps nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.collect import batches_of_like_length, right_padded
from src.activations.products import arithmetic_device
from src.activations.store import ActivationStore
from src.geometry.layers.profile import LayerSums
from src.geometry.layers.sites import Site
from src.geometry.layers.stacks import StackSums, align
from src.geometry.layers.texts import TextBlock
from src.hook_points import HookPoint
from src.models.stack_states import Stacks, decoder_start, run_stacks
from src.text import Keep, SequenceTable, TokenSequence
from src.transport.bootstrap import DocumentBootstrap

Advance = Callable[[int], None]
# numbers of one site that are turned into float64 at a time
_BLOCK_NUMBERS = 2**22
# batches that are sorted by length together
_WINDOW = 16


@dataclass(frozen=True, eq=False)
class Documents:
    """Which document each sequence is of, and the weights that a bootstrap gives it. device: of all sums."""

    of_sequence: Int[np.ndarray, "sequence"]
    bootstrap: DocumentBootstrap
    device: torch.device

    @property
    def n(self) -> int:
        """Number of different documents."""
        return len(np.unique(self.of_sequence))

    @property
    def n_replicates(self) -> int:
        """Rows of weights: the point estimate, and the bootstrap's replicates."""
        return 1 + self.bootstrap.replicates

    def block(self, first: int | Int[np.ndarray, "text"], texts: Sequence[TokenSequence]) -> TextBlock:
        """A block of whole texts. first: the index of the first sequence, or those of all."""
        which = first + np.arange(len(texts)) if isinstance(first, int) else first
        lengths = [len(text.token_ids) for text in texts]
        document = torch.from_numpy(self.of_sequence[which].astype(np.int64))

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values.astype(np.int64)).to(self.device)

        return TextBlock(
            token_ids=tensor(np.concatenate([text.token_ids for text in texts])),
            position=tensor(np.concatenate([np.arange(length) for length in lengths])),
            keep=tensor(np.concatenate([text.roles for text in texts])),
            text=tensor(np.repeat(np.arange(len(texts)), lengths)),
            weights=self.bootstrap.weights(document).to(self.device),
            group=document.to(self.device),
        )


def documents_of(
    of_sequence: Int[np.ndarray, "sequence"], replicates: int, seed: int, device: torch.device
) -> Documents:
    """Documents, numbered anew from 0; sums are kept where the device can keep float64."""
    numbered = np.unique(of_sequence, return_inverse=True)[1]
    return Documents(numbered, DocumentBootstrap(replicates, seed), arithmetic_device(device))


class _StoreReader:
    """Ranges of sequences of one store, in rising order; one part is held at a time."""

    def __init__(self, store: ActivationStore, sites: Sequence[Site]) -> None:
        self._store, self._sites = store, sites
        self._held: int | None = None

    def read(self, start: int, stop: int) -> tuple[list[TokenSequence], dict[Site, Float[Tensor, "token d_model"]]]:
        """Sequences [start, stop) with their states, in the storage dtype, on the CPU."""
        per_part = self._store.layout.sequences_per_part
        texts: list[TokenSequence] = []
        rows: dict[Site, list[Tensor]] = {site: [] for site in self._sites}
        for part in range(start // per_part, (stop - 1) // per_part + 1):
            self._hold(part)
            first = max(start - part * per_part, 0)
            last = min(stop - part * per_part, len(self._texts))
            texts += self._texts[first:last]
            tokens = slice(self._start[first], self._start[last])
            for site in self._sites:
                rows[site].append(self._rows[site][tokens])
        return texts, {site: pieces[0] if len(pieces) == 1 else torch.cat(pieces) for site, pieces in rows.items()}

    def _hold(self, index: int) -> None:
        if self._held == index:
            return
        self._rows: dict[Site, Tensor] = {}  # let go of the last part before the next one is read
        part = self._store.part(index)
        self._start = part.sequence_start
        ids, keep = (np.split(values, self._start[1:-1]) for values in (part.token_ids, part.keep))
        self._texts = [TokenSequence(int(d), a, b) for d, a, b in zip(part.document, ids, keep, strict=True)]
        self._rows = {site: part.activations(_point(site)) for site in self._sites}
        self._held = index


def _point(site: Site) -> HookPoint:
    assert site.point is not None  # a store holds hook points alone
    return site.point


def read_stores(
    stores: Sequence[ActivationStore],
    documents: Documents,
    sums: Sequence[LayerSums],
    comparison: StackSums | None,
    advance: Advance,
) -> None:
    """One pass over one store, or over two with the same sequences; of each, one part is held."""
    readers = [_StoreReader(store, of_store.sites) for store, of_store in zip(stores, sums, strict=True)]
    for start, stop in _ranges(stores[0]):
        blocks = []
        read = [reader.read(start, stop) for reader in readers]
        for of_stack, (texts, _) in zip(sums, read, strict=True):
            blocks.append(documents.block(start, texts))
            of_stack.begin(blocks[-1])
        if comparison is not None:
            comparison.begin(align(blocks[0], blocks[1], shift=0))
        for stack, (_, rows) in enumerate(read):
            for site, states in rows.items():
                sums[stack].take(site, states)
                if comparison is not None:
                    comparison.take(stack, site, states)
        if comparison is not None:
            comparison.end()
        advance(len(blocks[0].text))


def _ranges(store: ActivationStore) -> Iterator[tuple[int, int]]:
    """Ranges of sequences of like size that fill a block at most (one sequence at least); none crosses a part."""
    most = max(1, _BLOCK_NUMBERS // store.layout.d_model)
    for part in store:
        lengths = np.diff(part.sequence_start)
        start = tokens = 0
        for place, length in enumerate(lengths.tolist()):
            if place > start and tokens + length > most:
                yield part.first_sequence + start, part.first_sequence + place
                start, tokens = place, 0
            tokens += length
        yield part.first_sequence + start, part.first_sequence + len(lengths)


def read_model(
    stacks: Stacks,
    table: SequenceTable,
    documents: Documents,
    sums: Sequence[LayerSums],
    comparison: StackSums | None,
    batch_size: int,
    advance: Advance,
) -> None:
    """One forward pass for each batch of texts; nothing is kept but sums."""
    by_point = [{site.point: site for site in of_stack.sites} for of_stack in sums]
    wanted = [[point for point in sites if point is not None] for sites in by_point]
    size = batch_size * _WINDOW
    for first in range(0, table.n_sequences, size):
        sequences = table.read(first, min(first + size, table.n_sequences))
        lengths = np.array([len(sequence.token_ids) for sequence in sequences])
        for batch in batches_of_like_length(lengths, batch_size):
            texts = [sequences[place] for place in batch.tolist()]
            blocks = [documents.block(first + batch, texts)]
            if len(sums) == 2:
                start = decoder_start(stacks.models[-1])
                blocks.append(documents.block(first + batch, [_as_decoder_input(text, start) for text in texts]))
            for of_stack, block in zip(sums, blocks, strict=True):
                of_stack.begin(block)
            if comparison is not None:
                comparison.begin(align(blocks[0], blocks[1], shift=1))
            ids, mask = right_padded([text.token_ids for text in texts])
            is_token = mask.bool()

            def take(
                stack: int,
                point: HookPoint | None,
                states: Float[Tensor, "batch pos d_model"],
                is_token: Tensor = is_token,
            ) -> None:
                site = by_point[stack].get(point)
                if site is not None:
                    rows = states[is_token.to(states.device)]
                    sums[stack].take(site, rows)
                    if comparison is not None:
                        comparison.take(stack, site, rows)

            run_stacks(stacks, ids, mask, wanted, take)
            if comparison is not None:
                comparison.end()
            advance(int(lengths[batch].sum()))


def _as_decoder_input(text: TokenSequence, start: int) -> TokenSequence:
    """The text as its decoder sees it: shifted right, and its first token is one like all others there."""
    roles = np.roll(text.roles, 1)
    roles[roles == Keep.FIRST] = Keep.COUNTED
    roles[0] = Keep.BOS
    ids = np.roll(text.token_ids, 1)
    ids[0] = start
    return replace(text, token_ids=ids, roles=roles)
