"""What a model loses when an SAE's reconstructions take the place of its activations: loss recovered.

SAEBench's convention (arXiv 2503.09532; SAELens' evals.py): every counted token is replaced at once, special tokens
(BOS, padding, ...) are neither replaced nor are their predictions counted, and

    loss recovered = (NLL_ablated - NLL_spliced) / (NLL_ablated - NLL_clean),

which is 1 for a perfect reconstruction, and 0 for one that is worth no more than the ablation: zeros, or the mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.collect import batches_of_like_length, right_padded
from src.causal.interventions import CleanStates, Constant, Intervention
from src.causal.perplexity import Condition, ConditionScorer
from src.features.sae import Sae
from src.features.training.reconstruction import Ratio, ratio_of_sums
from src.hook_points import HookPoint
from src.models import LanguageModel
from src.text import Keep, TokenSequence

_CLEAN, _SPLICED, _ZERO, _MEAN = "clean", "spliced", "zero", "mean"


@dataclass(frozen=True, eq=False)
class Reconstruct:
    """An SAE's reconstruction of the edited tokens' own activations."""

    sae: Sae

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """None: the activations are those that are overwritten."""
        return ()

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """Computed on the model's device, where the SAE must lie."""
        return self.sae.reconstruct(clean.target_rows().float())[1]


@dataclass(frozen=True)
class SpliceEffect:
    """Mean negative log-likelihoods per counted prediction, in nats, and the shares that are recovered.

    nll_clean, nll_spliced, nll_zero, nll_mean: of the model as it is, with reconstructions, and with zeros or the mean
    in their place. recovered_zero, recovered_mean: by the ablation that they are measured from.
    """

    nll_clean: Ratio
    nll_spliced: Ratio
    nll_zero: Ratio
    nll_mean: Ratio
    recovered_zero: Ratio
    recovered_mean: Ratio
    n_predictions: int
    n_documents: int


def loss_recovered(
    model: LanguageModel,
    saes: Mapping[HookPoint, Sae],
    means: Mapping[HookPoint, Float[Tensor, " d_model"]],
    sequences: Sequence[TokenSequence],
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[HookPoint, SpliceEffect]:
    """The effect of each SAE, spliced in by itself, with 95 % intervals over documents (those of the sequences).

    means: of the activations, over training tokens. batch_size: sequences per clean pass. advance: is told the number
    of sequences times conditions done.

    Raises:
        StrataError: NotApplicableError if the model does not predict the next token; what `ConditionScorer` raises.
    """
    conditions = [
        Condition(f"{point} {name}", intervention, point)
        for point, sae in saes.items()
        for name, intervention in _interventions(sae, means[point]).items()
    ]
    scorer = ConditionScorer(model, conditions)
    documents, of_sequence = torch.tensor([it.document for it in sequences]).unique(return_inverse=True)
    names = [_CLEAN, *(condition.name for condition in conditions)]
    sums = {name: torch.zeros(len(documents), dtype=torch.float64) for name in [*names, "count"]}
    for rows in batches_of_like_length(_lengths(sequences), batch_size):
        batch = [sequences[row] for row in rows]
        input_ids, mask = right_padded([it.token_ids for it in batch])
        counted = torch.zeros(mask.shape, dtype=torch.bool)
        for row, it in enumerate(batch):
            counted[row, : len(it.roles)] = torch.from_numpy(it.roles == Keep.COUNTED)
        scores = scorer.score(input_ids, mask, counted, advance)
        is_scored = scores.predicted & counted[:, :-1]
        values = {_CLEAN: scores.clean_nll, "count": torch.ones_like(scores.clean_nll)}
        values |= dict(zip(scores.conditions, scores.nll, strict=True))
        for name, value in values.items():
            sums[name].index_add_(0, of_sequence[rows], (value.double() * is_scored).sum(1))
    return {point: _effect(sums, str(point)) for point in saes}


def _interventions(sae: Sae, mean: Float[Tensor, " d_model"]) -> dict[str, Intervention]:
    return {_SPLICED: Reconstruct(sae), _ZERO: Constant(torch.zeros_like(mean)), _MEAN: Constant(mean)}


def _lengths(sequences: Sequence[TokenSequence]) -> Int[np.ndarray, " sequence"]:
    return np.array([len(it.token_ids) for it in sequences])


def _effect(sums: Mapping[str, Float[Tensor, " document"]], point: str) -> SpliceEffect:
    count, clean = sums["count"], sums[_CLEAN]
    spliced, zero, mean = (sums[f"{point} {name}"] for name in (_SPLICED, _ZERO, _MEAN))
    return SpliceEffect(
        nll_clean=ratio_of_sums(clean, count),
        nll_spliced=ratio_of_sums(spliced, count),
        nll_zero=ratio_of_sums(zero, count),
        nll_mean=ratio_of_sums(mean, count),
        recovered_zero=ratio_of_sums(zero - spliced, zero - clean),
        recovered_mean=ratio_of_sums(mean - spliced, mean - clean),
        n_predictions=int(count.sum()),
        n_documents=len(count),
    )
