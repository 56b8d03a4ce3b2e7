"""A transport operator: the affine map that predicts activations at one hook point from those at an earlier one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.artifacts.tensors import load_tensors, read_header, save_tensors, write_header
from src.errors import StrataError
from src.hook_points import HookPoint

_KIND, _VERSION = "transport_operator", 1
_REMEDY = "fit the operators again with overwrite=true"


@dataclass(frozen=True, eq=False)
class TransportOperator:
    """y = x @ weight + bias.

    alpha: the ridge penalty as scikit-learn counts it; None where the method has none. metadata: anything that JSON can
    hold, kept with the operator.
    """

    weight: Float[Tensor, "d_in d_out"]
    bias: Float[Tensor, "d_out"]
    source: HookPoint
    target: HookPoint
    method: str
    alpha: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = f"operator {self.source} -> {self.target}"
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[1:]:
            shapes = f"{tuple(self.weight.shape)} and {tuple(self.bias.shape)}"
            raise StrataError(f"{name}: weight and bias must be [d_in, d_out] and [d_out], not {shapes}")
        if not (self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise StrataError(f"{name}: weight or bias holds NaN or inf; fit it anew")

    def __call__(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """Apply to the last axis; computed in the wider dtype of x and the weight, returned in x's dtype."""
        if x.shape[-1] != len(self.weight):
            raise StrataError(
                f"operator {self.source} -> {self.target} takes width {len(self.weight)}, got {x.shape[-1]}"
            )
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        return (x.to(dtype) @ self.weight.to(dtype) + self.bias.to(dtype)).to(x.dtype)

    @torch.no_grad()
    def predict(self, x: Float[np.ndarray, "*batch d_in"]) -> Float[np.ndarray, "*batch d_out"]:
        """The same for numpy arrays, on the operator's device."""
        return self(torch.from_numpy(x).to(self.weight.device)).cpu().numpy()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """The operator on another device or in another dtype."""
        return replace(self, weight=self.weight.to(device, dtype), bias=self.bias.to(device, dtype))

    def __repr__(self) -> str:
        d_in, d_out = self.weight.shape
        how = self.method if self.alpha is None else f"{self.method}, alpha={self.alpha:.4g}"
        return f"TransportOperator({self.source} -> {self.target}, {d_in} x {d_out}, {how})"

    def save(self, folder: Path) -> None:
        """Write operator.safetensors and operator.json into an existing folder. Raises OSError if the disk is full."""
        save_tensors(folder / "operator.safetensors", {"weight": self.weight, "bias": self.bias})
        d_in, d_out = self.weight.shape
        header = {
            "source": str(self.source),
            "target": str(self.target),
            "d_in": d_in,
            "d_out": d_out,
            "method": self.method,
            "alpha": self.alpha,
            "metadata": dict(self.metadata),
        }
        write_header(folder / "operator.json", _KIND, _VERSION, header)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> Self:
        """Read what `save` wrote. Raises StrataError if a file is missing, foreign, truncated or holds NaN."""
        folder = Path(folder)
        if not folder.is_dir():
            raise StrataError(f"{folder}: no such folder; operators are in artifacts/operators/NAME/L<L>_k<k>")
        header = read_header(folder / "operator.json", _KIND, _VERSION, _REMEDY)
        tensors = load_tensors(folder / "operator.safetensors", _REMEDY, ("weight", "bias"), device)
        try:
            weight = tensors["weight"]
            if list(weight.shape) != [header["d_in"], header["d_out"]] or not weight.is_floating_point():
                raise StrataError(f"{folder}: operator.safetensors does not belong to operator.json: {_REMEDY}")
            return cls(
                weight,
                tensors["bias"],
                HookPoint.parse(header["source"]),
                HookPoint.parse(header["target"]),
                header["method"],
                header["alpha"],
                header["metadata"],
            )
        except (KeyError, TypeError) as error:
            raise StrataError(f"{folder / 'operator.json'} is damaged ({error!r}): {_REMEDY}") from None


def read_metadata(folder: Path) -> Mapping[str, Any]:
    """The metadata of a saved operator, without its weight. Raises StrataError if operator.json is not there."""
    return read_header(folder / "operator.json", _KIND, _VERSION, _REMEDY).get("metadata", {})
