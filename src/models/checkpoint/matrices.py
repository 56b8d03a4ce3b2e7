"""What each parameter of a model is for: fused projections are split, transposed ones turned."""

import re
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from src.models.checkpoint.weights import Weights

Role = Literal[
    "embedding",  # of tokens
    "unembedding",
    "position",  # learned absolute positions
    "relative_position",  # [bucket, head]
    "q", "k", "v", "o",
    "gate", "up", "down",
    "norm",  # gains: a vector
    "bias",
    "pooler", "projection", "patch", "router", "linear_attention", "other",
]  # fmt: skip
Attention = Literal["self", "cross"]
Stack = Literal["decoder", "encoder", "vision", "text"]


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix (or vector) of a model: a parameter, or a part of one.

    name: the parameter's name in Transformers; of a part with what it is: `...qkv_proj.weight[q]`.
    layer: of its stack, from 0; None outside of layers. attention: of q, k, v, o and their norms and biases.
    reads: for a norm, what it stands before or after, as its module is called. expert: of a mixture of experts.
    shape: [out, in] once read. rows: of the parameter (after it was turned to [out, in]) that are the part, head by
    head in the order of heads; None = all. transposed: the parameter is stored [in, out]. offset: is added to the
    stored values (1 for norms with gains 1 + w).
    """

    name: str
    parameter: str
    role: Role
    shape: tuple[int, ...]
    stack: Stack = "decoder"
    layer: int | None = None
    attention: Attention | None = None
    expert: int | None = None
    transposed: bool = False
    rows: tuple[int, ...] | None = None
    offset: float = 0.0


_LAYER = re.compile(r"layers\.(\d+)\.")
_ROLES: tuple[tuple[str, Role], ...] = (
    (r"embed_tokens\.weight$", "embedding"),
    (r"lm_head\.weight$", "unembedding"),
    (r"\bq_proj\.weight$", "q"),
    (r"\bk_proj\.weight$", "k"),
    (r"\bv_proj\.weight$", "v"),
    (r"\bo_proj\.weight$", "o"),
    (r"gate_proj\.weight$", "gate"),
    (r"up_proj\.weight$", "up"),
    (r"down_proj\.weight$", "down"),
    (r"norm\.weight$", "norm"),
    (r"bias$", "bias"),
)


def catalogue(weights: Weights) -> list[Matrix]:
    """Every parameter of a model, in the model's order; what is not recognised has role `other`."""
    found = []
    for name, shape in weights.shapes.items():
        role = _role(name)
        layer = _LAYER.search(name)
        attention: Attention | None = "self" if role in ("q", "k", "v", "o") else None
        found.append(Matrix(name, name, role, shape, layer=int(layer[1]) if layer else None, attention=attention))
    return found


def _role(name: str) -> Role:
    for pattern, role in _ROLES:
        if re.search(pattern, name):
            return role
    return "other"


def read_matrix(weights: Weights, matrix: Matrix) -> Float[Tensor, "..."]:
    """A matrix as [out, in] (a vector as it is), on the CPU, in the dtype in which it is stored."""
    values = weights.read(matrix.parameter)
    values = values.T if matrix.transposed else values
    values = values if matrix.rows is None else values[list(matrix.rows)]
    return values + matrix.offset if matrix.offset else values
