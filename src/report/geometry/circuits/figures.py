"""Figures of QK and OV circuits."""

from src.geometry.circuits.profile import COPYING
from src.report.artifact_report import NamedChart
from src.report.figures.circuits import circuit_panels, offset_lines
from src.report.figures.grid import grid
from src.report.geometry.circuits.results import TITLES, CircuitResults
from src.report.tables import finite_or_none

# maps of more heads are unreadable
_MOST_CELLS = 2000


def circuit_figures(results: CircuitResults) -> list[NamedChart]:
    """Panels by layer, symmetry by offset, maps of heads."""
    points, lines = [], []
    for each in results.layers:
        kind = f"{each.stack} {each.attention}" if results.several_stacks else "head"
        for name, statistic in each.statistics.items():
            shared = {"statistic": TITLES[name], "layer": each.layer, "stack": kind}
            points += [
                {**shared, "head": head, "value": finite_or_none(value)}
                for head, value in enumerate(statistic.values.tolist())
            ]
            random = None if statistic.random is None else statistic.random[0]
            lines.append(
                {
                    **shared,
                    "value": finite_or_none(float(statistic.values.nanmean())),
                    "others": None if statistic.mean is None else finite_or_none(float(statistic.mean.permuted.mean())),
                    "low": None if random is None else finite_or_none(random.mean - 1.96 * random.sd),
                    "high": None if random is None else finite_or_none(random.mean + 1.96 * random.sd),
                }
            )
    figures = [
        NamedChart(
            "circuits",
            "Circuits of heads by layer",
            circuit_panels(points, lines, "Circuits of heads by layer"),
            "Points: heads; line: their mean. Grey: where 95 % of heads of random matrices lie. Dashed: the mean with "
            "other heads' keys (values) of the same layer: what does not differ from it is no work of single heads.",
        )
    ]
    turned = [each for each in results.layers if each.offsets]
    if turned:
        records = [
            {"layer": results.place(each), "offset": offset, "value": finite_or_none(float(statistic.values.nanmean()))}
            for each in turned
            for offset, statistic in each.offsets.items()
        ]
        title = "Symmetry of QK by offset"
        caption = (
            "Mean over heads of tr(AA)/|A|² of the form between a query and a key so many tokens before it, with the "
            "model's own rotary positions. Random matrices give 1 / d_model."
        )
        figures.append(NamedChart("circuit_offsets", title, offset_lines(records, title), caption))
    if sum(each.n_heads for each in results.layers) <= _MOST_CELLS:
        figures += _maps(results)
    return figures


def _maps(results: CircuitResults) -> list[NamedChart]:
    figures = []
    for name, title, caption in (
        (
            "symmetry",
            "Symmetry of each head's QK form",
            "Blue: symmetric (tokens seek their like, or their opposite); red: antisymmetric.",
        ),
        (COPYING, "Copying of each head's OV circuit", "Blue: writes what it reads; red: writes its opposite."),
    ):
        records = [
            {"layer": results.place(each), "head": head, "value": finite_or_none(value)}
            for each in results.layers
            for head, value in enumerate(each.statistics[name].values.tolist())
        ]
        chart = grid(
            records, title, row="layer", column="head", label=title, diverging=True,
            numbers=len(records) <= 400, row_label="layer", column_label="head", step=(34, 24),
        )  # fmt: skip
        figures.append(NamedChart(f"circuit_map_{name}", title, chart, caption))
    return figures
