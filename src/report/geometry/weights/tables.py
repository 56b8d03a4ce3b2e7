"""Tables of weights: each number beside what Gaussian entries or random rotations give."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from src.geometry.weights.entries import gaussian_below
from src.geometry.weights.norms import shared_outliers
from src.geometry.weights.notebook import NotebookWeights
from src.geometry.weights.profile import WeightProfile
from src.models.checkpoint import Matrix, Weights
from src.report.geometry.weights.records import RoleSummary, neuron_records, norm_records, role_title
from src.report.tables import Table
from src.report.token_text import visible

_MOST_LISTED = 40


def catalogue_table(matrices: Sequence[Matrix], n_stacks: int) -> Table:
    """What there is: each role with its matrices and parameters."""
    kinds: dict[tuple[Any, ...], list[Matrix]] = {}
    for matrix in matrices:
        kinds.setdefault((matrix.stack, matrix.role, matrix.attention), []).append(matrix)
    total = sum(matrix.numel for matrix in matrices)
    rows = []
    for (stack, role, attention), members in kinds.items():
        count = sum(matrix.numel for matrix in members)
        shapes = list(dict.fromkeys("x".join(map(str, matrix.shape)) or "1" for matrix in members))
        more = ", ..." if len(shapes) > 3 else ""
        shown = ", ".join(shapes[:3]) + more
        title = role_title((stack, role, attention), n_stacks)
        rows.append([title, len(members), count, 100 * count / total, shown])
    caption = "tied matrices are counted once; a fused projection is counted as its parts"
    return Table("Parameters", ["role", "number", "parameters", "%", "shapes"], rows, caption)


def spectrum_table(kinds: Sequence[RoleSummary]) -> Table:
    """Ranks, each beside that of Gaussian matrices of the same shapes."""
    rows = [
        [
            kind.title,
            len(kind.members),
            kind.shapes,
            kind.mean("stable_rank"),
            kind.random("stable_rank"),
            kind.mean("energy_participation"),
            kind.random("energy_participation"),
            kind.mean("above_edge"),
            100 * kind.mean("energy_above_edge"),
            kind.median("condition"),
        ]
        for kind in kinds
    ]
    columns = ["role", "n", "shape", "stable rank", "random", "PR", "random", "beyond edge", "% energy", "condition"]
    caption = (
        "means over layers (condition: median); random: Gaussian entries, same shape; PR: participation ratio of s^2; "
        "beyond the edge: singular values that independent entries of this variance would not have"
    )
    return Table("Spectra", columns, rows, caption)


def entries_table(kinds: Sequence[RoleSummary]) -> Table:
    """Scale, and what does not depend on it, beside Gaussian entries."""
    rows = [
        [
            kind.title,
            kind.mean("rms"),
            100 * kind.pooled("below_0.1"),
            100 * kind.pooled_gaussian(0.1),
            100 * kind.pooled("below_0.1_rms"),
            100 * gaussian_below(0.1),
            kind.median("excess_kurtosis"),
            kind.mean("hoyer"),
            1 - math.sqrt(2 / math.pi),
            100 * kind.pooled("zeros"),
        ]
        for kind in kinds
    ]
    columns = ["role", "RMS", "% <0.1", "Gauss", "% <0.1 RMS", "Gauss", "kurtosis", "Hoyer", "Gauss", "% zero"]
    caption = (
        "% <0.1 measures the scale of a matrix: Gaussian entries of the same RMS have as many; % <0.1 RMS, excess "
        "kurtosis (Gauss 0) and Hoyer's sparsity do not depend on the scale"
    )
    return Table("Sparsity", columns, rows, caption)


def layer_table(profile: WeightProfile, n_stacks: int) -> Table | None:
    """Neighbouring layers, entry by entry and on the side of the residual stream."""
    if not profile.comparisons:
        return None
    rows = [
        [
            role_title(each.group, n_stacks),
            each.entries.adjacent,
            each.entries.deviation,
            each.grams.adjacent,
            each.grams.deviation,
            each.overlaps.adjacent,
            each.overlaps.expected,
            each.rank,
        ]
        for each in profile.comparisons
    ]
    columns = ["role", "entries", "chance sd", "Gram", "chance sd", "overlap", "chance", "directions"]
    caption = (
        "mean cosine of neighbouring layers; Gram: W'W of readers, W W' of writers, without its trace, which no "
        "permutation of units changes; overlap of the leading directions; chance: a random rotation"
    )
    return Table("Layers against each other", columns, rows, caption)


def neuron_table(profile: WeightProfile) -> Table | None:
    """Neurons of each stack together."""
    if not profile.neurons:
        return None
    records = neuron_records(profile)
    rows = []
    for stack in dict.fromkeys(record["stack"] for record in records):
        own = [record for record in records if record["stack"] == stack]
        sums = [sum(record[name] for record in own) for name in ("n_neurons", "dead", "weak", "dead_in_a_factor")]
        spread = float(np.mean([record["dispersion"] for record in own]))
        gaussian = float(np.mean([record["dispersion_gaussian"] for record in own]))
        rows.append([stack, len(own), *sums, spread, gaussian])
    columns = ["stack", "MLPs", "neurons", "dead", "weak", "dead in a factor", "dispersion", "Gauss"]
    caption = (
        "importance |up||down| (times |gate|): dead below 1 %, weak below 10 % of the layer's median; in a factor: one "
        "of the norms by itself. Norms show which neurons can't act; whether one ever does, only data shows"
    )
    return Table("MLP neurons", columns, rows, caption)


def neuron_details(profile: WeightProfile) -> Table | None:
    """Each MLP."""
    if not profile.neurons:
        return None
    names = ["n_neurons", "dead", "weak", "dead_in_a_factor", "dispersion", "up_norm_mean", "down_norm_mean"]
    rows = [
        [record["stack"], record["layer"], record["expert"], *(record[name] for name in names)]
        for record in neuron_records(profile)
    ]
    return Table("Neurons by layer", ["stack", "layer", "expert", *(name.replace("_", " ") for name in names)], rows)


def norm_table(profile: WeightProfile) -> Table | None:
    """Gains by what they normalise, and the dimensions in which most of them stand out."""
    if not profile.norms:
        return None
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for number, (matrix, gains) in enumerate(profile.norms):
        kinds.setdefault((matrix.stack, matrix.place, matrix.attention, len(gains.values)), []).append(number)
    n_stacks = len({matrix.stack for matrix, _ in profile.norms})
    rows = []
    for (stack, place, attention, width), numbers in kinds.items():
        gains = [profile.norms[number][1] for number in numbers]
        medians = [float(np.median(each.values)) for each in gains]
        shared = shared_outliers(gains) if len(gains) > 2 else None
        words = [stack] if n_stacks > 1 else []
        title = " ".join([*words, *(["cross"] if attention == "cross" else []), str(place).replace("_", " ")])
        dims = (
            "" if shared is None else ", ".join(map(str, shared.dims[:6])) + (", ..." if len(shared.dims) > 6 else "")
        )
        least, most = min(float(each.values.min()) for each in gains), max(float(each.values.max()) for each in gains)
        row = [title, len(gains), width, min(medians), max(medians), least, most, dims or "none"]
        rows.append([*row, None if shared is None else shared.expected])
    columns = ["norm of", "n", "width", "least median", "largest", "min", "max", "shared outliers", "by chance"]
    caption = (
        "effective gains (1 + w where they are stored so); shared outliers: dimensions more than 6 robust standard "
        "deviations from the median in 80 % of the norms, and how many chance would give"
    )
    return Table("Norms", columns, rows, caption)


def norm_details(profile: WeightProfile) -> Table | None:
    """Each norm."""
    names = ["mean", "std", "median", "min", "max", "above_1.5", "below_0.5", "within_0.8_1.2", "outliers"]
    rows = [[record["name"], record["place"], *(record[name] for name in names)] for record in norm_records(profile)]
    columns = ["norm", "place", *(name.replace("_", " ") for name in names)]
    return Table("Norms one by one", columns, rows) if rows else None


def unrecognised_table(weights: Weights, matrices: Sequence[Matrix], skipped: Sequence[Matrix]) -> Table | None:
    """What was not measured, and why."""
    rows: list[list[Any]] = [
        [matrix.name, "x".join(map(str, matrix.shape)), "not recognised"]
        for matrix in matrices
        if matrix.role == "other"
    ]
    known = {matrix.name for matrix in matrices if matrix.role == "other"}
    rows += [
        [matrix.name, "x".join(map(str, matrix.shape)) or "1", f"no matrix ({matrix.role.replace('_', ' ')})"]
        for matrix in skipped
        if matrix.name not in known
    ]
    rows += [[visible(name), None, "in the files, but the model class has no place for it"] for name in weights.unread]
    rows += [[name, None, "in the model class, but not in the files"] for name in weights.missing]
    if not rows:
        return None
    caption = f"the first {_MOST_LISTED} of {len(rows)}" if len(rows) > _MOST_LISTED else ""
    return Table("What was not measured", ["parameter", "shape", "why"], rows[:_MOST_LISTED], caption)


def notebook_table(found: NotebookWeights) -> Table:
    """The notebook's own quantities, mistakes included."""
    names = ["stable_rank", "participation", "active", "rank90", "condition", "below_0.01", "below_0.1"]
    rows = [
        [record["type"], record["matrices"], *(record[name] for name in names), record.get("layer_cosine_adjacent")]
        for record in found.types
    ]
    dead = sum(record["dead"] for record in found.neurons)
    weak = sum(record["weak"] for record in found.neurons)
    shares = ", ".join(f"{name.removeprefix('below_')} {100 * share:.1f} %" for name, share in found.totals.items())
    caption = (
        f"whole model: |w| below {shares}; {dead} dead and {weak} weak neurons of "
        f"{sum(record['n'] for record in found.neurons)}. Mistakes included: fused projections unsplit, rank90 of s "
        "rather than s^2, thresholds that measure scale, layers compared entry by entry"
    )
    columns = ["type", "n", "stable rank", "PR (s)", "active", "rank90", "condition", "<0.01", "<0.1", "layers"]
    return Table("As the notebook computes it", columns, rows, caption)
