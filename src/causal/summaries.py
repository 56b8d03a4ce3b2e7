"""Summaries of token scores, with paired intervals from a bootstrap over documents.

Every replicate weighs documents in the same way for the clean run and for all conditions, so differences and ratios of
conditions are paired (src/transport/bootstrap.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.causal.sums import SequenceSums
from src.errors import StrataError
from src.transport.bootstrap import DocumentBootstrap, Estimate

_TAIL = 0.025  # on either side of a 95 % interval


@dataclass(frozen=True)
class ConditionSummary:
    """What a condition (or several, pooled: predictions of all are counted) does, in nats per predicted token.

    n_sequences: those in which it can change a prediction (of pooled conditions, each one's are counted). nll_clean,
    nll_change: log-perplexity of the clean run, and its change, over all predictions. The fields `_affected` are over
    those that the condition can change: from the first edit of a sequence on. kl: from the clean distribution.
    agreement: share of predictions whose most likely token is the clean one.
    """

    n_sequences: int
    n_predictions: int
    n_affected: int
    nll_clean: Estimate
    nll_change: Estimate
    nll_clean_affected: Estimate
    nll_change_affected: Estimate
    kl_affected: Estimate
    agreement_affected: Estimate


class ScoreSums:
    """Sums of token scores over documents, weighted by the replicates of a bootstrap, for each condition."""

    def __init__(self, sums: SequenceSums, bootstrap: DocumentBootstrap) -> None:
        """Draws depend on the documents of the sequences and the bootstrap's seed alone."""
        self._place = {name: index for index, name in enumerate(sums.conditions)}
        self._sums = sums
        documents, self._of_sequence = sums.document.unique(return_inverse=True)
        self._weights = bootstrap.weights(documents)
        self._n_all = self._weighted(sums.n_all)
        self._clean_all = self._weighted(sums.clean_all)
        self._n = self._weighted(sums.n)
        self._clean = self._weighted(sums.clean)
        self._change = self._weighted(sums.change)
        self._kl = self._weighted(sums.kl)
        self._agreement = self._weighted(sums.agreement)

    @property
    def clean_nll(self) -> Estimate:
        """Log-perplexity of the clean run over all predictions."""
        return Estimate.of(self._clean_all / self._n_all)

    def summary(self, *conditions: str) -> ConditionSummary:
        """Of one condition, or of several pooled (the same intervention at several sets of positions, say).

        Raises:
            StrataError: an unknown condition, or one that edits no token before a prediction.
        """
        places = self._places(conditions)
        n_all, n = len(places) * self._n_all, self._n[:, places].sum(1)
        if n[0] == 0:
            raise StrataError(
                f"condition {', '.join(conditions)} changes no prediction: no sequence reaches its positions; choose "
                "earlier positions or longer sequences"
            )
        change = self._change[:, places].sum(1)
        return ConditionSummary(
            n_sequences=int((self._sums.n[places] > 0).sum()),
            n_predictions=round(float(n_all[0])),
            n_affected=round(float(n[0])),
            nll_clean=Estimate.of(len(places) * self._clean_all / n_all),
            nll_change=Estimate.of(change / n_all),
            nll_clean_affected=Estimate.of(self._clean[:, places].sum(1) / n),
            nll_change_affected=Estimate.of(change / n),
            kl_affected=Estimate.of(self._kl[:, places].sum(1) / n),
            agreement_affected=Estimate.of(self._agreement[:, places].sum(1) / n),
        )

    def recovered_share(
        self, conditions: str | Sequence[str], reference: str | Sequence[str], *, of_same_tokens: bool = True
    ) -> Estimate:
        """(NLL_reference - NLL_condition) / (NLL_reference - NLL_clean): 1 as the clean run, 0 as the ablation.

        reference: zero or mean ablation of the same tokens; several conditions are pooled with several references.
        Predictions that no edit can change cancel. NaN where the reference does no harm, for then nothing is there to
        recover; the interval is NaN where it does none in more than 2.5 % of the replicates, for then it has no end.

        of_same_tokens: whether both must begin to edit at the same tokens. Edits of features do not: each changes
        what it has to, and the share is of the whole harm.

        Raises:
            StrataError: an unknown condition, or conditions and references that change different predictions.
        """
        ours, theirs = (self._places([names] if isinstance(names, str) else names) for names in (conditions, reference))
        # the affected predictions are the last ones of a sequence, so their number tells which they are
        affected = self._sums.n
        alike = not of_same_tokens or torch.equal(affected[ours], affected[theirs])
        if len(ours) != len(theirs) or not alike:
            raise StrataError(
                f"the recovered share of {conditions} against {reference} compares edits that begin at different "
                "tokens: give both the same positions"
            )
        harm = self._change[:, theirs].sum(1)
        share = Estimate.of((harm - self._change[:, ours].sum(1)) / harm)
        if harm[0] <= 0:
            return Estimate(torch.nan, torch.nan, torch.nan)
        endless = float((harm[1:] <= 0).double().mean()) > _TAIL
        return Estimate(share.value, torch.nan, torch.nan) if endless else share

    def n_affected(self, *conditions: str) -> int:
        """How many predictions the conditions can change."""
        return round(float(self._n[0, self._places(conditions)].sum()))

    def change_by_distance(self, *conditions: str) -> list[Estimate]:
        """Mean change of the NLL in each bin of distance from the first edit of a sequence, of conditions pooled.

        NaN in bins that no prediction lies in. Raises StrataError if a condition is unknown.
        """
        places = self._places(conditions)
        n, change = (self._weighted(values[places].sum(0).T) for values in (self._sums.n_at, self._sums.change_at))
        return [Estimate.of(column) for column in (change / n).T]

    def _places(self, conditions: Sequence[str]) -> list[int]:
        unknown = [name for name in conditions if name not in self._place]
        if unknown or not conditions:
            raise StrataError(
                f"there is no condition {', '.join(unknown) or '(none named)'}: choose from {', '.join(self._place)}"
            )
        return [self._place[name] for name in conditions]

    def _weighted(self, values: Float[Tensor, "*condition sequence"]) -> Float[Tensor, "replicate *condition"]:
        """Sum over the sequences of each document, and over documents with the replicates' weights."""
        per_document = values.new_zeros(*values.shape[:-1], self._weights.shape[1])
        per_document.index_add_(-1, self._of_sequence, values)
        return torch.einsum("rd,...d->r...", self._weights, per_document)
