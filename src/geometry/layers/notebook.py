"""Layers as the reference notebook computes them (spec C1, C2), its mistakes included.

They are: every token is used, first and end-of-sequence ones too; short texts weigh as much as long ones; a text of one
token has cosine 0; the last entry is after the final norm, all others before it; `std` columns are means of standard
deviations within texts; encoder and decoder are compared at equal positions of different tokens (BUG C-1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

N_TEXTS = 10
N_POSITIONS = 5
# of the notebook's ten sentences none is published; the pair of translations is ours too
SOURCE = "translate English to German: The house is small and the garden is green."
TARGET = "Das Haus ist klein und der Garten ist grün."


@dataclass(frozen=True)
class NotebookLayer:
    """One entry of the hidden states, averaged over texts."""

    entry: int
    mean_norm: float
    std_norm: float
    mean_cosine: float
    std_cosine: float


@dataclass(frozen=True)
class NotebookStacks:
    """Encoder against decoder. cosines: by entry of the hidden states, of the first positions."""

    encoder_norm: tuple[float, float]
    decoder_norm: tuple[float, float]
    cosines: dict[int, list[float]]


def evolution(texts: Sequence[Sequence[Float[Tensor, "pos d_model"]]]) -> list[NotebookLayer]:
    """The table of norms and cosines: for each text its hidden states, one entry after the other."""
    numbers = torch.tensor([[_of_text(states) for states in entries] for entries in texts], dtype=torch.float64)
    return [NotebookLayer(entry, *values) for entry, values in enumerate(numbers.mean(0).tolist())]


def _of_text(states: Float[Tensor, "pos d_model"]) -> list[float]:
    states = states.double()
    norms = states.norm(dim=-1)
    cosine, spread = 0.0, 0.0
    if len(states) > 1:
        unit = states / norms[:, None]
        pairs = (unit @ unit.T)[tuple(torch.triu_indices(len(unit), len(unit), offset=1))]
        cosine, spread = float(pairs.mean()), float(pairs.std(correction=0))
    return [float(norms.mean()), float(norms.std(correction=0)), cosine, spread]


def stacks(
    encoder: Sequence[Float[Tensor, "pos d_model"]], decoder: Sequence[Float[Tensor, "pos d_model"]]
) -> NotebookStacks:
    """Both stacks' hidden states at the first positions, whatever tokens stand there."""
    last = len(encoder) - 1
    n = min(len(encoder[0]), len(decoder[0]), N_POSITIONS)
    similar = torch.nn.functional.cosine_similarity
    return NotebookStacks(
        encoder_norm=_mean_and_std(encoder[-1]),
        decoder_norm=_mean_and_std(decoder[-1]),
        cosines={
            entry: similar(encoder[entry][:n].double(), decoder[entry][:n].double(), dim=-1).tolist()
            for entry in sorted({0, last // 2, last})
        },
    )


def _mean_and_std(states: Float[Tensor, "pos d_model"]) -> tuple[float, float]:
    norms = states.double().norm(dim=-1)
    return float(norms.mean()), float(norms.std(correction=0))
