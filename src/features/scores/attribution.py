"""First-order effects of features on the model's predictions, from one backward pass per batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from src.activations.products import arithmetic_device
from src.features.clustered import ClusteredSums, Estimate
from src.features.codes import SparseCodes


@dataclass(frozen=True, eq=False)
class Effects:
    """Change of the NLL (nats) if a feature were ablated wherever it fires; positive: the feature helps to predict.

    The change is that of the sum over all predictions. per_token: its mean over all counted tokens, about the change of
    the text's mean NLL. per_firing: its mean over the tokens at which the feature fires (NaN: none).
    """

    per_token: Estimate
    per_firing: Estimate


def attributed_effects(
    codes: SparseCodes, device: torch.device | str = "cpu", documents: Bool[Tensor, " document"] | None = None
) -> Effects:
    """Means of -z_tf (g_t . W_dec[f]), g the gradient of the summed NLL at token t, with errors clustered by document.

    Attribution patching towards zero: Nanda 2023; Syed, Rager and Conmy 2023, arXiv 2310.10348.

    documents: the ones to look at; None = all.

    Raises ValueError for codes without effects.
    """
    place = arithmetic_device(device)
    per_token, per_firing = (ClusteredSums(codes.n_features, place) for _ in range(2))
    for entries in codes.chunks(device):
        if entries.effect is None:
            raise ValueError("these codes hold no effects: they were made without gradients")
        effect, firings = entries.per_document(entries.effect), entries.per_document(torch.ones_like(entries.effect))
        tokens = entries.tokens_per_document[:, None]
        if documents is not None:
            wanted = documents[entries.first_document :][: len(tokens)].to(place)
            effect, firings, tokens = effect[wanted], firings[wanted], tokens[wanted]
        per_token.add(effect, tokens)
        per_firing.add(effect, firings)
    return Effects(per_token.estimate(), per_firing.estimate())


def of_some(n_features: int, features: Int[Tensor, " some"], per_token: Estimate, per_firing: Estimate) -> Effects:
    """Effects of all features, of which only some were measured: the others are NaN."""

    def spread(estimate: Estimate) -> Estimate:
        value, error = torch.full((2, n_features), torch.nan, dtype=torch.float64)
        value[features], error[features] = estimate.value.double(), estimate.error.double()
        return Estimate(value, error)

    return Effects(spread(per_token), spread(per_firing))
