"""Directions of the residual stream that a user keeps in a file: the same everywhere, or some for each hook point."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from src.artifacts.tensors import load_tensors
from src.causal.interventions import orthonormal_basis
from src.errors import StrataError
from src.hook_points import HookPoint

_ANYWHERE = "directions"
_REMEDY = (
    f"give a safetensors file with a tensor `{_ANYWHERE}` [n, d_model], or one for each hook point that is edited, "
    "named like resid_post.5"
)


@dataclass(frozen=True, eq=False)
class Directions:
    """Orthonormal bases by the hook point that they are meant for; `directions` is for all that have none of their own.

    source: the file, for messages.
    """

    bases: Mapping[str, Float[Tensor, "d_model direction"]]
    source: Path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read all tensors [n, d_model] of a safetensors file, in float32 at least.

        Raises:
            StrataError: no such file, another shape or name, or directions that are zero, not finite or dependent.
        """
        bases = {}
        for name, directions in load_tensors(path, _REMEDY).items():
            if name != _ANYWHERE:
                HookPoint.parse(name)
            if directions.ndim != 2 or not directions.is_floating_point():
                raise StrataError(f"{path}: `{name}` is {tuple(directions.shape)} of {directions.dtype}: {_REMEDY}")
            bases[name] = orthonormal_basis(directions.to(torch.promote_types(directions.dtype, torch.float32)))
        return cls(bases, path)

    def at(self, point: HookPoint) -> Float[Tensor, "d_model direction"]:
        """The basis for a hook point. Raises StrataError if the file has none for it."""
        basis = self.bases.get(str(point), self.bases.get(_ANYWHERE))
        if basis is None:
            held = ", ".join(self.bases) or "nothing"
            raise StrataError(f"{self.source} holds {held}, and {point} is edited: {_REMEDY}")
        return basis

    def require(self, points: Iterable[HookPoint], d_model: int) -> None:
        """StrataError if directions of a hook point are missing, or not of a model's residual stream."""
        for basis in map(self.at, points):
            if len(basis) != d_model:
                raise StrataError(
                    f"directions are {len(basis)} wide, and the model's residual stream {d_model}: {_REMEDY}"
                )

    def count(self, points: Iterable[HookPoint]) -> str:
        """How many there are, as in `6` or `3 to 6`."""
        counts = sorted({self.at(point).shape[1] for point in points})
        return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
