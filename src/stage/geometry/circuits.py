"""QK and OV circuits of every attention head, for analysis=weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from src.config.geometry.stage import GeometryConfig
from src.geometry.circuits.composition import ComposedPair, Sides, composition, sides
from src.geometry.circuits.notebook import bucket_heads, pooled_form, unit_products
from src.geometry.circuits.profile import CircuitProfiler, Embedded, LayerCircuits
from src.models.checkpoint import Matrix, Weights
from src.models.checkpoint.attention import (
    AttentionWeights,
    attention_layers,
    attention_places,
    raw_queries_and_keys,
)
from src.models.checkpoint.unembedded import embedding_products
from src.report.finding import Finding
from src.report.geometry.circuits.composition import composition_finding
from src.report.geometry.circuits.distance_bias import distance_finding
from src.report.geometry.circuits.finding import circuits_finding
from src.report.geometry.circuits.results import CircuitResults
from src.stage.context import Stage
from src.stage.geometry.distance_biases import biases_of_layer, biases_of_tables

# composition=null keeps what heads write only up to here
_MOST_BYTES = 1.5e9


def circuit_findings(config: GeometryConfig, weights: Weights, matrices: list[Matrix], stage: Stage) -> list[Finding]:
    """Measure all softmax attention layers, one in memory at a time: circuits, composition, biases of distance."""
    places = attention_places(matrices)
    if not places:
        return [Finding("No layer has softmax attention with queries, keys, values and an output: no circuits.")]
    settings = config.circuits
    embedded = embedding_products(weights, matrices, stage.device)
    profiler = CircuitProfiler(
        Embedded(embedded.mean, embedded.through),
        settings.offsets,
        settings.null_draws,
        settings.null_heads,
        config.seed,
    )
    composing = _Composing() if _composes(weights, matrices, settings.composition) else None
    biases = biases_of_tables(weights, matrices)
    layers: list[LayerCircuits] = []
    notebook: list[Mapping[str, Any]] = []
    with stage.progress("circuits", len(places), "layers") as advance:
        for layer in attention_layers(weights, matrices, stage.device):
            layers.append(profiler.profile(layer))
            biases += biases_of_layer(weights, matrices, layer, embedded.variance)
            if composing is not None:
                composing.add(layer)
            if config.compat == "notebook":
                notebook.append(_as_the_notebook(weights, matrices, layer))
            advance(1)
    unread = _without_circuits(matrices, places)
    results = CircuitResults(layers, settings.level, settings.null_draws, config.seed, unread, notebook)
    findings = [circuits_finding(results)]
    if composing is not None and composing.pairs:
        findings.append(composition_finding(composing.pairs))
    if biases:
        tables = {bias.label: bucket_heads(bias.table) for bias in biases if bias.table is not None}
        findings.append(distance_finding(biases, tables if config.compat == "notebook" else {}))
    return findings


def _as_the_notebook(weights: Weights, matrices: Sequence[Matrix], layer: AttentionWeights) -> Mapping[str, Any]:
    """Its numbers of one layer from raw weights, and those of the pooled form that it meant."""
    q, k = raw_queries_and_keys(weights, matrices, layer)
    keys = layer.k.repeat_interleave(layer.repeats, 0)
    same = layer.q.shape[-1] == keys.shape[-1]
    return {"place": layer.label, "units": unit_products(q, k), "pooled": pooled_form(layer.q, keys) if same else None}


def _without_circuits(matrices: Sequence[Matrix], places: Sequence[tuple[str, int, str]]) -> list[str]:
    """Layers of which no circuit was made, and why."""
    kinds = {"latent_attention": "attention through a latent state", "linear_attention": "linear attention"}
    known = {(stack, layer) for stack, layer, _ in places}
    found = {
        (matrix.stack, matrix.layer): kinds[matrix.role]
        for matrix in matrices
        if matrix.role in kinds and (matrix.stack, matrix.layer) not in known
    }
    return [f"{stack} {layer} ({why})" for (stack, layer), why in found.items()]


def _composes(weights: Weights, matrices: Sequence[Matrix], asked: bool | None) -> bool:
    if asked is not None:
        return asked
    written = sum(m.shape[0] * m.shape[1] for m in matrices if m.role == "o" and m.attention == "self")
    return 4 * written <= _MOST_BYTES


@dataclass
class _Composing:
    """Compares each layer with what earlier layers of its stack write."""

    writers: dict[str, list[tuple[int, Sides]]] = field(default_factory=dict)
    pairs: list[ComposedPair] = field(default_factory=list)

    def add(self, layer: AttentionWeights) -> None:
        if layer.attention != "self":
            return
        own = torch.arange(len(layer.q), device=layer.q.device) // layer.repeats
        k, v, o = layer.k[own], layer.v[own], layer.o.mT
        earlier = self.writers.setdefault(layer.stack, [])
        if earlier:
            readers: Mapping[str, tuple[Float[Tensor, "h w d"], Float[Tensor, "h w d"]]] = {
                "Q": (layer.q, k), "K": (k, layer.q), "V": (v, o),
            }  # fmt: skip
            for kind, (inner, outer) in readers.items():
                reader = sides(inner, outer, torch.float32)
                for writer_layer, writer in earlier:
                    found = composition(reader, writer)
                    self.pairs.append(ComposedPair(kind, layer.stack, layer.layer, writer_layer, found))
        earlier.append((layer.layer, sides(o, v, torch.float32)))
