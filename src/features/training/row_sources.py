"""Where the rows come from that SAEs are trained and judged on: an activation store, or the model as it reads text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.collect import CollectSettings, Sequences, compute_part
from src.activations.parts import Part
from src.activations.store import ActivationStore, StoreLayout
from src.errors import StrataError
from src.hook_points import HookPoint
from src.models import LanguageModel
from src.text import Keep, SequenceTable, TokenSequence

# of a chunk of the model's: small beside any buffer, so that shuffling mixes many of them
_CHUNK_TOKENS = 8192
_READ_SEQUENCES = 4096


@dataclass(frozen=True, eq=False)
class CountedRows:
    """The counted tokens of some sequences. document: of each row."""

    activations: dict[HookPoint, Float[Tensor, "row d_model"]]
    document: Int[Tensor, " row"]


class RowSource(Protocol):
    """The counted tokens of a choice of sequences, in chunks that can be read in any order."""

    @property
    def points(self) -> tuple[HookPoint, ...]:
        """What is read."""
        ...

    @property
    def counts(self) -> Int[np.ndarray, " chunk"]:
        """Rows of each chunk."""
        ...

    def read(self, chunk: int) -> CountedRows:
        """A chunk, on the CPU, always the same bits."""
        ...

    def sequences(self) -> list[TokenSequence]:
        """The chosen sequences, whole."""
        ...


class StoreRows:
    """Rows of a store; its parts are the chunks.

    is_chosen, documents: of every sequence of the store. Raises StrataError if the store lacks one of the points.
    """

    def __init__(
        self,
        store: ActivationStore,
        points: Sequence[HookPoint],
        is_chosen: Bool[np.ndarray, " sequence"],
        documents: Int[np.ndarray, " sequence"],
    ) -> None:
        store.require(points)
        self.points = tuple(points)
        self._store, self._is_chosen, self._documents = store, is_chosen, documents
        self.counts = np.array([len(self._wanted(part)) for part in store], np.int64)

    def _wanted(self, part: Part) -> Int[np.ndarray, " row"]:
        return np.flatnonzero((part.keep == Keep.COUNTED) & self._is_chosen[part.sequence])

    def read(self, chunk: int) -> CountedRows:
        """The counted rows of a part, in the storage dtype. Raises StrataError if the part is damaged."""
        part = self._store.part(chunk)
        wanted = self._wanted(part)
        index = torch.from_numpy(wanted)
        activations = {point: part.activations(point).index_select(0, index) for point in self.points}
        return CountedRows(activations, torch.from_numpy(self._documents[part.sequence[wanted]]))

    def sequences(self) -> list[TokenSequence]:
        """Their tokens, with what the store keeps out of statistics as roles."""
        found = []
        for part in self._store:
            start, token_ids, keep = part.sequence_start, part.token_ids, part.keep
            for index in np.flatnonzero(self._is_chosen[part.first_sequence :][: len(start) - 1]):
                here = slice(start[index], start[index + 1])
                document = int(self._documents[part.first_sequence + index])
                found.append(TokenSequence(document, token_ids[here], keep[here]))
        return found


class ModelRows:
    """Rows that the model computes whenever they are read; nothing is stored.

    is_chosen, documents: of every sequence of the table. Raises StrataError if the model lacks one of the points.
    """

    def __init__(
        self,
        model: LanguageModel,
        table: SequenceTable,
        points: Sequence[HookPoint],
        is_chosen: Bool[np.ndarray, " sequence"],
        documents: Int[np.ndarray, " sequence"],
        sequences_per_pass: int,
    ) -> None:
        model.check_hook_points(points)
        self.points = tuple(points)
        self._model, self._documents = model, documents
        self._chosen = _Chosen(table, np.flatnonzero(is_chosen))
        self._settings = CollectSettings(sequences_per_pass, sink_norm=None, non_finite="error")
        longest = int(table.lengths.max())
        self._layout = StoreLayout(
            hook_points=self.points,
            d_model=model.d_model,
            n_layers=model.n_layers,
            storage_dtype="float32",
            n_sequences=len(self._chosen),
            n_tokens=int(table.lengths[is_chosen].sum()),
            sequences_per_part=max(1, _CHUNK_TOKENS // (longest * sequences_per_pass)) * sequences_per_pass,
        )
        counted = counted_tokens(self._chosen, len(self._chosen))
        starts = np.arange(0, len(counted), self._layout.sequences_per_part)
        self.counts = np.add.reduceat(counted, starts) if len(counted) else np.zeros(0, np.int64)

    def read(self, chunk: int) -> CountedRows:
        """The counted rows of a chunk, float32. Raises StrataError if a forward pass fails, or gives NaN or inf."""
        data = compute_part(self._model, self._chosen, self._layout, self._settings, chunk, lambda _: None)
        rows = torch.from_numpy(np.flatnonzero(data.keep == Keep.COUNTED))
        which = self._layout.sequences_of(chunk)
        documents = self._documents[self._chosen.index[which.start : which.stop]]
        of_row = torch.from_numpy(np.repeat(documents, np.diff(data.sequence_start)))[rows]
        return CountedRows({point: x.index_select(0, rows) for point, x in data.activations.items()}, of_row)

    def sequences(self) -> list[TokenSequence]:
        """As the table has them."""
        return self._chosen.read(0, len(self._chosen))


class _Chosen:
    """A choice of a table's sequences, found by their index in the choice."""

    def __init__(self, table: SequenceTable, index: Int[np.ndarray, " sequence"]) -> None:
        self._table, self.index = table, index

    def __len__(self) -> int:
        return len(self.index)

    def read(self, start: int, stop: int) -> list[TokenSequence]:
        wanted = self.index[start:stop].tolist()
        if not wanted:
            return []
        found = self._table.read(wanted[0], wanted[-1] + 1)
        return [found[index - wanted[0]] for index in wanted]


def counted_tokens(sequences: Sequences, n_sequences: int) -> Int[np.ndarray, " sequence"]:
    """Counted tokens of each sequence, in memory that does not grow with their number of tokens."""
    starts = range(0, n_sequences, _READ_SEQUENCES)
    blocks = (sequences.read(start, min(start + _READ_SEQUENCES, n_sequences)) for start in starts)
    return np.array([np.count_nonzero(it.roles == Keep.COUNTED) for block in blocks for it in block], np.int64)


def draw_documents(
    is_candidate: Bool[np.ndarray, " sequence"],
    documents: Int[np.ndarray, " sequence"],
    counted: Int[np.ndarray, " sequence"],
    n_tokens: int,
    seed: int,
) -> Bool[np.ndarray, " sequence"]:
    """Whole documents of the candidates, drawn at random until they have n_tokens counted tokens; all if fewer.

    documents, counted: document and counted tokens of every sequence. Raises StrataError if there is no such token.
    """
    candidates = np.unique(documents[is_candidate])
    of_document = np.bincount(documents[is_candidate], counted[is_candidate], minlength=documents.max() + 1)
    order = np.random.default_rng(seed).permutation(candidates)
    before = np.cumsum(of_document[order]) - of_document[order]
    chosen = is_candidate & np.isin(documents, order[before < n_tokens])
    if not counted[chosen].sum():
        raise StrataError("no held-out document has a counted token: take more text, or other shares (split.*)")
    return chosen
