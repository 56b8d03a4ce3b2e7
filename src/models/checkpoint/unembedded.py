"""What circuits need of embeddings and unembeddings: two small products, made a block of tokens at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from src.models.checkpoint.attention import removes_mean
from src.models.checkpoint.matrices import Matrix, read_matrix
from src.models.checkpoint.weights import Weights

_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class EmbeddingProducts:
    """Of a model with token embeddings E and unembeddings U [token, d_model]; what it lacks is None.

    mean: embedding, over all rows that are not zero. variance: mean square of a feature of embeddings. through: E'U,
    U with the gains (and the removal of the mean) of the norm before it, so that scores of circuits from tokens to
    logits are traces of small products.
    """

    mean: Float[Tensor, "d_model"] | None = None
    variance: float | None = None
    through: Float[Tensor, "d_model d_model"] | None = None


def embedding_products(
    weights: Weights, matrices: Sequence[Matrix], device: torch.device | str = "cpu"
) -> EmbeddingProducts:
    """Read embeddings and unembeddings once. Products of blocks are in float32, their sum in float64."""
    embedding = next((m for m in matrices if m.role == "embedding"), None)
    if embedding is None:
        return EmbeddingProducts()
    table = read_matrix(weights, embedding)
    unembedding = next((m for m in matrices if m.role == "unembedding"), None)
    tied = unembedding is None and embedding.parameter in weights.tied.values()
    output = table if tied else None if unembedding is None else read_matrix(weights, unembedding)
    width = table.shape[1]
    if output is not None and output.shape != table.shape:
        output = None
    total, energy, n = torch.zeros(width, dtype=torch.float64, device=device), 0.0, 0
    product = torch.zeros(width, width, dtype=torch.float64, device=device)
    for start in range(0, len(table), _BLOCK):
        rows = table[start : start + _BLOCK].to(device, torch.float32)
        there = rows.any(-1)
        total += rows.double().sum(0)
        energy += float(rows.double().square().sum())
        n += int(there.sum())
        if output is not None:
            product += (rows.mT @ output[start : start + _BLOCK].to(device, torch.float32)).double()
    through = None if output is None else _normed(product, weights, matrices)
    return EmbeddingProducts(total / max(n, 1), energy / max(n * width, 1), through)


def _normed(
    product: Float[Tensor, "d_model d_model"], weights: Weights, matrices: Sequence[Matrix]
) -> Float[Tensor, "d_model d_model"]:
    """E'U with what the final norm does to its readers."""
    norm = next((m for m in matrices if m.role == "norm" and m.place == "final" and m.stack != "encoder"), None)
    if norm is None or norm.shape != product.shape[:1]:
        return product
    product = product * read_matrix(weights, norm).to(product)
    centred = removes_mean(weights.skeleton.get_submodule(norm.parameter.rpartition(".")[0]))
    return product - product.mean(-1, keepdim=True) if centred else product
