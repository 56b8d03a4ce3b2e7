"""Estimates of what each feature does to the next-token loss: all features of an SAE from a few backward passes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.products import exact_products
from src.causal.counted_batches import CountedBatch, windows_of_batches
from src.causal.feature_effects import FeatureEffects, checked_features
from src.features.active import active_features
from src.features.sae import Sae
from src.hook_points import HookPoint
from src.models import LanguageModel, VocabularyHead, capture, states_and_gradients
from src.text import TokenSequence

# numbers in one chunk of gradients and decoder rows: what a CPU's caches hold
_CPU_NUMBERS, _GPU_NUMBERS = 2**21, 2**26


def attribute_features(
    model: LanguageModel,
    point: HookPoint,
    sae: Sae,
    sequences: Sequence[TokenSequence],
    documents: Int[np.ndarray, " sequence"],
    *,
    features: Sequence[int] | None = None,
    groups: int = 8,
    steps: int = 1,
    seed: int = 0,
    batch_size: int = 16,
    chunk_bytes: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> FeatureEffects:
    """Estimates of what `ablate_features` measures, for many features at once: -z_tf g_t . W_dec[f] over tokens.

    g_t is the gradient of the summed NLL with respect to x_t. Taken at the clean activations (steps=0) it gives the
    change to first order (attribution patching: Nanda 2023; Syed, Rager and Conmy 2023, arXiv 2310.10348). But a model
    that is calibrated stands near a minimum of its expected loss, so that first orders cancel in the mean and curvature
    decides. The change is the integral of that product over the shares s of the way from x_t to x_t - z_tf W_dec[f]
    (integrated gradients: Sundararajan, Taly and Yan 2017, arXiv 1703.01365), here by Gauss and Legendre's rule: one
    step is half-way, exact to second order. So that this needs no pass for each feature, features are dealt to random
    groups, anew in every batch, and those of a group go together: the more groups, the fewer meet in a text.

    Args:
        model: a causal LM.
        point: the hook point that the SAE reads.
        sae: on any device.
        sequences: only their counted tokens are edited and counted.
        documents: of each sequence.
        features: the ones to look at; effects stand in their order. None = all.
        groups: of features; each takes a forward and a backward pass for each step.
        steps: of the integral; 0 = gradients at the clean activations, in one pass for all features.
        seed: of the groups.
        batch_size: sequences in a pass.
        chunk_bytes: of log-probabilities, as in `states_and_gradients`.
        advance: is told the number of sequences done.

    Raises:
        StrataError: features that the SAE does not have, an SAE of another model, a hook point that the model does not
            have, no sequences, a model that predicts no tokens, or what `states_and_gradients` raises.
    """
    wanted = checked_features(sae, range(sae.n_features) if features is None else features, model, sequences)
    shares, weights = (nodes.tolist() for nodes in np.polynomial.legendre.leggauss(steps or 1))
    head = VocabularyHead(model)
    effects = FeatureEffects(len(wanted), model.device)
    draws = torch.Generator().manual_seed(seed)
    for window in windows_of_batches(sequences, documents, batch_size, model.device):
        for batch in window:
            state = capture(model, batch.input_ids, batch.attention_mask, [point])[point]
            effects.count(batch.document, batch.is_counted.sum(1))
            with exact_products():
                active = _Active.of(sae, wanted, state, batch)
                group = torch.randint(groups if steps else 1, (len(wanted),), generator=draws).to(state.device)
                for chosen in group[active.feature].unique():
                    part = active.among(group[active.feature] == chosen)
                    change = torch.zeros_like(part.contribution)
                    for share, weight in zip(shares, weights, strict=True):
                        # the rule's nodes lie in -1..1
                        written = {point: part.taken_away(sae, state, batch, (1 + share) / 2)} if steps else {}
                        found = states_and_gradients(
                            model, batch.input_ids, batch.attention_mask, [point], head, chunk_bytes, written
                        )
                        along = part.products(sae, found.gradients[point][batch.is_counted])
                        change -= weight / 2 * along * part.contribution
                    effects.add(part.document, part.feature, change, torch.ones_like(change))
            advance(len(batch.document))
        effects.close()
    return effects


@dataclass(frozen=True, eq=False)
class _Active:
    """Features that fire at counted tokens, an entry for each. On the model's device.

    token: its place among the counted ones. feature: its place among those that are looked at, whose ids are `ids`.
    """

    ids: Int[Tensor, " feature"]
    token: Int[Tensor, " entry"]
    feature: Int[Tensor, " entry"]
    contribution: Float[Tensor, " entry"]
    document: Int[Tensor, " entry"]

    @classmethod
    def of(
        cls, sae: Sae, ids: Int[Tensor, " feature"], state: Float[Tensor, "batch pos d_model"], batch: CountedBatch
    ) -> "_Active":
        found = list(active_features(sae, state[batch.is_counted], ids))
        token, feature, contribution = (
            torch.cat([getattr(part, name) for part in found]).to(state.device)
            for name in ("token", "feature", "contribution")
        )
        document = batch.document[batch.is_counted.nonzero()[:, 0]]
        return cls(ids, token, feature, contribution, document[token])

    def among(self, chosen: Bool[Tensor, " entry"]) -> "_Active":
        columns = self.token, self.feature, self.contribution, self.document
        return _Active(self.ids, *(column[chosen] for column in columns))

    def taken_away(
        self, sae: Sae, state: Float[Tensor, "batch pos d_model"], batch: CountedBatch, share: float
    ) -> Float[Tensor, "batch pos d_model"]:
        """The state without a share of what the features add to it."""
        rows = state[batch.is_counted].to(torch.promote_types(state.dtype, sae.decoder.dtype))
        for part in self._chunks(sae):
            directions = sae.decoder[self.ids[self.feature[part].to(sae.device)]].to(rows)
            rows.index_add_(0, self.token[part], -share * self.contribution[part, None].to(rows) * directions)
        changed = state.clone()
        changed[batch.is_counted] = rows.to(state.dtype)
        return changed

    def products(self, sae: Sae, gradient: Float[Tensor, "token d_model"]) -> Float[Tensor, " entry"]:
        """g_t . W_dec[f] of each entry. gradient: of the counted tokens."""
        found = [gradient.new_zeros(0)]
        for part in self._chunks(sae):
            directions = sae.decoder[self.ids[self.feature[part].to(sae.device)]].to(gradient)
            found.append((gradient[self.token[part]] * directions).sum(1))
        return torch.cat(found)

    def _chunks(self, sae: Sae) -> Iterator[slice]:
        numbers = _CPU_NUMBERS if self.token.device.type == "cpu" else _GPU_NUMBERS
        size = max(1, numbers // sae.d_model)
        return (slice(first, first + size) for first in range(0, len(self.token), size))
