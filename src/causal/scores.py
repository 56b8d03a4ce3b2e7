"""Scores per token and condition, and the evidence that the edits behind them happened."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class EditProof:
    """Evidence that a condition's edits happened, and changed nothing before them.

    tokens: how many were edited. max_deviation: the largest |captured - written| at the hook point, where written is in
    the model's dtype. max_change_before: the largest change of the last block's output at a token before its sequence's
    first edit, relative to its norm; rounding alone where it is about the dtype's epsilon, and 0 where positions before
    the edit were not rerun, which is done only where a rerun of all positions was found to leave them as they are.
    """

    tokens: int
    max_deviation: float
    max_change_before: float

    @property
    def holds(self) -> bool:
        """Whether what was captured is what was written, bit for bit."""
        return self.max_deviation == 0

    @classmethod
    def together(cls, proofs: Iterable["EditProof"]) -> "EditProof":
        """The evidence of several batches, or of several conditions."""
        parts = list(proofs)
        return cls(
            sum(part.tokens for part in parts),
            max((part.max_deviation for part in parts), default=0.0),
            max((part.max_change_before for part in parts), default=0.0),
        )


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Scores of every prediction under every condition, on the CPU.

    Position p stands for the prediction made at p, of the token at p + 1, so there is one position less than tokens;
    edits at later positions than p can't change it.

    predicted: whether there is a token at p + 1; where there is none, scores are 0 or false. clean_nll, nll: -log P of
    that token, in nats. kl: KL divergence from the clean distribution to that under the condition, in nats. agrees: the
    most likely token is the clean one. affected: predictions that the condition can change, which are those from its
    first edit in the sequence on; all others hold the clean score exactly. edited: the tokens that each condition
    edits, by its name.
    """

    conditions: tuple[str, ...]
    predicted: Bool[Tensor, "sequence position"]
    clean_nll: Float[Tensor, "sequence position"]
    nll: Float[Tensor, "condition sequence position"]
    kl: Float[Tensor, "condition sequence position"]
    agrees: Bool[Tensor, "condition sequence position"]
    affected: Bool[Tensor, "condition sequence position"]
    proofs: Mapping[str, EditProof]
    edited: Mapping[str, Bool[Tensor, "sequence token"]] = field(default_factory=dict)
