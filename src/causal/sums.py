"""Sums of token scores over the tokens of each sequence: all that summaries with intervals over documents need."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.causal.scores import TokenScores
from src.errors import StrataError


@dataclass(frozen=True, eq=False)
class SequenceSums:
    """Sums over the predictions of each sequence, float64: of all predictions, and of those that a condition changes.

    document: of each sequence. n_all, clean_all: number and clean NLL of all predictions. n, clean, change, kl,
    agreement: number of affected predictions, and sums over them. n_at, change_at: the same of the affected predictions
    whose distance from the sequence's first edit lies in each bin; bin b begins at `distances[b]` tokens and ends
    before the next one's begin (the last one never).
    """

    conditions: tuple[str, ...]
    distances: tuple[int, ...]
    document: Int[Tensor, "sequence"]
    n_all: Float[Tensor, "sequence"]
    clean_all: Float[Tensor, "sequence"]
    n: Float[Tensor, "condition sequence"]
    clean: Float[Tensor, "condition sequence"]
    change: Float[Tensor, "condition sequence"]
    kl: Float[Tensor, "condition sequence"]
    agreement: Float[Tensor, "condition sequence"]
    n_at: Float[Tensor, "condition sequence bin"]
    change_at: Float[Tensor, "condition sequence bin"]

    @classmethod
    def of(
        cls, scores: TokenScores, document: Int[Tensor, "sequence"], distances: Sequence[int] = (0,)
    ) -> "SequenceSums":
        """Of the token scores of a batch. distances: where bins of distance begin, ascending from 0."""
        if list(distances) != sorted({0, *distances}):
            raise StrataError(f"bins of distance must ascend from 0, not {list(distances)}")
        affected = scores.affected
        clean = scores.clean_nll.double()
        change = (scores.nll.double() - clean) * affected
        begins = torch.tensor(list(distances))
        cell = torch.bucketize(affected.cumsum(2) - 1, begins, right=True) - 1
        n_at, change_at = torch.zeros(2, *affected.shape[:2], len(distances), dtype=torch.float64)
        # predictions before the first edit have distance -1, and count 0 in the first bin
        n_at.scatter_add_(2, cell.clamp(min=0), affected.double())
        change_at.scatter_add_(2, cell.clamp(min=0), change)
        return cls(
            conditions=scores.conditions,
            distances=tuple(distances),
            document=document,
            n_all=scores.predicted.double().sum(1),
            clean_all=clean.sum(1),
            n=affected.double().sum(2),
            clean=(clean * affected).sum(2),
            change=change.sum(2),
            kl=(scores.kl.double() * affected).sum(2),
            agreement=(scores.agrees & affected).double().sum(2),
            n_at=n_at,
            change_at=change_at,
        )

    @classmethod
    def join(cls, batches: Sequence["SequenceSums"]) -> "SequenceSums":
        """The sums of several batches of the same conditions and bins. Raises StrataError if there are none."""
        if not batches:
            raise StrataError("no sequences to evaluate: the dataset, or the selection from it, is empty")

        def joined(name: str, axis: int) -> Tensor:
            return torch.cat([getattr(batch, name) for batch in batches], axis)

        by_sequence = {name: joined(name, 0) for name in ("document", "n_all", "clean_all")}
        names = ("n", "clean", "change", "kl", "agreement", "n_at", "change_at")
        return cls(
            batches[0].conditions, batches[0].distances, **by_sequence, **{name: joined(name, 1) for name in names}
        )
