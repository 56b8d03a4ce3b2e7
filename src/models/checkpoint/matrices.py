"""A parameter of a model, or a part of one, with what it is for; and how it is read."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from src.models.checkpoint.weights import Weights

Role = Literal[
    "embedding",  # of tokens
    "unembedding",
    "position",  # learned absolute positions
    "relative_position",  # [bucket, head]
    "token_type", "special_token", "patch",
    "q", "k", "v", "o",
    "output_gate",  # multiplies what a head gives, head by head as q (qwen3.5)
    "latent_attention",  # queries, keys and values through a narrow state (deepseek)
    "sink",  # a logit for each head that no token gets
    "gate", "up", "down", "router",
    "norm",  # gains: a vector
    "bias",
    "layer_scale",  # gains of what attention or MLP give
    "linear_attention",
    "pooler", "projection", "scalar", "other",
]  # fmt: skip
Attention = Literal["self", "cross"]
Stack = Literal["decoder", "encoder", "vision", "text", "shared"]
NormPlace = Literal[
    "attention",  # what attention reads is normalised by it
    "cross_attention",
    "mlp",
    "attention_and_mlp",  # one norm for both, which stand side by side
    "q", "k",  # of queries and keys, head by head or all at once
    "attention_output", "mlp_output",  # before it is added to the residual stream
    "after_attention", "after_cross_attention", "after_mlp",  # of the stream itself, after the addition
    "embedding", "final", "other",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix (or vector) of a model: a parameter, or a part of one.

    name: the parameter's name in Transformers; of a part with what it is: `...qkv_proj.weight[q]`.
    layer: of its stack, from 0; None outside of layers. attention: of q, k, v, o and their norms and biases.
    place: of a norm (its bias too): what it normalises. of: of a bias, the role of the matrix (or norm) it belongs to.
    heads: of q, k, v, output_gate and their biases: heads that share the rows evenly, in order; of o: the columns.
    expert: of a mixture of experts. shared: an expert that all tokens take.
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
    place: NormPlace | None = None
    of: Role | None = None
    heads: int | None = None
    expert: int | None = None
    shared: bool = False
    transposed: bool = False
    rows: tuple[int, ...] | None = None
    offset: float = 0.0

    @property
    def numel(self) -> int:
        """Number of values."""
        return int(torch.Size(self.shape).numel())


def read_matrix(weights: Weights, matrix: Matrix) -> Float[Tensor, "..."]:
    """A matrix as [out, in] (a vector as it is), on the CPU, in the dtype in which it is stored."""
    values = weights.read(matrix.parameter)
    values = values if matrix.expert is None or values.ndim == len(matrix.shape) else values[matrix.expert]
    values = values.T if matrix.transposed else values
    values = values if matrix.rows is None else values[list(matrix.rows)]
    values = values.reshape(matrix.shape)
    return values.float() + matrix.offset if matrix.offset else values  # as modelling code adds it
