"""The embedding and unembedding matrices of a model, without the rest of it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from src.errors import NotApplicableError
from src.models.checkpoint import Weights, catalogue, read_matrix


@dataclass(frozen=True, eq=False)
class EmbeddingTables:
    """Rows of tokens in the dtype in which they are stored.

    output: None for a model that predicts no tokens; the same tensor as `input` where they are tied. positions: of
    learned absolute positions. digest: sha256 of what was read.
    """

    input: Float[Tensor, "row d_model"]
    output: Float[Tensor, "row d_head"] | None
    tied: bool
    positions: Float[Tensor, "position d_model"] | None
    digest: str


def read_embeddings(weights: Weights) -> EmbeddingTables:
    """Read them. Raises NotApplicableError for a model without token embeddings."""
    matrices = catalogue(weights)
    by_role = {role: [m for m in matrices if m.role == role] for role in ("embedding", "unembedding", "position")}
    if not by_role["embedding"]:
        raise NotApplicableError("the model has no token embeddings")
    first = by_role["embedding"][0]
    table = read_matrix(weights, first)
    tied = first.parameter in weights.tied.values() and not by_role["unembedding"]
    output = read_matrix(weights, by_role["unembedding"][0]) if by_role["unembedding"] else table if tied else None
    positions = read_matrix(weights, by_role["position"][0]) if by_role["position"] else None
    names = [found[0].parameter for found in by_role.values() if found]
    return EmbeddingTables(table, output, tied, positions, weights.digest(names))
