"""Weights as the published notebook computes them, mistakes included (spec E1 to E7), for comparison alone.

Fused projections are one matrix (BUG E-3), "rank90" is of singular values rather than energies (E-4), sparsity is
below absolute thresholds (E-5), neurons are dead below 1 % of the mean of |up| |down| and gated MLPs of T5 are left out
(E-2), layers are compared entry by entry (E-8), and parameters are recognised by substrings, so that q_proj, k_proj,
v_proj and o_proj of vision transformers all are "o" (E-1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch

from src.geometry.weights.cross_layer import entry_cosines
from src.geometry.weights.entries import ABSOLUTE, entries
from src.geometry.weights.neurons import neurons
from src.geometry.weights.profile import MatrixProfile, WeightProfile, is_measured
from src.geometry.weights.spectra import spectrum
from src.models.checkpoint import Matrix, Weights, read_matrix

_T5 = ("t5", "mt5", "umt5")
_BERT = ("bert", "roberta")
# substrings in the order in which the notebook asks for them
_OF_BERT = (
    ("attention.self.query", "self_attn_q"), ("attention.self.key", "self_attn_k"),
    ("attention.self.value", "self_attn_v"), ("attention.output.dense", "self_attn_o"),
    ("intermediate.dense", "mlp_up"), ("output.dense", "mlp_down"), ("pooler", "pooler"),
)  # fmt: skip
_OF_VISION = (
    ("query", "self_attn_q"), ("key", "self_attn_k"), ("value", "self_attn_v"), ("in_proj", "self_attn_qkv"),
    ("attention.output", "self_attn_o"), ("mlp.fc1", "mlp_up"), ("mlp.fc2", "mlp_down"), ("proj", "self_attn_o"),
)  # fmt: skip
_COMPARED = ("self_attn_q", "self_attn_k", "self_attn_v", "self_attn_qkv", "cross_attn_q", "cross_attn_k")
_COMPARED_OF_T5 = (*_COMPARED, "cross_attn_v", "mlp_up", "mlp_down")


@dataclass(frozen=True, eq=False)
class NotebookWeights:
    """types: a record for each type of matrix. totals: of the whole model. neurons: of each layer."""

    types: list[dict[str, Any]]
    totals: dict[str, float]
    neurons: list[dict[str, Any]]


def notebook_weights(
    weights: Weights, matrices: Sequence[Matrix], profile: WeightProfile, device: torch.device
) -> NotebookWeights:
    """Compute them; what needs no other treatment is taken from our profile."""
    known = {each.matrix.name: each for each in profile.matrices}
    kind = weights.architecture.model_type
    unsplit = _unsplit(matrices)
    types = [_of_type(name, alike, kind, weights, known, device) for name, alike in _by_type(kind, unsplit)]
    below, count = np.zeros(len(ABSOLUTE)), 0
    for matrix in unsplit:
        values = read_matrix(weights, matrix)
        found = entries(values.reshape(len(values) if values.ndim else 1, -1), device)
        below, count = below + np.array(found.below) * found.count, count + found.count
    totals = {f"below_{t:g}": float(share) for t, share in zip(ABSOLUTE, below / count, strict=True)}
    return NotebookWeights(types, totals, _neurons(weights, matrices, kind, device))


def notebook_type(kind: str, matrix: Matrix) -> str:
    """The type of a matrix as the notebook has it; ours for families that it does not know."""
    if kind in _BERT:
        return next((type_ for word, type_ in _OF_BERT if word in matrix.parameter), "other")
    if matrix.stack == "vision":
        return next((type_ for word, type_ in _OF_VISION if word in matrix.parameter), "other")
    if matrix.role in ("q", "k", "v", "o") or matrix.role == "other":
        part = "qkv" if matrix.role == "other" else matrix.role
        return f"{matrix.attention}_attn_{part}" if matrix.attention else "other"
    return f"mlp_{matrix.role}" if matrix.role in ("up", "gate", "down") else matrix.role


def _unsplit(matrices: Sequence[Matrix]) -> list[Matrix]:
    """Every parameter whole: parts of a fused one are one matrix, of role `other`."""
    found = []
    for _, members in groupby(matrices, key=lambda matrix: (matrix.parameter, matrix.expert)):
        parts = list(members)
        if len(parts) == 1:
            found.append(parts[0])
            continue
        rows = sum(part.shape[0] for part in parts)
        whole = replace(parts[0], name=parts[0].parameter, shape=(rows, *parts[0].shape[1:]), rows=None)
        fused = "other" if whole.attention else "up"
        found.append(replace(whole, role=fused if whole.role != "bias" else "bias"))
    return found


def _by_type(kind: str, matrices: Sequence[Matrix]) -> list[tuple[str, list[Matrix]]]:
    named: dict[str, list[Matrix]] = {}
    for matrix in matrices:
        if is_measured(matrix) and matrix.layer is not None:
            named.setdefault(notebook_type(kind, matrix), []).append(matrix)
    return list(named.items())


def _of_type(
    name: str,
    alike: list[Matrix],
    kind: str,
    weights: Weights,
    known: dict[str, MatrixProfile],
    device: torch.device,
) -> dict[str, Any]:
    found = [_profile(weights, matrix, known, device) for matrix in alike]
    spectra = [each.spectrum for each in found]
    counts = np.array([each.entries.count for each in found])

    def mean(value: Callable[[Any], float]) -> float:
        return float(np.mean([value(each) for each in spectra]))

    record: dict[str, Any] = {
        "type": name,
        "matrices": len(found),
        "stable_rank": mean(lambda s: s.stable_rank),
        "participation": mean(lambda s: s.nuclear_participation),
        "active": mean(lambda s: s.active_share),
        "rank90": mean(lambda s: s.nuclear_rank(0.9)),
        "max": mean(lambda s: s.values[0]),
        "min": mean(lambda s: s.values[-1]),
        "condition": mean(lambda s: s.values[0] / (s.values[-1] + 1e-10)),
    }
    for place, threshold in enumerate(ABSOLUTE):
        below = np.array([each.entries.below[place] for each in found])
        record[f"below_{threshold:g}"] = float((below * counts).sum() / counts.sum())
    compared = [m for m in alike if (m.stack, m.shape, m.expert) == (alike[0].stack, alike[0].shape, None)]
    if name in (_COMPARED_OF_T5 if kind in _T5 else (*_COMPARED, "mlp_up")) and len(compared) > 1:
        shape = (alike[0].shape[0], alike[0].shape[1])
        cosines = entry_cosines(lambda place: read_matrix(weights, compared[place]), len(compared), shape, device)
        record |= {f"layer_cosine_{key}": cosines.numbers()[key] for key in ("adjacent", "min", "max")}
    return record


def _profile(weights: Weights, matrix: Matrix, known: dict[str, MatrixProfile], device: torch.device) -> MatrixProfile:
    if matrix.name in known:
        return known[matrix.name]
    values = read_matrix(weights, matrix)
    return MatrixProfile(matrix, spectrum(values, device), entries(values, device))


def _neurons(weights: Weights, matrices: Sequence[Matrix], kind: str, device: torch.device) -> list[dict[str, Any]]:
    layers: dict[tuple[str, int], dict[str, Matrix]] = {}
    for matrix in matrices:
        if matrix.role in ("up", "gate", "down") and matrix.layer is not None and matrix.expert is None:
            layers.setdefault((matrix.stack, matrix.layer), {})[matrix.role] = matrix
    records = []
    for (stack, layer), parts in layers.items():
        if {"up", "down"} <= set(parts) and not (kind in _T5 and "gate" in parts):
            up, down = (read_matrix(weights, parts[role]).to(device) for role in ("up", "down"))
            found = neurons(up, down, None)
            numbers = found.numbers()
            dead, weak = numbers["dead_of_mean"], numbers["weak_of_mean"]
            records.append({"stack": stack, "layer": layer, "n": numbers["n_neurons"], "dead": dead, "weak": weak})
    return records
