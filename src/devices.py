"""Which device a process computes on."""

import os

import torch

from src.errors import StrataError


def resolve_device(name: str) -> torch.device:
    """`auto` (the accelerator that torch sees: cuda, mps, ...; else the CPU), `cpu`, `cuda`, `cuda:1`, `mps`.

    torchrun's processes on one machine (LOCAL_RANK) get one accelerator each, unless the name tells its index.

    Raises:
        StrataError: no such device here; the message lists those that are.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count() if accelerator is not None else 0
    local_rank = os.environ.get("LOCAL_RANK", "")
    if accelerator is not None and name in ("auto", accelerator.type) and local_rank.isdecimal():
        return torch.device(accelerator.type, int(local_rank) % count)
    if name == "auto":
        return torch.device("cpu") if accelerator is None else accelerator
    available = ["cpu"]
    if accelerator is not None:
        available += [accelerator.type, *(f"{accelerator.type}:{index}" for index in range(count))]
    if name not in available:
        raise StrataError(f"device={name} is not available here: choose one of auto, {', '.join(available)}")
    return torch.device(name)
