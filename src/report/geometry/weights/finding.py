"""What is shown of weights: words, tables, the figure, records."""

from collections.abc import Mapping, Sequence
from typing import Any

from src.geometry.weights.entries import ABSOLUTE, LOG_BINS, LOG_RANGE, RELATIVE
from src.geometry.weights.neurons import DEAD, WEAK
from src.geometry.weights.norms import OUTLIER, SHARED, shared_outliers
from src.geometry.weights.notebook import NotebookWeights
from src.geometry.weights.profile import WeightProfile
from src.models.checkpoint import Matrix, Weights
from src.report.finding import Finding
from src.report.geometry.weights.figures import weight_figure
from src.report.geometry.weights.records import (
    comparable_metrics,
    composition_records,
    matrix_records,
    neuron_records,
    norm_records,
    pair_records,
    singular_values,
    summaries,
)
from src.report.geometry.weights.tables import (
    catalogue_table,
    entries_table,
    layer_table,
    neuron_details,
    neuron_table,
    norm_details,
    norm_table,
    notebook_table,
    spectrum_table,
    unrecognised_table,
)
from src.report.geometry.weights.words import uncovered_layers, weight_text
from src.report.tables import Table


def weight_finding(
    name: str,
    weights: Weights,
    matrices: Sequence[Matrix],
    profile: WeightProfile,
    notebook: NotebookWeights | None,
    settings: Mapping[str, Any],
) -> Finding:
    """Everything that was measured of a model's weights but its circuits. settings: go into weights.json."""
    kinds = summaries(profile)
    n_stacks = len({matrix.stack for matrix in matrices if matrix.layer is not None})
    values, nulls = comparable_metrics(profile, kinds)
    of_layers = [kind for kind in kinds if kind.members[0].matrix.layer is not None] or kinds
    tables = [
        spectrum_table(of_layers),
        entries_table(of_layers),
        layer_table(profile, n_stacks),
        neuron_table(profile),
        norm_table(profile),
        None if notebook is None else notebook_table(notebook),
    ]
    details = [
        catalogue_table(matrices, n_stacks),
        unrecognised_table(weights, matrices, profile.skipped),
        neuron_details(profile),
        norm_details(profile),
    ]
    document = {
        "metrics": values,
        "nulls": nulls,
        "settings": dict(settings),
        "constants": _constants(),
        "dtypes": sorted({str(weights.read(m.parameter).dtype).removeprefix("torch.") for m in matrices[:1]}),
        "parameters": sum(matrix.numel for matrix in matrices),
        "catalogue": [_described(matrix) for matrix in matrices],
        "not_recognised": [matrix.name for matrix in matrices if matrix.role == "other"],
        "skipped": [matrix.name for matrix in profile.skipped],
        "unread": list(weights.unread),
        "missing": list(weights.missing),
        "tied": dict(weights.tied),
        "layers_without_attention_matrices": uncovered_layers(matrices),
        "comparisons": [_comparison(each) for each in profile.comparisons],
        "shared_outliers": _shared(profile),
        "notes": list(weights.notes),
    }
    files: dict[str, Any] = {"weights.json": document}
    if notebook is not None:
        files["weights_notebook.json"] = {
            "types": notebook.types,
            "totals": notebook.totals,
            "neurons": notebook.neurons,
        }
    records = {
        "matrices": matrix_records(profile),
        "neurons": neuron_records(profile),
        "norms": norm_records(profile),
        "layer_pairs": pair_records(profile),
        "readers_and_writers": composition_records(profile),
    }
    return Finding(
        text=weight_text(weights, matrices, profile, kinds),
        tables=_there(tables),
        figures=[weight_figure(name, profile, kinds)],
        details=_there(details),
        records={stem: found for stem, found in records.items() if found},
        files=files,
        tensors={"singular_values": singular_values(profile)},
        metrics={f"weights/{key}": value for key, value in values.items()},
    )


def _there(tables: Sequence[Table | None]) -> list[Table]:
    return [table for table in tables if table is not None]


def _described(matrix: Matrix) -> dict[str, Any]:
    fields = ("name", "role", "stack", "layer", "attention", "place", "of", "heads", "expert", "transposed", "offset")
    return {field: getattr(matrix, field) for field in fields} | {"shape": list(matrix.shape)}


def _comparison(each: Any) -> dict[str, Any]:
    stack, role, attention = each.group
    return {
        "stack": stack,
        "role": role,
        "attention": attention,
        "layers": list(each.layers),
        "entries": each.entries.numbers(),
        "grams": each.grams.numbers(),
        "overlaps": each.overlaps.numbers(),
        "directions": each.rank,
    }


def _shared(profile: WeightProfile) -> list[dict[str, Any]]:
    kinds: dict[tuple[Any, ...], list[Any]] = {}
    for matrix, gains in profile.norms:
        kinds.setdefault((matrix.stack, matrix.place, len(gains.values)), []).append(gains)
    found = []
    for (stack, place, width), gains in kinds.items():
        if len(gains) > 2:
            shared = shared_outliers(gains)
            found.append(
                {"stack": stack, "place": place, "width": width, "norms": len(gains), "dims": list(shared.dims)}
                | {"shares": list(shared.shares), "expected_by_chance": shared.expected}
            )
    return found


def _constants() -> dict[str, Any]:
    return {
        "relative_thresholds": list(RELATIVE),
        "absolute_thresholds": list(ABSOLUTE),
        "log_histogram": {"low": LOG_RANGE[0], "high": LOG_RANGE[1], "bins": LOG_BINS},
        "dead_of_median": DEAD,
        "weak_of_median": WEAK,
        "outlier_robust_deviations": OUTLIER,
        "shared_by": SHARED,
    }
