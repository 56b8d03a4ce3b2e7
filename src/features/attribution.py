"""First-order effects of features on the model's predictions, from one backward pass per batch."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from src.activations.products import arithmetic_device
from src.features.clustered import ClusteredSums, Estimate
from src.features.codes import SparseCodes


@dataclass(frozen=True, eq=False)
class Effects:
    """Change of the NLL (nats) if a feature were ablated wherever it fires; positive: the feature helps to predict.

    per_prediction: the summed change over the number of all predictions, so the change of the mean NLL of the text.
    per_firing: the summed change over the number of tokens at which the feature fires (NaN: none).
    """

    per_prediction: Estimate
    per_firing: Estimate


def attributed_effects(
    codes: SparseCodes, device: torch.device | str = "cpu", documents: Bool[Tensor, " document"] | None = None
) -> Effects:
    """Sums of -z_tf (g_t . W_dec[f]), g the gradient of the summed NLL at token t (attribution patching with a zero
    baseline: Nanda 2023; Syed, Rager and Conmy 2023, arXiv 2310.10348), with errors clustered by document.

    documents: the ones to look at; None = all.

    Raises ValueError for codes without effects.
    """
    place = arithmetic_device(device)
    per_prediction, per_firing = (ClusteredSums(codes.n_features, place) for _ in range(2))
    for entries in codes.chunks(device):
        if entries.effect is None:
            raise ValueError("these codes hold no effects: they were made without gradients")
        effect, firings = entries.per_document(entries.effect), entries.per_document(torch.ones_like(entries.effect))
        predictions = entries.predictions_per_document[:, None]
        if documents is not None:
            wanted = documents[entries.first_document :][: len(predictions)].to(place)
            effect, firings, predictions = effect[wanted], firings[wanted], predictions[wanted]
        per_prediction.add(effect, predictions)
        per_firing.add(effect, firings)
    return Effects(per_prediction.estimate(), per_firing.estimate())
