"""Matrix products whose precision is known: the arithmetic under moments and solvers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Precision = Literal["float64", "float32"]

# CUDA compute capabilities whose float64 units run at half the float32 rate or better (P100, V100, A100, H100, B200).
_FAST_FLOAT64 = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}


def arithmetic_device(device: torch.device | str) -> torch.device:
    """Where float64 sums for a device are kept: the device itself, but the CPU for MPS, which has no float64."""
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


def default_precision(device: torch.device | str) -> Precision:
    """float64 where it is affordable: CPU (and so MPS: `arithmetic_device`) and datacentre GPUs; else float32."""
    device = arithmetic_device(device)
    if device.type != "cuda" or torch.cuda.get_device_capability(device) in _FAST_FLOAT64:
        return "float64"
    return "float32"


def resolve_precision(wanted: Precision | Literal["auto"], device: torch.device | str) -> Precision:
    """The precision that a user asks for; auto is that of the device."""
    return default_precision(device) if wanted == "auto" else wanted


@contextmanager
def exact_products() -> Iterator[None]:
    """Inside, matrix products use no TF32, bfloat16, autocast or autograd; the flags are put back afterwards."""
    on_cpu = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    backends = (torch.backends.cuda.matmul, on_cpu)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.no_grad(), torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def add_product(total: Float[Tensor, "d_x d_y"], x: Float[Tensor, "row d_x"], y: Float[Tensor, "row d_y"]) -> None:
    """Total += x'y in place. If x is y, only the upper strips are computed (5/8 of the work) and mirrored."""
    d = x.shape[1]
    strip = max(192, -(-d // 4)) if x is y else d
    for start in range(0, d, strip):
        stop = min(start + strip, d)
        left, right = x[:, start:stop].T, y[:, start:] if x is y else y
        part = total[start:stop, start:] if x is y else total
        if part.dtype == x.dtype:
            part.addmm_(left, right)
        else:
            part.add_(left @ right)
        if stop < d:
            total[stop:, start:stop] = total[start:stop, stop:].T
