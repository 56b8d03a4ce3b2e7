"""Scores per token and condition, and the evidence that the edits behind them happened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from src.errors import StrataError


@dataclass(frozen=True)
class EditProof:
    """Evidence that a condition's edits happened, and changed nothing before them.

    tokens: how many were edited. max_deviation: the largest |captured - written| at the hook point, where written is in
    the model's dtype. max_change_before: the largest change of the last block's output at a token before its sequence's
    first edit, relative to its norm; rounding alone where it is about the dtype's epsilon.
    """

    tokens: int
    max_deviation: float
    max_change_before: float

    @property
    def holds(self) -> bool:
        """Whether what was captured is what was written, bit for bit."""
        return self.max_deviation == 0

    def joined(self, other: "EditProof") -> "EditProof":
        """The evidence of two batches together."""
        return EditProof(
            self.tokens + other.tokens,
            max(self.max_deviation, other.max_deviation),
            max(self.max_change_before, other.max_change_before),
        )


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Scores of every prediction under every condition, on the CPU.

    Position p stands for the prediction made at p, of the token at p + 1, so there is one position less than tokens;
    edits at later positions than p can't change it.

    predicted: whether there is a token at p + 1; where there is none, scores are 0 or false. clean_nll, nll: -log P of
    that token, in nats. kl: KL divergence from the clean distribution to that under the condition, in nats. agrees: the
    most likely token is the clean one. affected: predictions that the condition can change, which are those from its
    first edit in the sequence on; all others hold the clean score exactly.
    """

    conditions: tuple[str, ...]
    predicted: Bool[Tensor, "sequence position"]
    clean_nll: Float[Tensor, "sequence position"]
    nll: Float[Tensor, "condition sequence position"]
    kl: Float[Tensor, "condition sequence position"]
    agrees: Bool[Tensor, "condition sequence position"]
    affected: Bool[Tensor, "condition sequence position"]
    proofs: Mapping[str, EditProof]

    @classmethod
    def join(cls, batches: Sequence["TokenScores"]) -> "TokenScores":
        """The scores of several batches of the same conditions, in order. Raises StrataError if there are none."""
        if not batches:
            raise StrataError("no sequences to evaluate: the dataset, or the selection from it, is empty")
        longest = max(batch.predicted.shape[1] for batch in batches)

        def joined(tensors: list[Tensor], axis: int) -> Tensor:
            return torch.cat([pad(tensor, (0, longest - tensor.shape[-1])) for tensor in tensors], axis)

        proofs = dict(batches[0].proofs)
        for batch in batches[1:]:
            proofs = {name: proof.joined(batch.proofs[name]) for name, proof in proofs.items()}
        return cls(
            conditions=batches[0].conditions,
            predicted=joined([batch.predicted for batch in batches], 0),
            clean_nll=joined([batch.clean_nll for batch in batches], 0),
            nll=joined([batch.nll for batch in batches], 1),
            kl=joined([batch.kl for batch in batches], 1),
            agrees=joined([batch.agrees for batch in batches], 1),
            affected=joined([batch.affected for batch in batches], 1),
            proofs=proofs,
        )
