"""What features of an SAE read of a batch: its clean activations, and what interventions would write in their place."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from src.causal.interventions import CleanStates, Intervention
from src.features.active import ActiveFeatures, active_features
from src.features.sae import Sae

_Value = TypeVar("_Value")


class FeatureCodes:
    """Activations of some features of one SAE, encoded once per batch for all conditions that ask for them.

    Memory: a number for each token of the batch and each of the features, for the clean activations and for each
    intervention that is asked about.
    """

    def __init__(self, sae: Sae, features: tuple[int, ...]) -> None:
        self.sae, self.features = sae, features
        self._wanted = torch.tensor(features, dtype=torch.long, device=sae.device)
        self._batch: Tensor | None = None
        self._kept: dict[object, object] = {}

    def clean(self, clean: CleanStates) -> Float[Tensor, "batch pos feature"]:
        """Activations z of the features at the target, in the clean run; 0 at padding."""
        return self._once(clean, "clean", lambda: self._encoded(clean.activations[clean.target], clean.is_token))

    def scale(self, clean: CleanStates) -> Float[Tensor, "batch pos 1"]:
        """What multiplies a feature's decoder row beside its activation: 1, but for SAEs that normalise rows."""

        def scale() -> Tensor:
            x = clean.activations[clean.target]
            return self.sae.contribution_scale(x.to(self.sae.device, self.sae.module.dtype)).to(x.device)

        return self._once(clean, "scale", scale)

    def written(self, inner: Intervention, clean: CleanStates) -> Float[Tensor, "batch pos feature"]:
        """Their activations in what another intervention would write; 0 where one of its sources has no token."""

        def encode() -> Tensor:
            where = clean.is_token.clone()
            for point in inner.sources:
                where &= _shifted(clean.is_token, point.offset)
            rows = inner(replace(clean, edited=where))
            values = torch.zeros(*where.shape, rows.shape[1], dtype=rows.dtype, device=rows.device)
            values[where] = rows
            return self._encoded(values, where)

        return self._once(clean, id(inner), encode)

    def active(self, clean: CleanStates) -> ActiveFeatures:
        """All features of the SAE that fire; token: its place among `clean.is_token.nonzero()`."""

        def encode() -> ActiveFeatures:
            parts = list(active_features(self.sae, clean.activations[clean.target][clean.is_token]))
            names = ("token", "feature", "activation", "contribution")
            columns = (torch.cat([getattr(part, name) for part in parts]) for name in names)
            return ActiveFeatures(*(column.to(clean.is_token.device) for column in columns))

        return self._once(clean, "active", encode)

    def _encoded(
        self, values: Float[Tensor, "batch pos d_model"], where: Bool[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch pos feature"]:
        found = torch.zeros(*where.shape, len(self.features), device=values.device)
        place = where.nonzero()
        for part in active_features(self.sae, values[where], self._wanted):
            row, position = place[part.token.to(place.device)].T
            found[row, position, part.feature.to(place.device)] = part.activation.to(found)
        return found

    def _once(self, clean: CleanStates, key: object, compute: Callable[[], _Value]) -> _Value:
        batch = clean.activations[clean.target]
        if batch is not self._batch:
            self._batch = batch
            self._kept.clear()
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]  # pyright: ignore[reportReturnType]


def _shifted(flags: Bool[Tensor, "batch pos"], offset: int) -> Bool[Tensor, "batch pos"]:
    """The flag of the token so many positions later (negative: before); False where there is none."""
    padded = torch.nn.functional.pad(flags, (abs(offset), abs(offset)), value=False)
    return padded[:, abs(offset) + offset :][:, : flags.shape[1]]
