"""First-order estimates of what each feature does to the next-token loss: all features from one backward pass."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from src.activations.products import arithmetic_device, exact_products
from src.causal.feature_effects import FeatureEffects
from src.features.active import active_features
from src.features.sae import Sae

# numbers in one chunk of gradients and decoder rows: what a CPU's caches hold
_CPU_NUMBERS, _GPU_NUMBERS = 2**21, 2**26


class Attribution:
    """Accumulates -z_tf g_t . W_dec[f] over tokens t, for every feature f of one SAE.

    That is the change of the NLL, to first order, if x_t became x_t - z_tf W_dec[f] at every counted token: attribution
    patching (Nanda 2023; Kramar et al. 2024, arXiv 2403.00745). g_t: gradient of the sum of the NLL over all
    predictions, so the change is that of all of them. Only entries with z_tf != 0 are computed.
    """

    def __init__(self, sae: Sae) -> None:
        self.sae = sae
        self.effects = FeatureEffects(sae.n_features, sae.device)
        self._numbers = _CPU_NUMBERS if sae.device.type == "cpu" else _GPU_NUMBERS

    def add(
        self,
        states: Float[Tensor, "batch pos d_model"],
        gradients: Float[Tensor, "batch pos d_model"],
        is_counted: Bool[Tensor, "batch pos"],
        document: Int[Tensor, " batch"],
    ) -> None:
        """Add a batch of `src.models.states_and_gradients` at the SAE's hook point.

        is_counted: tokens at which features are taken away, and over which means are. document: of each sequence. Call
        `close` once the sequences of some documents are all added (`src.features.clustered.document_windows` helps).
        """
        is_counted, document = is_counted.to(states.device), document.to(states.device)
        self.effects.count(document, is_counted.sum(1))
        of_row = document[is_counted.nonzero()[:, 0]]
        gradient, decoder = gradients[is_counted].to(self.sae.device), self.sae.decoder
        dtype = torch.promote_types(gradient.dtype, decoder.dtype)
        size = max(1, self._numbers // self.sae.d_model)
        with exact_products():
            for found in active_features(self.sae, states[is_counted]):
                for token, feature, contribution in zip(
                    found.token.split(size), found.feature.split(size), found.contribution.split(size), strict=True
                ):
                    slope = (gradient[token].to(dtype) * decoder[feature]).sum(1)
                    change = (-contribution * slope).to(arithmetic_device(self.sae.device))
                    self.effects.add(of_row[token.to(of_row.device)], feature, change, torch.ones_like(change))

    def close(self) -> FeatureEffects:
        """Say that the documents added so far are whole; gives the effects with all of them."""
        self.effects.close()
        return self.effects
