"""What a model's heads add to logits for distance alone: tables, slopes, biases under rotary positions, positions."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.geometry.circuits.distance_bias import (
    DistanceBias,
    bucket_bias,
    deltas,
    linear_bias,
    position_kernel,
    rotary_bias,
)
from src.models.checkpoint import Matrix, Weights, read_matrix
from src.models.checkpoint.alibi import alibi_slopes
from src.models.checkpoint.attention import AttentionWeights, removes_mean


def biases_of_tables(weights: Weights, matrices: Sequence[Matrix]) -> list[DistanceBias]:
    """Relative position tables of T5; one that stands in the first block of a stack serves all its layers."""
    config = weights.architecture.get_text_config()
    max_distance = int(getattr(config, "relative_attention_max_distance", 128))
    tables = [matrix for matrix in matrices if matrix.role == "relative_position"]
    found = []
    for matrix in tables:
        bidirectional = matrix.stack == "encoder"
        shared = sum(other.stack == matrix.stack for other in tables) == 1
        table, delta = read_matrix(weights, matrix).double(), deltas(bidirectional)
        values = bucket_bias(table, delta, max_distance, bidirectional)
        layer = None if shared else matrix.layer
        found.append(DistanceBias("relative position table", matrix.stack, layer, delta, values, table))
    return found


def biases_of_layer(
    weights: Weights, matrices: Sequence[Matrix], layer: AttentionWeights, embedding_variance: float | None
) -> list[DistanceBias]:
    """Linear biases, biases of queries and keys under rotary positions, and, in the first layer, learned positions.

    embedding_variance: mean square of embeddings (of a feature), which norms divide by together with positions.
    """
    if layer.attention != "self":
        return []
    delta = deltas(bidirectional=layer.stack in ("encoder", "vision"))
    found: list[tuple[str, Tensor]] = []
    slopes = alibi_slopes(weights.skeleton, layer.module, len(layer.q))
    if slopes is not None:
        found.append(("linear bias (ALiBi)", linear_bias(slopes, delta)))
    if layer.rotary is not None and layer.q_bias is not None and layer.k_bias is not None:
        k_bias = layer.k_bias.repeat_interleave(layer.repeats, 0)
        values = rotary_bias(layer.q_bias, k_bias, layer.rotary, layer.logit_scale, delta)
        found.append(("q and k biases under rotary positions", values))
    if layer.layer == 0 and layer.stack != "vision" and embedding_variance is not None:
        values = _of_positions(weights, matrices, layer, delta, embedding_variance)
        if values is not None:
            found.append(("learned positions", values))
    return [DistanceBias(source, layer.stack, layer.layer, delta, values.cpu()) for source, values in found]


def _of_positions(
    weights: Weights,
    matrices: Sequence[Matrix],
    layer: AttentionWeights,
    delta: Int[Tensor, "delta"],
    embedding_variance: float,
) -> Float[Tensor, "head delta"] | None:
    """Mean of P_i' A P_j over positions (spec E8), each divided as the norm divides a typical token there."""
    tables = [m for m in matrices if m.role == "position" and m.stack in (layer.stack, "shared") and len(m.shape) == 2]
    if not tables or tables[0].shape[1] != layer.q.shape[-1]:
        return None
    rows = read_matrix(weights, tables[0]).to(layer.q)[_first_position(weights) :]
    norms = [m for m in matrices if m.place == "embedding" and m.role == "norm" and m.stack == layer.stack]
    centred = layer.centred
    if norms:  # the sum of tokens and positions is normalised before the first block (bert)
        centred = removes_mean(weights.skeleton.get_submodule(norms[0].parameter.rpartition(".")[0]))
    rows = rows - rows.mean(-1, keepdim=True) if centred else rows
    rows = rows / (rows.square().mean(-1, keepdim=True) + embedding_variance).sqrt()
    rows = rows * read_matrix(weights, norms[0]).to(rows) if norms else rows
    q, k = (torch.einsum("ham,pm->hpa", side, rows) for side in (layer.q, layer.k))
    return position_kernel(q, k.repeat_interleave(layer.repeats, 0), layer.logit_scale, delta)


def _first_position(weights: Weights) -> int:
    """Rows of tables of positions that no token stands at."""
    config = weights.architecture.get_text_config()
    if config.model_type == "opt":
        return 2
    roberta = config.model_type in ("roberta", "xlm-roberta", "camembert")
    return (getattr(config, "pad_token_id", 0) or 0) + 1 if roberta else 0
