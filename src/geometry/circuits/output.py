"""The OV circuit of an attention head, W_o W_v: what a head writes for what it reads (Elhage et al. 2021)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from src.geometry.circuits.nulls import gaussian_factors


@dataclass(frozen=True, eq=False)
class OutputStatistics:
    """Of OV circuits, float64; NaN where a circuit is zero.

    copying: sum of the eigenvalues over the sum of their moduli: 1 = writes what it reads, -1 = its opposite (the
    copying score of Elhage et al.). positive_fraction: share of eigenvalues with a real part above 0. stable_rank,
    norm: of the circuit as a matrix.
    """

    copying: Float[Tensor, "circuit"]
    positive_fraction: Float[Tensor, "circuit"]
    stable_rank: Float[Tensor, "circuit"]
    norm: Float[Tensor, "circuit"]
    eigenvalues: Complex[Tensor, "circuit d_value"]


def output_statistics(
    v: Float[Tensor, "circuit d_value d_model"], o: Float[Tensor, "circuit d_model d_value"]
) -> OutputStatistics:
    """Statistics of W_o W_v; its nonzero eigenvalues are those of W_v W_o (d_value x d_value)."""
    v, o = v.double(), o.double()
    r_v = torch.linalg.qr(v.mT, mode="r")[1]
    r_o = torch.linalg.qr(o, mode="r")[1]
    energies = torch.linalg.svdvals(r_o @ r_v.mT).square()
    eigenvalues = torch.linalg.eigvals(v @ o)
    total = energies.sum(-1)
    return OutputStatistics(
        copying_score(eigenvalues), positive_share(eigenvalues), total / energies[:, 0], total.sqrt(), eigenvalues
    )


def copying_score(eigenvalues: Complex[Tensor, "circuit d_value"]) -> Float[Tensor, "circuit"]:
    """Sum of eigenvalues over sum of moduli. Their imaginary parts cancel."""
    return eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1)


def positive_share(eigenvalues: Complex[Tensor, "circuit d_value"]) -> Float[Tensor, "circuit"]:
    """Share of the eigenvalues whose real part is above 0, of those that are not zero."""
    moduli = eigenvalues.abs()
    counted = moduli > 1e-6 * moduli.amax(-1, keepdim=True)
    return ((eigenvalues.real > 0) & counted).double().sum(-1) / counted.double().sum(-1)


def paired_copying(
    v: Float[Tensor, "kv_head d_value d_model"],
    o: Float[Tensor, "head d_model d_value"],
    output_head: Int[Tensor, "circuit"],
    value_head: Int[Tensor, "circuit"],
    through: Float[Tensor, "d_model d_model"] | None = None,
) -> Float[Tensor, "circuit"]:
    """Copying scores of W_o,i W_v,j for pairs (i, j) of heads.

    through: E'U of embeddings E and unembeddings U [token, d_model]: then of the circuit from tokens to logits,
    U W_o W_v E', whose nonzero eigenvalues are those of W_v (E'U) W_o.
    """
    v, o = v.double(), o.double()
    read = v if through is None else v @ through
    return copying_score(torch.linalg.eigvals(read[value_head] @ o[output_head]))


def gaussian_copying(d_model: int, d_value: int, n: int, rng: np.random.Generator) -> Float[Tensor, "draw"]:
    """Copying scores of independent Gaussian W_v and W_o."""
    r_v, r_o = gaussian_factors(d_model, (d_value, d_value), n, rng)
    return copying_score(torch.linalg.eigvals(r_v.mT @ r_o))
