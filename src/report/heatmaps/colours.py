"""Colours of values: scales over one image or over all, and colour maps."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

Normalization = Literal["none", "per_image", "signed", "global"]
Reduction = Literal["signed", "abs"]
ColourMap = Literal["viridis", "magma", "inferno", "plasma", "cividis", "greys", "blues", "redblue"]

# colours at equal distances. viridis, magma, inferno, plasma: S. van der Walt and N. Smith; cividis: J. Nunez et al.
# (2018); blues, redblue: C. Brewer's Blues and RdBu
_ANCHORS: dict[str, str] = {
    "viridis": "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725",
    "magma": "000004 180f3d 440f76 721f81 9e2f7f cd4071 f1605d fd9668 feca8d fcfdbf",
    "inferno": "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4",
    "plasma": "0d0887 46039f 7201a8 9c179e bd3786 d8576b ed7953 fb9f3a fdca26 f0f921",
    "cividis": "00224e 123570 3b496c 575d6d 707173 8a8678 a59c74 c3b369 e1cc55 fee838",
    "greys": "ffffff 000000",
    "blues": "f7fbff deebf7 c6dbef 9ecae1 6baed6 4292c6 2171b5 08519c 08306b",
    "redblue": "67001f b2182b d6604d f4a582 fddbc7 f7f7f7 d1e5f0 92c5de 4393c3 2166ac 053061",
}
# of values that are not finite: in no colour map
NOT_FINITE = (0, 200, 0)
_STEPS = 256


@dataclass(frozen=True)
class ColourScale:
    """low has the first colour of a map, high the last; beyond them colours stay the same."""

    low: float
    high: float


def colour_table(name: ColourMap) -> UInt8[np.ndarray, "step 3"]:
    """256 colours of a map."""
    anchors = np.array([list(bytes.fromhex(word)) for word in _ANCHORS[name].split()], dtype=float)
    at = np.linspace(0, len(anchors) - 1, _STEPS)
    return (
        np.stack([np.interp(at, np.arange(len(anchors)), channel) for channel in anchors.T], axis=1)
        .round()
        .astype(np.uint8)
    )


def reduced(values: Float[np.ndarray, "*shape"], reduction: Reduction) -> Float[np.ndarray, "*shape"]:
    """The values, or their absolute values."""
    return np.abs(values) if reduction == "abs" else values


def value_range(values: Float[np.ndarray, "*shape"]) -> tuple[float, float]:
    """The least and the largest finite value; (inf, -inf) if none is finite."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (float("inf"), float("-inf"))


def colour_scale(
    normalize: Normalization, image: tuple[float, float], overall: tuple[float, float], never_negative: bool
) -> ColourScale:
    """The scale of an image.

    none: colours mean the same whatever was captured: 0 to 1 for values that are never negative (attention, absolute
    values), else -1 to 1. per_image: the range of the image. signed: as far as its largest absolute value, on either
    side of 0. global: the range of all images together.
    """
    if normalize == "none":
        return ColourScale(0.0 if never_negative else -1.0, 1.0)
    low, high = overall if normalize == "global" else image
    if low > high:  # nothing is finite
        return ColourScale(0.0, 1.0)
    if normalize == "signed":
        most = max(abs(low), abs(high))
        return ColourScale(-most, most)
    return ColourScale(low, high)


def coloured(
    values: Float[np.ndarray, "row column"], scale: ColourScale, table: UInt8[np.ndarray, "step 3"]
) -> UInt8[np.ndarray, "row column 3"]:
    """A colour for each value; NOT_FINITE where there is none."""
    finite = np.isfinite(values)
    width = scale.high - scale.low
    # of one value alone there is no range: the middle of the map
    share = (values - scale.low) / width if width > 0 else np.full(values.shape, 0.5)
    places = np.where(finite, np.clip(np.where(finite, share, 0), 0, 1) * (_STEPS - 1), 0)
    colours = table[places.round().astype(int)]
    colours[~finite] = NOT_FINITE
    return colours
