"""Rows of words made ready for cosines."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from src.errors import StrataError

Transform = Literal["raw", "centred", "whitened"]


def working_dtype(device: torch.device) -> torch.dtype:
    """float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def unit_rows(rows: Float[Tensor, "word d"], transform: Transform, device: torch.device) -> Float[Tensor, "word d"]:
    """Rows of length 1, whose products are cosines; a row of zeros stays one.

    transform: `centred` takes the mean of the set away first, since what all words share makes every cosine large;
    `whitened` also gives every direction in which the words differ the same variance.

    Raises:
        StrataError: a value that is not finite; too few words to whiten.
    """
    values = rows.to(device, working_dtype(device))
    if not bool(torch.isfinite(values).all()):
        raise StrataError("a word's representation is NaN or infinite: run the model in float32 (model.dtype=float32)")
    if transform != "raw":
        values = values - values.mean(0)
    if transform == "whitened":
        left, singular, _ = torch.linalg.svd(values, full_matrices=False)
        kept = singular > singular[0] * max(values.shape) * torch.finfo(values.dtype).eps
        if int(kept.sum()) >= len(values) - 1:
            raise StrataError(
                f"transform=whitened: {len(values)} words differ in all of {len(values) - 1} directions, so that "
                "whitening makes all their cosines alike. Take more words than the model has dimensions "
                f"({values.shape[1]}), or lexicon.transform=centred"
            )
        values = left[:, kept]
    norm = values.norm(dim=1, keepdim=True)
    return values / torch.where(norm > 0, norm, torch.ones_like(norm))
