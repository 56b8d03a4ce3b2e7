"""A whole model measured: every layer compared, nothing left out, leading directions on the residual side."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from src.geometry.weights.notebook import notebook_weights
from src.geometry.weights.profile import WeightProfile, profile_weights
from src.models.checkpoint import Matrix, catalogue, read_matrix, weights_of
from tests.fixtures.tiny_models import tiny_model

CPU = torch.device("cpu")


def _profiled(module: PreTrainedModel, rank: int = 4) -> tuple[list[Matrix], WeightProfile]:
    weights = weights_of(module)
    matrices = catalogue(weights)
    return matrices, profile_weights(weights, matrices, CPU, 0, rank)


@pytest.mark.parametrize(
    ("family", "groups"),
    [
        ("gpt2", {"q", "k", "v", "o", "up", "down"}),
        ("phi3", {"q", "k", "v", "o", "gate", "up", "down"}),
        ("qwen3_moe", {"q", "k", "v", "o"}),  # experts of different layers have nothing to do with each other
        ("dinov2_swiglu", {"q", "k", "v", "o", "gate", "up", "down"}),
    ],
)
def test_all_layers_are_compared(family: str, groups: set[str]) -> None:
    matrices, profile = _profiled(tiny_model(family))
    assert {comparison.group[1] for comparison in profile.comparisons} == groups
    assert all(comparison.layers == (0, 1, 2) for comparison in profile.comparisons)
    names = {each.matrix.name for each in profile.matrices}
    left = [m for m in matrices if m.name not in names and m.role not in ("norm", "bias")]
    assert [m.name for m in left] == [m.name for m in profile.skipped]
    assert len(profile.norms) == sum(m.role == "norm" for m in matrices)
    for each in profile.matrices:
        assert each.spectrum.shape in profile.random


def test_stacks_and_kinds_of_attention_are_apart() -> None:
    _, profile = _profiled(tiny_model("t5_gated"))
    of_q = [c.group for c in profile.comparisons if c.group[1] == "q"]
    assert of_q == [("encoder", "q", "self"), ("decoder", "q", "self"), ("decoder", "q", "cross")]
    for pair in profile.compositions:
        assert pair.reader[0] == pair.writer[0]
        assert pair.reader[1:] not in (("k", "cross"), ("v", "cross"))  # they read the other stack


def test_gated_neurons_of_every_layout_are_counted() -> None:
    """BUG E-2: gated MLPs count; fused and transposed ones too, and each expert by itself."""
    for family, n in (("t5_gated", 6), ("phi3", 3), ("gpt_oss", 12), ("qwen3_moe", 9)):
        module = tiny_model(family)
        weights = weights_of(module)
        ups = [m for m in catalogue(weights) if m.role == "up"]
        with torch.no_grad():  # neuron 1 of the last MLP dies
            rows = ups[-1].rows
            parameter = module.get_parameter(ups[-1].parameter)
            whole = parameter if ups[-1].expert is None else parameter[ups[-1].expert]
            whole = whole.T if ups[-1].transposed else whole
            whole[1 if rows is None else rows[1]] = 0
        _, profile = _profiled(module)
        dead = [each.neurons.numbers()["dead"] for each in profile.neurons]
        assert len(dead) == n
        assert dead == [0] * (n - 1) + [1], family
        assert profile.neurons[-1].gated


def test_gated_models_with_gpt2_layout_are_not_transposed_twice() -> None:
    """[in, out] storage: neurons are the columns of c_fc as it is stored."""
    module = tiny_model("gpt2")
    with torch.no_grad():
        module.get_parameter("transformer.h.1.mlp.c_fc.weight")[:, 9] = 0
    _, profile = _profiled(module)
    assert [each.neurons.numbers()["dead"] for each in profile.neurons] == [0, 1, 0]
    assert profile.neurons[1].neurons.up[9] == 0


@pytest.mark.parametrize("family", ["gpt2", "llama", "falcon"])
def test_shared_directions_of_the_residual_stream_are_found(family: str) -> None:
    """Readers and writers of every layer get one common direction; other layouts of units do not hide it."""
    module = tiny_model(family)
    weights = weights_of(module)
    matrices = catalogue(weights)
    direction = torch.linalg.qr(torch.randn(16, 1, generator=torch.Generator().manual_seed(4))).Q[:, 0]
    changed = {}
    for matrix in matrices:
        values = read_matrix(weights, matrix)
        if matrix.layer is not None and values.ndim == 2 and min(values.shape) > 1:
            reader = matrix.role in ("q", "k", "v", "gate", "up")
            units = torch.randn(values.shape[0 if reader else 1], generator=torch.Generator().manual_seed(matrix.layer))
            changed[matrix.name] = values + 6 * (
                torch.outer(units, direction) if reader else torch.outer(direction, units)
            )

    class _Changed:
        """The same model with other matrices."""

        architecture, skeleton, shapes, tied = weights.architecture, weights.skeleton, weights.shapes, weights.tied
        missing, unread, notes = (), (), ()

        def read(self, name: str) -> torch.Tensor:
            return changed.get(name, weights.read(name.split("[")[0]))

        def digest(self, _: object) -> str:
            return ""

    # parts are given as matrices of their own, as they are read
    parts = [
        dataclasses.replace(matrix, parameter=matrix.name, rows=None, transposed=False)
        if matrix.name in changed
        else matrix
        for matrix in matrices
    ]
    profile = profile_weights(_Changed(), parts, CPU, 0, 1)
    for comparison in profile.comparisons:
        assert comparison.overlaps.adjacent > 0.8, comparison.group
        assert comparison.grams.adjacent > 0.5, comparison.group
    for pair in profile.compositions:
        assert float(pair.cosines.values.min()) > 0.4, (pair.reader, pair.writer)


def test_as_the_notebook_computes_it() -> None:
    """Fused projections are one matrix (E-3), vision models have "o" alone (E-1), gated T5 has no neurons (E-2)."""

    def types(family: str) -> tuple[dict[str, int], list[dict]]:
        weights = weights_of(tiny_model(family))
        matrices = catalogue(weights)
        found = notebook_weights(weights, matrices, profile_weights(weights, matrices, CPU, 0, 2), CPU)
        return {record["type"]: record["matrices"] for record in found.types}, found.neurons

    assert types("vit")[0] == {"self_attn_o": 12, "mlp_up": 3, "mlp_down": 3}
    assert types("gpt2")[0]["self_attn_qkv"] == 3
    assert types("bert")[0]["self_attn_o"] == 3
    gated, counted = types("t5_gated")
    assert {"self_attn_q", "cross_attn_k", "mlp_gate"} <= set(gated)
    assert counted == []
    assert len(types("t5_with_head")[1]) == 6


def test_the_notebook_counts_every_parameter_below_its_thresholds() -> None:
    module = tiny_model("phi3")
    weights = weights_of(module)
    matrices = catalogue(weights)
    found = notebook_weights(weights, matrices, profile_weights(weights, matrices, CPU, 0, 2), CPU)
    everything = np.abs(np.concatenate([p.detach().flatten().numpy() for p in module.parameters()]))
    assert found.totals["below_0.1"] == pytest.approx((everything < 0.1).mean())
