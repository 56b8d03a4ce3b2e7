"""What compare_topology.py shows: tables of results, of pairs of clouds, of diagrams, and of perplexity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.report.artifact_report import NamedChart
from src.report.figures.topology_comparison import all_layers, measures_by_layer, union_pictures
from src.report.figures.topology_profile import layer_profile
from src.report.tables import Cell, Table, finite_or_none, interval_cell
from src.report.topology.compared import (
    BOTTLENECK,
    CloudPair,
    ComparedTopology,
    LayerMatrix,
    ResultPair,
    scale_free_statistics,
)
from src.report.topology.profiles import banded
from src.report.topology.published_pairs import published_tables, refusals
from src.topology.comparisons.paired import PairedMeasure
from src.topology.measures.catalogue import STATISTICS

# statistics that have panels and columns of their own; all of them are in the files
SHOWN = ("beta_1", "survival_rate", "h1_total_scaled", "h1_max_scaled", "h0_normalised", "mst_gini")
# of the pairs of clouds of two results, so many are drawn point by point
_MOST_PICTURES = 6


@dataclass(frozen=True)
class Group:
    """A part of the report: what belongs together on the page. details: tables that are too long for a terminal."""

    title: str
    text: str
    tables: Sequence[Table]
    figures: Sequence[NamedChart] = ()
    details: Sequence[Table] = ()


def profile_group(found: ComparedTopology) -> Group:
    """The results side by side: what they are of, and their statistics with bands at one number of points."""
    rows: list[list[Cell]] = []
    for result in found.results:
        sizes = sorted({profile.n_points for profile in result.profiles})
        bands = sorted({profile.n_subsample for profile in result.profiles if profile.n_subsample is not None})
        points = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        subsample = ", ".join(f"{size:,}" for size in bands) or "no bands"
        rows.append([result.label, result.model or "files", len(result.profiles), points, subsample])
    results = Table("Results", ["result", "model", "clouds", "points", "points of bands"], rows)
    names = [name for name in SHOWN if name in scale_free_statistics(found.results)]
    statistics: list[list[Cell]] = [
        [result.label, profile.name, *(banded(profile.statistics[name], name) for name in names)]
        for result in found.results
        for profile in result.profiles
    ]
    caption = (
        "All are free of scale. Brackets: 95 % of subsamples; bands are at one number of points where the results "
        "say so, and only then do they compare."
    )
    columns = ["result", "cloud", *(STATISTICS[name].label for name in names)]
    records = [
        {
            "model": result.label,
            "layer": profile.layer if profile.layer is not None else place,
            "statistic": STATISTICS[name].label,
            "value": finite_or_none(profile.statistics[name].value),
            "low": finite_or_none(profile.statistics[name].low),
            "high": finite_or_none(profile.statistics[name].high),
        }
        for name in names
        for result in found.results
        for place, profile in enumerate(result.profiles)
    ]
    chart = layer_profile(records, "Topology side by side")
    return Group(
        "Profiles side by side",
        "",
        [results],
        [NamedChart("profiles", "Topology side by side", chart, caption)],
        [Table("Statistics side by side", columns, statistics, caption)],
    )


def pair_groups(found: ComparedTopology) -> list[Group]:
    """For each pair of results: overlap, agreement, diagrams, all layers with all."""
    overlap_q, agreement_q = found.overlap_q(), found.correspondence_q()
    groups = []
    for number, pair in enumerate(found.pairs):
        keys = [(pair.first, pair.second, cloud.first, cloud.second) for cloud in pair.clouds]
        tables = []
        if any(cloud.found.paired is not None for cloud in pair.clouds):
            tables.insert(0, _paired_table(pair, [agreement_q.get(key) for key in keys]))
        if any(cloud.found.union is not None for cloud in pair.clouds):
            tables.insert(0, _union_table(pair, [overlap_q.get(key) for key in keys]))
        refused = {cloud.found.no_union: cloud.title for cloud in pair.clouds if cloud.found.no_union}
        text = " ".join(f"No verdict on overlap (layer {layer}): {reason}." for reason, layer in refused.items())
        published = [cloud.published for cloud in pair.clouds if cloud.published is not None]
        tables += published_tables(published, f"{pair.first}, {pair.second}")
        text = " ".join(part for part in (text, refusals(published)) if part)
        figures = _pair_figures(pair, number)
        groups.append(Group(f"{pair.first} and {pair.second}", text, tables, figures, [_diagram_table(pair)]))
    return groups


def _union_table(pair: ResultPair, corrected: Sequence[float | None]) -> Table:
    rows: list[list[Cell]] = []
    for cloud, q in zip(pair.clouds, corrected, strict=True):
        union = cloud.found.union
        if union is None:
            continue
        tree, kept = union.tests.friedman_rafsky, union.preserved[-1]
        row: list[Cell] = [cloud.title, finite_or_none(union.centre[0]), finite_or_none(union.centre[1])]
        row += [tree.cross_edges, tree.ratio, tree.z, union.tests.energy.coefficient, union.tests.mmd.squared, q]
        row += [union.verdict, finite_or_none(kept.first.share), finite_or_none(kept.second.share), kept.n_new]
        row += [union.shape_tests.friedman_rafsky.ratio, union.shape_verdict]
        rows.append(row)
    columns = ["layer", "centres", "/ scale", "cross edges", "/ expected", "z", "energy", "MMD²", "q", "clouds"]
    columns += [f"kept {pair.first}", f"kept {pair.second}", "new loops", "shape: / expected", "shapes"]
    dimension = next(len(cloud.found.union.preserved) - 1 for cloud in pair.clouds if cloud.found.union is not None)
    caption = (
        "Both clouds in one space, at one scale. centres: distance of the means, raw and in median distances. cross "
        "edges: of the union's spanning tree (Friedman-Rafsky), as many as expected where the clouds mix; z in "
        "standard deviations. energy: coefficient, 0 = one distribution, 1 = two points. MMD²: Gaussian kernel. q: the "
        "smallest p of the three, corrected for there being three and for all layers and pairs. kept: share of each "
        f"cloud's H{dimension} bars that the union has too. shape: after each cloud was centred and scaled."
    )
    return Table(f"Overlap: {pair.first}, {pair.second}", columns, rows, caption)


def _paired_table(pair: ResultPair, corrected: Sequence[float | None]) -> Table:
    rows: list[list[Cell]] = []
    for cloud, q in zip(pair.clouds, corrected, strict=True):
        paired = cloud.found.paired
        if paired is not None:
            measures = (paired.debiased_cka, paired.cka, paired.rsa, paired.procrustes)
            row: list[Cell] = [cloud.title, cloud.n_points[0]]
            row += [_interval(measures[0]), q, _interval(measures[1]), finite_or_none(measures[1].null)]
            row += [_interval(measures[2]), _interval(measures[3]), finite_or_none(measures[3].null)]
            rows.append([*row, finite_or_none(cloud.found.basis)])
    columns = ["layer", "pairs", "debiased CKA", "q", "CKA", "CKA shuffled", "RSA", "Procrustes", "Procrustes shuffled"]
    caption = (
        "The same prompts or tokens in both. 1 = alike up to rotation and scale (Procrustes: 0). Brackets: 95 % "
        "intervals from random halves. shuffled: mean over shuffled pairs; q: of debiased CKA, corrected over layers "
        "and pairs. same axes: 1 = no rotation makes the clouds more alike, 0 = unrelated axes."
    )
    return Table(f"Agreement row by row: {pair.first}, {pair.second}", [*columns, "same axes"], rows, caption)


def _diagram_table(pair: ResultPair) -> Table:
    rows: list[list[Cell]] = []
    for cloud in pair.clouds:
        free, loops = cloud.found.scale_free, cloud.found.loops
        for k, raw in enumerate(cloud.found.raw):
            scaled = None if free is None else free[k]
            row: list[Cell] = [cloud.title, f"H{k}", finite_or_none(raw.bottleneck), finite_or_none(raw.wasserstein_1)]
            row += [None] * 3 if scaled is None else [scaled.bottleneck, scaled.is_trivial, scaled.wasserstein_1]
            row += [finite_or_none(loops.between), _within(cloud), loops.differ] if k == 1 else [None] * 3
            rows.append(row)
    columns = ["layer", "bars", "bottleneck", "Wasserstein", "b. / scale", "trivial", "W. / scale", "halves between"]
    caption = (
        "Distances of diagrams, raw and with each cloud in units of its scale; only the latter compare shapes. "
        "Wasserstein: order 1, maximum norm. trivial: half of the longest bar, so no bar of one is matched with a long "
        "one of the other. halves: scale-free bottleneck distances of half a cloud to half of the other (median), and "
        "between the two halves of one (middle 95 %); differ: between is beyond."
    )
    return Table(f"Diagrams: {pair.first}, {pair.second}", [*columns, "halves within", "differ"], rows, caption)


def _within(cloud: CloudPair) -> Cell:
    loops = cloud.found.loops
    return interval_cell(loops.within, loops.low, loops.high)


def _pair_figures(pair: ResultPair, number: int) -> list[NamedChart]:
    between = f"{pair.first} and {pair.second}"
    agreement = [
        {"clouds": cloud.title, "measure": name, **_ends(measure)}
        for cloud in pair.clouds
        if cloud.found.paired is not None
        for name, measure in (("debiased CKA", cloud.found.paired.debiased_cka), ("RSA", cloud.found.paired.rsa))
    ]
    overlap = [
        {"clouds": cloud.title, "measure": name, "value": tests.friedman_rafsky.ratio}
        for cloud in pair.clouds
        if cloud.found.union is not None
        for name, tests in (
            ("as they are", cloud.found.union.tests),
            ("centred and scaled", cloud.found.union.shape_tests),
        )
    ]
    figures = []
    if agreement:
        title, caption = f"Agreement of {between}", "1 = alike up to rotation and scale; lines: 95 % intervals."
        chart = measures_by_layer(agreement, title, "agreement")
        figures.append(NamedChart(f"agreement_{number}", title, chart, caption))
    if overlap:
        title, caption = f"Overlap of {between}", "Cross edges of the union's spanning tree; 0 = apart, 1 = mixed."
        chart = measures_by_layer(overlap, title, "cross edges / expected", reference=1.0)
        figures.append(NamedChart(f"overlap_{number}", title, chart, caption))
    if pictures := _union_pictures(pair, between):
        figures.append(NamedChart(f"union_{number}", f"Unions of {between}", *pictures))
    return figures + _matrix_figures(pair.matrices, pair.first, pair.second, f"pair_{number}")


def _union_pictures(pair: ResultPair, between: str) -> tuple[Any, str] | None:
    """A chart and its caption; None where no clouds lie in one space."""
    known = [(cloud, cloud.found.union.picture) for cloud in pair.clouds if cloud.found.union is not None]
    if not known:
        return None
    points, edges = [], []
    for cloud, picture in known[:_MOST_PICTURES]:
        title = f"{cloud.title} ({100 * picture.share:.0f} % of the variance)"
        places = picture.places.tolist()
        points += [
            {"clouds": title, "result": pair.first if row < picture.n_first else pair.second, "x": x, "y": y}
            for row, (x, y) in enumerate(places)
        ]
        for a, b in picture.cross_edges.tolist():
            edges.append({"clouds": title, **dict(zip(("x", "y", "x2", "y2"), places[a] + places[b], strict=True))})
    left_out = f" The first {_MOST_PICTURES} of {len(known)} pairs." if len(known) > _MOST_PICTURES else ""
    caption = f"Both clouds on the first two principal components of their union.{left_out}"
    return union_pictures(points, edges, f"Unions of {between}"), caption


def layers_group(found: ComparedTopology) -> Group | None:
    """All layers of each result with each other."""
    figures = [
        figure
        for number, (label, matrices) in enumerate(found.within.items())
        for figure in _matrix_figures(matrices, label, label, f"within_{number}")
    ]
    if not figures:
        return None
    text = "Every layer against every other of the same model: the same points, as each layer holds them."
    return Group("All layers against all layers", text, [], figures)


def _matrix_figures(matrices: Sequence[LayerMatrix], first: str, second: str, stem: str) -> list[NamedChart]:
    """One figure, a map for each measure."""
    records = [
        [
            {
                "measure": matrix.measure,
                "largest": None if matrix.measure == BOTTLENECK else 1.0,
                "row": _short(row),
                "column": _short(column),
                "value": finite_or_none(float(matrix.values[i, j])),
            }
            for i, row in enumerate(matrix.rows)
            for j, column in enumerate(matrix.columns)
        ]
        for matrix in matrices
        if matrix.values.size > 1
    ]
    if not records:
        return []
    title = f"All layers of {first if first == second else f'{first} and {second}'}"
    caption = "CKA and RSA: 1 = alike. Bottleneck distances of H1 are in units of each layer's scale: 0 = alike."
    return [NamedChart(stem, title, all_layers(records, title, rows=first, columns=second), caption)]


def comparison_metrics(found: ComparedTopology) -> dict[str, float]:
    """Numbers for the tracker."""
    numbers = {f"{model}/perplexity": loss.perplexity.value for model, loss in found.losses.items()}
    for pair in found.pairs:
        for cloud in pair.clouds:
            stem = f"{pair.first}_{pair.second}/{cloud.title}"
            if cloud.found.union is not None:
                numbers[f"{stem}/cross_edge_ratio"] = cloud.found.union.tests.friedman_rafsky.ratio
            if cloud.found.paired is not None:
                numbers[f"{stem}/debiased_cka"] = cloud.found.paired.debiased_cka.value
    return numbers


def _short(name: str) -> str:
    """The layer of resid_post/05; other names as they are."""
    hook, slash, layer = name.rpartition("/")
    return str(int(layer)) if slash and hook and layer.isdecimal() else name


def _interval(measure: PairedMeasure) -> Cell:
    return interval_cell(measure.value, measure.low, measure.high)


def _ends(measure: PairedMeasure) -> dict[str, float | None]:
    return {
        "value": finite_or_none(measure.value),
        "low": finite_or_none(measure.low),
        "high": finite_or_none(measure.high),
    }
