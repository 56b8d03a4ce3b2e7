"""Edits of single features of an SAE: x + (z_new - z) W_dec of the chosen ones, and all else of x stays as it is."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from src.causal.feature_codes import FeatureCodes
from src.causal.interventions import CleanStates, Intervention
from src.hook_points import HookPoint


@dataclass(frozen=True, eq=False)
class AblateFeatures:
    """z_f becomes 0 for some features f, at the tokens where one of them fires.

    places: of the features among those of the codes.
    """

    codes: FeatureCodes
    places: tuple[int, ...]

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """None."""
        return ()

    def edits(self, clean: CleanStates) -> Bool[Tensor, "batch pos"]:
        """Where one of the features fires."""
        return clean.edited & _fires(self.codes.clean(clean), self.places)

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """The activations x less the sum over f of z_f W_dec[f]."""
        z = self.codes.clean(clean)[clean.edited][:, list(self.places)]
        return _changed(self.codes, self.places, clean, -z)


@dataclass(frozen=True, eq=False)
class AlongLatents:
    """z_f becomes what it is in another intervention's activations, where it fires in the clean or in the other ones.

    With an operator's prediction: the transported latent in place of the true one.
    """

    codes: FeatureCodes
    places: tuple[int, ...]
    inner: Intervention

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """Those of the other intervention."""
        return self.inner.sources

    def edits(self, clean: CleanStates) -> Bool[Tensor, "batch pos"]:
        """Where one of the features fires in either."""
        new = self.codes.written(self.inner, clean)
        return clean.edited & (_fires(self.codes.clean(clean), self.places) | _fires(new, self.places))

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """The activations x and the sum over f of (z_f of the other - z_f) W_dec[f]."""
        chosen = list(self.places)
        z, new = (
            codes[clean.edited][:, chosen] for codes in (self.codes.clean(clean), self.codes.written(self.inner, clean))
        )
        return _changed(self.codes, self.places, clean, new - z)


@dataclass(frozen=True, eq=False)
class MeanFeatures:
    """z_f becomes its mean, at every token. means: of all features of the codes, over text that is not scored."""

    codes: FeatureCodes
    places: tuple[int, ...]
    means: Float[Tensor, " feature"]

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """None."""
        return ()

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """The activations x and the sum over f of (mean z_f - z_f) W_dec[f]."""
        chosen = list(self.places)
        z = self.codes.clean(clean)[clean.edited][:, chosen]
        return _changed(self.codes, self.places, clean, self.means[chosen].to(z) - z)


@dataclass(frozen=True, eq=False)
class AblateOthers:
    """A control: as many other features become 0, at random among those that fire, as of the given ones fire there.

    Draws depend on the seed and the batch.
    """

    codes: FeatureCodes
    places: tuple[int, ...]
    seed: int

    @property
    def sources(self) -> tuple[HookPoint, ...]:
        """None."""
        return ()

    def edits(self, clean: CleanStates) -> Bool[Tensor, "batch pos"]:
        """Where one of the given features fires."""
        return clean.edited & _fires(self.codes.clean(clean), self.places)

    def __call__(self, clean: CleanStates) -> Float[Tensor, "edited d_model"]:
        """The activations without the contributions of the features that are drawn."""
        active = self.codes.active(clean)
        z = self.codes.clean(clean)[..., list(self.places)]
        n_drawn = ((z != 0).sum(-1) * clean.edited)[clean.is_token]  # of each token
        features = torch.tensor(self.codes.features, device=active.feature.device)[list(self.places)]
        may_be = (n_drawn[active.token] > 0) & ~torch.isin(active.feature, features)
        token, feature, contribution = (
            column[may_be] for column in (active.token, active.feature, active.contribution)
        )
        draws = torch.rand(len(token), generator=torch.Generator().manual_seed(self.seed)).to(token.device)
        order = draws.argsort(stable=True)
        order = order[token[order].argsort(stable=True)]  # by token, and at random within it
        first = torch.searchsorted(token[order], torch.arange(len(n_drawn), device=token.device))
        rank = torch.arange(len(order), device=token.device) - first[token[order]]
        chosen = order[rank < n_drawn[token[order]]]
        x = clean.activations[clean.target]
        decoder = self.codes.sae.decoder
        rows = x[clean.is_token].to(torch.promote_types(x.dtype, decoder.dtype))
        directions = decoder[feature[chosen].to(decoder.device)].to(rows)
        rows.index_add_(0, token[chosen], -contribution[chosen, None].to(rows) * directions)
        return rows[clean.edited[clean.is_token]]


def _fires(z: Float[Tensor, "batch pos feature"], places: tuple[int, ...]) -> Bool[Tensor, "batch pos"]:
    return (z[..., list(places)] != 0).any(-1)


def _changed(
    codes: FeatureCodes, places: tuple[int, ...], clean: CleanStates, change: Float[Tensor, "edited place"]
) -> Float[Tensor, "edited d_model"]:
    """The edited tokens' activations with so much more of the features' activations."""
    x, decoder = clean.target_rows(), codes.sae.decoder
    dtype = torch.promote_types(x.dtype, decoder.dtype)
    features = torch.tensor(codes.features, device=decoder.device)[list(places)]
    scaled = (change * codes.scale(clean)[clean.edited]).to(dtype)
    return x.to(dtype) + scaled @ decoder[features].to(x.device, dtype)
