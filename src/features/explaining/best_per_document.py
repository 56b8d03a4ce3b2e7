"""The best firings of each feature, one for each document, in memory that does not grow with the text."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.features.windows import Chunk, Context

_NONE = float("-inf")


class BestPerDocument:
    """For each feature the firings with the largest keys, of each document the best one alone, with their windows.

    Exact whatever the chunks: a document may come in several. Of equal keys the one that came first stays. Memory:
    n_features * n_kept * (window + 5) numbers.
    """

    def __init__(self, n_features: int, n_kept: int, before: int, after: int, device: torch.device) -> None:
        self._before, self._after = before, after
        shape = (n_features, n_kept)
        self._key = torch.full(shape, _NONE, device=device)
        self._document = torch.full(shape, -1, dtype=torch.int64, device=device)
        self._sequence, self._position = torch.zeros(2, *shape, dtype=torch.int64, device=device)
        self._tokens = torch.full((*shape, before + 1 + after), -1, dtype=torch.int64, device=device)
        self._activations = torch.full((*shape, before + 1 + after), float("nan"), device=device)

    def add(
        self, chunk: Chunk, row: Int[Tensor, " firing"], feature: Int[Tensor, " firing"], key: Float[Tensor, " firing"]
    ) -> None:
        """Take the firings of a chunk, each on a row and of a feature (its place among the chosen ones)."""
        n_features, n_kept = self._key.shape
        documents, of_firing = torch.unique(chunk.document[row], return_inverse=True)
        cell = feature * len(documents) + of_firing
        best = key.new_full((n_features * len(documents),), _NONE).scatter_reduce_(0, cell, key, "amax")
        is_best = key == best[cell]
        rows = torch.full_like(best, len(chunk.sequence), dtype=torch.int64)
        rows.scatter_reduce_(0, cell[is_best], row[is_best], "amin")
        best, rows = best.view(n_features, -1), rows.view(n_features, -1)
        self._settle_known_documents(documents, best)
        best.masked_fill_(best <= self._key.amin(1, keepdim=True), _NONE)
        n_new = int((best > _NONE).sum(1).max())
        if not n_new:
            return
        # all that can enter, in the order of documents: torch.topk promises no order among equal keys
        column = best.topk(n_new, dim=1).indices.sort(1).values
        key, order = torch.cat([self._key, best.gather(1, column)], 1).sort(dim=1, descending=True, stable=True)
        self._key, order = key[:, :n_kept].contiguous(), order[:, :n_kept]
        self._reorder(order.clamp_max(n_kept - 1))
        of, place = ((order >= n_kept) & (self._key > _NONE)).nonzero(as_tuple=True)
        self._fill(chunk, of, place, rows[of, column[of, order[of, place] - n_kept]])

    def _settle_known_documents(
        self, documents: Int[Tensor, " document"], best: Float[Tensor, "feature document"]
    ) -> None:
        """Where a document has an entry already, the better one of the two stays."""
        for column in torch.isin(documents, self._document).nonzero()[:, 0].tolist():
            is_there = (self._document == documents[column]) & (self._key > _NONE)
            old = self._key.masked_fill(~is_there, _NONE).amax(1)
            is_better = best[:, column] > old
            self._key.masked_fill_(is_there & is_better[:, None], _NONE)
            best[:, column].masked_fill_(~is_better, _NONE)

    def _reorder(self, order: Int[Tensor, "feature kept"]) -> None:
        self._document, self._sequence, self._position = (
            values.gather(1, order) for values in (self._document, self._sequence, self._position)
        )
        of_window = order[:, :, None].expand(-1, -1, self._tokens.shape[2])
        self._tokens, self._activations = (values.gather(1, of_window) for values in (self._tokens, self._activations))

    def _fill(self, chunk: Chunk, of: Tensor, place: Tensor, rows: Int[Tensor, " entry"]) -> None:
        around, is_inside = chunk.around(rows, self._before, self._after)
        self._document[of, place] = chunk.document[rows]
        self._sequence[of, place] = chunk.sequence[rows]
        self._position[of, place] = chunk.position[rows]
        self._tokens[of, place] = chunk.token_ids[around].masked_fill(~is_inside, -1)
        self._activations[of, place] = chunk.activations[around, of[:, None]]

    def contexts(self) -> list[list[Context]]:
        """The contexts of each feature, largest key first."""
        kept = (self._key > _NONE).sum(1).tolist()
        fields = (self._document, self._sequence, self._position, self._tokens, self._activations)
        lists = [values.tolist() for values in fields]
        return [[self._context(*(values[of][i] for values in lists)) for i in range(n)] for of, n in enumerate(kept)]

    def _context(
        self, document: int, sequence: int, position: int, tokens: list[int], activations: list[float]
    ) -> Context:
        inside = [i for i, token in enumerate(tokens) if token >= 0]
        first, last = inside[0], inside[-1] + 1
        return Context(
            band=None,
            document=document,
            sequence=sequence,
            position=position,
            activation=activations[self._before],
            place=self._before - first,
            token_ids=tuple(tokens[first:last]),
            activations=tuple(activations[first:last]),
        )
