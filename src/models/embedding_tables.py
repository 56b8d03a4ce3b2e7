"""The embedding and unembedding matrices of a model, without the rest of it."""

import re
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from src.errors import NotApplicableError
from src.models.checkpoint import Weights, catalogue, read_matrix

# names of vocabulary projections in Transformers' models
_UNEMBEDDING = re.compile(
    r"(lm_head|embed_out|output_projection|predictions\.decoder|vocab_projector)(\.decoder)?\.weight$"
)


@dataclass(frozen=True, eq=False)
class EmbeddingTables:
    """Rows of tokens in the dtype in which they are stored.

    output: None for a model that predicts no tokens; the same tensor as `input` where they are tied. tied: they are one
    parameter. positions: of learned absolute positions. digest: sha256 of what was read.
    """

    input: Float[Tensor, "row d_model"]
    output: Float[Tensor, "row d_head"] | None
    tied: bool
    positions: Float[Tensor, "position d_model"] | None
    digest: str


def read_embeddings(weights: Weights) -> EmbeddingTables:
    """Read them. Raises NotApplicableError for a model without token embeddings."""
    matrices = catalogue(weights)
    first = next((matrix for matrix in matrices if matrix.role == "embedding"), None)
    if first is None:
        raise NotApplicableError("the model has no token embeddings")
    head = next((matrix for matrix in matrices if matrix.role == "unembedding"), None)
    # of several stacks, such as text and pictures, the one of the tokens
    learned = next((matrix for matrix in matrices if matrix.role == "position" and matrix.stack == first.stack), None)
    table = read_matrix(weights, first)
    # T5's stacks share their embeddings: an alias alone does not make an unembedding
    heads = [alias for alias, name in weights.tied.items() if name == first.parameter and _UNEMBEDDING.search(alias)]
    tied = bool(heads) and head is None
    output = table if tied else None if head is None else read_matrix(weights, head)
    positions = None if learned is None else read_matrix(weights, learned)
    names = dict.fromkeys(matrix.parameter for matrix in (first, head, learned) if matrix is not None)
    return EmbeddingTables(table, output, tied, positions, weights.digest(names))
