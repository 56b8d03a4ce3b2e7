"""The embedding and unembedding matrices of a model, without the rest of it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedConfig

from src.config.schema import fingerprint
from src.errors import NotApplicableError
from src.models.checkpoint import Matrix, Weights, catalogue, read_matrix
from src.models.checkpoint.names import named_parameter

# families whose position tables begin with rows that no position has: two (OPT, BART), or up to the padding token's
_TWO_UNUSED = ("opt", "bart", "mbart", "plbart", "biogpt")
_UP_TO_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet", "esm")


@dataclass(frozen=True, eq=False)
class EmbeddingTables:
    """Rows of tokens in the dtype in which they are stored.

    output: None for a model that predicts no tokens; the same tensor as `input` where they are tied. tied: they are one
    parameter. positions: of learned absolute positions, from position 0. digest: of what was read, its
    shapes, and whether it is tied.
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
        raise NotApplicableError(
            "the model reads no text, so it has no token embeddings (measure_geometry.py analysis=weights needs none)"
        )
    head = next((matrix for matrix in matrices if matrix.role == "unembedding"), None)
    learned = _positions(matrices, first)
    table = read_matrix(weights, first)
    # T5's stacks share their embeddings: an alias alone does not make an unembedding
    aliases = [alias for alias, name in weights.tied.items() if name == first.parameter]
    tied = head is None and any(named_parameter(alias).role == "unembedding" for alias in aliases)
    output = table if tied else None if head is None else read_matrix(weights, head)
    positions = None if learned is None else read_matrix(weights, learned)[unused_positions(weights.architecture) :]
    names = list(dict.fromkeys(matrix.parameter for matrix in (first, head, learned) if matrix is not None))
    shapes = [list(weights.shapes[name]) for name in names]
    digest = fingerprint({"contents": weights.digest(names), "shapes": shapes, "tied": tied})
    return EmbeddingTables(table, output, tied, positions, digest)


def _positions(matrices: list[Matrix], embedding: Matrix) -> Matrix | None:
    """Of the stack that reads the tokens; pictures have positions too."""
    tables = [matrix for matrix in matrices if matrix.role == "position" and matrix.stack != "vision"]
    return next((table for table in tables if table.stack == embedding.stack), next(iter(tables), None))


def unused_positions(architecture: PreTrainedConfig) -> int:
    """Rows at the start of a family's position table that stand for no position."""
    family = architecture.get_text_config().model_type
    if family in _UP_TO_PADDING:
        return int(getattr(architecture, "pad_token_id", None) or 0) + 1
    return 2 if family in _TWO_UNUSED else 0
