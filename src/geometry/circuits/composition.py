"""How strongly heads read what heads of earlier layers write: Q-, K- and V-composition (Elhage et al. 2021)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sides:
    """What composition needs of a circuit Left @ Right: one side, with the other folded in.

    rows: [head, width, d_model], of the same norm, and with the same norms of all products on the model's side, as the
    whole circuit. norm: of the circuit. spread: |B0| of B = rows' rows, without its trace part.
    """

    rows: Float[Tensor, "head width d_model"]
    norm: Float[Tensor, "head"]
    spread: Float[Tensor, "head"]


def sides(
    inner: Float[Tensor, "head width d_model"], outer: Float[Tensor, "head width d_model"], dtype: torch.dtype
) -> Sides:
    """The circuit outer' inner as rows of its `inner` side: R_outer inner, with outer' = Q0 R_outer.

    dtype: rows are kept in.
    """
    rows = torch.linalg.qr(outer.double().mT, mode="r")[1] @ inner.double()
    energy = rows.square().sum((-2, -1))
    squared = (rows @ rows.mT).square().sum((-2, -1))
    spread = (squared - energy.square() / rows.shape[-1]).clamp_min(0).sqrt()
    return Sides(rows.to(dtype), energy.sqrt(), spread)


@dataclass(frozen=True, eq=False)
class Composition:
    """Of all pairs of a writing and a reading head.

    score: |reader @ writer| / (|reader| |writer|), Elhage's composition score. ratio: score^2 d_model, whose mean is 1
    where the writer's directions are turned at random against the reader's. z: of the ratio, under such rotations.
    """

    score: Float[Tensor, "reader writer"]
    ratio: Float[Tensor, "reader writer"]
    z: Float[Tensor, "reader writer"]


def composition(readers: Sides, writers: Sides) -> Composition:
    """Composition scores of all pairs, with the exact mean and variance under a random rotation between the two.

    For symmetric A, B with traceless parts A0, B0 and a Haar rotation O, tr(A O B O') has mean tr A tr B / d and
    variance 2 |A0|^2 |B0|^2 / ((d - 1)(d + 2)): traceless symmetric matrices are an irreducible representation of O(d).
    """
    d_model = readers.rows.shape[-1]
    (n, width), (m, other) = readers.rows.shape[:2], writers.rows.shape[:2]
    product = readers.rows.flatten(0, 1) @ writers.rows.flatten(0, 1).mT
    energy = product.view(n, width, m, other).square().sum((1, 3)).double()
    scale = readers.norm[:, None].square() * writers.norm[None].square()
    sd = (2 / ((d_model - 1) * (d_model + 2))) ** 0.5 * readers.spread[:, None] * writers.spread[None]
    share = energy / scale
    return Composition(share.sqrt(), share * d_model, (energy - scale / d_model) / sd)


@dataclass(frozen=True, eq=False)
class ComposedPair:
    """Two layers of one stack. kind: Q, K or V, the side of the reader that reads what heads of `writer` write."""

    kind: str
    stack: str
    reader: int
    writer: int
    found: Composition
