"""All metrics of one layer's features, and the scores that come of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.products import exact_products
from src.features.codes import SparseCodes
from src.features.pairing import Pairing
from src.features.sae import Sae
from src.features.scores.attribution import Effects, attributed_effects
from src.features.scores.coherence import Coherence, token_coherence
from src.features.scores.firing import Firing, firing_statistics
from src.features.scores.focus import Focus, vocabulary_focus
from src.features.scores.redundancy import Redundancy, activation_redundancy, nearest_decoders
from src.features.scores.scoring import FEWEST_CANDIDATES, Preset, best, composite, normalised_terms
from src.models.unembedding import Unembedding


@dataclass(frozen=True, eq=False)
class FeatureMetrics:
    """What was measured of each feature of an SAE. decoder_cosine: the highest one, to the feature decoder_partner."""

    firing: Firing
    coherence: Coherence
    redundancy: Redundancy
    decoder_cosine: Float[Tensor, " feature"]
    decoder_partner: Int[Tensor, " feature"]
    focus: Focus
    attribution: Effects | None

    def terms(self, preset: Preset, causal: Effects | None) -> dict[str, Float[Tensor, " feature"]]:
        """The normalised terms of a score, with one kind of effects or another as the causal one (None: unknown)."""
        rate = self.firing.rate.value
        effect = torch.full_like(rate, torch.nan) if causal is None else getattr(causal, preset.effect).value
        metrics: Mapping[str, Tensor] = {
            "coherence": -self.coherence.entropy.value,
            "focus": self.focus.peak,
            "causal": effect,
            "redundancy": self.redundancy.correlation.value,
            "rate": rate,
        }
        return normalised_terms(metrics, preset)


def measure_features(
    sae: Sae, codes: SparseCodes, unembedding: Unembedding, prior: float, device: torch.device
) -> FeatureMetrics:
    """All metrics that need no further pass of the model. prior: see `token_coherence`."""
    with exact_products():
        firing = firing_statistics(codes, device)
        return FeatureMetrics(
            firing=firing,
            coherence=token_coherence(codes, firing, prior, device=device),
            redundancy=activation_redundancy(codes, device),
            **dict(zip(("decoder_cosine", "decoder_partner"), nearest_decoders(sae.decoder), strict=True)),
            focus=vocabulary_focus(sae.decoder.to(unembedding.weight.device), unembedding),
            attribution=None if codes.effect is None else attributed_effects(codes, device),
        )


def choose_candidates(metrics: FeatureMetrics, preset: Preset, percent: float) -> Int[Tensor, " candidate"]:
    """The live features that are worth an exact ablation, best first (32 at least, where there are so many)."""
    scores = composite(metrics.terms(preset, metrics.attribution), preset.first, preset.missing)
    return best(scores, ~metrics.firing.is_dead, percent, FEWEST_CANDIDATES)


@dataclass(frozen=True, eq=False)
class FeatureScores:
    """Scores of a layer's features. terms: normalised. selected: the best of those that fire, best first."""

    terms: dict[str, Float[Tensor, " feature"]]
    score: Float[Tensor, " feature"]
    selected: Int[Tensor, " chosen"]


def score_features(
    metrics: FeatureMetrics, causal: Effects | None, preset: Preset, top_percent: float
) -> FeatureScores:
    """The final scores. causal: measured effects, NaN for features that have none."""
    terms = metrics.terms(preset, causal)
    score = composite(terms, preset.final, preset.missing)
    return FeatureScores(terms, score, best(score, ~metrics.firing.is_dead, top_percent))


@dataclass(frozen=True, eq=False)
class ScoredLayer:
    """All that was found about the features of one layer.

    sae: which. pairing: how it fits its hook in this text. n_tokens, n_documents: scored. measured: effects of the
    candidates (NaN: of the others), if any, and measured_by: "ablation" or "integrated". agreement: Spearman's rank
    correlation of attributed and measured effects over the candidates in the same documents (NaN: too few).
    """

    layer: int
    sae: Sae
    pairing: Pairing
    n_tokens: int
    n_documents: int
    metrics: FeatureMetrics
    candidates: Int[Tensor, " candidate"]
    measured: Effects | None
    measured_by: str
    agreement: float
    scores: FeatureScores
