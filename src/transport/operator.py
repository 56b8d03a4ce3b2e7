"""A transport operator: the affine map that predicts activations at one hook point from those at an earlier one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from src.errors import StrataError
from src.hook_points import HookPoint

_FORMAT = {"kind": "transport_operator", "version": 1}


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

    def save(self, folder: Path) -> None:
        """Write operator.safetensors and operator.json into an existing folder."""
        tensors = {"weight": self.weight.detach().cpu().contiguous(), "bias": self.bias.detach().cpu().contiguous()}
        save_file(tensors, folder / "operator.safetensors")
        d_in, d_out = self.weight.shape
        header = _FORMAT | {
            "source": str(self.source),
            "target": str(self.target),
            "d_in": d_in,
            "d_out": d_out,
            "method": self.method,
            "alpha": self.alpha,
            "metadata": dict(self.metadata),
        }
        (folder / "operator.json").write_text(json.dumps(header, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Self:
        """Read what `save` wrote. Raises StrataError if a file is missing, foreign, truncated or holds NaN."""
        try:
            header = json.loads((folder / "operator.json").read_text())
            if {key: header.get(key) for key in _FORMAT} != _FORMAT:
                raise StrataError(f"{folder}: not a transport operator of version {_FORMAT['version']}; fit it anew")
            tensors = load_file(folder / "operator.safetensors", device=str(device))
            weight = tensors["weight"]
            if list(weight.shape) != [header["d_in"], header["d_out"]] or not weight.is_floating_point():
                raise StrataError(f"{folder}: operator.safetensors does not belong to operator.json; fit it anew")
            return cls(
                weight,
                tensors["bias"],
                HookPoint.parse(header["source"]),
                HookPoint.parse(header["target"]),
                header["method"],
                header["alpha"],
                header["metadata"],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise StrataError(f"{folder}: unreadable transport operator ({error}); fit it anew") from None
