"""The bilinear form of an attention head on the residual stream, A = Q'K, from its two factors alone.

The logit of a query token x and a key token y is x'A y up to what norms divide by, so A is what a head computes; Q and
K by themselves are not (Q -> B Q, K -> B^-T K changes nothing). No [d_model, d_model] matrix is ever made. Spec E4; QK
circuits are those of Elhage et al. 2021.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

# eigenvalues below this share of the largest are zeros (spec E4)
ZERO = 1e-6
ENERGY = 0.9
# of stacked factors that are worked on at a time
_MOST_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class FormStatistics:
    """Statistics of forms, float64; NaN where a form is zero. None changes with the basis of a head.

    positive_mass: sum of the positive eigenvalues of the symmetric part (A + A')/2 over the sum of all moduli.
    positive_fraction: their share of the eigenvalues that are not zero. By Sylvester's law of inertia it is 1/2 for any
    Q and K of full rank that share no direction, so it says nothing of heads with 2 d_head <= d_model. symmetry:
    tr(AA) / |A|^2: 1 = symmetric, -1 = antisymmetric, 1/d_model for random matrices. stable_rank: |A|^2 / s_1^2.
    energy_rank: singular values that hold 90 % of |A|^2. norm: |A|.
    """

    positive_mass: Float[Tensor, "form"]
    positive_fraction: Float[Tensor, "form"]
    symmetry: Float[Tensor, "form"]
    stable_rank: Float[Tensor, "form"]
    energy_rank: Float[Tensor, "form"]
    norm: Float[Tensor, "form"]

    def by_name(self) -> Mapping[str, Float[Tensor, "form"]]:
        """All of them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


# those that have no scale: a null can be laid beside them
SCALE_FREE = ("positive_mass", "symmetry", "stable_rank", "energy_rank")


def form_statistics(q: Float[Tensor, "form d_head d_model"], k: Float[Tensor, "form d_head d_model"]) -> FormStatistics:
    """Statistics of Q'K for stacked factors.

    With [Q', K'] = Q0 [R_q, R_k] (a QR decomposition), the nonzero eigenvalues of the symmetric part are those of
    (R_q R_k' + R_k R_q')/2, and the singular values those of R_q R_k' (spec E4).
    """
    pairs = torch.arange(len(q), device=q.device)
    return paired_statistics(q, k, pairs, pairs)


def paired_statistics(
    q: Float[Tensor, "head d_head d_model"],
    k: Float[Tensor, "kv_head d_head d_model"],
    query_head: Int[Tensor, "form"],
    key_head: Int[Tensor, "form"],
) -> FormStatistics:
    """Statistics of Q_i'K_j for pairs (i, j) of heads."""
    d_head, d_model = q.shape[1:]
    at_once = max(1, _MOST_BYTES // (2 * d_head * d_model * 8))
    parts = []
    for some_q, some_k in zip(query_head.split(at_once), key_head.split(at_once), strict=True):
        both = torch.cat([q[some_q], k[some_k]], 1).double().mT
        upper = torch.linalg.qr(both, mode="r")[1]
        parts.append(core_statistics(upper[..., :d_head], upper[..., d_head:]))
    names = [field.name for field in fields(FormStatistics)]
    return FormStatistics(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def core_statistics(r_q: Float[Tensor, "form rank d_head"], r_k: Float[Tensor, "form rank d_head"]) -> FormStatistics:
    """The same from the triangular factors: columns of Q' and K' in one orthonormal basis."""
    core = r_q @ r_k.mT
    eigenvalues = torch.linalg.eigvalsh((core + core.mT) / 2)
    moduli = eigenvalues.abs()
    counted = moduli > ZERO * moduli.amax(-1, keepdim=True)
    positive = counted & (eigenvalues > 0)
    # Q' takes the first d_head vectors of the basis alone: all other rows of the core are zero
    energies = torch.linalg.svdvals(core[:, : r_q.shape[-1]]).square()
    total = energies.sum(-1)
    share = energies.cumsum(-1) / total[:, None]
    return FormStatistics(
        (eigenvalues * positive).sum(-1) / (moduli * counted).sum(-1),
        positive.double().sum(-1) / counted.double().sum(-1),
        (core @ core).diagonal(dim1=-2, dim2=-1).sum(-1) / total,
        total / energies[:, 0],
        # NaN for a form of zeros, whose shares are
        (share < ENERGY).double().sum(-1) + 1 + 0 * share[:, -1],
        total.sqrt(),
    )


def symmetries(
    q: Float[Tensor, "head d_head d_model"], k: Float[Tensor, "kv_head d_head d_model"]
) -> Float[Tensor, "head kv_head"]:
    """tr(AA) / |A|^2 of A = Q_i'K_j for all pairs of heads, from products of d_head x d_head."""
    q, k = q.double(), k.double()
    products = torch.einsum("jam,ibm->ijab", k, q)
    traces = torch.einsum("ijab,ijba->ij", products, products)
    energies = torch.einsum("iab,jab->ij", q @ q.mT, k @ k.mT)
    return traces / energies


def top_directions(
    q: Float[Tensor, "form d_head d_model"], k: Float[Tensor, "form d_head d_model"]
) -> tuple[Float[Tensor, "form"], Float[Tensor, "form d_model"]]:
    """The eigenvalue of the symmetric part with the greatest modulus, as a share of all moduli with its sign.

    Returns it with its eigenvector (unit norm, its sign arbitrary) in model space.
    """
    d_head = q.shape[1]
    basis, upper = torch.linalg.qr(torch.cat([q, k], 1).double().mT)
    core = upper[..., :d_head] @ upper[..., d_head:].mT
    eigenvalues, vectors = torch.linalg.eigh((core + core.mT) / 2)
    top = eigenvalues.abs().argmax(-1)
    forms = torch.arange(len(top), device=top.device)
    direction = (basis @ vectors[forms, :, top][..., None])[..., 0]
    return eigenvalues[forms, top] / eigenvalues.abs().sum(-1), direction
