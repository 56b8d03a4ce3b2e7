"""What taking features away does to the next-token loss, in means over tokens with errors over documents."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.activations.products import arithmetic_device
from src.errors import StrataError
from src.features.clustered import ClusteredSums
from src.features.sae import Sae
from src.models import LanguageModel
from src.text import TokenSequence


class FeatureEffects:
    """Changes of the NLL when each feature is taken away, in nats, summed over whole documents.

    per_token: mean over all counted tokens. per_firing: over those at which the feature fires; NaN where it never does.
    Memory: three numbers for each feature and open document.
    """

    def __init__(self, n_features: int, device: torch.device | str = "cpu") -> None:
        self._device = arithmetic_device(device)
        self.per_token = ClusteredSums(n_features, self._device)
        self.per_firing = ClusteredSums(n_features, self._device)
        self._places: dict[int, int] = {}
        self._open = torch.zeros(0, 2, n_features, dtype=torch.float64, device=self._device)
        self._counted = torch.zeros(0, dtype=torch.float64, device=self._device)

    def count(self, document: Int[Tensor, " sequence"], counted: Int[Tensor, " sequence"]) -> None:
        """Add the tokens that the mean is over; document: of each sequence."""
        places = self._place(document)
        self._counted.index_add_(0, places, counted.to(self._device).double())

    def add(
        self,
        document: Int[Tensor, " entry"],
        feature: Int[Tensor, " entry"],
        change: Float[Tensor, " entry"],
        fired: Float[Tensor, " entry"],
    ) -> None:
        """Add changes of the NLL, and at how many tokens the feature fires; of documents that are counted, too."""
        where = self._place(document), feature.to(self._device)
        for quantity, values in enumerate((change, fired)):
            self._open[:, quantity].index_put_(where, values.to(self._device).double(), accumulate=True)

    def close(self) -> None:
        """Say that the documents added so far are whole: if one of them comes again, it counts as another."""
        change, fired = self._open.unbind(1)
        self.per_token.add(change, self._counted[:, None])
        self.per_firing.add(change, fired)
        self._places.clear()
        self._open, self._counted = self._open[:0], self._counted[:0]

    def _place(self, document: Int[Tensor, " entry"]) -> Int[Tensor, " entry"]:
        """Row of each entry's document; documents that are new are opened."""
        found, inverse = document.unique(return_inverse=True)
        places = [self._places.setdefault(each, len(self._places)) for each in found.tolist()]
        more = len(self._places) - len(self._open)
        if more:
            self._open = torch.cat([self._open, self._open.new_zeros(more, *self._open.shape[1:])])
            self._counted = torch.cat([self._counted, self._counted.new_zeros(more)])
        return torch.tensor(places, dtype=torch.long, device=self._device)[inverse.to(self._device)]


def checked_features(
    sae: Sae, features: Sequence[int], model: LanguageModel, sequences: Sequence[TokenSequence]
) -> Int[Tensor, " feature"]:
    """The features as indices on the SAE's device.

    Raises:
        StrataError: features that the SAE does not have, an SAE of another width than the model's, no text at all.
    """
    beyond = [feature for feature in features if not 0 <= feature < sae.n_features]
    if beyond:
        raise StrataError(f"SAE {sae.source} has features 0..{sae.n_features - 1}, and no {beyond[0]}")
    if sae.d_model != model.d_model:
        raise StrataError(
            f"SAE {sae.source} reads activations of width {sae.d_model}, and the residual stream of "
            f"{model.config.name} has {model.d_model}: take an SAE of this model"
        )
    if not sequences:
        raise StrataError("there are no sequences to take features away in: the selection of text is empty")
    return torch.tensor(list(features), dtype=torch.long, device=sae.device)
