"""What was measured of weights as flat records, and as the averages that tables and words are made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from src.geometry.weights.entries import (
    RELATIVE,
    gaussian_below,
    gaussian_dispersion,
    gaussian_hoyer,
)
from src.geometry.weights.neurons import gaussian_importance_dispersion
from src.geometry.weights.profile import Group, MatrixProfile, WeightProfile, group_of

Record = dict[str, Any]
# beside each matrix also of a random one of its shape
_RANDOM = ("stable_rank", "energy_participation", "effective_rank", "energy_rank_90", "condition", "above_edge")


def matrix_records(profile: WeightProfile) -> list[Record]:
    """One for each matrix: what it is, its numbers, and those of random matrices of its shape."""
    records = []
    for each in profile.matrices:
        matrix, shape = each.matrix, each.spectrum.shape
        record: Record = {
            "name": matrix.name,
            "stack": matrix.stack,
            "layer": matrix.layer,
            "role": matrix.role,
            "attention": matrix.attention,
            "expert": matrix.expert,
            "rows": shape[0],
            "columns": shape[1],
            "heads": matrix.heads,
        }
        record |= each.spectrum.numbers() | each.entries.numbers()
        record |= {f"{name}_random": profile.random_number(shape, name) for name in _RANDOM}
        record |= {f"below_{t:g}_rms_gaussian": gaussian_below(t) for t in RELATIVE}
        record["below_0.1_gaussian"] = gaussian_below_absolute(0.1, each.entries.rms)
        record["hoyer_gaussian"] = gaussian_hoyer(each.entries.count)
        record["row_dispersion_gaussian"] = gaussian_dispersion(shape[1])
        record["column_dispersion_gaussian"] = gaussian_dispersion(shape[0])
        records.append(record)
    return records


def gaussian_below_absolute(threshold: float, rms: float) -> float:
    """P(|w| < threshold) of Gaussian entries of a scale."""
    return gaussian_below(threshold / rms) if rms > 0 else 1.0


def pair_records(profile: WeightProfile) -> list[Record]:
    """One for each pair of layers of each kind of matrix."""
    records = []
    for each in profile.comparisons:
        stack, role, attention = each.group
        for first, layer in enumerate(each.layers):
            for second in range(first + 1, len(each.layers)):
                records.append(
                    {
                        "stack": stack,
                        "role": role,
                        "attention": attention,
                        "layer": layer,
                        "other_layer": each.layers[second],
                        "entry_cosine": float(each.entries.values[first, second]),
                        "gram_cosine": float(each.grams.values[first, second]),
                        "gram_z": each.grams.z(float(each.grams.values[first, second])),
                        "overlap": float(each.overlaps.values[first, second]),
                        "overlap_chance": each.overlaps.expected,
                    }
                )
    return records


def composition_records(profile: WeightProfile) -> list[Record]:
    """One for each pair of a matrix that reads and an earlier one that writes the residual stream."""
    records = []
    for each in profile.compositions:
        for reader, layer in enumerate(each.reader_layers):
            for writer, earlier in enumerate(each.writer_layers):
                if earlier < layer or (earlier == layer and each.writer[1] == "o" and each.reader[1] in ("up", "gate")):
                    cosine = float(each.cosines.values[reader, writer])
                    records.append(
                        {
                            "stack": each.reader[0],
                            "reader": each.reader[1],
                            "attention": each.reader[2],
                            "layer": layer,
                            "writer": each.writer[1],
                            "writer_attention": each.writer[2],
                            "writer_layer": earlier,
                            "gram_cosine": cosine,
                            "z": each.cosines.z(cosine),
                        }
                    )
    return records


def neuron_records(profile: WeightProfile) -> list[Record]:
    """One for each MLP or expert."""
    return [
        {"stack": each.stack, "layer": each.layer, "expert": each.expert, "shared": each.shared, "gated": each.gated}
        | each.neurons.numbers()
        | {"dispersion_gaussian": gaussian_importance_dispersion(each.d_model, each.gated)}
        | _norm_numbers(each.neurons.up, "up")
        | _norm_numbers(each.neurons.down, "down")
        for each in profile.neurons
    ]


def _norm_numbers(norms: np.ndarray, name: str) -> Record:
    return {
        f"{name}_norm_mean": float(norms.mean()),
        f"{name}_norm_std": float(norms.std()),
        f"{name}_norm_min": float(norms.min()),
        f"{name}_norm_max": float(norms.max()),
    }


def norm_records(profile: WeightProfile) -> list[Record]:
    """One for each norm."""
    return [
        {
            "name": matrix.name,
            "stack": matrix.stack,
            "layer": matrix.layer,
            "place": matrix.place,
            "attention": matrix.attention,
            "width": len(gains.values),
            "zero_centred": matrix.offset == 1,
        }
        | gains.numbers()
        for matrix, gains in profile.norms
    ]


def singular_values(profile: WeightProfile) -> dict[str, torch.Tensor]:
    """Singular values by the matrix's name, descending."""
    return {each.matrix.name: torch.from_numpy(each.spectrum.values.copy()) for each in profile.matrices}


@dataclass(frozen=True, eq=False)
class RoleSummary:
    """Matrices of one kind in all layers of a stack."""

    group: Group
    members: list[MatrixProfile]
    profile: WeightProfile

    @property
    def title(self) -> str:
        """As tables call it."""
        return role_title(self.group, self.n_stacks)

    @property
    def n_stacks(self) -> int:
        """Stacks of the model that have layers."""
        return len({each.matrix.stack for each in self.profile.matrices if each.matrix.layer is not None})

    def mean(self, name: str) -> float:
        """Of a number of spectra or entries."""
        return float(np.mean([_number(each, name) for each in self.members]))

    def median(self, name: str) -> float:
        """Of a number of spectra or entries."""
        return float(np.median([_number(each, name) for each in self.members]))

    def random(self, name: str) -> float:
        """The mean of a number over random matrices of the same shapes."""
        return float(np.mean([self.profile.random_number(each.spectrum.shape, name) for each in self.members]))

    def pooled(self, name: str) -> float:
        """A share of entries over all entries of the kind."""
        counts = np.array([each.entries.count for each in self.members])
        shares = np.array([each.entries.numbers()[name] for each in self.members])
        return float((counts * shares).sum() / counts.sum())

    def pooled_gaussian(self, threshold: float) -> float:
        """Share of |w| below an absolute threshold if each matrix had Gaussian entries of its own scale."""
        counts = np.array([each.entries.count for each in self.members])
        shares = np.array([gaussian_below_absolute(threshold, each.entries.rms) for each in self.members])
        return float((counts * shares).sum() / counts.sum())

    @property
    def shapes(self) -> str:
        """The shapes, as rows x columns."""
        found = dict.fromkeys(each.spectrum.shape for each in self.members)
        return ", ".join(f"{rows}x{columns}" for rows, columns in list(found)[:2]) + (", ..." if len(found) > 2 else "")


def _number(each: MatrixProfile, name: str) -> float:
    numbers = each.spectrum.numbers()
    return numbers[name] if name in numbers else each.entries.numbers()[name]


def role_title(group: Group, n_stacks: int) -> str:
    """A kind of matrix as tables call it: `q`, `cross q`, `encoder up`."""
    stack, role, attention = group
    words = [stack] if n_stacks > 1 and stack != "shared" else []
    return " ".join([*words, *(["cross"] if attention == "cross" else []), role])


def summaries(profile: WeightProfile) -> list[RoleSummary]:
    """Each kind of matrix, in the order of the model."""
    groups: dict[Group, list[MatrixProfile]] = {}
    for each in profile.matrices:
        groups.setdefault(group_of(each.matrix), []).append(each)
    return [RoleSummary(group, members, profile) for group, members in groups.items()]


def comparable_metrics(
    profile: WeightProfile, kinds: Sequence[RoleSummary]
) -> tuple[dict[str, float], dict[str, float]]:
    """The numbers by which models are compared (spec E9), and by the same names what chance gives."""
    values: dict[str, float] = {}
    nulls: dict[str, float] = {}
    for role in ("q", "k", "v", "o", "gate", "up", "down"):
        of_role = [kind for kind in kinds if kind.group[1] == role]
        if not of_role:
            continue
        whole = RoleSummary(of_role[0].group, [m for kind in of_role for m in kind.members], profile)
        values[f"small_{role}_share"] = whole.pooled("below_0.1")
        nulls[f"small_{role}_share"] = whole.pooled_gaussian(0.1)
        values[f"{role}_below_0.1_rms"] = whole.pooled("below_0.1_rms")
        nulls[f"{role}_below_0.1_rms"] = gaussian_below(0.1)
        values[f"{role}_stable_rank"] = whole.mean("stable_rank")
        nulls[f"{role}_stable_rank"] = whole.random("stable_rank")
        values[f"{role}_energy_above_edge"] = whole.mean("energy_above_edge")
        values[f"{role}_excess_kurtosis"] = whole.median("excess_kurtosis")
        nulls[f"{role}_excess_kurtosis"] = 0.0
    if profile.comparisons:
        pairs = [each.entries for each in profile.comparisons]
        values["cross_layer_cosine"] = float(np.mean([each.adjacent for each in pairs]))
        nulls["cross_layer_cosine"] = 0.0
        values["cross_layer_gram_cosine"] = float(np.mean([each.grams.adjacent for each in profile.comparisons]))
        nulls["cross_layer_gram_cosine"] = 0.0
    if profile.neurons:
        counted = [each.neurons.numbers() for each in profile.neurons]
        total = sum(numbers["n_neurons"] for numbers in counted)
        values["dead_neurons"] = sum(numbers["dead"] for numbers in counted)
        values["dead_neuron_share"] = values["dead_neurons"] / total
        nulls |= {"dead_neurons": 0.0, "dead_neuron_share": 0.0}
    return {name: value for name, value in values.items() if math.isfinite(value)}, nulls
